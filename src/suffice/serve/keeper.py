"""The keeper: the one process that owns watches, stages and schedules. From top to bottom: what one look does.

    open and close watches as stages ask -> follow the requests -> settle the labels -> an alarm? revoke
    now and then: certify again after an alarm (`recovery`), look at the tail, move on what has its evidence, learn
    (`rollout`)

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

from suffice.core.config import Config
from suffice.core.losses import Graders, Unverified
from suffice.core.types import LossName, Policy, Stage
from suffice.serve import watch
from suffice.serve.alerts import Teller
from suffice.serve.expiring import Expiring
from suffice.serve.learning import Learning
from suffice.serve.probe import Probe, told
from suffice.serve.recovery import Recovery
from suffice.serve.rollout import Rollout
from suffice.serve.verifying import Verifiers
from suffice.serve.watch import State, state_of, text_of
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Event, Stored, Task
from suffice.store.watches import Due, Judged, Step, Watch

log = logging.getLogger(__name__)

LOOK_S = 0.2
SLOW_S = 2.0
"""Between two looks at what does not press: recoveries, tails, stages, schedules."""
AT_ONCE_S = 0.05
REST = 10
"""What does not press gives way to the next look after so long, and then rests for so many times what it took."""
ANSWERING = (Stage.CANARY, Stage.LIVE)


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
        graders_of: Callable[[LossName], Graders] = lambda loss: {},
    ) -> None:
        self._home, self._config, self._probe, self._learning = home, config, probe, learning
        self._clock, self._steady = clock, steady
        self._teller = Teller(home, alert, clock)
        self._verifiers = Verifiers(home, graders_of)
        self._recovery = Recovery(home, self._teller, clock, self._verifiers)
        self._rollout = Rollout(home, self._teller, learning, self._verifiers)
        self._unverified: set[tuple[str, int]] = set()
        self._expiring = Expiring(home, clock)
        self._kept = home.connect()
        self._version = self._routing = -1
        self._tasks: dict[str, Task] = {}
        self._watched: dict[str, tuple[Watch, State]] = {}
        self._stored: dict[tuple[str, int], Stored] = {}
        self._waiting: dict[str, float] = {}
        self._slow = self._rest = -math.inf
        self._thought: dict[str, tuple[float, int]] = {}

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

    def adopt(self, config: Config, alert: Callable[[Event], None]) -> None:
        """Go by these settings from the next look on; what is under way goes on by those that it began with."""
        self._config = config
        self._probe.adopt(config)
        self._teller.adopt(alert)
        self._verifiers.forget()
        self._unverified.clear()
        self._version = -1
        self._thought.clear()

    def look(self) -> None:
        """One look at everything: at what presses if anything has changed, then at some of what does not."""
        version = self._kept.execute("PRAGMA data_version").fetchone()[0]
        routing = self._kept.execute("SELECT version FROM routing").fetchone()[0]
        news = version != self._version and (routing != self._routing or bool(self._watched))
        if news or self._waiting or self._probed():
            self._tasks = releases.all_tasks(self._home)
            self._watched = self._followed(self._opened(self._tasks, watches.open_watches(self._home)))
            for name, (found, state) in self._watched.items():
                self._alarm(self._tasks[name], found, state)
            self._version, self._routing = version, routing
        now = self._steady()
        if now - self._slow >= SLOW_S:
            self._slow = now
            self._rollout.learned()
            self._expiring.look(self._config, now)
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
            self._recovery.look(task, stored, policy, known)
        if task.stage in (Stage.SHADOW, Stage.CANARY) and stored is not None:
            self._rollout.look_at_tail(stored, policy)
        if policy.promote == "auto":
            watched = self._watched.get(task.name)
            state = watched[1] if watched is not None and watched[0].release == task.release else None
            self._rollout.look(task, stored, policy, state, known)

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
            state=text_of(state),
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
            before, own = state_of(found), by_watch[name, found.n]
            after = watch.followed(before, own)
            state, labels, late = self._settled(after, found, due.get((name, found.n), []))
            known[name] = found, state
            opened += [step for step in own if step.audited]
            judged += labels
            missing += late
            if state != before:
                changed[name, found.n] = text_of(state)
        if steps or changed or judged:
            watches.save(self._home, place, changed, opened, judged, missing)
        return known

    def _settled(self, state: State, found: Watch, due: Sequence[Due]) -> tuple[State, list[Judged], list[str]]:
        """The state after the labels that are there, these labels, and the audits that were waited for in vain."""
        labels: list[tuple[Due, Judged]] = []
        missing = []
        deadline_s = self._config.policy_of(found.task).audit_deadline_s
        for step in due:
            label = self._judged(found, state, step)
            if label is not None:
                labels.append((step, label))
                self._waiting.pop(step.record, None)
            elif not step.missing and (step.failed or self._overdue(step.record, deadline_s)):
                missing.append(step.record)
                self._waiting.pop(step.record, None)
        for fault in self._verifiers.faults(state.loss):
            self._teller.note(found.task, "verifier", f"{found.task}@{found.release}: {fault}")
        state = watch.missed(watch.settled(state, labels), len(missing))
        if state.is_measured:
            state = watch.measured(state, *watches.outcomes(self._home, found.task, found.n))
        if state.probed is None and (probed := self._probe.begun(found.task)) is not None:
            state = msgspec.structs.replace(state, probed=probed)
        return state, [label for _, label in labels], missing

    def _judged(self, found: Watch, state: State, step: Due) -> Judged | None:
        """A step's label; none where its verifier cannot be asked, which is said once: the audit counts as missing."""
        stored = self._release(found.task, found.release)
        if stored is None:
            return None
        label = None
        try:
            label = watch.judged(state, step, self._verifiers.grade(stored))
        except Unverified as error:
            if (found.task, found.n) not in self._unverified:
                self._unverified.add((found.task, found.n))
                self._teller.note(found.task, "verifier", f"{stored.name}: its audits cannot be judged: {error}")
        return label

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
        if state.alarmed and watch.is_sure(state, watches.most_at_once(self._home, task.name, found.n)):
            self._revoke(task, found, state, f"{name}: {watch.told(state)}; the task escalates everything")
        elif state.too_many_missing and not state.told_missing:
            why = f"{name}: {state.missing:,} of {state.missing + state.answered:,} audits have no answer"
            if policy.on_missing_audits == "escalate":
                self._revoke(task, found, state, why + "; the task escalates")
            else:
                state = msgspec.structs.replace(state, told_missing=True)
                self._watched[task.name] = found, state
                self._teller.tell(found, state, "missing", why)

    def _revoke(self, task: Task, found: Watch, state: State, why: str) -> None:
        """Stop the release, and only then ask what has changed. Who moved the task meanwhile knows better."""
        revoked = msgspec.structs.replace(state, was=task.stage, place=watches.newest(self._home))
        before = task.stage, task.release
        if watches.revoke(self._home, found, text_of(revoked), before, why, self._clock()):
            self._teller.say(task.name, "alarm", why)
            self._probe.again(
                task.name, state.probed, lambda first, now: self._teller.note(task.name, "cause", told(first, now))
            )

    # ------------------------------------------------------------------------------------------ small steps

    def _release(self, task: str, n: int | None) -> Stored | None:
        """A release, read once: it never changes, but for the prompt that is pinned to it."""
        if n is not None and (task, n) not in self._stored and (stored := releases.get_release(self._home, task, n)):
            self._stored[task, n] = stored
        return self._stored.get((task, n)) if n is not None else None
