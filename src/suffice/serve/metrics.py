"""Metrics: what a worker counts, and one page with what all workers of the home have counted.

The request path adds to some doubles (`slots`); tokens and dollars are counted from rows that are on the disk, in the
writer's thread, so that they are those of the bill. What other parts count for themselves is fetched from them each
second and when somebody asks.
"""

from __future__ import annotations

import asyncio
import math
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from suffice.core.config import Config
from suffice.proof import monitor
from suffice.serve import slots
from suffice.serve.capture import Attempt, Exchange
from suffice.serve.families import ADDED_S, FAMILIES, HIGHEST, PREDICT_S, REQUEST_S, text
from suffice.serve.slots import Slots
from suffice.serve.watch import state_of
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.store.watches import Audit

FOLDER = "metrics"
EVERY_S = 1.0
MOST_NAMES = {"task": 200, "key": 200, "model": 100}
MOST_SPENT = 2_000
"""Series of tokens and dollars; with more combinations than this the rest is counted as one."""
OTHER, NOBODY = "other", "none"

Sample = tuple[str, tuple[str, ...], float]
"""A metric's name, its labels' values, and the number by now."""
Collect = Callable[[], Iterable[Sample]]

_attempts = msgspec.json.Decoder(list[Attempt]).decode


class Metrics:
    """Counts. `began`, `ended`, `collected` and `text` belong to the event loop, `rows` to the writer's thread,
    `audited` to any. `folder` is where the workers' numbers are; None: this worker's are all there are.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._slots = folder, Slots(folder)
        self._values = self._slots.values
        for family in FAMILIES.values():
            if family.kind == "gauge":
                self._slots.clear(family.name + "\t")
        self._lost = self._slots.claim("lost\t[]", max(family.width for family in FAMILIES.values()))
        self._places: dict[tuple[str, tuple[str, ...]], int] = {}
        self._in_flight = self._at("suffice_requests_in_flight")
        self._predict = self._at("suffice_predict_seconds")
        self._done: dict[tuple[str, str, str, int], tuple[int, int, int, int, int]] = {}
        self._spent: dict[tuple[str, str, str, str], tuple[int, ...]] = {}
        self._names: dict[str, set[str]] = {kind: set() for kind in MOST_NAMES}
        self._priced: frozenset[str] = frozenset()
        self._collect: Collect | None = None
        self._last: dict[tuple[str, tuple[str, ...]], float] = {}
        self._audit_lock = threading.Lock()

    def _at(self, name: str, *labels: str) -> int:
        """Where a series is counted. When all room is taken, at a place that nobody reads."""
        place = self._places.get((name, labels))
        if place is None:
            family = FAMILIES[name]
            try:
                place = self._slots.claim(family.slot(labels), family.width)
            except MemoryError:
                place = self._lost
            self._places[name, labels] = place  # labels are of closed lists, or capped
        return place

    # -- the request path

    def began(self) -> None:
        """A request has arrived."""
        self._values[self._in_flight] += 1.0

    def ended(self, exchange: Exchange) -> None:
        """It is over."""
        values = self._values
        values[self._in_flight] -= 1.0
        key = (exchange.route, exchange.reason, exchange.dialect, (exchange.status or 0) // 100)
        known = self._done.get(key)
        if known is None:
            known = self._done[key] = self._series(*key)
        requests, answers, whole, first, added = known
        values[requests] += 1.0
        values[answers] += 1.0
        took_s = (exchange.latency_ms or exchange.elapsed_ms()) / 1e3
        values[whole + bisect_left(REQUEST_S, took_s)] += 1.0
        values[whole + len(REQUEST_S) + 1] += took_s
        if exchange.first_chunk_ms is not None:
            first_s = exchange.first_chunk_ms / 1e3
            values[first + bisect_left(REQUEST_S, first_s)] += 1.0
            values[first + len(REQUEST_S) + 1] += first_s
        added_s = took_s
        if exchange.asked_ms is not None:
            away_ms = exchange.heard_ms - exchange.asked_ms if exchange.heard_ms is not None else 0.0
            added_s = max(took_s - away_ms / 1e3, 0.0)
        values[added + bisect_left(ADDED_S, added_s)] += 1.0
        values[added + len(ADDED_S) + 1] += added_s
        if exchange.predict_ms is not None:
            predict_s = exchange.predict_ms / 1e3
            values[self._predict + bisect_left(PREDICT_S, predict_s)] += 1.0
            values[self._predict + len(PREDICT_S) + 1] += predict_s

    def _series(self, route: str, reason: str, dialect: str, status: int) -> tuple[int, int, int, int, int]:
        return (
            self._at("suffice_requests_total", route, reason),
            self._at("suffice_answers_total", route, dialect, f"{status}xx" if status else NOBODY),
            self._at("suffice_request_seconds", route),
            self._at("suffice_first_byte_seconds", route),
            self._at("suffice_added_seconds", route),
        )

    # -- from the disk

    def rows(self, written: Sequence[Row]) -> None:
        """Rows that are on the disk: their tokens, dollars and attempts."""
        for row in written:
            self._spend(row)
            if row.attempts is not None:
                for attempt in _attempts(row.attempts):
                    self._tried(attempt.upstream, attempt.status)
            if row.upstream is not None and (row.failure is None or row.status == 200 or row.attempts is None):
                self._tried(row.upstream, row.status if row.failure is None or row.status == 200 else None)

    def _spend(self, row: Row) -> None:
        values = self._values
        who = (row.task or NOBODY, row.key or NOBODY, row.model, row.upstream or row.route)
        known = self._spent.get(who)
        if known is None:
            labels = (
                self._name("task", who[0]),
                self._name("key", who[1]),
                self._name("model", who[2]) if row.cost_usd is not None or who[2] in self._priced else OTHER,
                who[3],
            )
            if len(self._spent) >= MOST_SPENT:
                labels = (OTHER, OTHER, OTHER, OTHER)
            kinds = ("prompt", "cached", "written", "completion")
            known = (
                *(self._at("suffice_tokens_total", kind, *labels) for kind in kinds),
                self._at("suffice_cost_usd_total", *labels),
                self._at("suffice_unpriced_total", *labels),
            )
            if len(self._spent) < MOST_SPENT and OTHER not in labels:
                self._spent[who] = known
        tokens = (row.prompt_tokens, row.cached_tokens, row.written_tokens, row.completion_tokens)
        for at, count in zip(known, tokens, strict=False):
            if count:
                values[at] += count
        if row.cost_usd is not None:
            values[known[4]] += row.cost_usd
        elif row.upstream is not None and row.completion_tokens is not None:
            values[known[5]] += 1.0

    def _name(self, kind: str, value: str) -> str:
        names = self._names[kind]
        if value not in names:
            if len(names) >= MOST_NAMES[kind]:
                return OTHER
            names.add(value)
        return value

    def _tried(self, upstream: str, status: int | None) -> None:
        outcome = "failed" if status is None else f"{status // 100}xx"
        self._values[self._at("suffice_upstream_attempts_total", upstream, outcome)] += 1.0

    def audited(self, audit: Audit) -> None:
        """What came of an audit."""
        with self._audit_lock:
            self._values[self._at("suffice_audits_total", "failed" if audit.failure else "answered")] += 1.0
            if audit.cost_usd is not None:
                self._values[self._at("suffice_audit_cost_usd_total", audit.upstream or NOBODY)] += audit.cost_usd

    # -- what others count

    def watch(self, config: Config, collect: Collect) -> asyncio.Task[None]:
        """Fetch numbers from here from now on, until the task is cancelled; models that the settings name have a name.

        They are fetched each second too: the worker that is asked for the page may be another.
        """
        named = (name for upstream in config.upstreams.values() for name in upstream.models)
        self._priced = frozenset({*config.prices, *(name for name in named if not set(name) & set("*?["))})
        self._collect = collect
        return asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            self.collected()
            await asyncio.sleep(EVERY_S)

    def collected(self) -> None:
        """Take over what others have counted: a gauge as it is, of a counter what has been added."""
        for name, labels, value in self._collect() if self._collect is not None else ():
            at = self._at(name, *labels)
            if FAMILIES[name].kind == "gauge":
                self._values[at] = value
            else:
                known = self._last.get((name, labels), 0.0)
                self._values[at] += value - known if value >= known else value
                self._last[name, labels] = value

    async def text(self, home: Home) -> str:
        """The page: what all workers have counted, and how the tasks of the home stand."""
        self.collected()
        return await asyncio.to_thread(self._page, home)

    def _page(self, home: Home) -> str:
        series = slots.added(self._folder, HIGHEST) if self._slots.is_shared and self._folder else self._slots.own()
        told = {FAMILIES[name].slot(labels): [value] for name, labels, value in _of_home(home)}
        return text({**series, **told})


def _of_home(home: Home) -> list[Sample]:
    """Stages and open watches. The newest tasks beyond the bound are left out."""
    samples: list[Sample] = []
    tasks = sorted(releases.all_tasks(home).items())[: MOST_NAMES["task"]]
    samples += [("suffice_task_stage", (name, str(task.stage)), 1.0) for name, task in tasks]
    for name, watch in sorted(watches.open_watches(home).items())[: MOST_NAMES["task"]]:
        state = state_of(watch)
        samples.append(("suffice_watch_evidence", (name,), float(monitor.evidence(state.wealth))))
        if state.limit is not None:
            samples.append(("suffice_watch_alarm_at", (name,), -math.log(state.limit.delta)))
        samples.append(("suffice_watch_requests", (name,), float(state.steps)))
        for kind in ("audited", "settled", "differing", "missing"):
            samples.append(("suffice_watch_audits", (name, kind), float(getattr(state, kind))))
    return samples
