"""What a plan says: what `suffice plan --json` prints, the report shows and the console draws."""

from __future__ import annotations

from typing import Literal

import msgspec

from suffice.plan.scenario import Band, Source

Architecture = Literal["frontier", "hybrid", "self_hosted"]


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """One month of one architecture, in US dollars: what is paid, part by part, and all since the start."""

    month: int  # 1 is the first
    tokens_per_day: Band
    usd: Band
    cumulative_usd: Band
    parts: dict[str, Band]  # frontier, audits, hardware, operations, engineers, labels, retraining: their sum is `usd`


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
    within what was looked at. `told`: in one sentence."""

    month: Band | None
    tokens_per_day: float | None
    requests_per_day: float | None
    usd_per_month: float | None
    told: str


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
