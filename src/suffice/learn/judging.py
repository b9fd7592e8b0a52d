"""What a specialist's answers are worth: compared with what is right, and the coverage that tune lets one expect."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
from msgspec.structs import replace
from scipy.special import bdtr, logsumexp

from suffice.core import grading
from suffice.core.contracts import beyond, covers, in_slice, refusal
from suffice.core.losses import Graders, loss, to_ask
from suffice.core.protocols import Family, Judging, Progress, Specialist
from suffice.core.types import (
    Bools,
    Example,
    Floats,
    LossKind,
    LossName,
    OutputContract,
    Policy,
    Prediction,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value, canonical, plain
from suffice.proof import bounds
from suffice.proof.certify import allowed_slices

BATCH = 512
"""Inputs predicted at once: what a batch takes in memory does not grow with the data."""


class Terms(msgspec.Struct, frozen=True):
    """By what answers are judged: the declared kind of loss, the loss, the declared slices, those that always escalate.

    `graders`: verifiers that need more than the two answers, by the parts of the loss that they are. Fixed before
    calibration is read; the same for tune, calibration, test and whatever is certified later.
    """

    kind: LossKind
    loss: LossName = "exact"
    slices: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    graders: Graders = {}

    @property
    def promised(self) -> tuple[str, ...]:
        """The declared slices that get a promise of their own."""
        return tuple(name for name in self.slices if name not in self.closed)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """A specialist's answers on one split, as arrays of shape (n,), in the order of the examples.

    `said`: the answers in their plain form. `scores`: -inf where the specialist gave none that is a number.
    `acceptable`: all of the accepting rule but the threshold. `losses`: the declared loss were it accepted. `wrong`:
    the answer's own loss, in [0, 1], whatever the frontier's. `correct`: right by a loss that knows right and
    wrong, else equal to the target. `frontier_wrong`: likewise of the recorded answer, by the trusted one (False
    without both). `recorded`: the frontier's answer is there;
    `differs`: it is, and the specialist's is another; `unlike`: by how much, in [0, 1], by the declared loss (a model
    that judges is not asked that: wholly). `slices`: which requests are in each declared slice.
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
    unlike: Floats | None = None


def answers(specialist: Specialist, contract: OutputContract, examples: Sequence[Example], terms: Terms) -> Answers:
    """Predict and compare. A reference counts where there is one, else the frontier's answer is what is right."""
    return compare(predicted(specialist, examples), contract, examples, terms)


def predicted(
    specialist: Specialist, examples: Sequence[Example], progress: Progress = lambda *_: None
) -> list[Prediction]:
    """Predictions for examples, in order; `progress` is called between batches and may end it by raising."""
    found: list[Prediction] = []
    for start in range(0, len(examples), BATCH):
        progress("judging on tune", start / len(examples))
        found += specialist.predict([example.input for example in examples[start : start + BATCH]])
    return found


def compare(
    predictions: Sequence[Prediction], contract: OutputContract, examples: Sequence[Example], terms: Terms
) -> Answers:
    """Predictions against examples, as arrays."""
    n = len(examples)
    losses, wrong, unlike = np.zeros(n), np.zeros(n), np.zeros(n)
    prepare(predictions, examples, terms)
    cost = partial(loss, terms.loss, graders=terms.graders)
    binary = grading.is_binary(terms.loss)
    frontier, differs = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    for i, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        # A refusal, or an answer that could not be read, is one that nothing a specialist says is equal to.
        wrong[i] = cost(prediction.value, example.target, example.input) if example.usable else 1.0
        differs[i] = example.has_output and not (
            example.usable and canonical(prediction.value) == canonical(example.output)
        )
        if example.has_output:
            unlike[i] = _unlike(prediction.value, example, terms, wrong[i], differs[i])
        losses[i] = wrong[i]
        if example.has_reference and example.has_output:
            frontier[i] = canonical(example.output) != canonical(example.reference)
            if terms.kind == "signed":
                frontiers = cost(example.output, example.reference, example.input)
                losses[i] -= frontiers
                frontier[i] = frontiers > 0 if binary else frontier[i]
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
        correct=wrong == 0
        if binary
        else np.array(
            [
                example.usable and canonical(value) == canonical(example.target)
                for value, example in zip(said, examples, strict=True)
            ],
            dtype=np.bool_,
        ),
        frontier_wrong=frontier,
        recorded=np.array([example.has_output for example in examples], dtype=np.bool_),
        differs=differs,
        unlike=unlike,
        slices={
            name: np.array(
                [in_slice(name, example.slices, value) for example, value in zip(examples, said, strict=True)],
                dtype=np.bool_,
            )
            for name in terms.slices
        },
    )


