"""What the records say of volume: requests, tokens and dollars by task, model, route and day, summed by the database.

Imported rows count as traffic here, as if they had been paid for; `suffice costs` leaves them out. Not counted are
imported rows that nobody answered, and those of a file that told no times: they all bear the moment of the import.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.core.types import Reason
from suffice.store import schema
from suffice.store.home import Home
from suffice.store.records import FREE, total

DAY_S, HOUR_S = 86_400, 3_600
HOURS = 28 * 24
"""Hours that are counted at most, the last ones."""
BYTES_A_TOKEN = 4
"""As `core.style.estimated_tokens` has it."""
WRAPPED = len('{"input":""}')
"""Bytes around a text of the short form."""
AT_ONCE = 20
"""Imported rows that share one instant finer than a millisecond were told no time."""
STEP = 20_000
"""Records that are grouped at once: sorting a million in one go leaves the processor's cache: twice the time."""
DECIDED = frozenset(
    reason.value
    for reason in (
        Reason.ACCEPTED,
        Reason.BELOW_THRESHOLD,
        Reason.UNFAMILIAR,
        Reason.SLICE,
        Reason.CONTRACT,
        Reason.PROMPT_CHANGED,
        Reason.UNSUPPORTED,
        Reason.FAULT,
        Reason.TIMEOUT,
    )
)
"""Reasons of requests that were a specialist's to answer."""
THREADS = 4
_UNPRICED, _ESTIMATED, _UNCOUNTED, _BROKEN, _FLAGS = (1 << place for place in range(5))
"""What is packed into a number beside the day, in the order of `_grouped`."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one day, task, model, route and reason.

    `day`: 24 hours each, counted from the first record on. `source`: live | import. `priced`: `usd` is what they cost
    together; else nobody knows it, or nobody is paid. `told`: the vendor counted the tokens; else they are estimates,
    from the texts or from the sizes of what is stored. `cached` and `written` are parts of `prompt`.
    """

    day: int
    task: str | None
    model: str
    route: str
    reason: str
    source: str
    priced: bool
    told: bool
    requests: int
    prompt: int
    completion: int
    cached: int
    written: int
    usd: float

    @property
    def free(self) -> bool:
        """Whether no upstream is paid for them."""
        return self.route in FREE

    @property
    def decided(self) -> bool:
        """Whether they were a specialist's to answer, whether it did or not."""
        return self.reason in DECIDED


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    """The audits of one day, task and model. Those that are not `priced` have no known cost."""

    day: int
    task: str | None
    model: str
    priced: bool
    audits: int
    prompt: int
    completion: int
    usd: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """All that was recorded from `start` to `end` (seconds since 1970, first and last record).

    `hours`: records in each hour from the start on, or in the last `HOURS`. `unanswered`: live requests that failed,
    and `untimed`: imported rows of which no time is known; neither is among the flows.
    """

    start: float
    end: float
    flows: tuple[Flow, ...]
    audits: tuple[Audited, ...]
    hours: tuple[int, ...]
    unanswered: int
    untimed: int


def read(home: Home, since: float | None = None, until: float | None = None) -> Traffic | None:
    """Traffic from a time on and before another (seconds since 1970); None where there was none."""
    at = schema.records.c.at
    with home.engine.connect() as db:
        untimed = _untimed(db, since, until)
        wanted = _within(at, since, until) + ([at.not_in(list(untimed))] if untimed else [])
        start, end = db.execute(sa.select(sa.func.min(at), sa.func.max(at)).where(*wanted)).one()
        if start is None:
            return None
        owners = _Owners(db)
        first = start + HOUR_S * max(math.ceil((end - start) / HOUR_S) - HOURS, 0)
        hour = _bin(at, first, HOUR_S).label("hour")
        by_hour = sa.select(hour, sa.func.count().label("n")).where(at >= first, *wanted).group_by(hour)
        hours = {row.hour: row.n for row in db.execute(by_hour)}
        audits = _audits(db, start, _within(schema.audits.c.at, since, until), owners)
    flows, unanswered = _flows(home, start, wanted, owners)
    if not flows:
        return None
    return Traffic(
        start=start,
        end=end,
        flows=tuple(flows),
        audits=tuple(audits),
        hours=tuple(hours.get(n, 0) for n in range(max(hours) + 1)),
        unanswered=unanswered,
        untimed=sum(untimed.values()),
    )


