"""On real data: how often is the promise broken, and what coverage does it buy?

    python bench/promise.py [--draws 200] [--folds 3]

About five minutes on two cores. A fold is one shuffle of a data set and one fit of the linear family: `train` fits,
`tune` gives the score, the guard and the grid of thresholds, the rest is the pool. The pool *is* the truth: calibration
sets are drawn from it with replacement, so a certificate is broken exactly if the loss of the chosen threshold, over
the whole pool, is above the maximal error. (On a small rest instead of the truth even a valid method shows 9%.)

Every draw runs `certify`, the code that serves, as the first attempt of a task at 95% confidence: δ₁ = 2.5%. At
n = 1,000 it runs once more with all of δ = 5%, which is what the published figures of other methods spend. Coverage
is that of the certified threshold on the pool, 0 where there is no certificate. In hindsight is the best threshold on
the pool, for one who knows all its labels. Draws of one fold share its model, so the intervals speak for these models.

Columns: certified and broken are shares of all draws in percent, with Clopper-Pearson's 95% interval for broken.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import common
from suffice.core.types import (
    Bools,
    Choice,
    Example,
    Floats,
    LossKind,
    Policy,
    Promise,
    Recipe,
    Threshold,
    TrainSet,
    TuneSet,
)
from suffice.learn.judging import Answers, Terms, answers
from suffice.proof.bounds import attempt_delta
from suffice.proof.certify import Evidence, certify, grid
from suffice.specialists.linear import LinearFamily

ERRORS = (0.01, 0.02, 0.03, 0.05)
SIZES = (200, 500, 1000, 2000, 3000)
COMPARED = 1000
FIRST, WHOLE = 0.95, 0.90
"""Confidences whose first attempt spends 2.5% and 5%."""

MODEL = "qwen3-30b-a3b"
SIGNED_ERROR, SIGNED_SIZES = 0.02, (1000, 3000)


@dataclass(frozen=True)
class Fold:
    """One fitted model: its answers on tune and on the pool, and the losses that are promised."""

    tune: Answers
    pool: Answers

    def thresholds(self, policy: Policy) -> tuple[float, ...]:
        """The grid as `suffice learn` makes it: only what gives the wished coverage on tune."""
        tune = self.tune
        wanted = policy.min_coverage * len(tune.scores)
        return tuple(
            g for g in grid(tune.scores, tune.acceptable) if (tune.acceptable & (tune.scores >= g)).sum() >= wanted
        )

    def truth(self, threshold: float) -> tuple[float, float]:
        """Coverage and loss of a threshold over the whole pool."""
        accepted = self.pool.acceptable & (self.pool.scores >= threshold)
        return float(accepted.mean()), float((accepted * self.pool.losses).mean())

    def hindsight(self, max_error: float) -> float:
        """The largest coverage that any threshold has on the pool within the maximal error."""
        usable = self.pool.acceptable
        order = np.argsort(-self.pool.scores[usable], kind="stable")
        scores, losses = self.pool.scores[usable][order], self.pool.losses[usable][order]
        last_of_ties = np.append(scores[1:] != scores[:-1], True)
        within = np.flatnonzero((np.cumsum(losses) <= max_error * len(self.pool.scores) + 1e-9) & last_of_ties)
        return (int(within[-1]) + 1) / len(self.pool.scores) if len(within) else 0.0


@dataclass(frozen=True)
class Outcome:
    """What the draws of one cell gave, an entry for each draw. `coverage` is 0 where there is no certificate."""

    certified: Bools
    broken: Bools
    coverage: Floats

    def cells(self) -> list[str]:
        """Certified, broken, coverage: as table cells."""
        n = len(self.certified)
        low, middle, high = (100 * float(v) for v in np.quantile(self.coverage, (0.1, 0.5, 0.9)))
        return [
            f"{100 * self.certified.mean():.0f}",
            common.share(int(self.broken.sum()), n),
            f"{100 * self.coverage.mean():.1f} ({low:.0f} / {middle:.0f} / {high:.0f})",
        ]


# ---------------------------------------------------------------------------------------------- data and fits


def read(name: str) -> tuple[list[Example], int, int]:
    """A data set's rows, and how many of them train and tune."""
    if name == "BANKING77":
        folder = common.data_folder("banking77")
        rows = common.read_lines(folder / "train.jsonl") + common.read_lines(folder / "test.jsonl")
        said = common.read_lines(folder / f"recorded-{MODEL}.jsonl")
        recorded = {" ".join(str(row["text"]).split()): str(row["answer"]) for row in said}
        outputs = [recorded[" ".join(str(row["text"]).split())] for row in rows]
        return examples([(str(row["text"]), str(row["label"])) for row in rows], outputs), 7500, 1300
    if name == "SNIPS":
        folder = common.data_folder("snips")
        rows = common.read_lines(folder / "train.jsonl") + common.read_lines(folder / "validate.jsonl")
        return examples([(str(row["text"]), str(row["intent"])) for row in rows]), 900, 500
    rows = common.read_lines(common.data_folder("metatool") / "queries.jsonl")
    return examples([(str(row["text"]), str(row["tool"])) for row in rows]), 5000, 1000


