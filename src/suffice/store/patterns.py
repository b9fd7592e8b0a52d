"""Patterns: by which rules records are known to be the same work, whose they are, and what people decided about it.

Every record that discovery has read is a member of at most one pattern: one mined from prompts, a part of such a one
told by meaning, or that of the requests which came with the name of their task. A task is the patterns that carry its
name; a record that was not read yet belongs to the task it was recorded with.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from suffice.core.errors import InputError
from suffice.core.find import Finder, Groups
from suffice.core.match import Rule
from suffice.core.protocols import Specialist
from suffice.core.types import Stage, digest_of, group_of
from suffice.store import releases, schema
from suffice.store.bodies import STORED
from suffice.store.home import Home

T = TypeVar("T")
MOST_BYTES = 100 * 2**20
"""Requests and answers that are held at once; of a sample, those that are in it."""
BOOKMARK, MEMORY = "discovered", "discovery"
SUMS = ("records", "whole", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced")
_FOLLOW = ("releases", "runs", "ledger", "tails", "watches", "steps", "splits", "events", "found", "datasets")
"""Tables in which a task's name stands and follows it when it is renamed."""
_ENDS = ("splits", "found", "runs", "ledger", "tails", "watches", "steps")
"""Of these, those whose rows end when it becomes part of another."""


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern with the sums over its members.

    `rule` is None where requests came with the name of their task (`label`). With a `parent` it is one of the groups
    that the parent's `matcher` (an artefact) tells apart, the one it calls `label`; the matcher is believed from the
    score `least` on. `decided`: by a person. Tokens and US dollars are sums; `unpriced` members have no known cost.
    """

    id: int
    rule: Rule | None
    parent: int | None
    label: str | None
    matcher: str | None
    least: float | None
    task: str | None
    decided: bool
    ignored: bool
    at: float
    records: int
    whole: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced: int
    first_at: float | None
    last_at: float | None

    @property
    def declared(self) -> bool:
        """Whether its requests come with the name of their task."""
        return self.rule is None and self.parent is None

    @property
    def told(self) -> str:
        """How its requests are known, in words."""
        return "by meaning" if self.parent is not None else "by name" if self.declared else "by its prompt"


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """What discovery reads of a record; `pattern` where it was asked for as a member of one."""

    seq: int
    id: str
    at: float
    source: str
    session: str | None
    group: str | None
    dialect: str
    task: str | None
    rule: str | None
    route: str
    status: int | None
    failure: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None
    input: str | None
    request: bytes | None
    answer: bytes | None
    pattern: int | None = None

    @property
    def whole(self) -> bool:
        """An upstream answered it, and wholly."""
        return (
            self.answer is not None
            and self.status == 200
            and self.failure is None
            and self.route not in ("specialist", "none")
        )

    @property
    def unit(self) -> str | None:
        """What its fate may hang together with; None where it stands alone."""
        return group_of(self.group, self.session)

    @property
    def coin(self) -> int:
        """31 bits of a hash of its id: the same whenever it is drawn."""
        return int(digest_of(self.id)[:8], 16) >> 1


class Bookmark(msgspec.Struct, frozen=True):
    """How far discovery has read: up to the record `seq`, of which `left` (newest last) were known by no rule.

    `late`: a prompt was found after requests of it may have been placed, which are those after this record; None where
    all were looked at again.
    """

    seq: int = 0
    left: tuple[int, ...] = ()
    late: int | None = None


class Looked(msgspec.Struct, frozen=True):
    """How many whole answers a prompt had when it was looked at, and whether it was all one work."""

    whole: int = 0
    one: bool = False


class Memory(msgspec.Struct, frozen=True):
    """What was seen of each prompt, and how many records there were when prompts were last compared.

    `dividing`: the pattern whose members are being given to its parts.
    """

    prompts: dict[int, Looked] = {}
    joined: int = 0
    dividing: int | None = None


def of_task(task: str) -> sa.ColumnElement[bool]:
    """The condition on `records` that one belongs to a task: by its pattern, else by the name it was recorded with."""
    record, member, pattern = schema.records.c, schema.members.c, schema.patterns.c
    known = sa.select(member.seq).join(schema.patterns, pattern.id == member.pattern).where(pattern.task == task)
    names = sa.select(schema.aliases.c.name).where(schema.aliases.c.task == task)
    placed = sa.exists().where(member.seq == record.seq)
    named = sa.or_(record.task == task, record.task.in_(names))
    return sa.or_(record.seq.in_(known), sa.and_(named, sa.not_(placed)))


# ---------------------------------------------------------------------------------------------- reading


def all_patterns(home: Home) -> list[Pattern]:
    """Every pattern, in the order in which they were found."""
    with home.engine.connect() as db:
        rows = db.execute(sa.select(schema.patterns).order_by(schema.patterns.c.id)).mappings()
        return [_pattern(row) for row in rows]


def rule_of(pattern: Pattern, known: Mapping[int, Pattern]) -> Rule | None:
    """The rule of a pattern's prompt, which for a part told by meaning is its parent's; None by name. `known` by id."""
    return known.get(pattern.parent or 0, pattern).rule


def rules_of(home: Home, task: str) -> list[Rule]:
    """The rules of a task's prompts, in the order in which they were found."""
    known = {pattern.id: pattern for pattern in all_patterns(home)}
    rules = [rule_of(pattern, known) for pattern in known.values() if pattern.task == task]
    return list(dict.fromkeys(rule for rule in rules if rule is not None))


