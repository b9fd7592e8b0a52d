"""What checks of claims share: recomputing at a claim's volume, solving for what would make it true, telling it."""

from __future__ import annotations

import numpy as np

from suffice.plan import solve, wording
from suffice.plan.costs import ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Check
from suffice.plan.scenario import Band, Claim
from suffice.plan.solve import PRICE, VOLUME
from suffice.plan.uncertain import band, draws, points

ROUNDED = 0.05
"""What people say is rounded: so far off it still holds."""

MIX_UPS = (
    (365 / 12, "the days of a month: one of the two takes a month for a day"),
    (12.0, "the months of a year: one of the two takes a year for a month"),
    (7.0, "the days of a week"),
    (24.0, "the hours of a day"),
    (1_000.0, "a thousand: thousands taken for millions, or a price per thousand tokens for one per million"),
    (1_000_000.0, "a million: a price per token taken for one per million"),
)
"""Ratios between two sums that tell how they came apart, by the commonest slips of units."""

SLIP = 0.03
"""A ratio this close to a slip of units is told to be one."""

LEVERS = (
    "small.escalated_to_mean_tokens",
    "small.escalated_to_frontier_price",
    "small.escalated_share",
    "frontier.batch_share",
    PRICE,
    VOLUME,
)
"""The inputs that are solved for, one at a time; which of them a claim is about is for the reader to say."""


def at_its_volume(inputs: Inputs, claim: Claim) -> Inputs:
    """The inputs at the volume that a claim was made of; the scenario's where it names none."""
    if claim.tokens_per_day is not None:
        return solve.volume_of(inputs, VOLUME, claim.tokens_per_day)
    return inputs


def mtok_per_month(inputs: Inputs) -> float:
    """Million tokens of the first month."""
    return solve.value_of(inputs, VOLUME) * inputs.days_per_month / 1e6


def computed_band(inputs: Inputs, found: solve.Found, seed: int) -> Band:
    """What (D,) of the first month come to, over the draws and at the points."""
    drawn = found(ledger(inputs, draws(inputs, seed), 1))
    return band(drawn[:, None], np.broadcast_to(found(ledger(inputs, points(inputs), 1)), (1,)))[0]


def within(claimed: float, computed: Band) -> bool:
    """Whether a claim lies within a band, rounding allowed for."""
    return computed.low * (1 - ROUNDED) <= claimed <= computed.high * (1 + ROUNDED)


def would_be(inputs: Inputs, claim: Claim, found: solve.Found, claimed: float) -> dict[str, float]:
    """For each lever the value, all others at their points, that makes the claim true; without those that cannot."""
    levers = LEVERS if claim.of == "hybrid" else (PRICE, VOLUME, "frontier.batch_share")
    solved = {name: solve.root(inputs, name, lambda shown: found(shown) - claimed, 1) for name in levers}
    return {name: value for name, value in solved.items() if value is not None}


def alone(true: dict[str, float]) -> str:
    """What would make it true, one input at a time."""
    if not true:
        return "no one input makes it true within what can be"
    return f"one of these alone would make it true: {listed(true)}"


def listed(values: dict[str, float]) -> str:
    """Inputs and values, as a list in a sentence."""
    return "; ".join(f"{wording.called(name)} {wording.value_of(name, value)}" for name, value in values.items())


def slip(one: float, other: float) -> str:
    """The slip of units that a ratio gives away, as the rest of a sentence."""
    if not (one > 0 and other > 0):
        return ""
    apart = max(one, other) / min(one, other)
    near = [told for ratio, told in MIX_UPS if abs(apart / ratio - 1) <= SLIP]
    return f", which is {near[0]}" if near else ""


def named(claim: Claim) -> str:
    """What a claim is called."""
    return claim.said or f"of {wording.NAMES[claim.of]}"


def checked(
    claim: Claim, key: str, claimed: float, computed: Band, unit: str, holds: bool, told: str, true: dict[str, float]
) -> Check:
    """A check of one figure of a claim."""
    name = f"{named(claim)}: {key}"
    return Check(
        claim=name, claimed=claimed, computed=computed, unit=unit, holds=holds, told=told, would_make_it_true=true
    )


def bare(unit: str) -> str:
    """A unit beside a figure that has its dollar sign."""
    return unit.removeprefix("USD ")
