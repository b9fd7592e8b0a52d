"""From a scenario to the inputs of the arithmetic: what is missing is asked for, what follows is derived, and each has
a unit, bounds of what can be, and where it came from.

Not known here: draws, months, sums.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from suffice.core.errors import InputError
from suffice.plan.prices import Prices
from suffice.plan.result import Assumption, Sources
from suffice.plan.scenario import Band, Scenario, Source, sure

ANSWERS_PER_S = Band(300.0, 1_000.0, 3_000.0)
"""Answers a second of one core by a linear specialist of Suffice, short texts: about 1,000 on one core as measured
(docs/results), a third and three times of it where texts are longer or cores faster."""

USD_PER_CORE_HOUR = Band(0.02, 0.04, 0.08)
"""What clouds ask for a virtual core by the hour."""

TOKENS_PER_REQUEST = Band(200.0, 1_000.0, 4_000.0)
"""Where only tokens were told: a chat turn. Only the processor's load follows from it, never the frontier's bill."""

DISAGREES = 0.05
"""Three numbers of which two give the third may be this far apart: people round."""

Bounds = tuple[float, float]
SHARE: Bounds = (0.0, 1.0)
AMOUNT: Bounds = (0.0, 1e15)

UNITS: dict[str, tuple[str, Bounds]] = {
    "volume.requests_per_day": ("requests a day", (1e-6, 1e12)),
    "volume.tokens_per_day": ("tokens a day", (1e-6, 1e15)),
    "volume.input_tokens_per_request": ("tokens", (0.0, 1e8)),
    "volume.output_tokens_per_request": ("tokens", (0.0, 1e8)),
    "volume.output_share": ("share of tokens", SHARE),
    "volume.growth_per_month": ("share a month", (-0.99, 10.0)),
    "volume.peak_to_mean": ("times", (1.0, 1e4)),
    "frontier.usd_per_mtok": ("USD per million tokens", (0.0, 1e6)),
    "frontier.usd_per_month": ("USD a month", AMOUNT),
    "frontier.input_usd_per_mtok": ("USD per million tokens", (0.0, 1e6)),
    "frontier.output_usd_per_mtok": ("USD per million tokens", (0.0, 1e6)),
    "frontier.cached_usd_per_mtok": ("USD per million tokens", (0.0, 1e6)),
    "frontier.cached_share": ("share of input tokens", SHARE),
    "frontier.batch_share": ("share of tokens", SHARE),
    "frontier.batch_discount": ("share of the price", SHARE),
    "frontier.price_change_per_year": ("share a year", (-0.999, 100.0)),
    "small.escalated_share": ("share of requests", SHARE),
    "small.audit_share": ("share of accepted requests", SHARE),
    "small.escalated_to_mean_tokens": ("times", (0.0, 1e3)),
    "small.escalated_to_frontier_price": ("times", (0.0, 1e3)),
    "hardware.usd_per_hour": ("USD an hour, each", (0.0, 1e5)),
    "hardware.usd_per_month": ("USD a month, each", (0.0, 1e8)),
    "hardware.usd_per_mtok": ("USD per million tokens", (0.0, 1e6)),
    "hardware.purchase_usd": ("USD, each", (0.0, 1e9)),
    "hardware.lifetime_months": ("months", (1.0, 600.0)),
    "hardware.power_usd_per_month": ("USD a month, each", (0.0, 1e7)),
    "hardware.tokens_per_s": ("tokens a second, each", (1e-3, 1e9)),
    "hardware.requests_per_s": ("requests a second, each", (1e-6, 1e7)),
    "hardware.utilisation": ("share of throughput", (1e-3, 1.0)),
    "hardware.operations_usd_per_month": ("USD a month", AMOUNT),
    "work.engineer_weeks": ("weeks", (0.0, 1e5)),
    "work.usd_per_engineer_week": ("USD a week", (0.0, 1e6)),
    "work.engineer_weeks_per_month": ("weeks a month", (0.0, 1e4)),
    "work.labels": ("labels", (0.0, 1e9)),
    "work.usd_per_label": ("USD", (0.0, 1e4)),
    "work.retrainings_per_year": ("times a year", (0.0, 1e4)),
    "work.usd_per_retraining": ("USD", (0.0, 1e7)),
}
"""Every number of a plan that may be uncertain: its unit, and between what it can lie at all."""


class Input(NamedTuple):
    """One number of the arithmetic: as uncertain as it is, its unit, what it can be at all, and who says so."""

    band: Band
    unit: str
    bounds: Bounds
    source: Source
    note: str


class Inputs(NamedTuple):
    """All that the arithmetic needs. `numbers` by name ("volume.growth_per_month")."""

    numbers: dict[str, Input]
    months: int
    days_per_month: float
    by_token: bool  # the small model is paid for what it does, and not for standing by
    least_replicas: int

    def swapped(self, name: str, band: Band) -> Inputs:
        """The same with another band for one input."""
        return self._replace(numbers={**self.numbers, name: self.numbers[name]._replace(band=band)})


def resolve(scenario: Scenario, prices: Prices, measured: Sources | None = None) -> Inputs:
    """All inputs of a scenario. Raises InputError that names the table and the key that is missing or disagrees."""
    told = _Told(scenario, measured or {})
    numbers = {
        **_volume(told),
        **_frontier(told, prices),
        **told.all("small"),
        **_hardware(told),
        **told.all("work"),
    }
    return Inputs(
        numbers=numbers,
        months=scenario.months,
        days_per_month=scenario.days_per_month,
        by_token=scenario.hardware.kind == "serverless",
        least_replicas=scenario.hardware.least_replicas,
    )


def assumptions(inputs: Inputs, scenario: Scenario, measured: Sources | None = None) -> tuple[Assumption, ...]:
    """Every input as the plan used it, and what was said that is no number."""
    numbers = [
        Assumption(input=name, band=each.band, value=None, unit=each.unit, source=each.source, note=each.note)
        for name, each in inputs.numbers.items()
    ]
    words = {
        f"{table}.{key}": value
        for table in ("frontier", "hardware", "needs")
        for key, value in msgspec.structs.asdict(getattr(scenario, table)).items()
        if value is not None and not isinstance(value, Band)
    }
    told = _Told(scenario, measured or {})
    return (
        *numbers,
        *(
            Assumption(input=name, band=None, value=_word(value), unit="", source=source, note=note)
            for name, value in words.items()
            for source, note in [told.source(name)]
        ),
    )


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value}"


class _Told:
    """The scenario by names of inputs, with who says what."""

    def __init__(self, scenario: Scenario, measured: Sources) -> None:
        self.scenario = scenario
        self.measured = measured

    def source(self, name: str) -> tuple[Source, str]:
        if name in self.measured:
            return self.measured[name]
        return ("scenario", "") if name in self.scenario.stated else ("assumed", "")

    def band(self, name: str) -> Band | None:
        table, _, key = name.partition(".")
        band: Band | None = getattr(getattr(self.scenario, table), key)
        return band

    def put(self, name: str, band: Band, source: Source | None = None, note: str = "") -> tuple[str, Input]:
        unit, bounds = UNITS[name]
        known, why = self.source(name)
        return name, Input(band, unit, bounds, source or known, note or why)

    def all(self, table: str) -> dict[str, Input]:
        """The inputs of a table that have a value."""
        names = [name for name in UNITS if name.startswith(f"{table}.")]
        return dict(self.put(name, band) for name in names if (band := self.band(name)) is not None)


# ---------------------------------------------------------------------------------------------- volume


def _volume(told: _Told) -> dict[str, Input]:
    volume = told.scenario.volume
    each, both = volume.requests_per_day, (volume.input_tokens_per_request, volume.output_tokens_per_request)
    day = volume.tokens_per_day
    found = told.all("volume")
    if (both[0] is None) != (both[1] is None):
        missing = "output_tokens_per_request" if both[1] is None else "input_tokens_per_request"
        raise InputError(f"[volume]: `{missing}` is missing: tokens of a request are given for both, or for none")
    if both[0] is not None and both[1] is not None:
        found.pop("volume.output_share")
        if both[0].point + both[1].point <= 0:
            raise InputError("[volume]: a request without any tokens costs nothing: give its input and output tokens")
        if each is not None:
            _agree(each.point * (both[0].point + both[1].point), day)
            found.pop("volume.tokens_per_day", None)
        elif day is None:
            raise InputError(
                "[volume]: `requests_per_day` is missing: how many requests (or `tokens_per_day`) are there?"
            )
        return found
    if day is None:
        asked = "`input_tokens_per_request` and `output_tokens_per_request` are" if each else "`tokens_per_day` is"
        raise InputError(f"[volume]: {asked} missing: say how many tokens there are a day, or in a request")
    if each is None:
        assumed = TOKENS_PER_REQUEST
        low, point, high = (day.point / tokens for tokens in (assumed.high, assumed.point, assumed.low))
        note = f"{assumed.point:,.0f} tokens a request ({assumed.low:,.0f}-{assumed.high:,.0f})"
        found |= [told.put("volume.requests_per_day", Band(low, point, high), "assumed", note)]
    return found


def _agree(derived: float, day: Band | None) -> None:
    if day is not None and abs(derived - day.point) > DISAGREES * max(derived, day.point):
        raise InputError(
            f"[volume]: `tokens_per_day` says {day.point:,.0f}, but requests a day times tokens a request is "
            f"{derived:,.0f}: leave one out"
        )


def tokens_per_day(inputs: dict[str, Input]) -> float:
    """Of the first month, at the points."""
    point = {name: each.band.point for name, each in inputs.items()}
    if "volume.tokens_per_day" in point:
        return point["volume.tokens_per_day"]
    each = point["volume.input_tokens_per_request"] + point["volume.output_tokens_per_request"]
    return point["volume.requests_per_day"] * each


# ---------------------------------------------------------------------------------------------- the frontier


def _frontier(told: _Told, prices: Prices) -> dict[str, Input]:
    frontier = told.scenario.frontier
    found = told.all("frontier")
    listed = (frontier.input_usd_per_mtok, frontier.output_usd_per_mtok)
    ways = {
        "`usd_per_mtok`": frontier.usd_per_mtok is not None,
        "`input_usd_per_mtok` and `output_usd_per_mtok`": any(usd is not None for usd in listed),
        "`usd_per_month`": frontier.usd_per_month is not None,
    }
    given = [way for way, there in ways.items() if there]
    if len(given) > 1:
        raise InputError(f"[frontier]: {' and '.join(given)} both say what it costs: leave one out")
    if any(usd is not None for usd in listed) and None in listed and frontier.model is None:
        missing = "output_usd_per_mtok" if listed[1] is None else "input_usd_per_mtok"
        raise InputError(f"[frontier]: `{missing}` is missing beside the other price")
    if frontier.usd_per_month is not None:
        return _from_bill(told, found, frontier.usd_per_month)
    if not given or (None in listed and frontier.usd_per_mtok is None):
        found = _from_table(told, prices) | found
    return found


def _from_bill(told: _Told, found: dict[str, Input], bill: Band) -> dict[str, Input]:
    """The price that makes the bill of the first month, at the volume's point; in a draw of another volume it is the
    bill that stays (`uncertain.draws`)."""
    numbers = _volume(told)
    discount = found["frontier.batch_share"].band.point * found["frontier.batch_discount"].band.point
    mtok = tokens_per_day(numbers) * told.scenario.days_per_month / 1e6 * (1 - discount)
    if mtok <= 0:
        raise InputError("[frontier]: `usd_per_month` tells no price where no tokens are paid for")
    band = Band(bill.low / mtok, bill.point / mtok, bill.high / mtok)
    note = f"from ${bill.point:,.0f} a month for {mtok:,.0f} million tokens"
    return found | dict([told.put("frontier.usd_per_mtok", band, "derived", note)])


def _from_table(told: _Told, prices: Prices) -> dict[str, Input]:
    model = told.scenario.frontier.model
    if model is None:
        raise InputError(
            "[frontier] says no price: name its `model`, or give `input_usd_per_mtok` and `output_usd_per_mtok`, "
            "`usd_per_mtok`, or the bill as `usd_per_month`"
        )
    try:
        prompt = told.scenario.volume.input_tokens_per_request
        unit = prices.unit(model, round(prompt.point) if prompt is not None else 0)
    except InputError as error:
        raise InputError(f"[frontier]: `model`: {error}") from error
    listed = {"input": unit.input_usd_per_mtok, "output": unit.output_usd_per_mtok}
    if told.scenario.frontier.cached_usd_per_mtok is None:
        listed["cached"] = unit.cached_usd_per_mtok
    note = f"{model}: {unit.said_by}"
    return dict(told.put(f"frontier.{key}_usd_per_mtok", sure(usd), "table", note) for key, usd in listed.items())


# ---------------------------------------------------------------------------------------------- hardware


def _hardware(told: _Told) -> dict[str, Input]:
    hardware, found = told.scenario.hardware, told.all("hardware")
    kind = hardware.kind
    if kind != "serverless" and hardware.usd_per_mtok is not None:
        raise InputError(f"[hardware]: `usd_per_mtok` is for kind serverless; what {kind} hardware costs is derived")
    if kind == "owned":
        _needed(told, "purchase_usd", "what one machine cost to buy")
    else:
        for name in ("purchase_usd", "lifetime_months", "power_usd_per_month"):
            found.pop(f"hardware.{name}", None)
    if kind == "owned" or (kind == "serverless" and hardware.usd_per_mtok is not None):
        if hardware.usd_per_hour is not None or hardware.usd_per_month is not None:
            raise InputError(f"[hardware]: a price by the hour or month does not go with what {kind} hardware costs")
    elif hardware.usd_per_hour is not None and hardware.usd_per_month is not None:
        raise InputError("[hardware]: `usd_per_hour` and `usd_per_month` both say what one costs: leave one out")
    elif hardware.usd_per_hour is None and hardware.usd_per_month is None:
        if kind != "cpu":
            _needed(told, "usd_per_hour", "what one costs an hour")
        found |= [told.put("hardware.usd_per_hour", USD_PER_CORE_HOUR, "assumed", "a virtual core in a cloud")]
    if kind == "serverless" and hardware.usd_per_month is not None:
        raise InputError("[hardware]: serverless is paid by the busy hour (`usd_per_hour`) or by `usd_per_mtok`")
    return found if hardware.usd_per_mtok is not None else found | _throughput(told)


def _throughput(told: _Told) -> dict[str, Input]:
    hardware = told.scenario.hardware
    if hardware.tokens_per_s is not None and hardware.requests_per_s is not None:
        raise InputError("[hardware]: `tokens_per_s` and `requests_per_s` both say what one can do: leave one out")
    if hardware.tokens_per_s is not None or hardware.requests_per_s is not None:
        return {}
    if hardware.kind != "cpu":
        _needed(told, "tokens_per_s", "how many tokens a second, input and output together, one does under full load")
    note = "a linear specialist beside the gateway, as Suffice measured it: about 1,000 short answers a second a core"
    return dict([told.put("hardware.requests_per_s", ANSWERS_PER_S, "assumed", note)])


def _needed(told: _Told, key: str, what: str) -> None:
    if told.band(f"hardware.{key}") is None:
        raise InputError(f"[hardware]: `{key}` is missing: {what}; kind {told.scenario.hardware.kind} needs it")
