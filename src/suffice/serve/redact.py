"""Redaction: a request's body with placeholders in the place of what may not leave, and what they stand for.

    {"content": "write to bob@example.com"}  ->  {"content": "write to <EMAIL_1>"},  EMAIL_1: bob@example.com

The same value has the same placeholder all over a request, and no placeholder is one that stands in it already. It
fails closed: a body that is not strictly JSON, or holds what cannot be looked into or replaced, raises CannotRedact.
What is sent is written anew from what was read, so nothing leaves that was not looked at. Known here: how the dialects
lay out a request, as far as where content stands. Not known: what is looked for (`detectors`).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from suffice.core.errors import InputError
from suffice.serve.detectors import Detectors
from suffice.serve.personal import Found

KEPT = frozenset(
    {"model", "role", "type", "id", "call_id", "tool_call_id", "tool_use_id", "item_id", "name", "object", "status"}
    | {"signature", "encrypted_content", "data", "phase", "service_tier", "effort", "verbosity", "format", "$ref"}
)
"""Texts by which an upstream finds its way: never replaced. Where one has a form that may not leave, nothing does."""
FREE = frozenset({"input", "arguments", "metadata", "variables"})
"""Objects in which every key is the caller's own."""
PARTS = frozenset({"content", "output", "input", "summary"})
LOOKED_INTO = frozenset(
    {"text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text", "thinking", "redacted_thinking"}
    | {"tool_use", "tool_result", "message", "function_call", "function_call_output", "reasoning"}
    | {"custom_tool_call", "custom_tool_call_output"}
)
"""The parts of a message that are text all through; images, audio, files and what comes one day are not among them."""
NOT_TEXT = ("image_url", "input_audio", "file", "file_id", "file_url", "file_data", "image", "audio", "video_url")
ELSEWHERE = ("previous_response_id", "conversation", "background", "container")
"""What makes an answer speak of earlier requests, whose placeholders are forgotten, or come by another call."""
LAST = ("messages", "input")
"""Grows with a conversation: numbered last, so that what is numbered before stays as it is."""
LONG_NUMBER = 10**12

_TAKEN = re.compile(rb"_(\d{1,9})(?!\d)")
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[-+.\d]{13,}+', re.DOTALL)


class CannotRedact(InputError):
    """What may not leave cannot be held back from this body: one sentence that says why, without the thing itself."""


class Redaction:
    """The placeholders of one request. `values` tells what each stands for, by its name without brackets."""

    def __init__(self, detectors: Detectors) -> None:
        self._detectors = detectors
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._checked: set[str] = set()
        self.values: dict[str, str] = {}

    def body(self, body: bytes) -> bytes:
        """The body as it may leave. Raises CannotRedact."""
        try:
            document = msgspec.json.decode(body)
            plain = msgspec.json.encode(document)
        except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError) as error:
            raise CannotRedact("the body is not strictly JSON, so it cannot be looked into") from error
        self._taken |= {int(number) for number in _TAKEN.findall(plain)}
        try:
            return msgspec.json.encode(self._top(document))
        except RecursionError as error:
            raise CannotRedact("the body is nested too deep to be looked into") from error

    def path(self, path: str) -> None:
        """Raises CannotRedact where a path or its query holds what may not leave, however it is escaped."""
        self._keep(path, "the path")
        if "%" in path or "+" in path:
            self._keep(unquote_plus(path), "the path")

    # -- the document

    def _top(self, document: Any) -> Any:
        if not isinstance(document, dict):
            return self._value(document, "", free=True)
        for key in ELSEWHERE:
            if document.get(key):
                raise CannotRedact(f"`{key}` makes the answer depend on other calls, so it could not be restored")
        if any(kind != "text" for kind in document.get("modalities") or ()):
            raise CannotRedact("`modalities`: only text can be restored in an answer")
        order = sorted(document, key=lambda key: (key in LAST, LAST.index(key) if key in LAST else 0))
        told = {key: self._member(key, document[key], free=False) for key in order}
        return {key: told[key] for key in document}

    def _member(self, key: str, value: Any, *, free: bool) -> Any:
        self._keep(key, "a key")
        if isinstance(value, str):
            if key in KEPT and not free:
                self._keep(value, f"`{key}`")
                return value
            return self._text(value)
        if key in PARTS and not free:
            for part in value if isinstance(value, list) else [value]:
                _look(part, key)
        return self._value(value, key, free=free or (key in FREE and isinstance(value, dict)))

    def _value(self, value: Any, key: str, *, free: bool) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return {name: self._member(name, item, free=free) for name, item in value.items()}
        if isinstance(value, list):
            return [self._value(item, key, free=free) for item in value]
        if isinstance(value, int | float) and abs(value) >= LONG_NUMBER:
            self._keep(str(value), f"a number in `{key}`")
        return value

    def _keep(self, text: str, where: str) -> None:
        """Raises CannotRedact if something may not leave of a text that cannot be changed."""
        if text not in self._checked:
            for found in self._detectors.forms(text)[:1]:
                raise CannotRedact(f"{where} holds what looks like {found.kind}, which cannot be replaced there")
            self._checked.add(text)

    # -- texts

    def _text(self, text: str) -> str:
        if ";base64," in text:
            raise CannotRedact("a text holds encoded data (`;base64,`), which cannot be looked into")
        if is_json(text):
            return _TOKEN.sub(self._token, text)
        return self._replaced(text, self._detectors.find(text))

    def _token(self, token: re.Match[str]) -> str:
        """A text or a long number in a text that is JSON itself."""
        if token[0][0] != '"':
            return f'"{self._replaced(token[0], found)}"' if (found := self._detectors.forms(token[0])) else token[0]
        said: str = msgspec.json.decode(token[0])
        told = self._text(said)
        return token[0] if told == said else msgspec.json.encode(told).decode()

    def _replaced(self, text: str, found: list[Found]) -> str:
        if not found:
            return text
        parts, at = [], 0
        for start, end, kind in found:
            parts += [text[at:start], f"<{self._name(kind, text[start:end])}>"]
            at = end
        return "".join([*parts, text[at:]])

    def _name(self, kind: str, value: str) -> str:
        name = self._names.get((kind, value))
        if name is None:
            number = self._numbers.get(kind, 0) + 1
            while number in self._taken:
                number += 1
            self._numbers[kind] = number
            name = self._names[kind, value] = f"{kind}_{number}"
            self.values[name] = value
        return name


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _look(part: Any, key: str) -> None:
    """Raises CannotRedact for a part of a message that is not text all through."""
    if isinstance(part, int | list) and not isinstance(part, bool):
        raise CannotRedact(f"`{key}` holds numbers in place of a text, which cannot be looked into")
    if not isinstance(part, dict):
        return
    kind = part.get("type")
    if kind is not None and kind not in LOOKED_INTO:
        raise CannotRedact(f"`{key}` holds a part of type {str(kind)[:40]!r}, which cannot be looked into")
    for name in NOT_TEXT:
        if part.get(name) is not None:
            raise CannotRedact(f"`{key}` holds `{name}`, which cannot be looked into")
