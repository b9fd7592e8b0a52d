"""Tasks, their releases, stages, runs, splits and the ledger: what must survive a restart to keep a promise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from suffice.core.errors import InputError
from suffice.core.prompt import Prompt
from suffice.core.style import Style
from suffice.core.types import Release, Stage, digest_of
from suffice.store import schema
from suffice.store.home import Home

FITTED = "~"
"""Before a pattern's number, where a task's name stands in `splits`: no task is called so."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What serving a release needs beside the release: which prompt it answers (None: not yet pinned) and how.

    `confidences` are tune's scores of answers that might be accepted, ascending: audits are planned by them, and the
    thresholds of a later certificate are drawn from them.
    """

    prompt: Prompt | None
    style: Style
    confidences: tuple[float, ...] = ()


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A release as stored. `name` is `triage@3`."""

    task: str
    n: int
    digest: str
    release: Release
    serving: Serving
    pinned: Prompt | None
    created_at: float

    @property
    def name(self) -> str:
        """`task@n`, as people write it."""
        return f"{self.task}@{self.n}"

    @property
    def prompt(self) -> Prompt | None:
        """The fixed part it answers, mined or pinned."""
        return self.serving.prompt or self.pinned


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task's place in the roll-out: its stage, and the release that the stage speaks of."""

    name: str
    stage: Stage
    release: int | None
    created_at: float


# ---------------------------------------------------------------------------------------------- tasks and stages


def ensure_task(home: Home, name: str) -> None:
    """Start a task in `observe`, if it is new; a name that a task had is that task's."""
    with home.engine.begin() as db:
        if started(db, name):
            tell(db)


def started(db: sa.Connection, name: str) -> bool:
    """`ensure_task`, as a part of the caller's transaction, who tells the workers; whether it is new."""
    added = db.exec_driver_sql(
        "INSERT OR IGNORE INTO tasks (name, stage, release, created_at) SELECT ?, ?, NULL, ? "
        "WHERE NOT EXISTS (SELECT 1 FROM aliases WHERE name = ?)",
        (name, Stage.OBSERVE.value, time.time(), name),
    )
    if added.rowcount:
        noted(db, name, "task", "started in observe")
    return bool(added.rowcount)


def all_tasks(home: Home) -> dict[str, Task]:
    """Every task, by name."""
    with home.engine.connect() as db:
        rows = db.execute(sa.select(schema.tasks).order_by(schema.tasks.c.name))
        return {
            row.name: Task(name=row.name, stage=Stage(row.stage), release=row.release, created_at=row.created_at)
            for row in rows
        }


def set_stage(home: Home, task: str, stage: Stage, n: int | None) -> None:
    """Move a task to a stage, with release n (None: the newest). Raises InputError where there is no such thing."""
    with home.engine.begin() as db:
        if db.execute(sa.select(schema.tasks.c.name).where(schema.tasks.c.name == task)).first() is None:
            raise InputError(f"there is no task {task!r}")
        known = db.execute(sa.select(schema.releases.c.n).where(schema.releases.c.task == task)).scalars().all()
        if n is None and known:
            n = max(known)
        if n is not None and n not in known:
            raise InputError(f"there is no release {task}@{n}")
        if n is None and stage not in (Stage.OBSERVE, Stage.REVOKED):
            raise InputError(f"task {task!r} has no release to put {stage}: run `suffice learn {task}` first")
        db.execute(schema.tasks.update().where(schema.tasks.c.name == task).values(stage=stage.value, release=n))
        _changed(db, task, "stage", f"{task}@{n} put {stage}" if n else f"put {stage}")


def move(
    home: Home,
    task: str,
    before: tuple[Stage, int | None],
    stage: Stage,
    n: int,
    kind: str,
    why: str,
    since: int | None = None,
) -> bool:
    """Move a task from where it was seen to be; False, and nothing done, if someone else has moved it since.

    `since` is the newest event (`newest_event`) that the mover knew of: whoever has put the task into a stage after it
    wins, even if that changed nothing (the kill switch).
    """
    with home.engine.begin() as db:
        return moved(db, task, before, stage, n, kind, why, since)


def moved(
    db: sa.Connection,
    task: str,
    before: tuple[Stage, int | None],
    stage: Stage,
    n: int,
    kind: str,
    why: str,
    since: int | None = None,
) -> bool:
    """`move`, as a part of the caller's transaction."""
    table, said = schema.tasks, schema.events.c
    update = table.update().where(
        table.c.name == task, table.c.stage == before[0].value, table.c.release.is_not_distinct_from(before[1])
    )
    if since is not None:
        later = sa.exists().where(said.seq > since, said.kind == "stage", _of(task))
        update = update.where(sa.not_(later))
    done = db.execute(update.values(stage=stage.value, release=n))
    if done.rowcount:
        _changed(db, task, kind, why)
    return bool(done.rowcount)


