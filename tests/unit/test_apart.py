"""Rows for fitting: answers taken apart, and folds that keep together what hangs together."""

from __future__ import annotations

from suffice.core.types import Choice, Choices, Example, Fields, Span, ToolCall
from suffice.specialists.apart import NOT_ASKED, Apart, folds
from suffice.specialists.linear_fit import unit


def test_answers_are_taken_apart() -> None:
    inner = Fields((("kind", Choice(("a", "b"))), ("tags", Choices(("x", "y"))), ("who", Span())))
    apart = Apart(ToolCall((("call", inner), ("stop", Fields(()))), none_allowed=True))
    said = apart.of({"tool_calls": [{"name": "call", "arguments": {"kind": "b", "tags": ["y"], "who": "Ann"}}]})
    assert said.codes is not None and said.codes.tolist() == [1, 1, 0, 1]
    assert (said.values, said.tool) == ({("call", "who"): "Ann"}, "call")
    none = apart.of({"tool_calls": []})
    assert none.codes is not None and none.codes.tolist() == [0, NOT_ASKED, NOT_ASKED, NOT_ASKED]
    other = Apart(inner).of({"kind": "never seen", "tags": []})
    assert other.codes is not None and other.codes.tolist() == [NOT_ASKED, 0, 0]
    assert Apart(inner).of("a text").codes is None


def test_folds_keep_groups_together_and_without_groups_equal_inputs() -> None:
    examples = [
        Example(id=str(at), input=f"text {at % 7}", group=f"group {at % 5}" if at < 20 else None, output="a")
        for at in range(40)
    ]
    made = folds(examples, unit)
    assert sorted(row.id for _, third in made for row in third) == sorted(row.id for row in examples)
    for others, third in made:
        assert len(others) + len(third) == len(examples) and others and third
        assert not {unit(row) for row in others} & {unit(row) for row in third}
