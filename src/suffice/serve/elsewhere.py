"""Asking the upstream of a specialist that is one: by the way out that everything takes, and by no other.

No caller's headers go with such a question, his key least of all; it goes to the upstream that was certified and to no
other; under `never`, or where the caller has said that his request stays here, only to one that is inside.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.protocols import Remote
from suffice.core.types import Egress, Prediction, Usage
from suffice.core.values import decode
from suffice.serve.capture import Attempt
from suffice.serve.egress import Denied
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.upstream import TIMEOUT, UpstreamError
from suffice.wire import chat, dialects

JSON_TYPE = [(b"content-type", b"application/json")]


class Came(NamedTuple):
    """What came back: `usage` is what was paid for, estimated where the upstream does not tell."""

    status: int
    body: bytes
    usage: Usage | None
    ms: float


class Elsewhere:
    """Puts questions by these settings. Use within the life of `outbound`."""

    def __init__(self, config: Config, outbound: Outbound, clock: Callable[[], float] = time.perf_counter) -> None:
        self._config, self._outbound, self._clock = config, outbound, clock

    def may(self, upstream: str, egress: Egress, *, inside: bool = False) -> None:
        """Raises Denied where a question may not leave for this upstream, InputError where there is none of that name.

        `inside`: it may leave for none but one that is inside.
        """
        known = self._config.upstreams.get(upstream)
        if known is None:
            raise InputError(f"upstream {upstream!r} is not configured")
        if not known.inside and (inside or egress == "never"):
            why = "it is to stay here" if inside else f"egress = {egress!r}"
            raise Denied(f"this request may not leave for upstream {upstream!r} ({why})")

    async def put(self, upstream: str, model: str, question: bytes, egress: Egress, attempts: list[Attempt]) -> Came:
        """One question, and what came of it whatever its status. Raises UpstreamError, Denied, and InputError where it
        cannot be said in the upstream's dialect."""
        self.may(upstream, egress)
        sending = Sending(
            dialect=chat.DIALECT,
            method="POST",
            path=chat.DIALECT.path,
            headers=JSON_TYPE,
            model=model,
            body=question,
            egress=egress,
            only=upstream,
        )
        began = self._clock()
        async with self._outbound.call(sending, attempts, fallbacks=False) as heard:
            body = await heard.whole()
            came = Came(heard.status, body, None, (self._clock() - began) * 1e3)
        return came._replace(usage=_usage(question, body)) if came.status == 200 else came

    async def predict(
        self, remote: Remote, text: str, egress: Egress, attempts: list[Attempt]
    ) -> tuple[Prediction, Usage | None]:
        """The prediction of a specialist that is elsewhere, and what it took. Raises what `put` does, and UpstreamError
        for any status but 200; TimeoutError where the upstream was too slow."""
        try:
            came = await self.put(remote.upstream, remote.model, remote.question(text), egress, attempts)
        except UpstreamError as error:
            if error.code == TIMEOUT:
                raise TimeoutError from error
            raise
        if came.status != 200:
            raise UpstreamError(remote.upstream, f"answered with status {came.status}", "upstream_status", came.status)
        return remote.heard(text, came.body), came.usage


def _usage(question: bytes, body: bytes) -> Usage:
    """Tokens of an answer, estimated where it does not tell."""
    try:
        told = chat.usage_of(decode(body))
    except InputError:
        told = None
    return told if told is not None else dialects.estimated_usage(chat.DIALECT.name, question, body)
