"""The keeper: the one process that owns watches, stages and schedules. From top to bottom: what one look does.

    open and close watches as stages ask -> follow the requests -> settle the labels -> an alarm? revoke
    now and then: certify again after an alarm, look at the tail, move on what has its evidence, learn

Everything it knows is in the store: a keeper that was killed goes on where the last look ended, and a look is written
whole or not at all. Workers never wait for it; while it is away they go on with the stakes that they last saw.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from suffice.core.config import Config
from suffice.core.types import Policy, Rejection, Stage
from suffice.proof import bounds
from suffice.proof.certify import seed_of
from suffice.serve import evidence, watch
from suffice.serve.learning import Learning
from suffice.serve.probe import Probe, told
from suffice.serve.watch import State
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Event, Stored, Task
from suffice.store.watches import Due, Judged, Watch

log = logging.getLogger(__name__)

LOOK_S = 0.2
SLOW_S = 2.0
"""Between two looks at what does not press: recoveries, tails, stages, schedules."""
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
        self._stored: dict[tuple[str, int], Stored] = {}
        self._waiting: dict[str, float] = {}
        self._slow = -SLOW_S

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
        if place is not None:
            place.close()

    def look(self) -> None:
        """One look at everything."""
        tasks = releases.all_tasks(self._home)
        watched = self._followed(self._opened(tasks, watches.open_watches(self._home)))
        for name, (found, state) in watched.items():
            self._alarm(tasks[name], found, state)
        if self._steady() - self._slow < SLOW_S:
            return
        self._slow = self._steady()
        watches.beat(self._home)
        self._learned()
        for name, task in releases.all_tasks(self._home).items():
            stored = self._release(name, task.release)
            policy = self._config.policy_of(name)
            if name in watched and watched[name][1].probed is None:
                self._probe.begin(name, policy.probe)
            if task.stage is Stage.REVOKED and stored is not None:
                self._recover(task, stored, policy)
            if task.stage in (Stage.SHADOW, Stage.CANARY) and stored is not None:
                self._tail(stored, policy)
            if policy.promote == "auto":
                self._promote(task, stored, policy, watched.get(name))

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
            stored = self._release(name, wanted)
            if found is None and stored is not None:
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
        known: dict[str, tuple[Watch, State]] = {}
        changed: dict[tuple[str, int], str] = {}
        opened, judged, missing = [], [], []
        for name, found in open_now.items():
            before = _state(found)
            own = [step for step in steps if step.task == name and step.watch == found.n]
            state, labels, late = self._settled(watch.followed(before, own), found, self._config.policy_of(name))
            known[name] = found, state
            opened += [step for step in own if step.audited]
            judged += labels
            missing += late
            if state != before:
                changed[name, found.n] = _text(state)
        if steps or changed or judged:
            watches.save(self._home, place, changed, opened, judged, missing)
        return known

    def _settled(self, state: State, found: Watch, policy: Policy) -> tuple[State, list[Judged], list[str]]:
        """The state after the labels that are there, these labels, and the audits that were waited for in vain."""
        labels: list[tuple[Due, Judged]] = []
        missing = []
        for due in watches.due_steps(self._home, found.task, found.n):
            label = watch.judged(state, due, policy)
            if label is not None:
                labels.append((due, label))
                self._waiting.pop(due.record, None)
            elif due.failed or self._overdue(due.record, policy.audit_deadline_s):
                missing.append(due.record)
                self._waiting.pop(due.record, None)
        state = watch.missed(watch.settled(state, labels), len(missing))
        if state.is_measured:
            state = watch.measured(state, *watches.outcomes(self._home, found.task, found.n))
        if state.probed is None and (probed := self._probe.begun(found.task)) is not None:
            state = msgspec.structs.replace(state, probed=probed)
        return state, [label for _, label in labels], missing

    def _overdue(self, record: str, deadline_s: float) -> bool:
        """Whether this audit has been waited for long enough, by a clock that does not jump."""
        now = self._steady()
        return now - self._waiting.setdefault(record, now) > deadline_s

    def _alarm(self, task: Task, found: Watch, state: State) -> None:
        """Revoke what has broken its promise; say once that audits are missing."""
        policy = self._config.policy_of(task.name)
        name = f"{task.name}@{found.release}"
        if state.too_many_missing and not state.told_missing:
            why = f"{name}: {state.missing:,} of {state.missing + state.settled:,} audits have no answer"
            if policy.on_missing_audits == "escalate":
                self._revoke(task, found, state, why + "; the task escalates")
                return
            watches.put_state(self._home, task.name, found.n, _text(msgspec.structs.replace(state, told_missing=True)))
            self._note(task.name, "missing", why)
        if state.alarmed:
            self._revoke(task, found, state, f"{name}: {watch.told(state)}; the task escalates everything")

    def _revoke(self, task: Task, found: Watch, state: State, why: str) -> None:
        """Stop the release at once, then close its watch and ask what has changed."""
        if not releases.move(
            self._home, task.name, (task.stage, task.release), Stage.REVOKED, found.release, "alarm", why
        ):
            return  # someone moved it meanwhile; the next look sees what is to be done
        revoked = msgspec.structs.replace(state, was=task.stage, place=watches.newest(self._home))
        watches.put_state(self._home, task.name, found.n, _text(revoked))
        watches.close_watch(self._home, task.name, found.n, "alarm", self._clock())
        self._alert(Event(at=self._clock(), task=task.name, kind="alarm", what=why))
        self._probe.again(task.name, state.probed, lambda first, now: self._note(task.name, "cause", told(first, now)))

    # ------------------------------------------------------------------------------------------ after an alarm

    def _recover(self, task: Task, stored: Stored, policy: Policy) -> None:
        """Certify the release again on the requests since its alarm, at sizes fixed before; resume, or ask to retrain.

        Only what the watch revoked: a release that a person revoked stays so.
        """
        last = watches.last_watch(self._home, task.name)
        if last is None or last.outcome != "alarm" or last.release != stored.n:
            return
        state = _state(last)
        if state.tries >= evidence.ATTEMPTS:
            return
        seen = watches.seen(self._home, stored.name, [Stage.REVOKED], after=state.place, limit=evidence.MOST)
        k = releases.attempts(self._home, task.name) + 1
        plan = evidence.attempt(
            state.tries,
            stored.release,
            policy,
            k,
            any_trusted=any(row.is_trusted for row in seen),
            grouped=any(row.group or row.session for row in seen),
        )
        if len(seen) < plan.calibration + plan.test:
            return
        rows = evidence.rows(seen[: plan.calibration + plan.test], policy, plan.kind, stored.release.draft.slices)
        delta = bounds.attempt_delta(policy.delta, k)
        releases.charge(self._home, task.name, k, delta, rows.part(0, plan.calibration).digest)
        tried = msgspec.structs.replace(state, tries=state.tries + 1)
        watches.put_state(self._home, task.name, last.n, _text(tried))
        verdict = evidence.recertify(rows, plan, stored.release, stored.serving.confidences, policy, k, self._clock())
        if isinstance(verdict, Rejection):
            what = f"{stored.name} cannot be certified again on {plan.calibration:,} requests since the alarm: "
            what += "; ".join(verdict.reasons)
            if tried.tries >= evidence.ATTEMPTS:
                what += f". It has to be learned anew: suffice learn {task.name} --since {last.closed_at:.0f}"
            self._note(task.name, "recovery", what)
            return
        read = {row.record: "train" for row in seen[plan.calibration : plan.calibration + plan.test]}
        releases.put_splits(self._home, task.name, read)
        serving = (
            stored.serving if stored.serving.prompt else msgspec.structs.replace(stored.serving, prompt=stored.pinned)
        )
        again = releases.add_release(self._home, task.name, verdict, serving, releases.identity(verdict, serving))
        what = f"{again.name}: {stored.name} certified again on {plan.calibration:,} requests since the alarm"
        if policy.recover == "auto":
            if releases.move(
                self._home, task.name, (task.stage, task.release), Stage(state.was), again.n, "recovery",
                f"{what}, put {state.was}",
            ):  # fmt: skip
                self._alert(Event(at=self._clock(), task=task.name, kind="recovery", what=f"{what}, put {state.was}"))
        else:
            self._note(task.name, "recovery", f"{what}; resume it: suffice stage {again.name} {state.was}")

    # ------------------------------------------------------------------------------------------ stages by evidence

    def _tail(self, stored: Stored, policy: Policy) -> None:
        """Look at the tail when labels enough are there: 200 in the band, then 400, 800, each look its own delta."""
        looks = watches.tails(self._home, stored.task)
        if stored.release.tail.promised or any(n == stored.n and promised for n, _, promised in looks):
            return
        kind = evidence.kind_now(stored.release, policy)
        rows = evidence.rows(
            watches.seen(self._home, stored.name, [Stage.SHADOW, Stage.CANARY], limit=evidence.MOST), policy, kind
        )
        losses = rows.losses[evidence.in_band(rows, stored.release)]
        size = evidence.tail_look(len(losses), sum(n == stored.n for n, _, _ in looks))
        if size is None:
            return
        attempt = len(looks) + 1
        delta = bounds.attempt_delta(policy.delta, attempt)
        watches.charge_tail(self._home, stored.task, attempt, stored.n, delta, size)
        promised = evidence.tail_promised(losses[:size], policy, kind, delta, seed_of(stored.digest))
        watches.tail_seen(self._home, stored.task, attempt, float(losses[:size].sum()), promised)
        said = "promised" if promised else "not shown yet"
        limit = f"{100 * policy.tail_error:.3g}%"
        self._note(
            stored.task, "tail", f"{stored.name}: tail error of at most {limit} {said}, on {size} labels in the band"
        )

    def _promote(self, task: Task, stored: Stored | None, policy: Policy, watched: tuple[Watch, State] | None) -> None:
        """Move a task on that has what the next stage needs; learn one that has records enough."""
        if task.stage is Stage.OBSERVE and stored is not None and self._is_new(stored):
            self._step(task, stored, Stage.SHADOW, "it passed the gate")
        elif task.stage is Stage.SHADOW and stored is not None:
            if not self.needs(stored, policy, task.stage, None):
                self._step(task, stored, Stage.CANARY, "live traffic is like the certificate's")
        elif task.stage is Stage.CANARY and stored is not None and watched is not None:
            if not self.needs(stored, policy, task.stage, watched[1]):
                self._step(task, stored, Stage.LIVE, "the canary gave no alarm and the tail is proven")
        elif task.stage in (Stage.OBSERVE, Stage.REVOKED):
            self._schedule(task, policy)

    def needs(self, stored: Stored, policy: Policy, stage: Stage, state: State | None) -> list[str]:
        """What the next stage still needs."""
        return stage_needs(self._home, stored, policy, stage, state)

    def _step(self, task: Task, stored: Stored, stage: Stage, why: str) -> None:
        what = f"{stored.name} put {stage}: {why}"
        if releases.move(self._home, task.name, (task.stage, task.release), stage, stored.n, "stage", what):
            self._alert(Event(at=self._clock(), task=task.name, kind="stage", what=what))

    def _is_new(self, stored: Stored) -> bool:
        """Whether nobody has said anything about the task's stage since this release was made."""
        last = releases.events(self._home, stored.task, 1, kind="stage")
        return not last or last[0].at < stored.created_at

    # ------------------------------------------------------------------------------------------ learning

    def _schedule(self, task: Task, policy: Policy) -> None:
        """Start a learning run where records enough have gathered since the last one."""
        if self._learning.busy or (task.stage is Stage.OBSERVE and task.release is not None):
            return
        since = None
        if task.stage is Stage.REVOKED:
            last = watches.last_watch(self._home, task.name)
            if last is None or last.outcome != "alarm" or _state(last).tries < evidence.ATTEMPTS:
                return
            since = last.closed_at
        there = watches.count_labelled(self._home, task.name, since or 0.0)
        before = releases.last_run(self._home, task.name)
        tried = before[1].get("labelled", 0) if before is not None and before[1].get("since") == since else 0
        delta = bounds.attempt_delta(policy.delta, releases.attempts(self._home, task.name) + 1)
        if there >= max(2 * bounds.floor(policy.max_error, delta, "binary"), LEARN_AGAIN * tried):
            self._learning.start(task.name, since)
            self._note(task.name, "learning", f"a learning run began: {there:,} labelled records are there")

    def _learned(self) -> None:
        """Say how a learning run ended; after an alarm its release is watched from the shadow on."""
        ended = self._learning.ended()
        if ended is None:
            return
        name, code = ended
        task, stored = releases.all_tasks(self._home)[name], releases.get_release(self._home, name)
        self._note(name, "learning", f"the learning run ended with {code}: `suffice show {name}` tells what it found")
        if code == 0 and task.stage is Stage.REVOKED and stored is not None:
            self._step(task, stored, Stage.SHADOW, "learned anew on the traffic since the alarm")

    # ------------------------------------------------------------------------------------------ small steps

    def _release(self, task: str, n: int | None) -> Stored | None:
        """A release, read once: it never changes, but for the prompt that is pinned to it."""
        if n is None:
            return None
        stored = self._stored.get((task, n))
        if stored is None or stored.prompt is None:
            stored = releases.get_release(self._home, task, n)
            if stored is not None:
                self._stored[task, n] = stored
        return stored

    def _note(self, task: str, kind: str, what: str) -> None:
        releases.note(self._home, task, kind, what)
        self._alert(Event(at=self._clock(), task=task, kind=kind, what=what))


def stage_needs(home: Home, stored: Stored, policy: Policy, stage: Stage, state: State | None) -> list[str]:
    """What a release in this stage still needs for the next one, each in one sentence; `state` of its open watch."""
    kind = evidence.kind_now(stored.release, policy)
    looked = watches.seen(home, stored.name, [Stage.SHADOW, Stage.CANARY], limit=evidence.MOST)
    rows = evidence.rows(looked, policy, kind)
    if stage is Stage.SHADOW:
        return evidence.shadow_needs(rows, stored.release, policy, watch.usual(stored.release, policy))
    if stage is Stage.CANARY:
        promised = stored.release.tail.promised or any(
            n == stored.n and yes for n, _, yes in watches.tails(home, stored.task)
        )
        return evidence.canary_needs(state, promised, int(np.count_nonzero(evidence.in_band(rows, stored.release))))
    return []


def _state(found: Watch) -> State:
    return msgspec.json.decode(found.state, type=State)


def _text(state: State) -> str:
    return msgspec.json.encode(state).decode()