def note(home: Home, task: str | None, kind: str, what: str) -> None:
    """Write an event that changes nothing for the workers."""
    with home.engine.begin() as db:
        noted(db, task, kind, what)


def noted(db: sa.Connection, task: str | None, kind: str, what: str) -> None:
    """`note`, as a part of the caller's transaction."""
    db.execute(schema.events.insert().values(at=time.time(), task=task, kind=kind, what=what))


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a task (None: to all)."""

    at: float
    task: str | None
    kind: str | None
    what: str


def events(home: Home, task: str, limit: int = 20, kind: str | None = None) -> list[Event]:
    """The task's newest events (of this kind), newest first, those of all tasks among them."""
    table = schema.events
    wanted = sa.select(table).where(_of(task))
    if kind is not None:
        wanted = wanted.where(table.c.kind == kind)
    with home.engine.connect() as db:
        return [
            Event(at=row.at, task=row.task, kind=row.kind, what=row.what)
            for row in db.execute(wanted.order_by(table.c.seq.desc()).limit(limit))
        ]


def newest_event(home: Home) -> int:
    """The place of the newest event of all."""
    with home.engine.connect() as db:
        return db.execute(sa.select(sa.func.max(schema.events.c.seq))).scalar() or 0


def last_of(home: Home, task: str, *kinds: str) -> str | None:
    """Which of these kinds of event happened last to a task, those of all tasks among them; None if none did.

    By the order in which they were written: clocks jump.
    """
    table = schema.events
    wanted = sa.select(table.c.kind).where(_of(task), table.c.kind.in_(kinds)).order_by(table.c.seq.desc()).limit(1)
    with home.engine.connect() as db:
        return db.execute(wanted).scalar()


def _of(task: str) -> sa.ColumnElement[bool]:
    return sa.or_(schema.events.c.task == task, schema.events.c.task.is_(None))


def stop_all(home: Home, stage: Stage) -> list[str]:
    """Move every task to `stage` (the kill switch); the tasks moved."""
    with home.engine.begin() as db:
        names = list(db.execute(sa.select(schema.tasks.c.name).where(schema.tasks.c.stage != stage.value)).scalars())
        db.execute(schema.tasks.update().values(stage=stage.value))
        _changed(db, None, "stage", f"all tasks put {stage}")
    return names


def _changed(db: sa.Connection, task: str | None, kind: str, what: str) -> None:
    """Write an event and tell the workers."""
    noted(db, task, kind, what)
    tell(db)


def tell(db: sa.Connection) -> None:
    """Tell the workers that something has changed that they serve by."""
    db.execute(schema.routing.update().values(version=schema.routing.c.version + 1))


# ---------------------------------------------------------------------------------------------- releases


def identity(release: Release, serving: Serving) -> str:
    """A release's digest: what it answers and why it may; not when it was made or how fast this machine was."""
    draft = msgspec.to_builtins(release.draft)
    del draft["threshold"]["certificate"]["at"]
    return digest_of(msgspec.json.encode(draft, order="deterministic"), msgspec.json.encode(serving))


def add_release(home: Home, task: str, release: Release, serving: Serving, digest: str) -> Stored:
    """Store a release as the task's next. The stage stays; a task without an active release gets this one."""
    with home.engine.begin() as db:
        n = (
            db.execute(sa.select(sa.func.max(schema.releases.c.n)).where(schema.releases.c.task == task)).scalar() or 0
        ) + 1
        stored = Stored(
            task=task, n=n, digest=digest, release=release, serving=serving, pinned=None, created_at=time.time()
        )
        db.execute(
            schema.releases.insert().values(
                task=task,
                n=n,
                digest=digest,
                release=_text(release),
                serving=_text(serving),
                created_at=stored.created_at,
            )
        )
        task_row = schema.tasks.c.name == task
        active = db.execute(sa.select(schema.tasks.c.release, schema.tasks.c.stage).where(task_row)).one()
        if active.release is None or active.stage == Stage.OBSERVE:
            db.execute(schema.tasks.update().where(task_row).values(release=n))
        _changed(db, task, "release", f"{stored.name} released")
    return stored


def get_release(home: Home, task: str, n: int | None = None) -> Stored | None:
    """Release n of a task, the newest if n is None; None if there is none."""
    table = schema.releases
    wanted = sa.select(table).where(table.c.task == task).order_by(table.c.n.desc())
    with home.engine.connect() as db:
        row = db.execute(wanted.where(table.c.n == n) if n is not None else wanted).first()
    return _stored(row) if row is not None else None


