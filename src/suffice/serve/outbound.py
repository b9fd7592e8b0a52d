"""The way out, from top to bottom: what happens to a request that an upstream is to answer.

    what is asked -> the upstreams in their order -> each one's own dialect and model -> what may leave -> the call
    and what comes back: into the caller's dialect -> what was held back is put back -> the caller

The request path, audits and probes all go this way; there is no other. Which upstreams are tried, and when again, is
`attempts`; what may leave is `egress`; how an upstream is reached is `upstream`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from suffice.core.config import Config, Upstream
from suffice.core.errors import InputError
from suffice.core.types import Egress
from suffice.serve.capture import Attempt
from suffice.serve.edges import Headers, Refused
from suffice.serve.egress import Clearance
from suffice.serve.upstream import UpstreamError, Upstreams, returned
from suffice.wire.dialect import Dialect, Turning


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What is asked, in the caller's dialect. `path` is below `base_url`, with its query; `egress` what may leave.

    `repeatable`: asking again does no harm. Without a dialect the body is relayed as it is (pass-through).
    """

    dialect: Dialect | None
    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    model: str
    body: bytes
    egress: Egress = "allowed"
    repeatable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One upstream that may answer: the dialect it is asked in and the name by which it knows the model."""

    name: str
    upstream: Upstream
    model: str
    dialect: Dialect | None


@dataclass(frozen=True, slots=True)
class Heard:
    """An upstream's answer, in the caller's dialect: status and headers are there, the body is read by `chunks`."""

    target: Target
    response: aiohttp.ClientResponse
    turnings: Sequence[Turning]
    upstreams: Upstreams

    @property
    def status(self) -> int:
        """HTTP."""
        return self.response.status

    @property
    def headers(self) -> Headers:
        """Those that go to the caller; a length only where the body passes as it is."""
        headers = returned(self.response)
        return [(key, value) for key, value in headers if key != b"content-length"] if self.turnings else headers

    @property
    def length(self) -> int | None:
        """Of the body, where it is known."""
        return None if self.turnings else self.response.content_length

    @property
    def encoding(self) -> str:
        """Of the body: empty, gzip, ..."""
        return self.response.headers.get("content-encoding", "")

    @property
    def streamed(self) -> bool:
        """Whether it is an event stream."""
        return self.response.content_type == "text/event-stream"

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises UpstreamError if it breaks off or cannot be turned."""
        if not self.turnings:
            async for data in self.upstreams.chunks(self.target.name, self.response):
                yield data
            return
        try:
            async for data in self.upstreams.chunks(self.target.name, self.response):
                for piece in _through(self.turnings, [data], ended=False):
                    yield piece
            for piece in _through(self.turnings, [], ended=True):
                yield piece
        except InputError as error:
            raise UpstreamError(
                self.target.name, f"sent what cannot be read: {error}", "upstream_broken", 502
            ) from error


class Outbound:
    """Asks upstreams. Use within the life of `upstreams`."""

    def __init__(self, config: Config, upstreams: Upstreams) -> None:
        self._config, self._upstreams = config, upstreams

    @asynccontextmanager
    async def call(self, sending: Sending, attempts: list[Attempt]) -> AsyncIterator[Heard]:
        """The first answer that can be had; what was tried before it is added to `attempts`.

        Raises UpstreamError if there is none, Refused where none may be asked.
        """
        clearance = Clearance(sending.egress)
        target = self._target(sending)
        body = clearance.leaving(target.name, target.upstream, sending.body)
        async with self._upstreams.call(target.name, sending.method, sending.path, sending.headers, body) as response:
            back = clearance.back()
            yield Heard(target, response, [back] if back is not None else [], self._upstreams)

    def _target(self, sending: Sending) -> Target:
        name = self._config.upstream_for(sending.model)
        if name is None:
            raise Refused(
                "no upstream is configured: add [upstreams.NAME] with a base_url to suffice.toml", 503, "no_upstream"
            )
        return Target(name=name, upstream=self._config.upstreams[name], model=sending.model, dialect=sending.dialect)


def _through(turnings: Sequence[Turning], pieces: list[bytes], *, ended: bool) -> list[bytes]:
    """What comes out at the end of these turnings, one after the other."""
    for turning in turnings:
        pieces = [out for piece in pieces for out in turning.feed(piece)]
        if ended:
            pieces += turning.end()
    return [piece for piece in pieces if piece]
