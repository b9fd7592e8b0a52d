"""The way to live by evidence: looks at the tail, one stage after another, learning where records enough have gathered.

What a stage needs is `evidence`'s to say; here is what is read for it, and what is done when it is there. People may
go ahead of all this, and are never gone against.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from suffice.core import grading
from suffice.core.losses import Unverified
from suffice.core.types import Floats, Policy, Stage
from suffice.proof import bounds
from suffice.proof.bounds import Ints
from suffice.proof.certify import seed_of
from suffice.serve import evidence, watch
from suffice.serve.alerts import Teller
from suffice.serve.learning import Learning
from suffice.serve.recovery import alarmed, frontier_changed
from suffice.serve.verifying import Grade, Verifiers, by_value
from suffice.serve.watch import State, state_of
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Stored, Task

LEARN_AGAIN = 1.5
"""By how much the labelled records must have grown before learning is tried again."""


def stage_needs(
    home: Home, stored: Stored, policy: Policy, stage: Stage, state: State | None, grade: Grade = by_value
) -> list[str]:
    """What a release in this stage still needs for the next one, each in one sentence; `state` of its open watch."""
    try:
        return _stage_needs(home, stored, policy, stage, state, grade)
    except Unverified as error:
        return [f"its answers judged, which cannot be done here: {error}"]


def _stage_needs(
    home: Home, stored: Stored, policy: Policy, stage: Stage, state: State | None, grade: Grade
) -> list[str]:
    if stage is Stage.SHADOW:
        usual = watch.usual(stored.release, policy)
        seen = watches.seen(home, stored.name, [Stage.SHADOW], limit=evidence.MOST)
        rows = evidence.rows(seen, evidence.terms_of(stored.release), grade=grade)
        return evidence.shadow_needs(rows, stored.release, policy, usual)
    if stage is Stage.CANARY:
        promised = tail_is_promised(stored, watches.tails(home, stored.task))
        labels = 0 if promised else len(tail_labels(home, stored, grade)[0])
        return evidence.canary_needs(state, promised, labels)
    return []


def tail_labels(home: Home, stored: Stored, grade: Grade = by_value) -> tuple[Floats, Ints]:
    """What is known of the answers just above the threshold, oldest first: their losses, and which belong together.

    Nothing, where a model judged: what a person would say of live answers is not known. Raises Unverified.
    """
    if grading.judge_of(stored.release.draft.threshold.certificate.loss) is not None:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    stages, band = (Stage.SHADOW, Stage.CANARY), evidence.band_of(stored.release)
    seen = watches.seen(home, stored.name, stages, limit=evidence.MOST, scores=band)
    rows = evidence.rows(seen, evidence.terms_of(stored.release), grade=grade)
    inside = evidence.in_band(rows, stored.release)
    return rows.losses[inside], rows.units[inside]


def tail_is_promised(stored: Stored, looks: Sequence[tuple[int, int, bool]]) -> bool:
    """Whether the gate or a look since has shown a release's tail; `looks` are the task's (`watches.tails`)."""
    return stored.release.tail.promised or any(n == stored.n and promised for n, _, promised in looks)


class Rollout:
    """Stages and learning runs that come by themselves. All but the runs that broke off is in the store."""

    def __init__(self, home: Home, teller: Teller, learning: Learning, verifiers: Verifiers) -> None:
        self._home, self._teller, self._learning, self._verifiers = home, teller, learning, verifiers
        self._tried: dict[tuple[str, float | None], int] = {}

    def look_at_tail(self, stored: Stored, policy: Policy) -> None:
        """Look at the tail when labels enough are there: 200 in the band, then 400, 800, each look its own delta."""
        looks = watches.tails(self._home, stored.task)
        if tail_is_promised(stored, looks):
            return
        try:
            losses, units = tail_labels(self._home, stored, self._verifiers.grade(stored))
        except Unverified:
            return  # the watch has said so
        size = evidence.tail_look(len(losses), sum(n == stored.n for n, _, _ in looks))
        if size is None:
            return
        attempt, losses, units = len(looks) + 1, losses[:size], units[:size]
        delta = bounds.attempt_delta(policy.delta, attempt)
        promised = evidence.tail_promised(
            losses, units, policy, evidence.terms_of(stored.release).kind, delta, seed_of(stored.digest)
        )
        what = (
            f"{stored.name}: tail error of at most {100 * policy.tail_error:.3g}% "
            f"{'promised' if promised else 'not shown yet'}, on {size} labels in the band"
        )
        watches.look_at_tail(self._home, stored.task, attempt, stored.n, delta, losses.tolist(), promised, what)
        self._teller.say(stored.task, "tail", what)

    def look(self, task: Task, stored: Stored | None, policy: Policy, state: State | None, known: int) -> None:
        """Move a task on that has what the next stage needs; learn one that has records enough.

        `state` is that of its open watch, `known` the newest event before the task was read.
        """
        newest = releases.get_release(self._home, task.name)
        if task.stage is Stage.SHADOW and stored is not None:
            if not stage_needs(self._home, stored, policy, task.stage, None, self._verifiers.grade(stored)):
                self._step(task, stored, Stage.CANARY, "live traffic is like the certificate's", known)
        elif task.stage is Stage.CANARY and stored is not None:
            grade = self._verifiers.grade(stored)
            if state is not None and not stage_needs(self._home, stored, policy, task.stage, state, grade):
                self._step(task, stored, Stage.LIVE, "the canary gave no alarm and the tail is proven", known)
        elif newest is not None and self._is_new(task, newest):
            self._step(task, newest, Stage.SHADOW, "it passed the gate", known)
        elif task.stage in (Stage.OBSERVE, Stage.REVOKED):
            self._schedule(task, policy)

    def _step(self, task: Task, stored: Stored, stage: Stage, why: str, known: int) -> None:
        self._teller.move(task, stored, stage, "stage", f"{stored.name} put {stage}: {why}", known)

    def _is_new(self, task: Task, newest: Stored) -> bool:
        """Whether the newest release waits for its shadow: learned in a task that nobody has put where it is, or since
        its alarm (and not that recovery's, which waits for a person)."""
        if task.stage is Stage.OBSERVE:
            return releases.last_of(self._home, task.name, "task", "stage") == "task"
        last = alarmed(self._home, task)
        if task.stage is not Stage.REVOKED or last is None or newest.n in (last.release, state_of(last).again):
            return False
        return releases.last_of(self._home, task.name, "release", "alarm") == "release"

    # ------------------------------------------------------------------------------------------ learning

    def _schedule(self, task: Task, policy: Policy) -> None:
        """Start a learning run where records enough have gathered since the last one."""
        if self._learning.busy or (task.stage is Stage.OBSERVE and task.release is not None):
            return
        since = None
        if task.stage is Stage.REVOKED:
            last = alarmed(self._home, task)
            if last is None or state_of(last).tries < evidence.ATTEMPTS or state_of(last).again:
                return
            since = last.closed_at
        there = watches.count_labelled(self._home, task.name, since or 0.0)
        before = releases.last_run(self._home, task.name)
        tried = before[1].get("labelled", 0) if before is not None and before[1].get("since") == since else 0
        tried = max(tried, self._tried.get((task.name, since), 0))  # a run that broke off left no word
        delta = bounds.attempt_delta(policy.delta, releases.attempts(self._home, task.name) + 1)
        if there >= max(2 * bounds.floor(policy.max_error, delta, "binary"), LEARN_AGAIN * tried):
            self._tried[task.name, since] = there
            self._learning.start(task.name, since, since is not None and frontier_changed(self._home, task.name))
            self._teller.note(task.name, "learning", f"a learning run began: {there:,} labelled records are there")

    def learned(self) -> None:
        """Say how a learning run ended."""
        ended = self._learning.ended()
        if ended is not None:
            name, code = ended
            how = {0: "made a release", 1: "released nothing"}.get(code, f"failed (see reports/learn-{name}.log)")
            what = f"the learning run {how}: `suffice show {name}` tells what it found"
            self._teller.note(name, "learning", what)
