"""What a JSON schema, as functions that are offered bring it, allows: the few words that matter, all others ignored.

`type` may also be what some vendors write for a JSON type ("dict", "float", "tuple", "any"). Where a schema is not
understood it allows everything: an answer is held against it, not the schema against the standard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.core.values import Value, canonical

_TYPES = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "long": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "tuple": "array",
    "set": "array",
}
_KNOWN = {"string", "integer", "number", "boolean", "object", "array", "null"}
_DEEPEST = 20


def types_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON types that `type` allows; none of them: any."""
    given = schema.get("type")
    names = given if isinstance(given, list) else [given]
    found = [_TYPES.get(name.lower(), name.lower()) for name in names if isinstance(name, str)]
    return tuple(found) if all(name in _KNOWN for name in found) else ()


def branch(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, or the first alternative that is not null where it only lists alternatives."""
    for word in ("anyOf", "oneOf"):
        inner = schema.get(word)
        if isinstance(inner, list) and "type" not in schema:
            kept = [each for each in inner if isinstance(each, dict) and types_of(each) != ("null",)]
            if kept:
                return {**schema, **kept[0]}
    return schema


def required_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """The names of the properties that an object must have."""
    given = schema.get("required")
    return frozenset(name for name in given if isinstance(name, str)) if isinstance(given, list) else frozenset()


def valid(value: Value, schema: Any, depth: int = 0) -> bool:
    """Whether `value` keeps to `schema`: type, enum, required, properties, items, minimum, maximum, anyOf, oneOf."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return True
    types = types_of(schema)
    if types and not any(_is(value, name) for name in types):
        return False
    if isinstance(schema.get("enum"), list) and not _among(value, schema["enum"], types):
        return False
    for word in ("anyOf", "oneOf"):
        inner = schema.get(word)
        if isinstance(inner, list) and inner and not any(valid(value, each, depth + 1) for each in inner):
            return False
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _within(value, schema):
        return False
    if isinstance(value, list) and not all(valid(item, schema.get("items"), depth + 1) for item in value):
        return False
    if isinstance(value, dict):
        inner = schema.get("properties")
        named: dict[str, Any] = inner if isinstance(inner, dict) else {}
        if not required_of(schema) <= value.keys():
            return False
        return all(valid(item, named.get(name), depth + 1) for name, item in value.items())
    return True


def _is(value: Value, name: str) -> bool:
    if name == "boolean":
        return isinstance(value, bool)
    if name == "integer":
        return not isinstance(value, bool) and (
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        )
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds: dict[str, type] = {"string": str, "object": dict, "array": list, "null": type(None)}
    return isinstance(value, kinds[name])


def _among(value: Value, allowed: list[Any], types: tuple[str, ...]) -> bool:
    """Some schemas put the values of a list's items beside its type: then each item is held against them."""
    known = {canonical(each) for each in allowed}
    if types == ("array",) and isinstance(value, list) and not any(isinstance(each, list) for each in allowed):
        return all(canonical(item) in known for item in value)
    return canonical(value) in known


def _within(value: float, schema: Mapping[str, Any]) -> bool:
    low, high = schema.get("minimum"), schema.get("maximum")
    if isinstance(low, (int, float)) and value < low:
        return False
    return not (isinstance(high, (int, float)) and value > high)
