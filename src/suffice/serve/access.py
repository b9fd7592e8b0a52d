"""Who asks, and what they may: virtual keys, their limits and budgets."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from suffice.core.types import Egress
from suffice.serve.edges import Refused


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `name` is the virtual key's, None where the gateway asks for none."""

    name: str | None = None
    egress: Egress | None = None
    admin: bool = False


ANYONE = Caller()


class Access:
    """The door. All methods belong to the event loop."""

    def admit(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who this is. Raises Refused (401) for nobody we know."""
        return ANYONE

    def admit_admin(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The administrator with this key. Raises Refused: 401 for anyone else, 403 where no admin key exists."""
        raise Refused("no admin key exists: `suffice keys create NAME --admin` makes one", 403, "no_admin_key")

    def allow(self, caller: Caller, model: str, task: str | None) -> None:
        """Raises Refused where this caller may not ask this model or task (403), or not now (429)."""
