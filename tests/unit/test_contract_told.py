"""What the request fixes of its answer, how surely answers keep a contract, and what newer answers change."""

from __future__ import annotations

import time
from typing import Any, TypedDict

import numpy as np
import pytest

from suffice.core.contracts import covers
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, canonical, plain
from suffice.learn.contracts import Change, called, drift, infer, told
from suffice.wire import chat

N = 200
TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "intent": {"type": "string", "enum": ["refund", "card", "other"]},
        "urgent": {"type": "boolean"},
        "amount": {"type": ["number", "null"]},
        "city": {"type": "string"},
        "queue": {"type": "string"},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        "person": {"$ref": "#/$defs/person"},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["intent", "urgent", "amount", "city", "queue", "note", "tags", "items", "person", "stars"],
    "$defs": {"person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}


class Asked(TypedDict):
    response_format: str
    tools: str


def asked(**body: Any) -> Asked:
    """`response_format` and `tools` as the wire reads them from a chat body."""
    request = chat.request_of({"model": "m", "messages": [{"role": "user", "content": "hi"}], **body})
    return Asked(response_format=request.response_format, tools=request.tools)


def schema(of: dict[str, Any]) -> Asked:
    return asked(response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": of}})


def tool(name: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": properties, "required": list(properties)},
        },
    }


def call(name: str, **arguments: Value) -> Value:
    return {"tool_calls": [{"name": name, "arguments": dict(arguments)}]}


def ticket(i: int) -> dict[str, Value]:
    return {
        "note": f"a poem about {i}",
        "intent": ["refund", "card"][i % 2],
        "urgent": True,
        "amount": i * 1.5,
        "city": f"town{i}",
        "queue": "xy"[i % 2],
        "tags": ["b"],
        "items": [{"n": i}],
        "person": {"name": f"input {i}"},
        "stars": 4,
    }


def test_a_schema_is_taken_as_given_and_the_answers_say_what_it_leaves_open() -> None:
    values: list[Value] = [ticket(i) for i in range(N)]
    inferred = told([f"input {i} of town{i}" for i in range(N)], values, **schema(TICKET))
    assert isinstance(inferred.contract, Fields)
    assert dict(inferred.contract.fields) == {
        "intent": Choice(("refund", "card", "other")),  # "other" was never said, and is allowed
        "urgent": Choice((False, True)),
        "amount": Number(),
        "city": Span(),
        "queue": Choice(("x", "y")),
        "note": Text(),
        "tags": Choices(("b", "a")),
        "items": Many(Fields((("n", Number(whole=True)),))),
        "person": Fields((("name", Span()),), required=("name",)),
        "stars": Choice((1, 2, 3, 4, 5)),
    }
    assert inferred.contract.fields[0][0] == "note"  # as the frontier writes them
    assert inferred.given
    assert inferred.share == 1.0
    assert covers(inferred.contract, plain(values[0]))


def test_numbers_of_which_a_few_come_again_and_again_are_labels() -> None:
    stars = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}
    inferred = told(["t"] * N, [{"stars": i % 5 + 1} for i in range(N)], **schema(stars))
    assert inferred.contract == Fields((("stars", Choice((1, 2, 3, 4, 5))),))
    open_ended = told([f"{i} of them" for i in range(N)], [{"stars": i} for i in range(N)], **schema(stars))
    assert open_ended.contract == Fields((("stars", Number(whole=True)),), required=("stars",))
    assert open_ended.notes == ()


def test_fields_that_may_be_absent_have_null_among_their_choices() -> None:
    optional = {
        "type": "object",
        "properties": {
            "a": {"enum": ["x", "y"]},
            "b": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            "c": {"enum": ["x", ""]},
        },
        "required": ["b", "c"],
    }
    said: list[Value] = [{"a": "x", "b": True, "c": "x"}, {"b": None, "c": ""}] * N
    contract = told(["t"] * 2 * N, said, **schema(optional)).contract
    assert contract == Fields(
        (("a", Choice(("x", "y", None))), ("b", Choice((False, True, None))), ("c", Choice(("x", None))))
    )
    assert covers(contract, plain({"a": None, "b": None, "c": ""}))
    always = told(["t"] * N, said[:1] * N, **schema(optional)).contract
    assert isinstance(always, Fields)
    assert always.required == ("b", "c")  # nobody knows how the frontier would say nothing there


def test_a_schema_says_something_before_any_answer_does() -> None:
    inferred = told([], [], **schema(TICKET))
    assert inferred.given
    assert isinstance(inferred.contract, Fields)
    assert dict(inferred.contract.fields)["intent"] == Choice(("refund", "card", "other"))
    assert inferred.records == 0
    assert inferred.sureness.value is None


