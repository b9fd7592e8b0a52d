"""A specialist's answer looks like the frontier's: what is inferred from raw answers gives each of them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.style import Style, infer
from suffice.core.values import Value, plain
from suffice.wire.chat import answer_of
from suffice.wire.dialects import arguments_of

QUEUES = ("billing", "tech", "café", "日本")
Layout = Callable[[Any], str]


def rows() -> list[dict[str, Value]]:
    """50 answers: a text in every one, a flag, a number, an object within."""
    return [
        {"queue": QUEUES[i % 4], "urgent": i % 3 == 0, "level": i % 5, "who": {"team": QUEUES[i % 2], "seat": i % 2}}
        for i in range(50)
    ]


def given_back(raw: Sequence[Value], short_form: bool = False) -> Style:
    style = infer(raw, short_form)
    for answer in raw:
        assert style.value(plain(answer)) == answer
    return style


LAYOUTS: dict[str, Layout] = {
    "spaced": json.dumps,
    "compact": lambda row: json.dumps(row, separators=(",", ":")),
    "indent 2": lambda row: json.dumps(row, indent=2),
    "indent 4": lambda row: json.dumps(row, indent=4),
    "not escaped": lambda row: json.dumps(row, ensure_ascii=False),
    "not escaped, indented": lambda row: json.dumps(row, ensure_ascii=False, indent=2),
    "trailing newline": lambda row: json.dumps(row) + "\n",
    "fenced": lambda row: f"```json\n{json.dumps(row, indent=2)}\n```",
    "fenced, newline": lambda row: f"```\n{json.dumps(row)}\n```\n",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_json_in_the_layout_of_the_frontier(layout: Layout) -> None:
    style = given_back([layout(row) for row in rows()])
    for row in rows():
        assert style.render(plain(layout(row))).content == layout(row)


@pytest.mark.parametrize("indent", [1, 3, "\t"])
def test_json_in_other_indents(indent: int | str) -> None:
    given_back([json.dumps(row, indent=indent) for row in rows()])


def test_whole_numbers_written_with_a_point() -> None:
    given_back([json.dumps({"score": i % 5 + 0.0}) for i in range(50)])


@pytest.mark.parametrize("silent", [None, "", [], "omit"], ids=repr)
def test_a_field_that_says_nothing_is_written_as_the_frontier_does(silent: Value) -> None:
    raw = []
    for i, row in enumerate(rows()):
        given: dict[str, Value] = {"queue": row["queue"], "reason": "late", "level": row["level"]}
        if i % 4 == 0:
            given["reason"] = silent
        if given["reason"] == "omit":
            del given["reason"]
        raw.append(json.dumps(given))
    given_back(raw)


def test_the_frontiers_order_of_keys_is_kept_when_the_value_has_another() -> None:
    style = infer([json.dumps({"b": i % 2, "a": 1, "c": {"z": 1, "y": 2}}) for i in range(50)], False)
    assert style.render({"a": 1, "c": {"y": 2, "z": 1}, "b": 0}).content == '{"b": 0, "a": 1, "c": {"z": 1, "y": 2}}'


def test_optional_fields_find_their_place() -> None:
    raw: list[Value] = [
        json.dumps(dict.fromkeys(keys, 1))
        for keys in (["a", "c"], ["a", "b", "c"], ["a", "c", "d"], ["a", "b", "c", "d"]) * 12
    ]
    given_back(raw)


def test_optional_fields_that_are_rarely_together_keep_their_order() -> None:
    forms = [["a", "z"]] * 9 + [["a", "b", "z"]] * 5 + [["a", "c", "z"]] * 4 + [["a", "b", "c", "z"]] * 2
    given_back([json.dumps(dict.fromkeys(keys, 1)) for keys in forms])


def test_orders_that_contradict_each_other_leave_the_commoner() -> None:
    forms = [["a", "b", "c"]] * 3 + [["b", "c", "a"]] * 2 + [["c", "a"]] * 2 + [["a", "b", "c", "d"]]
    style = infer([json.dumps(dict.fromkeys(keys, 1)) for keys in forms], False)
    assert style.render({"d": 1, "c": 1, "b": 1, "a": 1}).content == json.dumps(dict.fromkeys("abcd", 1))


@pytest.mark.parametrize(
    "wrap", ["{}", "{}\n", '"{}"', " {}", "{}.", "Label: {}", "**{}**", "`{}`"], ids=lambda wrap: repr(wrap)
)
def test_labels_to_the_letter(wrap: str) -> None:
    given_back([wrap.format(QUEUES[i % 4]) for i in range(50)])


def test_a_label_written_in_two_ways_is_written_in_the_commoner_one() -> None:
    style = infer(["refund\n"] * 30 + ["refund"] * 20 + ["other"] * 5, False)
    assert style.render("refund").content == "refund\n"
    assert style.render("other").content == "other"


@pytest.mark.parametrize("raw", [[5, 7], [True, False], [None, "a"], [["a"], []], ["a", "b"], [1.5, 2]], ids=repr)
def test_short_form_values_keep_their_type(raw: list[Value]) -> None:
    style = given_back(raw * 25, short_form=True)
    assert [type(style.value(plain(answer))) for answer in raw] == [type(answer) for answer in raw]


def test_short_form_objects_keep_null_and_order() -> None:
    given_back([{"b": i % 3, "a": None if i % 2 else "x"} for i in range(50)], short_form=True)


def test_text_digits_stay_text() -> None:
    given_back(["5", "7"] * 25)
    given_back(["5", "7"] * 25, short_form=True)


def completion(arguments: str) -> dict[str, Any]:
    """A chat completion with one call."""
    call = {"id": "c", "type": "function", "function": {"name": "light", "arguments": arguments}}
    return {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize("layout", list(LAYOUTS.values())[:6], ids=list(LAYOUTS)[:6])
def test_arguments_of_calls_in_the_layout_of_the_frontier(layout: Layout) -> None:
    written = [layout({"state": "on" if i % 2 else "off", "room": None, "at": "café"}) for i in range(50)]
    answers = [completion(text) for text in written]
    values = [answer_of(answer) for answer in answers]
    style = infer(values, False, [text for a in answers for text in arguments_of(json.dumps(a).encode())])
    assert [style.render(plain(value)).calls for value in values] == [(("light", text),) for text in written]


def test_a_field_without_a_name_is_a_field() -> None:
    said: Value = {"": {"a": 1}, "b": {"": 2}}
    style = infer([json.dumps(said), '{"b": 3}'] * 5, False)
    assert style.value({"b": 3}) == '{"b": 3}'
    assert style.value(said) == json.dumps(said)


def test_no_answers_give_plain_text() -> None:
    assert infer([], False).render("a").content == "a"


# ---------------------------------------------------------------------------------------------- any consistent frontier

SAID: dict[str, st.SearchStrategy[Any]] = {
    "text": st.sampled_from(["billing", "café", "日本", 'a "quoted" word', "5", "two\nlines"]),
    "whole": st.integers(-3, 1200),
    "flag": st.booleans(),
    "list": st.lists(st.sampled_from(["x", "y 2"]), min_size=1, max_size=3),
    "fraction": st.sampled_from([0.5, 12.25, 3.0]),
}


@st.composite
def frontiers(draw: st.DrawFn) -> list[str]:
    """Answers of a frontier with habits: one layout, one order of fields, one way of each to say nothing."""
    names = draw(st.permutations(["queue", "city", "at", "amount"]))
    silent: dict[str, Any] = {name: draw(st.sampled_from([None, "", [], "omit"])) for name in names}
    said = {name: SAID[draw(st.sampled_from(sorted(SAID)))] for name in names}
    indent: Any
    indent, (item, colon) = draw(
        st.one_of(
            st.tuples(st.none(), st.sampled_from([(", ", ": "), (",", ":")])),
            st.tuples(st.sampled_from([1, 2, 3, 4, "\t"]), st.just((",", ": "))),
        )
    )
    escaped, wrap = (
        draw(st.booleans()),
        draw(st.sampled_from(["{}", "{}\n", "```json\n{}\n```", "\n {}", "```\n{}\n```\n"])),
    )
    nested = draw(st.booleans())

    def one(values: dict[str, Any]) -> str:
        row = {name: values.get(name, silent[name]) for name in names if name in values or silent[name] != "omit"}
        row = {"kind": "fixed", "inner": {**row, "last": 1}} if nested else {"kind": "fixed", **row}
        return wrap.format(json.dumps(row, indent=indent, separators=(item, colon), ensure_ascii=escaped))

    rows = draw(st.lists(st.fixed_dictionaries({}, optional=said), min_size=4, max_size=12))
    return [one(row) for row in rows]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(frontiers())
def test_any_frontier_with_habits_is_written_byte_for_byte(raw: list[str]) -> None:
    style = infer(list(raw), False)
    assert [style.render(plain(answer)).content for answer in raw] == raw


@pytest.mark.parametrize("amounts", [["12.50", "3.99", "1200.00"], ["5.0", "7.5", "10.0"], ["5", "7.5", "1200"]])
def test_amounts_have_the_frontiers_decimals(amounts: list[str]) -> None:
    raw = [f'{{"amount": {amount}, "left": [{amount}]}}' for amount in amounts] * 10
    style = infer(list(raw), False)
    assert [style.render(plain(answer)).content for answer in raw] == raw
    written = style.render({"amount": 4, "left": [2.5]}).content
    assert written is not None
    assert json.loads(written) == {"amount": 4, "left": [2.5]}


def test_lists_on_one_line_of_indented_json() -> None:
    raw: list[Value] = [
        f'{{\n  "tags": ["a", "b{i}"],\n  "lines": [\n    {{\n      "n": {i}\n    }}\n  ]\n}}' for i in range(20)
    ]
    given_back(raw)


def test_white_space_around_texts_that_are_new_each_time() -> None:
    style = infer([f" order {i}\n" for i in range(50)], False)
    assert style.render("order 77").content == " order 77\n"
    assert not style.labels


def test_a_field_of_one_form_is_not_written_into_another() -> None:
    raw: list[Value] = ['{"kind": "card", "note": null}', '{"kind": "refund", "amount": 3}'] * 10
    style = infer([*raw, '{"kind": "card", "note": null}'], False)
    assert style.render({"kind": "refund", "amount": 3}).content == raw[1]


def test_arguments_and_short_answers_keep_whole_numbers_apart() -> None:
    calls: list[Value] = [{"tool_calls": [{"name": "f", "arguments": {"n": float(i), "k": i}}]} for i in range(20)]
    assert infer(calls, False).render({"tool_calls": [{"name": "f", "arguments": {"k": 3.0, "n": 3}}]}).calls == (
        ("f", '{"n":3.0,"k":3}'),
    )
    assert repr(infer([1.0, 2.5, 3.0], True).value(2)) == "2.0"
    assert repr(infer([1, 2, 3], True).value(2.0)) == "2"
