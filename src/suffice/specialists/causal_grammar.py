"""From an output contract to what a generating model may write: a JSON schema, and the grammar that keeps to it.

Whatever keeps to the schema of a contract is JSON that `core.contracts.covers` accepts: a silent field ("", [], null)
is not written at all, fields come in the contract's order, and there is no white space between tokens of JSON. Grammars
are those of llguidance, which transformers' runtime uses and llama.cpp has inside.

What a schema does not say: that a piece of the input stands in the input, and that labels are written once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from suffice.core.contracts import covers, may_be
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import plain
from suffice.specialists.runtime import Schema

LARGEST_WHOLE = 10**18 - 1
LARGEST = 10**15
"""Numbers that have no limits of their own are written between these and their negatives."""

_BARE = r"^(?:[^\s\x00-\x1f\[{`](?:(?s:.)*[^\s\x00-\x1f])?)?$"
"""A text by itself that reads as what it is: nothing around it that reading strips, nor JSON inside."""

_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": r" \t\n\r\f\v"}
_QUANTITY = re.compile(r"\{,(\d+)\}")


def schema_of(contract: OutputContract) -> Schema | None:
    """The JSON schema (2020-12) of what keeps to a contract; None for free text without limits, which is
    written bare.

    Raises ValueError, in one sentence, where nothing keeps to the contract, or where a pattern cannot be kept to token
    by token.
    """
    if contract == Text():
        return None
    builder = _Builder()
    schema = builder.schema(contract, said=False)
    if isinstance(contract, Span | Text):
        schema = {"allOf": [schema, {"type": "string", "pattern": _BARE}]}
    return {**schema, "$defs": builder.defs} if builder.defs else schema


def grammar_of(schema: Schema) -> str:
    """The grammar (llguidance's form of Lark) of compact JSON that keeps to `schema`."""
    compact = {**schema, "x-guidance": {"whitespace_flexible": False}}
    return "%llguidance {}\nstart: %json " + json.dumps(compact)


def forcing(tokens: Sequence[int]) -> str:
    """The grammar that allows these tokens, in this order, and nothing else."""
    return "%llguidance {}\nstart: " + " ".join(f"<[{token}]>" for token in tokens)


def check_grammar(grammar: str) -> None:
    """Raises ValueError, in one sentence, for a grammar that cannot be kept to token by token. Needs llguidance."""
    from llguidance import LLMatcher

    fault = LLMatcher.validate_grammar(grammar)
    if fault:
        raise ValueError(f"the schema cannot be kept to token by token: {' '.join(fault.split())[:300]}")


def unkept(contract: OutputContract) -> str | None:
    """None where a model can be made to keep to this contract, else why not, in one sentence."""
    try:
        schema = schema_of(contract)
        if schema is not None:
            check_grammar(grammar_of(schema))
    except ValueError as error:
        return str(error)
    return None


def pattern_of(pattern: str) -> str:
    """A Python pattern, with ASCII classes, as the same one of Rust's `regex`, where classes are Unicode's.

    Raises ValueError for word boundaries, which cannot be kept to token by token; what else `regex` does not know
    (look-around, references back) is found by `check_grammar`.
    """
    written, at, inside = [], 0, False
    while at < len(pattern):
        char = pattern[at]
        quantity = None if inside else _QUANTITY.match(pattern, at)
        if char == "\\" and at + 1 < len(pattern):
            written.append(_escape(pattern, pattern[at + 1], inside))
            at += 2
            continue
        if quantity:
            written.append(f"{{0,{quantity[1]}}}")
            at = quantity.end()
            continue
        if inside and char in "[&~":
            written.append("\\" + char)
        elif char == "[":
            opening = re.compile(r"\[\^?\]?").match(pattern, at)
            assert opening is not None
            written.append(opening[0].replace("]", "\\]"))
            inside, at = True, opening.end()
            continue
        else:
            inside = inside and char != "]"
            written.append(char)
        at += 1
    return "".join(written)


def _escape(pattern: str, char: str, inside: bool) -> str:
    if char in _CLASSES:
        return _CLASSES[char] if inside else f"[{_CLASSES[char]}]"
    if char.lower() in _CLASSES:
        return f"[^{_CLASSES[char.lower()]}]"  # inside of another, where Rust knows a class in a class
    if char == "b" and inside:
        return r"\x08"
    if char in "bB":
        raise ValueError(f"the pattern {pattern!r} has a word boundary, which cannot be kept to token by token")
    if char in "AZ":
        return "^" if char == "A" else "$"
    return char if char in "<>" else "\\" + char


class _Builder:
    """Schemas of contracts; those of objects stand once in `defs`."""

    def __init__(self) -> None:
        self.defs: dict[str, Schema] = {}
        self._names: dict[tuple[Fields, bool], str] = {}

    def schema(self, contract: OutputContract, *, said: bool) -> Schema:
        """`said`: something that is not silent (a field that says nothing is left out instead)."""
        match contract:
            case Choice(values):
                allowed = [v for v in values if covers(contract, plain(v)) and not (said and v in (None, ""))]
                return {"enum": _some(allowed, "a choice")}
            case Choices(values, least, most):
                room = len(values) if most is None else most
                items = {"type": "string", "enum": _some(list(values), "a set of labels")}
                return {"type": "array", "items": items, **_items(max(least, said), max(room, least))}
            case Many(of, least, most):
                return {"type": "array", "items": self.schema(of, said=False), **_items(max(least, said), most)}
            case Number(whole, least, most):
                return _number(whole, least, most)
            case Span(least, most, pattern) | Text(least, most, pattern):
                return _string(max(least, said), most, pattern)
            case ToolCall():
                return self._call(contract, said)
            case Fields():
                return {"$ref": f"#/$defs/{self._name(contract, said)}"}

    def _name(self, contract: Fields, said: bool) -> str:
        key = (contract, said)
        if key not in self._names:
            self._names[key] = name = f"object{len(self._names)}"
            self.defs[name] = _any_of([form for way in _ways(contract) for form in self._forms(way, said)])
        return self._names[key]

    def _forms(self, contract: Fields, said: bool) -> list[Schema]:
        """The object's schema, or several that differ in the first field that is there, so that one is."""
        must = {name for name, inner in contract.fields if name in contract.required or not may_be(inner, None)}
        shown = {
            name: self.schema(inner, said=True)
            for name, inner in contract.fields
            if name in must or not _only_null(inner)
        }
        if must or not said:
            return [_object(shown, must)]
        names = list(shown)
        if not names:
            raise ValueError("nothing keeps to the contract: it requires an object that has no fields")
        return [_object({n: shown[n] for n in names[at:]}, {names[at]}) for at in range(len(names))]

    def _call(self, contract: ToolCall, said: bool) -> Schema:
        calls: list[Schema] = [
            _object({"name": {"const": name}, "arguments": self.schema(inner, said=False)}, {"name", "arguments"})
            for name, inner in contract.tools
        ]
        if contract.offered:
            named: dict[str, Schema] = {"name": {"type": "string", "minLength": 1}, "arguments": {"type": "object"}}
            calls = [_object(named, {"name", "arguments"})]
        fewest = 0 if contract.none_allowed and not said else 1
        if not calls and not fewest:
            return _object({"tool_calls": {"enum": [[]]}}, {"tool_calls"})
        listed: Schema = {"type": "array", "items": _any_of(_some(calls, "a call of a tool")), **_items(fewest, 1)}
        return _object({"tool_calls": listed}, {"tool_calls"})


def _ways(contract: Fields) -> list[Fields]:
    """The object's forms: itself, or one for each of `either`, with what is required of all."""
    if not contract.either:
        return [contract]
    found = []
    for way in contract.either:
        kept = dict(way.fields)
        needed = {n for n, inner in contract.fields if n in contract.required or not may_be(inner, None)}
        if needed <= kept.keys():
            order = [(name, kept[name]) for name, _ in contract.fields if name in kept]
            found += _ways(Fields(tuple(order), (*way.required, *sorted(needed)), way.either))
    return _some(found, "an object of several forms")


def _only_null(contract: OutputContract) -> bool:
    return isinstance(contract, Choice) and all(value in (None, "") for value in contract.values)


def _some(kept: list[Any], what: str) -> list[Any]:
    if not kept:
        raise ValueError(f"nothing keeps to the contract: it asks for {what} where there is none to choose")
    return kept


def _any_of(schemas: list[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _object(properties: dict[str, Schema], required: set[str]) -> Schema:
    needed = [name for name in properties if name in required]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _items(least: int, most: int | None) -> Schema:
    return {"minItems": int(least), **({} if most is None else {"maxItems": most})}


def _string(least: int, most: int | None, pattern: str) -> Schema:
    limits = {"minLength": int(least), **({} if most is None else {"maxLength": most})}
    return {"type": "string", **limits, **({"pattern": pattern_of(pattern)} if pattern else {})}


def _number(whole: bool, least: float | None, most: float | None) -> Schema:
    largest = LARGEST_WHOLE if whole else LARGEST
    low, high = -largest if least is None else max(least, -largest), largest if most is None else min(most, largest)
    if whole:
        return {"type": "integer", "minimum": math.ceil(low), "maximum": math.floor(high)}
    return {"type": "number", "minimum": low, "maximum": high}
