"""When two answers are the same: the rule of the design, section 7."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core.errors import InputError
from suffice.core.style import infer
from suffice.core.values import DEEPEST, Value, calls_of, canonical, checked, decode, parse, plain

SILENT: tuple[Value, ...] = (None, "", [])
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


def same(a: Value, b: Value) -> bool:
    return canonical(a) == canonical(b)


@pytest.mark.parametrize("silent", SILENT, ids=repr)
def test_a_field_that_says_nothing_is_no_field(silent: Value) -> None:
    assert same({"a": 1, "b": silent}, {"a": 1})
    assert same({"a": {"b": silent, "c": 2}}, {"a": {"c": 2}})
    assert same({"a": [{"b": silent, "c": 2}]}, {"a": [{"c": 2}]})
    assert same(
        {"tool_calls": [{"name": "f", "arguments": {"x": silent}}]}, {"tool_calls": [{"name": "f", "arguments": {}}]}
    )


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (["a", "b"], ["b", "a"]),
        (["a", "a"], ["a"]),
        ('["b", "a"]', ["a", "b"]),
        ('{"a": 1, "b": 2}', {"b": 2, "a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```\n", "[1]"),
        (" refund\n", "refund"),
        (1.0, 1),
        ({"a": 1.0}, {"a": 1}),
        ('{"a": "caf\\u00e9"}', '{"a": "café"}'),
        ('{"a": 10e2}', {"a": 1000}),
        ("{not json", " {not json "),
        (0.0, -0.0),
    ],
)
def test_equal_answers(a: Value, b: Value) -> None:
    assert same(a, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5", 5),
        ("true", True),
        (True, 1),
        (False, 0),
        (False, None),
        ("null", None),
        ("", None),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}),
        ({"a": 0}, {}),
        ({"a": False}, {}),
        ({"a": "0"}, {"a": 0}),
        ("Refund", "refund"),
        ("cafe\u0301", "café"),
        ("refund", "refund."),
        (["a"], "a"),
        ({"a": [None]}, {}),
        ([], {}),
        (0.1, 0.2),
        (1e300, 1e301),
    ],
)
def test_different_answers(a: Value, b: Value) -> None:
    assert not same(a, b)


def shuffled(value: Value, back: bool) -> Value:
    """`value` with the keys of each object in another order and a silent field more."""
    if isinstance(value, dict):
        keys = sorted(value, reverse=back)
        return {**{key: shuffled(value[key], back) for key in keys}, "silent field": SILENT[len(keys) % 3]}
    return [shuffled(item, back) for item in value] if isinstance(value, list) else value


@given(objects)
def test_neither_the_order_of_keys_nor_silent_fields_matter(value: dict[str, Value]) -> None:
    assert canonical(shuffled(value, True)) == canonical(shuffled(value, False)) == canonical(value)


@given(objects)
def test_an_object_equals_its_json_text_fenced_or_not(value: dict[str, Value]) -> None:
    compact, spread = json.dumps(value, separators=(",", ":")), json.dumps(value, indent=2, ensure_ascii=False)
    assert canonical(compact) == canonical(value) == canonical(f"```json\n{spread}\n```\n")


@given(values)
def test_pruning_twice_changes_nothing_more(value: Value) -> None:
    assert plain(plain(value)) == plain(value)
    assert canonical(plain(value)) == canonical(value)


def test_calls_are_recognised() -> None:
    assert calls_of({"tool_calls": []}) == []
    assert calls_of({"tool_calls": [{"name": "f", "arguments": {}}]}) == [{"name": "f", "arguments": {}}]
    others: tuple[Value, ...] = (
        {"tool_calls": [{"id": 1}]},
        {"tool_calls": [], "text": ""},
        {"tool_calls": {}},
        [],
        "f",
        None,
    )
    for other in others:
        assert calls_of(other) is None


def test_no_call_stays_an_answer_of_its_own() -> None:
    assert calls_of(plain({"tool_calls": []})) == []
    assert not same({"tool_calls": []}, {})


def test_brackets_without_end_are_only_a_text() -> None:
    assert parse("[" * 5000) == "[" * 5000


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def test_a_number_too_large_to_reckon_with_makes_its_answer_a_text() -> None:
    huge = f'{{"a": {"9" * 400}}}'
    assert parse(huge) == huge == infer([huge], False).value(plain(huge))
    assert parse(f'{{"a": "{"9" * 400}"}}') == {"a": "9" * 400}
    assert parse(f'{{"a": {10**300}}}') == {"a": 10**300}


def test_what_is_nested_too_deep_to_be_an_answer_is_only_a_text() -> None:
    for levels in (DEEPEST + 2, 500, 900):
        assert parse(f" {deep(levels)}") == deep(levels)
        assert not same(deep(levels), deep(levels + 1))
    assert parse(deep(DEEPEST)) == decode(deep(DEEPEST))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1], "list"),
        (["a", None], "list"),
        ({"tool_calls": "f"}, "`x.tool_calls`"),
        ({"tool_calls": [{"name": 5}]}, "`x.tool_calls`"),
        ({"a": decode(deep(DEEPEST + 1))}, "deeper"),
        (2**63, "64 bits"),
        ({"a": [{"b": -(2**63) - 1}]}, "64 bits"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_answer_is_named(value: Value, named: str) -> None:
    with pytest.raises(InputError) as caught:
        checked(value, "x")
    assert "`x" in str(caught.value) and named in str(caught.value)


@pytest.mark.parametrize("value", ["", "a", 5, 2**63 - 1, -1.5, True, None, [], ["a"], {}, {"a": [[1]]}], ids=repr)
def test_answers_pass(value: Value) -> None:
    assert checked(value, "x") == value
