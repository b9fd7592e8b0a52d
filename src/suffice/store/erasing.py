"""Erasing one person's records: finding them by what names the person, and dropping what was said everywhere.

Not known here: which releases were learned from them (`learn.datasets` reads the manifests).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.store import dropping, records, schema, watches
from suffice.store.dropping import BITE, ERASED, Dropped
from suffice.store.home import Home
from suffice.store.records import Row, Writer


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Whose records are meant: those with one of these names, or in which one of these texts stands."""

    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    def means(self, row: Row) -> bool:
        """Whether a row is meant."""
        return (
            row.id in self.ids
            or row.group in self.groups
            or row.session in self.sessions
            or any(self.stands_in(body) for body in (row.request, row.answer, row.input, row.predicted))
        )

    def stands_in(self, body: bytes | str | None) -> bool:
        """Whether one of the texts stands in a body: in its bytes, or in what its JSON says, however it is written.

        A text of it that is JSON itself (a tool call's arguments) is read, too.
        """
        if not body or not self.texts:
            return False
        raw = body.encode() if isinstance(body, str) else body
        if any(text.encode() in raw for text in self.texts):
            return True
        if b"\\" not in raw:  # what is not escaped stands in the bytes as it is
            return False
        try:
            document = decode(raw)
        except InputError:
            return False
        return any(text in said for said in _said(document) for text in self.texts)


def _said(document: Any) -> Iterator[str]:
    """Every text in a document, keys and those in texts that are JSON themselves among them; however deep it is."""
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
            if value.lstrip()[:1] in ("{", "["):
                with suppress(InputError):
                    left.append(decode(value))
        elif isinstance(value, dict):
            left += (*value.keys(), *value.values())
        elif isinstance(value, list):
            left += value


def find(home: Home, wish: Wish) -> list[str]:
    """The records that are meant, tombstones of old age among them, oldest first. With texts all records are read."""
    if wish.texts:
        return [name for some in _batches(home) for name in _meant(home, wish, some)]
    table = schema.records.c
    found: list[tuple[int, str]] = []
    with home.engine.connect() as db:
        for column, names in ((table.id, wish.ids), (table.group, wish.groups), (table.session, wish.sessions)):
            for start in range(0, len(names), BITE):
                wanted = sa.select(table.seq, table.id).where(column.in_(names[start : start + BITE]))
                found += [(row.seq, row.id) for row in db.execute(wanted.where(table.gone.is_distinct_from(ERASED)))]
    return [name for _, name in sorted(set(found))]


def erase(home: Home, ids: Sequence[str], wish: Wish) -> Dropped:
    """Make these records tombstones, and those that wait in files to be written; then sweep parts."""
    total = Dropped()
    with closing(home.connect()) as db:
        for start in range(0, len(ids), BITE):
            total = total.plus(dropping.drop(db, ids[start : start + BITE], ERASED))
    total = total.plus(Dropped(records=_erase_aside(home, wish)))
    return total.plus(Dropped(parts=dropping.sweep_parts(home)))


def _batches(home: Home) -> Iterator[list[Row]]:
    rows = (row for row, _ in records.query(home) if row.gone != ERASED)
    while some := list(islice(rows, BITE)):
        yield some


def _meant(home: Home, wish: Wish, some: Sequence[Row]) -> list[str]:
    """The rows that are meant, by themselves or by what was said about them afterwards."""
    names = [row.id for row in some]
    table = schema.trusted.c
    with home.engine.connect() as db:
        told = [
            records.trusted_of(home.bodies, *row)
            for row in db.execute(sa.select(*records.TRUSTED).where(table.record.in_(names)))
        ]
    heard = {answer.record for answer in told if wish.stands_in(msgspec.json.encode(answer.value))}
    heard |= {name for name, audit in watches.get_audits(home, names).items() if wish.stands_in(audit.answer)}
    return [row.id for row in some if row.id in heard or wish.means(row)]


def _erase_aside(home: Home, wish: Wish) -> int:
    """Make tombstones of the records in files that wait to be written; how many."""
    writer, erased = Writer(home.bodies), 0
    for file in dropping.put_aside(home):
        rows = [writer.row(line) for line in file.read_bytes().splitlines()]
        if not any(map(wish.means, rows)):
            continue
        erased += sum(map(wish.means, rows))
        kept = [_tombstone(row) if wish.means(row) else row for row in rows]
        new = file.with_suffix(".new")
        new.write_bytes(b"".join(map(writer.line, kept)))
        new.replace(file)
    return erased


def _tombstone(row: Row) -> Row:
    bare = dict.fromkeys(("input", "predicted", "request", "answer", "session", "group", "failure"))
    return msgspec.structs.replace(row, **bare, gone=ERASED)
