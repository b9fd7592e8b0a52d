"""Claims of when and from which volume on it pays: against the solved break-even and the table of volumes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from suffice.plan import rules, solve, wording
from suffice.plan.breakeven import LOOKED_AT, PaysFrom, paid_back, pays_from, saving
from suffice.plan.claim_tools import LEVERS, ROUNDED, alone, bare, checked, listed, named
from suffice.plan.costs import Ledger, ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Check, Figures
from suffice.plan.scenario import Band, Claim, sure
from suffice.plan.solve import PRICE, VOLUME
from suffice.plan.uncertain import HIGH, LOW, draws, points
from suffice.plan.units import Plain


def pays(inputs: Inputs, claim: Claim, figures: Figures) -> Iterator[Check]:
    """From which volume or bill on it is said to pay, against the solved one."""
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
        told = f"{named(claim)}: it was said to pay from {form(claimed)} {bare(unit)} on; {solved}"
        true = {} if found is None else _would_pay(inputs, claim, of, claimed)
        if holds:
            told += f", resting on {listed({name: solve.value_of(inputs, name) for name in true})}." if true else "."
        else:
            told += f"; {alone(true)}. {figures.break_even.rule_of_thumb}"
        band = sure(computed if computed is not None else 0.0)
        yield checked(claim, key, claimed, band, unit, holds, told, {} if holds else true)
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
        f"{named(claim)}: a bill of {wording.usd(usd)} a month is {wording.count(tokens)} tokens a day at "
        f"{wording.usd(price)} per million: the table of volumes says frontier up to {wording.count(tier.up_to)} "
        f"tokens a day, and {wording.usd(low)} to {wording.usd(high)} a month there; at that price the tier ends at "
        f"{wording.usd(ends)} a month. A table by tokens and a rule by dollars agree at one price only, "
        f"{wording.usd(usd / (tier.up_to * inputs.days_per_month) * 1e6)} per million"
    )
    true = {PRICE: usd / (tier.up_to * inputs.days_per_month) * 1e6}
    yield checked(
        claim, "break_even_usd_per_month, against the volume tiers", usd, Band(low, ends, high), "USD a month", False,
        f"{told}.", true,
    )  # fmt: skip


def months(inputs: Inputs, claim: Claim, claimed: float, seed: int) -> Check:
    """When it is said to have paid back what it took to build."""
    drawn = paid_back(ledger(inputs, draws(inputs, seed), LOOKED_AT), claim.of)
    point = float(paid_back(ledger(inputs, points(inputs), LOOKED_AT), claim.of)[0])
    low, high = (float(each) for each in np.quantile(drawn, (LOW, HIGH), method="inverted_cdf"))
    never = float(LOOKED_AT)
    computed = Band(min(low, point, never), min(point, never), min(max(high, point), never))
    holds = bool(np.isfinite(point)) and computed.low * (1 - ROUNDED) <= claimed  # "within": sooner is as true
    levers = (*LEVERS, "work.engineer_weeks")
    found = {} if holds else {n: solve.root(inputs, n, _paid_by(claim, claimed), LOOKED_AT) for n in levers}
    true = {name: value for name, value in found.items() if value is not None}
    said = "a month" if claimed == 1 else f"{claimed:g} months"
    told = f"{named(claim)}: it was said to pay back within {said}; recomputed it "
    if np.isfinite(point):
        late = f"{computed.high:.1f}" if np.isfinite(high) else f"more than {LOOKED_AT}"
        told += f"takes {computed.point:.1f} ({computed.low:.1f} to {late})"
    else:
        told += f"does not within {LOOKED_AT}"
    told += "" if holds else f"; {alone(true)}"
    return checked(claim, "break_even_months", claimed, computed, "months", holds, f"{told}.", true)


def _paid_by(claim: Claim, months: float) -> solve.Found:
    """Above 0: paid back before so many months. A month begun counts by its share."""
    whole, part = divmod(min(months, LOOKED_AT - 1.0), 1.0)

    def left(shown: Ledger) -> Plain:
        saved = shown.usd("frontier") - shown.running(claim.of)
        begun = saved[:, int(whole)] * part
        return np.asarray(saved[:, : int(whole)].sum(axis=1) + begun - shown.once(claim.of))

    return left