def prepare(predictions: Sequence[Prediction], examples: Sequence[Example], terms: Terms) -> None:
    """Tell the verifiers that were handed in what they will be asked: what takes long is done for all at once."""
    cases = [(e.input, p.value, e.target) for p, e in zip(predictions, examples, strict=True) if e.usable]
    for grader in terms.graders.values():
        grader.prepare([case for case in cases if to_ask(terms.loss, case[1], case[2])])


def _unlike(said: Value, example: Example, terms: Terms, wrong: float, differs: bool) -> float:
    """How far an answer is from the frontier's recorded one, by the declared loss."""
    if not example.usable or grading.judge_of(terms.loss) is not None:
        return float(differs)
    if not example.has_reference:
        return wrong
    return loss(terms.loss, said, example.output, example.input, terms.graders)


def by_loss(family: Family, terms: Terms, policy: Policy) -> Family:
    """The family as it learns for these terms: what counts as right is what they declare, where that is not equality.

    By a graded loss an answer is right that costs no more than the least sure ones may.
    """
    if not declares(terms, policy) or not isinstance(family, Judging):
        return family

    def right(cases: Sequence[tuple[str, Value, Value]]) -> list[bool]:
        for grader in terms.graders.values():
            grader.prepare([case for case in cases if to_ask(terms.loss, case[1], case[2])])
        return [
            loss(terms.loss, said, wanted, input, terms.graders) <= _most(terms, policy)
            for input, said, wanted in cases
        ]

    return family.judged_by(right)


def declares(terms: Terms, policy: Policy) -> str:
    """What counts as right by these terms, as a text; "" where answers have to be equal."""
    return "" if terms.loss in (grading.EXACT, grading.F1) else f"{terms.loss} {_most(terms, policy):g}"


def _most(terms: Terms, policy: Policy) -> float:
    return 0.5 if grading.is_binary(terms.loss) else policy.tail_error


def keeps(contract: OutputContract, example: Example) -> bool:
    """Whether an example's target is an answer that the contract allows: only such can be learned from."""
    return covers(contract, plain(example.target))


def taught(contract: OutputContract, train: TrainSet, tune: TuneSet) -> tuple[OutputContract, TrainSet, TuneSet]:
    """What is fitted, and on which rows: those whose answer is of the contract.

    Where tools are to be called and some requests were answered otherwise (in words, by several calls), these rows
    teach "no call". A specialist that says so is outside of the certified contract, and the request escalates.
    """
    kept = [[e for e in rows if keeps(contract, e) or _beyond(contract, e)] for rows in (train, tune)]
    if isinstance(contract, ToolCall) and any(_beyond(contract, example) for example in kept[0]):
        none: Value = {"tool_calls": []}
        kept = [[replace(e, output=none, reference=none) if _beyond(contract, e) else e for e in rows] for rows in kept]
        contract = replace(contract, none_allowed=True)
    return contract, TrainSet(kept[0]), TuneSet(kept[1])


def _beyond(contract: OutputContract, example: Example) -> bool:
    return example.usable and beyond(contract, plain(example.target))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The certificate to come: which attempt of the ledger it is, and on how many (full) calibration units."""

    attempt: int
    n_units: int
    grouped: bool = False


def judged(
    specialist: Specialist,
    contract: OutputContract,
    tune: Sequence[Example],
    terms: Terms,
    policy: Policy,
    plan: Plan,
    progress: Progress = lambda *_: None,
) -> tuple[Terms, Answers]:
    """A specialist's answers on tune, and the terms with the declared slices closed that are too rare for a promise."""
    predictions = predicted(specialist, tune, progress)
    seen = compare(predictions, contract, tune, terms)
    promised = allowed_slices(seen.slices, plan.n_units, policy, plan.attempt, terms.kind, grouped=plan.grouped)
    closed = tuple(name for name in terms.slices if name not in promised)
    if not closed:
        return terms, seen
    terms = msgspec.structs.replace(terms, closed=closed)
    return terms, compare(predictions, contract, tune, terms)


def accepted(seen: Answers, terms: Terms, policy: Policy, plan: Plan) -> Bools:
    """Which answers, (n,), are above the laxest threshold that would pass, were calibration like tune, but of its size.

    To pass, the mean loss of all requests and that of each slice with a promise must be shown to be within its limit.
    """
    n = len(seen.scores)
    above = np.zeros(n, dtype=np.bool_)
    surest = np.argsort(-np.where(seen.acceptable, seen.scores, -np.inf), kind="stable")[: int(seen.acceptable.sum())]
    parts = [(np.ones(n, dtype=np.bool_), policy.max_error)]
    parts += [(seen.slices[name], policy.slice_error) for name in terms.promised]
    delta = bounds.attempt_delta(policy.delta, plan.attempt)
    exact = terms.kind == "binary" and not plan.grouped
    passing = np.ones(len(surest), dtype=np.bool_)
    for rows, eps in parts:
        inside = int(rows.sum())
        units = round(plan.n_units * inside / max(n, 1))
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
    if len(laxest):
        above[surest[: laxest[-1] + 1]] = True
    return above
