"""What a contract lets through keeps the schema that it was made from: by a reader of schemas of the tests' own."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.contracts import covers
from suffice.core.style import infer as infer_style
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text
from suffice.core.values import Value, canonical, plain
from suffice.learn.contracts import learned, told
from suffice.learn.drift import outside

N = 60


def form(schema: dict[str, Any]) -> str:
    return canonical({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})


def of(schema: dict[str, Any], values: list[Value], inputs: list[str] | None = None) -> OutputContract:
    return learned(inputs or [f"input {i}" for i in range(len(values))], values, response_format=form(schema))


def an_object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


# ---------------------------------------------------------------------------------------------- an oracle


def valid(schema: dict[str, Any], value: Any) -> bool:
    """JSON Schema, as far as these tests write any."""
    kinds: dict[str, Any] = {"string": str, "array": list, "object": dict, "boolean": bool, "null": type(None)}
    if "anyOf" in schema:
        return any(valid(way, value) for way in schema["anyOf"])
    if "enum" in schema and not any(item == value and type(item) is type(value) for item in schema["enum"]):
        return False
    if (kind := schema.get("type")) in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if kind == "integer" and not isinstance(value, int):  # as an application reads it: 4.0 is no integer
            return False
        return bool(schema.get("minimum", -math.inf) <= value <= schema.get("maximum", math.inf))
    if kind is not None and not isinstance(value, kinds[kind]):
        return False
    if isinstance(value, str):
        limits = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
        return limits and re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, list):
        counted = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
        return counted and all(valid(schema["items"], item) for item in value)
    if isinstance(value, dict):
        known: dict[str, Any] = schema["properties"]
        return (
            set(schema["required"]) <= value.keys() <= known.keys()
            and all(valid(known[name], item) for name, item in value.items())
        )  # fmt: skip
    return True


WORDS = st.sampled_from(["a", "bb", "ccc", "delta 7", "12", "Zürich"])
LEAVES = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "string", "minLength": 2}),
    st.just({"type": "string", "maxLength": 3}),
    st.just({"type": "string", "pattern": "^[a-z]+$"}),
    st.just({"type": "string", "enum": ["a", "bb", "12"]}),
    st.just({"type": "boolean"}),
    st.just({"type": "integer"}),
    st.just({"type": "integer", "minimum": 3}),
    st.just({"type": "number", "minimum": 0, "maximum": 10}),
    st.just({"enum": [1, 2, 3]}),
    st.just({"anyOf": [{"type": "string"}, {"type": "null"}]}),
    st.just({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
    st.just({"type": "array", "items": {"enum": ["a", "bb"]}, "minItems": 1}),
    st.just({"type": "array", "items": {"type": "string"}, "maxItems": 2}),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from("pqrs"), min_size=1, max_size=3, unique=True))
    properties = {name: draw(inner) for name in names}
    return an_object([name for name in names if draw(st.booleans())], **properties)


FLAT = objects(LEAVES)
SCHEMAS = st.one_of(
    objects(st.one_of(LEAVES, FLAT)),
    st.tuples(FLAT, FLAT).map(lambda forms: {"anyOf": list(forms)}),
)


def instances(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values, most of them valid, some of which break a limit."""
    if "anyOf" in schema:
        return st.one_of(*(instances(way) for way in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return WORDS
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "integer":
            return st.integers(0, 12)
        case "number":
            return st.sampled_from([0.5, 1, 2.25, 9.75, 11.5])
        case "array":
            return st.lists(instances(schema["items"]), max_size=3)
        case _:
            inner = {name: instances(way) for name, way in schema["properties"].items()}
            needed = {name: way for name, way in inner.items() if name in schema["required"]}
            return st.fixed_dictionaries(needed, optional={n: w for n, w in inner.items() if n not in needed})


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.data())
def test_an_answer_that_the_contract_allows_is_valid_as_it_is_written(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    answers = data.draw(st.lists(instances(schema), min_size=3, max_size=12))
    seen = [answer for answer in answers if valid(schema, answer)]
    raw: list[Value] = [json.dumps(answer) for answer in seen]
    contract = of(schema, raw)
    style = infer_style(raw, False)
    others = data.draw(st.lists(instances(data.draw(st.sampled_from([schema, data.draw(SCHEMAS)]))), max_size=4))
    for value in [*answers, *others]:
        kept = covers(contract, plain(value))
        assert kept == (not list(outside(contract, plain(value))))
        if kept and seen:
            written = style.render(plain(value)).content
            assert written is not None
            assert valid(schema, json.loads(written)), (value, written, schema, contract)


# ---------------------------------------------------------------------------------------------- what schemas say


def test_what_is_required_must_be_said() -> None:
    schema = an_object(
        city={"type": "string"}, nights={"type": "integer", "minimum": 1}, note={"type": ["string", "null"]}
    )
    inputs = [f"{i + 1} nights in Town{i}" for i in range(N)]
    values: list[Value] = [{"city": f"Town{i}", "nights": i + 1, "note": None} for i in range(N)]
    contract = of(schema, values, inputs)
    assert isinstance(contract, Fields)
    assert contract.required == ("city", "nights")
    assert dict(contract.fields)["nights"] == Number(whole=True, least=1.0)
    assert covers(contract, {"city": "Rome", "nights": 2})
    assert not covers(contract, {"city": "Rome"})
    assert not covers(contract, {"city": "Rome", "nights": 0})
    assert not covers(contract, {"city": "Rome", "nights": 2.5})


def test_an_empty_text_is_a_way_to_say_nothing_where_the_frontier_does_so() -> None:
    values: list[Value] = [{"city": f"input {i}" if i % 2 else ""} for i in range(N)]
    assert of(an_object(city={"type": "string"}), values) == Fields((("city", Span()),))
    strict = of(an_object(city={"type": "string", "minLength": 1}), values)
    assert strict == Fields((("city", Span(least=1)),), required=("city",))


def test_limits_of_texts_and_lists() -> None:
    code = {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$", "maxLength": 6}
    inputs = [f"my order AB{i} and CD{i}, please" for i in range(N)]
    one = of(an_object(order=code), [{"order": f"AB{i}"} for i in range(N)], inputs)
    assert one == Fields((("order", Span(0, 6, "^[A-Z]{2}[0-9]+$")),), required=("order",))
    assert not covers(one, {"order": "ab1"})
    assert not covers(one, {"order": "AB123456"})
    lists = of(
        an_object(orders={"type": "array", "items": code, "minItems": 1, "maxItems": 2}),
        [{"orders": [f"AB{i}", f"CD{i}"] if i % 2 else [f"AB{i}"]} for i in range(N)],
        inputs,
    )
    assert lists == Fields((("orders", Many(Span(0, 6, "^[A-Z]{2}[0-9]+$"), 1, 2)),), required=("orders",))
    assert not covers(lists, {"orders": ["AB1", "AB2", "AB3"]})


def test_labels_that_break_the_schema_are_never_learned() -> None:
    values: list[Value] = [{"tag": "ok" if i % 3 else "far too long"} for i in range(N)]
    contract = of(an_object(tag={"type": "string", "maxLength": 5}), values)
    assert contract == Fields((("tag", Choice(("ok",))),))


@pytest.mark.parametrize(
    ("asks", "named"),
    [
        ({"type": "string", "format": "date"}, "`format`"),
        ({"type": "string", "pattern": "^(a+)+$"}, "`pattern`"),
        ({"type": "string", "pattern": "(?<name"}, "`pattern`"),
        ({"type": "number", "multipleOf": 0.05}, "`multipleOf`"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "`uniqueItems`"),
    ],
)
def test_what_is_not_checked_is_told(asks: dict[str, Any], named: str) -> None:
    said: dict[str, Any] = {
        "number": lambda i: i / 20,
        "array": lambda i: [f"input {i}"],
        "string": lambda i: f"input {i}",
    }
    values: list[Value] = [{"x": said[asks["type"]](i)} for i in range(N)]
    inferred = told([f"input {i}" for i in range(N)], values, response_format=form(an_object(x=asks)))
    assert [note for note in inferred.notes if named in note and "field `x`" in note and "not checked" in note]
    closed = told(["t"] * N, [{"x": "a"}] * N, response_format=form(an_object(x={"type": "string", "format": "date"})))
    assert not closed.notes  # a list of what the frontier said keeps it by itself


REFUND = an_object(kind={"const": "refund"}, amount={"type": "integer"})
CARD = an_object(kind={"const": "card"}, last4={"type": "string"})


def test_an_object_of_two_forms() -> None:
    values: list[Value] = [
        {"kind": "refund", "amount": 7 * i} if i % 2 else {"kind": "card", "last4": f"{1000 + i}"} for i in range(N)
    ]
    inputs = [f"refund {7 * i}, or card {1000 + i}" for i in range(N)]
    for word in ("anyOf", "oneOf"):
        contract = of({word: [REFUND, CARD]}, values, inputs)
        assert isinstance(contract, Fields)
        assert dict(contract.fields) == {
            "kind": Choice(("refund", "card")),
            "amount": Number(whole=True),
            "last4": Span(),
        }
        assert all(covers(contract, value) for value in values)
        assert not covers(contract, {"kind": "refund", "last4": "1000"})
        assert not covers(contract, {"kind": "card"})
        assert not covers(contract, {"kind": "card", "last4": "1000", "amount": 3})


@pytest.mark.parametrize(
    ("schema", "say", "contract"),
    [
        ({"enum": ["a", "b", "a"]}, lambda i: "ab"[i % 2], Choice(("a", "b"))),
        ({"enum": [1, 2.0, 2, 3]}, lambda i: 1 + i % 3, Choice((1, 2.0, 3))),
        ({"enum": ["a", None]}, lambda i: ["a", None][i % 2], Choice(("a", None))),
        ({"type": ["string", "null"], "enum": ["a", "b", None]}, lambda i: "ab"[i % 2], Choice(("a", "b", None))),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, lambda i: f"input {i}" if i % 2 else None, Span()),
        ({"anyOf": [{"enum": ["a"]}, {"type": "string"}]}, lambda i: f"input {i}", Span()),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
         lambda i: [f"input {i}"], Many(Span())),
        ({"type": ["integer", "string"]}, lambda i: f"input {i}", Span()),
        ({"allOf": [{"type": "string"}, {"maxLength": 20}]}, lambda i: f"input {i}", Span(most=20)),
        ({"$ref": "#/$defs/c", "maxLength": 9}, lambda i: f"input {i}", Span(most=9)),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, lambda i: ["b", "a"][i % 2:], Choices(("b", "a"))),
        ({"type": "array", "items": {"enum": [1, 2]}}, lambda i: [1, 2], Many(Choice((1, 2)))),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
         lambda i: [[f"input {i}"]], Many(Many(Span()))),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 4}, lambda i: 1, Choice((1, 2, 3))),
        ({"type": "number", "exclusiveMinimum": 0}, lambda i: i + 0.5, Number(least=math.nextafter(0, 1))),
        ({"type": "number"}, lambda i: [0.5, 0.75][i % 2], Choice((0.5, 0.75))),
        ({"type": "object", "additionalProperties": {"type": "integer"}},
         lambda i: {"a": i, "b": i}, Fields((("a", Number(True)), ("b", Number(True))))),
    ],
)  # fmt: skip
def test_schemas_of_every_kind(schema: dict[str, Any], say: Any, contract: OutputContract) -> None:
    whole = {**an_object(x=schema), "$defs": {"c": {"type": "string"}}}
    values: list[Value] = [{"x": say(i)} for i in range(N)]
    found = of(whole, values)
    assert isinstance(found, Fields)
    assert dict(found.fields)["x"] == contract
    assert all(covers(found, plain(value)) for value in values)


def test_an_array_of_labels_at_the_top_is_a_set() -> None:
    labels = {"type": "array", "items": {"enum": ["x", "y", "z"]}, "minItems": 1}
    contract = of(labels, [["y", "x"], ["y"], ["x"]] * 20)
    assert contract == Choices(("y", "x", "z"), 1)
    assert not covers(contract, [])


def test_forms_within_forms_end() -> None:
    loop = {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "object", "properties": {"a": {"$ref": "#"}}}]}
    many = {"type": "object", "properties": {name: {"$ref": "#"} for name in "abcdef"}}
    for schema in (loop, many):
        assert told(["t"] * 9, [{"a": {"a": {}}}] * 9, response_format=form(schema)).records == 9


def test_texts_that_no_schema_asks_for_stay_free() -> None:
    assert of(an_object(note={"type": "string"}), [{"note": f"a poem about {i}"} for i in range(N)]) == Fields(
        (("note", Text()),), required=("note",)
    )