class _Owners:
    """Whose a record is: its pattern's task, else the one that it was recorded with, as it is called today."""

    def __init__(self, db: sa.Connection) -> None:
        pattern, alias = schema.patterns.c, schema.aliases.c
        known, names = db.execute(sa.select(pattern.id, pattern.task)), db.execute(sa.select(alias.name, alias.task))
        self._patterns: dict[int, str | None] = {row.id: row.task for row in known}
        self._aliases: dict[str, str] = {row.name: row.task for row in names}

    def task(self, recorded: str | None, pattern: int | None) -> str | None:
        """The task's name today; None: it belongs to none."""
        if pattern is not None:
            return self._patterns.get(pattern)
        return self._aliases.get(recorded, recorded) if recorded is not None else None


def _untimed(db: sa.Connection, since: float | None, until: float | None) -> dict[float, int]:
    """Instants that only an import can have given, with the rows that bear them. Reads the index on `at` alone."""
    at, name = schema.records.c.at, schema.records.c.id
    if db.execute(sa.select(name).where(name.between("imp_", "imp_~")).limit(1)).first() is None:
        return {}
    shared = sa.select(at, sa.func.count()).where(*_within(at, since, until)).group_by(at)
    found = db.execute(shared.having(sa.func.count() >= AT_ONCE))
    return {
        when: count for when, count in found if not math.isclose(when * 1e3, round(when * 1e3), rel_tol=0, abs_tol=0.02)
    }


def _flows(
    home: Home, start: float, wanted: Sequence[sa.ColumnElement[bool]], owners: _Owners
) -> tuple[list[Flow], int]:
    """The flows, and how many live requests were not answered."""
    sums: defaultdict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0] * 6)
    unanswered = 0
    for row in _grouped(home, start, wanted):
        packed, recorded, pattern, model, route, reason, source, *counted = row
        day, flags = divmod(packed, _FLAGS)
        if flags & _UNCOUNTED and (flags & _BROKEN or (source == "import" and route == "none")):
            unanswered += counted[0] if source == "live" else 0
            continue
        told = not flags & (_ESTIMATED | _UNCOUNTED)
        task = owners.task(recorded, pattern)
        into = sums[day, task, model, route, reason, source, not flags & _UNPRICED, told]
        for i, value in enumerate(counted):
            into[i] += value or 0
    if any(not key[-1] for key in sums):
        with home.engine.connect() as db:
            _add_sizes(db, start, wanted, owners, sums)
    order = sorted(sums, key=lambda key: tuple((part is not None, part) for part in key))
    return [Flow(**dict(zip(Flow.__struct_fields__, (*key, *sums[key]), strict=True))) for key in order], unanswered


