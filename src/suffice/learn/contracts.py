"""The output contract: inferred from answers, told by what the request itself fixes, and what newer answers do to it.

`infer` looks at answers only (of train and tune, where a model is to be learned). `told` also takes the request's JSON
schema or tools as given and measures how surely future answers keep the contract; `drift` compares later answers with
a contract. All are pure, and look at a bounded part of what they are handed.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from suffice.core.contracts import covers
from suffice.core.errors import InputError
from suffice.core.types import (
    Choice,
    Choices,
    Estimate,
    Fields,
    Many,
    Number,
    OutputContract,
    Span,
    Text,
    ToolCall,
)
from suffice.core.values import Value, calls_of, canonical, decode, plain
from suffice.proof import bounds

OPEN = 0.2
"""A list of values is closed if the chance that the next answer is a new one is at most this (Good-Turing)."""
PIECES = 0.9
"""From this share of answers that stand in their input on, an open field is a piece of the input."""
MOST_ROWS = 4_000
MOST_CHARS = 20_000_000
FEWEST_ROWS = 200
"""`told` and `drift` look at MOST_ROWS at most, and at fewer (not below FEWEST_ROWS) where texts are huge."""
DEEPEST_SCHEMA = 12
"""Levels of a schema that are followed; a schema that refers to itself would never end."""
RANGE = 20
"""Whole numbers between two limits of a schema are a closed list up to this many."""
NEW = 2
"""Records from which on something outside of the contract is a change; a single one is an oddity."""
EXAMPLES = 5
"""Things of one kind that a note names."""


def infer(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """The contract that most answers keep. `values` are in their plain form, one for each input."""
    called = [calls_of(value) for value in values]
    if sum(calls is not None for calls in called) * 2 > len(values):
        return _tool_call(inputs, called)
    if sum(isinstance(value, dict) for value in values) * 2 > len(values):
        return _fields([(text, value) for text, value in zip(inputs, values, strict=True) if isinstance(value, dict)])
    if sum(isinstance(value, list) for value in values) * 2 > len(values):
        lists = [value for value in values if isinstance(value, list)]
        items = [(text, item) for text, value in _listed(inputs, values) for item in value]
        if sum(isinstance(item, dict | list) for _, item in items) * 2 > len(items):
            return Many(infer([text for text, _ in items], [item for _, item in items]))
        if items and all(isinstance(item, bool) for _, item in items):
            return Many(Choice((False, True)))
        labels = [label for labels in lists for label in labels if isinstance(label, str)]
        if labels and _closed(labels):
            return Choices(tuple(sorted(set(labels))))
        return Many(_open(inputs, values))
    scalars = [(text, v) for text, v in zip(inputs, values, strict=True) if not isinstance(v, list | dict)]
    return _scalar([text for text, _ in scalars], [value for _, value in scalars])


def _listed(inputs: Sequence[str], values: Sequence[Value]) -> Iterator[tuple[str, list[Value]]]:
    return ((text, value) for text, value in zip(inputs, values, strict=True) if isinstance(value, list))


def _tool_call(inputs: Sequence[str], called: Sequence[list[dict[str, Value]] | None]) -> ToolCall:
    """Tools in alphabetical order, each with the contract of its arguments; several calls at once are outside it."""
    arguments: dict[str, list[tuple[str, dict[str, Value]]]] = {}
    for text, calls in zip(inputs, called, strict=True):
        if calls is not None and len(calls) == 1:
            given = calls[0].get("arguments", {})
            if isinstance(given, dict):
                arguments.setdefault(str(calls[0]["name"]), []).append((text, given))
    tools = tuple((name, _fields(rows)) for name, rows in sorted(arguments.items()))
    return ToolCall(tools, none_allowed=any(calls == [] for calls in called))


def _fields(rows: Sequence[tuple[str, dict[str, Value]]]) -> Fields:
    """Fields in the order in which they first appear; one that is absent somewhere has null among its choices."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    return Fields(tuple((name, _field([(text, row.get(name)) for text, row in rows])) for name in names))