def finder_of(known: Sequence[Pattern], matchers: Mapping[int, Specialist]) -> Finder:
    """What finds a request's pattern, for discovery and serving alike; `matchers` by the pattern that they divide."""
    groups = {
        p.id: Groups(
            matcher=matchers[p.id],
            least=p.least if p.least is not None else 1.0,
            patterns={str(child.label): child.id for child in known if child.parent == p.id},
        )
        for p in known
        if p.id in matchers
    }
    return Finder([(p.id, p.rule) for p in known if p.rule is not None], groups)


def bookmark(home: Home) -> Bookmark:
    """How far discovery has come."""
    return _get(home, BOOKMARK, Bookmark)


_COLUMNS = [schema.records.c[name] for name in (*Unread.__struct_fields__, *STORED) if name != "pattern"]


def unread(home: Home, after: int, batch: int = 2_000) -> Iterator[list[Unread]]:
    """Records from `seq` > `after` on, in the order of their commits, `batch` at a time, fewer where they are large."""
    seq = schema.records.c.seq
    while True:
        with home.engine.connect() as db:
            seqs = db.execute(sa.select(seq).where(seq > after).order_by(seq).limit(batch)).scalars().all()
        if not seqs:
            return
        last = _fitting(home, seqs)[-1]
        yield _rows(home, sa.select(*_COLUMNS).where(seq > after, seq <= last).order_by(seq))
        after = last


def count_unread(home: Home, after: int) -> int:
    """How many records there are from `seq` > `after` on."""
    with home.engine.connect() as db:
        return db.execute(
            sa.select(sa.func.count()).select_from(schema.records).where(schema.records.c.seq > after)
        ).scalar_one()


def by_seq(home: Home, seqs: Sequence[int]) -> list[Unread]:
    """These records, in the order of their commits; those that are gone are left out."""
    found: list[Unread] = []
    for part in _parts(seqs):
        found += _rows(home, sa.select(*_COLUMNS).where(schema.records.c.seq.in_(part)))
    return sorted(found, key=lambda row: row.seq)


def sample(home: Home, ids: Sequence[int], most: int) -> list[Unread]:
    """Up to `most` members of these patterns: those with the lowest coins, so that it stays while it grows."""
    member = schema.members.c
    return _members(home, _told(ids).order_by(member.coin).limit(most))


def newest(home: Home, ids: Sequence[int], after: int, most: int) -> list[Unread]:
    """Up to `most` of the newest members of these patterns, from records with `seq` > `after` on."""
    member = schema.members.c
    drawn = _told(ids).where(member.seq > after).order_by(member.seq.desc())
    return _members(home, drawn.limit(most))


def _told(ids: Sequence[int]) -> sa.Select[tuple[int]]:
    """The places of these patterns' members that are no tombstones."""
    member, record = schema.members.c, schema.records.c
    there = sa.select(member.seq).join(schema.records, record.seq == member.seq)
    return there.where(member.pattern.in_(ids), record.gone.is_(None))


