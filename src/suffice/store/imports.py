"""Importing in batches: rows and the place they were read up to are committed together.

So an import that is stopped, by ctrl-C or by a kill, loses nothing that it had committed, and the next one goes on from
there. A file is known by the digest of its content: a copy, or the same file compressed, is the same file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import sqlalchemy as sa

from suffice.core.errors import StoreError
from suffice.store import records, schema
from suffice.store.home import Home
from suffice.store.records import Row, Trusted

PREFIX = 16
"""Digits of a file's digest in the ids of its rows (`imp_DIGEST...`): what tells which file a row came from."""
FIRST_ROWS = 1_000


class Place(msgspec.Struct, frozen=True):
    """How far a file was read: its last line (or item), and the byte after it, of the content uncompressed."""

    line: int = 0
    offset: int = 0


START = Place()


def unfinished(home: Home, digest: str, task: str | None) -> Place | None:
    """Where an import of this content stopped; None if there was none, or it came to its end.

    `task` is the one for rows that name none. A finished import is read again from the start: its rows are known by
    then, and what is bad in it is told again.
    """
    table = schema.imports
    wanted = sa.select(table.c.line, table.c.offset).where(
        table.c.digest == digest, table.c.task == (task or ""), table.c.done_at.is_(None)
    )
    with home.engine.connect() as db:
        found = db.execute(wanted).first()
    return Place(found.line, found.offset) if found is not None else None


def began(home: Home, digest: str) -> float | None:
    """The time that rows of this file without one were given, in seconds since 1970; None if it has no rows yet.

    The rest of a file must get the same: rows of a file that differ in time are told apart by it.
    """
    first = sa.select(schema.records.c.at).where(
        schema.records.c.id.between(f"imp_{digest[:PREFIX]}", f"imp_{digest[:PREFIX]}~")
    )
    with home.engine.connect() as db:
        first = first.order_by(schema.records.c.id).limit(FIRST_ROWS)
        return db.execute(sa.select(sa.func.max(first.subquery().c.at))).scalar()


class Batches:
    """Commits an import batch by batch, over one connection. A context manager; nothing is pending between batches."""

    def __init__(self, home: Home, path: Path, digest: str, task: str | None) -> None:
        self._home, self._digest, self._task, self._path = home, digest, task or "", str(path)
        self._db, self._writer = home.connect(), records.Writer(home.bodies)

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def add(
        self, rows: Sequence[Row], trusted: Sequence[Trusted], place: Place, *, done: bool = False
    ) -> tuple[int, int]:
        """Commit rows, their trusted answers and the place they were read up to, all or nothing; (new, known).

        Raises StoreError if they cannot be written: what was committed before stays.
        """
        done_at = time.time() if done else None
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")  # a server may write to the same home meanwhile
                new = records.add_rows(self._db, rows, trusted, self._home.bodies, self._writer)
                self._db.execute(
                    'INSERT OR REPLACE INTO imports (digest, task, path, line, "offset", done_at) '
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (self._digest, self._task, self._path, place.line, place.offset, done_at),
                )
        except sqlite3.Error as error:
            raise StoreError(f"{self._home.db_path} cannot be written: {error}") from error
        return new, len(rows) - new
