"""Who asks, and what they may: virtual keys, their limits and budgets.

    a key in a header -> whose -> not too often -> not too much at once -> this model, this task -> within the budget

A request passes these in this order, each where the request path first knows enough. What it costs is told by its
record once that is on the disk; until then an estimate is held. Keys are read again within a second of a change.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote_to_bytes

import msgspec

from suffice.core.budgets import Budget, ends
from suffice.core.config import Access as Settings
from suffice.core.types import Egress, Usage
from suffice.serve.capture import Cost, Exchange
from suffice.serve.edges import Refused, Scope
from suffice.serve.limits import NOTHING, Account, Hold, Meter
from suffice.store import keys, records
from suffice.store.home import Home
from suffice.store.keys import OURS, Key
from suffice.store.records import Row

log = logging.getLogger(__name__)

POLL_S = 0.25
BYTES_A_TOKEN = 4
PRICED_TOKENS = 100_000
"""An estimate's tokens are priced up to here, at unit prices that are kept; the record tells the rest."""
LEARNED = 0.2
"""The weight of the newest call in what a key's calls cost beside what was guessed."""
_ONCE = Hold(1.0, 1.0)
_OWN, _ELSE = b"x-suffice-key", frozenset({b"authorization", b"x-api-key", b"api-key"})
_BEARER = b"bearer "
_CHALLENGE = [(b"www-authenticate", b"Bearer")]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `name` is the virtual key's, None where the gateway asks for none; empty lists allow all."""

    name: str | None = None
    egress: Egress | None = None
    admin: bool = False
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    id: int = 0
    expires_at: float = math.inf
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    account: Account | None = None
    """Its budgets; None without any."""


ANYONE = Caller()


@dataclass(slots=True)
class _Under:
    """A request under way: what was taken of the rate, and what is held of the budgets."""

    caller: Caller
    tokens: float = 0.0
    guess: Hold = NOTHING
    held: Hold = NOTHING


@dataclass(frozen=True, slots=True)
class _Door:
    """The keys of a home at a time, by digest, each with until when it works (seconds since 1970)."""

    known: Mapping[bytes, tuple[bytes, Caller, float]]
    any: bool
    any_admin: bool


