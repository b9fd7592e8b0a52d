"""Pass-through: any other path under `/v1`, with any method, goes upstream as it came.

A JSON body of known length is taken in whole, so that it can be recorded and looked at; all else (uploads) is passed on
piece by piece while it arrives, whatever its size, and is not kept. What the path may be is checked here: it must stay
below `/v1`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from suffice.serve.edges import Gone, Receive, Refused, Scope

BELOW = b"/v1"
_ESCAPES = re.compile(rb"%2f|%5c|%00|\\|//|[^\x21-\x7e]", re.IGNORECASE)
_DOTS = frozenset({b".", b".."})
_JSON = re.compile(rb"application/([\w.+-]+\+)?json\b", re.IGNORECASE)
_MODEL = re.compile(rb"/models/[^/]+\Z")


def path_below(scope: Scope) -> str:
    """The path below `/v1`, with its query, as the caller wrote it.

    Raises Refused (400) for one that an upstream could take for another: with dots, doubled or encoded slashes.
    """
    raw: bytes = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    below = raw.removeprefix(BELOW)
    segments = [segment.replace(b"%2e", b".").replace(b"%2E", b".") for segment in below.split(b"/")]
    # A model's name may have slashes: encoded, it is still the last part of its path.
    plain = re.sub(rb"%2f", b"-", below, flags=re.IGNORECASE) if _MODEL.match(below) else below
    if below == raw or not below.startswith(b"/") or _ESCAPES.search(plain) or not _DOTS.isdisjoint(segments):
        raise Refused("the path has dots, doubled or encoded slashes: it is not passed on", 400, "bad_path")
    query = scope["query_string"]
    return (below + (b"?" + query if query else b"")).decode("latin-1")


class Upload:
    """A body that is passed on while it arrives. `gone`: the caller hung up in the middle."""

    def __init__(self, receive: Receive, length: int | None) -> None:
        self._receive, self.length, self.gone = receive, length, False
        self._whole = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise Gone
            more = message.get("more_body", False)
            if body := message.get("body"):
                yield body
        self._whole.set()

    async def receive(self) -> dict[str, object]:
        """What comes after the body: who watches for a caller that hangs up must not take its pieces."""
        await self._whole.wait()
        return await self._receive()


def upload_of(scope: Scope, receive: Receive, limit: int) -> Upload | None:
    """The body as one to pass on piece by piece; None for one that is taken in whole: none, or JSON up to `limit`."""
    length, chunked, is_json = 0, False, False
    for key, value in scope["headers"]:
        if key == b"content-length":
            length = int(value)
        elif key == b"transfer-encoding":
            chunked = True
        elif key == b"content-type":
            is_json = _JSON.match(value) is not None
    if not chunked and (length == 0 or (is_json and length <= limit)):
        return None
    return Upload(receive, None if chunked else length)


def wants_socket(scope: Scope) -> bool:
    """Whether the caller asks for another protocol than HTTP."""
    return any(key == b"upgrade" and b"websocket" in value.lower() for key, value in scope["headers"])


def no_socket() -> Refused:
    """What such a caller is told."""
    return Refused(
        "WebSockets are not served here: use HTTP with `stream`, or ask the vendor itself", 501, "no_websocket"
    )
