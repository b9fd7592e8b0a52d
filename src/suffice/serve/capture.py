"""Capture: every exchange becomes a record, off the request path, and none is dropped in silence.

A slot is reserved when a request is admitted and freed when its record is on the disk, so what is not yet written is
bounded and a request that could not be recorded is refused (or, by choice, served and counted) before it costs
anything. One thread turns exchanges into rows and commits them in groups.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.config import Records
from suffice.core.errors import StoreError
from suffice.core.types import Reason, Usage
from suffice.core.values import Value
from suffice.store import records
from suffice.store.bodies import Bodies
from suffice.store.records import Row, Writer
from suffice.store.sealed import Keys
from suffice.wire import dialects

log = logging.getLogger(__name__)

GROUP_ROWS = 256
GROUP_WAIT_S = 0.004
"""A group closes after this long or this many rows; while one is written the next ones gather by themselves."""
CHECKPOINT_ROWS = 2_000
CHECKPOINT_BYTES = 32 * 2**20
"""The log is moved into the database after so many rows, or so much of bodies: a large one is long work at once."""
LAG_S = 0.008
LAG_MOST_S = 0.05
"""Answers are held back once a record has waited this long for the disk, and each for no longer than the second."""
RETRY_S = 0.25
BALLAST = "ballast"
BALLAST_BYTES = 8 * 2**20
"""Given up on a full disk, so that what was answered by then can be put aside."""
ASIDE = "unwritten-"
KEPT_BYTES = 16 * 2**20
"""An answer is kept up to this size; longer ones are cut, and the record says so."""

Tell = Callable[[Sequence[Row]], None]
Cost = Callable[[str, Usage], float | None]
"""What a call of this model with these tokens costs, in US dollars."""


def new_id() -> str:
    """A record id: sorts by time, and 64 random bits keep workers apart. It is no secret."""
    return f"rec_{time.time_ns():016x}{random.getrandbits(64):016x}"


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try at an upstream that did not give the caller his answer: its status, or why there was none. `at` is when
    it began, in seconds since 1970."""

    upstream: str
    ms: float
    status: int | None = None
    failure: str | None = None
    at: float = 0.0


