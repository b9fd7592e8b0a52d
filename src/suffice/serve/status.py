"""Where a task stands, in one document: its stage and what the next one needs, its watch, what to label, what happened.

For `suffice show` and whoever else wants to look. Reads only; the keeper need not be running.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
import numpy as np

from suffice.core.grading import EXACT
from suffice.core.types import Policy, Stage
from suffice.core.values import Value, canonical, decode
from suffice.proof import monitor
from suffice.serve import evidence, watch
from suffice.serve.rollout import stage_needs, tail_is_promised
from suffice.serve.verifying import Verifiers, by_value
from suffice.serve.watch import State, state_of
from suffice.store import records, releases, watches
from suffice.store.home import Home
from suffice.store.releases import Stored
from suffice.wire import dialects

NEXT = {Stage.OBSERVE: Stage.SHADOW, Stage.SHADOW: Stage.CANARY, Stage.CANARY: Stage.LIVE}


def status(
    home: Home, task: str, policy: Policy, label: int = 10, verifiers: Verifiers | None = None
) -> dict[str, Any]:
    """The document of a task; up to `label` disagreements are listed. `verifiers` judge what the next stage needs."""
    now = releases.all_tasks(home)[task]
    stored = releases.get_release(home, task, now.release) if now.release is not None else None
    last = watches.last_watch(home, task)
    state = state_of(last) if last is not None else None
    document: dict[str, Any] = {
        "stage": now.stage,
        "next": _next(home, stored, policy, now.stage, state, verifiers),
        "certificate_age_s": _age(stored),
        "watch": _watch(home, last, state, policy) if last is not None and state is not None else None,
        "tail": _tail(home, stored) if stored is not None else None,
        "worth_labelling": disagreements(home, stored, policy, label) if stored is not None else [],
        "events": [msgspec.to_builtins(event) for event in releases.events(home, task, 10)],
    }
    return document


def _next(
    home: Home, stored: Stored | None, policy: Policy, stage: Stage, state: State | None, verifiers: Verifiers | None
) -> dict[str, Any] | None:
    """The next stage, what it still needs, and whether it is entered by itself."""
    if stage not in NEXT or stored is None:
        return None
    grade = verifiers.grade(stored) if verifiers is not None else by_value
    needs = stage_needs(home, stored, policy, stage, state, grade)
    return {"stage": NEXT[stage], "needs": needs, "by_itself": policy.promote == "auto"}


def _age(stored: Stored | None) -> float | None:
    return time.time() - stored.release.draft.threshold.certificate.at if stored is not None else None


def _watch(home: Home, last: watches.Watch, state: State, policy: Policy) -> dict[str, Any]:
    """The newest watch in numbers: how far it is from an alarm, and an upper bound on what it sees."""
    outcomes = watches.outcomes(home, last.task, last.n)
    return {
        "n": last.n,
        "release": f"{last.task}@{last.release}",
        "opened_at": last.opened_at,
        "closed_at": last.closed_at,
        "outcome": last.outcome,
        "judged_by": state.by,
        "limit": state.limit.eps if state.limit is not None else None,
        "delta": state.delta,
        "requests": state.steps,
        "accepted": state.accepted,
        "audited": state.audited,
        "settled": state.settled,
        "differing": state.differing,
        "missing": state.missing,
        "evidence": monitor.evidence(state.wealth),
        "alarm_at": -float(np.log(state.limit.delta)) if state.limit is not None else None,
        "escalated_expected": state.shift.expected,
        "escalated_now": state.shift.level,
        "boosted": state.is_boosted,
        "running_bound": watch.running_bound(state, *outcomes, policy.confidence),
        "attempts_after_alarm": state.tries,
    }


def _tail(home: Home, stored: Stored) -> dict[str, Any]:
    """What is known of the tail by now: the gate's word, and the looks since."""
    every = watches.tails(home, stored.task)
    looks = [(labels, promised) for n, labels, promised in every if n == stored.n]
    return {
        "promised": tail_is_promised(stored, every),
        "max_tail_error": stored.release.tail.max_tail_error,
        "looks": [{"labels": labels, "promised": promised} for labels, promised in looks],
        "next_look_at": evidence.TAIL_LABELS << len(looks),
    }


def disagreements(home: Home, stored: Stored, policy: Policy, limit: int) -> list[dict[str, Any]]:
    """Requests on which specialist and frontier differ and nobody has said who is right; the surest first.

    The surest help most: the walk towards a lower threshold meets them first, and each counts as a loss until someone
    says who was right. The two answers stand in an order that does not tell whose they are.
    """
    seen = watches.seen(home, stored.name, [Stage.SHADOW, Stage.CANARY, Stage.REVOKED], limit=evidence.MOST)
    terms = msgspec.structs.replace(evidence.terms_of(stored.release), loss=EXACT)  # only whether they differ
    rows = evidence.rows(seen, terms)
    found = [
        (row.score, row.record, row.predicted, row.answer)
        for row, differs, acceptable in zip(seen, rows.differs, rows.acceptable, strict=True)
        if differs and acceptable and not row.is_trusted
    ]
    found += [
        (score, record, predicted, answer)
        for record, score, predicted, answer in watches.differing_audits(home, stored.name)
    ]
    first = sorted(found, reverse=True)[:limit]
    inputs = {row.id: row.input for row, _ in records.query(home, ids=[record for _, record, _, _ in first])}
    return [
        {"record": record, "score": score, "input": inputs.get(record), "answers": _either(predicted, answer)}
        for score, record, predicted, answer in first
    ]


def _either(predicted: str, answer: bytes) -> list[Value]:
    """Both answers, in an order of their own; only the specialist's where the frontier's cannot be an answer."""
    said: Value = decode(predicted)
    return sorted((said, *dialects.heard(answer)), key=canonical)
