"""What may be served right now: tasks, stages and loaded releases, kept within a second of the home's state."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import msgspec

from suffice.core.config import Config, Match
from suffice.core.find import Finder
from suffice.core.prompt import INSTRUCTIONS, Prompt
from suffice.core.protocols import Specialist
from suffice.core.style import Rendered
from suffice.core.types import Policy, Prediction, Reason, Request, Stage
from suffice.proof.monitor import Audits
from suffice.serve.watch import Published, stamp
from suffice.store import patterns, releases
from suffice.store.home import Home
from suffice.store.patterns import Pattern
from suffice.store.releases import Stored

log = logging.getLogger(__name__)
_published = msgspec.json.Decoder(Published).decode

POLL_S = 0.25
STALE_S = 1.0
"""Without a successful look at the home's state for this long, specialists do not answer."""
INLINE_CHARS = 4_000
INLINE_MS = 5.0
"""A specialist this fast on a text this short answers on the event loop: a thread's hand-over would cost more."""
MAX_TASKS = 10_000

Load = Callable[[Stored], Specialist]
"""Loads a release's specialist; raises ArtefactError. Handed in, so that serving knows no model family."""
LoadMatcher = Callable[[str], Specialist]
"""Loads what tells work apart by meaning, by its artefact's digest; raises ArtefactError."""


@dataclass(frozen=True)
class Watched:
    """What a worker stamps on the requests of a task under watch, as the keeper published it last."""

    n: int
    release: int
    audits: Audits
    stakes: str


@dataclass(frozen=True)
class Routed:
    """A task as this worker serves it. `specialist` is None where there is no release or it could not be loaded."""

    name: str
    stage: Stage
    policy: Policy
    stored: Stored | None = None
    specialist: Specialist | None = None
    prompt: Prompt | None = None
    watch: Watched | None = None

    @property
    def broken(self) -> bool:
        """There is a release, and it cannot be used."""
        return self.stored is not None and self.specialist is None


@dataclass(frozen=True)
class Rules:
    """How undeclared requests are told, made of the patterns with these `keys`.

    `untold` are the patterns whose matcher could not be loaded: their requests may be any of several works.
    """

    finder: Finder
    matchers: Mapping[str, Specialist]
    untold: frozenset[int]
    keys: tuple[object, ...]


@dataclass(frozen=True)
class _State:
    """What a look at the home found: `owners` are the tasks of patterns, `aliases` the names that tasks had."""

    version: int
    tasks: Mapping[str, Routed]
    patterns: tuple[Pattern, ...]
    owners: Mapping[int, str]
    aliases: Mapping[str, str]


