"""When a hybrid has paid back what it took to build, and from which volume on it ever does: solved, not looked up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from suffice.plan import solve, wording
from suffice.plan.costs import Ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Architecture, BreakEven
from suffice.plan.scenario import Band
from suffice.plan.solve import VOLUME
from suffice.plan.uncertain import HIGH, LOW
from suffice.plan.units import Plain

LOOKED_AT = 60
"""Months: what has not paid back in five years does not."""

EVEN = 0.005
"""Two sums that differ by no more than this share are about even: people round."""

RULE_REQUESTS, RULE_USD = 8_000.0, 500.0
"""The rule of thumb that articles hand on: it pays from so many conversations a day, or so much a month, on."""


class PaysFrom(NamedTuple):
    """The volume from which on it pays within the months of the plan; US dollars: the frontier's bill there."""

    tokens_per_day: float
    requests_per_day: float
    usd_per_month: float


def break_even(inputs: Inputs, drawn: Ledger, point: Ledger) -> BreakEven:
    """`drawn` and `point` over at least `LOOKED_AT` months."""
    months, at_point = paid_back(drawn), float(paid_back(point)[0])
    low, high = np.quantile(months, (LOW, HIGH), method="inverted_cdf")
    month = None
    if np.isfinite(at_point):
        month = Band(min(float(low), at_point), at_point, min(max(float(high), at_point), float(LOOKED_AT)))
    chance = float(np.mean(months <= inputs.months))
    volume = pays_from(inputs)
    return BreakEven(
        month=month,
        tokens_per_day=volume.tokens_per_day if volume else None,
        requests_per_day=volume.requests_per_day if volume else None,
        usd_per_month=volume.usd_per_month if volume else None,
        told=f"{_told_month(inputs, point, month, float(high))} {_told_volume(inputs, volume)}",
        chance=chance,
        rule_of_thumb=rule_of_thumb(inputs, volume.usd_per_month if volume else None),
    )


def saving(shown: Ledger, architecture: Architecture = "hybrid") -> Plain:
    """What it saves against the frontier over all months of a ledger, building included, (D,)."""
    return np.asarray((shown.usd("frontier") - shown.usd(architecture)).sum(axis=1))


def paid_back(shown: Ledger, architecture: Architecture = "hybrid") -> Plain:
    """The month, with its fraction, in which the saving has paid what was paid once, (D,); infinite: in none.

    Looks at the months of the ledger, and at no more than `LOOKED_AT`.
    """
    once = shown.once(architecture)
    saved = np.cumsum(shown.usd("frontier") - shown.running(architecture), axis=1) - once[:, None]
    saved = np.concatenate([-once[:, None], saved], axis=1)[:, : LOOKED_AT + 1]
    row, paid = np.arange(len(saved)), (saved >= 0) & (np.arange(saved.shape[1]) > 0)
    after = np.argmax(paid, axis=1)
    before = saved[row, after - 1]
    step = saved[row, after] - before
    fraction = np.divide(-before, step, out=np.zeros_like(step), where=step > 0)
    return np.where(paid.any(axis=1), after - 1 + np.clip(fraction, 0.0, 1.0), np.inf)


def pays_from(inputs: Inputs, architecture: Architecture = "hybrid") -> PaysFrom | None:
    """None: at no volume, or at any."""
    tokens = solve.last_root(inputs, VOLUME, lambda shown: saving(shown, architecture))
    if tokens is None:
        return None
    there = solve.at(inputs, VOLUME, np.array([tokens]), 1)
    return PaysFrom(tokens, float(there.requests_per_day.values[0, 0]), float(there.usd("frontier")[0, 0]))


def _told_month(inputs: Inputs, point: Ledger, month: Band | None, high: float) -> str:
    once = float(point.once("hybrid")[0])
    if not once:
        kept, own = (float(point.usd(each)[:, : inputs.months].sum()) for each in ("frontier", "hybrid"))
        if abs(kept - own) <= EVEN * kept:
            return "A hybrid takes nothing to build, and costs about as much as the frontier."
        cheaper = month is not None and month.point == 0
        return f"A hybrid takes nothing to build, and is {'cheaper' if cheaper else 'dearer'} from the first month on."
    built = f"what it takes to build ({wording.usd(once)})"
    if month is None:
        return f"At this volume a hybrid does not pay back {built} within {LOOKED_AT} months."
    late = f"{month.high:.1f}" if np.isfinite(high) else f"more than {LOOKED_AT}"
    return f"A hybrid pays back {built} after {month.point:.1f} months ({month.low:.1f} to {late})."


def _told_volume(inputs: Inputs, volume: PaysFrom | None) -> str:
    if volume is None:
        lasting = solve.at(inputs, VOLUME, np.array([solve.value_of(inputs, VOLUME)]))
        if float(np.broadcast_to(saving(lasting), (1,))[0]) >= 0:
            return f"It pays within {inputs.months} months at any volume."
        return f"No volume makes it pay within {inputs.months} months: each token costs more than it saves."
    return (
        f"Within {inputs.months} months it pays from {wording.count(volume.tokens_per_day)} tokens a day on "
        f"({wording.count(volume.requests_per_day)} requests a day, a frontier bill of "
        f"{wording.usd(volume.usd_per_month)} a month)."
    )


def rule_of_thumb(inputs: Inputs, pays_from_usd: float | None) -> str:
    """What "8,000 conversations a day or $500 a month" takes for granted, against the inputs at hand."""
    now = solve.at(inputs, VOLUME, np.array([solve.value_of(inputs, VOLUME)]), 1)
    bill, requests = float(now.usd("frontier")[0, 0]), float(now.requests_per_day.values[0, 0])
    each = bill / (requests * inputs.days_per_month)
    of_rule = RULE_USD / (RULE_REQUESTS * inputs.days_per_month)
    rule = f"The rule of thumb of {RULE_REQUESTS:,.0f} conversations a day or ${RULE_USD:,.0f} a month"
    one = f"{rule} is one rule only where a conversation costs ${of_rule:.4f} at the frontier (here ${each:.4f})"
    if bill <= 0:
        return f"{one}."
    kept, own = _at_bill(inputs, RULE_USD / bill)
    holds = "and does" if own <= kept * (1 + 1e-6) else "and does not"
    here = f"; here it pays from {wording.usd(pays_from_usd)} a month on" if pays_from_usd is not None else ""
    return (
        f"{one}; ${RULE_USD:,.0f} holds where hardware, people and building, spread over {inputs.months} months, "
        f"come to at most {wording.usd(kept)} a month, {holds} here, where they come to {wording.usd(own)}{here}."
    )


def _at_bill(inputs: Inputs, times: float) -> tuple[float, float]:
    """At so many times the volume: the US dollars a month, on average over the months, that the frontier no longer
    gets, and those that the small model costs."""
    shown = solve.at(inputs, VOLUME, np.array([solve.value_of(inputs, VOLUME) * times]))
    hybrid = shown.parts["hybrid"]
    asked = float((hybrid["frontier"] + hybrid["audits"]).values.mean())
    return float(shown.usd("frontier").mean()) - asked, float(shown.usd("hybrid").mean()) - asked
