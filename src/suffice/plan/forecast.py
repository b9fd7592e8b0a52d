"""What comes next, from what was seen: level, growth and weekly pattern of a series, and a band around the next sum.

A quasi-Poisson regression with a log link: level, trend, a factor for each weekday once there are two weeks (for each
hour, where days are few and there are two of them). Growth and factors are held back by priors, so that a short log
does not promise what it has not shown. The band holds what is not known of all these (Student's t, wider where
days hang together) and the noise to come (residuals, drawn in blocks).

What it does not know: that a level may change at once. A step within or after the log is the band's to miss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from suffice.core.errors import InputError
from suffice.plan.scenario import DAYS_PER_MONTH, Band

Floats = NDArray[np.float64]

DRAWS = 2_000
LOW, HIGH = 0.05, 0.95
WEEK, DAY_HOURS = 7, 24
GROWTH_SD = 0.2
"""Of the logarithm of a month's growth, before anything was seen: nine times in ten between -28% and +39%."""
FACTOR_SD = 1.0
"""Of the logarithm of a weekday's (an hour's) factor."""
NOISE_CV, NOISE_N = 0.3, 2.0
"""What a day's noise is taken for before any was seen, and how many days that belief is worth."""
FEWEST_TOGETHER, UNSEEN_TOGETHER = 8, 1.5
"""Steps below which nobody can tell whether they hang together, and how much wider sums are taken to be then."""
MOST_TOGETHER = 0.9
"""The largest first autocorrelation that is believed."""
LEAST_FREEDOM = 2.0
"""Of Student's t: with fewer degrees of freedom the band says nothing at all."""
WEEK_UNSEEN_SD = 0.3
"""Of the logarithm of the level, where not a whole week was seen,"""
DAY_UNSEEN_SD = 1.0
"""and where not a whole day was."""
MOST_LOG = 7.0
"""A forecast is at most e^7, about 1,100 times, what was seen: beyond, no log says anything."""
LEAST_BACKTEST = 4
"""Days, or hours where there are fewer, without which there is nothing to test on."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of equal steps in their order, `per_day` of them a day (1, or 24 where days are few)."""

    values: tuple[float, ...]
    per_day: int = 1

    @property
    def days(self) -> float:
        """How long it is."""
        return len(self.values) / self.per_day


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The sum over the next `days`, and what it rests on. `seen_days` of log; `weekly`: whether weekdays were told
    apart; `growth_per_month`: 0.1 is a tenth more each month."""

    days: float
    total: Band
    growth_per_month: Band
    seen_days: float
    weekly: bool


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """The second half of a log, predicted from the first. `within`: whether it lies in the band."""

    days_seen: float
    days_predicted: float
    predicted: Band
    actual: float
    within: bool


@dataclass(frozen=True)
class Fit:
    """A series, fitted: drawn coefficients (D, p) beside the likeliest (p,), and residuals as shares of the mean."""

    series: Series
    scale: float
    period: int
    likeliest: Floats
    drawn: Floats
    residuals: Floats
    unseen: Floats  # (D,), the logarithm of a week that was not seen

    def level(self) -> Band:
        """The mean per day at the end of the log, weekdays evened out."""
        ahead = np.arange(self.period) - self.period + len(self.series.values)
        here = len(self.series.values) - 0.5
        rows = _rows(ahead, self.series, self.period)
        rows[:, 1] = _time(np.array([here]), self.series)[0]
        each = self.scale * self.series.per_day
        return _band(
            each * _means(rows, self.drawn, self.unseen).mean(axis=1),
            each * float(_means(rows, self.likeliest[None, :], np.zeros(1)).mean()),
            len(self.series.values),
        )

    def growth(self) -> Band:
        """Growth per month."""
        return _band(np.expm1(self.drawn[:, 1]), math.expm1(float(self.likeliest[1])), len(self.series.values))

    def ahead(self, steps: int, seed: int) -> Band:
        """The sum over the next steps."""
        n = len(self.series.values)
        rows = _rows(np.arange(n, n + steps), self.series, self.period)
        mean = _means(rows, self.drawn, self.unseen)
        noise = _blocks(self.residuals, (len(self.drawn), steps), self.period, np.random.default_rng([seed, 2]))
        point = float(_means(rows, self.likeliest[None, :], np.zeros(1)).sum())
        return _band(self.scale * (mean * np.maximum(1 + noise, 0)).sum(axis=1), self.scale * point, n)


def fit(series: Series, seed: int = 0) -> Fit:
    """Fit a series of one step or more, none below 0. Raises InputError for an empty one."""
    y = np.asarray(series.values, dtype=float)
    if not len(y):
        raise InputError("there is no traffic to predict from")
    scale = float(y.mean()) or 1.0
    y = y / scale
    period = _period(series)
    rows = _rows(np.arange(len(y)), series, period)
    prior = np.diag([1e-6, GROWTH_SD**-2, *[FACTOR_SD**-2] * (rows.shape[1] - 2)])
    spread = NOISE_CV**2
    for _ in range(3):
        likeliest = _solve(rows, y, prior, spread)
        mean = np.exp(rows @ likeliest)
        told = _weighed(rows, mean, spread)
        used = float(np.trace(np.linalg.solve(told + prior, told)))
        free = max(len(y) - used, 0.0)
        squares = float((((y - mean) ** 2) / np.maximum(mean, 0.05)).sum())
        spread = (NOISE_N * NOISE_CV**2 + squares) / (NOISE_N + free)
    residuals = (y - mean) / np.maximum(mean, 0.05)
    together = _together((y - mean) / np.sqrt(np.maximum(mean, 0.05)))
    cover = np.linalg.inv(_weighed(rows, mean, spread * together) + prior)
    freedom = max(NOISE_N + free / together, LEAST_FREEDOM)
    coins = np.random.default_rng([seed, 1])
    normal = coins.multivariate_normal(np.zeros(len(likeliest)), cover, DRAWS, method="cholesky")
    heavy = np.sqrt(freedom / coins.chisquare(freedom, DRAWS))
    blind = DAY_UNSEEN_SD if series.days < 1 else WEEK_UNSEEN_SD if series.days < WEEK else 0.0
    unseen = coins.normal(0, blind, DRAWS)
    wider = math.sqrt((NOISE_N + len(y)) / (NOISE_N + free))
    return Fit(
        series=series,
        scale=scale,
        period=period,
        likeliest=likeliest,
        drawn=likeliest + normal * heavy[:, None],
        residuals=wider * (residuals - residuals.mean()) if len(y) > 2 else NOISE_CV * np.array([-1.0, 0.0, 1.0]),
        unseen=unseen,
    )


def forecast(series: Series, days: float = DAYS_PER_MONTH, seed: int = 0) -> Forecast:
    """The sum over the next days. Raises InputError for an empty series."""
    fitted = fit(series, seed)
    steps = max(1, round(days * series.per_day))
    total = fitted.ahead(steps, seed)
    times = days * series.per_day / steps
    return Forecast(
        days=days,
        total=Band(times * total.low, times * total.point, times * total.high, total.n),
        growth_per_month=fitted.growth(),
        seen_days=series.days,
        weekly=fitted.period == WEEK and series.per_day == 1,
    )


def backtest(series: Series, seed: int = 0) -> Backtest:
    """Predict the second half of a series from its first. Raises InputError where it is too short for that."""
    half = len(series.values) // 2
    if half < LEAST_BACKTEST / 2 or len(series.values) < LEAST_BACKTEST:
        unit = "days" if series.per_day == 1 else "hours"
        raise InputError(
            f"a log of {len(series.values)} whole {unit} is too short to predict one half of it from the other: "
            f"--backtest needs {LEAST_BACKTEST}"
        )
    seen = msgspec.structs.replace(series, values=series.values[:half])
    predicted = fit(seen, seed).ahead(len(series.values) - half, seed)
    actual = math.fsum(series.values[half:])
    return Backtest(
        days_seen=seen.days,
        days_predicted=series.days - seen.days,
        predicted=predicted,
        actual=actual,
        within=predicted.low <= actual <= predicted.high,
    )


# ---------------------------------------------------------------------------------------------- the regression


def _period(series: Series) -> int:
    """Steps after which the pattern repeats; 1: none was seen twice."""
    period = WEEK if series.per_day == 1 else DAY_HOURS
    return period if len(series.values) >= 2 * period else 1


def _time(steps: Floats, series: Series) -> Floats:
    """Months from the middle of the log."""
    return np.asarray((steps + 0.5 - len(series.values) / 2) / (series.per_day * DAYS_PER_MONTH))


def _rows(steps: NDArray[np.int64], series: Series, period: int) -> Floats:
    """Level, time, and a column for each step of the period but where there is none: (N, 2) or (N, 2 + period)."""
    columns = [np.ones(len(steps)), _time(steps.astype(float), series)]
    if period > 1:
        columns += [(steps % period == k).astype(float) for k in range(period)]
    return np.stack(columns, axis=1)


def _weighed(rows: Floats, mean: Floats, spread: float) -> Floats:
    return np.asarray(rows.T @ (rows * mean[:, None]) / spread)


def _solve(rows: Floats, y: Floats, prior: Floats, spread: float) -> Floats:
    """The likeliest coefficients by Newton's steps, none longer than 1 in the logarithm of any mean."""
    at = np.zeros(rows.shape[1])
    for _ in range(50):
        mean = np.exp(np.clip(rows @ at, -30, MOST_LOG))
        slope = rows.T @ (y - mean) / spread - prior @ at
        step = np.linalg.solve(_weighed(rows, mean, spread) + prior, slope)
        longest = float(np.abs(rows @ step).max())
        at = at + step / max(longest, 1.0)
        if longest < 1e-8:
            break
    return at


