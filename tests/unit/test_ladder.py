"""The search: which recipe wins and why, budgets, failures, and going on after an interruption."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from suffice.core.errors import ArtefactError
from suffice.core.protocols import Progress
from suffice.core.types import Choice, Example, OutputContract, Policy, Prediction, Recipe, TrainSet, TuneSet
from suffice.learn import ladder, latency
from suffice.learn.judging import Plan, Terms
from suffice.store import artefacts
from suffice.store.home import Home

AB = Choice(("a", "b"))
N = 1_000
"""Tune examples; all have the answer "a"."""


class Clock:
    """Time that passes only by what is done."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


class Knowing:
    """A specialist that answers the first `knows` of the inputs x0, x1, ... right, and is unsure of the others."""

    def __init__(self, knows: int, size: int = 0, takes_s: float = 0.0, clock: Clock | None = None) -> None:
        self.knows, self.size, self.takes_s, self.clock = knows, size, takes_s, clock or Clock()
        self.asked = 0
        self.generates = False
        self.long: dict[str, float] = {}

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        self.asked += 1
        self.clock.at += self.takes_s + sum(self.long.get(text, 0.0) for text in inputs)
        known = [int(text[1:]) < self.knows for text in inputs]
        return [Prediction(value="a" if right else "b", score=0.9 if right else 0.1) for right in known]

    def save(self, folder: Path) -> None:
        (folder / "model.txt").write_text(f"{self.knows} {self.size}".ljust(self.size))


