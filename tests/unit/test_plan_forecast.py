"""The forecast: its band holds what comes as often as it says, and it promises nothing that a short log cannot show."""

from __future__ import annotations

import numpy as np
import pytest

from suffice.core.errors import InputError
from suffice.plan.forecast import Series, backtest, fit, forecast

WEEKDAYS = np.array([1, 1.1, 1.05, 1, 0.95, 0.3, 0.25])


def log(days: int, seed: int, growth: float = 0.0, weekly: bool = False) -> Series:
    """Days of 100 with a fifth of noise."""
    coins, day = np.random.default_rng([seed, days]), np.arange(days)
    mean = (1 + growth) ** (day / 30.4) * (WEEKDAYS[day % 7] if weekly else 1.0)
    return Series(values=tuple(100 * mean * coins.lognormal(-0.02, 0.2, days)))


@pytest.mark.parametrize(("growth", "weekly"), [(0.0, False), (0.2, False), (-0.15, False), (0.0, True), (0.15, True)])
def test_nine_bands_in_ten_hold_the_second_half(growth: float, weekly: bool) -> None:
    within = [backtest(log(56, seed, growth, weekly), seed).within for seed in range(40)]
    assert np.mean(within) >= 0.8


def test_growth_and_level_lie_in_their_bands_nine_times_in_ten() -> None:
    fits = [fit(log(168, seed, growth=0.1)) for seed in range(40)]
    growth, level = [each.growth() for each in fits], [each.level() for each in fits]
    now = 100 * 1.1 ** (167.5 / 30.4)
    assert np.mean([band.low <= 0.1 <= band.high for band in growth]) >= 0.8
    assert np.mean([band.low <= now <= band.high for band in level]) >= 0.8
    assert max(band.high - band.low for band in growth) < 0.1


def test_a_short_log_claims_no_growth() -> None:
    short = fit(log(5, 1, growth=0.1)).growth()
    assert short.low < -0.15 and short.high > 0.25 and abs(short.point) < 0.15


def test_weekdays_are_told_apart_after_two_weeks() -> None:
    long, short = forecast(log(28, 3, weekly=True), 7), forecast(log(10, 3, weekly=True), 7)
    assert long.weekly and not short.weekly
    assert long.total.high - long.total.low < short.total.high - short.total.low


def test_a_log_that_rests_at_weekends_is_predicted_to() -> None:
    series = Series(values=tuple(100.0 if day % 7 < 5 else 0.0 for day in range(35)))
    week = fit(series).ahead(7, 0)
    assert week.low < 500 < week.high and week.point == pytest.approx(500, rel=0.1)


def test_one_hour_says_little() -> None:
    level = fit(Series(values=(10.0,), per_day=24)).level()
    assert level.point == pytest.approx(240, rel=0.01)
    assert level.low < 240 / 3 and level.high > 240 * 3


def test_same_arguments_same_band_and_the_point_within() -> None:
    series = log(30, 5)
    assert forecast(series, 30, seed=7) == forecast(series, 30, seed=7)
    total = forecast(series, 30.4).total
    assert total.low <= total.point <= total.high


@pytest.mark.parametrize("values", [(0.0,) * 10, (0.0, 0.0, 1e9, 0.0), (5.0,) * 400, (1e-12,) * 8])
def test_odd_logs_give_finite_bands(values: tuple[float, ...]) -> None:
    total = forecast(Series(values=values), 30).total
    assert all(np.isfinite(value) and value >= 0 for value in (total.low, total.point, total.high))


def test_too_short_to_be_tested_is_said() -> None:
    with pytest.raises(InputError, match="3 whole days is too short"):
        backtest(Series(values=(1.0, 2.0, 3.0)))
    with pytest.raises(InputError, match="no traffic"):
        forecast(Series(values=()))
