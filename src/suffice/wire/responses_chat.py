"""Responses and Chat Completions: requests, tools and formats of one in the words of the other.

Source: the vendor's API reference of both, and of "Migrate to the Responses API". What has no place in the other is
`CannotCarry`; what only says how an exchange is kept, billed or traced (`store`, `metadata`, `include` of encrypted
reasoning) is left out, for the answer is the same without it. So are reasoning items of earlier turns: only the vendor
that wrote them can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from suffice.core.errors import InputError
from suffice.wire.dialect import CannotCarry

Doc = dict[str, Any]

_SAME = (
    "model",
    "temperature",
    "top_p",
    "parallel_tool_calls",
    "user",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
)
_TO_CHAT = {*_SAME, "stream", "input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens"}
_NOT_TOLD_TO_CHAT = {
    "store",
    "metadata",
    "stream_options",
    "max_tool_calls",
    "prompt_cache_retention",
    "prompt_cache_options",
    "client_metadata",
    "background_options",
}
_INCLUDED = ("reasoning.encrypted_content",)
_FROM_CHAT = {
    *_SAME,
    "stream",
    "messages",
    "tools",
    "tool_choice",
    "response_format",
    "verbosity",
    "reasoning_effort",
    "max_tokens",
    "max_completion_tokens",
    "store",
}
_NOT_TOLD_FROM_CHAT = {"stream_options", "metadata", "prompt_cache_retention", "prompt_cache_options"}
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "background": (False,),
    "truncation": ("disabled",),
    "top_logprobs": (0,),
    "include": ([],),
    "n": (1,),
    "logprobs": (False,),
    "stop": ("", []),
    "modalities": (["text"],),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "functions": ([],),
}
"""Values of what has no place in the other that ask for nothing."""


def no_place(param: str, where: str) -> CannotCarry:
    """What is raised for something without a place in the other dialect."""
    return CannotCarry(f"`{param}` has no place in {where}, which is what the upstream speaks", param)


def _carried(body: Doc, known: set[str], left_out: set[str], where: str) -> None:
    for key, value in body.items():
        if key not in known and key not in left_out and value is not None and value not in _HARMLESS.get(key, ()):
            raise no_place(key, where)


# ---------------------------------------------------------------------------------------------- tools and formats


def tool_to_chat(tool: Any) -> Doc | None:
    """A function tool in chat's form, without what says nothing; None for any other tool."""
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
        return None
    kept = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    return {"type": "function", "function": {**kept, "strict": True} if tool.get("strict") else kept}


def tool_from_chat(tool: Any) -> Doc | None:
    """The reverse. Chat's tools are strict only where they say so, those of Responses unless they say otherwise."""
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    kept = {key: function[key] for key in ("name", "description") if function.get(key) is not None}
    parameters = function.get("parameters")
    return {"type": "function", **kept, "parameters": parameters, "strict": function.get("strict") is True}


def choice_to_chat(choice: Any) -> Any:
    """A tool choice in chat's form; None for what chat has no words for."""
    if not isinstance(choice, dict):
        return choice if isinstance(choice, str) else None
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools" and isinstance(choice.get("tools"), list):
        tools = [choice_to_chat(tool) for tool in choice["tools"]]
        told = {"mode": choice.get("mode"), "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": told} if None not in tools else None
    return None


def choice_from_chat(choice: Any) -> Any:
    """The reverse."""
    if not isinstance(choice, dict):
        return choice if isinstance(choice, str) else None
    if choice.get("type") == "function" and isinstance(choice.get("function"), dict):
        return {"type": "function", "name": choice["function"].get("name")}
    allowed = choice.get("allowed_tools")
    if choice.get("type") == "allowed_tools" and isinstance(allowed, dict) and isinstance(allowed.get("tools"), list):
        tools = [choice_from_chat(tool) for tool in allowed["tools"]]
        return {"type": "allowed_tools", "mode": allowed.get("mode"), "tools": tools} if None not in tools else None
    return None


def format_to_chat(form: Any) -> Any:
    """`text.format` as chat's `response_format`."""
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return form
    told = {key: value for key, value in form.items() if key != "type" and value is not None}
    return {"type": "json_schema", "json_schema": told}


def format_from_chat(form: Any) -> Any:
    """The reverse."""
    if not isinstance(form, dict) or not isinstance(form.get("json_schema"), dict):
        return form
    return {"type": "json_schema", **form["json_schema"]}


# ---------------------------------------------------------------------------------------------- requests


def to_chat(body: Doc) -> Doc:
    """The request as a chat body. Raises CannotCarry."""
    where = "Chat Completions"
    included = body.get("include")
    if isinstance(included, list):
        body = {**body, "include": [name for name in included if name not in _INCLUDED]}
    _carried(body, _TO_CHAT, _NOT_TOLD_TO_CHAT, where)
    found: Doc = {key: body[key] for key in _SAME if body.get(key) is not None}
    found["messages"] = _messages(body)
    _put(found, "tools", _each(body.get("tools"), tool_to_chat, "tools", where))
    _put(found, "tool_choice", _all_of(body.get("tool_choice"), choice_to_chat, "tool_choice", where))
    text = _object(body, "text", ("format", "verbosity"), where)
    form = format_to_chat(text.get("format"))
    _put(found, "response_format", form if form != {"type": "text"} else None)
    _put(found, "verbosity", text.get("verbosity"))
    # A summary of the reasoning is beside the answer.
    reasoning = _object(body, "reasoning", ("effort", "summary", "generate_summary"), where)
    _put(found, "reasoning_effort", reasoning.get("effort"))
    _put(found, "max_completion_tokens", body.get("max_output_tokens"))
    if body.get("stream") is True:
        found |= {"stream": True, "stream_options": {"include_usage": True}}
    return found


