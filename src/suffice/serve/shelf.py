"""Which specialists are loaded: on first use or ahead of it, on a thread of their own, within a budget of memory.

Nothing here waits on the event loop for a file. What cannot be loaded is told once, and tried again after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from suffice.core.protocols import Encoded, Encoder, Remote, Specialist, generates
from suffice.core.style import Rendered
from suffice.core.types import Stage
from suffice.core.values import Value
from suffice.store.releases import Stored

log = logging.getLogger(__name__)

GROWS = 2.5
"""Bytes in memory for each byte of an artefact, with some to spare: linear ones grow to 2.1 times their files, which
are in half precision, encoders to 3.2 times."""
RETRY_S = 60.0
"""What could not be loaded is tried again after this long, or when the task has another release."""
OPEN_S = 10.0
"""A server that starts loads this long before it answers; the rest is loaded while it does."""
FAST_MS = 1.5
INLINE_MS = 5.0
"""A specialist that usually takes no longer than the first alone may predict on the event loop, where a thread's
hand-over would cost more, as long as its latest calls take no longer than the second. What reads by an encoder takes
longer than the first, and shares its passes on the thread."""
PACE_WEIGHT = 0.1
RENDERED = 4_096

Load = Callable[[Stored], Specialist]
"""Loads a release's specialist; raises ArtefactError. Handed in, so that serving knows no model family."""
_FIRST = {Stage.LIVE: 0, Stage.CANARY: 1, Stage.SHADOW: 2}


@dataclass(eq=False, slots=True)
class Loaded:
    """A specialist in memory. `size` and `shared` are bytes: its own, and those of the encoder that others may share
    with it (`Encoder.shared_bytes`). `pace_ms` is what a short text takes by its latest calls; `batch_rows` how many
    texts are read faster together than one by one. `generates`: it writes its answers token by token.
    `remote`: it is elsewhere, and asked over the network."""

    task: str
    stored: Stored
    specialist: Specialist
    encoded: Encoded | None
    encoder: Encoder | None
    size: int
    shared: int
    fast: bool
    pace_ms: float
    batch_rows: int = 1
    generates: bool = False
    remote: Remote | None = None
    _rendered: dict[str, Rendered] = field(default_factory=dict)

    @property
    def inline(self) -> bool:
        """Whether a short text may be predicted on the event loop: it should be fast, and it is."""
        return self.fast and self.pace_ms <= INLINE_MS

    def took(self, milliseconds: float) -> None:
        """Note what a short text took."""
        self.pace_ms += PACE_WEIGHT * (milliseconds - self.pace_ms)

    def rendered(self, value: Value) -> Rendered:
        """`value` as the task's frontier writes it; labels are written once."""
        if not isinstance(value, str):
            return self.stored.serving.style.render(value)
        found = self._rendered.get(value)
        if found is None:
            found = self.stored.serving.style.render(value)
            if len(self._rendered) < RENDERED:
                self._rendered[value] = found
        return found


