"""The upstream client: one pooled session, bytes in and bytes out, nothing decoded, followed or retried.

What is particular about a vendor's paths and credentials is `vendors`; who is asked, and when again, is `attempts`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from suffice.core.config import Server, Upstream
from suffice.core.errors import InputError
from suffice.serve.egress import Cleared, ClearedUpload
from suffice.serve.passing import Upload
from suffice.serve.vendors import CALLERS_KEYS, CredentialError, Vendor, vendor_of
from suffice.store.keys import OURS

# Hop-by-hop (RFC 9110, 7.6.1), or set by the client for its own connection. Answers are asked for uncompressed, so
# that their bytes can be relayed unchanged and still be read for the record.
_HOP_BY_HOP = (
    b"connection, keep-alive, proxy-authenticate, proxy-authorization, proxy-connection, te, trailer, "
    b"transfer-encoding, upgrade"
)
_NOT_RETURNED = frozenset(_HOP_BY_HOP.split(b", "))
_NOT_SENT = _NOT_RETURNED | {b"host", b"content-length", b"accept-encoding", b"expect"}
KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common model servers close an idle connection: a request never meets a closing one."""

TIMEOUT, BUSY = "upstream_timeout", "upstream_busy"


class UpstreamError(Exception):
    """The upstream gave no answer: `code` for programs, `status` for the caller, the text for people.

    `unsent`: the request surely did not reach it. `headers` go with the answer.
    """

    def __init__(
        self,
        upstream: str,
        message: str,
        code: str,
        status: int,
        *,
        unsent: bool = False,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(f"upstream {upstream!r} {message}")
        self.upstream, self.code, self.status, self.unsent, self.headers = upstream, code, status, unsent, headers


class Upstreams:
    """The configured upstreams behind one connection pool. Use as an async context manager.

    Raises InputError at construction if a configured key is not in the environment, or a library is not installed.
    """

    def __init__(
        self, upstreams: Mapping[str, Upstream], server: Server, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._server = server
        self._base: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._vendors: dict[str, Vendor] = {}
        self._rooms: dict[str, _Room] = {}
        for name, upstream in upstreams.items():
            self._base[name] = upstream.base_url.rstrip("/")
            key = environ.get(upstream.api_key_env) if upstream.api_key_env is not None else None
            if upstream.api_key_env is not None and not key:
                raise InputError(
                    f"upstream {name!r} takes its key from the environment variable {upstream.api_key_env}, "
                    "which is not set"
                )
            vendor = vendor_of(name, upstream, key)
            if vendor is not None:
                self._vendors[name] = vendor
                self._base[name] = vendor.base
            elif key is not None:
                self._keys[name] = key
            if upstream.max_connections is not None:
                self._rooms[name] = _Room(name, upstream.max_connections, upstream.max_waiting)

    async def __aenter__(self) -> Upstreams:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._server.connect_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    def vendor(self, name: str) -> Vendor | None:
        """What is particular about this upstream's paths, bodies and credentials; None where nothing is."""
        return self._vendors.get(name)

    async def ask(
        self,
        name: str,
        method: str,
        path: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: Cleared | ClearedUpload | None,
        within_s: float,
    ) -> aiohttp.ClientResponse:
        """The upstream's response, once its status and headers are there: read by `chunks`, ended by `leave`.

        Raises UpstreamError if it cannot be reached, has no room, or the first byte comes later than `within_s`.
        """
        sent = CIMultiDict[str]()
        for key, value in headers:
            if key not in _NOT_SENT and not key.startswith(b"x-suffice-") and OURS not in value:
                sent.add(key.decode("latin-1"), value.decode("latin-1"))
        sent["Accept-Encoding"] = "identity"
        if isinstance(body, Upload) and body.length is not None:
            sent["Content-Length"] = str(body.length)
        if name in self._keys:
            for theirs in CALLERS_KEYS:
                sent.popall(theirs, None)
            sent["Authorization"] = f"Bearer {self._keys[name]}"
        room = self._rooms.get(name)
        entered = False
        try:
            async with asyncio.timeout(within_s):
                url = URL(self._base[name] + path, encoded=True)
                if room is not None:
                    await room.enter()
                    entered = True
                if name in self._vendors:
                    await self._vendors[name].sign(method, str(url), sent, body if isinstance(body, bytes) else b"")
                response = await self._session.request(
                    method, url, headers=sent, data=body or None, allow_redirects=False
                )
        except BaseException as error:
            if entered and room is not None:
                room.leave()
            if (failed := self._failure(name, error, within_s, room is not None and not entered)) is not None:
                raise failed from error
            raise
        if not 200 <= response.status < 600:
            self.leave(name, response)
            raise UpstreamError(name, f"sent what is no HTTP: status {response.status}", "upstream_broken", 502)
        return response

    def leave(self, name: str, response: aiohttp.ClientResponse) -> None:
        """The end of a response. Before its body ended this closes the connection, which cancels the work upstream."""
        response.close() if not response.content.at_eof() else response.release()
        if name in self._rooms:
            self._rooms[name].leave()

    def _failure(self, name: str, error: BaseException, within_s: float, waiting: bool) -> UpstreamError | None:
        """What an error means, None where it is not the upstream's."""
        if isinstance(error, aiohttp.ServerTimeoutError):
            told = f"did not accept a connection within {self._server.connect_s:g} s"
            return UpstreamError(name, told, TIMEOUT, 504, unsent=True)
        if isinstance(error, TimeoutError) and waiting:
            told = f"had no connection free within {within_s:g} s"
            return UpstreamError(name, told, BUSY, 503, unsent=True, headers=_SOON)
        if isinstance(error, TimeoutError):
            return UpstreamError(name, f"sent nothing within {within_s:g} s", TIMEOUT, 504)
        if isinstance(error, CredentialError):
            return UpstreamError(name, f"cannot be asked: {error}", "upstream_credentials", 502, unsent=True)
        if isinstance(error, aiohttp.ClientResponseError):
            return UpstreamError(name, f"sent what is no HTTP: {_told(error)}", "upstream_broken", 502)
        if isinstance(error, aiohttp.ClientError | OSError | ValueError):
            unsent = isinstance(error, aiohttp.ClientConnectorError | ValueError)
            return UpstreamError(name, f"cannot be reached: {_told(error)}", "upstream_unreachable", 502, unsent=unsent)
        return None

    async def chunks(self, name: str, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The body as it arrives, events as they were cut.

        Raises UpstreamError if it breaks off or pauses for longer than the idle limit.
        """
        idle_s = self._server.idle_s
        content = response.content
        events = response.content_type == "text/event-stream"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(idle_s) as limit:
                while chunk := await (_http_chunk(content) if events else content.readany()):
                    limit.reschedule(None)  # while the caller reads slowly, the upstream is not the one who pauses
                    yield chunk
                    limit.reschedule(loop.time() + idle_s)
        except TimeoutError as error:
            raise UpstreamError(name, f"paused for more than {idle_s:g} s", TIMEOUT, 504) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(name, f"broke off its answer: {_told(error)}", "upstream_broken", 502) from error


async def _http_chunk(content: aiohttp.StreamReader) -> bytes:
    """The next piece as the upstream cut it, where `readany` joins what has piled up; empty at the end."""
    chunk = b""
    while not chunk and not content.at_eof():
        chunk, _ = await content.readchunk()
    return chunk


def returned(response: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    """The response's headers that go to the caller, as they came; ours are ours alone, even from another gateway."""
    lowered = ((key.lower(), value) for key, value in response.raw_headers)
    return [(key, value) for key, value in lowered if key not in _NOT_RETURNED and not key.startswith(b"x-suffice-")]


def _told(error: Exception) -> str:
    """In a few words; never the address asked for, whose query is the caller's own."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.os_error.strerror or error.os_error} ({error.host}:{error.port})"
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message.splitlines()[0][:200] if error.message else type(error).__name__
    if isinstance(error, ValueError):
        return "the address is not valid"
    return str(error) or type(error).__name__


_SOON = ((b"retry-after", b"1"),)


class _Room:
    """So many calls under way at an upstream, so many more in a queue, and no more."""

    def __init__(self, name: str, calls: int, waiting: int) -> None:
        self._name, self._free, self._waiting = name, calls, waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Take a place, first come, first served. Raises UpstreamError where the queue is full."""
        if self._free and not self._queue:
            self._free -= 1
            return
        if len(self._queue) >= self._waiting:
            raise UpstreamError(self._name, "is asked as much as it may be", BUSY, 503, unsent=True, headers=_SOON)
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came together with the end of waiting
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def leave(self) -> None:
        """Give the place to the next one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
