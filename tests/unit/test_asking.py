"""Asking specialists: what shares a batch, who is skipped, whose fault is whose, and which of them are loaded."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from suffice.core.protocols import Specialist
from suffice.core.style import Style
from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    Prediction,
    Recipe,
    Release,
    Report,
    Stage,
    Tail,
    Threshold,
)
from suffice.serve import asking
from suffice.serve.asking import Asking, answered, next_batch
from suffice.serve.shelf import GROWS, Loaded, Shelf
from suffice.store.releases import Serving, Stored

MB = 2**20
SLOW, QUICK = 3.0, 0.3


def stored(task: str, p50_ms: float = SLOW) -> Stored:
    share = Estimate(value=0.9, low=0.8, high=1.0, n=10)
    certificate = Certificate(
        max_error=0.02, confidence=0.95, attempt=1, delta=0.025, n=10, method="m", p_value=0.01, threshold=0.5,
        coverage=0.9, promise="agreement", reference="frontier",
    )  # fmt: skip
    release = Release(
        draft=Draft(
            task=task, recipe=Recipe(family="any"), contract=Choice(("a",)), dataset="d", artefact=task,
            threshold=Threshold(score=0.5, certificate=certificate),
        ),
        tail=Tail(promised=False, max_tail_error=0.2, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None,
            unseen_coverage=share, unseen_error=share, latency_p50_ms=p50_ms, latency_p99_ms=2 * p50_ms,
        ),
    )  # fmt: skip
    serving = Serving(prompt=None, style=Style())
    return Stored(task=task, n=1, digest=f"{task}@1", release=release, serving=serving, pinned=None, created_at=0.0)


class Echo:
    """Answers with its name and the text; "odd" breaks it; waits for `gate` first, if there is one."""

    def __init__(self, name: str = "echo", gate: threading.Event | None = None) -> None:
        self.name, self.gate = name, gate
        self.asked: list[list[str]] = []

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        self.asked.append(list(inputs))
        if self.gate is not None:
            assert self.gate.wait(10)
        return [self.told(text) for text in inputs]

    def told(self, text: str) -> Prediction:
        if text == "odd":
            raise ValueError("a text that it cannot read")
        return Prediction(value=f"{self.name}: {text}", score=0.9)


class Letters:
    """An encoder that counts its passes; "\\x00" breaks it."""

    batch_rows = 8
    shared_bytes = 0

    def __init__(self) -> None:
        self.passes: list[list[str]] = []

    def read(self, inputs: Sequence[str]) -> list[int]:
        self.passes.append(list(inputs))
        if "\x00" in inputs:
            raise ValueError("no text")
        return [len(text) for text in inputs]


class Head(Echo):
    """A specialist over an encoder."""

    def __init__(self, name: str, encoder: Letters) -> None:
        super().__init__(name)
        self.encoder = encoder

    def predict_read(self, inputs: Sequence[str], read: Sequence[int]) -> list[Prediction]:
        assert [len(text) for text in inputs] == list(read)
        return [self.told(text) for text in inputs]


def loaded(specialist: Specialist, p50_ms: float = SLOW) -> Loaded:
    shelf = Shelf(lambda one: specialist, lambda one: 0, MB)
    one = stored("t", p50_ms)
    shelf.open([(one, Stage.LIVE)])
    found = shelf.ready(one)
    assert found is not None
    return found


def waiting(*asked: tuple[Loaded, str]) -> deque[asking._Ask]:
    loop = asyncio.get_running_loop()
    return deque(asking._Ask(one, text, loop.create_future()) for one, text in asked)


def texts(batch: Sequence[asking._Ask]) -> list[str]:
    return [ask.text for ask in batch]


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.001)


# ---------------------------------------------------------------------------------------------- batches


async def test_the_oldest_comes_first_and_what_shares_its_encoder_comes_with_it() -> None:
    encoder = Letters()
    a, b, plain = loaded(Head("a", encoder)), loaded(Head("b", encoder)), loaded(Echo())
    queue = waiting((a, "1"), (plain, "2"), (b, "3"), (plain, "4"), (a, "5"))
    assert [texts(next_batch(queue)) for _ in range(3)] == [["1", "3", "5"], ["2"], ["4"]]


async def test_a_batch_holds_eight_short_texts_or_one_long_one() -> None:
    one = loaded(Head("one", Letters()))
    queue = waiting(*((one, str(i)) for i in range(10)))
    assert [len(next_batch(queue)) for _ in range(2)] == [8, 2]
    queue = waiting((one, "x" * 5_000), (one, "y"), (one, "z" * 5_000))
    assert [len(next_batch(queue)) for _ in range(3)] == [1, 1, 1], "a short text does not wait for a long one"
    queue = waiting(*((one, str(i) * 400) for i in range(5)))
    assert [len(next_batch(queue)) for _ in range(3)] == [2, 2, 1]


async def test_where_batches_gain_nothing_only_the_same_text_is_shared() -> None:
    class Alone(Letters):
        batch_rows = 1

    encoder = Alone()
    a, b = loaded(Head("a", encoder)), loaded(Head("b", encoder))
    queue = waiting((a, "1"), (b, "2"), (b, "1"), (a, "1"))
    batch = next_batch(queue)
    assert [(ask.loaded, ask.text) for ask in batch] == [(a, "1"), (b, "1"), (a, "1")]
    encoder.passes.clear()
    assert [f.value for f in answered(batch) if isinstance(f, Prediction)] == ["a: 1", "b: 1", "a: 1"]
    assert encoder.passes == [["1"]]


async def test_who_is_not_awaited_any_more_costs_nothing() -> None:
    one = loaded(Echo())
    queue = waiting((one, "1"), (one, "2"), (one, "3"))
    queue[0].done.cancel()
    queue[1].done.cancel()
    assert texts(next_batch(queue)) == ["3"] and not queue


async def test_one_pass_of_the_encoder_for_a_mixed_batch() -> None:
    encoder = Letters()
    a, b = loaded(Head("a", encoder)), loaded(Head("b", encoder))
    encoder.passes.clear()
    found = answered(list(waiting((a, "1"), (b, "2"), (a, "odd"), (b, "4"))))
    assert encoder.passes == [["1", "2", "odd", "4"]]
    assert [f.value if isinstance(f, Prediction) else type(f) for f in found] == ["a: 1", "b: 2", ValueError, "b: 4"]


async def test_a_text_that_breaks_encoder_or_specialist_fails_alone() -> None:
    encoder = Letters()
    a, plain = loaded(Head("a", encoder)), loaded(Echo())
    for one, bad in ((a, "\x00"), (plain, "odd")):
        found = answered(list(waiting((one, "1"), (one, bad), (one, "3"))))
        assert [isinstance(f, Prediction) for f in found] == [True, False, True]


async def test_a_specialist_that_answers_too_little_is_at_fault() -> None:
    class Mute(Echo):
        def predict(self, inputs: Sequence[str]) -> list[Prediction]:
            return []

    assert [type(f) for f in answered(list(waiting((loaded(Mute()), "1"))))] == [ValueError]


# ---------------------------------------------------------------------------------------------- where, and how long


async def test_a_fast_one_answers_on_the_loop_until_it_is_slow() -> None:
    class Tired(Echo):
        def predict(self, inputs: Sequence[str]) -> list[Prediction]:
            time.sleep(0.06)
            return super().predict(inputs)

    desk = Asking()
    quick, tired = loaded(Echo(), QUICK), loaded(Tired(), QUICK)
    assert (await desk.ask(quick, "1", 50)).value == "echo: 1" and desk.inline == 1
    assert (await desk.ask(quick, "x" * 5_000, 500)).score == 0.9 and desk.inline == 1, "a long text holds nobody up"
    assert (await desk.ask(tired, "1", 50)).value == "echo: 1" and desk.inline == 2, "it may have been held up, once"
    with pytest.raises(TimeoutError):
        await desk.ask(tired, "2", 50)
    assert desk.inline == 2, "now it is asked on the thread"
    assert (await desk.ask(tired, "3", 5_000)).value == "echo: 3"
    with pytest.raises(TimeoutError):
        await desk.ask(quick, "2", 0.001)
    desk.close()


async def test_slower_than_its_budget_is_a_timeout_and_the_next_is_answered() -> None:
    gate, desk = threading.Event(), Asking()
    echo = Echo()
    one = loaded(echo)
    echo.gate = gate
    with pytest.raises(TimeoutError):
        await desk.ask(one, "1", 20)
    late = [asyncio.ensure_future(desk.ask(one, text, 20)) for text in ("2", "3")]
    await asyncio.wait(late)
    assert all(isinstance(done.exception(), TimeoutError) for done in late)
    gate.set()
    assert (await desk.ask(one, "4", 5_000)).value == "echo: 4"
    assert echo.asked == [[""], ["1"], ["4"]], "2 and 3 were awaited no more"
    desk.close()


async def test_a_queue_that_will_take_too_long_is_not_joined() -> None:
    gate, desk = threading.Event(), Asking()
    echo = Echo()
    one = loaded(echo, 30.0)
    echo.gate = gate
    before = [asyncio.ensure_future(desk.ask(one, str(i), 5_000)) for i in range(3)]
    await until(lambda: len(echo.asked) == 2)
    with pytest.raises(TimeoutError):
        desk.ask(one, "late", 50).send(None)  # it does not wait even once
    gate.set()
    assert [(await done).value for done in before] == ["echo: 0", "echo: 1", "echo: 2"]
    assert (await desk.ask(one, "late", 5_000)).value == "echo: late"
    assert all("late" not in asked for asked in echo.asked[:-1])
    desk.close()


async def test_the_loop_goes_on_while_the_thread_works() -> None:
    gate, desk = threading.Event(), Asking()
    echo = Echo()
    one = loaded(echo)
    echo.gate = gate
    asked = asyncio.ensure_future(desk.ask(one, "1", 5_000))
    await until(lambda: len(echo.asked) == 2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not asked.done()
    gate.set()
    assert (await asked).value == "echo: 1"
    desk.close()


# ---------------------------------------------------------------------------------------------- the shelf


class Files:
    """Artefacts by task, 1 MB each in memory; a task in `broken` cannot be loaded, one in `gates` is waited for."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.gates: dict[str, threading.Event] = {}

    def load(self, one: Stored) -> Specialist:
        self.loads.append(one.task)
        if one.task in self.gates:
            assert self.gates[one.task].wait(10)
        if one.task in self.broken:
            raise MemoryError
        return Echo(one.task)

    def size(self, one: Stored) -> int:
        return int(MB / GROWS)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shelf(files: Files, megabytes: float, clock: Callable[[], float] = time.monotonic) -> Shelf:
    return Shelf(files.load, files.size, megabytes * MB, clock)