def _grouped(home: Home, start: float, wanted: Sequence[sa.ColumnElement[bool]]) -> Iterator[tuple[Any, ...]]:
    """Sums by day and flags (packed into one number, which is fast to sort), task, pattern, model, route, reason and
    source, a step of records at a time, on as many threads as there are processors: the database leaves Python's lock
    while it counts."""
    record, member = schema.records.c, schema.members.c
    broken = sa.or_(record.status.is_distinct_from(200), record.failure.is_not(None))
    flags = (record.cost_usd.is_(None), record.tokens_estimated, record.completion_tokens.is_(None), broken)
    bits = [sa.type_coerce(flag, sa.Integer) * (1 << place) for place, flag in enumerate(flags)]
    packed = sum(bits, start=_bin(record.at, start, DAY_S) * _FLAGS).label("packed")
    groups = (packed, record.task, member.pattern, record.model, record.route, record.reason, record.source)
    sums = [sa.func.sum(record[f"{kind}_tokens"]) for kind in ("prompt", "completion", "cached", "written")]
    grouped = (
        sa.select(*groups, sa.func.count(), *sums, sa.func.sum(record.cost_usd))
        .select_from(schema.records)
        .outerjoin(schema.members, member.seq == record.seq)
        .where(record.seq > sa.bindparam("after"), record.seq <= sa.bindparam("last"), *wanted)
        .group_by(*groups)
    )
    with home.engine.connect() as db:
        last = db.execute(sa.select(sa.func.max(record.seq))).scalar() or 0

    def step(after: int) -> list[tuple[Any, ...]]:
        with home.engine.connect() as db:
            found = db.execute(grouped, {"after": after, "last": after + STEP})
            return [tuple(row) for row in found]

    with ThreadPoolExecutor(min(os.cpu_count() or 1, THREADS)) as threads:
        for rows in threads.map(step, range(0, last, STEP)):
            yield from rows


def _add_sizes(
    db: sa.Connection,
    start: float,
    wanted: Sequence[sa.ColumnElement[bool]],
    owners: _Owners,
    sums: Mapping[tuple[Any, ...], list[Any]],
) -> None:
    """Add tokens to the flows of requests that have no counts, by the sizes of what is stored of them."""
    record, member = schema.records.c, schema.members.c
    day = _bin(record.at, start, DAY_S).label("day")
    around = sa.case((record.dialect == "short", WRAPPED), else_=0)
    asked = (sa.func.coalesce(sa.func.length(record.request), around) - around) // BYTES_A_TOKEN
    asked = sa.case((record.prompt_tokens.is_(None), asked), else_=0)
    said = sa.func.coalesce(sa.func.length(record.answer), 0) // BYTES_A_TOKEN
    priced = record.cost_usd.is_not(None).label("priced")
    groups = (day, record.task, member.pattern, record.model, record.route, record.reason, record.source, priced)
    sized = (
        sa.select(*groups, total(asked), total(said))
        .select_from(schema.records)
        .outerjoin(schema.members, member.seq == record.seq)
        .where(record.completion_tokens.is_(None), record.status == 200, record.failure.is_(None), *wanted)
        .where(sa.or_(record.source == "live", record.route != "none"))
        .group_by(*groups)
    )
    for of, recorded, pattern, *rest, prompt, completion in db.execute(sized):
        into = sums.get((of, owners.task(recorded, pattern), *rest[:4], bool(rest[4]), False))
        if into is not None:
            into[1] += prompt
            into[2] += completion


def _audits(
    db: sa.Connection, start: float, wanted: Sequence[sa.ColumnElement[bool]], owners: _Owners
) -> list[Audited]:
    audit, record, member = schema.audits.c, schema.records.c, schema.members.c
    groups = (
        _bin(audit.at, start, DAY_S).label("day"),
        record.task,
        member.pattern,
        record.model,
        audit.cost_usd.is_not(None).label("priced"),
    )
    sums = (total(audit.prompt_tokens), total(audit.completion_tokens), total(audit.cost_usd))
    found = (
        sa.select(*groups, sa.func.count(), *sums)
        .select_from(schema.audits)
        .outerjoin(schema.records, record.id == audit.record)
        .outerjoin(schema.members, member.seq == record.seq)
        .where(*wanted)
        .group_by(*groups)
    )
    return [
        Audited(
            day=day,
            task=owners.task(recorded, pattern),
            model=model or "",
            priced=bool(priced),
            audits=audits,
            prompt=prompt,
            completion=completion,
            usd=usd,
        )
        for day, recorded, pattern, model, priced, audits, prompt, completion, usd in db.execute(found)
    ]


def _bin(at: sa.ColumnElement[float], start: float, seconds: int) -> sa.ColumnElement[int]:
    return sa.cast((at - start) / seconds, sa.Integer)


def _within(at: sa.ColumnElement[float], since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    return ([at >= since] if since is not None else []) + ([at < until] if until is not None else [])
