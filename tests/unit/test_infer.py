"""The output contract, inferred from answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from suffice.core.contracts import covers
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, plain
from suffice.learn.contracts import infer

N = 100


def inferred(answer: Callable[[int], Value], inputs: Sequence[str] | None = None) -> OutputContract:
    """The contract of 100 answers, which it covers."""
    values = [plain(answer(i)) for i in range(N)]
    contract = infer(inputs or [f"input {i}" for i in range(N)], values)
    assert all(covers(contract, value) for value in values)
    return contract


@pytest.mark.parametrize(
    ("answer", "contract"),
    [
        (lambda i: "ab"[i % 2], Choice(("a", "b"))),
        (lambda i: i % 3, Choice((0, 1, 2))),
        (lambda i: i % 2 == 0, Choice((False, True))),
        (lambda i: [None, "a"][i % 2], Choice(("a", None))),
        (lambda i: ["1", 1, True][i % 3], Choice(("1", 1, True))),
        (lambda i: 3.5 * i, Number()),
        (lambda i: f"input {i}", Span()),
        (lambda i: f"a poem about {i}", Text()),
        (lambda i: list(("ab", "bc", "ac")[i % 3]), Choices(("a", "b", "c"))),
        (lambda i: list(("ba", "cb", "ca")[i % 3]), Choices(("c", "b", "a"))),
        (lambda i: ["a"] * (i % 2), Choices(("a",))),
        (lambda i: f'{{"a": {i % 2}}}', Fields((("a", Choice((0, 1))),))),
        (lambda i: '["a", "b"]' if i % 2 else "[]", Choices(("a", "b"))),
        (lambda i: {"a": {"b": "xy"[i % 2]}}, Fields((("a", Fields((("b", Choice(("x", "y"))),))),))),
        (
            lambda i: {"q": "a", **({"u": True} if i % 2 else {})},
            Fields((("q", Choice(("a",))), ("u", Choice((True, None))))),
        ),
        (lambda i: {"n": i, "s": f"input {i}"}, Fields((("n", Number()), ("s", Span())))),
        (lambda i: {"t": ["ab"[i % 2]]}, Fields((("t", Choices(("a", "b"))),))),
        (lambda i: {"t": [f"input {i}"]}, Fields((("t", Many(Span())),))),
        (
            lambda i: {"tool_calls": [{"name": "fg"[i % 2], "arguments": {"x": "ab"[i // 2 % 2]}}]},
            ToolCall((("f", Fields((("x", Choice(("a", "b"))),))), ("g", Fields((("x", Choice(("a", "b"))),))))),
        ),
    ],
)  # fmt: skip
def test_contracts(answer: Callable[[int], Value], contract: OutputContract) -> None:
    assert inferred(answer) == contract


def test_no_call_is_an_answer_too() -> None:
    calls: list[list[Value]] = [[], [{"name": "f", "arguments": {}}]]
    assert inferred(lambda i: {"tool_calls": calls[i % 2]}) == ToolCall((("f", Fields(())),), none_allowed=True)


def test_a_minority_of_another_shape_is_outside_the_contract() -> None:
    values: list[Value] = [{"a": "xy"[i % 2]} if i % 10 else "sorry" for i in range(N)]
    contract = infer([""] * N, values)
    assert contract == Fields((("a", Choice(("x", "y"))),))
    assert not covers(contract, "sorry")


def test_several_calls_at_once_are_outside_the_contract() -> None:
    one: dict[str, Value] = {"name": "f", "arguments": {}}
    contract = infer([""] * N, [{"tool_calls": [one] if i % 10 else [one, one]} for i in range(N)])
    assert contract == ToolCall((("f", Fields(())),))
    assert not covers(contract, {"tool_calls": [one, one]})


def test_rare_labels_do_not_open_a_list() -> None:
    assert isinstance(inferred(lambda i: f"rare {i}" if i < 15 else "ab"[i % 2]), Choice)


def test_five_thousand_labels_are_inferred_fast() -> None:
    values: list[Value] = [f"label {i % 5000}" for i in range(20_000)]
    began = time.perf_counter()
    contract = infer([""] * len(values), values)
    assert time.perf_counter() - began < 2
    assert isinstance(contract, Choice)
    assert len(contract.values) == 5000


def test_the_contract_does_not_depend_on_the_order_of_answers() -> None:
    values: list[Value] = ["b", "a", "c"] * 30
    assert infer([""] * 90, values) == infer([""] * 90, values[::-1])


def test_values_that_are_copied_from_the_input_are_pieces_of_it_even_if_no_new_one_comes() -> None:
    states = ["Ohio", "Iowa", "Texas", "Maine", "Utah", "Idaho"]
    inputs = [f"a table for two in {states[i % 6]}, around {5 + i % 4}" for i in range(300)]
    assert infer(inputs, [{"state": [states[i % 6]]} for i in range(300)]) == Fields((("state", Many(Span())),))
    assert infer(inputs, [states[i % 6] for i in range(300)]) == Span()


@pytest.mark.parametrize("ending", ["yes or no?", "YES / NO"])
def test_labels_that_every_input_names_are_labels(ending: str) -> None:
    inputs = [f"is number {i} even, {ending}" for i in range(300)]
    assert infer(inputs, [("yes", "no")[i % 2] for i in range(300)]) == Choice(("no", "yes"))
