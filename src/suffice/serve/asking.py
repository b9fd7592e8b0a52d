"""Asking specialists: fast ones on the event loop, the others on one thread that drains its queue without waiting.

The thread takes the oldest request and those behind it that the same encoder reads: one pass for all their texts, then
each specialist's heads. A request that nobody waits for any more is skipped before it costs anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from suffice.core.types import Prediction
from suffice.serve.shelf import Loaded

INLINE_CHARS = 4_000
"""Longer texts are never predicted on the event loop."""
BATCH_ROWS = 8
BATCH_TOKENS = 256
TOKEN_CHARS = 4
"""A batch holds so many texts at most, and so many estimated tokens, each text counted as long as the longest:
a waiting window would only add itself, and batches of long texts lose a quarter and more."""

Answer = Prediction | Exception


@dataclass(eq=False, slots=True)
class _Ask:
    """A text that waits for the thread."""

    loaded: Loaded
    text: str
    done: asyncio.Future[Prediction]

    @property
    def tokens(self) -> int:
        return 1 + len(self.text) // TOKEN_CHARS

    @property
    def reader(self) -> object:
        """Texts with the same one can be read together."""
        return self.loaded.encoder or self.loaded.specialist


class Asking:
    """The one place where specialists predict. All methods but the thread's own belong to the event loop."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Ask | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ahead_ms = 0.0
        self.inline = self.batched = self.batches = 0

    async def ask(self, loaded: Loaded, text: str, budget_ms: float) -> Prediction:
        """The specialist's prediction. Raises TimeoutError where it takes longer, and whatever the specialist raises.

        Where those ahead in the queue alone will take longer, that is said at once.
        """
        if loaded.inline and len(text) <= INLINE_CHARS:
            self.inline += 1
            return _at_once(loaded, text, budget_ms)
        if self._ahead_ms > budget_ms:
            raise TimeoutError
        if self._thread is None:
            self._start()
        ask = _Ask(loaded, text, self._loop.create_future())
        own_ms = loaded.pace_ms
        self._ahead_ms += own_ms
        self._queue.put(ask)
        try:
            async with asyncio.timeout(budget_ms / 1e3):
                return await ask.done
        finally:
            self._ahead_ms = max(0.0, self._ahead_ms - own_ms)

    def close(self) -> None:
        """Let the thread end when what it does is done."""
        self._queue.put(None)

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="specialists", daemon=True)
        self._thread.start()

    def _deliver(self, batch: Sequence[_Ask], answers: Sequence[Answer]) -> None:
        self.batched += len(batch)
        self.batches += 1
        for ask, answer in zip(batch, answers, strict=True):
            if ask.done.done():
                continue
            if isinstance(answer, Exception):
                ask.done.set_exception(answer)
            else:
                ask.done.set_result(answer)

    # -- the thread

    def _work(self) -> None:
        waiting: deque[_Ask] = deque()
        while self._take(waiting):
            batch = next_batch(waiting)
            if not batch:
                continue
            answers = answered(batch)
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch, answers)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _take(self, waiting: deque[_Ask]) -> bool:
        """Move what has come to those that wait, waiting only if there are none; False when there is no more to do."""
        try:
            ask = self._queue.get(block=not waiting)
            while ask is not None:
                waiting.append(ask)
                ask = self._queue.get_nowait()
        except Empty:
            return True
        return False


def next_batch(waiting: deque[_Ask]) -> list[_Ask]:
    """The oldest that is still awaited and those like it that fit in one batch, taken out of `waiting`."""
    batch: list[_Ask] = []
    others: list[_Ask] = []
    longest = 0
    for ask in waiting:
        if ask.done.done():
            continue
        tokens = max(longest, ask.tokens)
        fits = len(batch) < BATCH_ROWS and (len(batch) + 1) * tokens <= BATCH_TOKENS
        if not batch or (fits and ask.reader is batch[0].reader):
            batch.append(ask)
            longest = tokens
        else:
            others.append(ask)
    waiting.clear()
    waiting.extend(others)
    return batch


def answered(batch: Sequence[_Ask]) -> list[Answer]:
    """An answer or an error for each; what fails together is tried one by one, so that one text fails alone."""
    began = time.perf_counter()
    encoder = batch[0].loaded.encoder
    answers: list[Answer]
    try:
        if encoder is None:
            answers = list(batch[0].loaded.specialist.predict([ask.text for ask in batch]))
        else:
            answers = _by_heads(batch, encoder.read([ask.text for ask in batch]))
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} texts")
    except Exception as error:  # noqa: BLE001 - the boundary of specialists: their faults are escalations
        return [error] if len(batch) == 1 else [answered([ask])[0] for ask in batch]
    spent_ms = (time.perf_counter() - began) * 1e3 / len(batch)
    for ask in batch:
        if len(ask.text) <= INLINE_CHARS:
            ask.loaded.took(spent_ms)
    return answers


def _by_heads(batch: Sequence[_Ask], read: Sequence[object]) -> list[Answer]:
    """Each specialist's answers from what its encoder has read; one that fails does not cost the others theirs."""
    places: dict[int, list[int]] = {}
    for place, ask in enumerate(batch):
        places.setdefault(id(ask.loaded), []).append(place)
    answers: dict[int, Answer] = {}
    for own in places.values():
        answers.update(zip(own, _of_one(batch, read, own), strict=True))
    return [answers[place] for place in range(len(batch))]


def _of_one(batch: Sequence[_Ask], read: Sequence[object], places: Sequence[int]) -> Sequence[Answer]:
    specialist = batch[places[0]].loaded.encoded
    assert specialist is not None
    try:
        told = specialist.predict_read([batch[place].text for place in places], [read[place] for place in places])
        if len(told) != len(places):
            raise ValueError(f"{len(told)} answers to {len(places)} texts")
        return told
    except Exception as error:  # noqa: BLE001 - the boundary of one specialist: its faults are its own
        if len(places) == 1:
            return [error]
        return [_of_one(batch, read, [place])[0] for place in places]


def _at_once(loaded: Loaded, text: str, budget_ms: float) -> Prediction:
    began = time.perf_counter()
    prediction = loaded.specialist.predict([text])[0]
    spent_ms = (time.perf_counter() - began) * 1e3
    loaded.took(spent_ms)
    if spent_ms > budget_ms:
        raise TimeoutError
    return prediction
