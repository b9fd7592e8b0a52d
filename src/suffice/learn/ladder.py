"""The search: candidates from the cheapest up, each judged on tune; the winner gets the one certificate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np
from scipy.special import bdtr, logsumexp

from suffice.core.contracts import covers, in_slice, refusal
from suffice.core.losses import loss
from suffice.core.protocols import Family, Fitted, Progress, Specialist
from suffice.core.types import (
    Bools,
    Estimate,
    Example,
    Floats,
    LossKind,
    LossName,
    OutputContract,
    Policy,
    Prediction,
    Recipe,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value, canonical, plain
from suffice.proof import bounds
from suffice.proof.certify import allowed_slices

log = logging.getLogger(__name__)

TIMED = 400
"""Single predictions timed for a latency; the first tenth warms up."""


class Terms(msgspec.Struct, frozen=True):
    """By what answers are judged: the declared kind of loss, the loss, the declared slices, those that always escalate.

    Fixed before calibration is read; the same for tune, calibration, test and whatever is certified later.
    """

    kind: LossKind
    loss: LossName = "exact"
    slices: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()

    @property
    def promised(self) -> tuple[str, ...]:
        """The declared slices that get a promise of their own."""
        return tuple(name for name in self.slices if name not in self.closed)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """A specialist's answers on one split, as arrays of shape (n,), in the order of the examples.

    `said`: the answers in their plain form. `scores`: -inf where the specialist gave none that is a number.
    `acceptable`: all of the accepting rule but the threshold. `losses`: the declared loss were it accepted. `wrong`:
    the answer's own loss, in [0, 1], whatever the frontier's. `correct`: equal to the target. `frontier_wrong`: the
    recorded answer differs from the trusted one (False without both). `recorded`: the frontier's answer is there;
    `differs`: it is, and the specialist's is another. `slices`: which requests are in each declared slice.
    """

    said: tuple[Value, ...]
    scores: Floats
    acceptable: Bools
    losses: Floats
    wrong: Floats
    correct: Bools
    frontier_wrong: Bools
    recorded: Bools
    differs: Bools
    slices: dict[str, Bools] = {}


def answers(specialist: Specialist, contract: OutputContract, examples: Sequence[Example], terms: Terms) -> Answers:
    """Predict and compare. A reference counts where there is one, else the frontier's answer is what is right."""
    return compare(specialist.predict([example.input for example in examples]), contract, examples, terms)


