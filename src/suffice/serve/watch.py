"""The watch of one task, as a state that requests and labels move on. Pure: who reads and writes is the keeper.

The mathematics is `proof.monitor`'s. Here is what it is applied to: which limit a certificate of each kind is watched
by, which steps there are, what an audit's label is, when more audits are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal

import msgspec
import numpy as np

from suffice.core import grading
from suffice.core.types import LossName, Policy, Reason, Reference, Release
from suffice.core.values import canonical, decode
from suffice.proof import monitor
from suffice.proof.bounds import attempt_delta, clopper_pearson, mean_upper
from suffice.proof.monitor import Audits, Limit, Shift, Triple, Wealth
from suffice.serve.verifying import Grade, by_value, watched
from suffice.store.watches import Due, Judged, Step, Watch
from suffice.wire import dialects

BASELINE = 300
"""Labels by which the usual disagreement is measured where the test split could not tell it."""
MISSING = 0.05
FEWEST_DUE = 20
"""More than this share of at least so many audits missing is worth a word."""

By = Literal["frontier", "disagreement", "trusted"]


class Probed(msgspec.Struct, frozen=True, kw_only=True):
    """The frontier asked again what it had answered before: about which records, and how many answers differed."""

    records: tuple[str, ...]
    asked: int
    differing: int
    failure: str | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that a watch is. JSON in the store; workers read `audits` and `stakes` out of it.

    `by`: what an audit's loss is judged by: `frontier` (agreement), `disagreement` (the certificate is about trusted
    answers, or a model judged; audits show only that the frontier says something else), `trusted`: answers of the
    certificate's own `reference` then. `loss` is the certificate's too, whatever the policy says by now
    (`verifying.watched`). `limit` is None while the usual disagreement is being measured. `audits` is the plan in
    force, `plain` the one without a boost. `answered` audits have the frontier's answer or a label, `settled` ones
    their loss; `peak` is the most evidence there ever was: a keeper that dies right then must not forget it. After an
    alarm: `was` is the stage it took the task from, `place` the newest record then, `tries` the attempts to certify
    again, `again` the release that came of them (0: none).
    """

    by: By
    loss: LossName = "exact"
    reference: Reference = "frontier"
    max_error: float
    delta: float
    limit: Limit | None
    wealth: Wealth
    stakes: Triple
    audits: Audits
    plain: Audits
    boosted: Audits
    boost_left: int
    shift: Shift
    steps: int = 0
    accepted: int = 0
    audited: int = 0
    answered: int = 0
    settled: int = 0
    differing: int = 0
    missing: int = 0
    told_missing: bool = False
    probed: Probed | None = None
    peak: float = 0.0
    was: str = ""
    place: int = 0
    tries: int = 0
    again: int = 0

    @property
    def is_measured(self) -> bool:
        """Whether labels enough are there to tell the usual disagreement, and it has not been told yet."""
        return self.limit is None and self.settled >= BASELINE

    @property
    def is_boosted(self) -> bool:
        """Whether more audits than usual are drawn."""
        return self.audits != self.plain

    @property
    def alarmed(self) -> bool:
        """Whether the promise must be taken back."""
        return self.limit is not None and self.peak >= -math.log(self.limit.delta)

    @property
    def is_shifted(self) -> bool:
        """Whether the share of escalated requests is not what it was, boosted or not."""
        return monitor.shifted(self.shift)

    @property
    def too_many_missing(self) -> bool:
        """Whether more than 5% of the audits that are due have no answer."""
        due = self.answered + self.missing
        return due >= FEWEST_DUE and self.missing > MISSING * due


def state_of(found: Watch) -> State:
    """The state that is kept with a watch."""
    return msgspec.json.decode(found.state, type=State)


def text_of(state: State) -> str:
    """A state as it is kept."""
    return msgspec.json.encode(state).decode()


class Published(msgspec.Struct, frozen=True):
    """What a worker reads of a state."""

    audits: Audits
    stakes: Triple


