"""What may be served right now: tasks, stages and releases, kept within a second of the home's state."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from suffice.core.config import Config
from suffice.core.prompt import Prompt
from suffice.core.protocols import Remote
from suffice.core.style import Rendered
from suffice.core.types import Policy, Prediction, Reason, Request, Stage
from suffice.proof.monitor import Audits
from suffice.serve import rules
from suffice.serve.asking import Asking
from suffice.serve.edges import Refused
from suffice.serve.egress import Denied
from suffice.serve.rules import LoadMatcher, Rules
from suffice.serve.shelf import Load, Shelf
from suffice.serve.watch import Published, stamp
from suffice.store import artefacts, patterns, releases
from suffice.store.home import Home
from suffice.store.patterns import Pattern
from suffice.store.releases import Stored

log = logging.getLogger(__name__)
Elsewhere = Callable[[Remote, str], Awaitable[Prediction]]
_published = msgspec.json.Decoder(Published).decode

POLL_S = 0.25
STALE_S = 1.0
"""Without a successful look at the home's state for this long, specialists do not answer."""
WARM_S = 0.2
"""A new release is given this long to be loaded before requests are routed to it: a kill switch waits no longer."""
TELL_S = 60.0
"""A release that fails is told of once in this time."""
MAX_TASKS = 10_000


@dataclass(frozen=True)
class Watched:
    """What a worker stamps on the requests of a task under watch, as the keeper published it last."""

    n: int
    release: int
    audits: Audits
    stakes: str


@dataclass(frozen=True)
class Routed:
    """A task as this worker serves it; `stored` is None where it has no release."""

    name: str
    stage: Stage
    policy: Policy
    stored: Stored | None = None
    prompt: Prompt | None = None
    watch: Watched | None = None


@dataclass(frozen=True)
class _State:
    """What a look at the home found: `owners` are the tasks of patterns, `aliases` the names that tasks had."""

    version: int
    tasks: Mapping[str, Routed]
    patterns: tuple[Pattern, ...]
    owners: Mapping[int, str]
    aliases: Mapping[str, str]


def wanted(tasks: Mapping[str, Routed]) -> list[tuple[Stored, Stage]]:
    """The releases that requests may be asked of."""
    return [(t.stored, t.stage) for t in tasks.values() if t.stored is not None and t.stage is not Stage.OBSERVE]


