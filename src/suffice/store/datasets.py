"""Datasets: which records a task learns from, gone through as often as needed, and the manifests of what was made."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec
import sqlalchemy as sa

from suffice.store import schema
from suffice.store.bodies import STORED, Bodies
from suffice.store.home import Home
from suffice.store.patterns import of_task
from suffice.store.records import COLUMNS, TRUSTED, Row, Trusted, trusted_of

KEPT = 50
"""Manifests of a task that are kept beside those of its releases: some megabytes each where a task is large."""


class Newest:
    """A task's newest records as they were when this was made, oldest first, each with its latest trusted answer.

    Those that a specialist answered and nobody judged are no part of it: a task that serves would soon have no others.
    Nor are tombstones.
    Every time through reads the records from the database again: no body is held.
    """

    def __init__(self, home: Home, task: str, most: int, since: float | None = None) -> None:
        self._home, self._most = home, most
        record = schema.records.c
        self._task = of_task(task)
        of = [self._task, record.gone.is_(None)] + ([record.at >= since] if since is not None else [])
        judged = sa.exists().where(schema.trusted.c.record == record.id)
        with home.engine.connect() as db:
            of.append(record.seq <= (db.execute(sa.select(sa.func.max(record.seq))).scalar() or 0))
            self._served = [*of, record.route == "specialist", sa.not_(judged)]
            self._of = [*of, sa.or_(record.route != "specialist", judged)]
            wanted = sa.select(record.at, record.id).where(*self._of).order_by(record.at.desc(), record.id.desc())
            first = db.execute(wanted.offset(most - 1).limit(1)).first()
        self._first = (first.at, first.id) if first is not None else None

    def __iter__(self) -> Iterator[tuple[Row, Trusted | None]]:
        record = schema.records.c
        wanted = (
            sa.select(*(record[name] for name in (*COLUMNS, *STORED))).where(*self._of).order_by(record.at, record.id)
        )
        if self._first is not None:
            wanted = wanted.where(sa.tuple_(record.at, record.id) >= self._first)
        with self._home.engine.connect() as db:
            told = _told(db, self._of, self._home.bodies)
            for values in db.execution_options(yield_per=1000).execute(wanted).mappings():
                row = Row(**self._home.bodies.record(db, values))
                yield row, told.get(row.id)

    def older(self) -> list[str]:
        """The records of the task that are older than these, oldest first."""
        if self._first is None:
            return []
        record = schema.records.c
        return self._names([*self._of, sa.tuple_(record.at, record.id) < self._first])

    def served(self) -> list[str]:
        """The records of the task that a specialist answered and nobody judged, oldest first."""
        return self._names(self._served)

    def gone(self, why: str) -> list[str]:
        """The task's tombstones, `expired` or `erased`, oldest first."""
        return self._names([self._task, schema.records.c.gone == why])

    def _names(self, which: Sequence[sa.ColumnElement[bool]]) -> list[str]:
        record = schema.records.c
        with self._home.engine.connect() as db:
            return list(db.execute(sa.select(record.id).where(*which).order_by(record.at, record.id)).scalars())


def newest(home: Home, task: str, most: int, since: float | None = None) -> Newest:
    """The newest `most` records of a task (from `since` on, in seconds since 1970)."""
    return Newest(home, task, most, since)


def _told(db: sa.Connection, which: Sequence[sa.ColumnElement[bool]], bodies: Bodies) -> dict[str, Trusted]:
    """The latest trusted answer of each of these records that has one."""
    answers = schema.trusted.c
    these = sa.select(schema.records.c.id).where(*which)
    latest = sa.select(sa.func.max(answers.seq)).where(answers.record.in_(these)).group_by(answers.record)
    wanted = sa.select(*TRUSTED).where(answers.seq.in_(latest))
    return {row.record: trusted_of(bodies, *row) for row in db.execute(wanted)}


def seen(home: Home, records: Collection[str]) -> None:
    """What others have seen of one task certifies in none: a part of a task may have been exported, and merged back."""
    table = schema.splits.c
    wanted = sa.select(table.task, table.example).where(table.split.in_(("calibration", "test")))
    with home.engine.begin() as db:
        read = [(row.task, row.example) for row in db.execute(wanted) if row.example in records]
        if read:
            db.exec_driver_sql("UPDATE splits SET split = 'train' WHERE task = ? AND example = ?", read)


# ---------------------------------------------------------------------------------------------- manifests


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """That there is a manifest: of how many rows, made when (seconds since 1970)."""

    digest: str
    at: float
    rows: int


def put_manifest(home: Home, task: str, digest: str, rows: int, manifest: bytes) -> None:
    """Keep a manifest under its digest, as the task's newest; of the oldest only what releases were made of is kept."""
    table = schema.datasets
    here = (table.c.task == task) & (table.c.digest == digest)
    with home.engine.begin() as db:
        if not db.execute(table.update().where(here).values(at=time.time())).rowcount:
            packed = zlib.compress(manifest, 6)
            db.execute(table.insert().values(digest=digest, task=task, at=time.time(), rows=rows, manifest=packed))
        releases = db.execute(sa.select(schema.releases.c.release).where(schema.releases.c.task == task)).scalars()
        used = {msgspec.json.decode(text)["draft"]["dataset"] for text in releases}
        kept = sa.select(table.c.digest).where(table.c.task == task).order_by(table.c.at.desc())
        old = [name for name in db.execute(kept.offset(KEPT)).scalars() if name not in used]
        db.execute(table.delete().where(table.c.task == task, table.c.digest.in_(old)))


def manifests(home: Home, task: str) -> list[Stored]:
    """A task's manifests, newest first."""
    table = schema.datasets
    wanted = sa.select(table.c.digest, table.c.at, table.c.rows).where(table.c.task == task)
    with home.engine.connect() as db:
        rows = db.execute(wanted.order_by(table.c.at.desc(), table.c.digest))
        return [Stored(digest=row.digest, at=row.at, rows=row.rows) for row in rows]


def rewrite_manifests(home: Home, changed: Callable[[str, bytes], bytes | None]) -> None:
    """Put other manifests in the place of those that `changed` gives one for (by task), under the same digests."""
    table = schema.datasets
    with home.engine.connect() as db:
        known = db.execute(sa.select(table.c.task, table.c.digest)).all()
    for task, digest in known:
        here = (table.c.task == task) & (table.c.digest == digest)
        with home.engine.begin() as db:
            packed = db.execute(sa.select(table.c.manifest).where(here)).scalar()
            new = changed(task, zlib.decompress(packed)) if packed is not None else None
            if new is not None:
                db.execute(table.update().where(here).values(manifest=zlib.compress(new, 6)))


def get_manifest(home: Home, task: str, digest: str) -> bytes | None:
    """The manifest whose digest begins so; None if there is none, or more than one."""
    table = schema.datasets
    begins = table.c.digest.startswith(digest, autoescape=True)
    with home.engine.connect() as db:
        rows = db.execute(sa.select(table.c.manifest).where(table.c.task == task, begins).limit(2)).scalars().all()
    return zlib.decompress(rows[0]) if len(rows) == 1 else None