def examples(rows: Sequence[tuple[str, str]], outputs: Sequence[str] | None = None) -> list[Example]:
    """Rows with a trusted answer, and with a recorded one where there are `outputs`."""
    return [
        Example(
            id=str(i),
            input=text,
            reference=label,
            has_reference=True,
            output=outputs[i] if outputs else None,
            has_output=outputs is not None,
        )
        for i, (text, label) in enumerate(rows)
    ]


def fit(name: str, seed: int) -> tuple[Fold, Fold | None, str]:
    """One fold, the same fold by its signed loss where answers are recorded, and what it is made of."""
    rows, train, tune = read(name)
    random.Random(seed).shuffle(rows)
    contract = Choice(tuple(sorted({str(row.reference) for row in rows[: train + tune]})))
    sets = TrainSet(rows[:train]), TuneSet(rows[train : train + tune])
    began = time.perf_counter()
    model = LinearFamily().fit(Recipe(family="linear", seed=seed), contract, *sets, lambda *_: None)
    spent = time.perf_counter() - began
    pool = rows[train + tune :]

    def fold(kind: LossKind) -> Fold:
        terms = Terms(kind)
        return Fold(answers(model, contract, sets[1], terms), answers(model, contract, pool, terms))

    plain, signed = fold("binary"), fold("signed") if rows[0].has_output else None
    right = 100 * plain.pool.correct.mean()
    escalated = 100 * (~plain.pool.acceptable).mean()
    told = (
        f"{name}, fold {seed}: {train:,} to train, {tune:,} to tune, {len(pool):,} in the pool; {right:.1f}% of the "
        f"pool answered right, {escalated:.1f}% escalated by the guard; fitted in {spent:.0f} s"
    )
    return plain, signed, told


# ---------------------------------------------------------------------------------------------- draws


def draws(fold: Fold, n: int, count: int, seed: int) -> Iterator[tuple[str, Evidence]]:
    """Calibration sets of `n` rows, drawn from the pool with replacement, each with a digest of its own."""
    random = np.random.default_rng([seed, n])
    pool = fold.pool
    for number in range(count):
        rows = random.integers(0, len(pool.scores), n)
        evidence = Evidence(scores=pool.scores[rows], acceptable=pool.acceptable[rows], losses=pool.losses[rows])
        yield f"{seed} {n} {number}", evidence


def outcomes(
    folds: Sequence[Fold], n: int, count: int, policies: Sequence[Policy], kind: LossKind
) -> Iterator[tuple[Policy, Outcome]]:
    """What certifying the same draws under each policy gives, all folds together."""
    promise: Promise = "signed" if kind == "signed" else "absolute"
    found: dict[Policy, list[tuple[int, int, float]]] = {policy: [] for policy in policies}
    for seed, fold in enumerate(folds):
        grids = {policy: fold.thresholds(policy) for policy in policies}
        for digest, evidence in draws(fold, n, count, seed):
            for policy in policies:
                verdict = certify(
                    evidence,
                    policy=policy,
                    kind=kind,
                    attempt=1,
                    grid=grids[policy],
                    seed_digest=digest,
                    promise=promise,
                    reference="human",
                )
                if isinstance(verdict, Threshold):
                    coverage, loss = fold.truth(verdict.score)
                    found[policy].append((1, int(loss > policy.max_error + 1e-9), coverage))
                else:
                    found[policy].append((0, 0, 0.0))
    for policy, each in found.items():
        certified, broken, coverage = np.array(each, dtype=np.float64).T
        yield policy, Outcome(certified > 0, broken > 0, coverage)


def allowed(delta: float, n: int) -> float:
    """δ and three standard errors of a share of `n` draws."""
    return float(delta + 3 * np.sqrt(delta * (1 - delta) / n))


