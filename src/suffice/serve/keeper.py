"""The keeper: the one process that owns watches, stages and schedules. From top to bottom: what one look does.

    open and close watches as stages ask -> follow the requests -> settle the labels -> an alarm? revoke
    now and then: certify again after an alarm, look at the tail, move on what has its evidence, learn

Everything it knows is in the store: a keeper that was killed goes on where the last look ended, and a look is written
whole or not at all. Workers never wait for it; while it is away they go on with the stakes that they last saw.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from suffice.core.config import Config
from suffice.core.errors import StoreError
from suffice.core.types import Policy, Rejection, Release, Stage
from suffice.proof import bounds
from suffice.proof.certify import seed_of
from suffice.serve import evidence, watch
from suffice.serve.evidence import Attempt
from suffice.serve.learning import Learning
from suffice.serve.probe import Probe, told
from suffice.serve.watch import State
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Event, Stored, Task
from suffice.store.watches import Due, Judged, Seen, Step, Watch

log = logging.getLogger(__name__)

LOOK_S = 0.2
SLOW_S = 2.0
"""Between two looks at what does not press: recoveries, tails, stages, schedules."""
AT_ONCE_S = 0.05
REST = 10
"""What does not press gives way to the next look after so long, and then rests for so many times what it took."""
ANSWERING = (Stage.CANARY, Stage.LIVE)
LEARN_AGAIN = 1.5
"""By how much the labelled records must have grown before learning is tried again."""


class Keeper:
    """Looks again and again. `clock` is wall time, for dates; `steady` never jumps: how long ago something was."""

    def __init__(
        self,
        home: Home,
        config: Config,
        probe: Probe,
        learning: Learning,
        alert: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._config, self._probe, self._learning = home, config, probe, learning
        self._alert, self._clock, self._steady = alert, clock, steady
        self._kept = home.connect()
        self._version = -1
        self._tasks: dict[str, Task] = {}
        self._watched: dict[str, tuple[Watch, State]] = {}
        self._stored: dict[tuple[str, int], Stored] = {}
        self._waiting: dict[str, float] = {}
        self._beat = self._rest = -math.inf
        self._thought: dict[str, tuple[float, int]] = {}
        self._tried: dict[tuple[str, float | None], int] = {}

    def run(self, stopping: Callable[[], bool]) -> None:
        """Look every 200 ms until told to stop. A look that fails is logged, and the next one tries again."""
        while (place := self._home.keeping()) is None and not stopping():
            time.sleep(LOOK_S)
        while not stopping():
            try:
                self.look()
            except Exception:  # the boundary of a look: a busy or full disk must not end the watch
                log.exception("a look of the keeper failed; the next one tries again")
            time.sleep(LOOK_S)
        self._learning.stop()
        self._kept.close()
        if place is not None:
            place.close()

    def look(self) -> None:
        """One look at everything: at what presses if anything has changed, then at some of what does not."""
        version = self._kept.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or self._waiting or self._probed():
            self._tasks = releases.all_tasks(self._home)
            self._watched = self._followed(self._opened(self._tasks, watches.open_watches(self._home)))
            for name, (found, state) in self._watched.items():
                self._alarm(self._tasks[name], found, state)
            self._version = version
        now = self._steady()
        if now - self._beat >= SLOW_S:
            self._beat = now
            watches.beat(self._kept)
            self._learned()
            for name, (_, state) in self._watched.items():
                if state.probed is None:
                    self._probe.begin(name, self._config.policy_of(name).probe)
        if now >= self._rest:
            self._think(version)
            self._rest = self._steady() + REST * (self._steady() - now)

    def _think(self, version: int) -> None:
        """Look at what does not press, task by task, where something has changed since the last time."""
        began = self._steady()
        if all(seen == version or began - last < SLOW_S for last, seen in map(self._last_thought, self._tasks)):
            return
        known = releases.newest_event(self._home)  # before the stages are read: what is said later wins
        tasks = releases.all_tasks(self._home)
        for name in sorted(tasks, key=lambda name: self._last_thought(name)[0]):
            last, seen = self._last_thought(name)
            if seen == version or began - last < SLOW_S:
                continue
            self._thought[name] = began, -1  # should it fail, the others come first
            self._think_of(tasks[name], known)
            self._thought[name] = began, version
            if self._steady() - began > AT_ONCE_S:
                return

    def _last_thought(self, name: str) -> tuple[float, int]:
        """When a task was last thought of, and what the home was like."""
        return self._thought.get(name, (-math.inf, -1))

    def _think_of(self, task: Task, known: int) -> None:
        stored, policy = self._release(task.name, task.release), self._config.policy_of(task.name)
        if task.stage is Stage.REVOKED and stored is not None:
            self._recover(task, stored, policy, known)
        if task.stage in (Stage.SHADOW, Stage.CANARY) and stored is not None:
            self._tail(stored, policy)
        if policy.promote == "auto":
            watched = self._watched.get(task.name)
            state = watched[1] if watched is not None and watched[0].release == task.release else None
            self._promote(task, stored, policy, state, known)

    # ------------------------------------------------------------------------------------------ the watch

    def _opened(self, tasks: Mapping[str, Task], open_now: Mapping[str, Watch]) -> dict[str, Watch]:
        """The watches of what answers now; those of what does not any more are closed."""
        kept: dict[str, Watch] = {}
        for name, task in tasks.items():
            found, policy = open_now.get(name), self._config.policy_of(name)
            wanted = task.release if task.stage in ANSWERING and policy.audit > 0 else None
            if found is not None and found.release != wanted:
                watches.close_watch(self._home, name, found.n, "ended", self._clock())
                found = None
            if found is None and (stored := self._release(name, wanted)) is not None:
                found = self._open(stored, policy)
            if found is not None:
                kept[name] = found
        return kept

    def _open(self, stored: Stored, policy: Policy) -> Watch:
        """A new watch, with a fortune of 1, on its own share of the chance of a false alarm."""
        last = watches.last_watch(self._home, stored.task)
        n = last.n + 1 if last is not None else 1
        state = watch.opened(stored.release, stored.serving.confidences, policy, n)
        opened = Watch(
            task=stored.task,
            n=n,
            release=stored.n,
            opened_at=self._clock(),
            closed_at=None,
            outcome=None,
            state=_text(state),
        )
        watches.open_watch(self._home, opened)
        return opened

    def _followed(self, open_now: Mapping[str, Watch]) -> dict[str, tuple[Watch, State]]:
        """Every open watch with its state after the requests and labels that are new; written, if any are."""
        steps, place = watches.steps_since(self._home, watches.place(self._home))
        by_watch: defaultdict[tuple[str, int], list[Step]] = defaultdict(list)
        for step in steps:
            by_watch[step.task, step.watch].append(step)
        due = watches.due_steps(self._home)
        waiting = {step.record for some in due.values() for step in some}
        self._waiting = {record: since for record, since in self._waiting.items() if record in waiting}
        known: dict[str, tuple[Watch, State]] = {}
        changed: dict[tuple[str, int], str] = {}
        opened, judged, missing = [], [], []
        for name, found in open_now.items():
            before, own = _state(found), by_watch[name, found.n]
            after = watch.followed(before, own)
            state, labels, late = self._settled(after, found, due.get((name, found.n), []))
            known[name] = found, state
            opened += [step for step in own if step.audited]
            judged += labels
            missing += late
            if state != before:
                changed[name, found.n] = _text(state)
        if steps or changed or judged:
            watches.save(self._home, place, changed, opened, judged, missing)
        return known

    def _settled(self, state: State, found: Watch, due: Sequence[Due]) -> tuple[State, list[Judged], list[str]]:
        """The state after the labels that are there, these labels, and the audits that were waited for in vain."""
        labels: list[tuple[Due, Judged]] = []
        missing = []
        deadline_s = self._config.policy_of(found.task).audit_deadline_s
        for step in due:
            label = watch.judged(state, step)
            if label is not None:
                labels.append((step, label))
                self._waiting.pop(step.record, None)
            elif not step.missing and (step.failed or self._overdue(step.record, deadline_s)):
                missing.append(step.record)
                self._waiting.pop(step.record, None)
        state = watch.missed(watch.settled(state, labels), len(missing))
        if state.is_measured:
            state = watch.measured(state, *watches.outcomes(self._home, found.task, found.n))
        if state.probed is None and (probed := self._probe.begun(found.task)) is not None:
            state = msgspec.structs.replace(state, probed=probed)
        return state, [label for _, label in labels], missing

    def _probed(self) -> bool:
        """Whether a watch can be told how its probe went."""
        return any(self._probe.is_done(name) for name, (_, state) in self._watched.items() if state.probed is None)

    def _overdue(self, record: str, deadline_s: float) -> bool:
        """Whether this audit has been waited for long enough, by a clock that does not jump."""
        now = self._steady()
        return now - self._waiting.setdefault(record, now) > deadline_s

    def _alarm(self, task: Task, found: Watch, state: State) -> None:
        """Revoke what has broken its promise; say once that audits are missing."""
        policy = self._config.policy_of(task.name)
        name = f"{task.name}@{found.release}"
        if state.alarmed:
            self._revoke(task, found, state, f"{name}: {watch.told(state)}; the task escalates everything")
        elif state.too_many_missing and not state.told_missing:
            why = f"{name}: {state.missing:,} of {state.missing + state.answered:,} audits have no answer"
            if policy.on_missing_audits == "escalate":
                self._revoke(task, found, state, why + "; the task escalates")
            else:
                state = msgspec.structs.replace(state, told_missing=True)
                self._watched[task.name] = found, state
                self._tell(found, state, "missing", why)

    def _revoke(self, task: Task, found: Watch, state: State, why: str) -> None:
        """Stop the release, and only then ask what has changed. Who moved the task meanwhile knows better."""
        revoked = msgspec.structs.replace(state, was=task.stage, place=watches.newest(self._home))
        before = task.stage, task.release
        if watches.revoke(self._home, found, _text(revoked), before, why, self._clock()):
            self._alert(Event(at=self._clock(), task=task.name, kind="alarm", what=why))
            self._probe.again(
                task.name, state.probed, lambda first, now: self._note(task.name, "cause", told(first, now))
            )

    # ------------------------------------------------------------------------------------------ after an alarm

    def _recover(self, task: Task, stored: Stored, policy: Policy, known: int) -> None:
        """Certify the release again on the requests since its alarm, at sizes fixed before; resume, or ask to retrain.

        Only what the watch revoked: a release that a person revoked stays so. Everything up to the verdict is found
        again, at no further price, if the keeper dies on the way.
        """
        last = self._alarmed(task)
        if last is None or (state := _state(last)).tries >= evidence.ATTEMPTS:
            return
        seen = watches.seen(self._home, stored.name, [Stage.REVOKED], after=state.place, limit=evidence.MOST)
        try:
            with self._home.learning(task.name):
                self._certify(task, stored, policy, known, last, seen)
        except StoreError:
            return  # someone is learning the task: the ledger is theirs for now

    def _certify(
        self, task: Task, stored: Stored, policy: Policy, known: int, last: Watch, seen: Sequence[Seen]
    ) -> None:
        """One attempt, if its requests are there."""
        state, confidences = _state(last), stored.serving.confidences
        planned = self._planned(state, stored, policy, seen)
        if planned is None:
            return
        plan, calibrated, tested = planned
        state = msgspec.structs.replace(state, tries=state.tries + 1)
        slices = stored.release.draft.slices
        calibration = evidence.rows(seen[:calibrated], plan.terms, slices)
        draft = evidence.certified(calibration, plan, stored.release, confidences, policy, self._clock())
        if isinstance(draft, Rejection):
            self._refused(last, state, draft)
            return
        # The gate shows what it finds. So its rows train from here on, and there is no second attempt: it would
        # calibrate on them.
        releases.put_splits(self._home, task.name, {row.record: "train" for row in seen[calibrated:tested]})
        state = msgspec.structs.replace(state, tries=evidence.ATTEMPTS)
        test = evidence.rows(seen[calibrated:tested], plan.terms, slices)
        verdict = evidence.judged(draft, calibration, test, plan, stored.release, confidences, policy)
        if isinstance(verdict, Rejection):
            self._refused(last, state, verdict)
            return
        again = self._again(stored, verdict)
        state = msgspec.structs.replace(state, again=again.n)
        what = f"{again.name}: {stored.name} certified again on {calibrated:,} requests since the alarm"
        if policy.recover == "manual":
            self._tell(last, state, "recovery", f"{what}; resume it: suffice stage {again.name} {state.was}")
        elif releases.move(
            self._home, task.name, (task.stage, task.release), Stage(state.was), again.n, "recovery",
            f"{what}, put {state.was}", known,
        ):  # fmt: skip
            self._alert(Event(at=self._clock(), task=task.name, kind="recovery", what=f"{what}, put {state.was}"))

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
        what += "; ".join(verdict.reasons)
        if state.tries >= evidence.ATTEMPTS:
            what += f". It has to be learned anew: suffice learn {last.task} --since {last.closed_at:.0f}"
        self._tell(last, state, "recovery", what)

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

    def _alarmed(self, task: Task) -> Watch | None:
        """The watch that revoked this task; None if it was a person, or a person has spoken since."""
        if releases.last_of(self._home, task.name, "stage", "alarm") != "alarm":
            return None
        last = watches.last_watch(self._home, task.name)
        return last if last is not None and last.outcome == "alarm" and last.release == task.release else None

    # ------------------------------------------------------------------------------------------ stages by evidence

    def _tail(self, stored: Stored, policy: Policy) -> None:
        """Look at the tail when labels enough are there: 200 in the band, then 400, 800, each look its own delta."""
        looks = watches.tails(self._home, stored.task)
        if stored.release.tail.promised or any(n == stored.n and promised for n, _, promised in looks):
            return
        terms = evidence.terms_of(stored.release)
        seen = watches.seen(self._home, stored.name, [Stage.SHADOW, Stage.CANARY], limit=evidence.MOST)
        rows = evidence.rows(seen, terms)
        losses = rows.losses[evidence.in_band(rows, stored.release)]
        size = evidence.tail_look(len(losses), sum(n == stored.n for n, _, _ in looks))
        if size is None:
            return
        attempt, losses = len(looks) + 1, losses[:size]
        delta = bounds.attempt_delta(policy.delta, attempt)
        promised = evidence.tail_promised(losses, policy, terms.kind, delta, seed_of(stored.digest))
        what = (
            f"{stored.name}: tail error of at most {100 * policy.tail_error:.3g}% "
            f"{'promised' if promised else 'not shown yet'}, on {size} labels in the band"
        )
        watches.look_at_tail(self._home, stored.task, attempt, stored.n, delta, losses.tolist(), promised, what)
        self._alert(Event(at=self._clock(), task=stored.task, kind="tail", what=what))

    def _promote(self, task: Task, stored: Stored | None, policy: Policy, state: State | None, known: int) -> None:
        """Move a task on that has what the next stage needs; learn one that has records enough."""
        newest = releases.get_release(self._home, task.name)
        if task.stage is Stage.SHADOW and stored is not None:
            if not stage_needs(self._home, stored, policy, task.stage, None):
                self._step(task, stored, Stage.CANARY, "live traffic is like the certificate's", known)
        elif task.stage is Stage.CANARY and stored is not None:
            if state is not None and not stage_needs(self._home, stored, policy, task.stage, state):
                self._step(task, stored, Stage.LIVE, "the canary gave no alarm and the tail is proven", known)
        elif newest is not None and self._is_new(task, newest):
            self._step(task, newest, Stage.SHADOW, "it passed the gate", known)
        elif task.stage in (Stage.OBSERVE, Stage.REVOKED):
            self._schedule(task, policy)

    def _step(self, task: Task, stored: Stored, stage: Stage, why: str, known: int) -> None:
        what = f"{stored.name} put {stage}: {why}"
        before = task.stage, task.release
        if releases.move(self._home, task.name, before, stage, stored.n, "stage", what, known):
            self._alert(Event(at=self._clock(), task=task.name, kind="stage", what=what))

    def _is_new(self, task: Task, newest: Stored) -> bool:
        """Whether the newest release waits for its shadow: learned in a task that nobody has put where it is, or since
        its alarm (and not that recovery's, which waits for a person)."""
        if task.stage is Stage.OBSERVE:
            return releases.last_of(self._home, task.name, "task", "stage") == "task"
        last = self._alarmed(task)
        if task.stage is not Stage.REVOKED or last is None or newest.n in (last.release, _state(last).again):
            return False
        return releases.last_of(self._home, task.name, "release", "alarm") == "release"

    # ------------------------------------------------------------------------------------------ learning

    def _schedule(self, task: Task, policy: Policy) -> None:
        """Start a learning run where records enough have gathered since the last one."""
        if self._learning.busy or (task.stage is Stage.OBSERVE and task.release is not None):
            return
        since = None
        if task.stage is Stage.REVOKED:
            last = self._alarmed(task)
            if last is None or _state(last).tries < evidence.ATTEMPTS or _state(last).again:
                return
            since = last.closed_at
        there = watches.count_labelled(self._home, task.name, since or 0.0)
        before = releases.last_run(self._home, task.name)
        tried = before[1].get("labelled", 0) if before is not None and before[1].get("since") == since else 0
        tried = max(tried, self._tried.get((task.name, since), 0))  # a run that broke off left no word
        delta = bounds.attempt_delta(policy.delta, releases.attempts(self._home, task.name) + 1)
        if there >= max(2 * bounds.floor(policy.max_error, delta, "binary"), LEARN_AGAIN * tried):
            self._tried[task.name, since] = there
            self._learning.start(task.name, since)
            self._note(task.name, "learning", f"a learning run began: {there:,} labelled records are there")

    def _learned(self) -> None:
        """Say how a learning run ended."""
        ended = self._learning.ended()
        if ended is not None:
            name, code = ended
            what = f"the learning run ended with {code}: `suffice show {name}` tells what it found"
            self._note(name, "learning", what)

    # ------------------------------------------------------------------------------------------ small steps

    def _release(self, task: str, n: int | None) -> Stored | None:
        """A release, read once: it never changes, but for the prompt that is pinned to it."""
        if n is not None and (task, n) not in self._stored and (stored := releases.get_release(self._home, task, n)):
            self._stored[task, n] = stored
        return self._stored.get((task, n)) if n is not None else None

    def _tell(self, found: Watch, state: State, kind: str, what: str) -> None:
        """Write a watch's state with the event that goes with it, and tell people."""
        watches.tell(self._home, found, _text(state), kind, what)
        self._alert(Event(at=self._clock(), task=found.task, kind=kind, what=what))

    def _note(self, task: str, kind: str, what: str) -> None:
        releases.note(self._home, task, kind, what)
        self._alert(Event(at=self._clock(), task=task, kind=kind, what=what))


def stage_needs(home: Home, stored: Stored, policy: Policy, stage: Stage, state: State | None) -> list[str]:
    """What a release in this stage still needs for the next one, each in one sentence; `state` of its open watch."""

    def rows(*stages: Stage) -> evidence.Rows:
        seen = watches.seen(home, stored.name, stages, limit=evidence.MOST)
        return evidence.rows(seen, evidence.terms_of(stored.release))

    if stage is Stage.SHADOW:
        usual = watch.usual(stored.release, policy)
        return evidence.shadow_needs(rows(Stage.SHADOW), stored.release, policy, usual)
    if stage is Stage.CANARY:
        promised = stored.release.tail.promised or any(
            n == stored.n and yes for n, _, yes in watches.tails(home, stored.task)
        )
        if promised:
            return evidence.canary_needs(state, promised, 0)
        band = evidence.in_band(rows(Stage.SHADOW, Stage.CANARY), stored.release)
        return evidence.canary_needs(state, promised, int(np.count_nonzero(band)))
    return []


def _state(found: Watch) -> State:
    return msgspec.json.decode(found.state, type=State)


def _text(state: State) -> str:
    return msgspec.json.encode(state).decode()
