"""What the watch keeps: audits with their answers, the states of watches, the steps whose label was asked for.

Workers add audits; all else is the keeper's alone, so what it reads outside of a transaction is still so when it
writes. A state is written together with the place in the records up to which it speaks: a restart goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.core.types import Stage
from suffice.core.values import Value
from suffice.store import releases, schema
from suffice.store.bodies import STORED, Bodies, audit_about, body_about, trusted_about
from suffice.store.home import Home
from suffice.store.patterns import of_task

PLACE = "keeper_place"
MOST = 20_000
"""Steps read at once: what is left comes with the next look."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking the frontier about an accepted request: its answer, or one sentence why there is none."""

    record: str
    at: float
    upstream: str | None = None
    status: int | None = None
    answer: bytes | None = None
    failure: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """The task's n-th watch, over one release; `state` is JSON that only the keeper reads and writes."""

    task: str
    n: int
    release: int
    opened_at: float
    closed_at: float | None
    outcome: str | None
    state: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A request under watch, as its worker stamped it."""

    record: str
    task: str
    watch: int
    at: float
    reason: str
    coin: float | None
    audited: bool | None
    stakes: str


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """An audited step without its label, and all that may settle it.

    `answer` is the frontier's: what the audit brought, or the record's own where the canary's coin kept the specialist
    from answering. `failed`: the frontier was asked and gave none. `trusted` is the latest trusted answer, `kind`
    says whose it is; None without any.
    """

    record: str
    at: float
    coin: float
    stakes: str
    differs: float | None
    missing: bool
    predicted: str | None
    answer: bytes | None
    failed: bool
    trusted: Value
    kind: str | None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an audited step: how far the frontier's answer differs, and the loss; each None until then."""

    record: str
    differs: float | None
    loss: float | None


# ---------------------------------------------------------------------------------------------- audits


def add_audit(home: Home, audit: Audit) -> None:
    """Write an audit; a second one of the same record is passed over. Of a tombstone nothing that was said is kept:
    the frontier may have been asked before it became one."""
    values = msgspec.structs.asdict(audit)
    values["answer"] = home.bodies.sealed(audit.answer, audit_about(audit.record))
    values["sealed"] = home.bodies.keys.current
    record = schema.records.c
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        if db.execute(sa.select(record.id).where(record.id == audit.record, record.gone.is_not(None))).first():
            values["answer"] = None
        db.execute(schema.audits.insert().prefix_with("OR IGNORE"), values)


def get_audits(home: Home, records: Sequence[str]) -> dict[str, Audit]:
    """Audits by record."""
    table = schema.audits
    names = Audit.__struct_fields__
    with home.engine.connect() as db:
        wanted = sa.select(*(table.c[name] for name in names), table.c.sealed).where(table.c.record.in_(records))
        return {row["record"]: _audit(home.bodies, row) for row in db.execute(wanted).mappings()}


def _audit(bodies: Bodies, row: sa.RowMapping) -> Audit:
    values = dict(row)
    sealed = values.pop("sealed")
    return Audit(**{**values, "answer": bodies.opened(values["answer"], sealed, audit_about(values["record"]))})


# ---------------------------------------------------------------------------------------------- watches


def open_watches(home: Home) -> dict[str, Watch]:
    """The open watches, by task."""
    with home.engine.connect() as db:
        rows = db.execute(sa.select(schema.watches).where(schema.watches.c.closed_at.is_(None)))
        return {row.task: _watch(row) for row in rows}


def last_watch(home: Home, task: str) -> Watch | None:
    """The task's newest watch, open or closed."""
    table = schema.watches
    with home.engine.connect() as db:
        row = db.execute(sa.select(table).where(table.c.task == task).order_by(table.c.n.desc()).limit(1)).first()
        return _watch(row) if row is not None else None


def open_watch(home: Home, watch: Watch) -> None:
    """Open a watch."""
    with home.engine.begin() as db:
        db.execute(schema.watches.insert(), msgspec.structs.asdict(watch))


def close_watch(home: Home, task: str, n: int, outcome: str, at: float) -> None:
    """Close a watch. Its steps stay."""
    with home.engine.begin() as db:
        _close(db, task, n, outcome, at)


