"""What money alone asks for, and what was decided: what the judgement's parts tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from suffice.plan.result import Architecture, Turning, Verdict

MONEY = "money"
"""What decided, where no rule did."""


@dataclass(frozen=True)
class Money:
    """What money asks for: `small` is the architecture with a small model that it compares with the frontier, `chance`
    the share of the draws in which that is the cheaper one, `clear` whether they agree; for "not yet", `later` is the
    month, with how sure it is."""

    small: Architecture
    asks: Verdict
    clear: bool
    chance: float
    later: Turning | None = None

    @property
    def from_month(self) -> int | None:
        """For "not yet": the month."""
        return self.later.month if self.later is not None else None


@dataclass(frozen=True)
class Decision:
    """The verdict, and what decided: `MONEY` or a rule's name."""

    verdict: Verdict
    then: Architecture | None
    from_month: int | None
    by: str
