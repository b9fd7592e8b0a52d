"""The planner's arithmetic: against a plain loop, its properties, its units, its draws."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.plan import inputs, solve, uncertain
from suffice.plan.costs import ARCHITECTURES, ledger
from suffice.plan.inputs import Inputs, resolve
from suffice.plan.planner import figures, plan
from suffice.plan.prices import Prices
from suffice.plan.result import Architecture
from suffice.plan.scenario import Band, Frontier, Hardware, Scenario, Small, Volume, Work, sure
from suffice.plan.units import Requests, Tokens, Usd, UsdPerToken


def scenario(**changes: float) -> Scenario:
    """A rented hybrid with every input certain; `changes` by bare name."""
    told = {
        "requests_per_day": 20_000.0, "input_tokens_per_request": 900.0, "output_tokens_per_request": 60.0,
        "growth_per_month": 0.04, "peak_to_mean": 3.0, "input_usd_per_mtok": 5.0, "output_usd_per_mtok": 30.0,
        "cached_usd_per_mtok": 0.5, "cached_share": 0.3, "batch_share": 0.1, "batch_discount": 0.5,
        "price_change_per_year": -0.2, "escalated_share": 0.2, "audit_share": 0.01, "escalated_to_mean_tokens": 1.3,
        "usd_per_hour": 1.2, "tokens_per_s": 1_500.0, "utilisation": 0.5, "operations_usd_per_month": 150.0,
        "engineer_weeks": 3.0, "usd_per_engineer_week": 4_000.0, "engineer_weeks_per_month": 0.2, "labels": 500.0,
        "usd_per_label": 0.3, "retrainings_per_year": 4.0, "usd_per_retraining": 25.0,
    } | changes  # fmt: skip

    def of(kind: type[msgspec.Struct]) -> dict[str, Any]:
        return {key: sure(value) for key, value in told.items() if key in kind.__struct_fields__}

    return Scenario(
        volume=Volume(**of(Volume)),
        frontier=Frontier(**of(Frontier)),
        small=Small(**of(Small)),
        hardware=Hardware(kind="rented", **of(Hardware)),
        work=Work(**of(Work)),
    )


def resolved(told: Scenario) -> Inputs:
    return resolve(told, Prices({}))


def year(told: Scenario, architecture: Architecture = "hybrid") -> float:
    found = resolved(told)
    return float(ledger(found, uncertain.points(found)).usd(architecture).sum())


def by_hand(told: Scenario) -> dict[Architecture, list[float]]:
    """The point plan as a spreadsheet would have it, a month at a time."""

    def value(table: str, key: str) -> float:
        band: Band = getattr(getattr(told, table), key)
        return band.point

    months: dict[Architecture, list[float]] = {name: [] for name in ARCHITECTURES}
    for month in range(told.months):
        requests = value("volume", "requests_per_day")
        for _ in range(month):
            requests *= 1 + value("volume", "growth_per_month")
        read = requests * value("volume", "input_tokens_per_request") * 365 / 12 / 1e6
        wrote = requests * value("volume", "output_tokens_per_request") * 365 / 12 / 1e6
        cached = read * value("frontier", "cached_share")
        bill = (read - cached) * value("frontier", "input_usd_per_mtok")
        bill += cached * value("frontier", "cached_usd_per_mtok") + wrote * value("frontier", "output_usd_per_mtok")
        bill -= bill * value("frontier", "batch_share") * value("frontier", "batch_discount")
        bill *= (1 + value("frontier", "price_change_per_year")) ** (month / 12)
        share = value("small", "escalated_share") * value("small", "escalated_to_mean_tokens")
        per_second = requests * (
            value("volume", "input_tokens_per_request") + value("volume", "output_tokens_per_request")
        ) / 24 / 60 / 60  # fmt: skip
        peak = per_second * value("volume", "peak_to_mean")
        machines = max(1, math.ceil(peak / (value("hardware", "tokens_per_s") * value("hardware", "utilisation"))))
        own = machines * value("hardware", "usd_per_hour") * 730 + value("hardware", "operations_usd_per_month")
        own += value("work", "engineer_weeks_per_month") * value("work", "usd_per_engineer_week")
        own += value("work", "retrainings_per_year") * value("work", "usd_per_retraining") / 12
        if month == 0:
            own += value("work", "engineer_weeks") * value("work", "usd_per_engineer_week")
            own += value("work", "labels") * value("work", "usd_per_label")
        months["frontier"].append(bill)
        months["self_hosted"].append(own)
        months["hybrid"].append(own + bill * share + bill * (1 - share) * value("small", "audit_share"))
    return months


def test_the_point_plan_is_what_a_spreadsheet_gives() -> None:
    told = scenario()
    found = plan(told)
    for architecture, usd in by_hand(told).items():
        assert [month.usd.point for month in found.months[architecture]] == pytest.approx(usd)
        assert found.year_usd[architecture].point == pytest.approx(sum(usd))
    once = 3 * 4_000 + 500 * 0.3
    assert found.once_usd["hybrid"].point == pytest.approx(once)
    assert found.monthly_usd["hybrid"].point == pytest.approx(by_hand(told)["hybrid"][0] - once)


RISES = (
    "requests_per_day", "input_tokens_per_request", "output_tokens_per_request", "input_usd_per_mtok",
    "output_usd_per_mtok", "escalated_share", "escalated_to_mean_tokens", "price_change_per_year", "growth_per_month",
    "peak_to_mean", "usd_per_hour", "engineer_weeks", "labels", "operations_usd_per_month",
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(RISES),
    low=st.floats(0.001, 1.0),
    more=st.floats(1.0, 20.0),
    escalated=st.floats(0.0, 0.9),
)
def test_a_cost_never_falls_when_volume_prices_or_escalation_rise(
    name: str, low: float, more: float, escalated: float
) -> None:
    first = scenario(**{"escalated_share": escalated, name: low})
    second = scenario(**{"escalated_share": escalated, name: min(low * more, 1.0) if "share" in name else low * more})
    for architecture in ARCHITECTURES:
        assert year(first, architecture) <= year(second, architecture) * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(volume=st.floats(1.0, 1e7), price=st.floats(0.0, 1e4))
def test_without_escalation_a_free_specialist_costs_the_fixed_part(volume: float, price: float) -> None:
    told = scenario(
        requests_per_day=volume, input_usd_per_mtok=price, escalated_share=0.0, audit_share=0.0, usd_per_hour=0.0
    )
    fixed = 12 * (150 + 0.2 * 4_000 + 4 * 25 / 12) + 3 * 4_000 + 500 * 0.3
    assert year(told) == pytest.approx(fixed)
    assert year(told, "self_hosted") == pytest.approx(fixed)


UNSURE = Scenario(
    volume=Volume(
        requests_per_day=Band(5e3, 1e4, 3e4), input_tokens_per_request=Band(300, 500, 900),
        output_tokens_per_request=Band(10, 50, 100), growth_per_month=Band(-0.02, 0.05, 0.1),
    ),
    frontier=Frontier(model="gpt-5.5", cached_share=Band(0.0, 0.2, 0.4)),
    small=Small(escalated_share=uncertain.counted_share(0.2, 500)),
)  # fmt: skip


def test_parts_add_up_cumulative_is_the_sum_and_a_point_lies_in_its_band() -> None:
    found = plan(UNSURE)
    for architecture, months in found.months.items():
        total = 0.0
        for month in months:
            assert sum(part.point for part in month.parts.values()) == pytest.approx(month.usd.point)
            total += month.usd.point
            assert month.cumulative_usd.point == pytest.approx(total)
            for band in (month.usd, month.cumulative_usd, month.tokens_per_day, *month.parts.values()):
                assert band.low <= band.point <= band.high
        assert found.year_usd[architecture].point == pytest.approx(total)


def band_of(values: tuple[float, ...]) -> Band:
    low, point, high = sorted(values)
    return Band(low, point, high)


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), st.tuples(*[st.floats(1, 1e6)] * 3))
def test_any_bands_give_a_plan_whose_points_lie_within(shares: tuple[float, ...], volumes: tuple[float, ...]) -> None:
    told = msgspec.structs.replace(
        UNSURE,
        volume=msgspec.structs.replace(UNSURE.volume, requests_per_day=band_of(volumes)),
        small=Small(escalated_share=band_of(shares)),
    )
    found = figures(resolved(told), uncertain.draws(resolved(told), seed=0, n=200))
    for band in (*found.year_usd.values(), *found.monthly_usd.values(), *found.saving_usd.values()):
        assert band.low <= band.point <= band.high
        assert all(math.isfinite(each) for each in (band.low, band.point, band.high))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("end", [0, 1])
def test_each_input_at_the_end_of_what_can_be_gives_finite_figures(end: int) -> None:
    found = resolved(UNSURE)
    for name, each in found.numbers.items():
        if name.startswith("volume.") and "tokens" in name and end == 0:
            continue  # a request of no tokens is refused
        there = found.swapped(name, sure(each.bounds[end]))
        if name == "volume.growth_per_month" and end == 1:
            there = there.swapped(name, sure(1.0))  # more is refused when it is read
        counted = figures(there, uncertain.draws(there, seed=0, n=20))
        for band in (*counted.year_usd.values(), *counted.usd_per_mtok.values()):
            assert all(math.isfinite(value) for value in (band.low, band.point, band.high)), name


def test_the_same_seed_gives_the_same_plan_and_another_one_nearly() -> None:
    one, other = plan(UNSURE), plan(UNSURE, seed=1)
    assert plan(UNSURE) == one
    for architecture in ARCHITECTURES:
        assert other.year_usd[architecture].point == one.year_usd[architecture].point
        assert other.year_usd[architecture].high == pytest.approx(one.year_usd[architecture].high, rel=0.1)


def test_low_and_high_are_the_5th_and_95th_percentile_of_the_draws() -> None:
    drawn = uncertain.draws(resolved(UNSURE), seed=3)
    assert np.quantile(drawn["volume.requests_per_day"], (0.05, 0.5, 0.95)) == pytest.approx([5e3, 1e4, 3e4], rel=0.01)
    assert np.quantile(drawn["volume.growth_per_month"], (0.05, 0.95)) == pytest.approx([-0.02, 0.1], abs=1e-3)
    counted = drawn["small.escalated_share"]  # 100 of 500, Jeffreys
    assert np.quantile(counted, (0.05, 0.95)) == pytest.approx([0.172, 0.231], abs=2e-3)
    assert all(np.all(np.isfinite(values)) for values in drawn.values())


def test_a_band_that_is_wider_than_its_count_is_kept() -> None:
    mixed = msgspec.structs.replace(UNSURE, small=Small(escalated_share=Band(0.1, 0.2, 0.5, 100_000)))
    drawn = uncertain.draws(resolved(mixed), seed=0)["small.escalated_share"]
    assert np.quantile(drawn, (0.05, 0.5, 0.95)) == pytest.approx([0.1, 0.2, 0.5], rel=0.01)


def test_an_input_more_changes_no_draw_of_the_others() -> None:
    more = msgspec.structs.replace(UNSURE, work=Work(labels=Band(10, 50, 90)))
    one, other = uncertain.draws(resolved(UNSURE), 0), uncertain.draws(resolved(more), 0)
    assert all(np.array_equal(one[name], other[name]) for name in one if name != "work.labels")


def test_two_thousand_draws_of_a_year_are_made_while_a_slider_moves() -> None:
    found = resolved(UNSURE)
    took = []
    for _ in range(10):
        began = time.process_time()  # what else the machine does is not measured
        figures(found, uncertain.draws(found, seed=0))
        took.append(time.process_time() - began)
    assert min(took) < 0.1


def test_units_cannot_be_mixed() -> None:
    tokens, usd, requests = Tokens(np.ones((2, 3))), Usd(np.ones((2, 3))), Requests(np.ones((2, 3)))
    for wrong in (
        lambda: tokens + usd,  # type: ignore[operator]
        lambda: usd - requests,  # type: ignore[operator]
        lambda: usd * tokens,  # type: ignore[operator]
        lambda: tokens.at(usd),  # type: ignore[arg-type]
        lambda: requests.of(tokens),  # type: ignore[arg-type]
        lambda: np.ones((2, 3)) * usd,  # type: ignore[operator]
    ):
        with pytest.raises(TypeError):
            wrong()
    assert float(Tokens(2e6).at(UsdPerToken.per_million(5.0)).values) == 10.0


def test_a_bill_that_is_known_stays_known_when_the_volume_is_not() -> None:
    told = msgspec.structs.replace(UNSURE, frontier=Frontier(usd_per_month=sure(4_500.0)))
    found = plan(told)
    assert found.monthly_usd["frontier"].low == pytest.approx(4_500)
    assert found.monthly_usd["frontier"].high == pytest.approx(4_500)


@pytest.mark.parametrize(
    ("hardware", "usd"),
    [
        (Hardware(kind="rented", usd_per_hour=sure(2.0), tokens_per_s=sure(1000.0)), 2 * 2.0 * 730),
        (Hardware(kind="rented", usd_per_month=sure(400.0), tokens_per_s=sure(1e6), least_replicas=2), 800),
        (Hardware(kind="owned", purchase_usd=sure(36_000.0), tokens_per_s=sure(1e6)), 1_000),
        (Hardware(kind="serverless", usd_per_mtok=sure(0.1)), 0.1 * 20_000 * 960 * 365 / 12 / 1e6),
        (Hardware(kind="serverless", usd_per_hour=sure(3.6), tokens_per_s=sure(1000.0), utilisation=sure(1.0)),
         20_000 * 960 / 1000 / 3600 * 3.6 * 365 / 12),
        (Hardware(kind="cpu", usd_per_hour=sure(0.04)), 0.04 * 730),
    ],
)  # fmt: skip
def test_hardware_rented_owned_serverless_and_the_processor(hardware: Hardware, usd: float) -> None:
    told = msgspec.structs.replace(scenario(), hardware=hardware)
    first = plan(told).months["self_hosted"][0]
    assert first.parts["hardware"].point == pytest.approx(usd)


def test_break_even_is_where_a_year_costs_the_same() -> None:
    found = resolved(scenario())
    even = figures(found, uncertain.draws(found, seed=0)).break_even
    assert even.tokens_per_day is not None
    there = solve.volume_of(found, solve.VOLUME, even.tokens_per_day)
    shown = ledger(there, uncertain.points(there))
    assert shown.usd("frontier").sum() == pytest.approx(shown.usd("hybrid").sum(), rel=1e-5)
    assert even.usd_per_month == pytest.approx(shown.usd("frontier")[0, 0])


def test_a_month_pays_back_what_was_built() -> None:
    told = scenario(growth_per_month=0.0, price_change_per_year=0.0)
    months = by_hand(told)
    kept = months["frontier"][1] - months["hybrid"][1]
    even = plan(told).break_even
    assert even.month is not None
    assert even.month.point == pytest.approx((3 * 4_000 + 500 * 0.3) / kept)


def test_at_the_value_that_flips_it_both_cost_the_same() -> None:
    told = scenario(requests_per_day=60_000.0)
    found = resolved(told)
    flips = [
        flip for flip in plan(told).sensitivity if flip.flips_at is not None and flip.input != "hardware.tokens_per_s"
    ]
    assert {"small.escalated_share", "work.engineer_weeks", "frontier.input_usd_per_mtok"} <= {f.input for f in flips}
    for flip in flips:
        assert flip.flips_at is not None
        saved = [
            float((shown.usd("frontier") - shown.usd("hybrid")).sum())
            for times in (0.9999, 1.0001)
            for shown in [solve.at(found, flip.input, np.array([flip.flips_at * times]))]
        ]
        assert saved[0] * saved[1] <= 0 or max(map(abs, saved)) < 1.0, flip


def test_every_uncertain_input_of_a_scenario_has_a_unit_and_bounds() -> None:
    for table, kind in (
        ("volume", Volume),
        ("frontier", Frontier),
        ("small", Small),
        ("hardware", Hardware),
        ("work", Work),
    ):
        for field in msgspec.structs.fields(kind):
            if "Band" in str(field.type):
                assert f"{table}.{field.name}" in inputs.UNITS