def revoke(home: Home, watch: Watch, state: str, before: tuple[Stage, int | None], why: str, at: float) -> bool:
    """Revoke what a watch is over, and close it with this state, at once; False if someone has moved the task since."""
    with home.engine.begin() as db:
        if not releases.moved(db, watch.task, before, Stage.REVOKED, watch.release, "alarm", why):
            return False
        _put_state(db, watch.task, watch.n, state)
        _close(db, watch.task, watch.n, "alarm", at)
        return True


def tell(home: Home, watch: Watch, state: str, kind: str, what: str) -> None:
    """Write the state of a watch, open or closed, and the event that goes with it."""
    with home.engine.begin() as db:
        _put_state(db, watch.task, watch.n, state)
        releases.noted(db, watch.task, kind, what)


def _close(db: sa.Connection, task: str, n: int, outcome: str, at: float) -> None:
    table = schema.watches
    db.execute(table.update().where(table.c.task == task, table.c.n == n).values(closed_at=at, outcome=outcome))


def _put_state(db: sa.Connection, task: str, n: int, state: str) -> None:
    table = schema.watches
    db.execute(table.update().where(table.c.task == task, table.c.n == n).values(state=state))


# ---------------------------------------------------------------------------------------------- steps


def place(home: Home) -> int:
    """Up to which row of the records the states speak."""
    with home.engine.connect() as db:
        value = db.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == PLACE)).scalar()
        return int(value) if value is not None else 0


def newest(home: Home) -> int:
    """The place of the newest record."""
    with home.engine.connect() as db:
        return db.execute(sa.select(sa.func.max(schema.records.c.seq))).scalar() or 0


def steps_since(home: Home, seq: int) -> tuple[list[Step], int]:
    """The steps after a place, in the order in which they were committed, and the place up to which they go."""
    table = schema.records
    columns = [table.c.id, *(table.c[name] for name in Step.__struct_fields__[1:])]
    wanted = sa.select(table.c.seq, *columns).where(table.c.seq > seq, table.c.watch.is_not(None))
    with home.engine.connect() as db:
        rows = db.execute(wanted.order_by(table.c.seq).limit(MOST)).all()
    steps = [Step(**dict(zip(Step.__struct_fields__, row[1:], strict=True))) for row in rows]
    return steps, rows[-1].seq if rows else seq


def most_at_once(home: Home, task: str, n: int, last: int = 2_000) -> int:
    """How many of a watch's newest requests were with the frontier at the same time, at most."""
    table = schema.records
    wanted = sa.select(table.c.at, table.c.latency_ms).where(table.c.watch == n, table.c.task == task)
    wanted = wanted.where(table.c.route != "specialist", table.c.latency_ms.is_not(None))
    with home.engine.connect() as db:
        rows = db.execute(wanted.order_by(table.c.seq.desc()).limit(last)).all()
    changes = sorted([(row.at, 1) for row in rows] + [(row.at + row.latency_ms / 1e3, -1) for row in rows])
    return max(accumulate((change for _, change in changes), initial=0))


def due_steps(home: Home) -> dict[tuple[str, int], list[Due]]:
    """The audited steps of open watches that may be settled now: not yet judged, or waiting for a trusted answer.

    By task and number of the watch.
    """
    steps, records, audits, trusted = schema.steps, schema.records, schema.audits, schema.trusted
    served = records.c.route == "specialist"
    whole = sa.and_(records.c.status == 200, records.c.failure.is_(None))
    wanted = (
        sa.select(
            *(steps.c[name] for name in ("task", "watch", "record", "at", "coin", "stakes", "differs", "missing")),
            records.c.predicted,
            records.c.sealed,
            sa.case((whole, records.c.answer)).label("answer"),
            audits.c.answer.label("audited"),
            audits.c.sealed.label("audit_sealed"),
            served.label("served"),
            sa.case((served, audits.c.failure.is_not(None)), else_=sa.not_(whole)).label("failed"),
            trusted.c.value,
            trusted.c.kind,
            trusted.c.sealed.label("trusted_sealed"),
        )
        .select_from(schema.watches)
        .join(steps, sa.and_(steps.c.task == schema.watches.c.task, steps.c.watch == schema.watches.c.n))
        .join(records, records.c.id == steps.c.record)
        .outerjoin(audits, audits.c.record == steps.c.record)
        .outerjoin(trusted, _latest(steps.c.record))
        .where(schema.watches.c.closed_at.is_(None), steps.c.loss.is_(None))
        .where(sa.or_(steps.c.missing.is_(False), audits.c.answer.is_not(None), trusted.c.seq.is_not(None)))
        .where(sa.or_(steps.c.differs.is_(None), trusted.c.seq.is_not(None)))
        .order_by(records.c.seq)
    )
    found: dict[tuple[str, int], list[Due]] = {}
    opened = home.bodies.opened
    with home.engine.connect() as db:
        for row in db.execute(wanted):
            own = opened(row.answer, row.sealed, body_about(row.record, "answer")) if not row.served else None
            audited = opened(row.audited, row.audit_sealed, audit_about(row.record)) if row.served else None
            due = Due(
                record=row.record,
                at=row.at,
                coin=row.coin,
                stakes=row.stakes,
                differs=row.differs,
                missing=bool(row.missing),
                predicted=opened(row.predicted, row.sealed, body_about(row.record, "predicted"), is_text=True),
                answer=audited if row.served else own,
                failed=bool(row.failed),
                trusted=_trusted(home.bodies, row.record, row.value, row.trusted_sealed),
                kind=row.kind,
            )
            found.setdefault((row.task, row.watch), []).append(due)
    return found