async def there(shelf: Shelf, one: Stored) -> Loaded | None:
    return shelf.ready(one) or await shelf.get(one, 5)


async def test_beyond_the_budget_the_one_asked_longest_ago_is_let_go_and_loaded_again() -> None:
    files, (a, b, c) = Files(), map(stored, "abc")
    kept = shelf(files, 2)
    for one in (a, b, a, c):
        assert await there(kept, one) is not None
    assert (len(kept), kept.bytes, kept.evictions) == (2, 2 * int(GROWS * int(MB / GROWS)), 1)
    assert kept.ready(b) is None and kept.ready(a) is not None
    again = await there(kept, b)
    assert again is not None and again.task == "b" and files.loads == ["a", "b", "c", "b"]
    kept.close()


async def test_a_specialist_larger_than_the_budget_is_served_alone() -> None:
    files = Files()
    kept = shelf(files, 0.5)
    await kept.warm([(stored("a"), Stage.LIVE)], 5)
    assert len(kept) == 0, "nothing is pushed out, nor the budget passed, before anybody asks"
    assert await there(kept, stored("a")) is not None
    assert await there(kept, stored("b")) is not None and len(kept) == 1
    kept.close()


async def test_what_is_live_and_was_asked_last_is_loaded_ahead_as_far_as_it_fits() -> None:
    files, (a, b, c, d) = Files(), map(stored, "abcd")
    kept = shelf(files, 3)
    kept.ready(d)
    await kept.warm([(a, Stage.SHADOW), (b, Stage.LIVE), (c, Stage.CANARY), (d, Stage.SHADOW)], 5)
    assert files.loads == ["d", "b", "c"] and kept.evictions == 0
    kept.keep([b, d])
    assert len(kept) == 2 and kept.ready(c) is None
    kept.close()


