"""The search: candidates from the cheapest up, each judged on tune; the winner gets the one certificate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np
from scipy.stats import binom

from suffice.core.contracts import covers, refusal
from suffice.core.protocols import Family, Fitted, Progress, Specialist
from suffice.core.types import (
    Bools,
    Estimate,
    Example,
    Floats,
    LossKind,
    OutputContract,
    Policy,
    Prediction,
    Recipe,
    TrainSet,
    TuneSet,
)
from suffice.core.values import canonical, plain
from suffice.proof import bounds

log = logging.getLogger(__name__)

TIMED = 400
"""Single predictions timed for a latency; the first tenth warms up."""


class Answers(msgspec.Struct, frozen=True):
    """A specialist's answers on one split, as arrays of shape (n,), in the order of the examples.

    `acceptable`: all of the accepting rule but the threshold. `losses`: the declared loss were it accepted. `correct`:
    equal to the target. `frontier_wrong`: the recorded answer differs from the trusted one (False without both).
    `recorded`: the frontier's answer is there; `differs`: it is, and the specialist's is another.
    """

    scores: Floats
    acceptable: Bools
    losses: Floats
    correct: Bools
    frontier_wrong: Bools
    recorded: Bools
    differs: Bools


def answers(specialist: Specialist, contract: OutputContract, examples: Sequence[Example], kind: LossKind) -> Answers:
    """Predict and compare. A reference counts where there is one, else the frontier's answer is what is right."""
    return compare(specialist.predict([example.input for example in examples]), contract, examples, kind)


def compare(
    predictions: Sequence[Prediction], contract: OutputContract, examples: Sequence[Example], kind: LossKind
) -> Answers:
    """Predictions against examples, as arrays."""
    n = len(examples)
    right, frontier, differs = (np.zeros(n, dtype=np.bool_) for _ in range(3))
    for i, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        said = canonical(prediction.value)
        right[i] = example.usable and said == canonical(example.target)
        # A refusal, or an answer that could not be read, is one that nothing a specialist says is equal to.
        differs[i] = example.has_output and not (example.usable and said == canonical(example.output))
        if example.has_reference and example.has_output:
            frontier[i] = canonical(example.output) != canonical(example.reference)
    losses = (~right).astype(np.float64)
    if kind == "signed":
        # Where both are wrong in their own way nothing is lost; unlabelled rows have no frontier error to set against.
        losses -= frontier
    refused = [refusal(prediction, contract, -np.inf) for prediction in predictions]
    return Answers(
        scores=np.array([prediction.score for prediction in predictions], dtype=np.float64),
        acceptable=np.array([reason is None for reason in refused], dtype=np.bool_),
        losses=losses,
        correct=right,
        frontier_wrong=frontier,
        recorded=np.array([example.has_output for example in examples], dtype=np.bool_),
        differs=differs,
    )


def keeps(contract: OutputContract, example: Example) -> bool:
    """Whether an example's target is an answer that the contract allows: only such can be learned from."""
    return covers(contract, plain(example.target))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe tried: what tune shows of it. `coverage` is what a certificate of the planned size may reach."""

    recipe: Recipe
    accuracy: Estimate | None
    coverage: Estimate | None
    fit_s: float
    p50_ms: float
    p99_ms: float
    verdict: Literal["chosen", "sufficient", "too little coverage", "too slow", "not tried", "failed"]
    reason: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The search's outcome: the winner with its answers on tune (None: no family could be fitted), and the table."""

    specialist: Fitted | None
    recipe: Recipe | None
    tune: Answers | None
    candidates: tuple[Candidate, ...]


