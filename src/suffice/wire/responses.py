"""OpenAI Responses: what routing needs of a request, and a specialist's answer in its shape.

Source: the vendor's API reference for `POST /v1/responses`. A request is read as the chat request that asks the same
(`responses_chat`), so that a task learned from one answers in the other. Fields that are not named here are relayed as
they came and never looked at.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Message, Request
from suffice.core.values import Value, decode
from suffice.wire import chat, lenient
from suffice.wire.dialect import Asked, Dialect, Told
from suffice.wire.responses_chat import choice_to_chat, format_to_chat, from_chat, to_chat, tool_to_chat
from suffice.wire.responses_document import OURS, answer_from_chat, answer_to_chat, document, reply, said_by, usage_in
from suffice.wire.responses_stream import FromChat, ToChat, Writer, assemble

_encode = msgspec.json.encode
_sorted = msgspec.json.Encoder(order="deterministic").encode


class _Head(msgspec.Struct):
    """The top level of a body; everything stays raw until someone asks."""

    input: msgspec.Raw = msgspec.Raw()
    model: Any = None
    stream: Any = None
    background: Any = None
    conversation: Any = None
    previous_response_id: Any = None


class _Rest(msgspec.Struct):
    input: Any = None
    instructions: Any = None
    tools: Any = None
    tool_choice: Any = None
    text: Any = None
    max_output_tokens: Any = None
    top_logprobs: Any = None
    include: Any = None
    prompt: Any = None
    moderation: Any = None


_head = msgspec.json.Decoder(_Head)
_rest = msgspec.json.Decoder(_Rest)


class ResponsesRequest:
    """A body as received, and what it says. Only the top level is read at once; `request` reads the input.

    Raises InputError (one sentence) when the body is not a JSON object, or its input is neither text nor a list.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        head, self._strict = lenient.head(body, _head, "input")
        if bytes(head.input)[:1] not in (b"", b"n", b'"', b"["):
            raise InputError("`input` must be text or a list")
        self.model = head.model if isinstance(head.model, str) else ""
        self.stream = head.stream is True
        earlier = head.previous_response_id
        self.earlier = earlier if isinstance(earlier, str) else ""
        self.background = bool(head.background)
        self.conversation = bool(head.conversation)

    @cached_property
    def request(self) -> Request:
        """The request in the nouns of the system. Odd shapes are not errors: they are `unsupported`."""
        rest = lenient.rest(self.body, _rest, self._strict)
        if rest is None:
            return Request(model=self.model, messages=(), unsupported=lenient.NOT_STRICT)
        messages, odd = _messages(rest)
        tools, other = _tools(rest)
        form = format_to_chat(rest.text.get("format")) if isinstance(rest.text, dict) else None
        limit = rest.max_output_tokens
        return Request(
            model=self.model,
            messages=messages,
            tools=_sorted(tools).decode() if tools else "",
            response_format=_sorted(_told(form)).decode() if _is_format(form) else "",
            unsupported=self._elsewhere() or _unsupported(rest) or odd or other,
            max_tokens=limit if isinstance(limit, int) else None,
        )

    def _elsewhere(self) -> str:
        """What makes the request one that is not all here: earlier turns that someone else keeps."""
        for name in ("background", "conversation"):
            if getattr(self, name):
                return name
        return "previous_response_id" if self.earlier else ""


def _tools(rest: _Rest) -> tuple[list[Any], str]:
    """Tools and a forced choice as chat has them, and what of them is no function."""
    given = rest.tools or []
    tools = [tool_to_chat(tool) for tool in given] if isinstance(given, list) else [None]
    forced = None if rest.tool_choice in (None, "auto") else choice_to_chat(rest.tool_choice)
    odd = None in tools or (rest.tool_choice is not None and choice_to_chat(rest.tool_choice) is None)
    return [part for part in (tools, forced) if part], "tools" if odd else ""


def _is_format(form: Any) -> bool:
    return isinstance(form, dict) and form.get("type") not in (None, "text")


def _told(form: Any) -> Any:
    """A format without what says nothing: `strict` is off unless it is on."""
    schema = form.get("json_schema")
    if isinstance(schema, dict) and schema.get("strict") is False:
        return {**form, "json_schema": {key: value for key, value in schema.items() if key != "strict"}}
    return form


def _unsupported(rest: _Rest) -> str:
    if rest.prompt:
        return "prompt"
    if rest.top_logprobs or (isinstance(rest.include, list) and "message.output_text.logprobs" in rest.include):
        return "logprobs"
    return "moderation" if rest.moderation else ""


def _messages(rest: _Rest) -> tuple[tuple[Message, ...], str]:
    """The turns as chat would have them, and the kind of an item that is none."""
    found: list[Message] = []
    odd = ""
    if isinstance(rest.instructions, str):
        found.append(Message("system", rest.instructions))
    elif rest.instructions is not None:
        odd = "instructions"
    if isinstance(rest.input, str):
        return (*found, Message("user", rest.input)), odd
    for item in rest.input or []:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if kind == "message":
            found.append(_message(item.get("role"), item.get("content")))
        elif kind == "function_call":
            # Calls belong to the assistant's message before them; they are one turn.
            said = found.pop().text if found and found[-1].role == "assistant" else ""
            found.append(Message("assistant", said, False))
        elif kind == "function_call_output":
            found.append(_message("tool", item.get("output")))
        elif kind != "reasoning":
            odd = kind if isinstance(kind, str) else "input"
    return tuple(found), odd