def _trusted(bodies: Bodies, record: str, value: Any, sealed: str | None) -> Value:
    """A trusted answer; None without any."""
    text = bodies.opened(value, sealed, trusted_about(record), is_text=True)
    return msgspec.json.decode(text) if text is not None else None


def _latest(record: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """The condition of a join with a record's latest trusted answer."""
    other = schema.trusted.alias()
    newest = sa.select(sa.func.max(other.c.seq)).where(other.c.record == record).scalar_subquery()
    return schema.trusted.c.seq == newest


def outcomes(home: Home, task: str, n: int) -> tuple[list[tuple[float, float]], list[float]]:
    """(loss, audit probability) of the settled steps whose loss is not 0; the probabilities of those not settled."""
    table = schema.steps
    wanted = sa.select(table.c.loss, table.c.coin).where(table.c.task == task, table.c.watch == n)
    with home.engine.connect() as db:
        rows = db.execute(wanted.where(sa.or_(table.c.loss.is_(None), table.c.loss != 0))).all()
    return [(row.loss, row.coin) for row in rows if row.loss is not None], [r.coin for r in rows if r.loss is None]


def save(
    home: Home,
    place: int,
    states: Mapping[tuple[str, int], str],
    opened: Sequence[Step],
    judged: Sequence[Judged],
    missing: Sequence[str],
) -> None:
    """Write, in one transaction, all that one look has found.

    `states` by task and number of the watch; `opened` are the audited steps that are new; `missing` those given up.
    """
    table = schema.steps
    with home.engine.begin() as db:
        db.exec_driver_sql(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (PLACE, str(place)),
        )
        if opened:
            db.execute(
                table.insert().prefix_with("OR IGNORE"),
                [
                    {
                        "record": step.record,
                        "task": step.task,
                        "watch": step.watch,
                        "at": step.at,
                        "coin": step.coin,
                        "stakes": step.stakes,
                        "missing": False,
                    }
                    for step in opened
                ],
            )
        for label in judged:
            found = {"differs": label.differs, "loss": label.loss, "missing": False}
            db.execute(table.update().where(table.c.record == label.record).values(found))
        for record in missing:
            db.execute(table.update().where(table.c.record == record).values(missing=True))
        for (task, n), state in states.items():
            _put_state(db, task, n, state)


# ---------------------------------------------------------------------------------------------- labels for nothing


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request that a release was asked about and the frontier answered: both answers are there."""

    seq: int
    record: str
    at: float
    score: float
    acceptable: bool
    predicted: str
    answer: bytes
    session: str | None
    group: str | None
    slices: str
    trusted: Value
    kind: str | None

    @property
    def is_trusted(self) -> bool:
        """Whether somebody has said what is right."""
        return self.kind is not None


def seen(
    home: Home,
    release: str,
    stages: Sequence[str],
    *,
    after: int = 0,
    limit: int | None = None,
    scores: tuple[float, float] | None = None,
) -> list[Seen]:
    """The requests on which a release only watched (in these stages, after a place), in the order of their commits.

    In a canary: those that its coin kept from the specialist, a sample of what it would have answered. `scores`: only
    those with a score from the one to the other.
    """
    records, trusted = schema.records, schema.trusted
    names = ("seq", "id", "at", "score", "acceptable", "predicted", "answer", "session", "group", "slices")
    wanted = (
        sa.select(
            *(records.c[name] for name in (*names, *STORED)),
            *(trusted.c.value, trusted.c.kind, trusted.c.sealed.label("trusted_sealed")),
        )
        .select_from(records)
        .outerjoin(trusted, _latest(records.c.id))
        .where(records.c.task == release.rpartition("@")[0], records.c.seq > after, records.c.release == release)
        .where(records.c.stage.in_(stages), sa.or_(records.c.stage != "canary", records.c.reason == "canary"))
        .where(records.c.score.is_not(None), records.c.status == 200, records.c.failure.is_(None))
        .where(records.c.predicted.is_not(None), records.c.answer.is_not(None), records.c.route != "specialist")
        .order_by(records.c.seq)
        .limit(limit)
    )
    if scores is not None:
        wanted = wanted.where(records.c.score.between(*scores))
    with home.engine.connect() as db:
        return [_seen(db, home.bodies, row) for row in db.execute(wanted).mappings()]


def _seen(db: sa.Connection, bodies: Bodies, row: sa.RowMapping) -> Seen:
    found = bodies.record(db, row)
    record, value, sealed = found.pop("id"), found.pop("value"), found.pop("trusted_sealed")
    return Seen(**found, record=record, trusted=_trusted(bodies, record, value, sealed))


def differing_audits(home: Home, release: str) -> list[tuple[str, float, str, bytes]]:
    """Audits in which the frontier said something else, and nobody has said who is right: (record, score, what the
    specialist said as JSON, the frontier's answer)."""
    steps, records, audits, trusted = schema.steps, schema.records, schema.audits, schema.trusted
    known = sa.exists().where(trusted.c.record == steps.c.record)
    opened = home.bodies.opened
    wanted = (
        sa.select(
            *(records.c.id, records.c.score, records.c.predicted, records.c.sealed),
            *(audits.c.answer, audits.c.sealed.label("audit_sealed")),
        )
        .join(steps, steps.c.record == records.c.id)
        .join(audits, audits.c.record == records.c.id)
        .where(records.c.release == release, steps.c.differs > 0, audits.c.answer.is_not(None), sa.not_(known))
        .where(records.c.predicted.is_not(None))
        .order_by(records.c.score.desc())
    )
    with home.engine.connect() as db:
        return [
            (
                row.id,
                row.score,
                opened(row.predicted, row.sealed, body_about(row.id, "predicted"), is_text=True),
                opened(row.answer, row.audit_sealed, audit_about(row.id)),
            )
            for row in db.execute(wanted)
        ]


def count_labelled(home: Home, task: str, after: float = 0.0) -> int:
    """How many records of a task have an answer of the frontier's, from a time on."""
    table = schema.records
    wanted = sa.select(sa.func.count()).where(of_task(task), table.c.at >= after, table.c.status == 200)
    with home.engine.connect() as db:
        return db.execute(wanted.where(table.c.route != "specialist", table.c.failure.is_(None))).scalar_one()


# ---------------------------------------------------------------------------------------------- the tail's ledger


def tails(home: Home, task: str) -> list[tuple[int, int, bool]]:
    """The looks at the tail so far: (release, labels, promised), oldest first."""
    table = schema.tails
    with home.engine.connect() as db:
        rows = db.execute(sa.select(table).where(table.c.task == task).order_by(table.c.attempt))
        return [(row.release, row.labels, bool(row.promised)) for row in rows]


def look_at_tail(
    home: Home, task: str, attempt: int, release: int, delta: float, losses: Sequence[float], promised: bool, what: str
) -> None:
    """Write a look at the tail, what it cost and what it has shown: all at once, so that none is known unpaid."""
    with home.engine.begin() as db:
        db.execute(
            schema.tails.insert().values(
                task=task,
                attempt=attempt,
                release=release,
                at=time.time(),
                delta=delta,
                labels=len(losses),
                errors=float(sum(losses)),
                promised=promised,
            )
        )
        releases.noted(db, task, "tail", what)


def _watch(row: sa.Row[tuple[object, ...]]) -> Watch:
    return Watch(**row._mapping)