def from_chat(body: Doc) -> Doc:
    """A chat body as a request of this dialect. Raises CannotCarry."""
    where = "Responses"
    _carried(body, _FROM_CHAT, _NOT_TOLD_FROM_CHAT, where)
    found: Doc = {key: body[key] for key in _SAME if body.get(key) is not None}
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise InputError("`messages` must be a list")
    found["input"] = [item for i, message in enumerate(messages) for item in _items(message, f"messages[{i}]")]
    _put(found, "tools", _each(body.get("tools"), tool_from_chat, "tools", where))
    _put(found, "tool_choice", _all_of(body.get("tool_choice"), choice_from_chat, "tool_choice", where))
    text: Doc = {}
    form = body.get("response_format")
    _put(text, "format", format_from_chat(form))
    _put(text, "verbosity", body.get("verbosity"))
    _put(found, "text", text or None)
    if body.get("reasoning_effort") is not None:
        found["reasoning"] = {"effort": body["reasoning_effort"]}
    limits = [body[key] for key in ("max_completion_tokens", "max_tokens") if isinstance(body.get(key), int)]
    _put(found, "max_output_tokens", min(limits) if limits else None)
    if body.get("stream") is True:
        found["stream"] = True
    # What chat does not keep unless asked, this dialect keeps unless told.
    found["store"] = body.get("store") is True
    return found


def _put(found: Doc, key: str, value: Any) -> None:
    if value is not None:
        found[key] = value


def _each(tools: Any, turn: Callable[[Any], Any], name: str, where: str) -> list[Any] | None:
    if not tools:
        return None
    turned = [turn(tool) for tool in tools] if isinstance(tools, list) else [None]
    if None in turned:
        raise no_place(f"{name}[{turned.index(None)}]", where)
    return turned


def _all_of(value: Any, turn: Callable[[Any], Any], name: str, where: str) -> Any:
    turned = turn(value)
    if turned is None and value is not None:
        raise no_place(name, where)
    return turned


def _object(body: Doc, name: str, known: tuple[str, ...], where: str) -> Doc:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"`{name}` must be an object")
    for key in value or {}:
        if key not in known:
            raise no_place(f"{name}.{key}", where)
    return value or {}


# ---------------------------------------------------------------------------------------------- messages


def _messages(body: Doc) -> list[Doc]:
    found: list[Doc] = []
    if body.get("instructions") is not None:
        found.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    if isinstance(given, str):
        return [*found, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise InputError("`input` must be text or a list")
    for i, item in enumerate(given):
        _add(found, item, f"input[{i}]")
    return found


def _add(found: list[Doc], item: Any, place: str) -> None:
    """Put an item behind the messages; calls join the assistant's message that they belong to."""
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "message":
        found.append({"role": item.get("role"), "content": _content(item.get("content"), place)})
    elif kind == "function_call":
        call = {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        if not found or found[-1]["role"] != "assistant":
            found.append({"role": "assistant", "content": None})
        found[-1].setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        content = _content(item.get("output"), place)
        found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind != "reasoning":
        raise no_place(place, "Chat Completions")


def _content(content: Any, place: str) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(f"`{place}` has no content")
    parts = [_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Any, place: str) -> Doc:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "refusal":
        return {"type": "refusal", "refusal": part.get("refusal")}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        detail = {"detail": part["detail"]} if part.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file" and part.get("file_url") is None:
        told = {key: part[key] for key in ("file_data", "file_id", "filename") if part.get(key) is not None}
        return {"type": "file", "file": told}
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise no_place(place, "Chat Completions")


def _items(message: Any, place: str) -> list[Doc]:
    """A chat message as items."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise no_place(place, "Responses")
    content, calls = message.get("content"), message.get("tool_calls") or []
    for key in ("audio", "function_call", *(("name",) if role != "tool" else ())):
        if message.get(key) is not None:
            raise no_place(f"{place}.{key}", "Responses")
    if role == "tool":
        output = _parts(content, role, place)
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": output}]
    found: list[Doc] = []
    if message.get("refusal") is not None and not content:
        content = [{"type": "refusal", "refusal": message["refusal"]}]
    if content or not calls:
        found.append({"type": "message", "role": role, "content": _parts(content, role, place)})
    return found + [_called(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls)]


def _called(call: Any, place: str) -> Doc:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise no_place(place, "Responses")
    told = {"name": function.get("name"), "arguments": function.get("arguments")}
    return {"type": "function_call", "call_id": call.get("id"), **told}


def _parts(content: Any, role: str, place: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InputError(f"`{place}.content` must be text or a list")
    return [_part_from_chat(part, role, f"{place}.content[{i}]") for i, part in enumerate(content)]


def _part_from_chat(part: Any, role: str, place: str) -> Doc:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text":
        said = {"type": "output_text", "annotations": []} if role == "assistant" else {"type": "input_text"}
        return {**said, "text": part.get("text")}
    if kind == "refusal" and role == "assistant":
        return {"type": "refusal", "refusal": part.get("refusal")}
    if kind == "image_url" and isinstance(part.get("image_url"), dict):
        image = part["image_url"]
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail") or "auto"}
    if kind == "file" and isinstance(part.get("file"), dict):
        return {"type": "input_file", **part["file"]}
    if kind == "input_audio":
        return dict(part)
    raise no_place(place, "Responses")