def _message(given: Any, content: Any) -> Message:
    role = given if isinstance(given, str) else ""
    if content is None or isinstance(content, str):
        return Message(role, content or "")
    texts: list[str] = []
    plain = True
    for part in content if isinstance(content, list) else [None]:
        told = part if isinstance(part, dict) else {}
        if told.get("type") in ("input_text", "output_text", "text") and isinstance(told.get("text"), str):
            texts.append(told["text"])
        else:
            plain = False
    return Message(role, "\n".join(texts), plain)


# ---------------------------------------------------------------------------------------------- answers


def answer_of(response: Any) -> Value:
    """The answer in a response: its text, or `{"tool_calls": [...]}`.

    Raises InputError when there is none: not whole, failed, a refusal, or an item that is neither text nor a call of a
    function.
    """
    output = response.get("output") if isinstance(response, dict) else None
    if not isinstance(output, list):
        raise InputError("the response has no output")
    if response.get("status", "completed") != "completed":
        raise InputError(f"the response is {response['status']}")
    calls: list[Value] = []
    for item in output:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "function_call":
            calls.append(_call(item))
        elif kind not in ("message", "reasoning"):
            raise InputError(f"the response holds a {kind}")
    text, refusal = said_by(output)
    if refusal:
        raise InputError("the response is a refusal")
    if calls:
        return {"tool_calls": calls}
    if text is None:
        raise InputError("the response has neither text nor tool calls")
    return text


def _call(item: Any) -> dict[str, Value]:
    if not isinstance(item.get("name"), str):
        raise InputError("a tool call in the response has no function name")
    arguments = item.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = decode(arguments)
        except InputError as error:
            raise InputError(f"the arguments of the call of {item['name']} are not JSON") from error
    return {"name": item["name"], "arguments": arguments}


def _calls(answer: Rendered, record: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"call_{record}_{i}", {"name": name, "arguments": written}) for i, (name, written) in enumerate(answer.calls)
    ]


def _usage(answer: Rendered, prompt_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": answer.tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt_tokens + answer.tokens,
    }


def whole(answer: Rendered, told: Told, asked: Asked) -> bytes:
    """A whole response, as the vendor's SDKs expect it."""
    id = OURS + told.record
    return _encode(
        document(
            decode(asked.body),
            id=id,
            created=told.created,
            model=told.model,
            output=reply(id, answer.content, _calls(answer, told.record), status="completed"),
            usage=_usage(answer, told.prompt_tokens),
        )
    )


def events(answer: Rendered, told: Told, asked: Asked) -> list[bytes]:
    """The same as server-sent events."""
    writer = Writer(decode(asked.body), id=OURS + told.record, created=told.created, model=told.model)
    written = writer.begin()
    if answer.content is not None and not answer.calls:
        written += writer.text(answer.content)
    for i, (call, function) in enumerate(_calls(answer, told.record)):
        written += writer.call(i, call, function)
    return written + writer.end(_usage(answer, told.prompt_tokens))


def earlier(asked: Asked) -> str:
    """The id of the response that a request follows on, "" for none."""
    return asked.earlier if isinstance(asked, ResponsesRequest) else ""


def following(asked: Asked, before: Any, answer: Any) -> ResponsesRequest:
    """A request with the turns of the one before, and its answer, put in. Instructions are not carried over.

    Ids of items are left out: nobody else knows them. Raises InputError where a body is no JSON object.
    """
    body = decode(asked.body)
    if not all(isinstance(one, dict) for one in (body, before, answer)):
        raise InputError("the request body is not a JSON object")
    said = [_without_id(item) for item in answer.get("output") or [] if item.get("type") != "reasoning"]
    turns = [*_items(before.get("input")), *said, *_items(body.get("input"))]
    told = {key: value for key, value in body.items() if key != "previous_response_id"}
    return ResponsesRequest(_encode({**told, "input": turns}))


def listed(request: dict[str, Any], name: str) -> dict[str, Any]:
    """The input of a response, as the vendor lists it."""
    items = [{"id": f"item_{name}_{i}", **item} for i, item in enumerate(_items(request.get("input")))]
    ends = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return {"object": "list", "data": items, "first_id": ends[0], "last_id": ends[1], "has_more": False}


def _items(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def _without_id(item: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in item.items() if key not in ("id", "status")}
    if isinstance(kept.get("content"), list):
        kept["content"] = [{key: value for key, value in part.items() if key != "logprobs"} for part in kept["content"]]
    return kept


DIALECT = Dialect(
    name="responses",
    path="/responses",
    read=ResponsesRequest,
    whole=whole,
    events=events,
    assemble=assemble,
    answer_of=answer_of,
    usage_of=usage_in,
    error=chat.error,
    to_chat=to_chat,
    from_chat=from_chat,
    answer_to_chat=answer_to_chat,
    answer_from_chat=answer_from_chat,
    stream_to_chat=ToChat,
    stream_from_chat=FromChat,
    says={"object": "response"},
    earlier=earlier,
)
