"""Messages and Chat Completions: requests, tools and formats of one in the words of the other.

Source: the vendors' API references of `POST /v1/messages` and `POST /v1/chat/completions`. What has no place in the
other and would change the answer is `CannotCarry`; what only says how an exchange is kept, billed, traced or cached
(`metadata`, `store`, `cache_control`) is left out. So is thinking of earlier turns: only who wrote it can read it.
`docs/dialects.md` lists all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.wire.dialect import CannotCarry

Doc = dict[str, Any]

MOST_TOKENS = 8192
"""Messages asks for a limit on the answer, chat does not: what stands where the caller gave none. All models that are
still served take it; an answer that meets it says so (`finish_reason` is `length`)."""

CARRIED_TO_CHAT = (
    "model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "stop_sequences", "tools",
    "tool_choice", "output_config", "output_format", "thinking",
)  # fmt: skip
LEFT_OUT_TO_CHAT = (
    "metadata", "cache_control", "service_tier", "speed", "diagnostics", "user_profile_id", "workspace_id", "betas",
    "anthropic_version",
)  # fmt: skip
CARRIED_FROM_CHAT = (
    "model", "messages", "max_tokens", "max_completion_tokens", "stream", "temperature", "top_p", "stop", "tools",
    "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
)  # fmt: skip
LEFT_OUT_FROM_CHAT = (
    "stream_options", "user", "metadata", "store", "service_tier", "prediction", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options", "safety_identifier",
)  # fmt: skip
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "functions": ([],),
    "verbosity": ("medium",),
    "mcp_servers": ([],),
}
"""Values of what has no place in the other that ask for nothing."""
_EFFORTS = ("low", "medium", "high", "xhigh")
_DATA = re.compile(r"data:([\w.+/-]+);base64,")
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
_OF_A_TOOL = {"type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming"}


def no_place(param: str, where: str, what: str | None = None) -> CannotCarry:
    """What is raised for something without a place in the other dialect."""
    return CannotCarry(f"{what or f'`{param}`'} has no place in {where}, which is what the upstream speaks", param)


def _carried(body: Doc, known: tuple[str, ...], left_out: tuple[str, ...], where: str) -> None:
    for key, value in body.items():
        if key not in known and key not in left_out and value is not None and value not in HARMLESS.get(key, ()):
            raise no_place(key, where)


def list_of(value: Any, name: str) -> list[Any]:
    """`value`, which must be a list. Raises InputError."""
    if not isinstance(value, list):
        raise InputError(f"`{name}` must be a list")
    return value


def _doc(value: Any, name: str) -> Doc:
    if not isinstance(value, dict):
        raise InputError(f"`{name}` must be an object")
    return value


# ---------------------------------------------------------------------------------------------- tools and formats


def tool_to_chat(tool: Any) -> Doc | None:
    """A tool of the caller's own in chat's form; None for the vendor's own tools."""
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom") or not isinstance(tool.get("name"), str):
        return None
    kept = {key: tool[key] for key in ("name", "description", "strict") if tool.get(key) is not None}
    # What else is set changes what the model is told, so it stays: other tools than those without it.
    kept |= {key: value for key, value in tool.items() if key not in _OF_A_TOOL and value not in (None, False, [])}
    schema = tool.get("input_schema")
    return {"type": "function", "function": {**kept, **({} if schema is None else {"parameters": schema})}}


def choice_to_chat(choice: Any) -> Any:
    """A forced tool, or none, in chat's form; None where the model decides."""
    kind = choice.get("type") if isinstance(choice, dict) else choice
    if kind == "tool" and isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice.get("name")}}
    return {None: None, "auto": None, "any": "required"}.get(kind, kind) if isinstance(kind, str | None) else choice


def format_to_chat(config: Any, older: Any, name: str | None) -> Any:
    """The format of the answer in chat's form; None where it is text. Messages has no name for it, so one is given."""
    form = config.get("format") if isinstance(config, dict) else None
    form = older if form is None else form
    if isinstance(form, dict) and form.get("type") == "json_schema":
        told: Doc = {"schema": form.get("schema")}
        return {"type": "json_schema", "json_schema": {"name": name, **told, "strict": True} if name else told}
    return form


