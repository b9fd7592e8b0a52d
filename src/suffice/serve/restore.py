"""Restoring: what placeholders stand for, put back into an answer, whole or while it streams.

In JSON, a text that is JSON itself included, what is put back is escaped as it must be. In a stream a placeholder may
come in any number of pieces: only what may still become one is held back, per channel (a choice's text, a tool call's
arguments, a content block), and events that do not change keep their bytes. Known here: where the three dialects put
pieces of text in their events. A text in a stream is taken for JSON by its first character.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.serve.redact import is_json

MOST_HELD = 64 * 2**20
"""An answer, or one event of a stream, that is longer cannot be restored."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n")
_NO_CHANNEL = frozenset({"type", "role", "id", "name", "signature"})

Document = dict[str, Any]


class Restored:
    """Texts with what placeholders stand for. `values` by placeholder, without its brackets.

    `escapes`: whether something among it is written otherwise in JSON.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = {form: value for name, value in values.items() for form in _forms(name)}
        self._sorted = sorted(self._values)
        self.escapes = any(json.dumps(value, ensure_ascii=False)[1:-1] != value for value in values.values())
        self._longest = max(map(len, self._sorted))
        self._form = re.compile("|".join(map(re.escape, sorted(self._values, key=len, reverse=True))))

    def text(self, text: str) -> str:
        """A text; of one that is JSON, the texts in it."""
        if "<" not in text and "u003" not in text:
            return text
        return self.json(text) if is_json(text) else self.plain(text)

    def json(self, text: str) -> str:
        """JSON: every text in it restored, and escaped; the rest stays as it is written."""
        return _TOKEN.sub(self._token, text)

    def plain(self, text: str, *, escaped: bool = False) -> str:
        """A text as it is; `escaped` for what stands within a text of JSON."""

        def value(found: re.Match[str]) -> str:
            told = self._values[found[0]]
            return json.dumps(told, ensure_ascii=False)[1:-1] if escaped else told

        return self._form.sub(value, text)

    def settled(self, text: str) -> int:
        """How much of a text, whose end has not come, can be told: what follows may still become a placeholder."""
        at = max(0, len(text) - self._longest + 1)
        for found in self._form.finditer(text):
            at = max(at, found.end())
        for start in range(at, len(text)):
            if text[start] in "<\\" and self._begins(text[start:]):
                return start
        return len(text)

    def _begins(self, tail: str) -> bool:
        at = bisect_left(self._sorted, tail)
        return at < len(self._sorted) and self._sorted[at].startswith(tail)

    def _token(self, token: re.Match[str]) -> str:
        said = token[0]
        if "<" not in said and "u003" not in said:
            return said
        if '\\"' in said:
            try:
                inner = msgspec.json.decode(said)
            except (msgspec.DecodeError, UnicodeError):
                return self.plain(said, escaped=True)
            if is_json(inner):
                told = self.json(inner)
                return said if told == inner else json.dumps(told, ensure_ascii=False)
        return self.plain(said, escaped=True)


def _forms(name: str) -> tuple[str, ...]:
    """A placeholder as models write it; some writers of JSON escape its brackets."""
    return f"<{name}>", f"\\u003c{name}\\u003e", f"\\u003C{name}\\u003E"


class WholeAnswer:
    """A `Turning` for an answer that is no stream."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._restored = Restored(values)
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Keep it. Raises InputError where the answer is too long."""
        self._size += len(data)
        if self._size > MOST_HELD:
            raise InputError(f"an answer of more than {MOST_HELD / 2**20:g} MB cannot be restored")
        self._kept.append(data)
        return []

    def end(self) -> list[bytes]:
        """All of it. Raises InputError for what is no text (compressed, say)."""
        raw = b"".join(self._kept)
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise InputError("not UTF-8, so what was held back cannot be put back") from error
        told = self._restored.text(text)
        return [raw if told == text else told.encode()]


@dataclass(slots=True)
class _Piece:
    """A piece of text in an event: its channel, and where it stands. `alone` makes an event of nothing else."""

    channel: tuple[Hashable, ...]
    holder: Document
    key: str
    is_json: bool
    alone: Callable[[str], Document]


@dataclass(slots=True)
class _Held:
    """What is held back of a channel, and the event that would tell it."""

    text: str
    piece: _Piece
    event: bytes


class EventStream:
    """A `Turning` for a stream of server-sent events."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._restored = Restored(values)
        self._buffer = bytearray()
        self._seen = 0
        self._held: dict[tuple[Hashable, ...], _Held] = {}
        self._json: dict[tuple[Hashable, ...], bool] = {}

    def feed(self, data: bytes) -> list[bytes]:
        """The events that have come whole, restored. Raises InputError where one is too long."""
        self._buffer += data
        out: list[bytes] = []
        begin = 0
        while end := _EVENT_END.search(self._buffer, max(begin, self._seen - 3)):
            out += self._event(bytes(self._buffer[begin : end.end()]))
            begin = self._seen = end.end()
        del self._buffer[:begin]
        self._seen = len(self._buffer)
        if self._seen > MOST_HELD:
            raise InputError(f"an event of more than {MOST_HELD / 2**20:g} MB cannot be restored")
        return out

    def end(self) -> list[bytes]:
        """What is left: an event without its end, and what channels held back."""
        out = self._event(bytes(self._buffer)) if self._buffer else []
        self._buffer.clear()
        return out + self._let_go(())

    def _event(self, event: bytes) -> list[bytes]:
        try:
            return self._turned(event)
        except RecursionError as error:
            raise InputError("an event is nested too deep to be restored") from error

    def _turned(self, event: bytes) -> list[bytes]:
        data = _data(event)
        if data is None:
            return [event]
        if not self._held and b"<" not in data and b"\\" not in data:
            if self._restored.escapes:
                self._note(data)
            return [event]
        try:
            document = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            document = None
        if not isinstance(document, dict):
            return [*self._let_go(()), event]
        pieces = list(_pieces(document))
        for piece in pieces:
            self._take(piece, event)
        ended = _ended(document)
        before: list[bytes] = []
        for channel in [c for c in self._held if any(c[: len(end)] == end for end in ended)]:
            mine = next((piece for piece in pieces if piece.channel == channel), None)
            if mine is None:
                before += self._let_go(channel)
            else:
                mine.holder[mine.key] += self._held.pop(channel).text
        self._rest(document, {id(piece.holder): piece.key for piece in pieces})
        changed = document != msgspec.json.decode(data)
        return [*before, _with_data(event, document) if changed else event]

    def _note(self, data: bytes) -> None:
        """Nothing to restore here; but a channel's first character tells whether it is JSON."""
        try:
            document = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        for piece in _pieces(document) if isinstance(document, dict) else ():
            self._kind(piece)

    def _kind(self, piece: _Piece) -> bool:
        text: str = piece.holder[piece.key].lstrip()
        if piece.is_json or not text:
            return piece.is_json or self._json.get(piece.channel, False)
        return self._json.setdefault(piece.channel, text[0] in "{[")

    def _take(self, piece: _Piece, event: bytes) -> None:
        """Tell what can be told of a piece, after what was held back before it; hold back the rest."""
        is_json = self._kind(piece)
        held = self._held.pop(piece.channel, None)
        text = (held.text if held is not None else "") + piece.holder[piece.key]
        at = self._restored.settled(text)
        piece.holder[piece.key] = self._restored.plain(text[:at], escaped=is_json)
        if at < len(text):
            self._held[piece.channel] = _Held(text[at:], piece, event)

    def _let_go(self, channel: tuple[Hashable, ...]) -> list[bytes]:
        """Tell what a channel (an empty one: all) held back, in events like its last: no placeholder came of it."""
        let_go = [name for name in self._held if name[: len(channel)] == channel]
        told = [self._held.pop(name) for name in let_go]
        return [_with_data(held.event, held.piece.alone(held.text)) for held in told]

    def _rest(self, value: Any, pieces: Mapping[int, str]) -> None:
        """Restore, in place, the texts of an event that come whole."""
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in list(items):
            if isinstance(item, str):
                if pieces.get(id(value)) != key:
                    value[key] = self._restored.text(item)
            else:
                self._rest(item, pieces)


