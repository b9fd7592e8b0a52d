"""What answers are worth: losses by kind, and the coverage to expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from suffice.core.types import (
    Bools,
    Choice,
    Example,
    Fields,
    Floats,
    LossKind,
    Policy,
    Prediction,
)
from suffice.core.values import Value
from suffice.learn import judging
from suffice.learn.judging import Plan, Terms

AB = Choice(("a", "b"))


ABSENT = "absent"


def example(output: Value = ABSENT, reference: Value = ABSENT, usable: bool = True) -> Example:
    return Example(
        id="e",
        input="x",
        output=None if output == ABSENT else output,
        has_output=output != ABSENT,
        reference=None if reference == ABSENT else reference,
        has_reference=reference != ABSENT,
        usable=usable,
    )


def loss(said: Value, row: Example, kind: LossKind) -> tuple[float, bool]:
    """Loss and correctness of one answer."""
    found = judging.compare([Prediction(value=said, score=1.0)], AB, [row], Terms(kind))
    return float(found.losses[0]), bool(found.correct[0])


def test_agreement() -> None:
    assert loss("a", example("a"), "binary") == (0, True)
    assert loss("a", example("b"), "binary") == (1, False)
    assert loss("a", example(None, usable=False), "binary") == (1, False)  # a refusal: whatever is said differs


def test_absolute() -> None:
    assert loss("a", example(reference="a"), "binary") == (0, True)
    assert loss("a", example("a", reference="b"), "binary") == (1, False)


@pytest.mark.parametrize(
    ("said", "row", "expected"),
    [
        ("a", example("a", "a"), 0),
        ("b", example("a", "a"), 1),
        ("a", example("b", "a"), -1),
        ("b", example("b", "a"), 0),
        ("b", example("c", "a"), 0),
        ("a", example("a"), 0),
        ("b", example("a"), 1),
        ("a", example(reference="a"), 0),
        ("b", example(reference="a"), 1),
        ("a", example(None, "a", usable=True), -1),
    ],
)
def test_signed(said: str, row: Example, expected: float) -> None:
    assert loss(said, row, "signed")[0] == expected


def test_an_answer_out_of_contract_or_unfamiliar_is_not_acceptable() -> None:
    answers = [
        Prediction(value="c", score=1.0),
        Prediction(value="a", score=0.0, familiar=False),
        Prediction(value="a", score=0.0),
    ]
    assert judging.compare(answers, AB, [example("a")] * 3, Terms("binary")).acceptable.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("said", "row", "expected"),
    [
        ("a", example("a"), (True, False)),
        ("a", example("b", "a"), (True, True)),  # right, and yet other than the frontier's
        ("a", example("a", usable=False), (True, True)),
        ("a", example(reference="b"), (False, False)),
    ],
)
def test_what_differs_from_the_frontier(said: str, row: Example, expected: tuple[bool, bool]) -> None:
    found = judging.compare([Prediction(value=said, score=1.0)], AB, [row], Terms("binary"))
    assert (found.recorded[0], found.differs[0]) == expected


def answers(losses: Floats, **slices: Bools) -> judging.Answers:
    """The surest first."""
    n = len(losses)
    yes = np.ones(n, dtype=np.bool_)
    return judging.Answers(
        said=("a",) * n, scores=np.linspace(1, 0, n), acceptable=yes, losses=losses, wrong=np.maximum(losses, 0),
        correct=losses <= 0, frontier_wrong=~yes, recorded=yes, differs=losses > 0, slices=slices,
    )  # fmt: skip


def to_expect(seen: judging.Answers, n_units: int = 1500, kind: LossKind = "binary", grouped: bool = False) -> float:
    terms = Terms(kind, slices=tuple(seen.slices))
    plan = Plan(attempt=1, n_units=n_units, grouped=grouped)
    return float(judging.accepted(seen, terms, Policy(), plan).sum()) / max(1, len(seen.scores))


def test_the_coverage_to_expect() -> None:
    clean, spoilt = np.zeros(500), np.r_[np.zeros(250), np.ones(250)]
    assert to_expect(answers(clean)) == 1
    assert 0.5 <= to_expect(answers(spoilt)) < 0.53
    assert to_expect(answers(spoilt[::-1])) < 0.05
    assert to_expect(answers(clean), 100) == 0  # below the floor nothing certifies
    assert to_expect(answers(np.zeros(0))) == 0


@pytest.mark.parametrize("kind", ["graded", "signed"])
def test_the_coverage_to_expect_of_a_bet(kind: LossKind) -> None:
    clean, half_wrong = np.zeros(500), np.r_[np.zeros(250), np.full(250, 0.5)]
    assert to_expect(answers(clean), 257, kind) == 1
    assert to_expect(answers(clean), 250, kind) == 0  # the floor of the bet is 256
    assert 0.5 <= to_expect(answers(half_wrong), kind=kind) < 0.54
    assert to_expect(answers(half_wrong), kind=kind) > to_expect(answers(half_wrong * 2), kind=kind)
    assert to_expect(answers(clean), 200) == 1  # the binomial's is 183,
    assert to_expect(answers(clean), 200, grouped=True) == 0  # but not where groups are bet on


def test_a_slice_that_errs_too_often_limits_the_coverage_to_expect() -> None:
    rows = np.arange(600)
    small = rows % 6 == 0
    losses = ((rows > 300) & small & (rows % 12 == 0)).astype(np.float64)  # every second of the slice, from half down
    whole = to_expect(answers(losses), 6000)
    assert 0.5 < to_expect(answers(losses, small=small), 6000) < whole - 0.03


class Constant:
    """A specialist that always says the same."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        return [Prediction(value=self.value, score=0.9) for _ in inputs]