def test_answers_that_break_the_schema_are_counted_not_learned() -> None:
    values: list[Value] = [{"intent": "refund"} if i % 4 else {"intent": "refund", "mood": "sad"} for i in range(N)]
    small = {"type": "object", "properties": {"intent": {"enum": ["refund", "card"]}}, "required": ["intent"]}
    inferred = told(["t"] * N, values, **schema(small))
    assert inferred.contract == Fields((("intent", Choice(("refund", "card"))),))
    assert inferred.share == 0.75
    assert any("`mood`" in note or "a field that is not in the contract" in note for note in inferred.notes)


def test_a_json_object_is_known_to_be_an_object_and_no_more() -> None:
    form = asked(response_format={"type": "json_object"})
    values: list[Value] = [{"a": "x"} if i < 4 else "sorry, no" for i in range(10)]
    inferred = told(["t"] * 10, values, **form)
    assert inferred.contract == Fields((("a", Choice(("x",))),))
    assert not inferred.given
    assert inferred.share == 0.4


def test_tools_are_taken_as_given() -> None:
    offered = asked(
        tools=[
            tool("weather", city={"type": "string"}, unit={"enum": ["c", "f"]}),
            tool("stop", hard={"type": "boolean"}),
        ]
    )
    values = [call("weather", city=f"town{i}", unit="c") for i in range(N)]
    inferred = told([f"weather in town{i}" for i in range(N)], values, **offered)
    weather = Fields((("city", Span()), ("unit", Choice(("c", "f")))), required=("city",))
    assert inferred.contract == ToolCall((("stop", Fields((("hard", Choice((False, True))),))), ("weather", weather)))
    assert inferred.given
    assert any("never called: stop" in note for note in inferred.notes)
    assert called(inferred.contract, values) == ToolCall((("weather", weather),))


def test_tools_that_are_never_called_leave_no_call_as_the_answer() -> None:
    nothing: list[Value] = [{"tool_calls": []}] * N
    contract = told(["t"] * N, nothing, **asked(tools=[tool("f")])).contract
    assert contract == ToolCall((("f", Fields(())),), none_allowed=True)
    assert covers(contract, nothing[0])


def test_texts_where_tools_are_offered_stay_what_they_are() -> None:
    inferred = told(["t"] * N, ["yes", "no"] * (N // 2), **asked(tools=[tool("f")]))
    assert inferred.contract == Choice(("no", "yes"))
    assert not inferred.given
    assert inferred.notes == ("offered and never called: f",)


def test_a_forced_tool_is_the_only_one() -> None:
    choice = {"type": "function", "function": {"name": "f"}}
    contract = told(["t"], [call("f")], **asked(tools=[tool("f"), tool("g")], tool_choice=choice)).contract
    assert contract == ToolCall((("f", Fields(())),))


def test_legacy_functions_are_tools_too() -> None:
    functions = [{"name": "f", "parameters": {"type": "object", "properties": {"x": {"enum": ["a"]}}}}]
    contract = told(["t"], [call("f", x="a")], **asked(functions=functions)).contract
    assert contract == ToolCall((("f", Fields((("x", Choice(("a", None))),))),))


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"type":"json_schema"}', '{"type":"json_schema","json_schema":7}']
)
def test_what_cannot_be_read_says_nothing(text: str) -> None:
    inferred = told(["t"] * 4, ["a", "b"] * 2, response_format=text, tools=text)
    assert inferred.contract == Choice(("a", "b"))
    assert not inferred.given


@pytest.mark.parametrize(
    "loop",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"type": "object", "properties": {"more": {"$ref": "#"}}},
        {"type": "array", "items": {"$ref": "#"}},
        {"$ref": "#/nowhere"},
    ],
)
def test_a_schema_that_refers_to_itself_ends(loop: dict[str, Any]) -> None:
    began = time.perf_counter()
    told(["t"] * 20, [{"more": {"more": {}}, "x": 1}] * 20, **schema(loop))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("odd", [{"required": [["a"], 1]}, {"properties": {"a": {"minimum": 10**400}}}])
def test_what_no_schema_may_say_is_left_out(odd: dict[str, Any]) -> None:
    plain = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}}
    values: list[Value] = [{"a": i} for i in range(40)]
    contract = told([""] * 40, values, **schema(plain | odd)).contract
    assert isinstance(contract, Fields) and [name for name, _ in contract.fields] == ["a"]


