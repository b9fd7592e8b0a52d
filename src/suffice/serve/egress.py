"""Egress: what of an exchange may leave for an upstream. The one gate on every way out.

`Upstreams.call` takes no other body than a `Cleared` one, and only this module makes them.
"""

from __future__ import annotations

from typing import NewType

from suffice.core.config import Upstream
from suffice.core.types import Egress
from suffice.serve.edges import Refused
from suffice.wire.dialect import Turning

Cleared = NewType("Cleared", bytes)
"""A body that may leave for the upstream it was cleared for."""
_STRICT: tuple[Egress, ...] = ("allowed", "redacted", "never")


class Denied(Refused):
    """The policy forbids that this request leaves."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 403, "egress_denied")


def strictest(*rules: Egress | None) -> Egress:
    """The strictest of what the task, the caller and the home say; None says nothing."""
    return max((rule for rule in rules if rule is not None), key=_STRICT.index, default="allowed")


class Clearance:
    """What may leave of one exchange under a rule, and how what was held back is put back into its answer."""

    def __init__(self, rule: Egress) -> None:
        self.rule = rule

    def leaving(self, name: str, upstream: Upstream, body: bytes) -> Cleared:
        """The body that this upstream may get. Raises Denied where it may get none; an upstream `inside` gets all."""
        if self.rule == "allowed" or upstream.inside:
            return Cleared(body)
        raise Denied(f"this request may not leave for upstream {name!r} (egress = {self.rule!r})")

    def back(self) -> Turning | None:
        """What restores the caller's own words in the answer; None where nothing was held back."""
        return None
