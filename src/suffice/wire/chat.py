"""OpenAI Chat Completions: what routing needs of a request, and a specialist's answer in its shape.

Source: the vendor's API reference for `POST /v1/chat/completions`. Fields that are not named here are relayed as they
came and never looked at.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeGuard

import msgspec

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Message, Request, Usage
from suffice.core.values import Value, decode
from suffice.wire import lenient, sse
from suffice.wire.dialect import Asked, Dialect, Told

_encode = msgspec.json.encode
_sorted = msgspec.json.Encoder(order="deterministic").encode


class _Head(msgspec.Struct):
    """The top level of a body; everything stays raw until someone asks."""

    messages: msgspec.Raw = msgspec.Raw()
    model: Any = None
    stream: Any = None
    stream_options: Any = None


class _Rest(msgspec.Struct):
    messages: list[Any]
    model: Any = None
    n: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    stop: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    modalities: Any = None
    audio: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None


_head = msgspec.json.Decoder(_Head)
_rest = msgspec.json.Decoder(_Rest)


class ChatRequest:
    """A body as received, and what it says. Only the top level is read at once; `request` reads the messages.

    Raises InputError (one sentence) when the body is not a JSON object with a list of messages.
    """

    def __init__(self, body: bytes) -> None:
        self.body = body
        head, self._strict = lenient.head(body, _head, "messages")
        lenient.listed(head.messages, "messages")
        self.model = head.model if isinstance(head.model, str) else ""
        self.stream = head.stream is True
        options = head.stream_options
        self.include_usage = isinstance(options, dict) and options.get("include_usage") is True

    @cached_property
    def request(self) -> Request:
        """The request in the nouns of the system. Odd shapes are not errors: they are `unsupported`."""
        rest = lenient.rest(self.body, _rest, self._strict)
        if rest is None:
            return Request(model=self.model, messages=(), unsupported=lenient.NOT_STRICT)
        messages = tuple(_message(item) for item in rest.messages)
        limits = [limit for limit in (rest.max_completion_tokens, rest.max_tokens) if isinstance(limit, int)]
        tools = [part for part in (rest.tools, rest.functions, _forced(rest.tool_choice or rest.function_call)) if part]
        return Request(
            model=self.model,
            messages=messages,
            tools=_sorted(tools).decode() if tools else "",
            response_format=_sorted(rest.response_format).decode() if _format(rest.response_format) else "",
            unsupported=_unsupported(rest),
            max_tokens=min(limits) if limits else None,
        )


def request_of(body: Any) -> Request:
    """The request in a body that is already parsed (an imported line). Raises InputError like ChatRequest."""
    return ChatRequest(_encode(body)).request


def _forced(choice: Any) -> Any:
    """A forced tool is part of what is asked; `auto` says nothing."""
    return None if choice in (None, "auto") else choice


def _format(response_format: Any) -> bool:
    return isinstance(response_format, dict) and response_format.get("type") not in (None, "text")


def _message(item: Any) -> Message:
    if not isinstance(item, dict):
        return Message("", "", False)
    given = item.get("role")
    role = given if isinstance(given, str) else ""
    content = item.get("content")
    plain = not item.get("tool_calls") and not item.get("function_call")
    if content is None:
        return Message(role, "", plain)
    if isinstance(content, str):
        return Message(role, content, plain)
    texts: list[str] = []
    for part in content if isinstance(content, list) else [None]:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        else:
            plain = False
    return Message(role, "\n".join(texts), plain)


def _unsupported(rest: _Rest) -> str:
    if rest.n not in (None, 1):
        return "n"
    if rest.stop not in (None, [], ""):
        return "stop"
    if rest.audio or (isinstance(rest.modalities, list) and any(kind != "text" for kind in rest.modalities)):
        return "audio"
    return "logprobs" if rest.logprobs or rest.top_logprobs else ""  # last: learning passes over this one


# ---------------------------------------------------------------------------------------------- answers


def answer_of(completion: Any) -> Value:
    """The answer in a chat completion: its text, or `{"tool_calls": [...]}`.

    Raises InputError when there is none: no choices, cut off (`length`), filtered, or a refusal.
    """
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise InputError("the response has no choices[0].message")
    if choice.get("finish_reason") in ("length", "content_filter"):
        raise InputError(f"the response was cut off ({choice['finish_reason']})")
    if message.get("refusal"):
        raise InputError("the response is a refusal")
    calls = message.get("tool_calls")
    if not calls and isinstance(message.get("function_call"), dict):
        calls = [{"function": message["function_call"]}]
    if isinstance(calls, list) and calls:
        return {"tool_calls": [_call(call) for call in calls]}
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        content = (
            "".join(text for text in texts if isinstance(text, str))
            if all(isinstance(text, str) for text in texts)
            else None
        )
    if not isinstance(content, str):
        raise InputError("the response has neither content nor tool calls")
    return content


def is_count(value: Any) -> TypeGuard[int]:
    """Whether this is a number of tokens: whole, not negative, no larger than a double holds exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _call(call: Any) -> dict[str, Value]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InputError("a tool call in the response has no function name")
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = decode(arguments)
        except InputError as error:
            raise InputError(f"the arguments of the call of {function['name']} are not JSON") from error
    return {"name": function["name"], "arguments": arguments}


