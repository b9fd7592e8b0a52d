"""How long one prediction takes: alone, and behind another one, as when serving is busy."""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from suffice.core.protocols import Specialist

TIMED, TIMED_S = 400, 2.0
"""Predictions timed, at most; and for how long, at most."""
WARM_UP = 5
LEAST = 3
"""So many are timed however slow they are."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. `p50_ms`: alone. `p99_ms`: under load."""

    p50_ms: float
    p99_ms: float


def measure(specialist: Specialist, inputs: Sequence[str], clock: Callable[[], float]) -> Latency:
    """Time single predictions of inputs spread over all of them; `clock` gives seconds. Without inputs: zeros.

    Load is what serving makes of it: one thread predicts, so a request that comes while another is predicted waits for
    that one and then for its own. p99 is that of two callers who take turns, each asking again at once: the time of a
    prediction and of the one before it. (Two real callers measure the same, and beside it how busy this machine is with
    other things, learning included, which runs beside serving and gives way to it.) For the same reason a prediction
    that the system interrupted for another program counts with the processor's time it took.
    """
    if not inputs:
        return Latency(p50_ms=0.0, p99_ms=0.0)
    texts = [inputs[i * len(inputs) // TIMED] for i in range(TIMED)] if len(inputs) > TIMED else list(inputs)
    began = clock()
    for text in itertools.islice(texts, WARM_UP):
        specialist.predict([text])
        if clock() - began > TIMED_S / 4:
            break
    began, taken = clock(), []
    for text in itertools.islice(itertools.cycle(texts), TIMED):
        taken.append(1e3 * _took(specialist, text, clock))
        if len(taken) >= LEAST and clock() - began > TIMED_S:
            break
    alone = np.array(taken, dtype=np.float64)
    behind = alone[1:] + alone[:-1]
    return Latency(p50_ms=float(np.percentile(alone, 50)), p99_ms=float(np.percentile(behind, 99)))


def _took(specialist: Specialist, text: str, clock: Callable[[], float]) -> float:
    """Seconds of one prediction, without what other programs had of them."""
    interrupted, worked, start = _interruptions(), time.thread_time(), clock()
    specialist.predict([text])
    took = clock() - start
    return took if _interruptions() == interrupted else min(took, time.thread_time() - worked)


def _interruptions() -> int:
    """How often the system has taken the processor from this thread; always 0 where it does not tell (not Linux)."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if who is None else resource.getrusage(who).ru_nivcsw
