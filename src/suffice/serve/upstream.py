"""The upstream client: one pooled session, bytes in and bytes out, nothing decoded, followed or retried."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from suffice.core.config import Server, Upstream
from suffice.core.errors import InputError
from suffice.serve.egress import Cleared

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


class UpstreamError(Exception):
    """The upstream gave no answer: `code` for programs, `status` for the caller, the text for people."""

    def __init__(self, upstream: str, message: str, code: str, status: int) -> None:
        super().__init__(f"upstream {upstream!r} {message}")
        self.upstream, self.code, self.status = upstream, code, status


class Upstreams:
    """The configured upstreams behind one connection pool. Use as an async context manager.

    Raises InputError at construction if a configured key is not in the environment.
    """

    def __init__(
        self, upstreams: Mapping[str, Upstream], server: Server, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._server = server
        self._base: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        for name, upstream in upstreams.items():
            self._base[name] = upstream.base_url.rstrip("/")
            if upstream.api_key_env is not None:
                key = environ.get(upstream.api_key_env)
                if not key:
                    raise InputError(
                        f"upstream {name!r} takes its key from the environment variable {upstream.api_key_env}, "
                        "which is not set"
                    )
                self._keys[name] = key

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

    @asynccontextmanager
    async def call(
        self, name: str, method: str, path: str, headers: Iterable[tuple[bytes, bytes]], body: Cleared | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The upstream's response, once its status and headers are there; the body is read by `chunks`.

        Leaving the block before the body ended closes the connection, which cancels the upstream's work.
        Raises UpstreamError if it cannot be reached or the first byte is late.
        """
        sent = CIMultiDict[str]()
        for key, value in headers:
            if key not in _NOT_SENT and not key.startswith(b"x-suffice-"):
                sent.add(key.decode("latin-1"), value.decode("latin-1"))
        sent["Accept-Encoding"] = "identity"
        if name in self._keys:
            sent["Authorization"] = f"Bearer {self._keys[name]}"
        url = URL(self._base[name] + path, encoded=True)
        try:
            async with asyncio.timeout(self._server.first_byte_s):
                response = await self._session.request(
                    method, url, headers=sent, data=body or None, allow_redirects=False
                )
        except TimeoutError as error:
            if isinstance(error, aiohttp.ServerTimeoutError):
                raise UpstreamError(
                    name,
                    f"did not accept a connection within {self._server.connect_s:g} s",
                    "upstream_timeout",
                    504,
                ) from error
            raise UpstreamError(
                name, f"sent nothing within {self._server.first_byte_s:g} s", "upstream_timeout", 504
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError(name, f"cannot be reached: {_told(error)}", "upstream_unreachable", 502) from error
        try:
            yield response
        finally:
            response.close() if not response.content.at_eof() else response.release()

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
            raise UpstreamError(name, f"paused for more than {idle_s:g} s", "upstream_timeout", 504) from error
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
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.os_error.strerror or error.os_error} ({error.host}:{error.port})"
    return str(error) or type(error).__name__
