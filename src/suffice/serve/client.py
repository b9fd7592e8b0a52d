"""An HTTP/1.1 client for relaying: bytes out, bytes in, connections kept. Nothing is decoded, followed or retried.

Why our own: the relay's time goes to its client, and general ones build for each call what a relay never looks at
(`bench/gateway.py`: a bare relay over this one takes about half the processor time of one over aiohttp). What is hard,
reading what servers send, is httptools' (llhttp, the parser of Node.js); connecting, TLS and names are the loop's.

Source: RFC 9112 (framing), RFC 9110 (fields). Not here, for no API of a model needs it: HTTP/2, proxies, cookies.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from suffice.serve.ticks import Ticks

Headers = Iterable[tuple[bytes, bytes]]

HIGH, LOW = 2**18, 2**16
"""Bytes of a body that may wait for a slow reader before its server is held back, and when it may go on."""
MOST_HEADERS = 2**16
"""Bytes of an answer's headers."""
SWEEP_S = 1.0


class ConnectError(Exception):
    """No connection: nothing was sent."""


class ConnectTimeout(ConnectError):
    """No connection within the time given."""


class BrokenError(Exception):
    """The connection broke, or what came over it is no answer. `garbled`: it is no HTTP."""

    def __init__(self, message: str, *, garbled: bool = False) -> None:
        super().__init__(message)
        self.garbled = garbled


