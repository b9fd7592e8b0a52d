"""Records: the rows of exchanges, how they are inserted fast, read and imported."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.core.errors import InputError, StoreError
from suffice.core.values import Value, canonical, decode
from suffice.store import schema
from suffice.store.bodies import BODIES, STORED, Bodies, Packer, trusted_about
from suffice.store.home import Home
from suffice.store.patterns import of_task
from suffice.store.sealed import Keys

FREE = ("specialist", "cache", "none")
"""Routes that no upstream is paid for."""


def total(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The sum of a column over what is selected; 0 where nothing is."""
    return sa.func.coalesce(sa.func.sum(column), 0)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One record, in the order and with the meaning of the columns of `schema.records`."""

    id: str
    at: float
    source: str
    dialect: str = "chat"
    task: str | None = None
    rule: str | None = None
    model: str = ""
    upstream: str | None = None
    route: str = "none"
    reason: str = "no_task"
    stage: str | None = None
    release: str | None = None
    score: float | None = None
    threshold: float | None = None
    predicted: str | None = None
    acceptable: bool | None = None
    watch: int | None = None
    coin: float | None = None
    audited: bool | None = None
    stakes: str | None = None
    status: int | None = None
    failure: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_estimated: bool = False
    cost_usd: float | None = None
    latency_ms: float | None = None
    first_chunk_ms: float | None = None
    streamed: bool = False
    session: str | None = None
    group: str | None = None
    slices: str = ""
    input: str | None = None
    request: bytes | None = None
    answer: bytes | None = None
    response_id: str | None = None
    key: str | None = None
    cached_tokens: int | None = None
    written_tokens: int | None = None
    attempts: str | None = None
    egress: str | None = None
    path: str | None = None
    gone: str | None = None
    schema: int = schema.VERSION


COLUMNS = tuple(c.name for c in schema.records.columns if not c.primary_key and c.name not in STORED)
assert Row.__struct_fields__ == COLUMNS
# Compiled once from the table and run through the driver: a third faster than through the expression layer.
_PLAIN = tuple(name for name in COLUMNS if name not in BODIES)
INSERT = "INSERT OR IGNORE INTO records ({}) VALUES ({})".format(
    ", ".join(f'"{name}"' for name in (*_PLAIN, *BODIES, *STORED)), ", ".join("?" for _ in (*COLUMNS, *STORED))
)
_plain = attrgetter(*_PLAIN)


class Writer:
    """Writes rows as a home stores them (`bodies` are the home's). Not for two threads at once."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self._packer = bodies, Packer(bodies)

    def insert(self, connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Insert and commit in one transaction. A row whose id is known is passed over: a retry cannot double it."""
        try:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                self.add(connection, rows)
        except BaseException:  # whatever it was, the parts that were made are taken back with it
            self._packer.failed()
            raise

    def add(self, db: sqlite3.Connection, rows: Iterable[Row]) -> int:
        """Insert in the transaction that is open; how many rows were new. Where it fails, the writer is done with."""
        self._packer.begin(db)
        packed = self._packer.packed
        values = [
            (*_plain(row), *packed(db, row.id, row.input, row.predicted, row.request, row.answer)) for row in rows
        ]
        return db.executemany(INSERT, values).rowcount if values else 0

    def line(self, row: Row) -> bytes:
        """A row as a line of a file, sealed where there is a key."""
        line = msgspec.json.encode(row)
        keys = self._bodies.keys
        if keys.current is not None:
            line = msgspec.json.encode(_Sealed(keys.current, keys.seal(line, LINE)))
        return line + b"\n"

    def row(self, line: bytes) -> Row:
        """The row that a line holds. Raises msgspec.DecodeError where it holds none, StoreError where it is sealed."""
        if line.startswith(b'{"sealed":'):
            found = msgspec.json.decode(line, type=_Sealed)
            line = self._bodies.keys.open(found.line, found.sealed, LINE)
        return msgspec.json.decode(line, type=Row)


class _Sealed(msgspec.Struct, frozen=True):
    """A line of a file that is sealed with this key."""

    sealed: str
    line: bytes


LINE = "a record that was put aside"


def insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Insert rows readable and whole, and commit, in one transaction: for homes without a key."""
    Writer(Bodies(Keys())).insert(connection, rows)


class Trusted(msgspec.Struct, frozen=True):
    """A trusted answer for a record: kind is `human` or `rule`."""

    record: str
    kind: str
    value: Value


TRUSTED = [schema.trusted.c[name] for name in ("record", "kind", "value", "sealed")]
"""What `trusted_of` reads."""


def import_rows(home: Home, rows: Sequence[Row], trusted: Sequence[Trusted]) -> tuple[int, int]:
    """Insert imported rows with their trusted answers, all or nothing; (new rows, known rows), as `add_rows` has it."""
    with home.engine.begin() as db:
        raw = db.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.execute("BEGIN IMMEDIATE")
        new = add_rows(raw, rows, trusted, home.bodies, Writer(home.bodies))
    return new, len(rows) - new


def add_rows(
    db: sqlite3.Connection, rows: Sequence[Row], trusted: Sequence[Trusted], bodies: Bodies, writer: Writer
) -> int:
    """Insert imported rows with their trusted answers in the transaction that is open; how many rows were new.

    A row is known by its response id and task, or by its id. A known row's trusted answer is added if it says
    something new, and what was said is not gone.
    """
    names: dict[str, str] = {}
    heard: dict[tuple[str, str | None], str] = {}
    unheard: list[Row] = []
    for row in rows:
        if row.response_id is not None:
            found = db.execute(
                "SELECT id FROM records WHERE response_id = ? AND task IS ?", (row.response_id, row.task)
            ).fetchone()
            known = found[0] if found is not None else heard.setdefault((row.response_id, row.task), row.id)
            if known != row.id:
                names[row.id] = known
                continue
        unheard.append(row)
    new = writer.add(db, unheard)
    for answer in trusted:
        _tell(db, msgspec.structs.replace(answer, record=names.get(answer.record, answer.record)), bodies)
    return new


def add_trusted(home: Home, answer: Trusted) -> bool | None:
    """Add one trusted answer, which counts from then on: on the disk on return.

    True if it says something new, False if it repeats the latest, None if there is no such record, or it is a tombstone
    by now. Raises StoreError if it cannot be written.
    """
    try:
        with home.engine.begin() as db:
            record = schema.records.c
            known = db.execute(sa.select(record.id).where(record.id == answer.record, record.gone.is_(None))).first()
            if known is None:
                return None
            raw = db.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("BEGIN IMMEDIATE")  # of two that say the same at once, one is the first
            return _tell(raw, answer, home.bodies)
    except (sqlite3.Error, sa.exc.DBAPIError) as error:
        raise StoreError(f"{home.db_path} cannot be written: {getattr(error, 'orig', error)}") from error


def _tell(db: sqlite3.Connection, answer: Trusted, bodies: Bodies) -> bool:
    """Insert a trusted answer unless the record's latest is the same answer of the same kind; whether it was new."""
    if db.execute("SELECT 1 FROM records WHERE id = ? AND gone IS NOT NULL", (answer.record,)).fetchone():
        return False
    about = trusted_about(answer.record)
    last = db.execute(
        "SELECT kind, value, sealed FROM trusted WHERE record = ? ORDER BY seq DESC LIMIT 1", (answer.record,)
    ).fetchone()
    if last is not None and last[0] == answer.kind:
        before = decode(bodies.opened(last[1], last[2], about, is_text=True))
        if canonical(before) == canonical(answer.value):
            return False
    db.execute(
        "INSERT INTO trusted (record, kind, value, at, sealed) VALUES (?, ?, ?, ?, ?)",
        (
            answer.record,
            answer.kind,
            bodies.sealed(msgspec.json.encode(answer.value).decode(), about),
            time.time(),
            bodies.keys.current,
        ),
    )
    return True


def trusted_of(bodies: Bodies, record: str, kind: str, value: Any, sealed: str | None) -> Trusted:
    """A trusted answer from its columns."""
    text = bodies.opened(value, sealed, trusted_about(record), is_text=True)
    return Trusted(record, kind, msgspec.json.decode(text))


def revised(home: Home, ids: Sequence[str]) -> bool:
    """Whether any of these records has had more than one trusted answer."""
    table = schema.trusted
    several = sa.select(table.c.record).group_by(table.c.record).having(sa.func.count() > 1)
    with home.engine.connect() as db:
        return not set(db.execute(several).scalars()).isdisjoint(ids)


def query(
    home: Home,
    *,
    task: str | None = None,
    route: str | None = None,
    reason: str | None = None,
    key: str | None = None,
    model: str | None = None,
    upstream: str | None = None,
    since: float | None = None,
    until: float | None = None,
    ids: Sequence[str] | None = None,
    limit: int | None = None,
) -> Iterator[tuple[Row, Trusted | None]]:
    """Records oldest first, each with its latest trusted answer; `limit` keeps the newest that many."""
    table, answers = schema.records, schema.trusted
    wanted = sa.select(*(table.c[name] for name in (*COLUMNS, *STORED)))
    equal = {"route": route, "reason": reason, "key": key, "model": model, "upstream": upstream}
    wanted = wanted.where(*(table.c[name] == value for name, value in equal.items() if value is not None))
    if task is not None:
        wanted = wanted.where(of_task(task))
    if since is not None:
        wanted = wanted.where(table.c.at >= since)
    if until is not None:
        wanted = wanted.where(table.c.at < until)
    if ids is not None:
        wanted = wanted.where(table.c.id.in_(ids))
    if limit is not None:
        newest = wanted.order_by(table.c.at.desc(), table.c.id.desc()).limit(limit).subquery()
        wanted = sa.select(newest)
    columns = wanted.selected_columns
    latest = sa.select(answers.c.record, sa.func.max(answers.c.seq).label("seq")).group_by(answers.c.record).subquery()
    with home.engine.connect() as db:
        told = {
            row.record: trusted_of(home.bodies, *row)
            for row in db.execute(sa.select(*TRUSTED).join(latest, latest.c.seq == answers.c.seq))
        }
        result = db.execution_options(yield_per=1000).execute(wanted.order_by(columns["at"], columns["id"]))
        for values in result.mappings():
            row = Row(**home.bodies.record(db, values))
            yield row, told.get(row.id)


def document(row: Row, trusted: Trusted | None) -> dict[str, Any]:
    """A record as `suffice records` prints it: bodies as JSON where they are JSON, else as text."""
    told = msgspec.structs.asdict(row)
    told["slices"] = [name for name in row.slices.split(",") if name]
    told["request"], told["answer"] = body(row.request), body(row.answer)
    told["attempts"] = msgspec.json.decode(row.attempts) if row.attempts is not None else []
    told["predicted"] = msgspec.json.decode(row.predicted) if row.predicted is not None else None
    told["reference"] = trusted.value if trusted else None
    told["reference_kind"] = trusted.kind if trusted else None
    return told


def body(body: bytes | None) -> Any:
    """A body as JSON where it is JSON, else as text."""
    if body is None:
        return None
    try:
        return decode(body)
    except InputError:
        return body.decode("utf-8", "replace")


def counts(home: Home) -> dict[str, dict[str, int]]:
    """Per task: `records`, and how many a specialist answered (`specialist`)."""
    record, member, pattern, alias = schema.records, schema.members, schema.patterns, schema.aliases
    task = sa.case(
        (member.c.seq.is_not(None), pattern.c.task), else_=sa.func.coalesce(alias.c.task, record.c.task)
    ).label("of")
    served = sa.func.sum(sa.case((record.c.route == "specialist", 1), else_=0))
    wanted = (
        sa.select(task, sa.func.count(), served)
        .select_from(record)
        .outerjoin(member, member.c.seq == record.c.seq)
        .outerjoin(pattern, pattern.c.id == member.c.pattern)
        .outerjoin(alias, alias.c.name == record.c.task)
        .group_by(task)
    )
    with home.engine.connect() as db:
        rows = db.execute(wanted)
        return {name: {"records": count, "specialist": by} for name, count, by in rows if name is not None}
