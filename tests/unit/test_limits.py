"""Rates against an oracle that keeps every arrival; budgets; and that several processes never let too much through."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.budgets import Budget
from suffice.serve.limits import NOTHING, Account, Hold, Meter, fresh

PROCESSES = 4


class Clock:
    """A time that is set."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def meter(tmp_path: Path, clock: Clock) -> Iterator[Meter]:
    made = Meter(tmp_path, monotonic=clock, clock=clock)
    made.open()
    made.grow(4)
    yield made
    made.close()


class Bucket:
    """The oracle: a bucket of a minute's worth that is filled evenly, followed arrival by arrival."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate, self.size, self.level, self.last = per_minute / 60, per_minute, per_minute, now

    def take(self, count: float, now: float) -> bool:
        self.level = min(self.size, self.level + (now - self.last) * self.rate)
        self.last = now
        if min(count, self.size) > self.level + 1e-6 * self.rate * 60:
            return False
        self.level -= count
        return True


@given(
    st.integers(1, 2000),
    st.lists(st.tuples(st.floats(0, 90), st.integers(1, 3000)), max_size=60),
)
@settings(max_examples=150, deadline=None)
def test_a_rate_lets_through_what_a_bucket_does(
    tmp_path_factory: pytest.TempPathFactory, per_minute: int, arrivals: list[tuple[float, int]]
) -> None:
    clock = Clock(5_000.0)
    meter = Meter(tmp_path_factory.mktemp("limits"), monotonic=clock)
    meter.open()
    meter.grow(1)
    bucket = Bucket(per_minute, clock.at)
    for pause, count in arrivals:
        clock.at += round(pause * 8) / 8
        wait_s = meter.tokens(0, count, per_minute)
        assert (wait_s == 0) is bucket.take(count, clock.at)
        if wait_s > 0:  # and what it says is true: after that long it passes, and not before
            clock.at += wait_s * 0.999 - 1e-3
            assert meter.tokens(0, count, per_minute) > 0
            bucket.take(1e12, clock.at)
    meter.close()


def test_a_minutes_worth_at_once_then_evenly(meter: Meter, clock: Clock) -> None:
    assert [meter.request(1, 30) == 0 for _ in range(40)] == [True] * 30 + [False] * 10
    assert meter.request(1, 30) == pytest.approx(2.0)
    assert meter.request(2, 30) == 0  # another key
    clock.at += 2.0
    assert meter.request(1, 30) == 0 and meter.request(1, 30) > 0


def test_tokens_are_corrected_when_the_record_tells(meter: Meter, clock: Clock) -> None:
    assert meter.tokens(1, 1000, 1000) == 0 and meter.tokens(1, 100, 1000) > 0
    meter.correct_tokens(1, -900, 1000)
    assert meter.tokens(1, 900, 1000) == 0
    assert meter.tokens(1, 5000, 1000) > 0
    clock.at += 60
    assert meter.tokens(1, 5000, 1000) == 0  # more than a minute's worth, when nothing was used lately: paid off later
    assert meter.tokens(1, 1, 1000) == pytest.approx(240, rel=0.01)


def test_a_budget_is_used_up_by_what_is_spent_and_what_is_under_way(meter: Meter, clock: Clock) -> None:
    account = Account(1, 1, Budget(1.0, "day"), Budget(1e6, "month"))
    meter.counted(account, NOTHING, Hold(0.5, 10))
    assert meter.hold(account, Hold(0.3, 100)) is None
    assert meter.hold(account, Hold(0.3, 100)) is None  # 0.8 < 1: the last one may cost more than what is left
    assert meter.hold(account, Hold(0.3, 100)) is account.usd
    meter.settle(account, Hold(0.3, 100), Hold(0.1, 90), clock.at)
    assert meter.spent(1).usd == pytest.approx(0.6) and meter.hold(account, Hold(0.3, 100)) is None
    clock.at += 86_400  # a new day, the same month
    assert meter.hold(account, Hold(0.0, 1e6)) is None
    assert meter.spent(1) == Hold(0.0, 100) and meter.hold(account, Hold(0.0, 1)) is account.tokens
    meter.settle(account, Hold(0.3, 100), Hold(5.0, 90), clock.at - 86_400)  # yesterday's
    assert meter.spent(1) == Hold(0.0, 190)


def test_a_worker_with_older_limits_begins_no_period(meter: Meter, clock: Clock) -> None:
    before, now = Account(1, 1, Budget(1.0, "hour"), None), Account(1, 2, Budget(1.0, "total"), None)
    meter.counted(before, NOTHING, Hold(0.2, 0))
    meter.counted(now, meter.spent(1), Hold(0.9, 0))
    clock.at += 7_200
    assert meter.hold(before, Hold(0.0, 0)) is None
    assert meter.spent(1).usd == pytest.approx(0.9)
    meter.counted(before, NOTHING, Hold(0.0, 0))
    assert meter.spent(1).usd == pytest.approx(0.9)


def _flood(folder: Path, requests: int, seed: int, gate: Barrier, told: Queue[tuple[int, int, float]]) -> None:
    """One worker: asks as fast as it can, holds and settles."""
    clock = Clock(1_000.0)
    meter = Meter(folder, monotonic=clock)
    meter.open()
    meter.grow(3)
    gate.wait()
    coins, passed, paid = random.Random(seed), 0, 0.0
    account = Account(2, 1, Budget(1.0, "total"), None)
    for _ in range(requests):
        passed += meter.request(1, 500) == 0
        if meter.hold(account, Hold(0.001, 1.0)) is None:
            cost = coins.choice((0.0005, 0.002))
            paid += cost
            meter.settle(account, Hold(0.001, 1.0), Hold(cost, 1.0), 1e9)
    told.put((passed, meter.unlocked, paid))
    meter.close()


def test_processes_together_let_no_more_through(tmp_path: Path) -> None:
    fresh(tmp_path)
    first = Meter(tmp_path)
    first.open()
    first.grow(3)
    first.counted(Account(2, 1, Budget(1.0, "total"), None), NOTHING, NOTHING)
    context = multiprocessing.get_context("fork")
    told: Queue[tuple[int, int, float]] = context.Queue()
    gate = context.Barrier(PROCESSES)
    workers = [context.Process(target=_flood, args=(tmp_path, 5_000, seed, gate, told)) for seed in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [told.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    slack = sum(unlocked for _, unlocked, _ in found)  # a lock that took too long may lose an update
    assert 500 <= sum(passed for passed, _, _ in found) <= 500 + slack
    assert 1.0 <= sum(paid for *_, paid in found) <= 1.0 + 0.002 * (PROCESSES + slack)
    assert first.spent(2).usd == pytest.approx(sum(paid for *_, paid in found), abs=0.002 * slack + 1e-9)
    first.close()


def _die_holding(folder: Path) -> None:
    meter = Meter(folder)
    meter.open()
    meter.hold(Account(1, 1, Budget(1.0, "total"), None), Hold(0.9, 0.0))


def test_what_a_dead_worker_held_is_given_back(tmp_path: Path) -> None:
    account = Account(1, 1, Budget(1.0, "total"), None)
    first = Meter(tmp_path)
    first.open()
    first.grow(2)
    first.counted(account, NOTHING, NOTHING)
    assert first.hold(account, Hold(0.2, 0)) is None
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_die_holding, args=(tmp_path,))
    worker.start()
    worker.join()
    assert first.hold(account, Hold(0, 0)) is account.usd
    worker = context.Process(target=_open_and_close, args=(tmp_path,))  # the one that takes its place
    worker.start()
    worker.join()
    assert first.hold(account, Hold(0.7, 0)) is None
    assert first.hold(account, Hold(0.3, 0)) is None  # 0.2 of its own and 0.7 are still held
    assert first.hold(account, Hold(0, 0)) is account.usd
    first.close()


def _open_and_close(folder: Path) -> None:
    meter = Meter(folder)
    meter.open()
    meter.close()
