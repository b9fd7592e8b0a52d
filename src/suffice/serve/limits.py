"""Rates and spending of virtual keys, shared by all workers of a home without a database write per request.

One file in the home, mapped into every worker: a record per key, at the key's id. Rates are GCRA: one number per
limit, the time at which the bucket would be full again (the theoretical arrival time of ITU-T I.371), so there are no
windows to reset. What is spent is what stands in records on the disk; what is under way is held by an estimate.

Each access locks its record's bytes (`fcntl`), for a few microseconds. A holder that is stopped in the middle holds
nobody up: after `WAIT_S` one goes on without the lock, and at worst one update is lost. All methods belong to one
thread, the event loop's: locks of this kind keep processes apart, not threads.

The file is made afresh when a server starts: rates begin anew, and spending is counted from the records.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suffice.core.budgets import Budget, Period, began, ends
from suffice.core.errors import StoreError

NAME = "limits"
LANES = 64
"""One per worker: what it holds, so that it can be given back when the worker has died."""
WAIT_S = 0.002
WINDOW_S = 60.0
"""Rates are per minute, and a minute's worth may come at once."""

_MONEY = struct.Struct("=dddddd")  # dollars: period's begin, spent, held; tokens: the same
_PAIR = struct.Struct("=dd")
_ONE = struct.Struct("=d")
_REQUESTS, _TOKENS, _MARK, _AMOUNTS = 0, 8, 16, 24
_LANES = _AMOUNTS + _MONEY.size
RECORD = _LANES + LANES * _PAIR.size
_LANE_LOCKS = 2**40
_GROWTH_LOCK = _LANE_LOCKS + LANES
"""Where locks are that lock no bytes of the file."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held of a key's budgets for a request under way."""

    usd: float
    tokens: float


