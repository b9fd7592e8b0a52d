"""What an answer is, and when two answers are the same.

An answer is a JSON value: text, number, true/false, null, a list of texts (labels), an object, or
`{"tool_calls": [{"name", "arguments"}]}` (an empty list: no call). Two answers are equal when they parse to the same
value after dropping null, "" and [] fields. A list at the top is a set of labels; a list inside an object is ordered.
"""

from __future__ import annotations

from typing import Any

import msgspec

from suffice.core.errors import InputError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

_encode = msgspec.json.Encoder(order="deterministic").encode


def decode(text: bytes | str) -> Any:
    """The JSON value in `text`. Raises InputError, in a few words, for anything that is not JSON or nested too deep."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InputError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("not JSON that can be read: nested too deep") from error


def parse(value: Value) -> Value:
    """What `value` says: text that holds a JSON object or list, fenced or not, is read as that; other text is stripped.

    Only objects and lists are unpacked: the text "5" stays a text, since a label may look like a number.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        inner = text[text.index("\n") + 1 : -3].strip()
        if inner[:1] in ("{", "["):
            text = inner
    if text[:1] in ("{", "["):
        try:
            parsed: Value = decode(text)
        except InputError:
            return value.strip()
        return parsed
    return text


def plain(value: Value) -> Value:
    """What `value` says and nothing else, the form that contracts and models see: parsed, silent fields dropped.

    A field is silent that is null, "" or [], or an object of nothing but such fields. That no tool is called is said.
    """
    said = parse(value)
    calls = calls_of(said)
    if calls is not None:
        return {"tool_calls": [{"name": c["name"], "arguments": _object(parse(c.get("arguments")))} for c in calls]}
    return _object(said) if isinstance(said, dict) else _pruned(said)


def _object(value: Value) -> Value:
    return _pruned(value) or {} if isinstance(value, dict) or value is None else _pruned(value)


def _pruned(value: Value) -> Value:
    if isinstance(value, dict):
        kept = {key: _pruned(item) for key, item in value.items()}
        return {
            key: item for key, item in kept.items() if item is not None and item != "" and item != [] and item != {}
        }
    if isinstance(value, list):
        return [_pruned(item) for item in value]
    return value


def _numbers(value: Value) -> Value:
    """Whole numbers as integers: 4 and 4.0 are the same answer, however they are written."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def canonical(value: Value) -> str:
    """A text that is the same for equal answers and differs for others (JSON, keys sorted, top-level lists sorted)."""
    said = _numbers(plain(value))
    if isinstance(said, list):
        return _encode(sorted({_encode(item) for item in said})).decode()
    return _encode(said).decode()


def calls_of(value: Value) -> list[dict[str, Value]] | None:
    """The tool calls of an answer in that form (an empty list: no call), None for any other answer."""
    if isinstance(value, dict) and value.keys() == {"tool_calls"} and isinstance(value["tool_calls"], list):
        calls = [call for call in value["tool_calls"] if isinstance(call, dict) and isinstance(call.get("name"), str)]
        return calls if len(calls) == len(value["tool_calls"]) else None
    return None
