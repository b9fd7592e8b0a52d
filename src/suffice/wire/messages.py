"""Anthropic Messages: what routing needs of a request, and a specialist's answer in its shape.

Source: the vendor's API reference for `POST /v1/messages`. A request is read into the same nouns as the chat request
that says the same: each block of `system` is an instructing message, results of tools are messages of their own, tools
and formats stand in chat's form. So a task learned from either answers both.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Message, Request, Usage
from suffice.core.values import Value
from suffice.wire import lenient
from suffice.wire.chat import is_count
from suffice.wire.dialect import Asked, Dialect, Told
from suffice.wire.messages_answers import answer_from_chat, answer_to_chat
from suffice.wire.messages_chat import choice_to_chat, format_to_chat, from_chat, to_chat, tool_to_chat
from suffice.wire.messages_stream import FromChat, ToChat, assemble, named

_encode = msgspec.json.encode
_sorted = msgspec.json.Encoder(order="deterministic").encode


class _Head(msgspec.Struct):
    """The top level of a body; everything stays raw until someone asks."""

    messages: msgspec.Raw = msgspec.Raw()
    model: Any = None
    stream: Any = None


class _Rest(msgspec.Struct):
    messages: list[Any]
    system: Any = None
    tools: Any = None
    tool_choice: Any = None
    output_config: Any = None
    output_format: Any = None
    stop_sequences: Any = None
    max_tokens: Any = None
    thinking: Any = None
    container: Any = None
    mcp_servers: Any = None


_head = msgspec.json.Decoder(_Head)
_rest = msgspec.json.Decoder(_Rest)


class MessagesRequest:
    """A body as received, and what it says. Only the top level is read at once; `request` reads the messages.

    Raises InputError (one sentence) when the body is not a JSON object with a list of messages.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        head, self._strict = lenient.head(body, _head, "messages")
        lenient.listed(head.messages, "messages")
        self.model = head.model if isinstance(head.model, str) else ""
        self.stream = head.stream is True

    @cached_property
    def request(self) -> Request:
        """The request in the nouns of the system. Odd shapes are not errors: they are `unsupported`."""
        rest = lenient.rest(self.body, _rest, self._strict)
        if rest is None:
            return Request(model=self.model, messages=(), unsupported=lenient.NOT_STRICT)
        turns = (message for turn in rest.messages for message in _turn(turn))
        form = format_to_chat(rest.output_config, rest.output_format, None)
        limit = rest.max_tokens
        return Request(
            model=self.model,
            messages=(*_system(rest.system), *turns),
            tools=_tools(rest.tools, rest.tool_choice),
            response_format=_sorted(form).decode() if form is not None else "",
            unsupported=_unsupported(rest),
            max_tokens=limit if isinstance(limit, int) else None,
        )


def _system(system: Any) -> Iterator[Message]:
    if isinstance(system, str):
        if system:
            yield Message("system", system)
        return
    for block in system if isinstance(system, list) else [None] if system is not None else []:
        text = block.get("text") if isinstance(block, dict) else None
        yield Message("system", text if isinstance(text, str) else "", isinstance(text, str))


def _turn(turn: Any) -> Iterator[Message]:
    """The messages of one turn: each tool's result is one, what stands between them is one."""
    if not isinstance(turn, dict):
        yield Message("", "", False)
        return
    given = turn.get("role")
    role = given if isinstance(given, str) else ""
    content = turn.get("content")
    if isinstance(content, str):
        yield Message(role, content)
        return
    texts: list[str] = []
    plain, some = True, False
    told = False
    for block in content if isinstance(content, list) else [None]:
        if not isinstance(block, dict):
            plain, some = False, True
            continue
        kind = block.get("type")
        if kind == "tool_result":
            if some:
                yield Message(role, "\n".join(texts), plain)
            texts, plain, some, told = [], True, False, True
            yield _result(block)
        elif kind == "text" and isinstance(block.get("text"), str):
            texts.append(block["text"])
            some = True
        elif kind not in ("thinking", "redacted_thinking"):
            plain, some = False, True
    if some or not told:
        yield Message(role, "\n".join(texts), plain)


def _result(block: dict[str, Any]) -> Message:
    content = block.get("content")
    if content is None or isinstance(content, str):
        return Message("tool", content or "")
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    said = [text for text in texts if isinstance(text, str)]
    return Message("tool", "\n".join(said), len(said) == len(texts))


def _tools(tools: Any, choice: Any) -> str:
    given = tools if isinstance(tools, list) else []
    offered = [tool_to_chat(tool) or tool for tool in given]
    parts = [part for part in (offered, choice_to_chat(choice) if offered else None) if part]
    return _sorted(parts).decode() if parts else ""


def _unsupported(rest: _Rest) -> str:
    if rest.stop_sequences not in (None, []):
        return "stop"
    if rest.container or rest.mcp_servers:
        return "tools of the vendor's own"
    tools = rest.tools if isinstance(rest.tools, list) else []
    if any(tool_to_chat(tool) is None for tool in tools):
        return "tools of the vendor's own"
    # A call without the thinking before it could not be sent back: with a budget the vendor asks for both.
    if tools and isinstance(rest.thinking, dict) and rest.thinking.get("type") == "enabled":
        return "thinking with tools"
    return ""


# ---------------------------------------------------------------------------------------------- answers