NOTHING = Hold(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Account:
    """The budgets of a key; `version` is that of the limits they are of."""

    key: int
    version: int
    usd: Budget | None
    tokens: Budget | None


class Meter:
    """The file. `monotonic` runs the rates, `clock` (seconds since 1970) the periods."""

    def __init__(
        self,
        folder: Path,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._monotonic, self._clock = folder / NAME, monotonic, clock
        self._mapped: mmap.mmap | None = None
        self._records = 0
        self._periods: dict[Period, tuple[float, float | None]] = {}
        self.unlocked = 0

    def open(self) -> None:
        """Open the file, and take a lane: what a dead worker held there is given back. Raises OSError, StoreError."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lane = _LANES + self._take_lane() * _PAIR.size
        self.grow(os.fstat(self._fd).st_size // RECORD)
        for record in range(self._records):
            base = record * RECORD
            usd, tokens = _PAIR.unpack_from(self._map, base + self._lane)
            self._give_back(base, Hold(usd, tokens))

    def close(self) -> None:
        """Let go of the lane."""
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
        os.close(self._fd)

    def grow(self, records: int) -> None:
        """Have room for this many records. The file only grows, and its blocks are there before they are written."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, _GROWTH_LOCK)
        try:
            size = os.fstat(self._fd).st_size
            if size < records * RECORD:
                os.pwrite(self._fd, bytes(records * RECORD - size), size)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, _GROWTH_LOCK)
        if records > self._records:
            if self._mapped is not None:
                self._mapped.close()
            self._mapped, self._records = mmap.mmap(self._fd, records * RECORD), records

    @property
    def _map(self) -> mmap.mmap:
        assert self._mapped is not None
        return self._mapped

    def _take_lane(self) -> int:
        for lane in range(LANES):
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LANE_LOCKS + lane)
            except OSError:
                continue
            return lane
        raise StoreError(f"{self._path}: {LANES} workers share it already")

    # -- rates

    def request(self, key: int, per_minute: float) -> float:
        """Take one request: 0, or how many seconds it would have to wait (and then nothing is taken)."""
        return self._arrive(key * RECORD + _REQUESTS, 1.0, WINDOW_S / per_minute)

    def tokens(self, key: int, count: float, per_minute: float) -> float:
        """Take tokens: 0, or the seconds to wait. More than a minute's worth passes when none were used lately."""
        return self._arrive(key * RECORD + _TOKENS, count, WINDOW_S / per_minute)

    def correct_tokens(self, key: int, more: float, per_minute: float) -> None:
        """What was taken by an estimate was so many more (or fewer, below 0)."""
        base = key * RECORD
        locked = self._lock(base)
        try:
            (full,) = _ONE.unpack_from(self._map, base + _TOKENS)
            _ONE.pack_into(self._map, base + _TOKENS, full + more * WINDOW_S / per_minute)
        finally:
            self._unlock(base, locked)

    def _arrive(self, place: int, count: float, each_s: float) -> float:
        base = place - place % RECORD
        locked = self._lock(base)
        try:
            now = self._monotonic()
            full = max(now, _ONE.unpack_from(self._map, place)[0])
            late: float = full + min(count * each_s, WINDOW_S) - now - WINDOW_S
            if late > 1e-6:  # rounding must not keep the last of a minute's requests out
                return late
            _ONE.pack_into(self._map, place, full + count * each_s)
            return 0.0
        finally:
            self._unlock(base, locked)

    # -- spending

    def hold(self, account: Account, wanted: Hold) -> Budget | None:
        """Hold this much until it is settled; the budget that is used up if one is, and then nothing is held.

        A budget is used up when what was spent and what is held reach it: the last call that is let through may cost
        more than what is left.
        """
        base = account.key * RECORD
        locked = self._lock(base)
        try:
            amounts = self._amounts(base, account)
            if account.usd is not None and amounts[1] + amounts[2] >= account.usd.amount:
                return account.usd
            if account.tokens is not None and amounts[4] + amounts[5] >= account.tokens.amount:
                return account.tokens
            amounts[2] += wanted.usd
            amounts[5] += wanted.tokens
            _MONEY.pack_into(self._map, base + _AMOUNTS, *amounts)
            own = _PAIR.unpack_from(self._map, base + self._lane)
            _PAIR.pack_into(self._map, base + self._lane, own[0] + wanted.usd, own[1] + wanted.tokens)
            return None
        finally:
            self._unlock(base, locked)

    def settle(self, account: Account, held: Hold, spent: Hold, at: float) -> None:
        """Give back what was held, and add what was spent by a request of `at`, where its period still runs."""
        base = account.key * RECORD
        locked = self._lock(base)
        try:
            amounts = self._amounts(base, account)
            if at >= amounts[0]:
                amounts[1] += spent.usd
            if at >= amounts[3]:
                amounts[4] += spent.tokens
            _MONEY.pack_into(self._map, base + _AMOUNTS, *amounts)
            self._give_back(base, held)
        finally:
            self._unlock(base, locked)

    def spent(self, key: int) -> Hold:
        """In the running periods."""
        if key >= self._records:
            return NOTHING
        amounts = _MONEY.unpack_from(self._map, key * RECORD + _AMOUNTS)
        return Hold(amounts[1], amounts[4])

    def mark(self, key: int) -> int:
        """For which version of the key's limits its spending was counted; 0: for none."""
        return int(_ONE.unpack_from(self._map, key * RECORD + _MARK)[0]) if key < self._records else 0

    def counted(self, account: Account, before: Hold, found: Hold) -> None:
        """Take over what the records say was spent, if no other worker has; `before` is `spent` before they were read.

        What was settled meanwhile is added, though some of it may have been read too: the error is on the safe side.
        """
        base = account.key * RECORD
        locked = self._lock(base)
        try:
            if self.mark(account.key) >= account.version:
                return
            amounts = list(_MONEY.unpack_from(self._map, base + _AMOUNTS))
            amounts[0] = self._began(account.usd.period) if account.usd is not None else 0.0
            amounts[3] = self._began(account.tokens.period) if account.tokens is not None else 0.0
            amounts[1] = found.usd + max(amounts[1] - before.usd, 0.0)
            amounts[4] = found.tokens + max(amounts[4] - before.tokens, 0.0)
            _MONEY.pack_into(self._map, base + _AMOUNTS, *amounts)
            _ONE.pack_into(self._map, base + _MARK, float(account.version))
        finally:
            self._unlock(base, locked)

    def _amounts(self, base: int, account: Account) -> list[float]:
        """A record's amounts; where a new period has begun nothing is spent yet.

        A worker that has not seen yet that other periods hold for a key begins none.
        """
        amounts = list(_MONEY.unpack_from(self._map, base + _AMOUNTS))
        if _ONE.unpack_from(self._map, base + _MARK)[0] != account.version:
            return amounts
        for place, budget in ((0, account.usd), (3, account.tokens)):
            if budget is not None and (start := self._began(budget.period)) > amounts[place]:
                amounts[place], amounts[place + 1] = start, 0.0
        return amounts

    def _began(self, period: Period) -> float:
        now = self._clock()
        start, end = self._periods.get(period, (0.0, 0.0))
        if end is None or start <= now < end:
            return start
        start, end = self._periods[period] = began(period, now), ends(period, now)
        return start

    def _give_back(self, base: int, held: Hold) -> None:
        """From the total and from this worker's lane. Rounding leaves no debt behind."""
        amounts = list(_MONEY.unpack_from(self._map, base + _AMOUNTS))
        own = _PAIR.unpack_from(self._map, base + self._lane)
        amounts[2], amounts[5] = max(amounts[2] - held.usd, 0.0), max(amounts[5] - held.tokens, 0.0)
        _MONEY.pack_into(self._map, base + _AMOUNTS, *amounts)
        _PAIR.pack_into(self._map, base + self._lane, max(own[0] - held.usd, 0.0), max(own[1] - held.tokens, 0.0))

    # -- locks

    def _lock(self, base: int) -> bool:
        """Lock a record; False if that took too long."""
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, base)
            return True
        except OSError:
            return self._lock_slowly(base)

    def _lock_slowly(self, base: int) -> bool:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            os.sched_yield()
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, base)
                return True
            except OSError:
                continue
        self.unlocked += 1
        return False

    def _unlock(self, base: int, locked: bool) -> None:
        if locked:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, base)


def fresh(folder: Path) -> None:
    """Throw the file of an earlier server away; only who holds the home's server place may."""
    (folder / NAME).unlink(missing_ok=True)
