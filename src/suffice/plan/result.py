"""What a plan says: what `suffice plan --json` prints, the report shows and the console draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from suffice.plan.scenario import Band, Source

Architecture = Literal["frontier", "hybrid", "self_hosted"]
"""The frontier alone; a small model that asks the frontier when unsure; the small model alone."""
Verdict = Literal["frontier", "hybrid", "self_hosted", "not_yet"]
"""`frontier` means: don't. `not_yet`: the frontier now, another architecture from a month on that the plan names."""


Sources = Mapping[str, tuple[Source, str]]
"""Of inputs ("small.escalated_share"): where each came from and a note ("62 days of records")."""


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """One month of one architecture, in US dollars: what is paid, part by part, and all since the start."""

    month: int  # 1 is the first
    tokens_per_day: Band
    usd: Band
    cumulative_usd: Band
    parts: dict[str, Band]  # `usd` in parts: frontier, audits, hardware, operations, engineers, ...


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """One input, all others at their points: what the saving of the chosen architecture is at its low and its high,
    and the value at which another architecture becomes the cheapest; None: at no value that can be."""

    input: str  # "small.escalated_share"
    band: Band
    saving_usd_at_low: float
    saving_usd_at_high: float
    flips_at: float | None
    flips_to: Architecture | None


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that held: what it asks for, why, and how strong it is. Binding ones come before money."""

    rule: str  # "edge", "residency", "p99", "volume", "narrow", ...
    says: Architecture | Literal["not_yet"]
    binding: bool
    why: str


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """One input as the plan used it."""

    input: str
    band: Band | None
    value: str | None  # where it is no number
    unit: str
    source: Source
    note: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A claim recomputed: whether it holds, in one sentence, and for each input the value that would make it true."""

    claim: str
    claimed: float
    computed: Band
    unit: str
    holds: bool
    told: str
    would_make_it_true: dict[str, float]


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """When the hybrid has paid back what it cost to build, and from which volume on it ever does. None: not at all
    within what was looked at. `told`: in a few sentences; `chance`: the share of draws in which it pays within the
    months of the plan. `rule_of_thumb`: "8,000 conversations a day or $500 a month", and under which assumptions."""

    month: Band | None
    tokens_per_day: float | None
    requests_per_day: float | None
    usd_per_month: float | None
    told: str
    chance: float = 0.0
    rule_of_thumb: str = ""


class Turning(msgspec.Struct, frozen=True, kw_only=True):
    """A month (1 is the first) from which on something is so at the points; by draws the 5th and 95th percentile of
    that month (None: in none of the plan's months), and the share of draws in which it is so at `month`, and in any of
    the plan's months."""

    month: int
    low: int | None
    high: int | None
    chance: float
    within: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the arithmetic found, before anybody judged: US dollars by architecture, as in `Plan`.

    `saving_usd` against the frontier over all months, building included, over the same draws (a low above 0 is sure);
    `cheaper_chance`: the share of draws in which that is above 0.
    `running_cheaper_from`: the first month from which on running it costs less than the frontier, at the points, in
    all months that follow. `worth_building_from`: the first month in which a start, all else as it is then, is paid
    back within as many months as the plan has. None: in none of the plan's months.
    """

    monthly_usd: dict[Architecture, Band]
    once_usd: dict[Architecture, Band]
    year_usd: dict[Architecture, Band]
    usd_per_mtok: dict[Architecture, Band]
    months: dict[Architecture, tuple[Month, ...]]
    tokens_per_day: tuple[Band, ...]  # by month
    requests_per_day: tuple[Band, ...]
    break_even: BreakEven
    saving_usd: dict[Architecture, Band]
    cheaper_chance: dict[Architecture, float]
    running_cheaper_from: dict[Architecture, Turning | None]
    worth_building_from: dict[Architecture, Turning | None]


class TaskLine(msgspec.Struct, frozen=True, kw_only=True):
    """One task: US dollars a month now, as if the frontier answered all, with its certified release, with the next
    rung. The lines and what belongs to no task add up to the bill."""

    task: str
    requests_per_month: float
    tokens_per_month: float
    usd_now: Band
    usd_frontier: Band
    usd_certified: Band | None
    usd_next: Band | None
    release: str | None
    escalated_share: Band | None
    next_rung: str | None
    note: str = ""


class Contradiction(msgspec.Struct, frozen=True, kw_only=True):
    """Two things that were said, or two rules that fired, and do not agree: shown, with which one the plan follows."""

    between: tuple[str, str]
    told: str
    followed: str | None


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """A mistake that the inputs show: which, and what to do instead."""

    mistake: str
    told: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan.

    `monthly_usd` is what the first month costs to run (an engineer's upkeep and retraining included, what it takes to
    build not: that is `once_usd`); `year_usd` is all of `months`, building included. `told` says what to do and why in
    one or two sentences; `from_month`: for "not_yet", the first month in which `then` is cheaper or asked for.
    """

    name: str
    verdict: Verdict
    told: str
    tier: str
    then: Architecture | None
    from_month: int | None
    monthly_usd: dict[Architecture, Band]
    once_usd: dict[Architecture, Band]
    year_usd: dict[Architecture, Band]
    usd_per_mtok: dict[Architecture, Band]
    months: dict[Architecture, tuple[Month, ...]]
    impossible: dict[Architecture, str]  # architectures that a binding rule excludes, and why
    break_even: BreakEven
    rules: tuple[Fired, ...]
    contradictions: tuple[Contradiction, ...]
    sensitivity: tuple[Flip, ...]
    warnings: tuple[Warned, ...]
    checks: tuple[Check, ...]
    assumptions: tuple[Assumption, ...]
    tasks: tuple[TaskLine, ...]
