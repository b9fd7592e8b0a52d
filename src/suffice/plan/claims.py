"""What others say it costs, recomputed: whether it holds, what does not agree with itself, and what would make it true.

All by general rules: a cost against the arithmetic, a price against a volume and a bill, a ratio against two bills, two
prices of one thing against each other, tokens against requests, a break-even against the solved one and against the
table of volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from suffice.plan import rules, solve, wording
from suffice.plan.breakeven import PaysFrom, pays_from, saving
from suffice.plan.costs import Ledger, ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Check, Figures
from suffice.plan.scenario import Band, Claim, sure
from suffice.plan.solve import PRICE, VOLUME
from suffice.plan.uncertain import band, draws, points
from suffice.plan.units import Plain

ROUNDED = 0.05
"""What people say is rounded: so far off it still holds."""

PLAUSIBLE_TOKENS = (20.0, 1_000_000.0)
"""Of one request: below, there is no room for an instruction and a sentence; above, no model reads it."""

USUAL_TOKENS = 300.0
"""Of a short text with its instruction, for saying which volume would be plausible."""

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


def check(inputs: Inputs, claims: tuple[Claim, ...], figures: Figures, seed: int) -> tuple[Check, ...]:
    """All claims, and what the volume itself says of a request. No claims: only what does not hold."""
    return (
        *_tokens_of_a_request(inputs, claims, figures),
        *(found for claim in claims for found in _of_one(inputs, claim, claims, seed)),
        *_prices_apart(inputs, claims),
        *(found for claim in claims for found in _break_even(inputs, claim, figures)),
    )


# ---------------------------------------------------------------------------------------------- one claim


def _of_one(inputs: Inputs, claim: Claim, claims: tuple[Claim, ...], seed: int) -> Iterator[Check]:
    there = _at_its_volume(inputs, claim)
    if claim.usd_per_month is not None:
        yield _cost(there, claim, claim.usd_per_month, seed)
    if claim.usd_per_mtok is not None:
        yield _price(there, claim, claim.usd_per_mtok, seed)
    if claim.times_cheaper is not None:
        yield from _ratio(there, claim, claim.times_cheaper, claims, seed)


def _cost(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    def usd(shown: Ledger) -> Plain:
        return shown.running(claim.of)[:, 0]

    computed = _computed(inputs, usd, seed)
    holds = _within(claimed, computed)
    true = {} if holds else _would_be(inputs, claim, usd, claimed)
    told = f"{_named(claim)}: {wording.usd(claimed)} a month was said; recomputed it is {wording.money(computed)}"
    if not holds:
        told += f"{_largest(inputs, claim, claimed)}; {_alone(true)}{_not_by_batches(inputs, claim, true)}"
    return _checked(claim, "usd_per_month", claimed, computed, "USD a month", holds, f"{told}.", true)


def _price(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    mtok = _mtok(inputs)
    if claim.usd_per_month is not None:  # it says both: its own sums come first
        computed = sure(claim.usd_per_month / mtok)
        told = f"{wording.usd(claim.usd_per_month)} a month for {wording.count(mtok * 1e6)} tokens"
        true = {VOLUME: claim.usd_per_month / claimed / inputs.days_per_month * 1e6} if claimed > 0 else {}
    else:
        computed = _computed(inputs, lambda shown: shown.running(claim.of)[:, 0] / mtok, seed)
        told = "recomputed it"
        true = {}
    holds = _within(claimed, computed)
    if not holds and claim.usd_per_month is None:
        true = _would_be(inputs, claim, lambda shown: _usd_per_mtok(inputs, claim, shown), claimed)
    told = f"{_named(claim)}: {wording.usd(claimed)} per million tokens was said; {told} is {wording.money(computed)}"
    told += "" if holds else f"{_slip(claimed, computed.point)}; {_alone(true)}"
    return _checked(
        claim, "usd_per_mtok", claimed, computed, "USD per million tokens", holds, f"{told}.", {} if holds else true
    )


def _ratio(inputs: Inputs, claim: Claim, claimed: float, claims: tuple[Claim, ...], seed: int) -> Iterator[Check]:
    """Times cheaper than the frontier: by what was said of both, else by the arithmetic."""
    own, key = _said_usd(inputs, claim), "times_cheaper"
    bills = [
        _said_usd(inputs, other) for other in claims if other.of == "frontier" and _same_volume(inputs, claim, other)
    ]
    said = [bill for bill in bills if bill is not None and own is not None and own > 0]
    for bill in said:
        assert own is not None
        holds = abs(bill / own - claimed) <= ROUNDED * claimed
        told = (
            f"{_named(claim)}: {claimed:g} times cheaper was said; {wording.usd(bill)} against {wording.usd(own)} is "
            f"{bill / own:.3g} times"
        )
        true = {} if holds else {f"{claim.of}.usd_per_month": bill / claimed, "frontier.usd_per_month": own * claimed}
        if not holds:
            told += f"; it would take {wording.usd(bill / claimed)} a month, or a bill of {wording.usd(own * claimed)}"
        yield _checked(claim, key, claimed, sure(bill / own), "times", holds, f"{told}.", true)
    if said:
        return

    def times(shown: Ledger) -> Plain:
        cost = shown.running(claim.of)[:, 0]
        return np.asarray(shown.usd("frontier")[:, 0] / np.maximum(cost, 1e-12))

    computed = _computed(inputs, times, seed)
    holds = _within(claimed, computed)
    true = {} if holds else _would_be(inputs, claim, times, claimed)
    told = f"{_named(claim)}: {claimed:g} times cheaper was said; recomputed it is {_times(computed)}"
    told += "" if holds else f"; {_alone(true)}"
    yield _checked(claim, key, claimed, computed, "times", holds, f"{told}.", true)


def _largest(inputs: Inputs, claim: Claim, claimed: float) -> str:
    """The part that is more than the claim by itself, if there is one."""
    parts = ledger(inputs, points(inputs), 1).parts[claim.of]
    usd, part = max(
        (float(np.broadcast_to(each.values, (1, 1))[0, 0]), part) for part, each in parts.items() if part != "building"
    )
    if claim.of == "frontier" or usd <= claimed * (1 + ROUNDED):
        return ""
    what = part
    if part == "frontier":
        numbers = inputs.numbers
        share = numbers["small.escalated_share"].band.point * numbers["small.escalated_to_mean_tokens"].band.point
        what = f"what escalates ({wording.percent(min(share, 1.0))} of the frontier's tokens)"
    return f"; {what} alone is {wording.usd(usd)}, {usd / claimed:.2g} times as much" if claimed > 0 else ""


# ---------------------------------------------------------------------------------------------- claims together


def _prices_apart(inputs: Inputs, claims: tuple[Claim, ...]) -> Iterator[Check]:
    """Bills said of one architecture that mean different prices of a token."""
    priced = [(claim, price) for claim in claims if (price := _said_price(inputs, claim)) is not None and price > 0]
    listed = solve.value_of(inputs, PRICE)
    for (one, first), (other, second) in combinations(priced, 2):
        apart = max(first, second) / min(first, second)
        if one.of != other.of or apart <= 1 + ROUNDED:
            continue
        told = (
            f"{_named(one)}: {wording.usd(first)} per million tokens; {_named(other)}: {wording.usd(second)}; "
            f"they are {apart:.3g} times apart{_slip(first, second)}"
        )
        if one.of == "frontier" and listed > 0:
            nearer = min((abs(np.log(price / listed)), price) for price in (first, second))[1]
            told += f"; the price in this plan, {wording.usd(listed)}, is nearer to {wording.usd(nearer)}"
        volume = _mtok(_at_its_volume(inputs, one)) * 1e6 / inputs.days_per_month
        true = {VOLUME: volume * first / second}
        told += (
            f"; the first would agree at {wording.count(true[VOLUME])} tokens a day instead of {wording.count(volume)}"
        )
        yield _checked(
            one,
            "usd_per_mtok, against another claim",
            first,
            sure(second),
            "USD per million tokens",
            False,
            f"{told}.",
            true,
        )


def _tokens_of_a_request(inputs: Inputs, claims: tuple[Claim, ...], figures: Figures) -> Iterator[Check]:
    """Volumes that leave a request next to no tokens, or more than a model reads."""
    low, high = PLAUSIBLE_TOKENS
    told_of = [("the volume", figures.tokens_per_day[0].point, figures.requests_per_day[0].point)]
    told_of += [
        (_named(claim), claim.tokens_per_day, claim.requests_per_day)
        for claim in claims
        if claim.tokens_per_day is not None and claim.requests_per_day is not None
    ]
    for name, tokens, requests in told_of:
        each = tokens / requests if requests > 0 else 0.0
        if requests <= 0 or low <= each <= high:
            continue
        much = "not enough for an instruction and a sentence" if each < low else "more than a model reads at once"
        true = {VOLUME: requests * USUAL_TOKENS, "volume.requests_per_day": tokens / USUAL_TOKENS}
        told = (
            f"{name}: {wording.count(tokens)} tokens over {wording.count(requests)} requests a day are "
            f"{wording.count(each)} tokens a request, {much}; at {USUAL_TOKENS:.0f} a request it would be "
            f"{wording.count(true[VOLUME])} tokens, or {wording.count(tokens / USUAL_TOKENS)} requests, a day."
        )
        yield Check(
            claim=f"{name}: tokens a request", claimed=each, computed=Band(low, USUAL_TOKENS, high),
            unit="tokens a request", holds=False, told=told, would_make_it_true=true,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------- break-even


def _break_even(inputs: Inputs, claim: Claim, figures: Figures) -> Iterator[Check]:
    said = (
        ("break_even_usd_per_month", "usd_per_month", "USD a month", wording.usd),
        ("break_even_requests_per_day", "requests_per_day", "requests a day", wording.count),
        ("break_even_tokens_per_day", "tokens_per_day", "tokens a day", wording.count),
    )
    for key, of, unit, form in said:
        claimed = getattr(claim, key)
        if claimed is None:
            continue
        found = pays_from(inputs, claim.of)
        computed = getattr(found, of) if found else None
        holds = computed is not None and abs(computed - claimed) <= 2 * ROUNDED * claimed
        solved = f"solved it is {form(computed)}" if computed is not None else "no volume makes the difference"
        told = f"{_named(claim)}: it was said to pay from {form(claimed)} {_bare(unit)} on; {solved}"
        true = {} if found is None else _would_pay(inputs, claim, of, claimed)
        if holds:
            told += f", resting on {_listed({name: solve.value_of(inputs, name) for name in true})}." if true else "."
        else:
            told += f"; {_alone(true)}. {figures.break_even.rule_of_thumb}"
        band = sure(computed if computed is not None else 0.0)
        yield _checked(claim, key, claimed, band, unit, holds, told, {} if holds else true)
    if claim.break_even_usd_per_month is not None:
        yield from _tier(inputs, claim, claim.break_even_usd_per_month)


def _would_pay(inputs: Inputs, claim: Claim, of: str, claimed: float) -> dict[str, float]:
    """What would have to be so for it to pay exactly from there on."""
    now = getattr(_today(inputs), of)
    there = solve.volume_of(inputs, VOLUME, solve.value_of(inputs, VOLUME) * claimed / now) if now > 0 else inputs
    levers = ["work.engineer_weeks", PRICE, "hardware.operations_usd_per_month", "small.escalated_share"]
    levers += [name for name in ("hardware.usd_per_hour", "hardware.usd_per_month") if name in inputs.numbers]
    solved = {name: solve.root(there, name, lambda shown: saving(shown, claim.of)) for name in levers}
    return {name: value for name, value in solved.items() if value is not None}


def _today(inputs: Inputs) -> PaysFrom:
    shown = ledger(inputs, points(inputs), 1)
    tokens, requests = shown.tokens_per_day.values, shown.requests_per_day.values
    return PaysFrom(float(tokens[0, 0]), float(requests[0, 0]), float(shown.usd("frontier")[0, 0]))


def _tier(inputs: Inputs, claim: Claim, usd: float) -> Iterator[Check]:
    """A break-even that lies where the table of volumes still says frontier."""
    price = solve.value_of(inputs, PRICE)
    tokens = usd / price * 1e6 / inputs.days_per_month if price > 0 else 0.0
    tier = rules.tier_of(tokens)
    if tokens <= 0 or tier.says != "frontier":
        return
    low, high = tier.usd_per_month
    ends = tier.up_to * inputs.days_per_month * price / 1e6
    told = (
        f"{_named(claim)}: a bill of {wording.usd(usd)} a month is {wording.count(tokens)} tokens a day at "
        f"{wording.usd(price)} per million: the table of volumes says frontier up to {wording.count(tier.up_to)} "
        f"tokens a day, and {wording.usd(low)} to {wording.usd(high)} a month there; at that price the tier ends at "
        f"{wording.usd(ends)} a month. A table by tokens and a rule by dollars agree at one price only, "
        f"{wording.usd(usd / (tier.up_to * inputs.days_per_month) * 1e6)} per million"
    )
    true = {PRICE: usd / (tier.up_to * inputs.days_per_month) * 1e6}
    yield _checked(
        claim, "break_even_usd_per_month, against the volume tiers", usd, Band(low, ends, high), "USD a month", False,
        f"{told}.", true,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- parts


def _at_its_volume(inputs: Inputs, claim: Claim) -> Inputs:
    if claim.tokens_per_day is not None:
        return solve.volume_of(inputs, VOLUME, claim.tokens_per_day)
    return inputs


def _mtok(inputs: Inputs) -> float:
    return solve.value_of(inputs, VOLUME) * inputs.days_per_month / 1e6


def _usd_per_mtok(inputs: Inputs, claim: Claim, shown: Ledger) -> Plain:
    return np.asarray(shown.running(claim.of)[:, 0] / (shown.tokens_per_day.values[:, 0] * inputs.days_per_month / 1e6))


def _said_usd(inputs: Inputs, claim: Claim) -> float | None:
    if claim.usd_per_month is not None:
        return claim.usd_per_month
    return claim.usd_per_mtok * _mtok(_at_its_volume(inputs, claim)) if claim.usd_per_mtok is not None else None


def _said_price(inputs: Inputs, claim: Claim) -> float | None:
    if claim.usd_per_month is not None:
        mtok = _mtok(_at_its_volume(inputs, claim))
        return claim.usd_per_month / mtok if mtok > 0 else None
    return claim.usd_per_mtok


def _same_volume(inputs: Inputs, one: Claim, other: Claim) -> bool:
    first, second = _mtok(_at_its_volume(inputs, one)), _mtok(_at_its_volume(inputs, other))
    return abs(first - second) <= ROUNDED * max(first, second)


def _computed(inputs: Inputs, found: solve.Found, seed: int) -> Band:
    drawn = found(ledger(inputs, draws(inputs, seed), 1))
    return band(drawn[:, None], np.broadcast_to(found(ledger(inputs, points(inputs), 1)), (1,)))[0]


def _within(claimed: float, computed: Band) -> bool:
    return computed.low * (1 - ROUNDED) <= claimed <= computed.high * (1 + ROUNDED)


def _would_be(inputs: Inputs, claim: Claim, found: solve.Found, claimed: float) -> dict[str, float]:
    levers = LEVERS if claim.of == "hybrid" else (PRICE, VOLUME, "frontier.batch_share")
    solved = {name: solve.root(inputs, name, lambda shown: found(shown) - claimed, 1) for name in levers}
    return {name: value for name, value in solved.items() if value is not None}


def _alone(true: dict[str, float]) -> str:
    """What would make it true, one input at a time."""
    if not true:
        return "no one input makes it true within what can be"
    return f"one of these alone would make it true: {_listed(true)}"


def _listed(values: dict[str, float]) -> str:
    return "; ".join(f"{wording.called(name)} {wording.value_of(name, value)}" for name, value in values.items())


def _not_by_batches(inputs: Inputs, claim: Claim, true: dict[str, float]) -> str:
    """What is left at the batch price for all, where that is not enough."""
    if claim.of == "self_hosted" or "frontier.batch_share" in true:
        return ""
    least = solve.at(inputs, "frontier.batch_share", np.array([1.0]), 1).running(claim.of)
    return f"; the batch price for all of it would not, that is {wording.usd(float(least[0, 0]))}"


def _slip(one: float, other: float) -> str:
    """The slip of units that a ratio gives away, as the rest of a sentence."""
    if not (one > 0 and other > 0):
        return ""
    apart = max(one, other) / min(one, other)
    near = [told for ratio, told in MIX_UPS if abs(apart / ratio - 1) <= SLIP]
    return f", which is {near[0]}" if near else ""


def _named(claim: Claim) -> str:
    return claim.said or f"of {wording.NAMES[claim.of]}"


def _times(computed: Band) -> str:
    return wording.between(computed, lambda value: f"{value:.3g}") + " times"


def _bare(unit: str) -> str:
    return unit.removeprefix("USD ")


def _checked(
    claim: Claim, key: str, claimed: float, computed: Band, unit: str, holds: bool, told: str, true: dict[str, float]
) -> Check:
    name = f"{_named(claim)}: {key}"
    return Check(
        claim=name, claimed=claimed, computed=computed, unit=unit, holds=holds, told=told, would_make_it_true=true
    )