def compare(
    predictions: Sequence[Prediction], contract: OutputContract, examples: Sequence[Example], terms: Terms
) -> Answers:
    """Predictions against examples, as arrays."""
    n = len(examples)
    losses, wrong = np.zeros(n), np.zeros(n)
    frontier, differs = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    for i, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        # A refusal, or an answer that could not be read, is one that nothing a specialist says is equal to.
        wrong[i] = loss(terms.loss, prediction.value, example.target) if example.usable else 1.0
        differs[i] = example.has_output and not (
            example.usable and canonical(prediction.value) == canonical(example.output)
        )
        losses[i] = wrong[i]
        if example.has_reference and example.has_output:
            frontiers = loss(terms.loss, example.output, example.reference)
            frontier[i] = canonical(example.output) != canonical(example.reference)
            if terms.kind == "signed":
                losses[i] -= frontiers
        elif terms.kind == "signed" and not example.has_reference:
            # Who is right is not known: the worst is that the frontier is, and that nothing of this answer is.
            losses[i] = float(differs[i])
    said = tuple(plain(prediction.value) for prediction in predictions)
    refused = [
        refusal(prediction, contract, -np.inf, example.slices, terms.closed)
        for prediction, example in zip(predictions, examples, strict=True)
    ]
    scores = np.array([prediction.score for prediction in predictions], dtype=np.float64)
    return Answers(
        said=said,
        scores=np.where(np.isnan(scores), -np.inf, scores),
        acceptable=np.array([reason is None for reason in refused], dtype=np.bool_),
        losses=losses,
        wrong=wrong,
        correct=np.array(
            [
                example.usable and canonical(value) == canonical(example.target)
                for value, example in zip(said, examples, strict=True)
            ],
            dtype=np.bool_,
        ),
        frontier_wrong=frontier,
        recorded=np.array([example.has_output for example in examples], dtype=np.bool_),
        differs=differs,
        slices={
            name: np.array(
                [in_slice(name, example.slices, value) for example, value in zip(examples, said, strict=True)],
                dtype=np.bool_,
            )
            for name in terms.slices
        },
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate to come: which attempt of the ledger it is, and on how many (full) calibration units."""

    attempt: int
    n_units: int
    grouped: bool = False


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The search's outcome: the winner with its answers on tune (None: no family could be fitted), and the table.

    `terms` are those of the certificate, slices that must escalate included.
    """

    specialist: Fitted | None
    recipe: Recipe | None
    tune: Answers | None
    terms: Terms
    candidates: tuple[Candidate, ...]


def search(
    families: Iterable[Family],
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    *,
    policy: Policy,
    terms: Terms,
    plan: Plan,
    seed: int,
    budget_s: float,
    progress: Progress,
) -> Found:
    """Fit from the cheapest up; stop at the first whose coverage, estimated on tune, reaches `target_coverage`.

    Fitted is on the answers that keep the contract, judged on all of tune. Where none suffices, the best within the
    budget wins. `terms` says nothing yet of slices that are too rare for a promise: which are, tune shows, for each
    specialist (a slice may be made of its answers). A family that cannot answer such a contract, or fails, is a row of
    the table with its reason.
    """
    began = time.monotonic()
    fits = train.where(lambda example: keeps(contract, example))
    judges = tune.where(lambda example: keeps(contract, example))
    table: list[Candidate] = []
    best: tuple[float, Fitted, Recipe, Answers, Terms] | None = None
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
            closed, seen = judged(fitted, contract, tune, terms, policy, plan)
            reached = coverage(seen, closed, policy, plan)
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
                best = (reached, fitted, recipe, seen, closed)
    if best is None:
        return Found(specialist=None, recipe=None, tune=None, terms=terms, candidates=tuple(table))
    _, specialist, recipe, seen, closed = best
    chosen = [msgspec.structs.replace(c, verdict="chosen") if c.recipe == recipe else c for c in table]
    return Found(specialist=specialist, recipe=recipe, tune=seen, terms=closed, candidates=tuple(chosen))


def judged(
    specialist: Specialist,
    contract: OutputContract,
    tune: Sequence[Example],
    terms: Terms,
    policy: Policy,
    plan: Plan,
) -> tuple[Terms, Answers]:
    """A specialist's answers on tune, and the terms with the declared slices closed that are too rare for a promise."""
    predictions = specialist.predict([example.input for example in tune])
    seen = compare(predictions, contract, tune, terms)
    promised = allowed_slices(seen.slices, plan.n_units, policy, plan.attempt, terms.kind, grouped=plan.grouped)
    closed = tuple(name for name in terms.slices if name not in promised)
    if not closed:
        return terms, seen
    terms = msgspec.structs.replace(terms, closed=closed)
    return terms, compare(predictions, contract, tune, terms)


def coverage(seen: Answers, terms: Terms, policy: Policy, plan: Plan) -> float:
    """The share of tune above the laxest threshold that would pass, were calibration just like tune, but of its size.

    To pass, the mean loss of all requests and that of each slice with a promise must be shown to be within its limit.
    """
    n = len(seen.scores)
    if n == 0:
        return 0.0
    surest = np.argsort(-np.where(seen.acceptable, seen.scores, -np.inf), kind="stable")[: int(seen.acceptable.sum())]
    parts = [(np.ones(n, dtype=np.bool_), policy.max_error)]
    parts += [(seen.slices[name], policy.slice_error) for name in terms.promised]
    delta = bounds.attempt_delta(policy.delta, plan.attempt)
    exact = terms.kind == "binary" and not plan.grouped
    passing = np.ones(len(surest), dtype=np.bool_)
    for rows, eps in parts:
        inside = int(rows.sum())
        units = round(plan.n_units * inside / n)
        losses, counted = np.where(rows, seen.losses, 0.0)[surest], rows[surest]
        if units == 0:
            continue
        if exact:
            passing &= bdtr(np.round(np.cumsum(losses) / inside * units), units, eps) <= delta
        else:
            stakes = bounds.STAKES[:, None] / (1 - eps)
            growth = np.cumsum(np.where(counted, np.log1p(stakes * (eps - losses)), 0.0), axis=1)
            growth += (inside - np.cumsum(counted)) * np.log1p(stakes * eps)  # escalated requests lose nothing
            passing &= logsumexp(growth * units / inside, axis=0) - np.log(len(stakes)) >= -np.log(delta)
    laxest = np.flatnonzero(passing)
    return float(laxest[-1] + 1) / n if len(laxest) else 0.0


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