class Roster:
    """Polls the home, finds a request's task and asks its specialist."""

    def __init__(
        self,
        home: Home,
        config: Config,
        load: Load,
        load_matcher: LoadMatcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._config, self._clock = home, config, clock
        self._load_matcher = load_matcher
        self._found = rules.NONE
        self._known: tuple[Pattern, ...] = ()
        self._owners: Mapping[int, str] = {}
        self._aliases: Mapping[str, str] = {}
        self._rules = [(name, task.match) for name, task in config.tasks.items() if task.match is not None]
        self._tasks: Mapping[str, Routed] = {}
        self._looked = -STALE_S
        self._data_version = self._version = -1
        self.shelf = Shelf(load, self._size, config.server.specialists_mb * 2**20, clock)
        self.asking = Asking()
        self._started: set[asyncio.Task[None]] = set()
        self._making: asyncio.Task[None] | None = None
        self._faults = 0
        self._told: dict[str, float] = {}

    @property
    def faults(self) -> int:
        """How often a specialist or a matcher has failed, when it was asked or loaded."""
        return self._faults + self.shelf.failures

    @property
    def home(self) -> Home:
        """The home that it keeps up with."""
        return self._home

    @property
    def fresh(self) -> bool:
        """Whether the home's state was seen within the last second."""
        return self._clock() - self._looked < STALE_S

    @property
    def tasks(self) -> Mapping[str, Routed]:
        """By name."""
        return self._tasks

    def metrics(self) -> list[tuple[str, tuple[str, ...], float]]:
        """What is loaded and how it was asked: each metric's name, its labels' values, and the number by now."""
        shelf, asking = self.shelf, self.asking
        return [
            ("suffice_specialists_loaded", (), len(shelf)),
            ("suffice_specialists_bytes", (), shelf.bytes),
            ("suffice_specialist_loads_total", ("loaded",), shelf.loads),
            ("suffice_specialist_loads_total", ("failed",), shelf.failures),
            ("suffice_specialist_evictions_total", (), shelf.evictions),
            ("suffice_specialist_predictions_total", ("loop",), asking.inline),
            ("suffice_specialist_predictions_total", ("thread",), asking.batched),
            ("suffice_specialist_batches_total", (), asking.batches),
        ]

    # -- keeping up with the home

    def open(self) -> None:
        """Connect and load what there is. Raises sqlite3.Error."""
        self._connection = self._home.connect()
        self._ensure()
        state = self._state()
        self.shelf.open(wanted(state.tasks))
        self._look(state)
        self._found = self._made()
        self._watch()

    async def run(self) -> None:
        """Look every 250 ms, for ever. A failed look is logged and ages the state; it never ends the loop."""
        await self.shelf.warm(wanted(self._tasks), 0)  # what `open` had no time for
        while True:
            await asyncio.sleep(POLL_S)
            try:
                routing, watches = self._changed()
                if routing:
                    state = await asyncio.to_thread(self._state)
                    await self.shelf.warm(wanted(state.tasks), WARM_S)
                    self._look(state)
                if routing or watches:
                    self._watch()
                self._looked = self._clock()
                if self._making is None and rules.keys(self._known) != self._found.keys:
                    self._making = asyncio.ensure_future(self._make())
            except Exception as error:  # noqa: BLE001 - the boundary of the poll: serving must go on without it
                self._data_version = -1
                log.error("the routing state cannot be read: %s", error)

    async def adopt(self, config: Config) -> None:
        """Go by these settings from now on; what is loaded stays loaded. Raises sqlite3.Error, and sqlalchemy's."""
        before, self._config = self._config, config
        try:
            await asyncio.to_thread(self._ensure)
            state = await asyncio.to_thread(self._state)
        except Exception:  # whatever it is: the settings stay as they were
            self._config = before
            raise
        self._rules = [(name, task.match) for name, task in config.tasks.items() if task.match is not None]
        self.shelf.limit(config.server.specialists_mb * 2**20)
        self._look(state)
        self._watch()
        self._data_version = self._version = -1  # a look that was under way may have gone by the settings before

    def _ensure(self) -> None:
        for name in self._config.tasks:
            releases.ensure_task(self._home, name)

    def close(self) -> None:
        """Let go of the database and the threads."""
        self._connection.close()
        self.shelf.close()
        self.asking.close()

    def _changed(self) -> tuple[bool, bool]:
        """Whether the routing row moved, and whether anything did.

        `PRAGMA data_version` costs microseconds and tells of any write; only then is more read.
        """
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._data_version:
            return False, False
        routing = self._connection.execute("SELECT version FROM routing").fetchone()[0]
        self._data_version = version
        return bool(routing != self._version), True

    def _watch(self) -> None:
        """Take over what the keeper published: stakes that are older are valid, and slower."""
        open_watches = "SELECT task, n, release, state FROM watches WHERE closed_at IS NULL"
        watched = {
            task: (n, release, _published(state)) for task, n, release, state in self._connection.execute(open_watches)
        }
        for name, routed in self._tasks.items():
            n, release, published = watched.get(name, (0, 0, None))
            watch = (
                Watched(n=n, release=release, audits=published.audits, stakes=stamp(published.stakes))
                if published is not None and routed.stored is not None and routed.stored.n == release
                else None
            )
            if watch != routed.watch:
                self._tasks = {**self._tasks, name: replace(routed, watch=watch)}

    def _state(self) -> _State:
        """Read the state."""
        with sqlite3.connect(self._home.db_path) as connection:
            version = connection.execute("SELECT version FROM routing").fetchone()[0]
        routed: dict[str, Routed] = {}
        for name, task in releases.all_tasks(self._home).items():
            stored = releases.get_release(self._home, name, task.release) if task.release is not None else None
            prompt = stored.prompt if stored else None
            policy = self._config.policy_of(name)
            routed[name] = Routed(name=name, stage=task.stage, policy=policy, stored=stored, prompt=prompt)
        known = tuple(patterns.all_patterns(self._home))
        owners = {p.id: p.task for p in known if p.task is not None and not p.ignored}
        return _State(version, routed, known, owners, patterns.aliases(self._home))

    async def _make(self) -> None:
        """Take over new rules. With thousands of them it takes a second: what is served is looked after meanwhile."""
        try:
            self._found = await asyncio.to_thread(self._made)
        except Exception as error:  # noqa: BLE001 - the boundary of the rules: those that were made before still tell
            log.error("the rules of tasks cannot be read: %s", error)
        finally:
            self._making = None

    def _made(self) -> Rules:
        made = rules.made(self._known, self._found, self._load_matcher)
        self._faults += len(made.untold - self._found.untold)
        return made

    def _size(self, stored: Stored) -> int:
        return artefacts.size(artefacts.folder_of(self._home, stored.release.draft.artefact))

    def _look(self, state: _State) -> None:
        self._version, self._tasks = state.version, state.tasks
        self._known, self._owners, self._aliases = state.patterns, state.owners, state.aliases
        self._looked = self._clock()
        self.shelf.keep([stored for stored, _ in wanted(state.tasks)])

    # -- finding a request's task

    def declared(self, name: str, new: bool = True) -> Routed | None:
        """The task that a request's header names, by a name it has or had; a new name starts a task in `observe`.

        None if there are too many, or the name is new and may start none.
        """
        name = self._aliases.get(name, name)
        task = self._tasks.get(name)
        if task is None and new and len(self._tasks) < MAX_TASKS:
            task = Routed(name=name, stage=Stage.OBSERVE, policy=self._config.policy_of(name))
            self._tasks = {**self._tasks, name: task}
            started = asyncio.ensure_future(asyncio.to_thread(releases.ensure_task, self._home, name))
            self._started.add(started)
            started.add_done_callback(self._started.discard)
        return task

    @property
    def has_rules(self) -> bool:
        """Whether any rule tells a task: without one, an undeclared request need not be read."""
        return bool(self._rules or self._owners)

    def matched(self, request: Request) -> tuple[Routed | None, str | None]:
        """The task whose rule this request meets, and that rule in a word: people's rules first, then what was found.

        A rule out of the configuration is `config`; one that discovery found `fingerprint:N`, `template:N` or
        `meaning:N`, N being the pattern. Never raises: where a matcher fails, the request is no task's.
        """
        for name, rule in self._rules:
            if rules.meets(rule, request):
                return self._tasks.get(self._aliases.get(name, name)), "config"
        if not self._owners:
            return None, None
        try:
            met = self._found.finder.find(request)
        except Exception as error:  # noqa: BLE001 - the boundary of the matcher: its faults are escalations
            self._faults += 1
            log.error("the task of a request cannot be told, it escalates: %s", type(error).__name__)
            return None, None
        if met is None or met.pattern in self._found.untold or met.pattern not in self._owners:
            return None, None
        return self._tasks.get(self._owners[met.pattern]), f"{met.how}:{met.pattern}"

    # -- asking its specialist

    async def read(self, task: Routed, request: Request) -> str | Reason:
        """What the task's specialist reads of this request, or why it is not asked; pins the prompt if need be."""
        prompt = task.prompt
        if prompt is None:
            assert task.stored is not None
            if request.unsupported:
                return Reason.UNSUPPORTED
            pinned = Prompt.pinned(request)
            try:
                prompt = await asyncio.to_thread(releases.pin, self._home, task.name, task.stored.n, pinned)
            except Exception as error:  # noqa: BLE001 - the boundary of the specialist: without its prompt it is no use
                log.error("the prompt of %s cannot be pinned, the request escalates: %s", task.stored.name, error)
                self._faults += 1
                return Reason.FAULT
        return prompt.read(request)

    def broken(self, task: Routed | None) -> bool:
        """Whether there is a release, and it could not be loaded."""
        return task is not None and task.stored is not None and self.shelf.is_broken(task.stored)

    async def predict(
        self, task: Routed, text: str, elsewhere: Elsewhere | None = None
    ) -> tuple[Prediction, Rendered] | Reason:
        """The specialist's prediction, and how it is written; FAULT or TIMEOUT where it fails.

        `elsewhere` asks a specialist that is an upstream's model; EGRESS_DENIED where the request may not leave for it.
        Raises nothing but its Refused, which is for the caller: a budget that is used up.
        """
        assert task.stored is not None
        most_ms = budget_ms = task.policy.latency_ms(task.stored.release.draft.generates)
        try:
            loaded = self.shelf.ready(task.stored)
            if loaded is None:
                began = self._clock()
                loaded = await self.shelf.get(task.stored, budget_ms / 1e3)
                budget_ms -= (self._clock() - began) * 1e3
            if loaded is None:
                return Reason.FAULT
            if loaded.remote is None:
                prediction = await self.asking.ask(loaded, text, budget_ms)
            elif elsewhere is None:
                return Reason.FAULT
            else:
                async with asyncio.timeout(budget_ms / 1e3):
                    prediction = await elsewhere(loaded.remote, text)
            return prediction, loaded.rendered(prediction.value)
        except Denied:
            return Reason.EGRESS_DENIED
        except Refused:
            raise
        except TimeoutError:
            self._faults += 1
            self._tell(task.stored, f"gave no answer within {most_ms:g} ms")
            return Reason.TIMEOUT
        except Exception as error:  # noqa: BLE001 - the boundary of the specialist: its faults are escalations
            self._faults += 1
            self._tell(task.stored, f"failed: {type(error).__name__}")
            return Reason.FAULT

    def _tell(self, stored: Stored, what: str) -> None:
        """Log a fault of a release, though not each of thousands."""
        now = self._clock()
        if now - self._told.get(stored.name, -TELL_S) >= TELL_S:
            self._told[stored.name] = now
            log.error("release %s %s, the request escalates", stored.name, what)
