"""What others say it costs, recomputed: whether it holds, what does not agree with itself, and what would make it true.

All by general rules: a cost against the arithmetic, a price against a volume and a bill, a ratio against two bills, two
prices of one thing against each other, tokens against requests, a break-even against the solved one and against the
table of volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from suffice.plan import solve, wording
from suffice.plan.claim_tools import (
    ROUNDED,
    alone,
    at_its_volume,
    checked,
    computed_band,
    mtok_per_month,
    named,
    slip,
    within,
    would_be,
)
from suffice.plan.claims_paying import months, pays
from suffice.plan.costs import Ledger, ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Check, Figures
from suffice.plan.scenario import Band, Claim, sure
from suffice.plan.solve import PRICE, VOLUME
from suffice.plan.uncertain import points
from suffice.plan.units import Plain

PLAUSIBLE_TOKENS = (20.0, 1_000_000.0)
"""Of one request: below, there is no room for an instruction and a sentence; above, no model reads it."""

USUAL_TOKENS = 300.0
"""Of a short text with its instruction, for saying which volume would be plausible."""


def check(inputs: Inputs, claims: tuple[Claim, ...], figures: Figures, seed: int) -> tuple[Check, ...]:
    """All claims, and what the volume itself says of a request. No claims: only what does not hold."""
    return (
        *_tokens_of_a_request(inputs, claims, figures),
        *(found for claim in claims for found in _of_one(inputs, claim, claims, seed)),
        *_prices_apart(inputs, claims),
        *(found for claim in claims for found in pays(inputs, claim, figures)),
    )


# ---------------------------------------------------------------------------------------------- one claim


def _of_one(inputs: Inputs, claim: Claim, claims: tuple[Claim, ...], seed: int) -> Iterator[Check]:
    there = at_its_volume(inputs, claim)
    if claim.usd_per_month is not None:
        yield _cost(there, claim, claim.usd_per_month, seed)
    if claim.usd_per_mtok is not None:
        yield _price(there, claim, claim.usd_per_mtok, seed)
    if claim.times_cheaper is not None:
        yield from _ratio(there, claim, claim.times_cheaper, claims, seed)
    if claim.saves_share is not None:
        yield _saves(there, claim, claim.saves_share, seed)
    if claim.break_even_months is not None:
        yield months(there, claim, claim.break_even_months, seed)


def _cost(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    def usd(shown: Ledger) -> Plain:
        return shown.running(claim.of)[:, 0]

    computed = computed_band(inputs, usd, seed)
    holds = within(claimed, computed)
    true = {} if holds else would_be(inputs, claim, usd, claimed)
    told = f"{named(claim)}: {wording.usd(claimed)} a month was said; recomputed it is {wording.money(computed)}"
    if not holds:
        told += f"{_largest(inputs, claim, claimed)}; {alone(true)}"
        told += _not_by_batches(inputs, claim, true) if claimed < computed.low else ""
    return checked(claim, "usd_per_month", claimed, computed, "USD a month", holds, f"{told}.", true)


def _price(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    mtok = mtok_per_month(inputs)
    if claim.usd_per_month is not None:  # it says both: its own sums come first
        computed = sure(claim.usd_per_month / mtok)
        told = f"{wording.usd(claim.usd_per_month)} a month for {wording.count(mtok * 1e6)} tokens"
        true = {VOLUME: claim.usd_per_month / claimed / inputs.days_per_month * 1e6} if claimed > 0 else {}
    else:
        computed = computed_band(inputs, lambda shown: shown.running(claim.of)[:, 0] / mtok, seed)
        told = "recomputed it"
        true = {}
    holds = within(claimed, computed)
    if not holds and claim.usd_per_month is None:
        true = would_be(inputs, claim, lambda shown: _usd_per_mtok(inputs, claim, shown), claimed)
    told = f"{named(claim)}: {wording.usd(claimed)} per million tokens was said; {told} is {wording.money(computed)}"
    told += "" if holds else f"{slip(claimed, computed.point)}; {alone(true)}"
    return checked(
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
            f"{named(claim)}: {claimed:g} times cheaper was said; {wording.usd(bill)} against {wording.usd(own)} is "
            f"{bill / own:.3g} times"
        )
        true = {} if holds else {f"{claim.of}.usd_per_month": bill / claimed, "frontier.usd_per_month": own * claimed}
        if not holds:
            told += f"; it would take {wording.usd(bill / claimed)} a month, or a bill of {wording.usd(own * claimed)}"
        yield checked(claim, key, claimed, sure(bill / own), "times", holds, f"{told}.", true)
    if said:
        return

    def times(shown: Ledger) -> Plain:
        cost = shown.running(claim.of)[:, 0]
        return np.asarray(shown.usd("frontier")[:, 0] / np.maximum(cost, 1e-12))

    computed = computed_band(inputs, times, seed)
    holds = within(claimed, computed)
    true = {} if holds else would_be(inputs, claim, times, claimed)
    told = f"{named(claim)}: {claimed:g} times cheaper was said; recomputed it is {_times(computed)}"
    told += "" if holds else f"; {alone(true)}"
    yield checked(claim, key, claimed, computed, "times", holds, f"{told}.", true)


def _saves(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    def share(shown: Ledger) -> Plain:
        bill = np.maximum(shown.usd("frontier")[:, 0], 1e-12)
        return np.asarray(1 - shown.running(claim.of)[:, 0] / bill)

    computed = computed_band(inputs, share, seed)
    holds = computed.low - ROUNDED / 2 <= claimed <= computed.high + ROUNDED / 2
    true = {} if holds else would_be(inputs, claim, share, claimed)
    shown = wording.between(computed, wording.percent)
    told = f"{named(claim)}: {wording.percent(claimed)} of the bill was said to be saved; recomputed it is {shown}"
    told += "" if holds else f"; {alone(true)}"
    return checked(claim, "saves_share", claimed, computed, "share of the bill", holds, f"{told}.", true)


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
            f"{named(one)}: {wording.usd(first)} per million tokens; {named(other)}: {wording.usd(second)}; "
            f"they are {apart:.3g} times apart{slip(first, second)}"
        )
        if one.of == "frontier" and listed > 0:
            nearer = min((abs(np.log(price / listed)), price) for price in (first, second))[1]
            told += f"; the price in this plan, {wording.usd(listed)}, is nearer to {wording.usd(nearer)}"
        volume = mtok_per_month(at_its_volume(inputs, one)) * 1e6 / inputs.days_per_month
        true = {VOLUME: volume * first / second}
        told += (
            f"; the first would agree at {wording.count(true[VOLUME])} tokens a day instead of {wording.count(volume)}"
        )
        yield checked(
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
    counted = inputs.numbers.get("volume.input_tokens_per_request")
    told_of = []
    if counted is None or counted.source != "measured":  # what records say of a request is no claim
        told_of.append(("the volume", figures.tokens_per_day[0].point, figures.requests_per_day[0].point))
    told_of += [
        (named(claim), claim.tokens_per_day, claim.requests_per_day)
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


# ---------------------------------------------------------------------------------------------- parts


def _usd_per_mtok(inputs: Inputs, claim: Claim, shown: Ledger) -> Plain:
    return np.asarray(shown.running(claim.of)[:, 0] / (shown.mtok_per_day() * inputs.days_per_month))


def _said_usd(inputs: Inputs, claim: Claim) -> float | None:
    if claim.usd_per_month is not None:
        return claim.usd_per_month
    return claim.usd_per_mtok * mtok_per_month(at_its_volume(inputs, claim)) if claim.usd_per_mtok is not None else None


def _said_price(inputs: Inputs, claim: Claim) -> float | None:
    if claim.usd_per_month is not None:
        mtok = mtok_per_month(at_its_volume(inputs, claim))
        return claim.usd_per_month / mtok if mtok > 0 else None
    return claim.usd_per_mtok


def _same_volume(inputs: Inputs, one: Claim, other: Claim) -> bool:
    first, second = mtok_per_month(at_its_volume(inputs, one)), mtok_per_month(at_its_volume(inputs, other))
    return abs(first - second) <= ROUNDED * max(first, second)


def _times(computed: Band) -> str:
    return wording.between(computed, lambda value: f"{value:.3g}") + " times"


def _not_by_batches(inputs: Inputs, claim: Claim, true: dict[str, float]) -> str:
    """What is left at the batch price for all, where that is not enough."""
    if claim.of == "self_hosted" or "frontier.batch_share" in true:
        return ""
    least = solve.at(inputs, "frontier.batch_share", np.array([1.0]), 1).running(claim.of)
    return f"; the batch price for all of it would not, that is {wording.usd(float(least[0, 0]))}"