def _tool_from_chat(tool: Any) -> Doc:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict):
        raise no_place("tools", "Messages", "a tool that is no function")
    schema = function.get("parameters")
    kept = {key: function[key] for key in ("name", "description", "strict") if function.get(key) is not None}
    return {**kept, "input_schema": {"type": "object", "properties": {}} if schema is None else schema}


def _choice_from_chat(choice: Any, parallel: Any, tools: bool) -> Doc | None:
    named = choice.get("function") if isinstance(choice, dict) else None
    found: Doc
    if isinstance(named, dict):
        found = {"type": "tool", "name": named.get("name")}
    elif choice in (None, "auto", "required", "none"):
        found = {"type": "any" if choice == "required" else choice or "auto"}
    else:
        raise no_place("tool_choice", "Messages")
    if parallel is False and found["type"] != "none":
        found["disable_parallel_tool_use"] = True
    return found if tools and (len(found) > 1 or found["type"] != "auto") else None


def _format_from_chat(form: Any) -> Doc | None:
    kind = form.get("type") if isinstance(form, dict) else None
    if form is None or kind == "text":
        return None
    told = form.get("json_schema") if isinstance(form, dict) and kind == "json_schema" else None
    if not isinstance(told, dict) or not isinstance(told.get("schema"), dict):
        raise no_place("response_format", "Messages", "JSON without a schema (`response_format`)")
    return {"type": "json_schema", "schema": told["schema"]}


# ---------------------------------------------------------------------------------------------- requests to chat


def to_chat(body: Doc) -> Doc:
    """A request of Messages as one of chat. Raises CannotCarry, or InputError for what is none."""
    _carried(body, CARRIED_TO_CHAT, LEFT_OUT_TO_CHAT, "Chat Completions")
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        raise no_place("thinking", "Chat Completions", "a budget for thinking (`thinking`)")
    found: Doc = {"model": body.get("model"), "messages": [*_system(body.get("system"))]}
    turns = list_of(body.get("messages"), "messages")
    if turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant":
        raise no_place("messages", "Chat Completions", "the beginning of an answer, as the last message,")
    for i, turn in enumerate(turns):
        found["messages"] += _turn(_doc(turn, f"messages[{i}]"), f"messages[{i}]")
    renamed = {"max_tokens": "max_completion_tokens", "stop_sequences": "stop"}
    for key in ("max_tokens", "stream", "temperature", "top_p", "stop_sequences"):
        if body.get(key) not in (None, []):
            found[renamed.get(key, key)] = body[key]
    if body.get("stream") is True:
        found["stream_options"] = {"include_usage": True}
    _tools_to_chat(body, found)
    config = body.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None:
        if effort not in _EFFORTS:
            raise no_place("output_config", "Chat Completions", f"effort {effort!r} (`output_config`)")
        found["reasoning_effort"] = effort
    if (form := format_to_chat(config, body.get("output_format"), "answer")) is not None:
        found["response_format"] = form
    return found


def _tools_to_chat(body: Doc, found: Doc) -> None:
    if not body.get("tools"):
        return
    tools = []
    for given in list_of(body["tools"], "tools"):
        tool = tool_to_chat(given)
        if tool is None:
            kind = given.get("type") if isinstance(given, dict) else given
            raise no_place("tools", "Chat Completions", f"the vendor's own tool {kind!r} (`tools`)")
        if odd := tool["function"].keys() - {"name", "description", "strict", "parameters"}:
            raise no_place("tools", "Chat Completions", f"`{min(odd)}` of a tool")
        tools.append(tool)
    found["tools"] = tools
    choice = body.get("tool_choice")
    if (told := choice_to_chat(choice)) is not None:
        found["tool_choice"] = told
    if isinstance(choice, dict) and choice.get("disable_parallel_tool_use") is True:
        found["parallel_tool_calls"] = False


def _system(system: Any) -> Iterator[Doc]:
    """Each block is a message of its own, as it is read (`messages`)."""
    if isinstance(system, str):
        if system:
            yield {"role": "system", "content": system}
        return
    for block in list_of(system or [], "system"):
        if not isinstance(block, dict) or not isinstance(block.get("text"), str):
            raise InputError("`system` must be text, or a list of text blocks")
        yield {"role": "system", "content": block["text"]}