async def test_an_encoder_that_several_share_counts_once() -> None:
    class Large(Letters):
        shared_bytes = MB

    encoder = Large()
    kept = Shelf(lambda one: Head(one.task, encoder), lambda one: 0, 10 * MB)
    await kept.warm([(stored(name), Stage.LIVE) for name in "abc"], 5)
    assert (len(kept), kept.bytes) == (3, MB)
    kept.close()


async def test_what_cannot_be_loaded_is_told_once_and_tried_again_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    files, clock, a = Files(), Clock(), stored("a")
    files.broken.add("a")
    kept = shelf(files, 2, clock)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert await kept.get(a, 5) is None and kept.is_broken(a)
            clock.now += 61
            assert not kept.is_broken(a)
    assert [r.getMessage() for r in caplog.records] == ["release a@1 cannot be loaded, its task escalates: MemoryError"]
    files.broken.clear()
    assert await kept.get(a, 5) is not None and not kept.is_broken(a)
    assert (kept.loads, kept.failures) == (1, 2)
    kept.close()


async def test_a_slow_load_holds_up_neither_the_loop_nor_who_will_not_wait() -> None:
    files, a, b = Files(), stored("a"), stored("b")
    gate = files.gates["a"] = threading.Event()
    kept = shelf(files, 2)
    with pytest.raises(TimeoutError):
        await kept.get(a, 0.01)
    first, second = asyncio.ensure_future(kept.get(a, 5)), asyncio.ensure_future(kept.get(a, 5))
    for _ in range(100):
        await asyncio.sleep(0)
    gate.set()
    assert await first is await second is kept.ready(a)
    assert files.loads == ["a"], "it is loaded once for all who ask"
    assert await there(kept, b) is not None
    kept.close()


# ---------------------------------------------------------------------------------------------- those that generate


class Writer(Echo):
    """A specialist that writes its answers token by token."""

    generates = True


async def test_nobody_waits_behind_one_that_writes_its_answers() -> None:
    slow, gate, desk = Writer("slow"), threading.Event(), Asking()
    writer, reader = loaded(slow, 500.0), loaded(Echo("quick"))
    slow.gate = gate
    first = asyncio.ensure_future(desk.ask(writer, "a", 10_000))
    await until(lambda: slow.asked[-1] == ["a"])
    assert (await desk.ask(reader, "b", 10_000)).value == "quick: b"
    assert not first.done()
    gate.set()
    assert (await first).value == "slow: a"
    desk.close()
