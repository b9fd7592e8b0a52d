"""What money alone asks for, and what was decided: what the judgement's parts tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from suffice.plan.result import Architecture, Verdict

MONEY = "money"
"""What decided, where no rule did."""


@dataclass(frozen=True)
class Money:
    """What money asks for: `small` is the architecture with a small model that it compares with the frontier, `chance`
    the share of the draws in which that is the cheaper one, `clear` whether they agree."""

    small: Architecture
    asks: Verdict
    from_month: int | None
    clear: bool
    chance: float


@dataclass(frozen=True)
class Decision:
    """The verdict, and what decided: `MONEY` or a rule's name."""

    verdict: Verdict
    then: Architecture | None
    from_month: int | None
    by: str