class Family:
    """Recipes that know so much; what goes wrong with one of them is told by `faults`."""

    def __init__(
        self, name: str, *knows: int, size: int = 100, takes_s: float = 0.0, why_not: str | None = None,
        fault: BaseException | None = None, steps: int = 1, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self.name, self.knows, self.size, self.takes_s, self.why_not = name, knows, size, takes_s, why_not
        self.fault, self.steps, self.clock = fault, steps, clock or Clock()
        self.generates = False
        self.fitted: list[int] = []
        self.scratch: list[Path] = []

    def supports(self, contract: OutputContract) -> str | None:
        return self.why_not

    def recipes(self, seed: int) -> list[Recipe]:
        return [
            Recipe(family=self.name, seed=seed, params={"knows": knows} if len(self.knows) > 1 else {})
            for knows in self.knows
        ]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> Knowing:
        assert scratch is not None and scratch.is_dir()
        self.scratch.append(scratch)
        for step in range(self.steps):
            progress("fitting", step / self.steps)
            self.clock.at += 1
        if self.fault is not None:
            raise self.fault
        knows = int(recipe.params.get("knows", self.knows[0]))
        self.fitted.append(knows)
        return self.made(knows, self.size)

    def made(self, knows: int, size: int) -> Knowing:
        found = Knowing(knows, size, self.takes_s, self.clock)
        found.generates = self.generates
        return found

    def load(self, folder: Path) -> Knowing:
        knows, size = (folder / "model.txt").read_text().split()
        return self.made(int(knows), int(size))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def search(
    home: Home, *families: Family, everything: bool = False, budget_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic, **wishes: float,
) -> ladder.Found:  # fmt: skip
    rows = [Example(id=f"e{i}", input=f"x{i}", output="a", has_output=True) for i in range(N)]
    return ladder.search(
        families, AB, TrainSet(rows), TuneSet(rows), policy=Policy(**wishes),  # type: ignore[arg-type]
        terms=Terms("binary"), plan=Plan(attempt=1, n_units=10_000), seed=0, budget_s=budget_s,
        progress=lambda *_: None, fits=artefacts.Fits(home, "t"), everything=everything, clock=clock,
    )  # fmt: skip


def told(found: ladder.Found) -> list[tuple[str, str, str]]:
    return [(row.recipe.name, row.verdict, row.reason) for row in found.candidates]


# ---------------------------------------------------------------------------------------------- the choice


def test_the_first_that_suffices_wins_and_the_rest_is_not_tried(home: Home) -> None:
    found = search(home, Family("one", 200, 900), Family("two", 1000))
    assert told(found) == [
        ("one(knows=200)", "too little coverage", "80% is asked for"),
        ("one(knows=900)", "chosen", "the smallest that reaches 80%"),
        ("two", "not tried", "a smaller one suffices"),
    ]
    assert found.recipe == Recipe(family="one", params={"knows": 900})


def test_the_whole_table_does_not_change_the_choice(home: Home) -> None:
    families = Family("one", 300), Family("two", 850), Family("three", 1000), Family("four", 100)
    found = search(home, *families, everything=True)
    assert [(name, verdict) for name, verdict, _ in told(found)] == [
        ("one", "too little coverage"),
        ("two", "chosen"),
        ("three", "sufficient"),
        ("four", "too little coverage"),
    ]
    assert found.candidates[2].reason == "two suffices"
    assert found.recipe == search(home, *families).recipe
    assert found.specialist is not None and found.tune is not None
    assert found.tune.correct.sum() == 850


@pytest.mark.parametrize(
    ("small", "large", "wins", "reason"),
    [
        (500, 501, "small", "not better than small beyond chance"),
        (500, 503, "small", "not better than small beyond chance"),
        (500, 510, "large", "best coverage within the budget"),
        (500, 400, "small", "not better than small"),
        (0, 0, "small", "not better than small"),
    ],
)
def test_a_larger_model_wins_by_a_real_gain_only(home: Home, small: int, large: int, wins: str, reason: str) -> None:
    """Answers of the one stand beside the other's: three more of a thousand may be chance, ten more hardly."""
    found = search(home, Family("small", small), Family("large", large, size=1000))
    assert found.recipe is not None
    assert found.recipe.family == wins
    assert told(found)[1][2] == reason


def test_of_recipes_that_cost_the_same_the_better_wins(home: Home) -> None:
    found = search(home, Family("one", 500, 501, 499))
    assert [verdict for _, verdict, _ in told(found)] == ["too little coverage", "chosen", "too little coverage"]


def test_rows_say_what_was_measured(home: Home) -> None:
    (row,) = search(home, Family("one", 900, size=2_500_000)).candidates
    assert row.size_mb == pytest.approx(2.5)
    assert row.accuracy is not None and row.coverage is not None
    assert (row.accuracy.value, row.accuracy.n) == (0.9, N)
    assert (row.coverage.value or 0) >= 0.9
    assert 0 < row.p50_ms < row.p99_ms


# ---------------------------------------------------------------------------------------------- budgets


def test_too_slow_and_too_large_are_passed_over_with_their_figures(home: Home) -> None:
    clock = Clock()
    slow, large = Family("slow", 1000, takes_s=0.02, clock=clock), Family("large", 1000, size=3_000_000)
    found = search(home, slow, large, Family("good", 700), clock=clock, max_latency_ms=15, max_memory_mb=2)
    (_, verdict, reason), (_, verdict_of_large, reason_of_large), _ = told(found)
    assert (verdict, reason) == ("too slow", "p99 of 40 ms where 15 ms is the budget")
    assert (verdict_of_large, reason_of_large) == ("too large", "3 MB where 2 MB is the budget")
    assert found.recipe == Recipe(family="good")
    assert search(home, slow, clock=clock, max_latency_ms=15).specialist is None


def test_one_that_writes_its_answers_may_take_seconds_unless_the_policy_says_otherwise(home: Home) -> None:
    clock = Clock()
    reads, writes = Family("reads", 1000, takes_s=0.5, clock=clock), Family("writes", 1000, takes_s=0.5, clock=clock)
    writes.generates = True
    (_, verdict, _), (_, verdict_of_writes, _) = told(search(home, reads, writes, clock=clock))
    assert (verdict, verdict_of_writes) == ("too slow", "chosen")
    assert search(home, writes, clock=clock, max_latency_ms=200).specialist is None


def test_the_budget_ends_what_is_under_way_once_there_is_a_candidate(home: Home) -> None:
    clock = Clock()
    first, long = Family("first", 300, steps=600, clock=clock), Family("long", 900, steps=10_000, clock=clock)
    found = search(home, first, long, Family("after", 1000), clock=clock, budget_s=900)
    assert told(found) == [
        ("first", "chosen", "best coverage within the budget"),
        ("long", "not finished", "the budget of 15 minutes is spent; a larger --budget lets it finish"),
        ("after", "not tried", "the budget of 15 minutes is spent"),
    ]
    assert clock.at == 901
    assert found.candidates[0].fit_s == 600
    assert not found.finished()
    assert long.scratch[0].is_dir()  # what it has left there is still there


def test_the_first_candidate_always_finishes(home: Home) -> None:
    clock = Clock()
    fails, first = Family("fails", 1, fault=ValueError("no"), clock=clock), Family("first", 300, steps=9, clock=clock)
    found = search(home, fails, first, Family("next", 900), clock=clock, budget_s=1)
    assert [verdict for _, verdict, _ in told(found)] == ["failed", "chosen", "not tried"]


# ---------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (RuntimeError("matrix is\nsingular"), "RuntimeError: matrix is singular"),
        (MemoryError(), "it takes more memory than there is"),
        (ArtefactError("the base is gone"), "the base is gone"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_a_family_that_fails_is_a_row_with_its_reason(home: Home, fault: BaseException, reason: str) -> None:
    found = search(home, Family("fails", 900, fault=fault), Family("works", 900))
    assert told(found)[0] == ("fails", "failed", reason)
    assert found.recipe == Recipe(family="works")


def test_where_nothing_could_be_fitted_each_family_says_why(home: Home) -> None:
    cannot = Family("cannot", 1, 2, why_not="it cannot answer numbers")
    assert search(home, cannot).why_nothing() == ["it cannot answer numbers"]
    clock = Clock()
    fails, slow = Family("fails", 1, fault=ValueError("no")), Family("slow", 9, takes_s=0.1, clock=clock)
    nor = Family("nor", 1, why_not="it cannot answer numbers")
    found = search(home, cannot, nor, fails, slow, clock=clock)
    assert found.specialist is None
    first, second, third = found.why_nothing()
    assert (first, second) == ("cannot, nor: it cannot answer numbers", "fails: ValueError: no")
    assert third == "slow: too slow: p99 of 200 ms where 50 ms is the budget"


def test_who_asks_for_an_end_gets_it(home: Home) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(home, Family("one", 900, fault=KeyboardInterrupt()))


# ---------------------------------------------------------------------------------------------- going on


def test_what_was_fitted_is_not_fitted_again(home: Home) -> None:
    one, two = Family("one", 300, 400), Family("two", 900, fault=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        search(home, one, two)
    two.fault = None
    found = search(home, one, two)
    assert (one.fitted, two.fitted) == ([300, 400], [900])
    assert two.scratch[0] == two.scratch[1]  # the fit that was under way finds its scratch again
    assert told(found) == told(search(home, Family("one", 300, 400), Family("two", 900)))

    fresh, again = artefacts.save(home, Knowing(900, 100)), found.specialist
    assert again is not None
    assert artefacts.save(home, again) == fresh


def test_a_fit_whose_files_are_not_whole_is_fitted_again(home: Home) -> None:
    one = Family("one", 900)
    search(home, one)
    (model,) = (home.folder / "fits" / "t").rglob("model.txt")
    model.write_text("1 ")
    assert search(home, one).recipe == Recipe(family="one")
    assert one.fitted == [900, 900]


def test_other_data_is_another_fit(home: Home) -> None:
    fits = artefacts.Fits(home, "t")
    one = Family("one", 900)
    search(home, one)
    rows = [Example(id=f"e{i}", input=f"x{i}", output="a", has_output=True) for i in range(N - 1)]
    ladder.search(
        [one], AB, TrainSet(rows), TuneSet(rows), policy=Policy(), terms=Terms("binary"),
        plan=Plan(attempt=1, n_units=1000), seed=0, budget_s=60, progress=lambda *_: None, fits=fits,
    )  # fmt: skip
    assert one.fitted == [900, 900]
    fits.clear()
    assert not (home.folder / "fits" / "t").exists()


def test_what_nobody_went_on_with_for_a_week_is_dropped(home: Home) -> None:
    search(home, Family("one", 300))
    search(home, Family("two", 300))
    old, new = sorted((home.folder / "fits" / "t").iterdir())
    now = time.time()
    for path in (old, *old.rglob("*")):
        os.utime(path, (now - artefacts.WEEK_S - 60,) * 2)
    artefacts.sweep_fits(home, now)
    assert (old.exists(), new.exists()) == (False, True)


# ---------------------------------------------------------------------------------------------- latency


def test_latency_alone_and_behind_another() -> None:
    """One in ten takes 5 ms where the others take 1; never two of them in a row."""
    clock = Clock()
    uneven = Knowing(9, takes_s=0.001, clock=clock)
    uneven.long = {"x9": 0.004}
    took = latency.measure(uneven, [f"x{i}" for i in range(10)], clock)
    assert took.p50_ms == pytest.approx(1)
    assert took.p99_ms == pytest.approx(6)
    assert latency.measure(uneven, [], clock) == latency.Latency(p50_ms=0.0, p99_ms=0.0)


def test_a_slow_model_is_timed_by_few_predictions() -> None:
    clock = Clock()
    slow = Knowing(9, takes_s=0.1, clock=clock)
    latency.measure(slow, ["x1"] * 500, clock)
    assert 20 <= slow.asked <= 30
    slower = Knowing(9, takes_s=60, clock=clock)
    assert latency.measure(slower, ["x1"], clock).p99_ms == pytest.approx(120_000)
    assert slower.asked == 4
