"""Batches and the files they read and write: documents in the database, contents in `HOME/files`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.store import schema
from suffice.store.home import Home

FILE, BATCH = "file-suffice-", "batch_suffice_"
"""How our ids begin: what begins otherwise is somebody else's."""
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
"""States in which there is still something to do."""


def new_id(kind: str) -> str:
    """An id that nobody guesses: who has it may read what is behind it."""
    return kind + secrets.token_hex(16)


def folder(home: Home) -> Path:
    """Where the contents lie."""
    place = home.folder / "files"
    place.mkdir(exist_ok=True, mode=0o700)
    return place


def content(home: Home, file: str) -> Path:
    """Where the content of a file of ours lies. Raises ValueError for a name that is none of ours."""
    if not file.startswith(FILE) or not file.removeprefix(FILE).isalnum():
        raise ValueError(f"{file!r} is no file of ours")
    return folder(home) / file


def save(home: Home, table: sa.Table, document: dict[str, Any], key: str | None) -> None:
    """Write a file's or a batch's document, new or changed: on the disk on return. `key` is the caller's name."""
    values = {"id": document["id"], "key": key, "at": document["created_at"], "status": document["status"]}
    text = msgspec.json.encode(document).decode()
    with home.engine.begin() as db:
        db.execute(sa.delete(table).where(table.c.id == document["id"]))
        db.execute(sa.insert(table).values(**values, document=text))


def change(home: Home, batch: str, **values: Any) -> dict[str, Any] | None:
    """Change a batch's document in one transaction; what it is now, None if there is none.

    A status that is final stays: who cancels and who completes it may come at the same time.
    """
    table = schema.batches
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        found = db.execute(sa.select(table.c.document).where(table.c.id == batch)).scalar()
        if found is None:
            return None
        document: dict[str, Any] = msgspec.json.decode(found)
        if document["status"] not in OPEN:
            return document
        if document["status"] == "cancelling" and values.get("status") in ("in_progress", "finalizing"):
            values = {name: value for name, value in values.items() if name != "status"}
        document |= values
        told = {"status": document["status"], "document": msgspec.json.encode(document).decode()}
        db.execute(sa.update(table).where(table.c.id == batch).values(**told))
        return document


def get(home: Home, table: sa.Table, id: str) -> tuple[dict[str, Any], str | None] | None:
    """A document and the name of the key that made it."""
    with home.engine.connect() as db:
        found = db.execute(sa.select(table.c.document, table.c.key).where(table.c.id == id)).first()
    return None if found is None else (msgspec.json.decode(found[0]), found[1])


def page(home: Home, table: sa.Table, key: str | None, after: str | None, limit: int) -> list[dict[str, Any]]:
    """Documents that this key made, the newest first, behind the one named `after`; one more than `limit` if there is.

    Without a key (the gateway asks for none) all that were made without one.
    """
    wanted = sa.select(table.c.document).where(table.c.key.is_(None) if key is None else table.c.key == key)
    if after is not None:
        last = sa.select(table.c.seq).where(table.c.id == after).scalar_subquery()
        wanted = wanted.where(table.c.seq < last)
    with home.engine.connect() as db:
        found = db.execute(wanted.order_by(table.c.seq.desc()).limit(limit + 1)).scalars()
        return [msgspec.json.decode(document) for document in found]


def unfinished(home: Home) -> list[tuple[dict[str, Any], str | None]]:
    """Batches with something left to do, the oldest first, each with the name of the key that made it."""
    table = schema.batches
    wanted = sa.select(table.c.document, table.c.key).where(table.c.status.in_(OPEN)).order_by(table.c.seq)
    with home.engine.connect() as db:
        return [(msgspec.json.decode(document), key) for document, key in db.execute(wanted)]


def drop(home: Home, file: str) -> bool:
    """Delete a file of ours and its content; whether there was one."""
    table = schema.files
    with home.engine.begin() as db:
        gone = db.execute(sa.delete(table).where(table.c.id == file)).rowcount > 0
    if gone:
        content(home, file).unlink(missing_ok=True)
    return gone


def lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file; a last one that was cut short by a crash is passed over, and cut off."""
    whole = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            yield line
    if path.stat().st_size > whole and os.access(path, os.W_OK):
        os.truncate(path, whole)