class Access:
    """The door. One per process, kept over a change of settings; all methods belong to the event loop.

    `cost` prices an estimate. `loopback`: the server can only be reached from this machine.
    """

    def __init__(self, home: Home, settings: Settings, cost: Cost, loopback: bool = True) -> None:
        self._home, self._loopback = home, loopback
        self._meter = Meter(home.folder)
        self._under: dict[str, _Under] = {}
        self._times: dict[int, Hold] = {}
        self._version = self._data_version = -1
        self._door = _Door({}, any=False, any_admin=False)
        self._connection: sqlite3.Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.counts: Counter[str] = Counter()
        self.adopt(settings, cost)

    def adopt(self, settings: Settings, cost: Cost) -> None:
        """Take over other settings."""
        self._settings, self._cost = settings, cost
        self._decide()

    # -- who

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who this is. Raises Refused: 401 for nobody we know, 429 for who comes too often."""
        if not self._required:
            return ANYONE
        caller = self._who(headers)
        if caller.requests_per_minute is not None:
            wait_s = self._meter.request(caller.id, caller.requests_per_minute)
            if wait_s > 0:
                raise self._too_often(caller, f"{caller.requests_per_minute:g} requests", wait_s)
        return caller

    def named(self, name: str) -> Caller | None:
        """Who has the key of this name, for work that goes on after a request; None if it is not valid any more."""
        now = time.time()
        known = (caller for _, caller, until in self._door.known.values() if caller.name == name and now < until)
        return next(known, None)

    def admit_admin(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The administrator with this key. Raises Refused: 401 for anyone else, 403 where no admin key exists."""
        if not self._door.any_admin:
            raise Refused("no admin key exists: `suffice keys create NAME --admin` makes one", 403, "no_admin_key")
        caller = self._who(headers)
        if not caller.admin:
            raise self._unknown(f"the key {caller.name!r} is no admin key")
        return caller

    def admit_scrape(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Whether metrics may be read (`access.metrics`). Raises Refused (401)."""
        wanted = self._settings.metrics
        if wanted == "key" or (wanted == "auto" and not self._loopback and self._required):
            self._who(headers)

    @property
    def required(self) -> bool:
        """Whether nobody gets in without a key."""
        return self._required

    def _who(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        given = _key_in(headers)
        if given is None:
            raise self._unknown(
                "a key of this gateway is missing: send it as `Authorization: Bearer sk-suffice-...`, `x-api-key` "
                "or `X-Suffice-Key`"
            )
        digest = keys.digest_of(given)
        known = self._door.known.get(digest)
        if known is None or not hmac.compare_digest(known[0], digest):
            raise self._unknown("this key is not known here, or was revoked")
        if time.time() >= known[2]:
            self.counts["expired_key"] += 1
            raise Refused(f"the key {known[1].name!r} has expired", 401, "expired_key", headers=_CHALLENGE)
        return known[1]

    def _unknown(self, message: str) -> Refused:
        self.counts["invalid_key"] += 1
        return Refused(message, 401, "invalid_key", headers=_CHALLENGE)

    # -- what, and how much

    def look_at(self, scope: Scope) -> None:
        """Raises Refused (400) where the address holds a key of ours: addresses are logged on the way."""
        address = scope.get("raw_path", b"") + b"?" + scope["query_string"]
        if OURS in address or (b"%" in address and OURS in unquote_to_bytes(address)):
            raise Refused("a key has come in the address of the request: send it in a header", 400, "key_in_url")

    def weigh(self, caller: Caller, exchange: Exchange) -> None:
        """Take the request's estimated tokens from the key's rate. Raises Refused (429)."""
        if caller.tokens_per_minute is None:
            return
        tokens = _estimated(exchange)
        wait_s = self._meter.tokens(caller.id, tokens, caller.tokens_per_minute)
        if wait_s > 0:
            raise self._too_often(caller, f"{caller.tokens_per_minute:,.10g} tokens", wait_s)
        self._under[exchange.id] = _Under(caller, tokens)

    def may_start(self, caller: Caller, task: str | None) -> bool:
        """Whether this caller's request may start a task of that name."""
        return not caller.tasks or task in caller.tasks

    def allow(self, caller: Caller, model: str, task: str | None) -> None:
        """Raises Refused (403) where this caller may not ask this model or task."""
        if caller.models and not self.may_ask(caller, model):
            told = ", ".join(caller.models)
            raise self._not(f"the key {caller.name!r} may not ask model {model!r}, only {told}", "model_not_allowed")
        if caller.tasks and task not in caller.tasks:
            what = f"requests of task {task!r}" if task is not None else "requests of no task"
            told = ", ".join(caller.tasks)
            raise self._not(f"the key {caller.name!r} may not send {what}, only of {told}", "task_not_allowed")

    def may_ask(self, caller: Caller, model: str) -> bool:
        """Whether this model is among those that the caller may ask."""
        return not caller.models or any(fnmatchcase(model, pattern) for pattern in caller.models)

    def reserve(self, caller: Caller, exchange: Exchange) -> None:
        """Before a request leaves: hold its estimated cost. Raises Refused: 429 where a budget is used up, 403 where
        there is one in dollars and the model's price is not known."""
        before = self._under.get(exchange.id)
        if caller.account is None or (before is not None and before.held is not NOTHING):
            return
        tokens = _estimated(exchange)
        usd = 0.0
        if caller.account.usd is not None:
            priced = self._cost(exchange.model, Usage(prompt=min(tokens, PRICED_TOKENS), completion=0))
            if priced is None:
                raise self._not(
                    f"the key {caller.name!r} has a budget in dollars, and no price of model {exchange.model!r} is "
                    'known: [prices."MODEL"] in suffice.toml gives one',
                    "no_price",
                )
            usd = priced
        guess, times = Hold(usd, tokens), self._times.get(caller.id, _ONCE)
        wanted = Hold(guess.usd * times.usd, guess.tokens * times.tokens)
        used = self._meter.hold(caller.account, wanted)
        if used is not None:
            raise self._used_up(caller, used, in_dollars=used is caller.account.usd)
        under = self._under.setdefault(exchange.id, _Under(caller))
        under.guess, under.held = guess, wanted

    def _too_often(self, caller: Caller, what: str, wait_s: float) -> Refused:
        self.counts["rate_limited"] += 1
        message = f"the key {caller.name!r} may send {what} a minute: try again in {wait_s:.3g} s"
        return Refused(message, 429, "rate_limited", headers=_again(wait_s))

    def _used_up(self, caller: Caller, budget: Budget, in_dollars: bool) -> Refused:
        self.counts["budget_exceeded"] += 1
        now = time.time()
        end = ends(budget.period, now)
        told = f"${budget.amount:,.10g}" if in_dollars else f"{budget.amount:,.10g} tokens"
        per = f"a {budget.period}" if end is not None else "in total"
        message = f"the key {caller.name!r} has used up its budget of {told} {per}"
        headers = [*(_again(end - now) if end is not None else []), *_NOT_NOW]
        return Refused(message, 429, "budget_exceeded", headers=headers)

    def _not(self, message: str, code: str) -> Refused:
        self.counts[code] += 1
        return Refused(message, 403, code)

    # -- what it came to

    def tell(self, rows: Sequence[Row]) -> None:
        """Rows are on the disk: from any thread. The budgets are settled by the event loop."""
        if self._under and self._loop is not None:
            self._loop.call_soon_threadsafe(self._settle, rows)

    def _settle(self, rows: Sequence[Row]) -> None:
        for row in rows:
            under = self._under.pop(row.id, None)
            if under is None:
                continue
            tokens = (row.prompt_tokens or 0) + (row.completion_tokens or 0)
            paid = row.route not in records.FREE
            # A specialist that is elsewhere costs something, where its tokens are nobody's allowance.
            self._spend(under, row.at, tokens, Hold(row.cost_usd or 0.0, tokens * paid))

    def unrecorded(self, exchange: Exchange) -> None:
        """A request has ended of which there will be no record: where it was answered, the estimate is its cost."""
        under = self._under.pop(exchange.id, None)
        if under is not None:
            answered = exchange.status is not None and exchange.status < 400
            self._spend(under, exchange.at, under.tokens * answered, under.held if answered else NOTHING)

    def _spend(self, under: _Under, at: float, tokens: float, spent: Hold) -> None:
        caller = under.caller
        if caller.tokens_per_minute is not None and tokens != under.tokens:
            self._meter.correct_tokens(caller.id, tokens - under.tokens, caller.tokens_per_minute)
        if caller.account is not None and under.held is not NOTHING:
            self._meter.settle(caller.account, under.held, spent, at)
            if spent.tokens:
                self._learn(caller.id, under.guess, spent)

    def _learn(self, key: int, guess: Hold, spent: Hold) -> None:
        """How many times its guess a call of this key costs: a guess knows the request, not the answer."""
        before, usd = self._times.get(key), spent.usd / guess.usd if guess.usd else 1.0
        now = Hold(usd, spent.tokens / guess.tokens)
        if before is not None:
            now = Hold(
                before.usd + (now.usd - before.usd) * LEARNED, before.tokens + (now.tokens - before.tokens) * LEARNED
            )
        self._times[key] = now

    # -- keeping up with the home

    def open(self) -> None:
        """Read the keys and what they have spent. Raises sqlite3.Error, OSError, StoreError."""
        self._connection = self._home.connect()
        self._meter.open()
        self._look()
        self._take(self._read())

    async def run(self) -> None:
        """Look every 250 ms, for ever; a failed look is logged and tried again."""
        self._loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(POLL_S)
            try:
                if self._look():
                    self._take(await asyncio.to_thread(self._read))
            except Exception as error:  # noqa: BLE001 - the boundary of the poll: serving must go on without it
                self._version = self._data_version = -1
                log.error("the keys cannot be read: %s", error)

    def close(self) -> None:
        """Let go of database and file."""
        self._loop = None
        self._meter.close()
        if self._connection is not None:
            self._connection.close()

    def _look(self) -> bool:
        """Whether a key was made or changed: microseconds, and one row where anything was written at all."""
        assert self._connection is not None
        moved = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if moved == self._data_version:
            return False
        self._data_version = moved
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (keys.VERSION,)).fetchone()
        version = int(row[0]) if row is not None else 0
        changed, self._version = version != self._version, version
        return changed

    def _read(self) -> list[tuple[Key, tuple[Hold, Hold] | None]]:
        """The keys; those whose spending is still to be counted with what was known of it, and what records say."""
        return [(key, self._counted(key)) for key in keys.all_keys(self._home)]

    def _counted(self, key: Key) -> tuple[Hold, Hold] | None:
        if key.revoked_at is not None or self._meter.mark(key.id) >= key.version:
            return None
        before, (usd, tokens) = self._meter.spent(key.id), keys.running(self._home, key, time.time())
        return before, Hold(usd.usd, float(tokens.tokens))

    def _take(self, found: Sequence[tuple[Key, tuple[Hold, Hold] | None]]) -> None:
        """Take over the keys as they are now."""
        self._meter.grow(max((key.id for key, _ in found), default=0) + 1)
        known: dict[bytes, tuple[bytes, Caller, float]] = {}
        for key, counted in found:
            if key.revoked_at is not None:
                continue
            caller = _caller(key)
            if caller.account is not None and counted is not None:
                self._meter.counted(caller.account, *counted)
            known[key.digest] = key.digest, caller, caller.expires_at
            if key.former is not None and key.former_until is not None:
                known[key.former] = key.former, caller, min(key.former_until, caller.expires_at)
        self._door = _Door(known, any=bool(found), any_admin=any(caller.admin for _, caller, _ in known.values()))
        self._decide()

    def _decide(self) -> None:
        wanted = self._settings.keys
        self._required = wanted == "required" or (wanted == "auto" and self._door.any)