def search(
    families: Iterable[Family],
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    *,
    policy: Policy,
    kind: LossKind,
    delta: float,
    n_units: int,
    seed: int,
    budget_s: float,
    progress: Progress,
) -> Found:
    """Fit from the cheapest up; stop at the first whose coverage, estimated on tune, reaches `target_coverage`.

    Fitted is on the answers that keep the contract, judged on all of tune. Where none suffices, the best within the
    budget wins. `delta` and `n_units` are those of the certificate to come. A family that cannot answer such a
    contract, or fails, is a row of the table with its reason.
    """
    began = time.monotonic()
    fits = train.where(lambda example: keeps(contract, example))
    judges = tune.where(lambda example: keeps(contract, example))
    table: list[Candidate] = []
    best: tuple[float, Fitted, Recipe, Answers] | None = None
    enough = False
    for family in families:
        reason = family.supports(contract)
        for recipe in family.recipes(seed):
            row = Candidate(
                recipe=recipe, accuracy=None, coverage=None, fit_s=0.0, p50_ms=0.0, p99_ms=0.0, verdict="not tried"
            )
            if reason is not None or enough or (best is not None and time.monotonic() - began > budget_s):
                why = reason or ("a smaller one suffices" if enough else "the budget is spent")
                table.append(msgspec.structs.replace(row, reason=why))
                continue
            start = time.monotonic()
            try:
                fitted = family.fit(recipe, contract, fits, judges, progress)
            except Exception as error:  # a recipe that fails must not take the others with it
                log.debug("recipe %s failed", recipe.name, exc_info=True)
                table.append(msgspec.structs.replace(row, verdict="failed", reason=f"{type(error).__name__}: {error}"))
                continue
            fit_s = time.monotonic() - start
            p50_ms, p99_ms = latency(fitted, [example.input for example in tune], time.perf_counter)
            seen = answers(fitted, contract, tune, kind)
            reached = coverage(seen, policy.max_error, delta, kind, n_units)
            slow = p99_ms > policy.max_latency_ms
            enough = reached >= policy.target_coverage and not slow
            table.append(
                msgspec.structs.replace(
                    row,
                    accuracy=bounds.share(seen.correct),
                    coverage=_estimate(reached, len(tune)),
                    fit_s=fit_s,
                    p50_ms=p50_ms,
                    p99_ms=p99_ms,
                    verdict="too slow" if slow else "sufficient" if enough else "too little coverage",
                )
            )
            if not slow and (best is None or reached > best[0]):
                best = (reached, fitted, recipe, seen)
    if best is None:
        return Found(specialist=None, recipe=None, tune=None, candidates=tuple(table))
    _, specialist, recipe, seen = best
    chosen = [msgspec.structs.replace(c, verdict="chosen") if c.recipe == recipe else c for c in table]
    return Found(specialist=specialist, recipe=recipe, tune=seen, candidates=tuple(chosen))


def coverage(seen: Answers, max_error: float, delta: float, kind: LossKind, n_units: int) -> float:
    """The share of tune above the laxest threshold that would pass, were calibration `n_units` rows just like tune."""
    n = len(seen.scores)
    if n == 0:
        return 0.0
    order = np.argsort(-np.where(seen.acceptable, seen.scores, -np.inf), kind="stable")
    usable = int(seen.acceptable.sum())
    losses = np.cumsum(seen.losses[order][:usable]) / n
    units = n_units if kind == "binary" else n_units // 2  # the betting test needs about twice the rows
    passing = np.flatnonzero(binom.cdf(np.round(np.maximum(losses, 0.0) * units), units, max_error) <= delta)
    return float(passing[-1] + 1) / n if len(passing) else 0.0


def latency(specialist: Specialist, inputs: Sequence[str], clock: Callable[[], float]) -> tuple[float, float]:
    """p50 and p99, in milliseconds, of single predictions, one after another on this machine as it is."""
    texts = [inputs[i % len(inputs)] for i in range(TIMED + TIMED // 10)] if inputs else []
    taken = []
    for text in texts:
        start = clock()
        specialist.predict([text])
        taken.append((clock() - start) * 1e3)
    if not taken:
        return 0.0, 0.0
    p50, p99 = np.percentile(taken[TIMED // 10 :], [50, 99])
    return float(p50), float(p99)


def _estimate(value: float, n: int) -> Estimate:
    low, high = bounds.clopper_pearson(round(value * n), n)
    return Estimate(value=value, low=low, high=high, n=n)
