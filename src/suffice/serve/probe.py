"""The probe: the frontier is asked again what it has answered before. Does it still say the same?

An alarm means that the specialist and the frontier have grown apart; either may have moved. A few earlier requests are
asked again when a watch opens (some frontiers never say the same thing twice) and after an alarm.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.types import digest_of
from suffice.core.values import canonical
from suffice.serve.edges import Refused
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.upstream import UpstreamError, Upstreams
from suffice.serve.watch import Probed
from suffice.store import records, watches
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.wire import dialects

log = logging.getLogger(__name__)

CHANGED = 0.01
"""The chance of so many more differences, if the frontier were as before, at which it counts as changed."""
HAS_CHANGED = "the frontier has changed"
DOUBTFUL = 0.2
"""... and below which nobody should say that it has not."""
FEWEST = 20
"""Requests below which the probe would tell nothing."""
AT_ONCE = 8
PAUSE_S = 20.0
"""Between two searches for requests to ask."""
JSON_TYPE = [(b"content-type", b"application/json")]


class Probe:
    """Asks in threads of its own. `upstreams` makes a client of the settings; keys are those that are configured."""

    def __init__(
        self,
        home: Home,
        config: Config,
        upstreams: Callable[[Config], Upstreams],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home, self._config, self._upstreams, self._steady = home, config, upstreams, steady
        self._begun: dict[str, Probed] = {}
        self._next: dict[str, float] = {}
        self._asking: set[str] = set()

    def adopt(self, config: Config) -> None:
        """Ask by these settings from now on."""
        self._config = config

    def begin(self, task: str, size: int) -> None:
        """Choose earlier requests of a task and ask them once, if enough are there; `begun` then gives the outcome.

        To be called until it does: a task that was learned from a file has no earlier requests but its first audits.
        """
        if not size or task in self._asking or self._steady() < self._next.get(task, -math.inf):
            return
        self._next[task] = self._steady() + PAUSE_S
        self._asking.add(task)

        def ask() -> None:
            try:
                chosen = self._chosen(task, size)
                if len(chosen) >= min(size, FEWEST):
                    self._begun[task] = self._asked(task, chosen, tuple(chosen))
            finally:
                self._asking.discard(task)

        _thread(ask)

    def is_done(self, task: str) -> bool:
        """Whether `begun` has something to tell."""
        return task in self._begun

    def begun(self, task: str) -> Probed | None:
        """What the first asking has shown; once."""
        return self._begun.pop(task, None)

    def again(self, task: str, first: Probed | None, then: Callable[[Probed | None, Probed | None], None]) -> None:
        """Ask the same requests again; `then` is called with both outcomes."""

        def ask() -> None:
            now = None
            if first is not None and first.records:
                rows = [row for row, _ in records.query(self._home, ids=first.records)]
                now = self._asked(task, self._answered(rows), first.records)
            then(first, now)

        _thread(ask)

    def _chosen(self, task: str, size: int) -> dict[str, tuple[Row, bytes]]:
        """Requests with the frontier's answers, by record; none that reached it only for being hard."""
        rows = [row for row, _ in records.query(self._home, task=task, limit=100 * size)]
        found = self._answered([row for row in rows if row.audited or row.stage not in ("canary", "live")])
        return {name: found[name] for name in sorted(found, key=digest_of)[:size]}

    def _answered(self, rows: Sequence[Row]) -> dict[str, tuple[Row, bytes]]:
        """Request and the frontier's answer, by record; an audit's answer where a specialist gave the caller his."""
        audits = watches.get_audits(self._home, [row.id for row in rows if row.audited])
        found = {}
        for row in rows:
            audit = audits.get(row.id)
            own = row.answer if row.route != "specialist" and row.status == 200 and row.failure is None else None
            answer = audit.answer if audit is not None else own
            if row.dialect in dialects.DIALECTS and row.request is not None and answer is not None:
                found[row.id] = row, answer
        return found

    def _asked(self, task: str, requests: dict[str, tuple[Row, bytes]], names: tuple[str, ...]) -> Probed:
        """Ask these requests and compare with the answers given then."""
        if not requests:
            return Probed(records=names, asked=0, differing=0, failure="no earlier request with its answer is at hand")
        return asyncio.run(self._ask(task, requests, names))

    async def _ask(self, task: str, requests: dict[str, tuple[Row, bytes]], names: tuple[str, ...]) -> Probed:
        slots = asyncio.Semaphore(AT_ONCE)

        async def same(row: Row, before: bytes) -> bool | str:
            async with slots:
                try:
                    return dialects.heard(await self._answer(outbound, task, row)) == dialects.heard(before)
                except (UpstreamError, InputError, Refused) as error:
                    return str(error)

        async with self._upstreams(self._config) as upstreams:
            outbound = Outbound(self._config, upstreams)
            found = await asyncio.gather(*(same(row, before) for row, before in requests.values()))
        failure = next((said for said in found if isinstance(said, str)), None)
        asked = [said for said in found if not isinstance(said, str)]
        return Probed(records=names, asked=len(asked), differing=asked.count(False), failure=failure)

    async def _answer(self, outbound: Outbound, task: str, row: Row) -> bytes:
        """What an upstream answers to a recorded request now, under the rule of today for the task that is probed.

        The record may name no task: those of a discovered one were made before there was any.
        """
        dialect, body = dialects.of(row.dialect), row.request or b""
        sending = Sending(
            dialect=dialect,
            method="POST",
            path=dialect.path,
            headers=JSON_TYPE,
            model=row.model,
            body=body,
            egress=self._config.policy_of(task).egress,
        )
        async with outbound.call(sending, [], fallbacks=False) as heard:
            answer = await heard.whole()
            if heard.status != 200:
                raise InputError(f"upstream {heard.target.name!r} answered with status {heard.status}")
            whole = dialect.assemble(answer) if heard.streamed else None
            return canonical(whole).encode() if whole is not None else answer


def told(first: Probed | None, now: Probed | None) -> str:
    """What the two askings say about who has changed."""
    if first is None or now is None or not first.asked or not now.asked:
        why = next((p.failure for p in (now, first) if p is not None and p.failure), "the probe was not asked in time")
        return f"whether the frontier has changed is not known: {why}"
    seen = (
        f"{now.differing} of {now.asked} earlier requests get another answer from it now, "
        f"{first.differing} of {first.asked} did when the watch began"
    )
    chance = more_often(now.differing, now.asked, first.differing, first.asked)
    if chance <= CHANGED:
        return f"{HAS_CHANGED}: {seen}"
    if chance <= DOUBTFUL:
        return f"the frontier may have changed, or the traffic has drifted: {seen}"
    return f"no sign of a change in the frontier; more likely the traffic has drifted: {seen}"


def blames_frontier(cause: str) -> bool:
    """Whether this is what `told` says of a frontier that has changed: what it said before is wrong by now."""
    return HAS_CHANGED in cause


def more_often(k: int, n: int, before: int, m: int) -> float:
    """The chance of at least `k` of `n` where `before` of `m` were seen, if nothing has changed (Fisher 1935)."""
    total = k + before
    ways = math.comb(n + m, total)
    return sum(math.comb(n, i) * math.comb(m, total - i) for i in range(k, min(n, total) + 1)) / ways


def _thread(ask: Callable[[], None]) -> None:
    def guarded() -> None:
        try:
            ask()
        except Exception:  # the boundary of a probe: the watch goes on without it
            log.exception("the probe could not be asked")

    threading.Thread(target=guarded, name="probe", daemon=True).start()
