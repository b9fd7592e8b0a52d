"""A plan, from top to bottom.

scenario -> inputs -> draws -> what each architecture costs, month by month -> when it pays
    -> the judgement -> what would change it -> what others claim, recomputed
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from suffice.plan import claims, inputs, verdict
from suffice.plan.breakeven import LOOKED_AT, break_even
from suffice.plan.costs import ARCHITECTURES, Drawn, Ledger, ledger, standing_by
from suffice.plan.inputs import Inputs
from suffice.plan.prices import Prices
from suffice.plan.result import Architecture, Assumption, Figures, Month, Plan, Sources, TaskLine, Turning
from suffice.plan.scenario import Band, Scenario
from suffice.plan.sensitivity import sensitivity
from suffice.plan.uncertain import HIGH, LOW, band, draws, points
from suffice.plan.units import Plain


def plan(
    scenario: Scenario,
    *,
    seed: int = 0,
    measured: Sources | None = None,
    prices: Prices | None = None,
    tasks: tuple[TaskLine, ...] = (),
) -> Plan:
    """The plan of a scenario. Same arguments, same plan.

    `measured`: which inputs came from elsewhere than the scenario, and from where. `prices`: the table alone where left
    out. Raises InputError, naming table and key, for a scenario that lacks an input or contradicts itself.
    """
    resolved = inputs.resolve(scenario, prices or Prices({}), measured)
    drawn = draws(resolved, seed)
    counted = figures(resolved, drawn)
    judged = verdict.judge(scenario, counted, measured)
    chosen = judged.then or ("frontier" if judged.verdict == "not_yet" else judged.verdict)
    return Plan(
        name=scenario.name,
        verdict=judged.verdict,
        told=judged.told,
        tier=judged.tier,
        then=judged.then,
        from_month=judged.from_month,
        monthly_usd=counted.monthly_usd,
        once_usd=counted.once_usd,
        year_usd=counted.year_usd,
        usd_per_mtok=counted.usd_per_mtok,
        months=counted.months,
        impossible=judged.impossible,
        break_even=counted.break_even,
        rules=judged.rules,
        contradictions=judged.contradictions,
        sensitivity=sensitivity(resolved, chosen),
        warnings=judged.warnings,
        checks=claims.check(resolved, scenario.claims, counted, seed),
        assumptions=(*inputs.assumptions(resolved, scenario, measured), *derived(resolved, drawn)),
        tasks=tasks,
    )


def derived(resolved: Inputs, drawn: Drawn) -> tuple[Assumption, ...]:
    """What follows from the hardware's inputs: replicas for the peak, how idle they are, and what a token comes to."""
    point = points(resolved)
    found = []
    standing, at_point = standing_by(resolved, drawn), standing_by(resolved, point)
    if standing is not None and at_point is not None:
        idle = 1 - at_point[0][0] / at_point[1][0] if at_point[1][0] else 0.0
        found.append(_derived("hardware.replicas", _one(standing[1], at_point[1]), "", f"{idle:.0%} idle on average"))

    def per_mtok(shown: Ledger) -> Plain:
        mtok = shown.mtok_per_day() * resolved.days_per_month
        return np.asarray(shown.parts["self_hosted"]["hardware"].values[:, 0] / mtok)

    band = _one(per_mtok(ledger(resolved, drawn, 1)), per_mtok(ledger(resolved, point, 1)))
    note = "from price, throughput, utilisation and what stands idle; operations and people come on top"
    return (*found, _derived("hardware.usd_per_mtok, derived", band, "USD per million tokens", note))


def _derived(name: str, band: Band, unit: str, note: str) -> Assumption:
    return Assumption(input=name, band=band, value=None, unit=unit, source="derived", note=note)