def _field(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    said = [(text, value) for text, value in rows if value is not None]
    contract = infer([text for text, _ in said], [value for _, value in said])
    if isinstance(contract, Choices):  # a list in an object is ordered
        return Choices(_order([value for _, value in said if isinstance(value, list)]))
    return _optional(contract) if len(said) < len(rows) else contract


def _optional(contract: OutputContract) -> OutputContract:
    """`contract` for a field that may be absent: so may all that it holds."""
    if isinstance(contract, Choice) and None not in contract.values:
        return Choice((*contract.values, None))
    if isinstance(contract, Fields):
        return Fields(tuple((name, _optional(inner)) for name, inner in contract.fields))
    return contract


def _order(lists: Sequence[Sequence[Value]]) -> tuple[str, ...]:
    """Labels as the lists order them: by their mean place among the labels of a list, then by name."""
    places: dict[str, list[float]] = {}
    for labels in lists:
        for position, label in enumerate(labels):
            if isinstance(label, str):
                places.setdefault(label, []).append((position + 0.5) / len(labels))
    return tuple(sorted(places, key=lambda label: (round(sum(places[label]) / len(places[label]), 3), label)))


def _scalar(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    if _closed(values):
        distinct = {canonical(value): value for value in values if not isinstance(value, list | dict)}
        return Choice(tuple(distinct[key] for key in sorted(distinct)))
    return _open(inputs, values)


def _closed(values: Sequence[Value]) -> bool:
    """Good-Turing: the chance of a value never seen is about the share of values seen once."""
    counts = Counter(map(canonical, values))
    return sum(count == 1 for count in counts.values()) <= OPEN * len(values)


def _open(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """What an open value is: a number, a piece of the input, or text that the model makes up."""
    pairs = [
        (text, item)
        for text, value in zip(inputs, values, strict=True)
        for item in (value if isinstance(value, list) else [value])
    ]
    if pairs and all(isinstance(item, int | float) and not isinstance(item, bool) for _, item in pairs):
        return Number()
    if sum(_piece(text, item) for text, item in pairs) >= PIECES * len(pairs) > 0:
        return Span()
    return Text()


def _piece(text: str, item: Value) -> bool:
    return isinstance(item, str) and item.casefold() in text.casefold()


# ---------------------------------------------------------------------------------------------- what the request fixes


class Inferred(msgspec.Struct, frozen=True, kw_only=True):
    """A contract with what speaks for it.

    `records` were handed in, unreadable ones included; `share` of them keep the contract. `sureness` is the share of
    future answers expected to keep it: the contract of one half of the answers, checked on the other half, with its
    95% interval (rows taken as independent). `given`: the request's JSON schema or tools fixed the contract. `notes`
    are plain sentences.
    """

    contract: OutputContract
    records: int
    share: float
    sureness: Estimate
    given: bool
    notes: tuple[str, ...] = ()


class _Asked(NamedTuple):
    """What the request says of its answer: a JSON schema, any JSON object, tools (each with its arguments' schema)."""

    schema: dict[str, Any] | None
    any_object: bool
    tools: dict[str, dict[str, Any]]
    must_call: bool


def told(
    inputs: Sequence[str],
    values: Sequence[Value],
    *,
    response_format: str = "",
    tools: str = "",
    unreadable: int = 0,
) -> Inferred:
    """The contract of these answers, with the request's own word taken as given.

    `values`, one for each input, are the answers that could be read, `unreadable` counts those that could not (refused,
    cut off): none of these keeps a contract. `response_format` and `tools` are canonical JSON as in `Request`; what is
    no JSON, or no schema, says nothing, and a note tells so. Observed answers settle what a schema leaves open: whether
    a text is one of a closed list, a piece of the input, or free. Tools that are offered where most answers are texts
    do not make a tool call of them.

    At most MOST_ROWS answers are looked at, one at random (fixed seed) out of each of as many equal stretches, so that
    neither a sorted file nor a rhythm in the traffic leads astray.
    """
    records = len(values) + unreadable
    rows = _looked_at(inputs, values)
    texts, answers = [inputs[i] for i in rows], [plain(values[i]) for i in rows]
    asked, notes = _asked(response_format, tools)
    contract, given = _contract(texts, answers, asked)
    kept = sum(covers(contract, answer) for answer in answers)
    if len(rows) < len(values):
        notes.append(f"{len(rows):,} of {len(values):,} answers were looked at")
    if unreadable:
        notes.append(f"{unreadable:,} of {records:,} answers could not be read (refused, cut off, or failed)")
    notes += _notes(contract, texts, answers, asked, given)
    share = kept / len(answers) * len(values) / records if answers else 0.0
    sureness = _sureness(texts, answers, asked, unreadable * len(rows) / len(values) if values else unreadable)
    return Inferred(contract=contract, records=records, share=share, sureness=sureness, given=given, notes=tuple(notes))


def called(contract: OutputContract, values: Sequence[Value]) -> OutputContract:
    """`contract` without the tools that none of these answers calls: what can be learned of it, and predicted."""
    if not isinstance(contract, ToolCall):
        return contract
    names = {calls[0]["name"] for value in values if (calls := calls_of(plain(value)))}
    return ToolCall(tuple(tool for tool in contract.tools if tool[0] in names), contract.none_allowed)


def _looked_at(inputs: Sequence[str], values: Sequence[Value]) -> list[int]:
    if len(inputs) != len(values):
        raise ValueError(f"{len(inputs)} inputs for {len(values)} answers")
    n = len(values)
    if n == 0:
        return []
    sizes = np.array([len(text) for text in inputs]) + np.array([len(v) if isinstance(v, str) else 50 for v in values])
    most = min(MOST_ROWS, max(FEWEST_ROWS, int(MOST_CHARS / sizes.mean())))
    if n <= most:
        return list(range(n))
    edges = np.linspace(0, n, most + 1).astype(int)
    found: list[int] = np.random.default_rng(0).integers(edges[:-1], edges[1:]).tolist()
    return found


def _sureness(texts: Sequence[str], answers: Sequence[Value], asked: _Asked, unreadable: float) -> Estimate:
    """Checked on a random half that the contract was not made from, with that half's part of the unreadable."""
    order = np.random.default_rng(1).permutation(len(answers)).tolist()
    make, check = order[: len(order) // 2], order[len(order) // 2 :]
    if not make:
        n = round(unreadable)
        low, high = bounds.clopper_pearson(0, n)
        return Estimate(value=0.0 if n else None, low=low, high=high, n=n)
    contract, _ = _contract([texts[i] for i in make], [answers[i] for i in make], asked)
    kept = sum(covers(contract, answers[i]) for i in check)
    n = len(check) + round(unreadable * len(check) / len(answers))
    low, high = bounds.clopper_pearson(kept, n)
    return Estimate(value=kept / n, low=low, high=high, n=n)


def _contract(texts: Sequence[str], answers: Sequence[Value], asked: _Asked) -> tuple[OutputContract, bool]:
    """The contract, and whether the request fixed it."""
    calls = [calls_of(answer) for answer in answers]
    if asked.tools and (not answers or sum(call is not None for call in calls) * 2 > len(answers)):
        return _offered(texts, calls, asked), True
    if asked.schema is not None:
        rows = list(zip(texts, answers, strict=True))
        return _of_schema(asked.schema, rows, asked.schema, top=True)[0], True
    if asked.any_object:
        return _fields(
            [(t, answer) for t, answer in zip(texts, answers, strict=True) if isinstance(answer, dict)]
        ), False
    return (infer(texts, answers) if answers else Text()), False


def _offered(texts: Sequence[str], calls: Sequence[list[dict[str, Value]] | None], asked: _Asked) -> ToolCall:
    """Every tool that the request offers, in alphabetical order; those it does not offer are outside."""
    rows: defaultdict[str, list[tuple[str, Value]]] = defaultdict(list)
    for text, call in zip(texts, calls, strict=True):
        if call is not None and len(call) == 1:
            rows[str(call[0]["name"])].append((text, call[0].get("arguments", {})))
    tools = []
    for name, schema in sorted(asked.tools.items()):
        arguments, _ = _of_schema({"type": "object", **schema}, rows[name], schema)
        tools.append((name, arguments if isinstance(arguments, Fields) else Fields(())))
    never = not any(calls) and not asked.must_call
    return ToolCall(tuple(tools), none_allowed=never or any(call == [] for call in calls))


def _of_schema(
    schema: Any, rows: Sequence[tuple[str, Value]], root: Mapping[str, Any], depth: int = 0, top: bool = False
) -> tuple[OutputContract, bool]:
    """What a JSON schema says, and whether it allows null. `rows` are (input, observed value), None where absent."""
    schema, nullable = _resolved(schema, root)
    said = [(text, value) for text, value in rows if value is not None]
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [name for name in kind if name != "null"]
        nullable = nullable or len(kinds) < len(kind)
        kind = kinds[0] if len(kinds) == 1 else None
    if isinstance(values, list) and values and not any(isinstance(value, list | dict) for value in values):
        silent = [value for value in values if value is None or (value == "" and not top)]  # "" is an absent field
        distinct = {canonical(value): value for value in values if value not in silent}
        return Choice(tuple(distinct.values())), nullable or bool(silent)
    if kind == "boolean":
        return Choice((False, True)), nullable
    if kind in ("integer", "number", "float"):
        least, most = schema.get("minimum"), schema.get("maximum")
        if kind == "integer" and isinstance(least, int) and isinstance(most, int) and 0 <= most - least < RANGE:
            return Choice(tuple(range(least, most + 1))), nullable
        return Number(), nullable
    if kind == "string":
        texts = [(text, value) for text, value in said if isinstance(value, str)]
        return (infer([t for t, _ in texts], [v for _, v in texts]) if texts else _never(rows)), nullable
    if depth < DEEPEST_SCHEMA and kind == "array":
        return _array(schema.get("items"), said, root, depth, top), nullable
    properties = schema.get("properties")
    if depth < DEEPEST_SCHEMA and kind in (None, "object", "dict") and isinstance(properties, dict) and properties:
        return _properties(schema, properties, said, root, depth), nullable
    if kind in ("object", "dict"):  # any object: only the answers say what is in it
        return _fields([(text, value) for text, value in said if isinstance(value, dict)]), nullable
    return (infer([t for t, _ in said], [v for _, v in said]) if said else _never(rows)), nullable


def _never(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    """A text that no answer gives: absent in all of `rows`, or nothing known of it where there are none."""
    return Choice((None,)) if rows else Text()


def _properties(
    schema: Mapping[str, Any],
    properties: Mapping[str, Any],
    said: Sequence[tuple[str, Value]],
    root: Mapping[str, Any],
    depth: int,
) -> Fields:
    """The schema's fields: first as the answers order them, since canonical JSON has lost the schema's own order."""
    objects = [(text, value) for text, value in said if isinstance(value, dict)]
    seen = dict.fromkeys(name for _, value in objects for name in value if name in properties)
    given = schema.get("required")
    required = given if isinstance(given, list) else []
    fields: list[tuple[str, OutputContract]] = []
    for name in [*seen, *(name for name in properties if name not in seen)]:
        inside = [(text, value.get(name)) for text, value in objects]
        contract, nullable = _of_schema(properties[name], inside, root, depth + 1)
        absent = nullable or name not in required or any(value is None for _, value in inside)
        fields.append((name, _optional(contract) if absent else contract))
    return Fields(tuple(fields))


def _array(
    items: Any, said: Sequence[tuple[str, Value]], root: Mapping[str, Any], depth: int, top: bool
) -> OutputContract:
    lists = [value for _, value in said if isinstance(value, list)]
    inside = [(text, item) for text, value in said if isinstance(value, list) for item in value]
    of, _ = _of_schema(items, inside, root, depth + 1) if isinstance(items, dict) else (None, False)
    if of is None:
        return infer([t for t, _ in said], [v for _, v in said]) if lists else Many(Text())
    if isinstance(of, Choice) and all(isinstance(value, str) for value in of.values):
        labels = [value for value in of.values if isinstance(value, str)]
        if top:  # a list at the top is a set
            return Choices(tuple(labels))
        seen = [label for label in _order(lists) if label in labels]
        return Choices((*seen, *(label for label in labels if label not in seen)))
    return Many(of)


def _resolved(schema: Any, root: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema without references and alternatives, as far as there is one meaning left; and whether null is one."""
    nullable = False
    for _ in range(DEEPEST_SCHEMA):
        if not isinstance(schema, dict):
            return {}, nullable
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            found: Any = root
            for step in reference[1:].strip("/").split("/"):
                step = step.replace("~1", "/").replace("~0", "~")
                found = (found.get(step) if isinstance(found, dict) else None) if step else found
            schema = found
            continue
        ways = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(ways, list):
            left = [way for way in ways if not (isinstance(way, dict) and way.get("type") == "null")]
            nullable = nullable or len(left) < len(ways)
            if len(left) == 1:
                schema = left[0]
                continue
            lists = [
                way.get("enum", [way["const"]] if "const" in way else None) for way in left if isinstance(way, dict)
            ]
            if lists and len(lists) == len(left) and all(isinstance(values, list) for values in lists):
                return {"enum": [value for values in lists for value in values or []]}, nullable
            return {}, nullable  # several meanings: the answers say which
        parts = schema.get("allOf")
        if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], dict):
            schema = {**{key: value for key, value in schema.items() if key != "allOf"}, **parts[0]}
            continue
        return schema, nullable or schema.get("nullable") is True
    return {}, nullable


def _asked(response_format: str, tools: str) -> tuple[_Asked, list[str]]:
    """Read both texts; what cannot be read says nothing but a note."""
    notes: list[str] = []

    def read(text: str, name: str) -> Any:
        try:
            return decode(text) if text else None
        except InputError:
            notes.append(f"the request's {name} is not JSON and was not looked at")
            return None

    form, offered = read(response_format, "response format"), read(tools, "tools")
    schema: Any = None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        inner = form.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else form.get("schema")
        if not isinstance(schema, dict):
            schema = None
            notes.append("the request's response format names a JSON schema, but holds none")
    found: dict[str, dict[str, Any]] = {}
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
    return _Asked(schema, kind == "json_object", found, must), notes


# ---------------------------------------------------------------------------------------------- notes


def _notes(
    contract: OutputContract, texts: Sequence[str], answers: Sequence[Value], asked: _Asked, given: bool
) -> list[str]:
    notes = _variants(contract)
    if given and answers:
        seen = dict(_parts(infer(texts, answers)))
        for where, part in _parts(contract):
            if isinstance(part, Number) and isinstance(few := seen.get(where), Choice) and len(few.values) <= RANGE:
                notes.append(
                    f"{_place(where)} is a number by its schema, though only {len(few.values):,} values occur: an "
                    "enum, or a minimum and maximum, would make labels of them"
                )
    counts: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        counts.update(
            {(kind, where) for kind, where, _ in outside(contract, answer) if kind in ("field", "tool", "kind")}
        )
    for (kind, where), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES]:
        what = {"field": "has a field that is not in the contract", "tool": "calls a tool that is not offered"}
        notes.append(f"{_place(where)} {what.get(kind, f'is not {_kind(contract, where)}')} in {count:,} answers")
    if asked.tools:
        names = {str(call["name"]) for answer in answers for call in calls_of(answer) or []}
        never = sorted(asked.tools.keys() - names)
        if never and answers:
            more = f" and {len(never) - EXAMPLES:,} more" if len(never) > EXAMPLES else ""
            notes.append(f"offered and never called: {', '.join(never[:EXAMPLES])}{more}")
    return notes


def _variants(contract: OutputContract, where: str = "") -> list[str]:
    """Labels that are one label but for case, quotes or a full stop, for each closed list of the contract."""
    notes = []
    for place, inner in _parts(contract, where):
        if not isinstance(inner, Choice | Choices):
            continue
        same: defaultdict[str, list[str]] = defaultdict(list)
        for value in inner.values:
            if isinstance(value, str):
                same[_bare(value)].append(value)
        alike = [forms for forms in same.values() if len(forms) > 1]
        if alike:
            shown = "; ".join(" and ".join(f"`{form[:40]}`" for form in forms) for forms in alike[:EXAMPLES])
            more = f"; and {len(alike) - EXAMPLES:,} more" if len(alike) > EXAMPLES else ""
            plural = "s" if len(alike) > 1 else ""
            notes.append(
                f"{_place(place)} writes {len(alike):,} label{plural} in more than one way, apart only by case, quotes "
                f"or a full stop: {shown}{more}"
            )
    return notes


def _bare(label: str) -> str:
    """A label without what people do not mean by it."""
    return re.sub(r"\s+", " ", label.strip().strip("\"'`“”‘’«»*").rstrip(".。").strip("\"'`“”‘’«»* ")).casefold()


def _parts(contract: OutputContract, where: str = "") -> Iterator[tuple[str, OutputContract]]:
    """A contract and all that it is made of, with where it stands."""
    yield where, contract
    if isinstance(contract, Fields):
        for name, inner in contract.fields:
            yield from _parts(inner, _under(where, name))
    elif isinstance(contract, ToolCall):
        for name, arguments in contract.tools:
            yield from _parts(arguments, _under(where, f"{name}()"))
    elif isinstance(contract, Many):
        yield from _parts(contract.of, f"{where}[]")


def _under(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _place(where: str) -> str:
    return f"the field `{where}`" if where else "the answer"


_KINDS = {
    Choice: "a label",
    Choices: "a list of labels",
    Fields: "an object",
    ToolCall: "a tool call",
    Many: "a list",
    Number: "a number",
    Span: "a text",
    Text: "a text",
}


def _kind(contract: OutputContract, where: str) -> str:
    return _KINDS[next((type(inner) for place, inner in _parts(contract) if place == where), Text)]


# ---------------------------------------------------------------------------------------------- newer answers


class Change(msgspec.Struct, frozen=True):
    """Something that newer answers do and the contract does not know.

    `what` is a sentence; `where` the field ("" for the whole answer, `a.b` for a field in a field, `f()` for a tool's
    arguments); `value` the new label, field or tool, or the kind of what stands there now; `records` how many do it.
    """

    what: str
    where: str
    value: str
    records: int


def outside(contract: OutputContract, value: Value, where: str = "") -> Iterator[tuple[str, str, str]]:
    """Each way in which a plain `value` leaves the contract: (kind, where, value); nothing if it keeps it.

    Kinds: `label`, `field`, `tool` (an unknown one), `kind` (a text where a label was), `absent`, `calls`, `no call`.
    """
    match contract:
        case Choice():
            if isinstance(value, list | dict):
                yield "kind", where, _said(value)
            elif not covers(contract, value):
                yield ("absent", where, "") if value is None else ("label", where, _label(value))
        case Choices(values):
            if not isinstance(value, list):
                yield "kind", where, _said(value)
            else:
                for item in value:
                    if not isinstance(item, str):
                        yield "kind", f"{where}[]", _said(item)
                    elif item not in values:
                        yield "label", where, item
        case Fields(fields):
            if not isinstance(value, dict):
                yield "kind", where, _said(value)
                return
            names = dict(fields)
            for name in value.keys() - names.keys():
                yield "field", where, name
            for name, inner in fields:
                if (item := value.get(name)) is not None:
                    yield from outside(inner, item, _under(where, name))
                elif not covers(Fields(((name, inner),)), {}):
                    yield "absent", _under(where, name), ""
        case ToolCall(tools, none_allowed):
            calls = calls_of(value)
            if calls is None:
                yield "kind", where, _said(value)
            elif len(calls) > 1:
                yield "calls", where, ""
            elif not calls:
                if not none_allowed:
                    yield "no call", where, ""
            elif (name := str(calls[0]["name"])) not in dict(tools):
                yield "tool", where, name
            else:
                yield from outside(dict(tools)[name], calls[0].get("arguments", {}), _under(where, f"{name}()"))
        case Many(of):
            if not isinstance(value, list):
                yield "kind", where, _said(value)
            else:
                for item in value:
                    yield from outside(of, item, f"{where}[]")
        case Number():
            if not isinstance(value, int | float) or isinstance(value, bool):
                yield "kind", where, _said(value)
        case _:
            if not isinstance(value, str):
                yield "kind", where, _said(value)


def _said(value: Value) -> str:
    """The kind of a value, in a word or two."""
    if isinstance(value, dict):
        return "an object" if calls_of(value) is None else "a tool call"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return "nothing" if value is None else "true or false" if isinstance(value, bool) else "a number"


def _label(value: Value) -> str:
    return value if isinstance(value, str) else canonical(value)


def drift(contract: OutputContract, inputs: Sequence[str], values: Sequence[Value]) -> list[Change]:
    """What these newer answers do that the contract does not know, the most frequent first.

    A label, field or tool counts as new from two records on (with fewer than 200 answers that is more than 1% of them;
    with more, two records that agree are still no accident of writing). Texts far longer than any label, where labels
    were, are one change together. What is left is summed up as answers outside of the contract. Looks at as many rows
    as `told` does; `records` counts those looked at. Raises ValueError unless there is an input for each answer.
    """
    rows = _looked_at(inputs, values)
    answers = [plain(values[i]) for i in rows]
    ways = [set(outside(contract, answer)) for answer in answers]
    longest = {place: max(map(len, _texts(inner)), default=0) for place, inner in _parts(contract)}
    # A text that says far more than any label did is no new label, however often it is said.
    ways = [
        {
            ("kind", where, "a text") if kind == "label" and len(value) > 3 * longest.get(where, 0) + 20 else way
            for way in of
            for kind, where, value in [way]
        }
        for of in ways
    ]
    counts = Counter(way for of in ways for way in of)
    told_of = {way: count for way, count in counts.items() if count >= NEW}
    changes = [_change(contract, way, count, len(rows)) for way, count in told_of.items()]
    changes += _no_pieces(contract, [inputs[i] for i in rows], answers)
    odd = sum(bool(of) and not any(way in told_of for way in of) for of in ways)
    if odd:
        changes.append(Change(f"{_answers(odd, len(rows))} outside of the contract, each in its own way", "", "", odd))
    return sorted(changes, key=lambda change: (-change.records, change.where, change.value))


def _answers(count: int, of: int) -> str:
    return f"{count:,} of {of:,} answers {'is' if count == 1 else 'are'}"


def _texts(contract: OutputContract) -> list[str]:
    return [_label(value) for value in contract.values] if isinstance(contract, Choice | Choices) else []


def _change(contract: OutputContract, way: tuple[str, str, str], count: int, of: int) -> Change:
    kind, where, value = way
    place, shown = _place(where), f"`{value[:60]}`"
    seen = f"in {count:,} of {of:,} answers"
    what = {
        "label": f"{place} has a new label, {shown}, {seen}",
        "field": f"{place} has a new field, {shown}, {seen}",
        "tool": f"a new tool, {shown}, is called {seen}",
        "kind": f"{place} is {value} where {_kind(contract, where)} was, {seen}",
        "absent": f"{place} is missing, where it always was there, {seen}",
        "calls": f"several tools are called at once {seen}",
        "no call": f"no tool is called {seen}, where one always was",
    }[kind]
    return Change(what, where, value, count)


def _no_pieces(contract: OutputContract, texts: Sequence[str], answers: Sequence[Value]) -> list[Change]:
    """Pieces of the input that are pieces no longer, by the limit that made them pieces."""
    seen: Counter[str] = Counter()
    strange: Counter[str] = Counter()
    for text, answer in zip(texts, answers, strict=True):
        pieces = list(_pieces(contract, answer))
        seen.update({where for where, _ in pieces})
        strange.update({where for where, item in pieces if not _piece(text, item)})
    return [
        Change(
            f"{_place(where)} is no piece of the input in {count:,} of the {seen[where]:,} answers that give it",
            where,
            "a text",
            count,
        )
        for where, count in strange.items()
        if count >= NEW and count > (1 - PIECES) * seen[where]
    ]


def _pieces(contract: OutputContract, value: Value, where: str = "") -> Iterator[tuple[str, str]]:
    """The texts that stand where the contract has pieces of the input."""
    if isinstance(contract, Span) and isinstance(value, str):
        yield where, value
    elif isinstance(contract, Many) and isinstance(value, list):
        for item in value:
            yield from _pieces(contract.of, item, f"{where}[]")
    elif isinstance(contract, Fields) and isinstance(value, dict):
        for name, inner in contract.fields:
            yield from _pieces(inner, value.get(name), _under(where, name))
    elif isinstance(contract, ToolCall) and (calls := calls_of(value)) and len(calls) == 1:
        arguments = dict(contract.tools).get(str(calls[0]["name"]))
        if arguments is not None:
            yield from _pieces(arguments, calls[0].get("arguments", {}), _under(where, f"{calls[0]['name']}()"))