def members(
    home: Home, pattern: int, after: int = 0, last: int | None = None, batch: int = 2_000
) -> Iterator[list[Unread]]:
    """The members that a pattern has now with `after` < `seq` <= `last` (None: all from there on), in the order of
    their commits, `batch` at a time."""
    member = schema.members.c
    wanted = sa.select(member.seq).where(member.pattern == pattern, member.seq > after)
    if last is not None:
        wanted = wanted.where(member.seq <= last)
    with home.engine.connect() as db:
        seqs = sorted(db.execute(wanted).scalars())
    start = 0
    while start < len(seqs):
        part = _fitting(home, seqs[start : start + batch])
        yield by_seq(home, part)
        start += len(part)


def memory(home: Home) -> Memory:
    """What earlier runs have looked at."""
    return _get(home, MEMORY, Memory)


def remember(home: Home, seen: Memory) -> None:
    """Keep that in mind."""
    with home.engine.begin() as db:
        _put(db, MEMORY, seen)


def count_records(home: Home) -> int:
    """All records there are."""
    with home.engine.connect() as db:
        return db.execute(sa.select(sa.func.count()).select_from(schema.records)).scalar_one()


def record_ids(home: Home, ids: Sequence[int]) -> list[str]:
    """The records that are members of these patterns, oldest first."""
    member, record = schema.members.c, schema.records.c
    wanted = sa.select(record.id).join(schema.members, member.seq == record.seq).where(member.pattern.in_(ids))
    with home.engine.connect() as db:
        return list(db.execute(wanted.order_by(record.seq)).scalars())


def today(home: Home, name: str) -> str:
    """What a task of this name is called today."""
    with home.engine.connect() as db:
        return _today(db, name)


def used(home: Home, task: str) -> bool:
    """Whether anything was done with a task since it was found: learned, put into a stage."""
    with home.engine.connect() as db:
        ran = db.execute(sa.select(schema.runs.c.seq).where(schema.runs.c.task == task).limit(1)).first()
        moved = (schema.events.c.task == task) & (schema.events.c.kind == "stage")
        put = db.execute(sa.select(schema.events.c.seq).where(moved).limit(1)).first()
        return ran is not None or put is not None


def aliases(home: Home) -> dict[str, str]:
    """Names that tasks had, with the names they have."""
    with home.engine.connect() as db:
        return {row.name: row.task for row in db.execute(sa.select(schema.aliases))}


def documents(home: Home) -> dict[str, dict[str, Any]]:
    """What discovery last found out about each task."""
    with home.engine.connect() as db:
        return {row.task: msgspec.json.decode(row.document) for row in db.execute(sa.select(schema.found))}


# ---------------------------------------------------------------------------------------------- discovery writes


def add_rule(home: Home, rule: Rule, at: float) -> int:
    """The id of the pattern with this rule, new if need be."""
    return _add(home, rule.key(), at, rule=_text(rule))


def add_declared(home: Home, name: str, at: float) -> int:
    """The id of the pattern of requests that come with the name of their task; a new one is that task's."""
    with home.engine.connect() as db:
        task = _today(db, name)
        ignored = _ignored(db, task)
    return _add(home, digest_of("declared", name), at, label=name, task=task, ignored=ignored)


def add_group(home: Home, parent: int, label: str, at: float) -> int:
    """The id of the pattern of what `parent`'s matcher calls `label`, new if need be."""
    return _add(home, digest_of("group", str(parent), label), at, parent=parent, label=label)


def set_matcher(home: Home, pattern: int, matcher: str, least: float) -> None:
    """From now on the requests of a pattern are told apart by this artefact."""
    table = schema.patterns
    with home.engine.begin() as db:
        db.execute(table.update().where(table.c.id == pattern).values(matcher=matcher, least=least))
        releases.tell(db)


