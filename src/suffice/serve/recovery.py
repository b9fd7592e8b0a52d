"""After an alarm: the release is certified again on the requests since, or a word on how to learn anew.

Only what a watch has revoked; a release that a person took back stays where it is. What certifies, and on how many
requests, is `evidence`'s; here is what is paid for, written down and told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec

from suffice.core import grading
from suffice.core.errors import StoreError
from suffice.core.losses import Unverified
from suffice.core.types import Policy, Rejection, Release, Stage
from suffice.proof import bounds
from suffice.serve import evidence
from suffice.serve.alerts import Teller
from suffice.serve.evidence import Attempt
from suffice.serve.probe import blames_frontier
from suffice.serve.verifying import Verifiers
from suffice.serve.watch import State, state_of
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Stored, Task
from suffice.store.watches import Seen, Watch

log = logging.getLogger(__name__)

_BY_JUDGE = "a model judged its answers, and that one is asked while learning only"


def alarmed(home: Home, task: Task) -> Watch | None:
    """The watch that revoked this task; None if it was a person, or a person has spoken since."""
    if releases.last_of(home, task.name, "stage", "alarm") != "alarm":
        return None
    last = watches.last_watch(home, task.name)
    return last if last is not None and last.outcome == "alarm" and last.release == task.release else None


def frontier_changed(home: Home, task: str) -> bool:
    """Whether the last alarm was found to be the frontier's: its earlier answers are no good to learn from."""
    cause = releases.events(home, task, 1, kind="cause")
    return bool(cause) and releases.last_of(home, task, "cause", "alarm") == "cause" and blames_frontier(cause[0].what)


class Recovery:
    """The way back of revoked releases. It keeps nothing of its own: all it knows is in the store."""

    def __init__(self, home: Home, teller: Teller, clock: Callable[[], float], verifiers: Verifiers) -> None:
        self._home, self._teller, self._clock, self._verifiers = home, teller, clock, verifiers

    def look(self, task: Task, stored: Stored, policy: Policy, known: int) -> None:
        """Certify the release again on the requests since its alarm, at sizes fixed before; resume, or ask to retrain.

        Only what the watch revoked: a release that a person revoked stays so. Everything up to the verdict is found
        again, at no further price, if the keeper dies on the way. `known`: the newest event before the task was read.
        """
        last = alarmed(self._home, task)
        if last is None or (state := state_of(last)).tries >= evidence.ATTEMPTS:
            return
        if grading.judge_of(stored.release.draft.threshold.certificate.loss) is not None:
            self._refused(
                last, msgspec.structs.replace(state, tries=evidence.ATTEMPTS), Rejection(reasons=(_BY_JUDGE,))
            )
            return
        seen = watches.seen(self._home, stored.name, [Stage.REVOKED], after=state.place, limit=evidence.MOST)
        try:
            with self._home.learning(task.name):
                self._certify(task, stored, policy, known, last, seen)
        except Unverified as error:
            log.warning("%s cannot be certified again: %s", stored.name, error)
        except StoreError:
            return  # someone is learning the task: the ledger is theirs for now

    def _certify(
        self, task: Task, stored: Stored, policy: Policy, known: int, last: Watch, seen: Sequence[Seen]
    ) -> None:
        """One attempt, if its requests are there."""
        state, confidences = state_of(last), stored.serving.confidences
        grade = self._verifiers.grade(stored)
        planned = self._planned(state, stored, policy, seen)
        if planned is None:
            return
        plan, calibrated, tested = planned
        state = msgspec.structs.replace(state, tries=state.tries + 1)
        slices = stored.release.draft.slices
        calibration = evidence.rows(seen[:calibrated], plan.terms, slices, grade)
        draft = evidence.certified(calibration, plan, stored.release, confidences, policy, self._clock())
        if isinstance(draft, Rejection):
            self._refused(last, state, draft)
            return
        # The gate shows what it finds. So its rows train from here on, and there is no second attempt: it would
        # calibrate on them.
        releases.put_splits(self._home, task.name, {row.record: "train" for row in seen[calibrated:tested]})
        state = msgspec.structs.replace(state, tries=evidence.ATTEMPTS)
        test = evidence.rows(seen[calibrated:tested], plan.terms, slices, grade)
        verdict = evidence.judged(draft, calibration, test, plan, stored.release, confidences, policy)
        if isinstance(verdict, Rejection):
            self._refused(last, state, verdict)
            return
        again = self._again(stored, verdict)
        state = msgspec.structs.replace(state, again=again.n)
        what = f"{again.name}: {stored.name} certified again on {calibrated:,} requests since the alarm"
        if policy.recover == "manual":
            self._teller.tell(last, state, "recovery", f"{what}; resume it: suffice stage {again.name} {state.was}")
        else:
            self._teller.move(task, again, Stage(state.was), "recovery", f"{what}, put {state.was}", known)

    def _planned(
        self, state: State, stored: Stored, policy: Policy, seen: Sequence[Seen]
    ) -> tuple[Attempt, int, int] | None:
        """The attempt to make, paid for, and where its calibration and test rows end; None if they are not there yet.

        An attempt that was paid for and never came to a verdict is the one to make.
        """
        grouped = any(row.group or row.session for row in seen)
        paid, digest = releases.last_attempt(self._home, stored.task) or (0, "")
        for k in (paid, paid + 1):
            plan = evidence.attempt(state.tries, stored.release, policy, k, grouped) if k else None
            cut = plan.cut(seen) if plan is not None else None
            if plan is None or cut is None:
                continue
            now = evidence.digest(seen[: cut[0]])
            if k == paid and now != digest:
                continue
            if k > paid:
                releases.charge(self._home, stored.task, k, bounds.attempt_delta(policy.delta, k), now)
            return plan, *cut
        return None

    def _refused(self, last: Watch, state: State, verdict: Rejection) -> None:
        what = f"{last.task}@{last.release} cannot be certified again on the requests since the alarm: "
        what += "; ".join(reason.removeprefix("cannot certify: ") for reason in verdict.reasons)
        if state.tries < evidence.ATTEMPTS:
            what += ". It is tried once more when twice as many are there"
        else:
            forget = " --forget" if frontier_changed(self._home, last.task) else ""
            what += f". It has to be learned anew: suffice learn {last.task} --since {last.closed_at:.0f}{forget}"
        self._teller.tell(last, state, "recovery", what)

    def _again(self, stored: Stored, verdict: Release) -> Stored:
        """The release with its new certificate, stored once."""
        now, serving = releases.get_release(self._home, stored.task, stored.n), stored.serving
        if serving.prompt is None and now is not None:  # it was pinned after it had been read
            serving = msgspec.structs.replace(serving, prompt=now.pinned)
        digest = releases.identity(verdict, serving)
        newest = releases.get_release(self._home, stored.task)
        if newest is not None and newest.digest == digest:
            return newest
        return releases.add_release(self._home, stored.task, verdict, serving, digest)
