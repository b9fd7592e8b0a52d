"""Egress: what of an exchange may leave for an upstream. The one gate on every way out.

`Upstreams.call` takes no other body than a `Cleared` one, and only this module makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NewType

from suffice.core.config import Privacy, Upstream
from suffice.core.types import Egress
from suffice.serve.detectors import Detectors
from suffice.serve.edges import Refused
from suffice.serve.passing import Upload
from suffice.serve.redact import CannotRedact, Redaction
from suffice.serve.restore import EventStream, WholeAnswer
from suffice.wire.dialect import Turning

Cleared = NewType("Cleared", bytes)
"""A body that may leave for the upstream it was cleared for."""
ClearedUpload = NewType("ClearedUpload", Upload)
"""The same for a body that is passed on while it arrives."""
INLINE_BYTES = 8_192
"""Longer bodies are redacted in a thread: the event loop is not held up for more than a millisecond."""
_STRICT: tuple[Egress, ...] = ("allowed", "redacted", "never")
_SENT = frozenset(
    {b"content-type", b"accept", b"user-agent", b"authorization", b"x-api-key", b"api-key", b"idempotency-key"}
)
_SENT_OF = (b"anthropic-", b"openai-", b"x-stainless-", b"x-goog-", b"x-amz-")
"""Headers that leave where a request is redacted: those that name no one. Any other may hold anything."""
_CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-", b"x-amz-")
"""Of these the ones that are keys, and meant to be. What else holds one of the forms stays here."""

RawHeaders = Sequence[tuple[bytes, bytes]]


class Denied(Refused):
    """The policy forbids that this request leaves."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 403, "egress_denied")


def strictest(*rules: Egress | None) -> Egress:
    """The strictest of what the task, the caller and the home say; None says nothing."""
    return max((rule for rule in rules if rule is not None), key=_STRICT.index, default="allowed")


def may_leave(rule: Egress, upstream: Upstream) -> bool:
    """Whether this upstream may be asked at all: under `never` only one that is inside."""
    return rule != "never" or upstream.inside


class Gate:
    """The gate of a server. Raises InputError for settings with which nothing could be looked for."""

    def __init__(self, privacy: Privacy) -> None:
        self._detectors = Detectors(privacy)

    def open(self) -> None:
        """Load what takes time to load; in a thread. Raises InputError where it is not installed."""
        self._detectors.open()

    def clearance(self, rule: Egress) -> Clearance:
        """For one request under this rule."""
        return Clearance(rule, self._detectors)


class Clearance:
    """What may leave of one request under a rule, and how what was held back is put back into its answer.

    `egress` tells what has left, for the record: None where nothing was held back and nothing had to be.
    """

    def __init__(self, rule: Egress, detectors: Detectors) -> None:
        self.rule = rule
        self.egress: Literal["redacted"] | None = None
        self._detectors = detectors
        self._redaction: Redaction | None = None

    async def leaving(self, name: str, upstream: Upstream, body: bytes, path: str = "") -> Cleared:
        """The body that this upstream may get. Raises Denied where it may get none; an upstream `inside` gets all.

        The same value keeps its placeholder when several upstreams are asked one after the other.
        """
        self.egress = None
        if self.rule == "allowed" or upstream.inside:
            return Cleared(body)
        if self.rule != "redacted":
            raise Denied(f"this request may not leave for upstream {name!r} (egress = {self.rule!r})")
        self._redaction = self._redaction or Redaction(self._detectors)
        try:
            if self._detectors.slow or len(body) > INLINE_BYTES:
                cleared = await asyncio.to_thread(_redacted, self._redaction, body, path)
            else:
                cleared = _redacted(self._redaction, body, path)
        except CannotRedact as error:
            raise Denied(f"this request may not leave for upstream {name!r} (egress = 'redacted'): {error}") from error
        except Exception as error:  # the boundary of detectors: what cannot be looked into does not leave
            raise Denied(
                f"this request may not leave for upstream {name!r} (egress = 'redacted'): "
                f"a detector failed ({type(error).__name__})"
            ) from error
        self.egress = "redacted"
        return cleared

    def passing(self, name: str, upstream: Upstream, upload: Upload) -> ClearedUpload:
        """An upload that this upstream may get. Raises Denied unless all may leave: nobody can look into it."""
        self.egress = None
        if self.rule == "allowed" or upstream.inside:
            return ClearedUpload(upload)
        raise Denied(
            f"this request may not leave for upstream {name!r} (egress = {self.rule!r}): its body is not looked into"
        )

    def headers(self, headers: RawHeaders) -> RawHeaders:
        """The caller's headers that leave with the body cleared last."""
        if self.egress is None:
            return headers
        return [header for header in headers if self._names_nobody(*header)]

    def _names_nobody(self, name: bytes, value: bytes) -> bool:
        if name not in _SENT and not name.startswith(_SENT_OF):
            return False
        return name.startswith(_CREDENTIALS) or not self._detectors.forms(value.decode("latin-1"))

    def back(self, *, events: bool) -> Turning | None:
        """What restores the caller's own words in an answer, an event stream or whole; None: nothing was held back."""
        if self.egress is None or self._redaction is None or not self._redaction.values:
            return None
        values = dict(self._redaction.values)
        return EventStream(values) if events else WholeAnswer(values)


def _redacted(redaction: Redaction, body: bytes, path: str) -> Cleared:
    redaction.path(path)
    return Cleared(redaction.body(body) if body else body)