class Exchange(msgspec.Struct):
    """One exchange under way. The request path fills it in; the writer turns it into a row."""

    id: str = msgspec.field(default_factory=new_id)
    at: float = msgspec.field(default_factory=time.time)
    began: float = msgspec.field(default_factory=time.perf_counter)
    dialect: str = "chat"
    request: bytes | None = None
    model: str = ""
    key: str | None = None
    task: str | None = None
    rule: str | None = None
    stage: str | None = None
    release: str | None = None
    upstream: str | None = None
    attempts: list[Attempt] = []
    egress: str | None = None
    path: str | None = None
    keeps: bool = True
    route: str = "none"
    reason: str = Reason.NO_TASK
    score: float | None = None
    threshold: float | None = None
    predicted: Value = None
    acceptable: bool | None = None
    watch: int | None = None
    coin: float | None = None
    audited: bool | None = None
    stakes: str | None = None
    session: str | None = None
    group: str | None = None
    slices: str = ""
    input: str | None = None
    status: int | None = None
    failure: str | None = None
    streamed: bool = False
    encoding: str = ""
    chunks: list[bytes] = []
    unsaid: list[bytes] = []  # events of the upstream's stream that the caller did not ask for: its usage
    kept: int = 0
    cut: bool = False
    first_chunk_ms: float | None = None
    latency_ms: float | None = None
    consulted: tuple[str, str, Usage | None] | None = (
        None  # a specialist that is elsewhere: upstream, model, its tokens
    )
    predict_at_ms: float | None = None  # these four since the first byte, for metrics and traces: not in the record
    predict_ms: float | None = None
    asked_ms: float | None = None  # when the way out was taken, and when the last byte had come back
    heard_ms: float | None = None

    def chunk(self, data: bytes) -> None:
        """Keep a piece of the answer, and the time of the first."""
        if self.first_chunk_ms is None:
            self.first_chunk_ms = self.elapsed_ms()
        if not self.keeps:
            return
        if self.kept < KEPT_BYTES:
            self.chunks.append(data)
            self.kept += len(data)
        else:
            self.cut = True

    def elapsed_ms(self) -> float:
        """Since the request's first byte."""
        return (time.perf_counter() - self.began) * 1e3

    def row(self, cost: Cost) -> Row:
        """The record. A stream is kept as the completion it spells; missing usage is estimated and marked."""
        answer = self._answer()
        document = _parsed(answer)
        usage = dialects.of(self.dialect).usage_of(document) if document is not None else None
        estimated = self.route == "specialist"
        if self.path is not None and not self.path.startswith("POST "):
            usage = None  # what is looked up again is not paid again
        if usage is None and answer and self.status == 200 and self.path is None:
            estimated = True
            usage = dialects.estimated_usage(self.dialect, self.request or b"", answer)
        priced = usage is not None and self.route not in records.FREE
        name = document.get("id") if document is not None else None
        return Row(
            id=self.id,
            at=self.at,
            source="live",
            dialect=self.dialect,
            key=self.key,
            task=self.task,
            rule=self.rule if self.task is not None else None,
            model=self.model,
            upstream=self.upstream,
            route=self.route,
            reason=self.reason,
            stage=self.stage,
            release=self.release,
            score=self.score,
            threshold=self.threshold,
            predicted=msgspec.json.encode(self.predicted).decode() if self.score is not None else None,
            acceptable=self.acceptable,
            watch=self.watch,
            coin=self.coin,
            audited=self.audited,
            stakes=self.stakes,
            status=self.status,
            failure=self.failure or ("the answer was too long to be kept whole" if self.cut else None),
            prompt_tokens=usage.prompt if usage else None,
            completion_tokens=usage.completion if usage else None,
            cached_tokens=usage.cached if usage else None,
            written_tokens=usage.written if usage else None,
            tokens_estimated=estimated,
            cost_usd=self._cost(cost, usage if priced else None),
            latency_ms=self.latency_ms,
            first_chunk_ms=self.first_chunk_ms,
            streamed=self.streamed,
            session=self.session,
            group=self.group,
            slices=self.slices,
            input=self.input,
            request=self.request,
            answer=answer,
            response_id=name if isinstance(name, str) else None,
            attempts=msgspec.json.encode(self.attempts).decode() if self.attempts else None,
            egress=self.egress,
            path=self.path,
        )

    def _cost(self, cost: Cost, usage: Usage | None) -> float | None:
        """Of the answer, where it is paid for, and of a specialist that is elsewhere, whoever answered in the end."""
        own = cost(self.model, usage) if usage is not None else None
        if self.consulted is None or self.consulted[2] is None or (usage is not None and own is None):
            return own
        return (own or 0.0) + (cost(self.consulted[1], self.consulted[2]) or 0.0)

    def _answer(self) -> bytes | None:
        if not self.chunks:
            return None
        raw = b"".join((*self.unsaid, *self.chunks))
        if self.encoding in ("gzip", "deflate"):
            try:
                raw = zlib.decompressobj(47).decompress(raw, KEPT_BYTES)
            except zlib.error:
                return raw
        if self.streamed:
            whole = dialects.of(self.dialect).assemble(raw)
            return msgspec.json.encode(whole) if whole is not None else raw
        return raw


def _parsed(answer: bytes | None) -> dict[str, Any] | None:
    """An answer's document; None where it is none."""
    try:
        document = msgspec.json.decode(answer) if answer else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return document if isinstance(document, dict) else None