class Verdicts:
    """The tables' cells, and the share of broken promises against what is allowed."""

    def __init__(self) -> None:
        self.above: list[str] = []
        self.count = 0

    def judge(self, name: str, policy: Policy, outcome: Outcome) -> None:
        """Note a cell in which the promise was broken more often than chance explains."""
        delta = attempt_delta(policy.delta, 1)
        share = float(outcome.broken.mean())
        self.count += 1
        if share > allowed(delta, len(outcome.broken)):
            self.above.append(f"{name}, {100 * policy.max_error:g}% at δ = {100 * delta:g}%: {100 * share:.1f}%")


def rows_of(name: str, folds: Sequence[Fold], count: int, verdicts: Verdicts) -> Iterator[list[str]]:
    """The rows of one data set, by maximal error and size."""
    cells: dict[tuple[float, int], list[str]] = {}
    for n in SIZES:
        confidences = (FIRST, WHOLE) if n == COMPARED else (FIRST,)
        policies = [Policy(max_error=e, confidence=c) for e in ERRORS for c in confidences]
        for policy, outcome in outcomes(folds, n, count, policies, "binary"):
            verdicts.judge(f"{name}, n = {n:,}", policy, outcome)
            told = outcome.cells()
            own = cells.setdefault((policy.max_error, n), [f"{100 * policy.max_error:g}%", f"{n:,}"])
            own += told if policy.confidence == FIRST else told[1:]
    for e in ERRORS:
        best = f"{100 * np.mean([fold.hindsight(e) for fold in folds]):.1f}"
        for n in SIZES:
            own = cells[e, n]
            yield [*own, *["-"] * (7 - len(own)), best]


def signed_rows(folds: Sequence[Fold], count: int, verdicts: Verdicts) -> Iterator[list[str]]:
    """The rows of the recorded model."""
    best = f"{100 * np.mean([fold.hindsight(SIGNED_ERROR) for fold in folds]):.1f}"
    policy = Policy(max_error=SIGNED_ERROR, confidence=FIRST)
    for n in SIGNED_SIZES:
        for _, outcome in outcomes(folds, n, count, [policy], "signed"):
            verdicts.judge(f"signed, n = {n:,}", policy, outcome)
            yield [f"{100 * SIGNED_ERROR:g}%", f"{n:,}", *outcome.cells(), best]


def main() -> None:
    parser = argparse.ArgumentParser(description="Broken promises and coverage on real data, as markdown tables.")
    parser.add_argument("--draws", type=int, default=200, help="calibration sets per fold and cell (default 200)")
    parser.add_argument("--folds", type=int, default=3, help="fits per data set (default 3)")
    arguments = parser.parse_args()
    total = arguments.draws * arguments.folds
    print(f"`{common.command_line()}`\n({common.machine('suffice', 'numpy', 'scipy')})\n")
    print(
        f"{total:,} draws per cell ({arguments.folds} folds of {arguments.draws}). Broken may be 2.5% (5% in the "
        f"columns of δ = 5%); with three standard errors {100 * allowed(0.025, total):.1f}% "
        f"({100 * allowed(0.05, total):.1f}%). Coverage: mean (10% / 50% / 90% quantile of the draws).\n",
        flush=True,
    )
    verdicts = Verdicts()
    outcome_columns = ["certified", "broken", "coverage"]
    head = ["max error", "n", *outcome_columns, "broken, δ = 5%", "coverage, δ = 5%", "in hindsight"]
    recorded: list[Fold] = []
    for name in ("BANKING77", "SNIPS", "MetaTool"):
        folds = []
        for seed in range(arguments.folds):
            fold, signed, told = fit(name, seed)
            folds.append(fold)
            recorded += [signed] if signed is not None else []
            print(f"- {told}", flush=True)
        print("\n" + common.table(head, list(rows_of(name, folds, arguments.draws, verdicts))) + "\n", flush=True)
    print(f"BANKING77, no worse than the recorded answers of {MODEL} (signed loss)\n")
    head = ["max error", "n", *outcome_columns, "in hindsight"]
    print(common.table(head, list(signed_rows(recorded, arguments.draws, verdicts))) + "\n")
    above = "; ".join(verdicts.above) or "none"
    print(f"Cells in which it was broken more often than δ and three standard errors, of {verdicts.count}: {above}.")


if __name__ == "__main__":
    main()