# ---------------------------------------------------------------------------------------------- what answers show


def test_sureness_is_measured_on_answers_that_the_contract_was_not_made_from() -> None:
    random = np.random.default_rng(3)
    values: list[Value] = [f"label {min(int(random.pareto(0.9)), 2000)}" for _ in range(2000)]
    inferred = told([""] * 2000, values)
    assert isinstance(inferred.contract, Choice)
    assert inferred.share == 1.0  # the contract was made from them
    assert inferred.sureness.value is not None
    assert inferred.sureness.value < 0.97
    assert inferred.sureness.n == 1000
    # the next thousand answers agree with what was said of them
    later = [f"label {min(int(random.pareto(0.9)), 2000)}" for _ in range(20_000)]
    kept = np.mean([value in inferred.contract.values for value in later])
    assert kept >= inferred.sureness.low


def test_a_rhythm_or_a_sorted_file_does_not_mislead() -> None:
    alternating: list[Value] = ["a", "b"] * 5000
    ordered: list[Value] = [f"label {i // 100}" for i in range(10_000)]
    for values in (alternating, ordered):
        inferred = told([""] * 10_000, values)
        assert isinstance(inferred.contract, Choice)
        assert inferred.sureness.value == 1.0
        assert "4,000 of 10,000 answers were looked at" in inferred.notes


def test_unreadable_answers_keep_no_contract() -> None:
    inferred = told([""] * 60, ["a", "b"] * 30, unreadable=40)
    assert inferred.records == 100
    assert inferred.share == 0.6
    assert inferred.sureness.value == 0.6
    assert inferred.sureness.n == 50


def test_nothing_and_failures_only() -> None:
    nothing = told([], [])
    assert (nothing.contract, nothing.records, nothing.share, nothing.sureness.n) == (Text(), 0, 0.0, 0)
    failures = told([], [], unreadable=30)
    assert (failures.records, failures.share, failures.sureness.value) == (30, 0.0, 0.0)
    one = told(["t"], ["a"])
    assert one.records == 1
    assert one.share == 1.0


def test_labels_written_in_two_ways_are_told_and_kept() -> None:
    values: list[Value] = ["Refund.", "refund", '"card"', "card", "other", "Other"] * 20
    inferred = told([""] * 120, values)
    assert inferred.contract == infer([""] * 120, values)
    assert isinstance(inferred.contract, Choice)
    assert len(inferred.contract.values) == 6
    assert len(inferred.notes) == 1
    assert "3 labels in more than one way" in inferred.notes[0]
    assert "`Refund.` and `refund`" in inferred.notes[0]
    assert told([""] * 4, ["C", "C++"] * 2).notes == ()


@pytest.mark.parametrize(
    "answer",
    [
        lambda i: f"Dear customer {i}, we have refunded {i * 3} pounds. Kind regards.",
        lambda i: f"{'yes' if i % 2 else 'no'}, since the order number {i * 7} {'has' if i % 3 else 'has not'} shipped",
        lambda i: f"{'Oui' if i % 2 else '是的'}: réponse n° {i * 11} für Sie",
    ],
)
def test_templates_and_explained_labels_stay_text(answer: Any) -> None:
    assert told([f"question {i}" for i in range(N)], [answer(i) for i in range(N)]).contract == Text()


def test_a_thousand_labels_and_many_scripts() -> None:
    names = ["退款", "возврат", "remboursement", "ﬁnance", "🙂", "اسم"]
    values: list[Value] = [f"{names[i % 1000 % 6]} {i % 1000}" for i in range(4000)]
    inferred = told([f"文本 {i}" for i in range(4000)], values)
    assert isinstance(inferred.contract, Choice)
    assert len(inferred.contract.values) == 1000


def test_values_nested_deep_and_lists_of_objects() -> None:
    deep: Value = "leaf"
    for _ in range(90):
        deep = {"a": deep}
    inferred = told(["t"] * 20, [deep] * 20)
    assert inferred.share == 1.0
    order: list[Value] = [{"lines": [{"name": f"item {i}", "n": i % 3}], "flags": [True, i % 2 == 0]} for i in range(N)]
    inferred = told([f"one item {i}" for i in range(N)], order)
    line = Fields((("name", Span()), ("n", Choice((0, 1, 2)))))
    assert inferred.contract == Fields((("lines", Many(line)), ("flags", Many(Choice((False, True))))))
    assert inferred.share == 1.0


