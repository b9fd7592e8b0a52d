"""What a contract allows, and the one rule that accepts."""

from __future__ import annotations

import pytest

from suffice.core.contracts import covers, refusal, told
from suffice.core.types import (
    Choice,
    Choices,
    Fields,
    Many,
    Number,
    OutputContract,
    Prediction,
    Reason,
    Span,
    Text,
    ToolCall,
)
from suffice.core.values import Value

TRIAGE = Fields(
    (("queue", Choice(("billing", "tech"))), ("urgent", Choice((False, True, None))), ("tags", Choices(("a", "b"))))
)
TOOLS = ToolCall((("light", Fields((("state", Choice(("on", "off"))),))), ("stop", Fields(()))), none_allowed=True)


@pytest.mark.parametrize(
    ("contract", "value"),
    [
        (Choice(("a", "b")), "a"),
        (Choice((1, 2)), 1),
        (Choice((1, 2)), 1.0),
        (Choice((True, False)), False),
        (Choice(("a", None)), None),
        (Choices(("a", "b")), []),
        (Choices(("a", "b")), ["b", "a"]),
        (TRIAGE, {"queue": "tech"}),
        (TRIAGE, {"queue": "tech", "urgent": True, "tags": ["b"]}),
        (Fields((("inner", Fields((("a", Choice(("x", None))),))),)), {}),
        (TOOLS, {"tool_calls": []}),
        (TOOLS, {"tool_calls": [{"name": "light", "arguments": {"state": "on"}}]}),
        (TOOLS, {"tool_calls": [{"name": "stop"}]}),
        (Many(Choice(("a",))), ["a", "a"]),
        (Number(), 1.5),
        (Span(), "piece"),
        (Text(), ""),
    ],
)
def test_within(contract: OutputContract, value: Value) -> None:
    assert covers(contract, value)


@pytest.mark.parametrize(
    ("contract", "value"),
    [
        (Choice(("a", "b")), "c"),
        (Choice(("a", "b")), None),
        (Choice((1, 0)), True),
        (Choice((True, False)), 1),
        (Choice(("1",)), 1),
        (Choice(("a",)), ["a"]),
        (Choices(("a", "b")), ["c"]),
        (Choices(("a", "b")), "a"),
        (Choices(("a", "b")), [["a"]]),
        (TRIAGE, {}),
        (TRIAGE, {"queue": "tech", "urgent": 1}),
        (TRIAGE, {"queue": "tech", "new": "x"}),
        (TRIAGE, "tech"),
        (TRIAGE, {"queue": "tech", "tags": "a"}),
        (TOOLS, {"tool_calls": [{"name": "light", "arguments": {"state": "dim"}}]}),
        (TOOLS, {"tool_calls": [{"name": "dance", "arguments": {}}]}),
        (TOOLS, {"tool_calls": [{"name": "stop"}, {"name": "stop"}]}),
        (TOOLS, "no"),
        (ToolCall((("stop", Fields(())),)), {"tool_calls": []}),
        (Number(), True),
        (Number(), "1"),
        (Text(), 1),
        (Many(Number()), ["a"]),
    ],
)
def test_without(contract: OutputContract, value: Value) -> None:
    assert not covers(contract, value)


def told_off(value: Value, score: float, familiar: bool = True) -> Reason | None:
    prediction = Prediction(value=value, score=score, familiar=familiar)
    return refusal(prediction, Choice(("a",)), 0.5)


def test_the_rule_that_accepts() -> None:
    assert told_off("a", 0.5) is None
    assert told_off("a", 0.49) is Reason.BELOW_THRESHOLD
    assert told_off("a", float("nan")) is Reason.BELOW_THRESHOLD
    assert told_off("a", 1.0, familiar=False) is Reason.UNFAMILIAR
    assert told_off("b", 1.0, familiar=False) is Reason.CONTRACT


def test_a_threshold_that_is_no_number_accepts_nothing() -> None:
    assert refusal(Prediction(value="a", score=1.0), Choice(("a",)), float("nan")) is Reason.BELOW_THRESHOLD


def test_fields_that_say_nothing_do_not_break_a_contract() -> None:
    prediction = Prediction(value={"queue": "tech", "urgent": None, "tags": [], "more": ""}, score=1.0)
    assert refusal(prediction, TRIAGE, 0.5) is None


def test_no_call_is_accepted_where_the_contract_allows_it() -> None:
    assert refusal(Prediction(value={"tool_calls": []}, score=1.0), TOOLS, 0.5) is None


@pytest.mark.parametrize("contract", [TRIAGE, TOOLS, Many(Span()), Number(), Text(), Choices(("a",))])
def test_every_contract_can_be_told(contract: OutputContract) -> None:
    assert told(contract)