class Origin(NamedTuple):
    """Whom a connection leads to; `path` stands before each target."""

    secure: bool
    host: str
    port: int
    path: bytes

    @classmethod
    def of(cls, base_url: str) -> Origin:
        """Out of an address. Raises ValueError for a port that is none."""
        url = urlsplit(base_url)
        secure = url.scheme == "https"
        return cls(secure, url.hostname or "", url.port or (443 if secure else 80), url.path.rstrip("/").encode())

    @property
    def host_header(self) -> bytes:
        """As the `Host` field names it: with its port where that is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == (443 if self.secure else 80)
        return (host if usual else f"{host}:{self.port}").encode("idna" if not host.isascii() else "ascii")


class Answer:
    """What came back: status and headers (names in lower case) are there, the body is read by `read`.

    `length` is the body's, None where only its end tells. To be closed whatever happens.
    """

    __slots__ = (
        "_connection", "_each", "_ended", "_error", "_pieces", "_size", "_waiter", "headers", "length", "status",
        "streamed",
    )  # fmt: skip

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.length: int | None = None
        self.streamed = False
        self._each = False
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: BrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes:
        """The first of this name, in lower case; empty without one."""
        return next((value for key, value in self.headers if key == name), b"")

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case; empty without one."""
        return self.header(b"content-type").partition(b";")[0].strip().lower().decode("latin-1")

    @property
    def fields(self) -> dict[str, str]:
        """The headers as texts, the last of each name."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}

    @property
    def whole(self) -> bool:
        """Whether the body has come to its end and was read."""
        return self._ended and not self._pieces

    def at_hand(self) -> bytes | None:
        """The next piece without waiting: b"" at the end, None where it is still to come. Raises BrokenError.

        Events come as the server cut them, other bodies with all that has piled up.
        """
        if self._pieces:
            if self._each or len(self._pieces) == 1:
                piece = self._pieces.popleft()
            else:
                piece = b"".join(self._pieces)
                self._pieces.clear()
            self._size -= len(piece)
            if self._size < LOW:
                self._connection.go_on()
            return piece
        if self._error is not None:
            raise self._error
        return b"" if self._ended else None

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises BrokenError if the body breaks off."""
        while (piece := self.at_hand()) is None:
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return piece

    def close(self) -> None:
        """Let go of the connection: kept if the body has ended, closed if not, which cancels the server's work."""
        self._connection.leave(self)

    # -- filled by its connection

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > HIGH:
            self._connection.hold()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer whole, the next request. httptools calls the `on_` methods."""

    def __init__(self, pool: Client, origin: Origin) -> None:
        self._pool, self._origin, self.loop = pool, origin, asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._begun: asyncio.Future[Answer] | None = None
        self.due = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._held = self._full = self._framed = self._bodiless = False
        self._header_bytes = 0
        self._piece: list[bytes] = []
        self.usable = True
        self.since = 0.0

    # -- a request

    def fire(self) -> None:
        """No answer has begun in time."""
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(TimeoutError("no answer in time"))

    async def ask(self, head: bytes, body: bytes | AsyncIterable[bytes], *, chunked: bool, bodiless: bool) -> Answer:
        """Send a request; its answer once its headers are there. Raises BrokenError, TimeoutError."""
        self._answer = Answer(self)
        self._begun = self.loop.create_future()
        self._framed, self._header_bytes, self._bodiless = False, 0, bodiless
        begun = self._begun
        if isinstance(body, bytes):
            self._transport.write(head + body if len(body) < LOW else head)
            if len(body) >= LOW:
                self._transport.write(body)
            return await begun
        self._transport.write(head)
        sending = asyncio.ensure_future(self._upload(body, chunked))
        try:
            await asyncio.wait((begun, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not begun.done():
                sending.result()
            return await begun
        finally:
            if not sending.done():  # answered before all was sent: what is left has no reader
                self.usable = False
                sending.cancel()
            elif not sending.cancelled():
                sending.exception()

    async def _upload(self, body: AsyncIterable[bytes], chunked: bool) -> None:
        async for piece in body:
            if self._full:
                self._writable = self.loop.create_future()
                await self._writable
            self._transport.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self._transport.write(b"0\r\n\r\n")

    def leave(self, answer: Answer) -> None:
        """The answer is done with."""
        if self._answer is not answer:
            return
        if answer.whole and answer._error is None and self.usable and not self._transport.is_closing():
            self._answer = self._begun = None
            self._pool.keep(self._origin, self)
        else:
            self.end()

    def end(self) -> None:
        """Close at once."""
        self.usable = False
        self._transport.abort()

    def hold(self) -> None:
        """The reader is slow: no more for now."""
        if not self._held and not self._transport.is_closing():
            self._held = True
            self._transport.pause_reading()

    def go_on(self) -> None:
        """The reader has caught up."""
        if self._held and not self._transport.is_closing():
            self._held = False
            self._transport.resume_reading()

    # -- the event loop's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer._ended:
            self.end()  # nobody asked: a server that says more than its answer is not asked again
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(BrokenError("it changes the protocol", garbled=True))
        except (httptools.HttpParserError, ValueError) as error:
            self._fail(BrokenError(_first_line(error), garbled=True))
        if self._piece:
            self._pass_on()
        if self._answer is not None:
            self._answer._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        answer = self._answer
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(BrokenError("the connection was closed"))
        if answer is None or answer._ended:
            return
        if answer.status and not self._framed and error is None:
            answer._ended = True  # its end is the connection's (RFC 9112, 6.3)
        else:
            self._fail(BrokenError(str(error) if error else "the connection was closed"))
        answer._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _fail(self, error: BrokenError) -> None:
        self.usable = False
        if self._answer is not None and not self._answer._ended:
            self._answer._error = self._answer._error or error
        if self._begun is not None and not self._begun.done():
            self._begun.set_exception(error)
        self._transport.abort()

    # -- the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._answer is not None
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEADERS:
            raise ValueError("its headers are too long")
        if self._answer.status == 0:  # a trailer is no header
            self._answer.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        answer, status = self._answer, self._parser.get_status_code()
        assert answer is not None
        if 100 <= status < 200:
            answer.headers.clear()
            return
        answer.status = status
        chunked = False
        for name, value in answer.headers:
            if name == b"content-length":
                answer.length, self._framed = int(value), True
            elif name == b"transfer-encoding":
                chunked = self._framed = b"chunked" in value.lower()
            elif name == b"content-type":
                answer.streamed = value[:17].lower() == b"text/event-stream"
        if chunked:
            answer.length = None
        answer._each = answer.streamed and chunked
        if not self._parser.should_keep_alive():
            self.usable = False
        if self._bodiless:
            answer.length, answer._ended, self.usable = None, True, False
        assert self._begun is not None
        if not self._begun.done():
            self._begun.set_result(answer)

    def on_body(self, body: bytes) -> None:
        if self._answer is not None and self._answer._each:
            self._piece.append(body)
        elif self._answer is not None:
            self._answer._add(body)

    def on_chunk_complete(self) -> None:
        if self._piece:
            self._pass_on()

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._answer._ended = True

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer._ended:
            raise ValueError("it says more than was asked")

    def _pass_on(self) -> None:
        if self._answer is not None:
            self._answer._add(self._piece[0] if len(self._piece) == 1 else b"".join(self._piece))
        self._piece.clear()


class Client:
    """Connections to any number of origins, kept for `keep_alive_s`. Use within one event loop; close it at the end."""

    def __init__(self, connect_s: float, keep_alive_s: float) -> None:
        self._connect_s, self._keep_alive_s = connect_s, keep_alive_s
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._ticks = Ticks()
        self._closed = False

    async def ask(
        self, origin: Origin, method: str, target: bytes, headers: Headers, body: bytes | AsyncIterable[bytes] = b"",
        length: int | None = None, within_s: float = math.inf,
    ) -> Answer:  # fmt: skip
        """An answer, once its status and headers are there. `target` is path and query, as they are sent.

        `length` is that of a body that comes in pieces, where it is known. Raises ConnectError where nothing was sent,
        BrokenError where there is no answer, TimeoutError where none begins `within_s` of a connection, ValueError for
        headers that would break the framing.
        """
        chunked = False
        lines = [b"%s %s%s HTTP/1.1" % (method.encode(), origin.path, target), b"host: " + origin.host_header]
        lines += [name + b": " + value for name, value in headers]
        if not isinstance(body, bytes) and length is None:
            chunked = True
            lines.append(b"transfer-encoding: chunked")
        elif body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            lines.append(b"content-length: %d" % (len(body) if isinstance(body, bytes) else cast(int, length)))
        head = b"\r\n".join([*lines, b"", b""])
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
            raise ValueError("a header or the path breaks the line")
        connection = self._kept(origin) or await self._connected(origin)
        connection.due = connection.loop.time() + within_s
        self._ticks.add(connection)
        try:
            return await connection.ask(head, body, chunked=chunked, bodiless=method == "HEAD")
        except BaseException:
            connection.end()
            raise
        finally:
            self._ticks.take_back(connection)

    def keep(self, origin: Origin, connection: _Connection) -> None:
        """A connection that may be used again."""
        if self._closed:
            connection.end()
            return
        connection.since = time.monotonic()
        self._idle.setdefault(origin, deque()).append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(SWEEP_S, self._swept)

    async def close(self) -> None:
        """Close what is idle; what is under way closes at its end."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for idle in self._idle.values():
            for connection in idle:
                connection.end()
        self._idle.clear()

    def _kept(self, origin: Origin) -> _Connection | None:
        """The connection used last that still lives: the older ones are let go in time."""
        idle = self._idle.get(origin)
        oldest = time.monotonic() - self._keep_alive_s
        while idle:
            connection = idle.pop()
            if connection.usable and connection.since > oldest:
                return connection
            connection.end()
        return None

    async def _connected(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        secure: dict[str, Any] = {}
        if origin.secure:
            if self._tls is None:
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            secure = {"ssl": self._tls, "server_hostname": origin.host}
        limit = asyncio.timeout(self._connect_s)
        try:
            async with limit:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, origin), origin.host, origin.port, **secure
                )
        except TimeoutError as error:
            if limit.expired():
                raise ConnectTimeout(f"no connection within {self._connect_s:g} s") from error
            raise ConnectError(f"{_first_line(error)} ({origin.host}:{origin.port})") from error
        except OSError as error:
            raise ConnectError(f"{error.strerror or _first_line(error)} ({origin.host}:{origin.port})") from error
        return connection

    def _swept(self) -> None:
        """Let go of what was idle for too long."""
        self._sweep = None
        oldest = time.monotonic() - self._keep_alive_s
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].since <= oldest or not idle[0].usable):
                idle.popleft().end()
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._swept)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
