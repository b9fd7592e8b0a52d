"""How bodies lie in the database, and the one way in and out: what repeats is cut out, what is left may be sealed.

Whoever selects a body selects `cuts` and `sealed` (`STORED`) with it and asks here for what it was. A sealed text lies
in its column as bytes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from functools import partial
from typing import Any

import sqlalchemy as sa

from suffice.core.errors import StoreError
from suffice.store import parts, schema
from suffice.store.sealed import Keys

TEXTS = ("input", "predicted")
BODIES = (*TEXTS, "request", "answer")
"""The columns of `records` that hold what was said."""
STORED = ("cuts", "sealed")
"""Those that say how the others are to be read."""
EPOCH = "parts_epoch"
"""In `meta`: another one whenever parts are deleted; see `new_epoch`."""
KEPT_BYTES = 32 * 2**20
"""What is remembered of parts that were read."""


class Bodies:
    """Reads the bodies of one home. For any thread."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._parts: dict[int, bytes] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def record(self, db: sa.Connection, row: sa.RowMapping) -> dict[str, Any]:
        """A selected row of `records` with its bodies as they were, without `STORED`.

        It has the record's `id`. Raises StoreError where a body cannot be read.
        """
        found = dict(row)
        cuts, sealed = found.pop("cuts"), found.pop("sealed")
        if sealed is not None:
            for name in BODIES:
                if found.get(name) is not None:
                    found[name] = self.opened(found[name], sealed, body_about(found["id"], name), name in TEXTS)
        if cuts is not None and found.get("request") is not None:
            found["request"] = parts.join(found["request"], cuts, lambda n: self._part(db, n))
        return found

    def opened(self, value: Any, sealed: str | None, about: str, is_text: bool = False) -> Any:
        """A value as it was before it was sealed (`sealed` is the key's id, None: it never was)."""
        if sealed is None or value is None:
            return value
        data = self.keys.open(value, sealed, about)
        return data.decode() if is_text else data

    def sealed(self, value: str | bytes | None, about: str) -> Any:
        """A value as it is stored: sealed, where there is a key. The key's id belongs into `sealed` beside it."""
        if self.keys.current is None or value is None:
            return value
        return self.keys.seal(value.encode() if isinstance(value, str) else value, about)

    def _part(self, db: sa.Connection, number: int) -> bytes:
        """A part's bytes, read in the transaction in which its number was: numbers are never given twice."""
        body = self._parts.get(number)
        if body is None:
            table = schema.parts.c
            row = db.execute(sa.select(table.digest, table.body, table.sealed).where(table.id == number)).first()
            if row is None:
                raise StoreError(f"part {number} of a request is missing in the database")
            body = self.opened(row.body, row.sealed, part_about(row.digest))
            assert body is not None
            with self._lock:
                if self._bytes > KEPT_BYTES:
                    self._parts, self._bytes = {}, 0
                if number not in self._parts:
                    self._parts[number] = body
                    self._bytes += len(body)
        return body


def new_epoch(db: sqlite3.Connection) -> None:
    """Whoever writes and knows the numbers of parts asks for them again from now on: some may be gone.

    Drawn, never the same again: a writer that slept over two changes must not take the second for what it knows.
    """
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (EPOCH, os.urandom(8).hex()))


def body_about(record: str, column: str) -> str:
    """The name of a body's place, as it is authenticated."""
    return f"record {record}, {column}"


def audit_about(record: str) -> str:
    """The same of an audit's answer."""
    return f"audit of record {record}"


def trusted_about(record: str) -> str:
    """The same of a trusted answer."""
    return f"trusted answer of record {record}"


def part_about(digest: bytes) -> str:
    """The same of a part."""
    return f"part {digest.hex()}"


class Packer:
    """Turns bodies into what is stored, inside of one connection's open transaction. Not for two threads at once."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self._cutter = bodies, parts.Cutter()
        self._epoch: str | None = None

    def begin(self, db: sqlite3.Connection) -> None:
        """To be called first in every transaction: parts that were known may have been deleted since the last."""
        row = db.execute("SELECT value FROM meta WHERE key = ?", (EPOCH,)).fetchone()
        epoch = row[0] if row is not None else None
        if epoch != self._epoch:
            self._cutter.forget()
            self._epoch = epoch

    def failed(self) -> None:
        """The transaction was taken back, and with it the parts that it made."""
        self._cutter.forget()

    def packed(
        self,
        db: sqlite3.Connection,
        record: str,
        input: str | None,
        predicted: str | None,
        request: bytes | None,
        answer: bytes | None,
    ) -> tuple[Any, ...]:
        """What is stored of a record's bodies: in the order of `BODIES`, then `STORED`."""
        cuts = None
        if request is not None and len(request) >= parts.LEAST_BYTES:
            request, cuts = self._cutter.cut(request, partial(self._add, db))
        key = self._bodies.keys.current
        if key is None:
            return input, predicted, request, answer, cuts, None
        values = zip(BODIES, (input, predicted, request, answer), strict=True)
        return (*(self._bodies.sealed(value, body_about(record, name)) for name, value in values), cuts, key)

    def _add(self, db: sqlite3.Connection, piece: bytes) -> int:
        """The number of a part, which another process may have made."""
        digest = self._bodies.keys.digest(piece)
        found = db.execute("SELECT id FROM parts WHERE digest = ?", (digest,)).fetchone()
        if found is not None:
            return int(found[0])
        body = self._bodies.sealed(piece, part_about(digest))
        added = db.execute(
            "INSERT INTO parts (digest, body, sealed) VALUES (?, ?, ?)", (digest, body, self._bodies.keys.current)
        )
        assert added.lastrowid is not None
        return added.lastrowid