def opened(release: Release, confidences: Sequence[float], policy: Policy, number: int) -> State:
    """The state of the task's `number`-th watch, over this release.

    `confidences` are tune's scores of answers that might be accepted.
    """
    certificate = release.draft.threshold.certificate
    scores = np.asarray(confidences, dtype=np.float64)
    accepted = scores[scores >= release.draft.threshold.score]
    plain = monitor.audits(accepted, policy.audit)
    boosted = monitor.audits(accepted, max(policy.boost, policy.audit))
    delta = attempt_delta(policy.monitor_delta, number)
    by: By = "frontier"
    limit: Limit | None = Limit(eps=certificate.max_error, delta=delta)
    if grading.judge_of(certificate.loss) is not None:
        by, limit = "disagreement", None
    elif certificate.promise != "agreement" and policy.audit_reference == "trusted":
        by = "trusted"
        if certificate.promise == "signed":
            limit = Limit(eps=certificate.max_error, delta=delta, signed=True, least_q=plain.least)
    elif certificate.promise != "agreement":
        by = "disagreement"
        eps = usual(release, policy, delta)
        limit = Limit(eps=eps, delta=delta / 2) if eps is not None else None
    wealth = monitor.start(limit or Limit(eps=certificate.max_error, delta=delta))
    escalated = 1 - (release.report.coverage.value or 0.0)
    return State(
        by=by,
        loss=watched(certificate.loss),
        reference=certificate.reference,
        max_error=certificate.max_error,
        delta=delta,
        limit=limit,
        wealth=wealth,
        stakes=(0.0, 0.0, 0.0),
        audits=plain,
        plain=plain,
        boosted=boosted,
        boost_left=policy.boost_budget if policy.boost > policy.audit else 0,
        shift=Shift(expected=escalated, level=escalated, steps=0),
    )


def usual(release: Release, policy: Policy, delta: float | None = None) -> float | None:
    """The share of all requests that may be accepted and differ from the frontier without giving an alarm.

    ε where the promise is about agreement; else at least what the test split showed, at its upper bound (one-sided, at
    delta / 2); None where nothing was recorded to differ from, a model judged what differs, or test rows came in
    groups, which may err together: no exact bound is known there. By degrees where the certificate's loss is.
    """
    certificate, seen = release.draft.threshold.certificate, release.report.disagreement
    if grading.judge_of(certificate.loss) is not None:
        return None
    if certificate.promise == "agreement":
        return certificate.max_error
    if seen is None or seen.value is None or "groups" in certificate.method:
        return None
    spent = delta or policy.monitor_delta
    if grading.is_binary(certificate.loss):
        return max(certificate.max_error, clopper_pearson(round(seen.value * seen.n), seen.n, 1 - spent)[1])
    return max(certificate.max_error, mean_upper(seen.value, seen.n, spent / 2))


# ---------------------------------------------------------------------------------------------- requests


def followed(state: State, steps: Sequence[Step]) -> State:
    """The state after these steps, in their order."""
    if not steps:
        return state
    wealth, limit = state.wealth, state.limit
    if limit is not None:
        for (stakes, audited), run in groupby(steps, lambda step: (step.stakes, bool(step.audited))):
            if audited:
                for step in run:
                    wealth = monitor.open_audit(wealth, limit, unstamped(stakes), step.coin or 1.0)
            else:
                wealth = monitor.book(wealth, limit, unstamped(stakes), state.audits.q_err, len(list(run)))
    audited_now = sum(bool(step.audited) for step in steps)
    served = [step.reason in (Reason.ACCEPTED, Reason.CANARY) for step in steps]
    shift = monitor.watch_shift(state.shift, ~np.array(served))
    left = state.boost_left - (audited_now if state.is_boosted else 0)
    state = msgspec.structs.replace(
        state,
        wealth=wealth,
        shift=shift,
        steps=state.steps + len(steps),
        accepted=state.accepted + sum(served),
        audited=state.audited + audited_now,
        boost_left=max(left, 0),
        audits=state.boosted if monitor.shifted(shift) and left > 0 else state.plain,
    )
    return _published(state)


def is_sure(state: State, under_way: int) -> bool:
    """Whether an alarm holds even if so many requests that were admitted before turn out to be without a loss.

    An accepted request is booked at once, one that escalates when the frontier has answered it: until then the fortune
    on the books is too large by what these will take from it.
    """
    if state.limit is None:
        return False
    then = monitor.book(state.wealth, state.limit, state.stakes, state.audits.q_err, under_way)
    return monitor.alarmed(then, state.limit)


def stamp(stakes: Triple) -> str:
    """Stakes as they stand in a record; `unstamped` reads them back, to the last bit."""
    return ",".join(map(repr, stakes))


def unstamped(stakes: str) -> Triple:
    """What `stamp` wrote."""
    first, second, third = map(float, stakes.split(","))
    return first, second, third


# ---------------------------------------------------------------------------------------------- labels