def _together(residuals: Floats) -> float:
    """How many times wider the variance of a sum is because steps hang together; 1 or more.

    The larger of two estimates: weighed autocorrelations (Newey and West, 1987), and those of a first-order process
    whose first autocorrelation is freed of its bias in short series (Kendall, 1954).
    """
    n, centred = len(residuals), residuals - residuals.mean()
    squares = float(centred @ centred)
    if n < FEWEST_TOGETHER or squares <= 0:
        return UNSEEN_TOGETHER
    lags = round(1.5 * n ** (1 / 3))
    known = [float(centred[k:] @ centred[:-k]) / squares for k in range(1, lags + 1)]
    weighed = 1 + 2 * sum((1 - k / (lags + 1)) * each for k, each in enumerate(known, 1))
    first = min(known[0] + (1 + 3 * known[0]) / n, MOST_TOGETHER)
    return float(min(max(weighed, (1 + first) / (1 - first), 1.0), n / 4))


def _means(rows: Floats, drawn: Floats, unseen: Floats) -> Floats:
    """(D, N) means of N steps under D draws of the coefficients."""
    return np.asarray(np.exp(np.clip(drawn @ rows.T + unseen[:, None], -30, MOST_LOG)))


def _blocks(residuals: Floats, shape: tuple[int, int], period: int, coins: np.random.Generator) -> Floats:
    """Residuals drawn in blocks, round the end to the beginning: (D, N)."""
    n = len(residuals)
    length = min(period if period > 1 else max(1, round(n ** (1 / 3))), n)
    starts = coins.integers(0, n, (shape[0], -(-shape[1] // length)))
    places = (starts[:, :, None] + np.arange(length)) % n
    return np.asarray(residuals[places.reshape(shape[0], -1)[:, : shape[1]]])


def _band(drawn: Floats, point: float, n: int) -> Band:
    low, high = (float(value) for value in np.quantile(drawn, (LOW, HIGH)))
    return Band(min(low, point), point, max(high, point), n)