def place(home: Home, placed: Iterable[tuple[Unread, int]], seen: Bookmark | None = None) -> None:
    """Make records members of patterns, in one transaction with the bookmark; a record that was of another moves."""
    rows = list(placed)
    member, table = schema.members, schema.patterns
    sums: defaultdict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(SUMS, 0.0))
    times: dict[int, tuple[float, float]] = {}
    with home.engine.begin() as db:
        before: dict[int, int] = {}
        for part in _parts([row.seq for row, _ in rows]):
            before |= {r.seq: r.pattern for r in db.execute(sa.select(member).where(member.c.seq.in_(part)))}
        new = [(row, pattern) for row, pattern in rows if before.get(row.seq) != pattern]
        for row, pattern in new:
            values = _worth(row)
            for name, value in values.items():
                sums[pattern][name] += value
                if row.seq in before:
                    sums[before[row.seq]][name] -= value
            first, last = times.get(pattern, (row.at, row.at))
            times[pattern] = min(first, row.at), max(last, row.at)
        if new:
            db.execute(
                sa.insert(member).prefix_with("OR REPLACE"),
                [{"seq": row.seq, "pattern": pattern, "coin": row.coin} for row, pattern in new],
            )
        for pattern, changes in sums.items():
            here = table.c.id == pattern
            known = db.execute(sa.select(table.c.first_at, table.c.last_at).where(here)).one()
            moments = [at for at in (*known, *times.get(pattern, ())) if at is not None]
            db.execute(
                table.update()
                .where(here)
                .values(
                    **{name: table.c[name] + change for name, change in changes.items()},
                    first_at=min(moments, default=None),
                    last_at=max(moments, default=None),
                )
            )
        if seen is not None:
            _put(db, BOOKMARK, seen)


def assign(home: Home, ids: Sequence[int], task: str | None) -> None:
    """Say whose these patterns are, a task that there is or a new one; those that a person decided about stay.

    All in one transaction, in which a name that a task had is the task's of today, and what is ignored stays so.
    """
    table = schema.patterns
    with home.engine.begin() as db:
        ignored = False
        if task is not None:
            task = _today(db, task)
            releases.started(db, task)
            ignored = _ignored(db, task)
        mine = table.update().where(table.c.id.in_(ids), sa.not_(table.c.decided))
        db.execute(mine.values(task=task, ignored=ignored))
        releases.tell(db)


def put_document(home: Home, task: str, document: dict[str, Any], at: float) -> None:
    """Keep what was found out about a task; a name that it had will do."""
    with home.engine.begin() as db:
        db.execute(
            sa.insert(schema.found).prefix_with("OR REPLACE"),
            {"task": _today(db, task), "at": at, "document": _text(document)},
        )


# ---------------------------------------------------------------------------------------------- people decide


def rename(home: Home, task: str, name: str) -> None:
    """Give a task another name; requests and records with its old name are still its own.

    Raises InputError where there is no such task, the name is taken, or the task answers requests right now (a watch
    stamps its name on them); StoreError while it is learned.
    """
    with _deciding(home, task) as db:
        _must_exist(db, task)
        if name == task:
            return
        if _exists(db, name) or _today(db, name) not in (name, task):
            raise InputError(f"there is a task {name!r} already: `suffice tasks merge {task} {name}` joins the two")
        _must_rest(db, task, "renamed")
        db.execute(schema.tasks.update().where(schema.tasks.c.name == task).values(name=name))
        for table in _FOLLOW:
            column = schema.metadata.tables[table].c.task
            update = schema.metadata.tables[table].update().prefix_with("OR REPLACE")
            db.execute(update.where(column == task).values(task=name))
        _renamed(db, task, name)
        releases.noted(db, name, "task", f"renamed from {task}")
        releases.tell(db)


def merge(home: Home, task: str, into: str, decided: bool = True) -> None:
    """Make one task of two. Rows that were read of `task`'s promises train only: they are no fresh evidence.

    `decided`: by a person, so that it stays so.

    The attempts of `task` and what they said end with it: they promised nothing, as there is no release.

    Raises InputError where one of them does not exist, or `task` has releases (then merge the other way round);
    StoreError while it is learned.
    """
    with _deciding(home, task) as db:
        _must_exist(db, task)
        _must_exist(db, into)
        if task == into:
            raise InputError(f"{task!r} cannot be merged with itself")
        if db.execute(sa.select(schema.releases.c.n).where(schema.releases.c.task == task)).first() is not None:
            raise InputError(
                f"task {task!r} has releases, which would be lost: merge the other way round, "
                f"`suffice tasks merge {into} {task}`"
            )
        _must_rest(db, task, "merged")
        splits = schema.splits.c
        read = sa.select(sa.literal(into), splits.example, sa.literal("train")).where(splits.task == task)
        own = (
            sa.select(schema.records.c.id)
            .join(schema.members, schema.members.c.seq == schema.records.c.seq)
            .join(schema.patterns, schema.patterns.c.id == schema.members.c.pattern)
            .where(schema.patterns.c.task == task)
        )
        # A part that was split off before knows rows of the whole too: only its own were read by it.
        for verb, rows in (("OR REPLACE", read.where(splits.example.in_(own))), ("OR IGNORE", read)):
            insert = sa.insert(schema.splits).prefix_with(verb)
            db.execute(insert.from_select(["task", "example", "split"], rows))
        for table in _ENDS:
            db.execute(schema.metadata.tables[table].delete().where(schema.metadata.tables[table].c.task == task))
        db.execute(schema.tasks.delete().where(schema.tasks.c.name == task))
        ignored = _ignored(db, into)
        _renamed(db, task, into, decided)
        db.execute(schema.patterns.update().where(schema.patterns.c.task == into).values(ignored=ignored))
        releases.noted(db, into, "task", f"{task} was merged into it")
        releases.tell(db)


