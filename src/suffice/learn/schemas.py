"""What a request fixes of its answer: the JSON schema of its response format, or the tools that it offers.

A schema is read as far as a contract can keep it: kinds, closed lists, limits, what is required, several forms of an
object, references. Observed answers settle what it leaves open. Whatever else it asks of an answer is named in
`Reader.unchecked`, unless a closed list of observed values keeps it by itself.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from suffice.core.contracts import covers, may_be
from suffice.core.errors import InputError
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, canonical, decode
from suffice.learn import shapes
from suffice.learn.places import place, under

DEEPEST = 12
"""Levels of a schema that are followed; a schema that refers to itself would never end."""
UNSEEN = 3
"""The same where no answer says anything."""
ALTERNATIVES = 3
"""Levels of alternatives within alternatives that are followed."""
MOST_PARTS = 10_000
"""Parts of a schema that are read; one that refers to itself several times would have more than any contract."""
RANGE = 20
"""Whole numbers between two limits of a schema are a closed list up to this many."""

Rows = Sequence[tuple[str, Value]]
Schema = dict[str, Any]

_SAYS_NOTHING = frozenset(
    ("title", "description", "default", "examples", "example", "$comment", "deprecated", "readOnly", "writeOnly")
)
_OF_TEXTS = ("format", "contentEncoding", "contentMediaType")
_OF_OBJECTS = (
    *("patternProperties", "propertyNames", "dependentRequired", "dependentSchemas", "dependencies"),
    *("minProperties", "maxProperties", "if", "not"),
)
_OF_LISTS = ("uniqueItems", "contains", "prefixItems", "not")
_REPEATED_GROUP = re.compile(r"\)[*+{]")


class Asked(NamedTuple):
    """What the request says of its answer: a JSON schema, any JSON object, tools (each with its arguments' schema)."""

    schema: Schema | None
    any_object: bool
    tools: dict[str, Schema]
    must_call: bool


class Reader:
    """Reads one schema. `loose`: answers do not narrow what it leaves open, as for one of several forms.

    `unchecked` are sentences on what the schema asks for and no contract keeps.
    """

    def __init__(self, root: Mapping[str, Any], loose: bool = False) -> None:
        self.root, self.loose = root, loose
        self.unchecked: list[str] = []
        self.parts = 0

    def contract(self, schema: Any, rows: Rows, where: str = "", depth: int = 0) -> tuple[OutputContract, bool]:
        """What a JSON schema says, and whether it allows null. `rows` are (input, observed value), None where absent.

        A list at the place "" is a set of labels, if it is one of labels at all.
        """
        self.parts += 1
        if self.parts > MOST_PARTS:
            return Text(), True
        said = [(text, value) for text, value in rows if value is not None]
        schema, nullable = self.resolved(schema, said, where)
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        kind = _kind(schema)
        if isinstance(values, list) and values and not any(isinstance(value, list | dict) for value in values):
            silent = [value for value in values if value is None or (value == "" and where)]  # "" is an absent field
            distinct = {canonical(value): value for value in values if value not in silent}
            return Choice(tuple(distinct.values())), nullable or bool(silent)
        if isinstance(values, list) and values:
            self._unchecked(where, ["enum"])
        if kind == "boolean":
            return Choice((False, True)), nullable
        if kind in ("integer", "number", "float"):
            return self._number(schema, said, kind == "integer", where), nullable
        if kind == "string":
            return self._text(schema, rows, where), nullable
        deeper = depth < (DEEPEST if said else UNSEEN)
        if deeper and kind == "array":
            return self._array(schema, said, where, depth), nullable
        if deeper and kind in (None, "object", "dict") and "forms" in schema:
            return self._forms(schema, said, where, depth), nullable
        properties = schema.get("properties")
        if deeper and kind in (None, "object", "dict") and isinstance(properties, dict) and properties:
            return self._object(schema, properties, said, where, depth), nullable
        if kind in ("object", "dict"):
            return self._map(schema, said, where, depth), nullable
        return (shapes.infer(*_apart(said)) if said else _never(rows)), nullable

    # -- numbers and texts

    def _number(self, schema: Schema, said: Rows, whole: bool, where: str) -> OutputContract:
        """A closed list where the limits make one, or where hardly a new number comes; else any within the limits."""
        open_number = _limits(schema, whole)
        least, most = open_number.least, open_number.most
        if whole and least is not None and most is not None and 0 <= most - least < RANGE:
            return Choice(tuple(range(int(least), int(most) + 1)))
        numbers = [(text, value) for text, value in said if covers(open_number, value)]
        if numbers and not self.loose and shapes.closed(numbers):
            found = [value for _, value in numbers if isinstance(value, int | float)]
            return Choice(tuple(sorted({int(value) if float(value).is_integer() else value for value in found})))
        if "multipleOf" in schema:
            self._unchecked(where, ["multipleOf"])
        return open_number

    def _text(self, schema: Schema, rows: Rows, where: str) -> OutputContract:
        limits, unusable = _written(schema)
        texts = [(text, value) for text, value in rows if isinstance(value, str) and covers(limits, value)]
        unkept = [*unusable, *(key for key in _OF_TEXTS if key in schema)]
        if self.loose:
            return limits
        found = shapes.infer(*_apart(texts)) if texts else _never(rows)
        if not isinstance(found, Choice):
            self._unchecked(where, unkept)
        if isinstance(found, Text):
            return Text(limits.least, limits.most, limits.pattern)
        return limits if isinstance(found, Span) else found

    # -- lists

    def _array(self, schema: Schema, said: Rows, where: str, depth: int) -> OutputContract:
        lists = [value for _, value in said if isinstance(value, list)]
        inside = [(text, item) for text, value in said if isinstance(value, list) for item in value]
        least, most = _count(schema, "minItems", 0), _count(schema, "maxItems", None)
        items = schema.get("items")
        of: OutputContract
        if not isinstance(items, dict) or (self.loose and not items):
            if self.loose:
                return Many(Text(), least or 0, most)
            found = shapes.infer([t for t, v in said if isinstance(v, list)], lists) if lists else Many(Text())
            self._unchecked(where, [key for key in _OF_LISTS if key in schema])
            return msgspec.structs.replace(found, least=least or 0, most=most) if isinstance(found, Many) else found
        of, _ = self.contract(items, inside, f"{where}[]", depth + 1)
        if isinstance(of, Choice) and of.values and all(isinstance(value, str) for value in of.values):
            labels = [value for value in of.values if isinstance(value, str)]
            allowed = set(labels)
            seen = dict.fromkeys(label for label in shapes.order(lists) if label in allowed)
            return Choices((*seen, *(label for label in labels if label not in seen)), least or 0, most)
        self._unchecked(where, [key for key in _OF_LISTS if schema.get(key)])
        return Many(of, least or 0, most)

    # -- objects

    def _object(self, schema: Schema, properties: Mapping[str, Any], said: Rows, where: str, depth: int) -> Fields:
        """The schema's fields: first as the answers order them, since canonical JSON has lost the schema's own order.

        A field that the schema requires is required here too, unless answers leave null, or an empty text or list, in
        it and the schema allows that: only then it is known how the frontier says nothing there.
        """
        objects = [(text, value) for text, value in said if isinstance(value, dict)]
        seen = dict.fromkeys(name for _, value in objects for name in value if name in properties)
        given = schema.get("required")
        asked = {name for name in given if isinstance(name, str)} if isinstance(given, list) else set()
        fields: list[tuple[str, OutputContract]] = []
        required: list[str] = []
        for name in [*seen, *(name for name in properties if name not in seen)]:
            inside = [(text, value.get(name)) for text, value in objects]
            contract, nullable = self.contract(properties[name], inside, under(where, name), depth + 1)
            silent = not inside or any(value is None for _, value in inside)
            said_always = not silent or not (nullable or self._may_be_silent(properties[name], contract))
            absent = nullable or name not in asked or not said_always
            contract = shapes.optional(contract) if absent else contract
            if name in asked and said_always and may_be(contract, None):
                required.append(name)
            fields.append((name, contract))
        self._unchecked(where, [key for key in _OF_OBJECTS if key in schema])
        return Fields(tuple(fields), tuple(required))

    def _may_be_silent(self, schema: Any, contract: OutputContract) -> bool:
        """Whether an answer may leave a field out that the schema requires, by an empty text, list or object."""
        match contract:
            case Choice() | Text() | Span():
                found, _ = self.resolved(schema, (), "")
                limits, _ = _written(found)
                free = _kind(found) in ("string", None) and "enum" not in found and "const" not in found
                return free and limits == Span(most=limits.most) and "pattern" not in found
            case Choices(_, least) | Many(_, least):
                return least == 0
            case Fields(_, required, either):
                return not required and not either
            case _:
                return False

    def _map(self, schema: Schema, said: Rows, where: str, depth: int) -> Fields:
        """Any object: only the answers say what is in it; the schema may say what its fields are like."""
        objects = [(text, value) for text, value in said if isinstance(value, dict)]
        like = schema.get("additionalProperties")
        if isinstance(like, dict) and like and depth < DEEPEST:
            names = dict.fromkeys(name for _, value in objects for name in value)
            return self._object({**schema, "required": []}, dict.fromkeys(names, like), said, where, depth)
        self._unchecked(where, [key for key in _OF_OBJECTS if key in schema])
        return shapes.fields(objects)

    def _forms(self, schema: Schema, said: Rows, where: str, depth: int) -> Fields:
        """An object of several forms: the fields of all, and what each form asks of them together."""
        forms = [self._merged([_without(schema, "forms"), form]) for form in schema["forms"]]
        together: dict[str, list[Any]] = {}
        for form in forms:
            for name, inner in form["properties"].items():
                if inner not in together.setdefault(name, []):
                    together[name].append(inner)
        properties = {name: ways[0] if len(ways) == 1 else {"anyOf": ways} for name, ways in together.items()}
        lists = [form.get("required") for form in forms]
        required = [name for name in properties if all(isinstance(names, list) and name in names for names in lists)]
        whole = self._object({"required": required}, properties, said, where, depth)
        loose = Reader(self.root, loose=True)
        # How the frontier says nothing is known of a field, not of a form: what forms see differently must be said.
        unsure = {name for name in properties if loose._differs(name, forms)}
        either: list[Fields] = []
        for form in forms:
            fitting = [(t, v) for t, v in said if isinstance(v, dict) and v.keys() <= form["properties"].keys()]
            fields = loose._object(form, form["properties"], fitting, where, depth)
            told = [name for name in form["properties"] if name in unsure and name not in fields.required]
            either.append(msgspec.structs.replace(fields, required=(*fields.required, *told)))
        self.unchecked += [sentence for sentence in loose.unchecked if sentence not in self.unchecked]
        # Of a form that no answer has it is not known how the frontier writes it.
        seen = [form for form in either if any(covers(form, value) for _, value in said)]
        return msgspec.structs.replace(whole, either=tuple(seen or either))

    def _differs(self, name: str, forms: Sequence[Schema]) -> bool:
        """Whether forms differ in a field that one of them requires, or lets be null."""
        ways = {canonical(form["properties"].get(name)) for form in forms}
        asks = [isinstance(names := form.get("required"), list) and name in names for form in forms]
        if len(ways) == 1 and len(set(asks)) == 1:
            return False
        there = [form["properties"][name] for form in forms if name in form["properties"]]
        return any(asks) or any(self.contract(way, (), name)[1] for way in there)

    # -- one meaning out of several

    def resolved(self, schema: Any, said: Rows, where: str, levels: int = ALTERNATIVES) -> tuple[Schema, bool]:
        """A schema without references and alternatives, as far as there is one meaning left; and whether null is one.

        Of alternatives of different kinds the one that most answers are counts; objects of several forms become
        `forms`, a key of ours.
        """
        nullable = False
        for _ in range(DEEPEST):
            if not isinstance(schema, dict):
                return {}, nullable
            if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
                schema = self._merged([self._found(reference), _without(schema, "$ref")])
            elif isinstance(ways := schema.get("anyOf", schema.get("oneOf")), list):
                left = [way for way in ways if not (isinstance(way, dict) and way.get("type") == "null")]
                nullable = nullable or len(left) < len(ways)
                schema = self._merged([self._one(left, said, where, levels), _without(schema, "anyOf", "oneOf")])
            elif isinstance(every := schema.get("allOf"), list):
                schema = self._merged([*every, _without(schema, "allOf")])
            else:
                kinds = schema.get("type")
                if isinstance(kinds, list):
                    left = [kind for kind in kinds if kind != "null"]
                    nullable = nullable or len(left) < len(kinds)
                    listed = "enum" in schema or "const" in schema
                    if len(left) > 1 and not listed:
                        schema = {"anyOf": [{**schema, "type": kind} for kind in left]}
                        continue
                    schema = _without(schema, "type") if listed or not left else {**schema, "type": left[0]}
                return schema, nullable or schema.get("nullable") is True
        return {}, nullable

    def _one(self, ways: Sequence[Any], said: Rows, where: str, levels: int) -> Any:
        """One schema for these alternatives; empty where there is none."""
        if len(ways) == 1 or levels == 0:
            return ways[0] if len(ways) == 1 else {}
        flat = [self.resolved(way, said, where, levels - 1)[0] for way in ways]
        lists = [way.get("enum", [way["const"]] if "const" in way else None) for way in flat]
        if lists and all(isinstance(values, list) for values in lists):
            return {"enum": [value for values in lists for value in values or []]}
        if flat and all(isinstance(way.get("properties"), dict) and _kind(way) in (None, "object") for way in flat):
            return {"type": "object", "forms": flat}
        if flat and all(_kind(way) in ("integer", "number") for way in flat):
            plain = any(_SAYS_NOTHING.union(("type",)) >= way.keys() for way in flat if _kind(way) == "number")
            return {"type": "number"} if plain else {}
        if flat and all(_kind(way) == "string" for way in flat):
            if any(_SAYS_NOTHING.union(("type",)) >= way.keys() for way in flat):
                return {"type": "string"}
            self._unchecked(where, ["anyOf"])
            return {"type": "string"}
        counts = [sum(_is(_kind(way), value) for _, value in said) for way in flat]
        if counts and max(counts) * 2 > len(said) > 0 and counts.count(max(counts)) == 1:
            return flat[counts.index(max(counts))]
        self._unchecked(where, ["anyOf"])
        return {}

    def _merged(self, schemas: Sequence[Any]) -> Schema:
        """What keeps all of these; a key that two of them say differently, and that cannot be joined, is the last's."""
        merged: Schema = {}
        for schema in schemas:
            for key, value in schema.items() if isinstance(schema, dict) else ():
                known = merged.get(key)
                if key not in merged or known == value or key in _SAYS_NOTHING:
                    merged[key] = value
                elif key == "properties" and isinstance(known, dict) and isinstance(value, dict):
                    both = {name: {"allOf": [known[name], value[name]]} for name in known.keys() & value.keys()}
                    merged[key] = {**known, **value, **both}
                elif key == "required" and isinstance(known, list) and isinstance(value, list):
                    merged[key] = [*known, *(name for name in value if name not in known)]
                elif key in ("anyOf", "oneOf", "allOf"):
                    merged["allOf"] = [*merged.get("allOf", []), {key: value}]
                elif key == "enum" and isinstance(known, list) and isinstance(value, list):
                    merged[key] = [item for item in known if item in value]
                elif key.startswith(("minimum", "exclusiveMin", "min")) and None not in (
                    _number(known),
                    _number(value),
                ):
                    merged[key] = max(known, value)
                elif key.startswith(("max", "exclusiveMax")) and None not in (_number(known), _number(value)):
                    merged[key] = min(known, value)
                else:
                    merged[key] = value
        return merged

    def _found(self, reference: str) -> Any:
        found: Any = self.root
        for step in reference[1:].strip("/").split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            found = (found.get(step) if isinstance(found, dict) else None) if step else found
        return found

    def _unchecked(self, where: str, keys: Sequence[str]) -> None:
        if keys:
            named = " and ".join(f"`{key}`" for key in keys)
            sentence = f"the schema's {named} for {place(where)} is not checked by its contract"
            if sentence not in self.unchecked:
                self.unchecked.append(sentence)


def of_tools(
    asked: Asked, texts: Sequence[str], calls: Sequence[list[dict[str, Value]] | None]
) -> tuple[ToolCall, list[str]]:
    """Every tool that the request offers, in alphabetical order, and what is not checked of their schemas."""
    rows: defaultdict[str, list[tuple[str, Value]]] = defaultdict(list)
    for text, call in zip(texts, calls, strict=True):
        if call is not None and len(call) == 1:
            rows[str(call[0]["name"])].append((text, call[0].get("arguments", {})))
    tools: list[tuple[str, Fields]] = []
    unchecked: list[str] = []
    for name, schema in sorted(asked.tools.items()):
        reader = Reader(schema)
        arguments, _ = reader.contract({"type": "object", **schema}, rows[name], f"{name}()")
        tools.append((name, arguments if isinstance(arguments, Fields) else Fields(())))
        unchecked += reader.unchecked
    never = not any(calls) and not asked.must_call
    return ToolCall(tuple(tools), none_allowed=never or any(call == [] for call in calls)), unchecked


# ---------------------------------------------------------------------------------------------- small readings


def _apart(rows: Rows) -> tuple[list[str], list[Value]]:
    return [text for text, _ in rows], [value for _, value in rows]


def _never(rows: Rows) -> OutputContract:
    """A text that no answer gives: absent in all of `rows`, or nothing known of it where there are none."""
    return Choice((None,)) if rows and all(value is None for _, value in rows) else Text()


def _without(schema: Schema, *keys: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys and key not in _SAYS_NOTHING}


def _kind(schema: Schema) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else None


def _is(kind: str | None, value: Value) -> bool:
    """Whether an observed value is of a schema's kind."""
    if isinstance(value, bool):
        return kind == "boolean"
    if isinstance(value, int | float):
        return kind in ("number", "float") or (kind == "integer" and float(value).is_integer())
    return kind == ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object")


def _number(value: Any) -> float | None:
    """A limit; None for what is none, or is beyond what a number can be."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) >= 10**308:
        return None
    return float(value)


def _limits(schema: Schema, whole: bool) -> Number:
    """The smallest and the largest number that a schema allows; those of draft 4, where exclusive is a flag, too."""

    def end(inclusive: str, exclusive: str, towards: float) -> float | None:
        limit = _number(schema.get(inclusive))
        beyond = limit if schema.get(exclusive) is True else _number(schema.get(exclusive))
        found = [] if limit is None else [limit]
        if beyond is not None:
            found.append(math.nextafter(beyond, towards))
        if not found:
            return None
        tightest = max(found) if towards > 0 else min(found)
        if whole and math.isfinite(tightest):
            return float(math.ceil(tightest) if towards > 0 else math.floor(tightest))
        return tightest

    return Number(whole, end("minimum", "exclusiveMinimum", math.inf), end("maximum", "exclusiveMaximum", -math.inf))


def _count(schema: Schema, key: str, otherwise: int | None) -> int | None:
    value = schema.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise


def _written(schema: Schema) -> tuple[Span, list[str]]:
    """What a schema says of how a text is written, and which of its keys cannot be checked.

    A pattern that repeats a group is left alone: matching one may take for ever.
    """
    pattern, unusable = schema.get("pattern"), []
    if isinstance(pattern, str) and pattern:
        try:
            re.compile(pattern, re.ASCII)
        except (re.error, OverflowError, RecursionError):
            unusable = ["pattern"]
        if _REPEATED_GROUP.search(pattern):
            unusable = ["pattern"]
    kept = pattern if isinstance(pattern, str) and not unusable else ""
    return Span(_count(schema, "minLength", 0) or 0, _count(schema, "maxLength", None), kept), unusable


# ---------------------------------------------------------------------------------------------- the request


def read(response_format: str, tools: str) -> tuple[Asked, list[str]]:
    """Read both texts (canonical JSON, as in `Request`); what cannot be read says nothing but a note."""
    notes: list[str] = []

    def parsed(text: str, name: str) -> Any:
        try:
            return decode(text) if text else None
        except InputError:
            notes.append(f"the request's {name} is not JSON and was not looked at")
            return None

    form, offered = parsed(response_format, "response format"), parsed(tools, "tools")
    schema: Any = None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        inner = form.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else form.get("schema")
        if not isinstance(schema, dict):
            schema = None
            notes.append("the request's response format names a JSON schema, but holds none")
    found: dict[str, Schema] = {}
    forced: list[Any] = []
    for part in offered if isinstance(offered, list) else []:
        # `Request.tools` is a list of lists (tools, functions) and what is forced; a bare list of tools is read too.
        for tool in part if isinstance(part, list) else [part]:
            function = tool.get("function", tool) if isinstance(tool, dict) else tool
            parameters = None
            if isinstance(function, dict):
                parameters = function.get("parameters", function.get("input_schema"))
            if (
                isinstance(function, dict)
                and isinstance(function.get("name"), str)
                and (isinstance(part, list) or parameters is not None or "description" in function)
            ):
                found[function["name"]] = parameters if isinstance(parameters, dict) else {}
            else:
                forced.append(function["name"] if isinstance(function, dict) and "name" in function else function)
    only = [name for name in forced if isinstance(name, str) and name in found]
    if "none" in forced:
        found = {}
    elif only:
        found = {name: found[name] for name in only}
    must = bool(only) or "required" in forced or "any" in forced
    return Asked(schema, kind == "json_object", found, must), notes