def judged(state: State, due: Due, grade: Grade = by_value) -> Judged | None:
    """What an audited step's label is, by the answers at hand; None if there is nothing new.

    Raises Unverified where a verifier cannot be asked.
    """
    said = decode(due.predicted or "null")
    heard = dialects.heard(due.answer) if due.answer is not None and not due.failed else None
    differs = due.differs
    if differs is None and heard is not None:
        differs = grade(state.loss, said, heard[0], due.record) if heard else 1.0  # all differs from what is none
    if state.by != "trusted":
        return None if differs is None else Judged(record=due.record, differs=differs, loss=differs)
    signed = state.limit is not None and state.limit.signed
    is_trusted = due.kind == state.reference
    found: float | None = None
    if signed and heard and canonical(said) == canonical(heard[0]):
        found = 0.0  # the same answer cannot be better or worse
    elif is_trusted and not signed:
        found = grade(state.loss, said, due.trusted, due.record)
    elif is_trusted and heard is not None:
        found = grade(state.loss, said, due.trusted, due.record)
        found -= grade(state.loss, heard[0], due.trusted, due.record) if heard else 1.0
    if found is None and differs == due.differs:
        return None
    return Judged(record=due.record, differs=differs, loss=found)


def settled(state: State, known: Iterable[tuple[Due, Judged]]) -> State:
    """The state after these labels."""
    for due, label in known:
        if label.differs and due.differs is None:
            state = msgspec.structs.replace(state, differing=state.differing + 1)
        if due.differs is None:
            state = msgspec.structs.replace(state, answered=state.answered + 1)
        if due.missing:
            state = msgspec.structs.replace(state, missing=state.missing - 1)
        if label.loss is None:
            continue
        wealth = state.wealth
        if state.limit is not None:
            wealth = monitor.settle(
                wealth, state.limit, unstamped(due.stakes), due.coin, label.loss, state.audits.q_err
            )
        state = msgspec.structs.replace(state, wealth=wealth, settled=state.settled + 1)
    return _published(state)


def missed(state: State, count: int) -> State:
    """The state after that many audits were given up. What was booked for them stays booked."""
    return msgspec.structs.replace(state, missing=state.missing + count) if count else state


def measured(state: State, losses: Sequence[tuple[float, float]], open_coins: Sequence[float]) -> State:
    """The state with its limit, once labels enough have shown the usual disagreement.

    `losses` are (loss, probability) of the settled steps that are not 0, `open_coins` the probabilities of those that
    wait for their label: these count as differing. The fortune starts then; half of the chance was spent on measuring.
    """
    high = monitor.running_bound(_xs(losses, open_coins), state.steps, state.plain.least, state.delta / 2)
    limit = Limit(eps=max(state.max_error, high), delta=state.delta / 2)
    return _published(msgspec.structs.replace(state, limit=limit, wealth=monitor.start(limit)))


def running_bound(
    state: State, losses: Sequence[tuple[float, float]], open_coins: Sequence[float], confidence: float
) -> float:
    """An upper bound on what the watch sees of all requests so far; arguments as for `measured`."""
    if not state.steps or not state.plain.least:
        return 1.0
    return monitor.running_bound(_xs(losses, open_coins), state.steps, state.plain.least, 1 - confidence)


def told(state: State) -> str:
    """What an alarm says: how sure it is, what it saw, and by which limit."""
    assert state.limit is not None
    more = {
        "frontier": "more requests than promised get an answer that differs from the frontier's",
        "disagreement": "it disagrees with the frontier more than when it was certified",
        "trusted": "by trusted answers it is wrong more often than the frontier by more than promised"
        if state.limit.signed
        else "by trusted answers it is wrong more often than promised",
    }[state.by]
    odds = math.exp(min(state.peak, 50))
    return (
        f"{more} (limit {100 * state.limit.eps:.3g}%): of {state.steps:,} requests {state.audited:,} were audited, "
        f"{state.differing:,} of these differ; a chance of at most 1 in {odds:,.0f} if the limit still held"
    )


def _xs(
    losses: Sequence[tuple[float, float]], open_coins: Sequence[float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([loss / coin for loss, coin in losses] + [1 / coin for coin in open_coins], dtype=np.float64)


def _published(state: State) -> State:
    if state.limit is None:
        return state
    return msgspec.structs.replace(
        state,
        stakes=monitor.stakes(state.wealth, state.limit, state.audits.q_err),
        peak=max(state.peak, monitor.evidence(state.wealth)),
    )
