"""Asking specialists: fast ones on the event loop, the others on one thread that drains its queue without waiting.

Those that write their answers token by token take hundreds of milliseconds each: they have a thread of their own, or
all others would wait behind them.

A thread takes the oldest request and those behind it for which the same encoder reads the same text, or other texts
in the same batch where it gains by batches: one pass, then each specialist's heads. A request that nobody waits for any
more is skipped before it costs anything.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from queue import Empty, SimpleQueue
from typing import TypeVar

from suffice.core.protocols import Encoder
from suffice.core.types import Prediction
from suffice.serve.shelf import Loaded

INLINE_CHARS = 4_000
"""Longer texts are never predicted on the event loop."""
BATCH_TOKENS = 256
TOKEN_CHARS = 4
"""A batch holds so many estimated tokens at most, each text counted as long as the longest: a waiting window would only
add itself, and batches of long texts lose a quarter and more."""

Answer = Prediction | Exception
T = TypeVar("T")


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
    """The one place where specialists predict. All methods belong to the event loop."""

    def __init__(self) -> None:
        self._reading, self._writing = _Line("specialists"), _Line("generating")
        self.inline = 0

    @property
    def batched(self) -> int:
        """Requests that threads have answered."""
        return self._reading.batched + self._writing.batched

    @property
    def batches(self) -> int:
        """Batches of theirs."""
        return self._reading.batches + self._writing.batches

    async def ask(self, loaded: Loaded, text: str, budget_ms: float) -> Prediction:
        """The specialist's prediction. Raises TimeoutError where it takes longer, and whatever the specialist raises.

        Where those ahead in the queue alone will take longer, that is said at once.
        """
        if loaded.inline and len(text) <= INLINE_CHARS:
            self.inline += 1
            return _at_once(loaded, text, budget_ms)
        return await (self._writing if loaded.generates else self._reading).ask(loaded, text, budget_ms)

    def close(self) -> None:
        """Let the threads end when what they do is done."""
        self._reading.close()
        self._writing.close()


class _Line:
    """A thread, and those who wait for it. All methods but the thread's own belong to the event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: SimpleQueue[_Ask | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ahead_ms = 0.0
        self.batched = self.batches = 0

    async def ask(self, loaded: Loaded, text: str, budget_ms: float) -> Prediction:
        """As `Asking.ask`."""
        if self._ahead_ms > budget_ms:
            raise TimeoutError
        if self._thread is None or not self._thread.is_alive():
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
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
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
    """The oldest that is still awaited and those that fit in one batch with it, taken out of `waiting`."""
    batch: list[_Ask] = []
    others: list[_Ask] = []
    texts: set[str] = set()
    longest = 0
    for ask in waiting:
        if ask.done.done():
            continue
        tokens = max(longest, ask.tokens)
        fits = len(texts) < ask.loaded.batch_rows and (len(texts) + 1) * tokens <= BATCH_TOKENS
        if not batch or (ask.reader == batch[0].reader and (ask.text in texts or fits)):
            batch.append(ask)
            texts.add(ask.text)
            longest = tokens
        else:
            others.append(ask)
    waiting.clear()
    waiting.extend(others)
    return batch


def answered(batch: Sequence[_Ask]) -> list[Answer]:
    """An answer or an error for each request of a batch. No text is read twice, nor asked twice of a specialist."""
    began = time.perf_counter()
    encoder = batch[0].loaded.encoder
    read = _read(encoder, list(dict.fromkeys(ask.text for ask in batch))) if encoder is not None else None
    wanted: dict[Loaded, dict[str, None]] = {}
    for ask in batch:
        wanted.setdefault(ask.loaded, {})[ask.text] = None
    told = {loaded: _told(loaded, list(texts), read) for loaded, texts in wanted.items()}
    spent_ms = (time.perf_counter() - began) * 1e3 / sum(map(len, wanted.values()))
    for loaded, texts in wanted.items():
        if max(map(len, texts)) <= INLINE_CHARS:
            loaded.took(spent_ms)
    return [told[ask.loaded][ask.text] for ask in batch]


def _read(encoder: Encoder, texts: Sequence[str]) -> dict[str, object]:
    """What the encoder has read of each text; an error for one that it cannot read."""
    try:
        return dict(zip(texts, encoder.read(texts), strict=True))
    except Exception as error:  # noqa: BLE001 - the boundary of encoders: their faults are escalations
        return {texts[0]: error} if len(texts) == 1 else _each(_read(encoder, [text]) for text in texts)


def _told(loaded: Loaded, texts: Sequence[str], read: dict[str, object] | None) -> dict[str, Answer]:
    """A specialist's answer to each text; what fails together is asked one by one, so that one text fails alone."""
    failed = {text: error for text in texts if read and isinstance(error := read[text], Exception)}
    texts = [text for text in texts if text not in failed]
    try:
        if not texts:
            return {**failed}
        if loaded.encoded is not None and read is not None:
            told = loaded.encoded.predict_read(texts, [read[text] for text in texts])
        else:
            told = loaded.specialist.predict(texts)
        return {**failed, **dict(zip(texts, told, strict=True))}
    except Exception as error:  # noqa: BLE001 - the boundary of one specialist: its faults are its own
        alone = {texts[0]: error} if len(texts) == 1 else _each(_told(loaded, [text], read) for text in texts)
        return {**failed, **alone}


def _each(found: Iterable[dict[str, T]]) -> dict[str, T]:
    return dict(chain.from_iterable(one.items() for one in found))


def _at_once(loaded: Loaded, text: str, budget_ms: float) -> Prediction:
    """Raises TimeoutError where its calls take too long by now: one that other programs held up is not its fault."""
    began = time.perf_counter()
    prediction = loaded.specialist.predict([text])[0]
    loaded.took((time.perf_counter() - began) * 1e3)
    if loaded.pace_ms > budget_ms:
        raise TimeoutError
    return prediction