def _caller(key: Key) -> Caller:
    budgeted = key.budget_usd is not None or key.budget_tokens is not None
    return Caller(
        name=key.name,
        egress=key.egress,
        admin=key.admin,
        models=key.models,
        tasks=key.tasks,
        id=key.id,
        expires_at=key.expires_at if key.expires_at is not None else math.inf,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        account=Account(key.id, key.version, key.budget_usd, key.budget_tokens) if budgeted else None,
    )


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The key that came: what `X-Suffice-Key` holds, else the first of the vendors' headers that holds one of ours."""
    found = None
    for name, value in headers:
        if name == _OWN:
            return value.strip()
        if name in _ELSE and found is None:
            given = (value[7:] if value[:7].lower() == _BEARER else value).strip()
            if given.startswith(OURS):
                found = given
    return found


def _estimated(exchange: Exchange) -> int:
    """Tokens of the request, by its bytes."""
    return len(exchange.request or b"") // BYTES_A_TOKEN + 1


def _again(wait_s: float) -> list[tuple[bytes, bytes]]:
    """When to try again, in whole seconds and in milliseconds: the vendors' SDKs read both."""
    return [
        (b"retry-after", str(math.ceil(wait_s)).encode()),
        (b"retry-after-ms", str(math.ceil(wait_s * 1e3)).encode()),
    ]


_NOT_NOW = [(b"x-should-retry", b"false")]
"""The vendors' SDKs would try again in seconds where `Retry-After` is more than a minute; this they heed."""