def split_off(home: Home, task: str, ids: Sequence[int], name: str) -> None:
    """Make these of a task's patterns a task of their own.

    Raises InputError where that cannot be, StoreError while the task is learned.
    """
    table = schema.patterns
    with _deciding(home, task) as db:
        _may_split(db, task, name)
        named = table.c.rule.is_(None) & table.c.parent.is_(None)
        labels = db.execute(sa.select(table.c.label).where(table.c.id.in_(ids), named)).scalars().all()
        if task in labels:
            raise InputError(f"requests that come with the name {task!r} are its own: rename it, or split another part")
        db.execute(table.update().where(table.c.id.in_(ids)).values(task=name, decided=True))
        # Who still uses such a name means the part from now on, as its records do.
        db.execute(schema.aliases.update().where(schema.aliases.c.name.in_(labels)).values(task=name))
        # What was read of the whole may have been read of the part.
        splits = schema.splits.c
        read = sa.select(sa.literal(name), splits.example, sa.literal("train")).where(splits.task == task)
        db.execute(sa.insert(schema.splits).from_select(["task", "example", "split"], read))
        db.execute(schema.tasks.insert().values(name=name, stage=Stage.OBSERVE.value, created_at=time.time()))
        db.execute(schema.found.delete().where(schema.found.c.task == task))
        releases.noted(db, name, "task", f"split off from {task}")
        releases.tell(db)


def may_split(home: Home, task: str, name: str) -> None:
    """Raises InputError where `split_off` would, as far as names and stage tell: before anything is written."""
    with home.engine.connect() as db:
        _may_split(db, task, name)


def ignore(home: Home, task: str, ignored: bool = True) -> None:
    """Leave a task's traffic alone from now on, or (`ignored` false) no longer. Raises InputError if there is none."""
    table = schema.patterns
    with home.engine.begin() as db:
        _must_exist(db, task)
        if ignored:
            _must_rest(db, task, "ignored")
        db.execute(table.update().where(table.c.task == task).values(ignored=ignored, decided=True))
        releases.noted(db, task, "task", "ignored" if ignored else "no longer ignored")
        releases.tell(db)


# ---------------------------------------------------------------------------------------------- small steps


@contextmanager
def _deciding(home: Home, task: str) -> Iterator[sa.Connection]:
    """A transaction in which nobody else decides, and nobody learns the task: what is learned is kept by its name."""
    with home.learning(task), home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        yield db


def _ignored(db: sa.Connection, task: str) -> bool:
    """Whether a task's traffic is left alone."""
    found = db.execute(sa.select(schema.patterns.c.ignored).where(schema.patterns.c.task == task)).scalars().all()
    return bool(found) and all(found)


def _pattern(row: Any) -> Pattern:
    values = {name: row[name] for name in Pattern.__struct_fields__}
    values["rule"] = msgspec.json.decode(row["rule"], type=Rule) if row["rule"] is not None else None
    return Pattern(**values)


def _rows(home: Home, wanted: sa.Select[Any]) -> list[Unread]:
    with home.engine.connect() as db:
        return [Unread(**home.bodies.record(db, row)) for row in db.execute(wanted).mappings()]