class Roster:
    """Polls the home, loads releases, finds a request's task and asks its specialist."""

    def __init__(
        self,
        home: Home,
        config: Config,
        load: Load,
        load_matcher: LoadMatcher,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._config, self._load, self._clock = home, config, load, clock
        self._load_matcher = load_matcher
        self._found = Rules(Finder([], {}), {}, frozenset(), ())
        self._known: tuple[Pattern, ...] = ()
        self._owners: Mapping[int, str] = {}
        self._aliases: Mapping[str, str] = {}
        self._rules = [(name, task.match) for name, task in config.tasks.items() if task.match is not None]
        self._tasks: Mapping[str, Routed] = {}
        self._looked = -STALE_S
        self._data_version = self._version = -1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="specialist")
        self._started: set[asyncio.Task[None]] = set()
        self._making: asyncio.Task[None] | None = None
        self.faults = 0

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

    # -- keeping up with the home

    def open(self) -> None:
        """Connect and load what there is. Raises sqlite3.Error."""
        self._connection = self._home.connect()
        for name in self._config.tasks:
            releases.ensure_task(self._home, name)
        self._look(self._loaded())
        self._found = self._made(self._known)
        self._watch()

    async def run(self) -> None:
        """Look every 250 ms, for ever. A failed look is logged and ages the state; it never ends the loop."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                routing, watches = self._changed()
                if routing:
                    self._look(await asyncio.to_thread(self._loaded))
                if routing or watches:
                    self._watch()
                self._looked = self._clock()
                if self._making is None and _keys(self._known) != self._found.keys:
                    self._making = asyncio.ensure_future(self._make())
            except Exception as error:  # noqa: BLE001 - the boundary of the poll: serving must go on without it
                self._data_version = -1
                log.error("the routing state cannot be read: %s", error)

    def close(self) -> None:
        """Let go of the database and the specialist's thread."""
        self._connection.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

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

    def _loaded(self) -> _State:
        """Read the state and load what is new; what is loaded already is kept."""
        with sqlite3.connect(self._home.db_path) as connection:
            version = connection.execute("SELECT version FROM routing").fetchone()[0]
        routed: dict[str, Routed] = {}
        for name, task in releases.all_tasks(self._home).items():
            stored = releases.get_release(self._home, name, task.release) if task.release is not None else None
            specialist = self._specialist(stored) if stored and task.stage is not Stage.OBSERVE else None
            routed[name] = Routed(
                name=name,
                stage=task.stage,
                policy=self._config.policy_of(name),
                stored=stored,
                specialist=specialist,
                prompt=stored.prompt if stored else None,
            )
        known = tuple(patterns.all_patterns(self._home))
        owners = {p.id: p.task for p in known if p.task is not None and not p.ignored}
        return _State(version, routed, known, owners, patterns.aliases(self._home))

    async def _make(self) -> None:
        """Take over new rules. With thousands of them it takes a second: what is served is looked after meanwhile."""
        try:
            self._found = await asyncio.to_thread(self._made, self._known)
        except Exception as error:  # noqa: BLE001 - the boundary of the rules: those that were made before still tell
            log.error("the rules of tasks cannot be read: %s", error)
        finally:
            self._making = None

    def _made(self, known: Sequence[Pattern]) -> Rules:
        """The rules of what discovery has found by now."""
        loaded = {p.id: matcher for p in known if (matcher := self._matcher(p)) is not None}
        return Rules(
            finder=patterns.finder_of(known, loaded),
            matchers={str(p.matcher): loaded[p.id] for p in known if p.id in loaded},
            untold=frozenset(p.id for p in known if p.matcher is not None and p.id not in loaded),
            keys=_keys(known),
        )

    def _matcher(self, pattern: Pattern) -> Specialist | None:
        """What tells the works of a pattern apart, if it has several and that can be loaded."""
        if pattern.matcher is None:
            return None
        if pattern.matcher in self._found.matchers:
            return self._found.matchers[pattern.matcher]
        try:
            matcher = self._load_matcher(pattern.matcher)
            matcher.predict([""])
            return matcher
        except Exception as error:  # noqa: BLE001 - the boundary of loading: what it would tell is no task's
            self.faults += 1
            log.error("the matcher of pattern %s cannot be loaded: %s", pattern.id, error)
            return None

    def _specialist(self, stored: Stored) -> Specialist | None:
        known = self._tasks.get(stored.task)
        if known is not None and known.stored is not None and known.specialist and known.stored.digest == stored.digest:
            return known.specialist
        try:
            specialist = self._load(stored)
            specialist.predict([""])  # the first call sets things up; no request should wait for that
            return specialist
        except Exception as error:  # noqa: BLE001 - the boundary of loading: what cannot be loaded escalates
            self.faults += 1
            log.error("release %s cannot be loaded, its task escalates: %s", stored.name, error)
            return None

    def _look(self, state: _State) -> None:
        self._version, self._tasks = state.version, state.tasks
        self._known, self._owners, self._aliases = state.patterns, state.owners, state.aliases
        self._looked = self._clock()

    # -- finding a request's task

    def declared(self, name: str) -> Routed | None:
        """The task that a request's header names, by a name it has or had; a new name starts a task in `observe`.

        None if there are too many.
        """
        name = self._aliases.get(name, name)
        task = self._tasks.get(name)
        if task is None and len(self._tasks) < MAX_TASKS:
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
            if meets(rule, request):
                return self._tasks.get(self._aliases.get(name, name)), "config"
        if not self._owners:
            return None, None
        try:
            met = self._found.finder.find(request)
        except Exception as error:  # noqa: BLE001 - the boundary of the matcher: its faults are escalations
            self.faults += 1
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
                self.faults += 1
                return Reason.FAULT
        return prompt.read(request)

    async def predict(self, task: Routed, text: str) -> tuple[Prediction, Rendered] | Reason:
        """The specialist's prediction, and how it is written; FAULT or TIMEOUT where it fails. Never raises."""
        assert task.specialist is not None and task.stored is not None
        ask = task.specialist.predict
        try:
            if len(text) <= INLINE_CHARS and task.stored.release.report.latency_p99_ms <= INLINE_MS:
                prediction = ask([text])[0]
            else:
                async with asyncio.timeout(task.policy.max_latency_ms / 1e3):
                    loop = asyncio.get_running_loop()
                    prediction = (await loop.run_in_executor(self._thread, ask, [text]))[0]
            return prediction, task.stored.serving.style.render(prediction.value)
        except TimeoutError:
            self.faults += 1
            return Reason.TIMEOUT
        except Exception as error:  # noqa: BLE001 - the boundary of the specialist: its faults are escalations
            self.faults += 1
            log.error("release %s failed, the request escalates: %s", task.stored.name, type(error).__name__)
            return Reason.FAULT


def _keys(known: Sequence[Pattern]) -> tuple[object, ...]:
    """What rules are made of: that a task is renamed makes no new ones. The rule of a pattern never changes."""
    return tuple((p.id, p.matcher, p.least) for p in known)


def meets(rule: Match, request: Request) -> bool:
    """Whether a request meets every condition of a rule."""
    if rule.model is not None and rule.model != request.model:
        return False
    if rule.tool is not None and f'"name":"{rule.tool}"' not in request.tools:
        return False
    for wanted, roles in ((rule.system_contains, INSTRUCTIONS), (rule.user_contains, ("user",))):
        if wanted is not None and not any(wanted in m.text for m in request.messages if m.role in roles):
            return False
    return True
