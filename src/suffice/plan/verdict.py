"""The judgement of a plan: which architecture, from when on, and what speaks against it.

What is read of `result.Figures` (A: please give these): `monthly_usd`, `once_usd`, `year_usd`, `usd_per_mtok`, `months`
as in `Plan`; `saving_usd: dict[Architecture, Band]`, what each architecture saves against the frontier over all months,
building included, low/point/high over the *same* draws (so its low > 0 means: sure); `break_even: BreakEven`.
`months[a][0].usd` may hold what it takes to build: `once_usd[a].point` of it is taken off for the running cost.
Which architecture `sensitivity` looks at: `judge` comes first, `Judged.then or Judged.verdict` is the chosen one.
"""

from __future__ import annotations

import msgspec

from suffice.plan.result import Architecture, Contradiction, Fired, Verdict, Warned


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a plan that is judgement, under the names it has there."""

    verdict: Verdict
    told: str
    tier: str
    then: Architecture | None
    from_month: int | None
    impossible: dict[Architecture, str]
    rules: tuple[Fired, ...]
    contradictions: tuple[Contradiction, ...]
    warnings: tuple[Warned, ...]