def _members(home: Home, drawn: sa.Select[Any]) -> list[Unread]:
    """The records at these places with their patterns, in the order of their commits."""
    member, record = schema.members.c, schema.records.c
    with home.engine.connect() as db:
        seqs = sorted(_fitting(home, db.execute(drawn).scalars().all()))
    wanted = sa.select(*_COLUMNS, member.pattern).join(schema.members, member.seq == record.seq).order_by(record.seq)
    return [row for part in _parts(seqs) for row in _rows(home, wanted.where(record.seq.in_(part)))]


def _parts(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    """As many at a time as a statement takes."""
    return (seqs[start : start + 500] for start in range(0, len(seqs), 500))


def _fitting(home: Home, seqs: Sequence[int]) -> Sequence[int]:
    """The first of these records, as many as may be held at once, one at least."""
    record, sizes = schema.records.c, dict[int, int]()
    whole = sa.func.coalesce(sa.cast(record.cuts, sa.Integer), sa.func.length(record.request))  # begins with its length
    request, answer = (sa.func.coalesce(size, 0) for size in (whole, sa.func.length(record.answer)))
    with home.engine.connect() as db:
        for part in _parts(seqs):
            rows = db.execute(sa.select(record.seq, (request + answer).label("size")).where(record.seq.in_(part)))
            sizes |= {row.seq: row.size for row in rows}
    room = MOST_BYTES
    for i, seq in enumerate(seqs):
        room -= sizes.get(seq, 0)
        if room < 0:
            return seqs[: max(i, 1)]
    return seqs


def _get(home: Home, key: str, kind: type[T]) -> T:
    """What is kept under a key, else a new one."""
    with home.engine.connect() as db:
        text = db.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar()
    return msgspec.json.decode(text, type=kind) if text else kind()


def _put(db: sa.Connection, key: str, value: object) -> None:
    db.execute(sa.insert(schema.meta).prefix_with("OR REPLACE"), {"key": key, "value": _text(value)})


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _worth(row: Unread) -> dict[str, float]:
    return {
        "records": 1,
        "whole": int(row.whole),
        "prompt_tokens": row.prompt_tokens or 0,
        "completion_tokens": row.completion_tokens or 0,
        "cost_usd": row.cost_usd or 0.0,
        "unpriced": int(row.cost_usd is None),
    }


def _add(home: Home, key: str, at: float, **values: Any) -> int:
    table = schema.patterns
    values = {**dict.fromkeys(SUMS, 0), "decided": False, "ignored": False, **values}
    with home.engine.begin() as db:
        insert = sa.insert(table).prefix_with("OR IGNORE")
        if db.execute(insert.values(key=key, at=at, **values)).rowcount:
            releases.tell(db)
        found: int = db.execute(sa.select(table.c.id).where(table.c.key == key)).scalar_one()
        return found


def _today(db: sa.Connection, name: str) -> str:
    found = db.execute(sa.select(schema.aliases.c.task).where(schema.aliases.c.name == name)).scalar()
    return found if found is not None else name


def _exists(db: sa.Connection, task: str) -> bool:
    return db.execute(sa.select(schema.tasks.c.name).where(schema.tasks.c.name == task)).first() is not None


def _must_exist(db: sa.Connection, task: str) -> None:
    if not _exists(db, task):
        raise InputError(f"there is no task {task!r}")


def _must_rest(db: sa.Connection, task: str, what: str) -> None:
    stage = db.execute(sa.select(schema.tasks.c.stage).where(schema.tasks.c.name == task)).scalar_one()
    if stage != Stage.OBSERVE:
        raise InputError(
            f"task {task!r} is in stage {stage}: it is {what} while it rests, after `suffice stage {task} observe`"
        )


def _may_split(db: sa.Connection, task: str, name: str) -> None:
    _must_exist(db, task)
    if _exists(db, name) or _today(db, name) != name:
        raise InputError(f"there is a task {name!r} already")
    _must_rest(db, task, "split")


def _renamed(db: sa.Connection, task: str, name: str, decided: bool = True) -> None:
    """What is known by the old name is known by the new one."""
    table, known = schema.patterns, schema.aliases
    values = {"task": name, "decided": True} if decided else {"task": name}
    db.execute(table.update().where(table.c.task == task).values(**values))
    db.execute(known.update().where(known.c.task == task).values(task=name))
    db.execute(known.delete().where(known.c.name == name))
    db.execute(sa.insert(known).prefix_with("OR REPLACE"), {"name": task, "task": name})
