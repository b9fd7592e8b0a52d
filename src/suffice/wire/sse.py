"""Server-sent events: written, cut out of what arrives, and those of chat completions reassembled for records.

Source: WHATWG HTML, "Server-sent events". Reassembly is only for records: what is relayed is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from suffice.core.errors import InputError
from suffice.core.values import decode

DONE = b"data: [DONE]\n\n"
MOST_BYTES = 32 * 2**20
"""Of one event: what is longer is no event that anybody reads."""
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


def event(data: bytes) -> bytes:
    """One event of one line of data."""
    return b"data: " + data + b"\n\n"


def named(name: str, data: bytes) -> bytes:
    """The same with its type beside it."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def datas(raw: bytes) -> Iterator[bytes]:
    """The data of each event, in order; comments and other fields are passed over."""
    lines: list[bytes] = []
    for line in [*raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""]:
        if line.startswith(b"data:"):
            lines.append(line[5:].removeprefix(b" "))
        elif not line and lines:
            yield b"\n".join(lines)
            lines = []


class Feed:
    """Cuts a stream into the data of its events, however its bytes arrive. What `datas` gives, piece by piece."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lines: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The next bytes that came; the data of the events that are whole by now. Raises InputError beyond a size."""
        self._rest += data
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise InputError(f"an event is longer than {MOST_BYTES / 2**20:g} MB")
        # A lone return before what comes now may be half a line's end.
        if b"\n" not in data and b"\r" not in data and not self._rest.startswith(b"\r", -len(data) - 1):
            return []
        *lines, rest = _LINE_END.split(bytes(self._rest))
        self._rest = bytearray(rest)
        return self._of(lines)

    def end(self) -> list[bytes]:
        """There are no more bytes; the data of an event that nothing closed."""
        lines = [bytes(self._rest).removesuffix(b"\r"), b""]
        self._rest.clear()
        return self._of(lines)

    def _of(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._lines.append(line[5:].removeprefix(b" "))
            elif not line:
                if self._lines:
                    found.append(b"\n".join(self._lines))
                    self._lines.clear()
                self._size = len(self._rest)
        return found


def assemble(raw: bytes) -> dict[str, Any] | None:
    """The chat completion that a stream of chunks spells; None if it holds no chunk.

    Texts are joined, tool calls merged by index, the last usage and finish reason kept, unknown fields of a delta kept
    too (joined where they are texts). A stream that broke off gives what had come, without a finish reason.
    """
    whole: dict[str, Any] | None = None
    choices: dict[int, dict[str, Any]] = {}
    for data in datas(raw):
        if data.strip() == b"[DONE]":
            break
        try:
            chunk = decode(data)
        except InputError:
            continue
        if not isinstance(chunk, dict):
            continue
        if "error" in chunk and whole is None:
            return chunk
        whole = {**(whole or {}), **{k: v for k, v in chunk.items() if k != "choices" and v is not None}}
        parts = chunk.get("choices")
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict):
                _merge_choice(choices, part)
    if whole is None:
        return None
    return {**whole, "object": "chat.completion", "choices": [choices[index] for index in sorted(choices)]}


def _merge_choice(choices: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    given = part.get("index")
    index = given if isinstance(given, int) else 0
    choice = choices.setdefault(index, {"index": index, "message": {"role": "assistant"}, "finish_reason": None})
    if part.get("finish_reason") is not None:
        choice["finish_reason"] = part["finish_reason"]
    if isinstance(part.get("logprobs"), dict):
        _merge_lists(choice.setdefault("logprobs", {}), part["logprobs"])
    delta = part.get("delta")
    for key, value in delta.items() if isinstance(delta, dict) else []:
        message = choice["message"]
        if key == "tool_calls":
            if not isinstance(value, list):
                continue
            _merge_calls(message.setdefault("tool_calls", []), value)
        elif isinstance(value, str) and isinstance(message.get(key), str) and key != "role":
            message[key] += value
        elif value is not None or key not in message:
            message[key] = value


def _merge_lists(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Lists (of tokens, with their log-probabilities) one behind the other; of what is no list the first stays."""
    for key, value in part.items():
        before = whole.setdefault(key, [] if isinstance(value, list) else value)
        if isinstance(before, list) and isinstance(value, list):
            before += value
        elif before is None:
            whole[key] = value


def _merge_calls(calls: list[dict[str, Any]], deltas: list[Any]) -> None:
    for delta in deltas:
        if not isinstance(delta, dict):
            continue
        index = delta.get("index") if isinstance(delta.get("index"), int) else len(calls)
        call = next((call for call in calls if call["index"] == index), None)
        if call is None:
            call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
            calls.append(call)
        if delta.get("id"):
            call["id"] = delta["id"]
        function = delta.get("function")
        if isinstance(function, dict):
            for key in ("name", "arguments"):
                if isinstance(function.get(key), str):
                    call["function"][key] += function[key]