def usage_of(document: Any) -> Usage | None:
    """Tokens as told in a completion; None where it tells none. What a provider's cache gave is part of the prompt."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (is_count(prompt) and is_count(completion)):
        return None
    details = usage.get("prompt_tokens_details")
    told = details if isinstance(details, dict) else {}
    cached, written = (n if is_count(n) else 0 for n in map(told.get, ("cached_tokens", "cache_write_tokens")))
    return Usage(prompt=prompt, completion=completion, cached=cached, written=written)


def completion(answer: Rendered, told: Told, asked: Asked) -> bytes:
    """A whole chat completion, as the vendor's SDKs expect it."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if answer.calls:
        message["tool_calls"] = _calls(answer, told.record)
    return _encode(
        {
            "id": f"chatcmpl-{told.record}",
            "object": "chat.completion",
            "created": told.created,
            "model": told.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}],
            "usage": _usage(answer, told.prompt_tokens),
        }
    )


def stream(answer: Rendered, told: Told, asked: Asked) -> list[bytes]:
    """The same as server-sent events, ending with `[DONE]`."""
    head: dict[str, Any] = {"id": f"chatcmpl-{told.record}", "object": "chat.completion.chunk"}
    head |= {"created": told.created, "model": told.model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse.event(_encode({**head, "choices": [choice]}))

    events = [chunk({"role": "assistant", "content": None if answer.calls else ""})]
    if answer.calls:
        events += [chunk({"tool_calls": [{"index": i, **call}]}) for i, call in enumerate(_calls(answer, told.record))]
    elif answer.content:
        events.append(chunk({"content": answer.content}))
    events.append(chunk({}, _finish(answer)))
    if getattr(asked, "include_usage", False):
        events.append(sse.event(_encode({**head, "choices": [], "usage": _usage(answer, told.prompt_tokens)})))
    return [*events, sse.DONE]


def _calls(answer: Rendered, record: str) -> list[dict[str, Any]]:
    return [
        {"id": f"call_{record}_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(answer.calls)
    ]


def _finish(answer: Rendered) -> str:
    return "tool_calls" if answer.calls else "stop"


def _usage(answer: Rendered, prompt_tokens: int) -> dict[str, int]:
    count = answer.tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": count, "total_tokens": prompt_tokens + count}


def error(message: str, code: str, kind: str = "invalid_request_error", param: str | None = None) -> bytes:
    """An error body as the vendor's SDKs read it."""
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


DIALECT = Dialect(
    name="chat",
    path="/chat/completions",
    read=ChatRequest,
    whole=completion,
    events=stream,
    assemble=sse.assemble,
    answer_of=answer_of,
    usage_of=usage_of,
    error=error,
)