def all_releases(home: Home, task: str) -> list[Stored]:
    """A task's releases, oldest first."""
    table = schema.releases
    with home.engine.connect() as db:
        return [_stored(row) for row in db.execute(sa.select(table).where(table.c.task == task).order_by(table.c.n))]


def pin(home: Home, task: str, n: int, prompt: Prompt) -> Prompt:
    """Pin the prompt of the first live request, once for all workers; the prompt that is pinned now."""
    table = schema.releases
    here = (table.c.task == task) & (table.c.n == n)
    with home.engine.begin() as db:
        done = db.execute(table.update().where(here, table.c.pinned.is_(None)).values(pinned=_text(prompt)))
        if done.rowcount:
            _changed(db, task, "pin", f"{task}@{n} pinned to the prompt of its first request")
            return prompt
        return msgspec.json.decode(db.execute(sa.select(table.c.pinned).where(here)).scalar_one(), type=Prompt)


def _stored(row: sa.Row[Any]) -> Stored:
    return Stored(
        task=row.task,
        n=row.n,
        digest=row.digest,
        release=msgspec.json.decode(row.release, type=Release),
        serving=msgspec.json.decode(row.serving, type=Serving),
        pinned=msgspec.json.decode(row.pinned, type=Prompt) if row.pinned else None,
        created_at=row.created_at,
    )


def _text(noun: msgspec.Struct) -> str:
    return msgspec.json.encode(noun).decode()


# ---------------------------------------------------------------------------------------------- runs, splits, ledger


def add_run(home: Home, task: str, key: str, exit_code: int, document: Mapping[str, Any]) -> None:
    """Keep what a learning run said."""
    with home.engine.begin() as db:
        text = msgspec.json.encode(document).decode()
        db.execute(schema.runs.insert().values(task=task, at=time.time(), key=key, exit=exit_code, document=text))


def last_run(home: Home, task: str, key: str | None = None) -> tuple[int, dict[str, Any]] | None:
    """The newest run of a task (with this key): exit code and document."""
    table = schema.runs
    wanted = sa.select(table.c.exit, table.c.document).where(table.c.task == task).order_by(table.c.seq.desc())
    with home.engine.connect() as db:
        row = db.execute(wanted.where(table.c.key == key) if key is not None else wanted).first()
    return (row.exit, msgspec.json.decode(row.document)) if row is not None else None


def get_splits(home: Home, task: str) -> dict[str, str]:
    """Record id to the split it was given in earlier runs.

    Rows by which a matcher learned to tell a task's requests by meaning train: it has seen what they were answered.
    """
    splits, pattern = schema.splits.c, schema.patterns.c
    parents = sa.select(FITTED + sa.cast(pattern.parent, sa.String)).where(pattern.task == task)
    wanted = sa.select(splits.task, splits.example, splits.split)
    with home.engine.connect() as db:
        rows = db.execute(wanted.where(sa.or_(splits.task == task, splits.task.in_(parents)))).all()
    known = {row.example: row.split for row in rows if row.task == task}
    return known | {row.example: "train" for row in rows if row.task != task}


def put_fitted(home: Home, pattern: int, records: Sequence[str]) -> None:
    """Keep by which records the matcher of a prompt's pattern was fitted."""
    put_splits(home, f"{FITTED}{pattern}", dict.fromkeys(records, "train"))


def put_splits(home: Home, task: str, assigned: Mapping[str, str]) -> None:
    """Keep which example is in which split; an example that moves (a read test row becomes train) is overwritten."""
    with home.engine.begin() as db:
        if assigned:
            db.exec_driver_sql(
                "INSERT INTO splits (task, example, split) VALUES (?, ?, ?) "
                "ON CONFLICT (task, example) DO UPDATE SET split = excluded.split",
                [(task, example, split) for example, split in assigned.items()],
            )


def attempts(home: Home, task: str) -> int:
    """How many looks at calibration the task's ledger has paid for."""
    with home.engine.connect() as db:
        return db.execute(sa.select(sa.func.count()).where(schema.ledger.c.task == task)).scalar_one()


def last_attempt(home: Home, task: str) -> tuple[int, str] | None:
    """The newest attempt of the task's ledger, and the digest of what it looked at; None before the first."""
    table = schema.ledger
    wanted = sa.select(table.c.attempt, table.c.calibration).where(table.c.task == task)
    with home.engine.connect() as db:
        row = db.execute(wanted.order_by(table.c.attempt.desc()).limit(1)).first()
        return (row.attempt, row.calibration) if row is not None else None


def charge(home: Home, task: str, attempt: int, delta: float, calibration: str) -> None:
    """Write attempt k durably, before its labels are read."""
    with home.engine.begin() as db:
        db.execute(
            schema.ledger.insert().values(
                task=task, attempt=attempt, at=time.time(), delta=delta, calibration=calibration
            )
        )