def _data(event: bytes) -> bytes | None:
    lines = [line.rstrip(b"\r\n") for line in event.splitlines(keepends=True) if line.startswith(b"data:")]
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines) if lines else None


def _with_data(event: bytes, document: Document) -> bytes:
    """The event with other data; its other lines stay."""
    out: list[bytes] = []
    told = False
    for line in event.splitlines(keepends=True):
        if not line.startswith(b"data:"):
            out.append(line)
        elif not told:
            told = True
            out.append(b"data: " + msgspec.json.encode(document) + line[len(line.rstrip(b"\r\n")) :])
    return b"".join(out)


def _pieces(document: Document) -> Iterator[_Piece]:
    """Where pieces of text stand in an event: of chat, of messages, of responses."""
    delta = document.get("delta")
    if isinstance(choices := document.get("choices"), list):
        for choice in choices:
            if isinstance(choice, dict):
                yield from _of_choice(document, choice)
    elif isinstance(delta, dict):
        for key in [key for key, text in delta.items() if isinstance(text, str) and key not in _NO_CHANNEL]:

            def of_block(text: str, key: str = key, delta: Document = delta) -> Document:
                return {**document, "delta": {**delta, key: text}}

            yield _Piece((_number(document.get("index")), key), delta, key, key == "partial_json", of_block)
    elif isinstance(delta, str):
        kind = str(document.get("type"))
        names = ("content_index", "summary_index")
        channel = (_number(document.get("output_index")), kind, *(_number(document.get(name)) for name in names))
        yield _Piece(channel, document, "delta", "arguments" in kind, lambda text: {**document, "delta": text})