def test_huge_texts_and_many_rows_cost_little() -> None:
    began = time.perf_counter()
    told(["x" * 1_000_000] * 1000, [f"answer {i}" for i in range(1000)])
    told([f"input {i}" for i in range(200_000)], [f"a poem about {i}" for i in range(200_000)])
    assert time.perf_counter() - began < 8  # 0.5 s on a free core


def test_the_same_answers_give_the_same_result() -> None:
    values: list[Value] = [f"label {i % 90}" for i in range(9000)]
    assert told([""] * 9000, values) == told([""] * 9000, values)


# ---------------------------------------------------------------------------------------------- newer answers


def changes(contract: OutputContract, values: list[Value], text: str = "t") -> list[Change]:
    return drift(contract, [text] * len(values), values)


def test_answers_that_keep_the_contract_change_nothing() -> None:
    kept: list[tuple[OutputContract, Value]] = [
        (Choice(("a", "b")), "a"),
        (Fields((("a", Choice(("x", None))),)), {}),
        (ToolCall((("f", Fields(())),)), call("f")),
        (Choices(("a",)), []),
        (Text(), "whatever"),
        (Number(), 3),
    ]
    for contract, value in kept:
        assert changes(contract, [value] * 50) == []
    assert drift(Choice(("a",)), [], []) == []


def test_a_new_label_is_named_from_two_records_on() -> None:
    values: list[Value] = [*["a"] * 95, *["refund"] * 2, "odd one", "other odd one", "third"]
    found = changes(Choice(("a", "b")), values)
    assert [(change.where, change.value, change.records) for change in found] == [("", "", 3), ("", "refund", 2)]
    assert found[1].what == "the answer has a new label, `refund`, in 2 of 100 answers"
    assert "3 of 100 answers are outside of the contract" in found[0].what


def test_changes_say_where() -> None:
    contract = Fields(
        (
            ("kind", Choice(("x",))),
            ("who", Fields((("role", Choice(("boss", None))),))),
            ("tags", Choices(("a",))),
        )
    )
    rows: list[tuple[Value, int]] = [
        ({"kind": "y", "who": {"role": "boss"}}, 4),
        ({"kind": "x", "who": {"role": "clerk"}, "tags": ["b"]}, 3),
        ({"kind": "x", "mood": "sad"}, 2),
        ({"tags": ["a"]}, 5),
    ]
    values = [value for value, times in rows for _ in range(times)]
    found = {(change.where, change.value): change.records for change in changes(contract, values)}
    assert found == {("kind", "y"): 4, ("who.role", "clerk"): 3, ("tags", "b"): 3, ("", "mood"): 2, ("kind", ""): 5}


def test_tools_that_are_new_missing_or_several() -> None:
    contract = ToolCall((("f", Fields((("x", Choice(("a",))),))),))
    values = [
        *[call("g")] * 5,
        *[call("f", x="b")] * 4,
        *[plain({"tool_calls": []})] * 3,
        *[plain({"tool_calls": [{"name": "f", "arguments": {"x": "a"}}] * 2})] * 2,
        *["I cannot do that"] * 6,
    ]
    found = [(change.where, change.value, change.records) for change in changes(contract, values)]
    assert found == [("", "a text", 6), ("", "g", 5), ("f().x", "b", 4), ("", "", 3), ("", "", 2)]


def test_texts_where_labels_were_are_one_change() -> None:
    values: list[Value] = [f"I think this is about order {i}, but I would ask the customer first" for i in range(30)]
    found = changes(Choice(("refund", "card")), [*values, *["card"] * 70])
    assert [(change.value, change.records) for change in found] == [("a text", 30)]
    assert found[0].what == "the answer is a text where a label was, in 30 of 100 answers"


def test_pieces_that_are_no_longer_in_the_input() -> None:
    values: list[Value] = [{"city": "Boston" if i % 2 else "BOS-17"} for i in range(40)]
    (change,) = changes(Fields((("city", Span()),)), values, "a flight to boston")
    assert (change.where, change.records) == ("city", 20)
    assert "no piece of the input in 20 of the 40" in change.what


def test_drift_looks_at_a_bounded_part() -> None:
    values: list[Value] = [f"l{i % 3}" for i in range(100_000)]
    began = time.perf_counter()
    (change,) = changes(Choice(("l0", "l1")), values)
    assert time.perf_counter() - began < 5
    assert change.records == pytest.approx(4000 / 3, rel=0.1)


def test_canonical_text_of_a_request_is_what_is_read() -> None:
    text = canonical({"type": "json_schema", "json_schema": {"schema": {"type": "boolean"}}})
    assert told(["t"], [True], response_format=text).contract == Choice((False, True))