class Capture:
    """Slots, and the one thread that writes. All methods but the thread's own belong to the event loop.

    `connect` opens the database (again after a failure); `cost` prices a row. What cannot be written by the end goes to
    a file in `spill`, for which room is kept there, and into the database at the next start. `tell` hear of rows that
    are on the disk, in the thread.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        settings: Records,
        cost: Cost,
        spill: Path,
        tell: Sequence[Tell] = (),
        bodies: Bodies | None = None,
    ) -> None:
        self._connect, self._settings, self._cost, self._spill = connect, settings, cost, spill
        self._tell, self._writer = tell, Writer(bodies or Bodies(Keys()))
        self._group: list[Exchange] = []
        self._handed: deque[list[Exchange]] = deque()
        self._wake = threading.Event()
        self._free = settings.slots
        self._waiting: list[asyncio.Future[None]] = []
        self._pending: list[Row] = []
        self._connection: sqlite3.Connection | None = None
        self._written: dict[str, asyncio.Future[None]] = {}
        self._stopping = False
        self._unwritten = 0
        self._oldest = 0.0
        self._lag_waiters: list[asyncio.Future[None]] = []
        self._since_checkpoint = self._bytes_since = 0
        self._checkpointing: asyncio.Future[None] | None = None
        self.failure: str | None = None
        self.unrecorded = 0

    async def start(self) -> None:
        """Start the writer, with what it needs for its first row at hand."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._prepare)
        self._revive()

    def adopt(self, settings: Records, cost: Cost) -> None:
        """Go by these settings and prices from now on; the number of slots stays."""
        self._settings, self._cost = settings, cost

    async def reserve(self) -> bool:
        """Reserve a slot; True if this exchange will be recorded, False if it passes unrecorded (`on_full = "pass"`).

        Raises StoreError when no record could be kept and `on_full = "reject"`.
        """
        if not self._thread.is_alive() and not self._stopping:
            log.error("the record writer died; a new one takes over what it held")
            self._revive()
        if self.failure is None and self._free == 0:
            waiter = self._loop.create_future()
            self._waiting.append(waiter)
            try:
                async with asyncio.timeout(self._settings.wait_s):
                    await waiter
                return True
            except TimeoutError:
                if waiter.done() and not waiter.cancelled():
                    return True
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        elif self.failure is None:
            self._free -= 1
            return True
        if self._settings.on_full == "pass":
            self.unrecorded += 1
            return False
        raise StoreError(f"no record can be kept: {self.failure or 'all slots are taken'}")

    def put(self, exchange: Exchange) -> None:
        """Hand over a finished exchange whose slot is reserved; the thread is woken once for a group, not for each."""
        if not self._unwritten:
            self._oldest = self._loop.time()
        self._unwritten += 1
        self._group.append(exchange)
        if len(self._group) >= GROUP_ROWS:
            self._hand_over()
        elif len(self._group) == 1:
            self._loop.call_later(GROUP_WAIT_S, self._hand_over)

    def _hand_over(self) -> None:
        if self._group:
            self._handed.append(self._group)
            self._group = []
            self._wake.set()

    @property
    def lagging(self) -> bool:
        """Whether something answered has waited for the disk so long that no more answers should be finished."""
        return self._unwritten > 0 and self.failure is None and self._loop.time() - self._oldest > LAG_S

    async def caught_up(self) -> None:
        """Until the next commit or its failure: so a killed process loses no more than some milliseconds of answers.

        A writer that is held up for longer (another process locks the database) holds nobody up.
        """
        waiter = self._loop.create_future()
        self._lag_waiters.append(waiter)
        await asyncio.wait([waiter], timeout=LAG_MOST_S)

    def _let_go(self) -> None:
        for waiter in self._lag_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._lag_waiters.clear()

    async def written(self, exchange: Exchange) -> None:
        """Hand over an exchange and wait until its record is on the disk (`records.synchronous`).

        Raises StoreError if it cannot be written now; it is kept, and written once that is possible again.
        """
        done = self._loop.create_future()
        self._written[exchange.id] = done
        self.put(exchange)
        await done

    async def stop(self) -> None:
        """Write what is queued, then end the thread. What a disk still full does not take is put aside."""
        if not self._thread.is_alive():
            self._revive()
        self._hand_over()
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        if self._checkpointing is not None:
            await self._checkpointing
        self._pending += [self._row(exchange) for group in self._handed for exchange in group]
        if self._pending:
            await asyncio.to_thread(self._put_aside)
        if self._connection is not None:
            self._connection.close()

    def waiting(self) -> tuple[int, float, int]:
        """Exchanges not yet on the disk, for how many seconds the oldest has waited, and how many slots are free."""
        return self._unwritten, self._loop.time() - self._oldest if self._unwritten else 0.0, self._free

    # -- the loop's side of a commit

    def _committed(self, ids: list[str], size: int) -> None:
        self._free += len(ids)
        self._unwritten -= len(ids)
        self._oldest = self._loop.time()
        self._let_go()
        self._since_checkpoint += len(ids)
        self._bytes_since += size
        is_due = self._since_checkpoint >= CHECKPOINT_ROWS or self._bytes_since >= CHECKPOINT_BYTES
        if is_due and (self._checkpointing is None or self._checkpointing.done()):
            self._since_checkpoint = self._bytes_since = 0
            self._checkpointing = asyncio.ensure_future(asyncio.to_thread(self._checkpoint))
        while self._free and self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.done():
                self._free -= 1
                waiter.set_result(None)
        if self._written:
            for name in ids:
                if (done := self._written.pop(name, None)) is not None and not done.done():
                    done.set_result(None)

    def _refused(self, failure: str) -> None:
        """The answers that wait for their record must not wait for a disk."""
        self._let_go()
        for done in self._written.values():
            if not done.done():
                done.set_exception(StoreError(failure))
        self._written.clear()

    def _checkpoint(self) -> None:
        """Move what the log holds into the database, beside the writer: within a commit it cost up to 30 ms."""
        with suppress(sqlite3.Error), closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # -- what the database did not take

    def _prepare(self) -> None:
        """Take in what an earlier process put aside, and keep room for this one's; have prices at hand."""
        self._cost("", Usage(prompt=1, completion=1))
        for file in sorted(self._spill.glob(f"{ASIDE}*.jsonl")):
            try:
                rows = [self._writer.row(line) for line in file.read_bytes().splitlines()]
                with closing(self._connect()) as connection:
                    self._writer.insert(connection, rows)
                file.unlink()
            except FileNotFoundError:  # another worker was quicker
                continue
            except (sqlite3.Error, OSError, msgspec.DecodeError, StoreError) as error:
                log.error("%s still waits to be written: %s", file, error)
        with suppress(OSError):
            (self._spill / BALLAST).write_bytes(bytes(BALLAST_BYTES))

    def _put_aside(self) -> None:
        """Write what is pending to a file; room for that is made by giving up the ballast."""
        (self._spill / BALLAST).unlink(missing_ok=True)
        file = self._spill / f"{ASIDE}{self._pending[0].id}.jsonl"
        try:
            file.touch(mode=0o600)
            file.write_bytes(b"".join(map(self._writer.line, self._pending)))
        except OSError as error:
            log.error("%d records could not be written, nor put aside: %s", len(self._pending), error)
        else:
            log.error("%d records could not be written: they wait in %s for the next start", len(self._pending), file)

    # -- the thread

    def _revive(self) -> None:
        self._thread = threading.Thread(target=self._write, name="records", daemon=True)
        self._thread.start()

    def _write(self) -> None:
        """Take what is there, commit it, free its slots; what cannot be written is kept and tried again.

        An exchange is always in one of `_handed` and `_pending`: a thread that dies at any point loses none.
        """
        while True:
            if not self._handed and not self._pending:
                if self._stopping:
                    return
                self._wake.wait()
                self._wake.clear()
            self._rows()
            if not self._commit():
                if self._stopping:
                    return
                time.sleep(RETRY_S)

    def _commit(self) -> bool:
        """Whether all that was pending is on the disk now. Where a group as a whole cannot be, its rows are tried."""
        if not self._pending:
            return True
        done: list[str] = []
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.execute("PRAGMA wal_autocheckpoint=0")
            try:
                self._writer.insert(self._connection, self._pending)
                done = [row.id for row in self._pending]
            except Exception:  # noqa: BLE001 - whatever one row does, the others are written
                for row in self._pending:
                    self._write_one(self._connection, row)
                    done.append(row.id)
            self.failure = None
        except (sqlite3.Error, OverflowError) as error:
            self.failure = f"the records database cannot be written: {error}"
            log.error("%s; records wait", self.failure)
            self._loop.call_soon_threadsafe(self._refused, self.failure)
            if self._connection is not None:
                self._connection.close()
            self._connection = None
        written = self._pending[: len(done)]
        del self._pending[: len(done)]
        if done:
            self._spread(written)
            size = sum(len(row.request or b"") + len(row.answer or b"") for row in written)
            self._loop.call_soon_threadsafe(self._committed, done, size)
        return not self._pending

    def _write_one(self, connection: sqlite3.Connection, row: Row) -> None:
        """One row by itself; of one that cannot be written down as it is, a row that says so. Raises sqlite3.Error."""
        try:
            self._writer.insert(connection, [row])
        except (sqlite3.Error, OverflowError):
            raise
        except Exception as error:  # an odd row must not end the writer, and be met again by the next one
            log.exception("record %s could not be written as it is", row.id)
            told = f"the record could not be written as it is: {type(error).__name__}"
            bare = {"input": None, "predicted": None, "request": None, "answer": None, "failure": told}
            self._writer.insert(connection, [msgspec.structs.replace(row, **bare)])

    def _spread(self, written: Sequence[Row]) -> None:
        for tell in self._tell:
            try:
                tell(written)
            except Exception:  # the boundary of who listens: the records are written, whatever they make of it
                log.exception("records are written, but not all who listen have heard of them")

    def _rows(self) -> None:
        """Turn what was handed over into rows, a group at a time."""
        while self._handed and len(self._pending) < GROUP_ROWS:
            self._pending += [self._row(exchange) for exchange in self._handed[0]]
            self._handed.popleft()

    def _row(self, exchange: Exchange) -> Row:
        """The row of an exchange; of one that cannot be read, a row that says so."""
        try:
            return exchange.row(self._cost)
        except Exception as error:  # an odd answer must not cost the others their record
            log.exception("record %s could not be made whole", exchange.id)
            return Row(
                id=exchange.id,
                at=exchange.at,
                source="live",
                task=exchange.task,
                model=exchange.model,
                route=exchange.route,
                reason=exchange.reason,
                status=exchange.status,
                failure=f"the record could not be made whole: {type(error).__name__}",
                request=exchange.request,
                answer=b"".join(exchange.chunks),
            )
