"""What an answer is, and when two answers are the same.

An answer is a JSON value: text, number, true/false, null, a list of texts (labels), an object, or
`{"tool_calls": [{"name", "arguments"}]}` (an empty list: no call). Two answers are equal when they parse to the same
value after dropping null, "" and [] fields. A list at the top is a set of labels; a list inside an object is ordered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from suffice.core.errors import InputError

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

DEEPEST = 100
"""Levels of nesting that an answer may have: far below where reading it by recursion would fail."""
INTEGERS = range(-(2**63), 2**63)
"""Whole numbers beyond these are not the same number to every reader of JSON."""

_HUGE = re.compile(r"\d{309}")
"""From so many digits on a whole number may be beyond all floating-point numbers."""

_encode = msgspec.json.Encoder(order="deterministic").encode


def decode(text: bytes | str) -> Any:
    """The JSON value in `text`. Raises InputError, in a few words, for anything that is not JSON or nested too deep."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InputError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise InputError("not JSON that can be read: nested too deep") from error


def checked(value: Any, key: str) -> Value:
    """`value`, from outside, as an answer in one of the forms above. Raises InputError, naming `key`, for any other."""
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise InputError(f"`{key}` is a list, but not of texts")
    if isinstance(value, dict) and "tool_calls" in value:
        calls = value["tool_calls"]
        if not isinstance(calls, list) or not all(
            isinstance(c, dict) and isinstance(c.get("name"), str) for c in calls
        ):
            raise InputError(f"`{key}.tool_calls` must be a list of {{name, arguments}}")
    if _deeper(value, DEEPEST):
        raise InputError(f"`{key}` is nested deeper than {DEEPEST} levels")
    if any(isinstance(number, int) and number not in INTEGERS for number in _leaves(value)):
        raise InputError(f"`{key}` has a whole number of more than 64 bits")
    found: Value = value
    return found


def parse(value: Value) -> Value:
    """What `value` says: text that holds a JSON object or list, fenced or not, is read as that; other text is stripped.

    Only objects and lists are unpacked: the text "5" stays a text, since a label may look like a number. So does text
    that is nested too deep to be an answer, or has a whole number that is too large to reckon with.
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
        return parsed if not _deeper(parsed, DEEPEST) and not _huge(text, parsed) else value.strip()
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


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _deeper(value: Any, levels: int) -> bool:
    return levels < 0 or any(_deeper(item, levels - 1) for item in _inner(value))


def _huge(text: str, value: Any) -> bool:
    """Whether `value`, as `text` writes it, has a whole number with that many digits."""
    if len(text) < 309 or _HUGE.search(text) is None:
        return False
    return any(isinstance(number, int) and abs(number) >= 10**308 for number in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in _inner(value):
            yield from _leaves(item)
    else:
        yield value


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