def _turn(turn: Doc, place: str) -> list[Doc]:
    """The messages of one turn: results of tools are messages of their own."""
    role, content = turn.get("role"), turn.get("content")
    if role not in ("user", "assistant", "system"):
        raise InputError(f"`{place}.role` must be user, assistant or system")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    found: list[Doc] = []
    parts: list[Doc] = []
    calls: list[Doc] = []
    for block in list_of(content, f"{place}.content"):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_result" and role == "user":
            if parts:
                found.append({"role": role, "content": parts})
                parts = []
            found.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": _result(block)})
        elif kind == "tool_use" and role == "assistant":
            calls.append(call_to_chat(block))
        elif kind not in ("thinking", "redacted_thinking"):
            parts.append(_part(block, role))
    if calls:
        text = "".join(part["text"] for part in parts)
        return [{"role": role, "content": text if parts else None, "tool_calls": calls}]
    if role != "user" and parts:
        return [{"role": role, "content": parts if len(parts) > 1 else parts[0]["text"]}]
    return [*found, {"role": role, "content": parts}] if parts else found or [{"role": role, "content": ""}]


def _part(block: Any, role: str) -> Doc:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    source = block.get("source") if kind == "image" and role == "user" else None
    if isinstance(source, dict) and not block.get("transformations"):
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
            return {"type": "image_url", "image_url": {"url": url}}
        if source.get("type") == "url":
            return {"type": "image_url", "image_url": {"url": source.get("url")}}
    raise no_place("messages", "Chat Completions", f"content of type {kind!r} in a turn of the {role} (`messages`)")


def _result(block: Doc) -> Any:
    content = block.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part, "tool") for part in list_of(content, "content")]
    return parts if len(parts) > 1 else parts[0]["text"] if parts else ""


def call_to_chat(block: Doc) -> Doc:
    """A call of a tool in chat's form."""
    written = msgspec.json.encode(block.get("input") or {}).decode()
    function = {"name": block.get("name"), "arguments": written}
    return {"id": block.get("id"), "type": "function", "function": function}


# ---------------------------------------------------------------------------------------------- requests from chat


def from_chat(body: Doc) -> Doc:
    """A request of chat as one of Messages. Raises CannotCarry, or InputError for what is none."""
    _carried(body, CARRIED_FROM_CHAT, LEFT_OUT_FROM_CHAT, "Messages")
    system, messages = _turns_from_chat(list_of(body.get("messages"), "messages"))
    limits = [body[key] for key in ("max_completion_tokens", "max_tokens") if isinstance(body.get(key), int)]
    found: Doc = {
        "model": body.get("model"),
        "max_tokens": min(limits) if limits else MOST_TOKENS,
        "messages": messages,
    }
    if system:
        alone = len(system) == 1 and system[0].keys() == {"type", "text"}
        found["system"] = system[0]["text"] if alone else system
    heat = body.get("temperature")
    if isinstance(heat, int | float) and heat > 1:
        raise no_place("temperature", "Messages", "a `temperature` above 1")
    for key in ("stream", "temperature", "top_p"):
        if body.get(key) is not None:
            found[key] = body[key]
    if body.get("stop"):
        found["stop_sequences"] = [body["stop"]] if isinstance(body["stop"], str) else body["stop"]
    if body.get("tools"):
        found["tools"] = [_tool_from_chat(tool) for tool in list_of(body["tools"], "tools")]
    choice = _choice_from_chat(body.get("tool_choice"), body.get("parallel_tool_calls"), "tools" in found)
    if choice is not None:
        found["tool_choice"] = choice
    config: Doc = {}
    if (form := _format_from_chat(body.get("response_format"))) is not None:
        config["format"] = form
    if (effort := body.get("reasoning_effort")) is not None:
        if effort not in _EFFORTS:
            raise no_place("reasoning_effort", "Messages", f"`reasoning_effort` {effort!r}")
        config["effort"] = effort
    return {**found, "output_config": config} if config else found


