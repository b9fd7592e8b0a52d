"""Virtual keys: who may ask, what, and how much. The key itself is shown once and never kept.

A key has 256 random bits, so its plain SHA-256 tells nothing about it: a slow hash protects words that people choose,
and would cost every request. Rows stay when a key is revoked: records go by its name.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from suffice.core.budgets import Budget, began
from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME, Egress
from suffice.store import records, schema
from suffice.store.home import Home

PREFIX = "sk-suffice-"
OURS = PREFIX.encode()
"""What has this in it is a key of ours, and goes to no upstream."""
SECRET_BYTES = 32
VERSION = "keys_version"
"""In `meta`: rises with every change, so that workers see one at the cost of a row."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What of a key people set. Empty `models` (patterns) and `tasks` allow all. Times are seconds since 1970."""

    expires_at: float | None = None
    admin: bool = False
    egress: Egress | None = None
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    budget_usd: Budget | None = None
    budget_tokens: Budget | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Key(Limits, frozen=True, kw_only=True):
    """A virtual key as it is kept. `digest` is the SHA-256 of the key, `last4` is for people.

    `former`, `former_until`: the digest before the last rotation, and how long it still works. `version` rises when
    limits change.
    """

    id: int
    name: str
    digest: bytes
    last4: str
    former: bytes | None = None
    former_until: float | None = None
    created_at: float
    revoked_at: float | None = None
    version: int = 1


class Spent(msgspec.Struct, frozen=True):
    """What a key has spent: US dollars, and tokens of prompts and answers that an upstream was paid for."""

    usd: float
    tokens: int


_JSON = ("models", "tasks", "budget_usd", "budget_tokens")


def digest_of(key: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(key).digest()


def _secret(random: Callable[[int], bytes]) -> tuple[str, dict[str, object]]:
    """A new key, and the columns that keep it."""
    key = PREFIX + base64.urlsafe_b64encode(random(SECRET_BYTES)).decode().rstrip("=")
    return key, {"digest": digest_of(key.encode()), "last4": key[-4:]}


def create(home: Home, name: str, limits: Limits, random: Callable[[int], bytes]) -> str:
    """Make a key; the key, which cannot be had again. Raises InputError if the name is taken, now or in the past."""
    if not TASK_NAME.fullmatch(name):
        raise InputError(f"{name!r}: a key's name is 1 to 64 letters, digits, dots, dashes or underscores")
    key, columns = _secret(random)
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        if (taken := _found(db, name)) is not None:
            was = "was revoked, and records go by its name" if taken.revoked_at is not None else "exists"
            raise InputError(f"a key named {name!r} {was}: choose another name")
        db.execute(schema.keys.insert().values(name=name, created_at=time.time(), **columns, **_columns(limits)))
        _changed(db)
    return key


def change(home: Home, name: str, changes: dict[str, object]) -> Key:
    """Change limits: fields of `Limits` by name. Raises InputError for a key that is not there, or revoked."""
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        key = _working(db, name)
        limits = Limits(**{field: getattr(key, field) for field in Limits.__struct_fields__} | changes)
        _update(db, name, version=key.version + 1, **_columns(limits))
        return _working(db, name)


def rotate(home: Home, name: str, grace_s: float, random: Callable[[int], bytes]) -> tuple[str, float]:
    """A new key under the same name; with it, until when the old one works. Raises InputError like `change`."""
    key, columns = _secret(random)
    until = time.time() + grace_s
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        former = _working(db, name)
        _update(db, name, former=former.digest, former_until=until, **columns)
    return key, until


def revoke(home: Home, name: str) -> float:
    """From now on nobody may ask with it. Raises InputError like `change`."""
    at = time.time()
    with home.engine.begin() as db:
        db.exec_driver_sql("BEGIN IMMEDIATE")
        _working(db, name)
        _update(db, name, revoked_at=at)
    return at


def all_keys(home: Home) -> list[Key]:
    """Every key there is or was, by the order in which they were made."""
    with home.engine.connect() as db:
        return [_key(row) for row in db.execute(sa.select(schema.keys).order_by(schema.keys.c.id))]


def get(home: Home, name: str) -> Key:
    """A key by its name. Raises InputError if there is none."""
    with home.engine.connect() as db:
        if (key := _found(db, name)) is None:
            raise InputError(f"there is no key named {name!r}")
        return key


def spent(home: Home, name: str, since: float) -> Spent:
    """What a key has spent on requests that arrived since then."""
    table = schema.records
    tokens = sa.func.coalesce(table.c.prompt_tokens, 0) + sa.func.coalesce(table.c.completion_tokens, 0)
    paid = sa.case((table.c.route.not_in(records.FREE), tokens), else_=0)  # dollars: a specialist may cost some, too
    wanted = sa.select(records.total(table.c.cost_usd), records.total(paid))
    wanted = wanted.where(table.c.key == name, table.c.at >= since)
    with home.engine.connect() as db:
        usd, count = db.execute(wanted).one()
        return Spent(usd, int(count))


def running(home: Home, key: Key, at: float) -> tuple[Spent, Spent]:
    """What a key has spent in the running period of its dollar budget, and of its token budget (else: this month's)."""
    periods = [budget.period if budget is not None else "month" for budget in (key.budget_usd, key.budget_tokens)]
    usd, tokens = (spent(home, key.name, began(period, at)) for period in periods)
    return usd, tokens


def _working(db: sa.Connection, name: str) -> Key:
    key = _found(db, name)
    if key is None:
        raise InputError(f"there is no key named {name!r}")
    if key.revoked_at is not None:
        raise InputError(f"the key {name!r} was revoked")
    return key


def _found(db: sa.Connection, name: str) -> Key | None:
    row = db.execute(sa.select(schema.keys).where(schema.keys.c.name == name)).first()
    return _key(row) if row is not None else None


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    told = {str(name): value for name, value in row._mapping.items()}
    for name in _JSON:
        told[name] = msgspec.json.decode(told[name]) if told[name] is not None else None
    return msgspec.convert({k: v for k, v in told.items() if v is not None}, Key)


def _columns(limits: Limits) -> dict[str, object]:
    told: dict[str, object] = {name: getattr(limits, name) for name in Limits.__struct_fields__}
    for name in _JSON:
        value = told[name]
        told[name] = msgspec.json.encode(value).decode() if value else None
    return told


def _update(db: sa.Connection, name: str, **columns: object) -> None:
    db.execute(schema.keys.update().where(schema.keys.c.name == name).values(**columns))
    _changed(db)


def _changed(db: sa.Connection) -> None:
    """Tell the workers."""
    db.exec_driver_sql(
        "INSERT INTO meta (key, value) VALUES (?, '1') ON CONFLICT (key) DO UPDATE SET value = value + 1", (VERSION,)
    )