def _number(told: Any, otherwise: int = 0) -> int:
    """An index as told; whatever else stands there is no channel of its own."""
    return told if isinstance(told, int) else otherwise


def _of_choice(document: Document, choice: Document) -> Iterator[_Piece]:
    index = _number(choice.get("index"))

    def event(inner: Document) -> Document:
        kept = {key: value for key, value in document.items() if key != "usage"}
        return {**kept, "choices": [{"index": index, **inner, "finish_reason": None}]}

    if isinstance(choice.get("text"), str):
        yield _Piece((index, "text"), choice, "text", False, lambda text: event({"text": text}))
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return
    for key in [key for key, text in delta.items() if isinstance(text, str) and key not in _NO_CHANNEL]:

        def of_text(text: str, key: str = key) -> Document:
            return event({"delta": {key: text}})

        yield _Piece((index, key), delta, key, False, of_text)
    calls = delta.get("tool_calls")
    for place, call in enumerate(calls if isinstance(calls, list) else ()):
        for kind, key in (("function", "arguments"), ("custom", "input")):
            inner = call.get(kind) if isinstance(call, dict) else None
            if isinstance(inner, dict) and isinstance(inner.get(key), str):
                number = _number(call.get("index"), place)

                def of_call(text: str, kind: str = kind, key: str = key, number: Any = number) -> Document:
                    return event({"delta": {"tool_calls": [{"index": number, kind: {key: text}}]}})

                yield _Piece((index, kind, number), inner, key, key == "arguments", of_call)
    call = delta.get("function_call")
    if isinstance(call, dict) and isinstance(call.get("arguments"), str):
        yield _Piece(
            (index, "function_call"),
            call,
            "arguments",
            True,
            lambda text: event({"delta": {"function_call": {"arguments": text}}}),
        )


def _ended(document: Document) -> list[tuple[Hashable, ...]]:
    """Beginnings of the channels after whose last piece this event comes; an empty one is that of all."""
    if isinstance(choices := document.get("choices"), list):
        ended = [_number(c.get("index")) for c in choices if isinstance(c, dict) and c.get("finish_reason") is not None]
        return [(index,) for index in ended] if choices else [()]
    if "delta" in document and document.get("type") != "message_delta":
        return []
    kind = str(document.get("type"))
    if kind == "ping":
        return []
    if kind.startswith("content_block"):
        return [(_number(document.get("index")),)] if kind == "content_block_stop" else []
    if "output_index" in document:
        return [(_number(document["output_index"]),)]
    return [()]
