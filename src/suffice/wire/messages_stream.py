"""Streams of Messages: reassembled for records, and turned into those of chat and back, event by event.

Source: the vendor's "Streaming Messages". Nothing is held back but usage and the reason of the end, which either vendor
tells at the end, and a call of chat that begins before the one before it is whole. A stream that ends before its answer
does is an error: an answer cut short must not look whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.wire import sse
from suffice.wire.messages_answers import finish_of, stop_of, usage_from_chat, usage_to_chat
from suffice.wire.messages_chat import Doc

_encode = msgspec.json.encode
_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
CUT = "the stream ended before its answer did"


def named(kind: str, told: Doc) -> bytes:
    """One event, its type in both places."""
    return sse.named(kind, _encode({"type": kind, **told}))


# ---------------------------------------------------------------------------------------------- for records


def assemble(raw: bytes) -> Doc | None:
    """The message that a stream of events spells; None if it holds none.

    Texts and thinking are joined, arguments of calls parsed (what is no JSON stays text), usage merged. A stream that
    broke off gives what had come, without a stop reason; an error within is kept as `error`.
    """
    whole: Doc | None = None
    blocks: dict[int, Doc] = {}
    inputs: dict[int, str] = {}
    for data in sse.datas(raw):
        try:
            event = decode(data)
        except InputError:
            continue
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "error":
            if whole is None:
                return dict(event)
            whole["error"] = event.get("error")
        elif kind == "message_start" and isinstance(event.get("message"), dict):
            whole = {**event["message"], "type": "message"}
        elif kind == "message_delta":
            whole = _ended(whole or {"type": "message"}, event)
        elif isinstance(kind, str) and kind.startswith("content_block_") and isinstance(event.get("index"), int):
            _block(blocks, inputs, event)
    if whole is None and not blocks:
        return None
    for index, written in inputs.items():
        blocks[index]["input"] = _parsed(written)
    return {"type": "message", **(whole or {}), "content": [blocks[index] for index in sorted(blocks)]}


def _ended(whole: Doc, event: Doc) -> Doc:
    """With what the last event but one tells; counts are totals, so they stand in place of the first ones."""
    delta, usage = event.get("delta"), event.get("usage")
    found = {**whole, **(delta if isinstance(delta, dict) else {})}
    if isinstance(usage, dict):
        before = whole.get("usage")
        told = {key: value for key, value in usage.items() if value is not None}
        found["usage"] = {**(before if isinstance(before, dict) else {}), **told}
    return found


def _block(blocks: dict[int, Doc], inputs: dict[int, str], event: Doc) -> None:
    index, given, delta = event["index"], event.get("content_block"), event.get("delta")
    if isinstance(given, dict):
        blocks[index] = dict(given)
    if not isinstance(delta, dict):
        return
    kind = delta.get("type")
    if kind == "input_json_delta" and isinstance(delta.get("partial_json"), str):
        blocks.setdefault(index, {"type": "tool_use", "input": {}})
        inputs[index] = inputs.get(index, "") + delta["partial_json"]
        return
    key = _TEXTS.get(kind) if isinstance(kind, str) else None
    if key is not None and isinstance(delta.get(key), str):
        block = blocks.setdefault(index, {"type": "text" if key == "text" else "thinking"})
        before = block.get(key)
        block[key] = (before if isinstance(before, str) else "") + delta[key]
    elif kind == "citations_delta":
        block = blocks.setdefault(index, {"type": "text", "text": ""})
        before = block.get("citations")
        block["citations"] = [*(before if isinstance(before, list) else []), delta.get("citation")]


def _parsed(written: str) -> Any:
    try:
        return decode(written or "{}")
    except InputError:
        return written


# ---------------------------------------------------------------------------------------------- to chat


class ToChat:
    """Turns a stream of Messages into one of chat, with its usage in a chunk of its own before `[DONE]`."""

    def __init__(self, request: Doc, clock: Callable[[], float] = time.time) -> None:
        self._events = sse.Feed()
        self._head: Doc = {"id": None, "object": "chat.completion.chunk", "created": int(clock()), "model": None}
        self._usage: Doc = {}
        self._calls: dict[int, int] = {}
        self._inputs: dict[int, Any] = {}
        self._stop: Any = None
        self._over = False

    def feed(self, data: bytes) -> list[bytes]:
        """The next bytes that came; the chunks they make."""
        return [chunk for event in self._events.feed(data) for chunk in self._turned(event)]

    def end(self) -> list[bytes]:
        """There are no more. Raises InputError where the message is not whole."""
        found = [chunk for event in self._events.end() for chunk in self._turned(event)]
        if not self._over:
            raise InputError(CUT)
        return found

    def _turned(self, data: bytes) -> list[bytes]:
        if self._over:
            return []
        event = _object(data)
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(_index(event), _part(event, "delta"))
        if kind == "content_block_start":
            return self._start(_index(event), _part(event, "content_block"))
        if kind == "content_block_stop":
            return self._stopped(_index(event))
        if kind == "message_start":
            message = _part(event, "message")
            self._head |= {"id": message.get("id"), "model": message.get("model")}
            self._counted(message)
            return [self._chunk({"role": "assistant", "content": ""})]
        if kind == "message_delta":
            self._stop = _part(event, "delta").get("stop_reason") or self._stop
            self._counted(event)
            return []
        if kind == "message_stop":
            return self._ended()
        return self._failed(event) if kind == "error" else []

    def _start(self, index: int, block: Doc) -> list[bytes]:
        if block.get("type") == "text":
            return [self._chunk({"content": block["text"]})] if block.get("text") else []
        if block.get("type") != "tool_use":
            return []
        number = self._calls[index] = len(self._calls)
        self._inputs[index] = block.get("input") or {}
        function = {"name": block.get("name"), "arguments": ""}
        return [self._call(number, {"id": block.get("id"), "type": "function", "function": function})]

    def _delta(self, index: int, delta: Doc) -> list[bytes]:
        if delta.get("type") == "text_delta":
            return [self._chunk({"content": delta.get("text")})]
        written = delta.get("partial_json")
        if delta.get("type") != "input_json_delta" or not written or index not in self._calls:
            return []
        self._inputs.pop(index, None)
        return [self._call(self._calls[index], {"function": {"arguments": written}})]

    def _stopped(self, index: int) -> list[bytes]:
        """A call of which no piece of arguments came has those it began with."""
        if index not in self._inputs:
            return []
        written = _encode(self._inputs.pop(index)).decode()
        return [self._call(self._calls[index], {"function": {"arguments": written}})]

    def _ended(self) -> list[bytes]:
        self._over = True
        found = [self._chunk({}, finish_of(self._stop))]
        usage = usage_to_chat(self._usage)
        if usage is not None:
            found.append(sse.event(_encode({**self._head, "choices": [], "usage": usage})))
        return [*found, sse.DONE]

    def _failed(self, event: Doc) -> list[bytes]:
        self._over = True
        told = _part(event, "error")
        body = {"message": told.get("message"), "type": told.get("type"), "param": None, "code": told.get("type")}
        return [sse.event(_encode({"error": body}))]

    def _counted(self, event: Doc) -> None:
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _call(self, number: int, told: Doc) -> bytes:
        return self._chunk({"tool_calls": [{"index": number, **told}]})

    def _chunk(self, delta: Doc, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse.event(_encode({**self._head, "choices": [choice]}))


# ---------------------------------------------------------------------------------------------- from chat


class FromChat:
    """Turns a stream of chat into one of Messages. Chat tells its usage last, so it stands in `message_delta`."""

    def __init__(self, request: Doc) -> None:
        self._events = sse.Feed()
        self._begun = self._over = False
        self._open: str | int | None = None
        self._blocks = 0
        self._last_call = -1
        self._written = ""
        self._waiting: dict[int, _Call] = {}
        self._finish: Any = None
        self._usage: Any = None
        self._refused = False

    def feed(self, data: bytes) -> list[bytes]:
        """The next bytes that came; the events they make."""
        return [event for chunk in self._events.feed(data) for event in self._turned(chunk)]

    def end(self) -> list[bytes]:
        """There are no more. Raises InputError where the answer is not whole."""
        found = [event for chunk in self._events.end() for event in self._turned(chunk)]
        if not self._over:
            if self._finish is None:
                raise InputError(CUT)
            found += self._ended()
        return found

    def _turned(self, data: bytes) -> list[bytes]:
        if self._over:
            return []
        if data.strip() == b"[DONE]":
            if self._finish is None:
                raise InputError(CUT)
            return self._ended()
        chunk = _object(data)
        if isinstance(chunk.get("error"), dict):
            self._over = True
            told = {"type": "api_error", "message": chunk["error"].get("message")}
            return [named("error", {"error": told})]
        found = [] if self._begun else [self._start(chunk)]
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return found
        delta = choice.get("delta")
        if isinstance(delta, dict):
            found += self._delta(delta)
        if choice.get("finish_reason") is not None:
            self._finish = choice["finish_reason"]
        return found

    def _start(self, chunk: Doc) -> bytes:
        self._begun = True
        message = {"id": chunk.get("id"), "type": "message", "role": "assistant", "model": chunk.get("model")}
        message |= {"content": [], "stop_reason": None, "stop_sequence": None}
        return named("message_start", {"message": {**message, "usage": {"input_tokens": 0, "output_tokens": 0}}})

    def _delta(self, delta: Doc) -> list[bytes]:
        found = []
        for key in ("content", "refusal"):
            text = delta.get(key)
            if isinstance(text, str) and text:
                self._refused |= key == "refusal"
                if self._open != "text":
                    found += self._next_calls(last=True)
                    found += [*self._close(), self._opened("text", {"type": "text", "text": ""})]
                found.append(self._piece({"type": "text_delta", "text": text}))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            found += self._call(call)
        return found

    def _call(self, call: Any) -> list[bytes]:
        """A piece of a call. A block that was closed cannot go on, so a call waits until the one before it is whole."""
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise InputError("a piece of a tool call has no function")
        number = call.get("index") if isinstance(call.get("index"), int) else self._last_call + bool(call.get("id"))
        written = function.get("arguments")
        written = written if isinstance(written, str) else ""
        if self._open != number and number not in self._waiting:
            if number <= self._last_call:
                raise InputError("the pieces of its tool calls are mixed, which Messages has no way to tell")
            self._last_call = number
            self._waiting[number] = _Call(call.get("id"), function.get("name"), "")
        if number in self._waiting:
            self._waiting[number].written += written
            return self._next_calls()
        self._written += written
        found = [self._piece({"type": "input_json_delta", "partial_json": written})] if written else []
        return found + self._next_calls()

    def _next_calls(self, last: bool = False) -> list[bytes]:
        """The waiting calls whose turn it is: those after whole ones, at the end all."""
        found: list[bytes] = []
        while self._waiting and (last or not isinstance(self._open, int) or _is_whole(self._written)):
            number, call = next(iter(self._waiting.items()))
            del self._waiting[number]
            found += self._close()
            found.append(self._opened(number, {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}))
            self._written = call.written
            if call.written:
                found.append(self._piece({"type": "input_json_delta", "partial_json": call.written}))
        return found

    def _opened(self, what: str | int, block: Doc) -> bytes:
        self._open = what
        return named("content_block_start", {"index": self._blocks, "content_block": block})

    def _piece(self, delta: Doc) -> bytes:
        return named("content_block_delta", {"index": self._blocks, "delta": delta})

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        self._blocks += 1
        return [named("content_block_stop", {"index": self._blocks - 1})]

    def _ended(self) -> list[bytes]:
        self._over = True
        found = [*self._next_calls(last=True), *self._close()]
        stop = "refusal" if self._refused else stop_of(self._finish)
        if stop == "end_turn" and self._last_call >= 0:
            stop = "tool_use"
        usage = usage_from_chat(self._usage)
        end = {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
        return [*found, named("message_delta", end), named("message_stop", {})]


@dataclass(slots=True)
class _Call:
    """A call that waits for its turn."""

    id: Any
    name: Any
    written: str


def _is_whole(written: str) -> bool:
    """Whether these arguments are complete: nothing at all may still be the beginning of some."""
    try:
        return isinstance(decode(written), dict)
    except InputError:
        return False


# ---------------------------------------------------------------------------------------------- both


def _object(data: bytes) -> Doc:
    try:
        found = decode(data)
    except InputError as error:
        raise InputError(f"an event of the stream is {error}") from error
    if not isinstance(found, dict):
        raise InputError("an event of the stream is not a JSON object")
    return found


def _part(event: Doc, name: str) -> Doc:
    found = event.get(name)
    if not isinstance(found, dict):
        raise InputError(f"an event of the stream has no `{name}`")
    return found


def _index(event: Doc) -> int:
    found = event.get("index")
    if not isinstance(found, int):
        raise InputError("an event of the stream has no `index`")
    return found