def test_a_rare_slice_is_closed() -> None:
    rows = [
        Example(id=f"e{i}", input="x", output="a", has_output=True, slices=("rare",) if i % 20 == 0 else ("often",))
        for i in range(200)
    ]
    terms = Terms("binary", slices=("rare", "often"))
    plan = Plan(attempt=1, n_units=1500)
    found, seen = judging.judged(Constant("a"), AB, rows, terms, Policy(), plan)
    assert found.closed == ("rare",)
    assert seen.acceptable.sum() == 190
    assert seen.slices["rare"].sum() == 10
    found, seen = judging.judged(Constant("a"), AB, rows, Terms("binary", slices=("answer:a",)), Policy(), plan)
    assert found.closed == ()
    assert seen.acceptable.all()


def test_a_score_that_is_no_number_is_never_accepted() -> None:
    found = judging.compare([Prediction(value="a", score=float("nan"))], AB, [example("a")], Terms("binary"))
    assert (found.scores[0], found.acceptable[0]) == (-np.inf, False)


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        (example({"x": 1, "y": 2}), "graded", 0.5),
        (example(reference={"x": 1, "y": 2}), "graded", 0.5),
        (example({"x": 2, "y": 2}, {"x": 1, "y": 2}), "signed", 0.0),  # both have one of two right
        (example({"x": 2, "y": 1}, {"x": 1, "y": 2}), "signed", -0.5),
        (example({"x": 1, "y": 2}, {"x": 1, "y": 2}), "signed", 0.5),
        (example({"x": 1, "y": 2}), "signed", 1.0),  # who is right is not known
    ],
)
def test_f1_counts_what_is_right_in_part(row: Example, kind: LossKind, expected: float) -> None:
    contract = Fields((("x", Choice((1, 2))), ("y", Choice((1, 2)))))
    said = Prediction(value={"x": 1, "y": 1}, score=1.0)
    found = judging.compare([said], contract, [row], Terms(kind, "f1"))
    assert found.losses[0] == pytest.approx(expected)
    assert not found.correct[0]