def figures(resolved: Inputs, inputs_drawn: Drawn) -> Figures:
    """What the arithmetic finds, with draws of the inputs."""
    horizon = max(LOOKED_AT, 2 * resolved.months)  # a building that starts in the last month is followed as long
    far_drawn, far_point = (ledger(resolved, each, horizon) for each in (inputs_drawn, points(resolved)))
    drawn, point = far_drawn.until(resolved.months), far_point.until(resolved.months)
    return Figures(
        monthly_usd={a: _first(drawn.running(a), point.running(a)) for a in ARCHITECTURES},
        once_usd={a: _one(drawn.once(a), point.once(a)) for a in ARCHITECTURES},
        year_usd={a: _one(drawn.usd(a).sum(axis=1), point.usd(a).sum(axis=1)) for a in ARCHITECTURES},
        usd_per_mtok={a: _per_mtok(resolved, a, drawn, point) for a in ARCHITECTURES},
        months={a: _months(a, drawn, point) for a in ARCHITECTURES},
        tokens_per_day=tuple(band(drawn.tokens_per_day.values, point.tokens_per_day.values[0])),
        requests_per_day=tuple(band(drawn.requests_per_day.values, point.requests_per_day.values[0])),
        break_even=break_even(resolved, far_drawn, far_point),
        saving_usd={a: _one(_saved(drawn, a), _saved(point, a)) for a in ARCHITECTURES},
        cheaper_chance={a: float(np.mean(_saved(drawn, a) > 0)) for a in ARCHITECTURES},
        running_cheaper_from={a: _running_cheaper_from(drawn, point, a) for a in ARCHITECTURES},
        worth_building_from={a: _worth_building_from(far_drawn, far_point, a, resolved.months) for a in ARCHITECTURES},
    )


def _one(drawn: Plain, point: Plain) -> Band:
    return band(drawn[:, None], point)[0]


def _first(drawn: Plain, point: Plain) -> Band:
    return _one(drawn[:, 0], point[0, :1])


def _saved(shown: Ledger, architecture: Architecture) -> Plain:
    return np.asarray((shown.usd("frontier") - shown.usd(architecture)).sum(axis=1))


def _per_mtok(resolved: Inputs, architecture: Architecture, drawn: Ledger, point: Ledger) -> Band:
    """US dollars per million tokens that it takes to run in the first month."""

    def per_mtok(shown: Ledger) -> Plain:
        mtok = shown.mtok_per_day() * resolved.days_per_month
        return np.asarray(shown.running(architecture)[:, 0] / mtok)

    return _one(per_mtok(drawn), per_mtok(point))


def _months(architecture: Architecture, drawn: Ledger, point: Ledger) -> tuple[Month, ...]:
    usd, usd_point = drawn.usd(architecture), point.usd(architecture)
    total, total_point = np.cumsum(usd, axis=1), np.cumsum(usd_point, axis=1)
    known = point.parts[architecture]
    parts = {part: band(each.values, known[part].values[0]) for part, each in drawn.parts[architecture].items()}
    rows = zip(
        band(drawn.tokens_per_day.values, point.tokens_per_day.values[0]),
        band(usd, usd_point[0]),
        band(total, total_point[0]),
        strict=True,
    )
    return tuple(
        Month(
            month=i + 1,
            tokens_per_day=tokens,
            usd=paid,
            cumulative_usd=cumulative,
            parts={part: each[i] for part, each in parts.items()},
        )
        for i, (tokens, paid, cumulative) in enumerate(rows)
    )


def _running_cheaper_from(drawn: Ledger, point: Ledger, architecture: Architecture) -> Turning | None:
    def cheaper_from(shown: Ledger) -> NDArray[np.bool_]:
        cheaper = shown.running(architecture) < shown.usd("frontier")
        return np.asarray(np.logical_and.accumulate(cheaper[:, ::-1], axis=1)[:, ::-1])

    return _turning(cheaper_from(drawn), cheaper_from(point)[0])


def _worth_building_from(drawn: Ledger, point: Ledger, architecture: Architecture, months: int) -> Turning | None:
    """Ledgers of at least twice the months."""

    def worth(shown: Ledger) -> NDArray[np.bool_]:
        saved = np.cumsum(shown.usd("frontier") - shown.running(architecture), axis=1)
        saved = np.concatenate([np.zeros((len(saved), 1)), saved], axis=1)
        back = saved[:, months : 2 * months] - saved[:, :months]
        return np.asarray(back > shown.once(architecture)[:, None])

    return _turning(worth(drawn), worth(point)[0])


def _turning(drawn: NDArray[np.bool_], point: NDArray[np.bool_]) -> Turning | None:
    """The first month in which it is so at the points; (D, M) by draw and month, (M,)."""
    if not point.any():
        return None
    first = int(np.argmax(point))
    months = np.where(drawn.any(axis=1), np.argmax(drawn, axis=1) + 1.0, np.inf)
    low, high = (float(each) for each in np.quantile(months, (LOW, HIGH), method="inverted_cdf"))
    return Turning(
        month=first + 1,
        low=int(low) if np.isfinite(low) else None,
        high=int(high) if np.isfinite(high) else None,
        chance=float(np.mean(drawn[:, first])),
        within=float(np.mean(drawn.any(axis=1))),
    )
