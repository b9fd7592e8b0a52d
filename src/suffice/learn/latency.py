"""How long one prediction takes: alone, and behind another one, as when serving is busy."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from suffice.core.protocols import Specialist

ALONE, ALONE_S = 300, 1.0
"""Predictions timed one at a time, at most; and for how long, at most."""
LOADED, LOADED_S = 200, 0.6
"""The same for each round under load."""
ROUNDS = 3
WARM_UP = 5
LEAST = 3
"""So many are timed however slow they are."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. `p50_ms`: alone, one after another. `p99_ms`: under load."""

    p50_ms: float
    p99_ms: float


def measure(specialist: Specialist, inputs: Sequence[str], clock: Callable[[], float]) -> Latency:
    """Time single predictions of inputs spread over all of them; `clock` gives seconds. Without inputs: zeros.

    Load is what serving makes it: one thread predicts, and each request finds another before it, handed over by a
    second thread that has work of its own. So p99 holds the wait for one prediction beside its own. A thread that
    predicts all the time beside it would measure Python's switching between threads instead (5 ms a turn), which
    serving does not pay. Of the rounds the quietest counts, all over the same inputs: what other programs on this
    machine take away, they take from one round or another, and it says nothing of the specialist.
    """
    if not inputs:
        return Latency(p50_ms=0.0, p99_ms=0.0)
    texts = [inputs[i * len(inputs) // ALONE] for i in range(ALONE)] if len(inputs) > ALONE else list(inputs)

    def ask(text: str) -> float:
        specialist.predict([text])
        return clock()

    began = clock()
    for text in itertools.islice(texts, WARM_UP):
        if ask(text) - began > ALONE_S:
            break
    alone = [ask(text) - start for text, start in _starts(texts, ALONE, ALONE_S, clock)]
    with ThreadPoolExecutor(1, thread_name_prefix="specialist") as thread:
        rounds = [_loaded(thread, ask, texts, clock) for _ in range(ROUNDS)]
    p99 = min(float(np.percentile(taken, 99)) for taken in rounds)
    return Latency(p50_ms=1e3 * float(np.percentile(alone, 50)), p99_ms=1e3 * p99)


def _starts(texts: Sequence[str], most: int, most_s: float, clock: Callable[[], float]) -> Iterator[tuple[str, float]]:
    """Texts, over and over, each with the moment it is asked at; until there are `most`, or the time is over."""
    began = clock()
    for n, text in enumerate(itertools.islice(itertools.cycle(texts), most)):
        start = clock()
        if n >= LEAST and start - began > most_s:
            return
        yield text, start


def _loaded(
    thread: ThreadPoolExecutor, ask: Callable[[str], float], texts: Sequence[str], clock: Callable[[], float]
) -> list[float]:
    """Seconds from asking to the answer, two being under way at any time."""
    taken: list[float] = []
    waiting: deque[tuple[float, Future[float]]] = deque()
    for text, start in _starts(texts, LOADED, LOADED_S, clock):
        waiting.append((start, thread.submit(ask, text)))
        if len(waiting) == 2:
            asked, first = waiting.popleft()
            taken.append(first.result() - asked)
    return taken + [first.result() - asked for asked, first in waiting]
