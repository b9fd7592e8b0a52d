"""What people have said about which task a record belongs to. No answer: nothing trains on it.

A record is immutable, so it is a row of its own beside it; the latest counts.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

import sqlalchemy as sa

from suffice.core.errors import StoreError
from suffice.store import patterns, releases, schema
from suffice.store.home import Home


def known_task(home: Home, name: str) -> str | None:
    """What a task of this name is called today; None if there is none."""
    today = patterns.today(home, name)
    return today if today in releases.all_tasks(home) else None


def add_belonging(home: Home, record: str, task: str | None) -> bool | None:
    """Say that a record belongs to this task, or (None) to none: on the disk on return.

    True if it says something new, False if it repeats the latest, None if there is no such record. Raises StoreError if
    it cannot be written.
    """
    try:
        with home.engine.begin() as db:
            raw = db.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            if raw.execute("SELECT 1 FROM records WHERE id = ?", (record,)).fetchone() is None:
                return None
            raw.execute("BEGIN IMMEDIATE")  # of two that say the same at once, one is the first
            last = raw.execute(
                "SELECT task FROM belongings WHERE record = ? ORDER BY seq DESC LIMIT 1", (record,)
            ).fetchone()
            if last is not None and last[0] == task:
                return False
            raw.execute("INSERT INTO belongings (record, task, at) VALUES (?, ?, ?)", (record, task, time.time()))
            return True
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        raise StoreError(f"{home.db_path} cannot be written: {getattr(error, 'orig', error)}") from error


def belongings(home: Home, records: Sequence[str]) -> dict[str, str | None]:
    """The task that each of these records was last said to belong to (None: to none); those nobody spoke of are not
    there."""
    table = schema.belongings.c
    wanted = sa.select(table.record, table.task).where(table.record.in_(records)).order_by(table.seq)
    with home.engine.connect() as db:
        return {row.record: row.task for row in db.execute(wanted)}


def spoken_of(home: Home) -> list[str]:
    """The records about which people or a rule have said something, oldest first: an answer, or a task."""
    records, trusted, belonging = schema.records.c, schema.trusted.c, schema.belongings.c
    told = sa.or_(
        records.id.in_(sa.select(trusted.record).distinct()), records.id.in_(sa.select(belonging.record).distinct())
    )
    with home.engine.connect() as db:
        return list(db.execute(sa.select(records.id).where(told).order_by(records.at, records.id)).scalars())