def _turns_from_chat(messages: list[Any]) -> tuple[list[Doc], list[Doc]]:
    """The instructions at the start as blocks, and the turns; results of tools that follow each other are one turn."""
    system: list[Doc] = []
    turns: list[Doc] = []
    results: list[Doc] = []
    for i, given in enumerate(messages):
        message = _doc(given, f"messages[{i}]")
        role = message.get("role")
        if message.get("name") is not None and role != "tool":
            raise no_place("messages", "Messages", f"`messages[{i}].name`")
        if role == "tool":
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result_from_chat(message))
            continue
        results = []
        if role in ("system", "developer"):
            blocks = _instructions(message)
            if turns:
                turns.append({"role": "system", "content": blocks[0]["text"] if blocks else ""})
            else:
                system += blocks
        elif role in ("user", "assistant"):
            turns.append({"role": role, "content": _content(message, role)})
        else:
            raise no_place("messages", "Messages", f"a message of role {role!r}")
    if turns and turns[-1]["role"] == "assistant":
        raise no_place("messages", "Messages", "a conversation that ends with the assistant's own turn")
    return system, turns


def _instructions(message: Doc) -> list[Doc]:
    """One block for each message; texts of parts are joined as they are read (`chat`)."""
    blocks = blocks_of(message.get("content"), "system")
    if isinstance(blocks, str):
        return [{"type": "text", "text": blocks}] if blocks else []
    told = [block["cache_control"] for block in blocks if "cache_control" in block]
    one: Doc = {"type": "text", "text": "\n".join(block["text"] for block in blocks)}
    return [{**one, "cache_control": told[-1]} if told else one]


def _content(message: Doc, role: str) -> Any:
    for key in ("function_call", "audio"):
        if message.get(key):
            raise no_place("messages", "Messages", f"`{key}` of a message")
    content = message.get("content")
    blocks = blocks_of(message.get("refusal") or "" if content is None else content, role)
    calls = list_of(message.get("tool_calls") or [], "tool_calls")
    if not calls:
        return blocks
    said = [{"type": "text", "text": blocks}] if isinstance(blocks, str) and blocks else blocks or []
    return [*said, *map(call_from_chat, calls)]


def blocks_of(content: Any, role: str) -> Any:
    """What a chat message says: text, or blocks. Raises CannotCarry."""
    if content is None or isinstance(content, str):
        return content or ""
    return [_block(part, role) for part in list_of(content, "content")]


def _block(part: Any, role: str) -> Doc:
    kind = part.get("type") if isinstance(part, dict) else None
    block: Doc | None = None
    if kind == "text" and isinstance(part.get("text"), str):
        block = {"type": "text", "text": part["text"]}
    image = part.get("image_url") if kind == "image_url" and role == "user" else None
    url = image.get("url") if isinstance(image, dict) else image
    if isinstance(url, str):
        held = _DATA.match(url)
        if held:
            source = {"type": "base64", "media_type": held[1], "data": url[held.end() :]}
        else:
            source = {"type": "url", "url": url}
        block = {"type": "image", "source": source}
    if block is None:
        raise no_place("messages", "Messages", f"content of type {kind!r} in a turn of the {role} (`messages`)")
    return {**block, "cache_control": part["cache_control"]} if part.get("cache_control") else block


def _result_from_chat(message: Doc) -> Doc:
    return {
        "type": "tool_result",
        "tool_use_id": _id(message.get("tool_call_id")),
        "content": blocks_of(message.get("content"), "tool"),
    }


def call_from_chat(call: Any) -> Doc:
    """The reverse. Raises CannotCarry."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise no_place("messages", "Messages", "a call of what is no function (`messages`)")
    name = function.get("name")
    return {"type": "tool_use", "id": _id(call.get("id")), "name": name, "input": input_of(function, "messages")}


def _id(value: Any) -> Any:
    """Ids of calls are letters, digits, dashes and underscores there."""
    return _NO_ID.sub("_", value) if isinstance(value, str) else value


def input_of(function: Doc, where: str) -> Doc:
    """The arguments of a call, which are an object there. Raises CannotCarry."""
    written = function.get("arguments") or "{}"
    try:
        found = decode(written) if isinstance(written, str) else written
    except InputError:
        found = None
    if not isinstance(found, dict):
        raise no_place(where, "Messages", f"a call of {function.get('name')!r} whose arguments are no JSON object")
    return found
