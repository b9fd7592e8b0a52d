"""HTTP/1.1 on a connection, with a limit on the head of a request: the server's own parser has none."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 2**10
"""Bytes of a request line with its headers, or of trailers; vendors' SDKs send less than 2 KB."""
LINGER_S = 1.0
"""What still comes after a refusal is thrown away for this long: closing at once would take the refusal along."""
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 36\r\nconnection: close\r\n\r\nthe request's headers are over 64 KB"
)


class Protocol(HttpToolsProtocol):
    """Answers 431 and closes the connection where a head is larger than `MAX_HEAD`, whether it ends or not."""

    _came = 0
    """Bytes since a request, or a piece of its body, was last complete."""
    _refused = False

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
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Of a refused request there is none."""
        self._came = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """As above."""
        self._came = 0
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
