"""The upstreams: what each is sent beside the caller's bytes, how many calls it takes, what its failures mean.

What is particular about a vendor's paths and credentials is `vendors`; who is asked, and when again, is `attempts`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from suffice.core.config import Server, Upstream
from suffice.core.errors import InputError
from suffice.serve.client import Answer, BrokenError, Client, ConnectError, ConnectTimeout, Origin
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
_NOT_SENT = _NOT_RETURNED | {b"host", b"content-length", b"accept-encoding", b"expect", b"cookie"}
_CALLERS_KEYS = frozenset(name.encode() for name in CALLERS_KEYS)
_UNCOMPRESSED = (b"accept-encoding", b"identity")
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
        self._origins: dict[str, Origin] = {}
        self._keys: dict[str, bytes] = {}
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
                self._keys[name] = b"Bearer " + key.encode()
            self._origins[name] = Origin.of(self._base[name])
            if upstream.max_connections is not None:
                self._rooms[name] = _Room(name, upstream.max_connections, upstream.max_waiting)

    async def __aenter__(self) -> Upstreams:
        self._client = Client(self._server.connect_s, KEEP_ALIVE_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

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
    ) -> Answer:
        """The upstream's response, once its status and headers are there: read by `read`, ended by `leave`.

        Raises UpstreamError if it cannot be reached, has no room, or the first byte comes later than `within_s`.
        """
        key = self._keys.get(name)
        if any(header[0] == b"connection" for header in headers):
            headers = _end_to_end(headers)
        sent = [
            header
            for header in headers
            if header[0] not in _NOT_SENT
            and not header[0].startswith(b"x-suffice-")
            and OURS not in header[1]
            and (key is None or header[0] not in _CALLERS_KEYS)
        ]
        sent.append(_UNCOMPRESSED)
        if key is not None:
            sent.append((b"authorization", key))
        room, vendor = self._rooms.get(name), self._vendors.get(name)
        entered = False
        length = body.length if isinstance(body, Upload) else None
        try:
            if room is not None or vendor is not None:
                began = time.monotonic()
                async with asyncio.timeout(within_s):
                    if room is not None:
                        await room.enter()
                        entered = True
                    if vendor is not None:
                        sent = await self._signed(name, vendor, method, path, sent, body)
                within_s -= time.monotonic() - began
            response = await self._client.ask(
                self._origins[name], method, path.encode("latin-1"), sent, body or b"", length, within_s
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

    async def _signed(
        self, name: str, vendor: Vendor, method: str, path: str, sent: list[tuple[bytes, bytes]], body: object
    ) -> list[tuple[bytes, bytes]]:
        """The headers with the vendor's credentials among them."""
        told = CIMultiDict((key.decode("latin-1"), value.decode("latin-1")) for key, value in sent)
        whole = body if isinstance(body, bytes) else b""
        await vendor.sign(method, self._base[name] + path, told, whole)
        return [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in told.items()]

    def leave(self, name: str, response: Answer) -> None:
        """The end of a response. Before its body ended this closes the connection, which cancels the work upstream."""
        response.close()
        if name in self._rooms:
            self._rooms[name].leave()

    def _failure(self, name: str, error: BaseException, within_s: float, waiting: bool) -> UpstreamError | None:
        """What an error means, None where it is not the upstream's."""
        if isinstance(error, ConnectTimeout):
            told = f"did not accept a connection within {self._server.connect_s:g} s"
            return UpstreamError(name, told, TIMEOUT, 504, unsent=True)
        if isinstance(error, TimeoutError) and waiting:
            told = f"had no connection free within {within_s:g} s"
            return UpstreamError(name, told, BUSY, 503, unsent=True, headers=_SOON)
        if isinstance(error, TimeoutError):
            return UpstreamError(name, f"sent nothing within {within_s:.3g} s", TIMEOUT, 504)
        if isinstance(error, CredentialError):
            return UpstreamError(name, f"cannot be asked: {error}", "upstream_credentials", 502, unsent=True)
        if isinstance(error, BrokenError) and error.garbled:
            return UpstreamError(name, f"sent what is no HTTP: {error}", "upstream_broken", 502)
        if isinstance(error, ConnectError | BrokenError | OSError | ValueError):
            unsent = isinstance(error, ConnectError | ValueError)
            told = "the address is not valid" if isinstance(error, ValueError) else str(error)
            return UpstreamError(name, f"cannot be reached: {told}", "upstream_unreachable", 502, unsent=unsent)
        return None

    async def read(self, name: str, response: Answer) -> bytes:
        """The next piece of the body as it arrives, events as they were cut; b"" at the end.

        Raises UpstreamError if it breaks off or pauses for longer than the idle limit.
        """
        idle_s = self._server.idle_s
        try:
            piece = response.at_hand()
            if piece is None:
                async with asyncio.timeout(idle_s):
                    piece = await response.read()
            return piece
        except TimeoutError as error:
            raise UpstreamError(name, f"paused for more than {idle_s:g} s", TIMEOUT, 504) from error
        except (BrokenError, OSError) as error:
            raise UpstreamError(name, f"broke off its answer: {error}", "upstream_broken", 502) from error


def returned(response: Answer) -> list[tuple[bytes, bytes]]:
    """The response's headers that go to the caller, as they came; ours are ours alone, even from another gateway."""
    return [
        header
        for header in response.headers
        if header[0] not in _NOT_RETURNED and not header[0].startswith(b"x-suffice-")
    ]


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Without the fields that `Connection` names: they are of the caller's connection alone (RFC 9110, 7.6.1)."""
    told = [(key, value) for key, value in headers]
    named = {name.strip().lower() for key, value in told if key == b"connection" for name in value.split(b",")}
    return [header for header in told if header[0] not in named]


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
