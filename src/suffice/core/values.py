"""What an answer is, and when two answers are the same.

An answer is a JSON value: text, number, true/false, null, a list of texts (labels), an object, or
`{"tool_calls": [{"name", "arguments"}]}` (an empty list: no call). Two answers are equal when they parse to the same
value after dropping null, "" and [] fields. A list at the top is a set of labels; a list inside an object is ordered.
"""

from __future__ import annotations

import msgspec

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

_encode = msgspec.json.Encoder(order="deterministic").encode


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
            parsed: Value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return value.strip()
        return parsed
    return text


def pruned(value: Value) -> Value:
    """`value` without null, "" and [] fields of objects, at every depth."""
    if isinstance(value, dict):
        kept = {key: pruned(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item != "" and item != []}
    if isinstance(value, list):
        return [pruned(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def canonical(value: Value) -> str:
    """A text that is the same for equal answers and differs for others (JSON, keys sorted, top-level lists sorted)."""
    plain = pruned(parse(value))
    if isinstance(plain, list):
        return _encode(sorted({_encode(item) for item in plain})).decode()
    return _encode(plain).decode()


def calls_of(value: Value) -> list[dict[str, Value]] | None:
    """The tool calls of an answer in that form (an empty list: no call), None for any other answer."""
    if isinstance(value, dict) and value.keys() == {"tool_calls"} and isinstance(value["tool_calls"], list):
        calls = [call for call in value["tool_calls"] if isinstance(call, dict) and isinstance(call.get("name"), str)]
        return calls if len(calls) == len(value["tool_calls"]) else None
    return None