def answer_of(message: Any) -> Value:
    """The answer in a message: its text, or `{"tool_calls": [...]}`. What was thought is no part of it.

    Raises InputError when there is none: cut off, refused, paused, or empty.
    """
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        raise InputError("the response has no content")
    if message.get("error"):
        raise InputError("the response broke off with an error")
    if message.get("stop_reason") in ("max_tokens", "model_context_window_exceeded", "pause_turn"):
        raise InputError(f"the response was cut off ({message['stop_reason']})")
    if message.get("stop_reason") == "refusal":
        raise InputError("the response is a refusal")
    blocks = [block for block in content if isinstance(block, dict)]
    calls: list[Value] = [_call(block) for block in blocks if block.get("type") == "tool_use"]
    if calls:
        return {"tool_calls": calls}
    said = [block.get("text") for block in blocks if block.get("type") == "text"]
    texts = [text for text in said if isinstance(text, str)]
    if not texts:
        raise InputError("the response has neither text nor tool calls")
    return "".join(texts)


def _call(block: dict[str, Any]) -> dict[str, Value]:
    if not isinstance(block.get("name"), str):
        raise InputError("a tool call in the response has no name")
    if isinstance(block.get("input"), str):
        raise InputError(f"the arguments of the call of {block['name']} are not JSON")
    return {"name": block["name"], "arguments": block.get("input") or {}}


def usage_of(document: Any) -> Usage | None:
    """Tokens as told in a message; None where it tells none. The vendor counts what its cache gave or took apart."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict) or usage.get("unknown"):
        return None
    fresh, completion = usage.get("input_tokens"), usage.get("output_tokens")
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    if not (is_count(fresh) and is_count(completion) and is_count(cached) and is_count(written)):
        return None
    return Usage(prompt=fresh + cached + written, completion=completion, cached=cached, written=written)


def whole(answer: Rendered, told: Told, asked: Asked) -> bytes:
    """A whole message, as the vendor's SDKs expect it."""
    blocks = [] if not answer.content else [{"type": "text", "text": answer.content}]
    blocks += _calls(answer, told.record)
    return _encode(_message(answer, told, blocks, _stop(answer), answer.tokens))


def events(answer: Rendered, told: Told, asked: Asked) -> list[bytes]:
    """The same as server-sent events."""
    found = [named("message_start", {"message": _message(answer, told, [], None, 0)})]
    blocks: list[tuple[dict[str, Any], dict[str, Any]]] = []
    if answer.content:
        blocks.append(({"type": "text", "text": ""}, {"type": "text_delta", "text": answer.content}))
    for call, (_, written) in zip(_calls(answer, told.record), answer.calls, strict=True):
        blocks.append(({**call, "input": {}}, {"type": "input_json_delta", "partial_json": written}))
    for i, (block, delta) in enumerate(blocks):
        found.append(named("content_block_start", {"index": i, "content_block": block}))
        found.append(named("content_block_delta", {"index": i, "delta": delta}))
        found.append(named("content_block_stop", {"index": i}))
    end = {"delta": {"stop_reason": _stop(answer), "stop_sequence": None}, "usage": {"output_tokens": answer.tokens}}
    return [*found, named("message_delta", end), named("message_stop", {})]


def _message(answer: Rendered, told: Told, blocks: Any, stop: str | None, tokens: int) -> dict[str, Any]:
    usage = {"input_tokens": told.prompt_tokens, "output_tokens": tokens}
    usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": f"msg_{told.record}",
        "type": "message",
        "role": "assistant",
        "model": told.model,
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _calls(answer: Rendered, record: str) -> list[dict[str, Any]]:
    return [
        {"type": "tool_use", "id": f"toolu_{record}_{i}", "name": name, "input": _input(arguments)}
        for i, (name, arguments) in enumerate(answer.calls)
    ]


def _input(arguments: str) -> Any:
    """The arguments, as they were written: no number is changed on the way."""
    return msgspec.Raw(arguments.encode())


def _stop(answer: Rendered) -> str:
    return "tool_use" if answer.calls else "end_turn"


# ---------------------------------------------------------------------------------------------- errors

_KINDS = {
    "not_found": "not_found_error",
    "unknown_record": "not_found_error",
    "body_too_large": "request_too_large",
    "model_not_found": "not_found_error",
    "egress_denied": "permission_error",
    "model_not_allowed": "permission_error",
    "task_not_allowed": "permission_error",
    "no_price": "permission_error",
    "upstream_timeout": "timeout_error",
}
_BY_KIND = {"server_error": "api_error", "insufficient_quota": "rate_limit_error"}


def error(message: str, code: str, kind: str = "invalid_request_error", param: str | None = None) -> bytes:
    """An error body as the vendor's SDKs read it; `code` and `param` stand beside it, as in other dialects."""
    told = {"type": _KINDS.get(code) or _BY_KIND.get(kind, kind), "message": message, "code": code, "param": param}
    return _encode({"type": "error", "error": told, "request_id": None})


DIALECT = Dialect(
    name="messages",
    path="/messages",
    read=MessagesRequest,
    whole=whole,
    events=events,
    assemble=assemble,
    answer_of=answer_of,
    usage_of=usage_of,
    error=error,
    to_chat=to_chat,
    from_chat=from_chat,
    answer_to_chat=answer_to_chat,
    answer_from_chat=answer_from_chat,
    stream_to_chat=ToChat,
    stream_from_chat=FromChat,
    says={"type": "message"},
)
