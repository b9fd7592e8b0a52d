"""The edges of a call: its body, its headers, how it is answered and broken off. Nothing here decides anything."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from starlette.responses import Response

from suffice.core.errors import SufficeError
from suffice.core.types import TASK_NAME, Route
from suffice.serve.capture import Capture, Exchange
from suffice.serve.ticks import Ticks
from suffice.wire import chat

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
GONE_S = 0.05
"""A caller that hangs up is noticed after this long at the latest."""
DRAINED = 4
"""How many times the limit a body that is too large is read on."""
_KINDS = {401: "authentication_error", 429: "rate_limit_error"}
_LABEL = re.compile(r"[\x20-\x7e]{1,200}")


class Refused(SufficeError):
    """A request that goes nowhere: HTTP status and code beside the sentence; `headers` go with the answer."""

    def __init__(
        self,
        message: str,
        status: int,
        code: str,
        param: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, list(headers)

    @property
    def kind(self) -> str:
        """What the vendors' SDKs call such an error, by its status."""
        return _KINDS.get(self.status) or ("invalid_request_error" if self.status < 500 else "api_error")


class Gone(Exception):
    """The caller hung up."""


class CutShort(Exception):
    """An answer broke off after it had begun: the server is to break the caller's connection."""


class OurHeaders:
    """Our own request headers, checked. Raises Refused naming the header."""

    __slots__ = ("group", "route", "session", "slices", "task")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.task: str | None = None
        self.session: str | None = None
        self.group: str | None = None
        self.slices, self.route = "", Route.AUTO
        said: dict[bytes, bytes] = {}
        for key, value in raw:
            if key[:10] == b"x-suffice-" and (read := _READ.get(key)) is not None:
                if said.setdefault(key, value) != value:  # which one holds could decide what leaves
                    raise Refused(f"{key.decode().title()} stands twice, with two values", 400, "bad_header")
                read(self, value.decode("latin-1").strip())

    def _take_task(self, value: str) -> None:
        if not TASK_NAME.fullmatch(value):
            raise Refused(
                "X-Suffice-Task: a task's name is 1 to 64 letters, digits, dots, dashes or underscores",
                400,
                "bad_header",
            )
        self.task = value

    def _take_session(self, value: str) -> None:
        self.session = _label(value, "Session")

    def _take_group(self, value: str) -> None:
        self.group = _label(value, "Group")

    def _take_slices(self, value: str) -> None:
        slices = [name for name in (part.strip() for part in _label(value, "Slices").split(",")) if name]
        if not all(TASK_NAME.fullmatch(name) for name in slices):
            raise Refused("X-Suffice-Slices: names separated by commas", 400, "bad_header")
        self.slices = ",".join(slices)

    def _take_route(self, value: str) -> None:
        try:
            self.route = Route(value)
        except ValueError as error:
            raise Refused(f"X-Suffice-Route: auto, frontier or specialist, not {value!r}", 400, "bad_header") from error


_READ: dict[bytes, Callable[[OurHeaders, str], None]] = {
    b"x-suffice-task": OurHeaders._take_task,
    b"x-suffice-session": OurHeaders._take_session,
    b"x-suffice-group": OurHeaders._take_group,
    b"x-suffice-slices": OurHeaders._take_slices,
    b"x-suffice-route": OurHeaders._take_route,
}


def _label(value: str, name: str) -> str:
    if not _LABEL.fullmatch(value):
        raise Refused(f"X-Suffice-{name}: 1 to 200 printable characters", 400, "bad_header")
    return value


class AfterRecord:
    """`send` whose last byte waits until the record is on the disk (`records.synchronous`).

    The status waits for the first byte of the body, so that a whole answer whose record fails can still be a 503.
    """

    def __init__(self, capture: Capture, exchange: Exchange, send: Send) -> None:
        self._capture, self._exchange, self._send = capture, exchange, send
        self._start: dict[str, Any] | None = None
        self.begun = False

    async def __call__(self, message: dict[str, Any]) -> None:  # noqa: D102 - it is `send`
        if message["type"] == "http.response.start":
            self._start = message
            return
        if not message.get("more_body"):
            self._exchange.latency_ms = self._exchange.elapsed_ms()
            await self._capture.written(self._exchange)
        if self._start is not None and not self.begun:
            self.begun = True
            await self._send(self._start)
        await self._send(message)


class UntilGone:
    """Cancels the block when the caller hangs up, and raises Gone in its place.

    It looks only after a moment: most answers are there by then, and a task for each would cost a tenth of the relay.
    """

    __slots__ = ("_gone", "_receive", "_task", "_ticks", "_watcher", "due")

    def __init__(self, receive: Receive, ticks: Ticks) -> None:
        self._receive, self._ticks = receive, ticks
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.due = task.get_loop().time() + GONE_S
        self._ticks.add(self)

    def fire(self) -> None:
        """A moment has passed: watch."""
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ticks.take_back(self)
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise Gone


async def whole_body(receive: Receive, limit: int) -> bytes:
    """The whole request body. Raises Refused (413) beyond the limit, Gone if the caller leaves.

    A body that is too large is read on, to a point, and thrown away: most clients read no answer while they write.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= DRAINED * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        size += len(message.get("body", b""))
        if size <= limit:
            chunks.append(message.get("body", b""))
        else:
            chunks.clear()
        more = message.get("more_body", False)
    if size > limit:
        raise Refused(
            f"the request body is larger than {limit / 2**20:g} MB (server.max_body_mb)", 413, "body_too_large"
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def ours(exchange: Exchange) -> Headers:
    """What every answer carries: its record, its route and why."""
    headers = [
        (b"x-suffice-record", exchange.id.encode()),
        (b"x-suffice-route", exchange.route.encode()),
        (b"x-suffice-reason", exchange.reason.encode()),
    ]
    if exchange.attempts and (tries := len(exchange.attempts) + (exchange.failure is None)) > 1:
        headers.append((b"x-suffice-attempts", str(tries).encode()))
    if exchange.task is not None:
        headers.append((b"x-suffice-task", exchange.task.encode()))
        headers.append((b"x-suffice-match", (exchange.rule or "").encode()))
    if exchange.release is not None:
        headers.append((b"x-suffice-release", exchange.release.encode()))
    if exchange.score is not None:
        headers.append((b"x-suffice-score", b"%.6f" % exchange.score))
    if exchange.threshold is not None:
        headers.append((b"x-suffice-threshold", b"%.6f" % exchange.threshold))
    return headers


def error_response(error: Refused) -> Response:
    """The answer of a route that is no dialect's: an error as OpenAI's SDKs read it."""
    headers = {key.decode(): value.decode() for key, value in error.headers}
    body = chat.error(str(error), error.code, error.kind, error.param)
    return Response(body, error.status, headers, media_type="application/json")


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Answer with a body whose length is known."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