class Shelf:
    """Loaded specialists by their release's digest. All methods but the thread's own belong to the event loop.

    `size` tells the bytes of a release's artefact on the disk, `limit` is for all of them in memory; an encoder that
    several share counts once.
    """

    def __init__(
        self, load: Load, size: Callable[[Stored], int], limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load, self._size, self._limit, self._clock = load, size, limit, clock
        self._loaded: dict[str, Loaded] = {}
        self._broken: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._told: set[str] = set()
        self._asked: dict[str, int] = {}
        self._turn = 0
        self._coming: dict[str, asyncio.Task[Loaded | None]] = {}
        self._wished: deque[Stored] = deque()
        self._warming: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self.loads = self.failures = self.evictions = 0

    def __len__(self) -> int:
        """How many are loaded."""
        return len(self._loaded)

    @property
    def bytes(self) -> int:
        """What is loaded takes about this much memory."""
        shared = {one.encoder: one.shared for one in self._loaded.values()}
        return sum(one.size for one in self._loaded.values()) + sum(shared.values())

    def is_broken(self, stored: Stored) -> bool:
        """Whether this release could not be loaded a moment ago."""
        until = self._broken.get(stored.digest)
        return until is not None and self._clock() < until

    def ready(self, stored: Stored) -> Loaded | None:
        """The release's specialist if it is loaded; being asked for, it is the last to be let go."""
        self._turn += 1
        self._asked[stored.task] = self._turn
        return self._loaded.get(stored.digest)

    async def get(self, stored: Stored, seconds: float) -> Loaded | None:
        """The release's specialist, loaded now if need be; None if that fails. Raises TimeoutError if it takes longer.

        Who does not wait any longer leaves the loading to those who come after.
        """
        coming = self._bring(stored)
        done, _ = await asyncio.wait({coming}, timeout=seconds)
        if not done:
            raise TimeoutError
        return coming.result()

    # -- what the home's state asks for

    def open(self, wanted: Sequence[tuple[Stored, Stage]]) -> None:
        """Load what fits, for some seconds: before the event loop has begun to ask."""
        self._wished = self._order(wanted)
        until = self._clock() + OPEN_S
        while self._clock() < until and (stored := self._next()) is not None:
            try:
                loaded = self._fetch(stored)
            except Exception as error:  # noqa: BLE001 - the boundary of loading: what cannot be loaded escalates
                self._fail(stored, error)
            else:
                self._take(loaded)

    async def warm(self, wanted: Sequence[tuple[Stored, Stage]], seconds: float) -> None:
        """Load ahead what fits, in the background, those first that were asked last; wait so long for it, no longer."""
        self._wished = self._order(wanted)
        if self._warming is None or self._warming.done():
            self._warming = asyncio.ensure_future(self._warm())
        await asyncio.wait({self._warming}, timeout=seconds)

    def keep(self, wanted: Sequence[Stored]) -> None:
        """Let go of every release but these."""
        digests = {stored.digest for stored in wanted}
        self._loaded = {digest: loaded for digest, loaded in self._loaded.items() if digest in digests}
        self._broken = {digest: until for digest, until in self._broken.items() if digest in digests}
        self._sizes = {digest: size for digest, size in self._sizes.items() if digest in digests}
        self._told &= digests

    def limit(self, size: float) -> None:
        """Hold no more bytes than this from now on."""
        self._limit = size
        self._make_room(0)

    def close(self) -> None:
        """Load nothing any more."""
        if self._warming is not None:
            self._warming.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _order(self, wanted: Sequence[tuple[Stored, Stage]]) -> deque[Stored]:
        def rank(one: tuple[Stored, Stage]) -> tuple[int, int, str]:
            return -self._asked.get(one[0].task, 0), _FIRST.get(one[1], 3), one[0].task

        return deque(stored for stored, _ in sorted(wanted, key=rank))

    def _next(self) -> Stored | None:
        """The next that is wished for, not there, and fits beside what is. Each is tried once for a look."""
        free = self._limit - self.bytes
        while self._wished and free > 0:
            stored = self._wished.popleft()
            absent = stored.digest not in self._loaded and stored.digest not in self._coming
            if absent and not self.is_broken(stored) and self._estimate(stored) <= free:
                return stored
        return None

    async def _warm(self) -> None:
        while (stored := self._next()) is not None:
            await self._bring(stored)

    # -- loading

    def _bring(self, stored: Stored) -> asyncio.Task[Loaded | None]:
        coming = self._coming.get(stored.digest)
        if coming is None:
            coming = self._coming[stored.digest] = asyncio.ensure_future(self._brought(stored))
        return coming

    async def _brought(self, stored: Stored) -> Loaded | None:
        try:
            self._make_room(self._estimate(stored))
            loaded = await asyncio.get_running_loop().run_in_executor(self._thread, self._fetch, stored)
        except Exception as error:  # noqa: BLE001 - the boundary of loading: what cannot be loaded escalates
            self._fail(stored, error)
            return None
        finally:
            del self._coming[stored.digest]
        self._take(loaded)
        return loaded

    def _fetch(self, stored: Stored) -> Loaded:
        specialist = self._load(stored)
        remote = specialist if isinstance(specialist, Remote) else None
        # The first call sets things up; no request should wait for that, and nobody should pay for it.
        _ = specialist.predict([""]) if remote is None else remote.question("")
        encoded = specialist if isinstance(specialist, Encoded) else None
        encoder = encoded.encoder if encoded is not None else None
        return Loaded(
            task=stored.task,
            stored=stored,
            specialist=specialist,
            encoded=encoded,
            encoder=encoder,
            batch_rows=encoder.batch_rows if encoder is not None else 1,
            generates=generates(specialist),
            remote=remote,
            size=self._estimate(stored),
            shared=encoder.shared_bytes if encoder is not None else 0,
            fast=stored.release.report.latency_p50_ms <= FAST_MS,
            pace_ms=stored.release.report.latency_p50_ms,
        )

    def _estimate(self, stored: Stored) -> int:
        """Bytes that a release will take, its share in an encoder left out; its files are looked at once."""
        if stored.digest not in self._sizes:
            try:
                self._sizes[stored.digest] = int(GROWS * self._size(stored))
            except OSError:  # its files are gone: loading will tell
                return 0
        return self._sizes[stored.digest]

    def _take(self, loaded: Loaded) -> None:
        self.loads += 1
        self._broken.pop(loaded.stored.digest, None)
        self._loaded[loaded.stored.digest] = loaded
        self._make_room(0, keep=loaded)

    def _fail(self, stored: Stored, error: Exception) -> None:
        self.failures += 1
        self._broken[stored.digest] = self._clock() + RETRY_S
        if stored.digest not in self._told:
            self._told.add(stored.digest)
            why = str(error) or type(error).__name__
            log.error("release %s cannot be loaded, its task escalates: %s", stored.name, why)

    def _make_room(self, size: int, keep: Loaded | None = None) -> None:
        """Let go of what was asked longest ago until so many bytes fit beside the rest, or nothing is left."""
        while self.bytes + size > self._limit:
            others = [one for one in self._loaded.values() if one is not keep]
            if not others:
                return
            oldest = min(others, key=lambda one: self._asked.get(one.task, 0))
            del self._loaded[oldest.stored.digest]
            self.evictions += 1
