"""HTTP/1.1 on a connection, with limits on the head of a request and on standing still: the server's own has none."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 2**10
"""Bytes of a request line with its headers, or of trailers; vendors' SDKs send less than 2 KB."""
STILL_S = 30.0
"""A head is whole after so long, and of a body something comes within so long; else the connection is closed."""
LINGER_S = 1.0
"""What still comes after a refusal is thrown away for this long: closing at once would take the refusal along."""
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 36\r\nconnection: close\r\n\r\nthe request's headers are over 64 KB"
)


class Protocol(HttpToolsProtocol):
    """Answers 431 and closes the connection where a head is larger than `MAX_HEAD`, whether it ends or not.

    A connection is looked at now and then whether its request stands still: a timer for each request would cost more.
    """

    _came = 0
    """Bytes since a request, or a piece of its body, was last complete."""
    _refused = False
    _since: float | None = None
    """Since when more of a request is waited for; None while it is whole."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A first request is waited for from now on."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._looking = self.loop.call_later(STILL_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody needs to look any more."""
        self._looking.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        waited = 0.0 if self._since is None or self.flow.read_paused else self.loop.time() - self._since
        if waited >= STILL_S:
            self.transport.close()
        else:
            self._looking = self.loop.call_later(max(STILL_S - waited, 1.0), self._look)

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._since = self.loop.time()
        super().on_message_begin()

    def data_received(self, data: bytes) -> None:
        """Parse on, unless what is neither body nor a whole head has grown beyond the limit."""
        if self._refused:
            return
        self._came += len(data)
        super().data_received(data)
        if self._came > MAX_HEAD and not self._refused:
            self._refuse()

    def on_headers_complete(self) -> None:
        """The head is whole. Only where it may be too large is it measured."""
        if self._came > MAX_HEAD and len(self.url) + sum(len(k) + len(v) for k, v in self.headers) > MAX_HEAD:
            self._refuse()
        if not self._refused:
            self._came = 0
            self._since = self.loop.time()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Of a refused request there is none."""
        self._came = 0
        self._since = self.loop.time()
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """As above."""
        self._came = 0
        self._since = None
        if not self._refused:
            super().on_message_complete()

    def _refuse(self) -> None:
        """Say so if nobody else is to answer on this connection, and close it."""
        self._refused = True
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_REFUSAL)
            self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()
