"""Responses that were given under ids of ours: found again by their id, and withdrawn by whoever asked for them."""

from __future__ import annotations

import time

import sqlalchemy as sa

from suffice.store import schema
from suffice.store.bodies import STORED
from suffice.store.home import Home
from suffice.store.records import COLUMNS, Row


def find(home: Home, response: str) -> Row | None:
    """The newest record whose answer has this id; None without any, or where it was withdrawn."""
    record, withdrawn = schema.records.c, schema.withdrawn.c
    wanted = (
        sa.select(*(record[name] for name in (*COLUMNS, *STORED)))
        .where(record.response_id == response)
        .where(~sa.exists().where(withdrawn.response == record.response_id))
        .order_by(record.seq.desc())
        .limit(1)
    )
    with home.engine.connect() as db:
        found = db.execute(wanted).mappings().first()
        return Row(**home.bodies.record(db, found)) if found is not None else None


def upstream_of(home: Home, response: str) -> str | None:
    """The upstream that gave the newest answer with this id; None where it is not known."""
    record = schema.records.c
    wanted = sa.select(record.upstream).where(record.response_id == response).order_by(record.seq.desc()).limit(1)
    with home.engine.connect() as db:
        return db.execute(wanted).scalar()


def withdraw(home: Home, response: str) -> None:
    """From now on there is no response with this id. Its record stays, as long as records are kept."""
    with home.engine.begin() as db:
        db.execute(schema.withdrawn.insert().prefix_with("OR IGNORE"), {"response": response, "at": time.time()})
