"""Traffic as plain sums, what it cost, and what it would cost at the frontier; day by day, for a forecast.

Where the sums come from is not known here: the composition root reads them from the records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from suffice.core.errors import InputError
from suffice.plan.forecast import DAY_HOURS, Series
from suffice.plan.prices import Prices, Unit

DAY_S, HOUR_S = 86_400.0, 3_600.0
FEWEST_DAYS = 4
"""Whole days below which hours are looked at."""
NEARLY = 0.1
"""A last day (hour) of which no more than this is missing counts as a whole one."""
AS_LISTED = 0.05
"""Bills that are no further from the list prices than this are the list prices."""


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one day, task and model that went the same way. `usd`: what they cost, None where nobody knows.

    `paid`: an upstream was paid for them. `told`: their tokens were counted, not estimated. `imported`: paid for
    elsewhere, and counted here as if here.
    """

    day: int
    task: str | None
    model: str
    paid: bool
    imported: bool
    told: bool
    requests: int
    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    usd: float | None = None

    @property
    def tokens(self) -> int:
        """Input and output."""
        return self.prompt + self.completion


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """Audits of one day, task and model."""

    day: int
    task: str | None
    model: str
    audits: int
    prompt: int
    completion: int
    usd: float | None = None


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic from `start` to `end` (seconds since 1970). `hours`: of each hour, or of the last ones."""

    start: float
    end: float
    uses: tuple[Use, ...]
    audits: tuple[Checked, ...] = ()
    hours: tuple[int, ...] = ()

    @property
    def days(self) -> float:
        """How long it is; what is shorter than an hour counts as one."""
        return max(self.end - self.start, HOUR_S) / DAY_S

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(use.requests for use in self.uses)


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """What each use and each audit cost, and what each use would at the frontier, in US dollars; None: not known.

    `units`: the prices of the models, `listed` those that come from the table or the settings. `paid_to_list`: what
    was paid against the list prices of the same tokens. `unpriced`: requests of models without any price; `guessed`: of
    those at the fallback's.
    """

    now: tuple[float | None, ...]
    frontier: tuple[float | None, ...]
    audits: tuple[float | None, ...]
    units: Mapping[str, Unit]
    listed: frozenset[str]
    paid_to_list: float
    unpriced: Mapping[str, int]
    guessed: Mapping[str, int]


# ---------------------------------------------------------------------------------------------- what it cost


def price(log: Log, prices: Prices, fallback: Unit | None = None) -> Priced:
    """Price a log: what was recorded, else the model's price, else `fallback` (the scenario's frontier), else None.

    A model without a price whose bills were recorded costs what they say, for input and output alike.
    """
    units: dict[str, Unit] = {}
    for model in sorted({use.model for use in log.uses} | {audit.model for audit in log.audits}):
        unit = _unit(prices, model)
        if unit is not None:
            units[model] = unit
    listed = frozenset(units)
    for model in {use.model for use in log.uses} - listed:
        paid = [(use.usd, use.tokens) for use in log.uses if use.model == model and use.paid and use.usd is not None]
        tokens = sum(n for _, n in paid)
        if tokens and any(usd for usd, _ in paid):
            each = 1e6 * sum(usd for usd, _ in paid) / tokens
            units[model] = Unit(each, each, each, each, "what was paid for it, input and output alike")
        elif fallback is not None:
            units[model] = fallback
    own = [(use.usd, _usd(units[use.model], use)) for use in log.uses if use.paid and use.usd and use.model in listed]
    at_list = sum(usd for _, usd in own)
    ratio = sum(usd for usd, _ in own) / at_list if at_list else 1.0
    ratio = 1.0 if abs(ratio - 1) <= AS_LISTED else ratio
    unpriced: defaultdict[str, int] = defaultdict(int)
    guessed: defaultdict[str, int] = defaultdict(int)
    now: list[float | None] = []
    frontier: list[float | None] = []
    for use in log.uses:
        unit = units.get(use.model)
        asked = _usd(unit, use) * (ratio if use.model in listed else 1.0) if unit is not None else None
        paid_usd = (use.usd if use.usd is not None else asked) if use.paid else 0.0
        if paid_usd is None:
            unpriced[use.model] += use.requests
        elif use.paid and use.usd is None and unit is fallback:
            guessed[use.model] += use.requests
        now.append(paid_usd)
        frontier.append(paid_usd if use.paid else asked)
    audits = []
    for audit in log.audits:
        unit = units.get(audit.model)
        listed_usd = ratio * _tokens_usd(unit, audit.prompt, audit.completion) if unit is not None else None
        audits.append(audit.usd if audit.usd is not None else listed_usd)
    return Priced(
        now=tuple(now),
        frontier=tuple(frontier),
        audits=tuple(audits),
        units=units,
        listed=listed,
        paid_to_list=ratio,
        unpriced=dict(unpriced),
        guessed=dict(guessed),
    )


def _unit(prices: Prices, model: str) -> Unit | None:
    try:
        return prices.unit(model) if model else None
    except InputError:
        return None


def _usd(unit: Unit, use: Use) -> float:
    plain = max(use.prompt - use.cached - use.written, 0)
    extra = (use.cached * unit.cached_usd_per_mtok + use.written * unit.written_usd_per_mtok) / 1e6
    return _tokens_usd(unit, plain, use.completion) + extra


def _tokens_usd(unit: Unit, prompt: int, completion: int) -> float:
    return (prompt * unit.input_usd_per_mtok + completion * unit.output_usd_per_mtok) / 1e6


# ---------------------------------------------------------------------------------------------- by day


def requests_series(log: Log) -> Series:
    """Requests by whole days; by hours where there are few days."""
    by_day: defaultdict[int, float] = defaultdict(float)
    for use in log.uses:
        by_day[use.day] += use.requests
    return _series(log, by_day)


def bill_series(log: Log, priced: Priced) -> Series:
    """US dollars paid, audits too, by whole days; by hours (requests at their mean cost) where there are few days."""
    by_day: defaultdict[int, float] = defaultdict(float)
    for use, usd in zip(log.uses, priced.now, strict=True):
        by_day[use.day] += usd or 0.0
    for audit, usd in zip(log.audits, priced.audits, strict=True):
        by_day[audit.day] += usd or 0.0
    return _series(log, by_day)


def _series(log: Log, by_day: Mapping[int, float]) -> Series:
    seen = log.end - log.start
    whole = int(seen / DAY_S + NEARLY)
    if whole >= FEWEST_DAYS:
        return Series(values=tuple(by_day.get(day, 0.0) for day in range(whole)))
    hours = max(int(seen / HOUR_S + NEARLY), 1)
    counted = log.hours[:hours] if hours > 1 and any(log.hours[:hours]) else (sum(log.hours),)
    each = sum(by_day.values()) / max(sum(log.hours), 1)
    return Series(values=tuple(each * n for n in counted), per_day=DAY_HOURS)


def told_length(series: Series, log: Log) -> str:
    """How long a log is, in words."""
    if series.per_day == 1:
        return f"{len(series.values):,} days"
    hours = len(series.values)
    if hours > 1:
        return f"{hours} hours"
    minutes = (log.end - log.start) / 60
    return f"{minutes:.0f} minutes" if minutes >= 1 else "less than a minute"
