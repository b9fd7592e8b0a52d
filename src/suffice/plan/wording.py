"""Numbers and names as people write them: $4.5K, 3.3M tokens/day, 25% (10 to 50%), "share that asks the frontier"."""

from __future__ import annotations

import math
from collections.abc import Callable

from suffice.plan.result import Verdict
from suffice.plan.scenario import Band

NAMES: dict[Verdict, str] = {
    "frontier": "frontier only",
    "hybrid": "hybrid",
    "self_hosted": "self-hosted only",
    "not_yet": "frontier for now",
}
"""The architectures as people call them."""

INPUTS = {
    "volume.requests_per_day": "requests a day",
    "volume.tokens_per_day": "tokens a day",
    "volume.input_tokens_per_request": "tokens in, a request",
    "volume.output_tokens_per_request": "tokens out, a request",
    "volume.output_share": "share of tokens that is output",
    "volume.growth_per_month": "growth a month",
    "volume.peak_to_mean": "busiest hour against the mean",
    "frontier.model": "frontier model",
    "frontier.usd_per_mtok": "frontier, $ per M tokens",
    "frontier.usd_per_month": "frontier's bill, $ a month",
    "frontier.input_usd_per_mtok": "frontier, $ per M tokens in",
    "frontier.output_usd_per_mtok": "frontier, $ per M tokens out",
    "frontier.cached_usd_per_mtok": "frontier, $ per M cached tokens",
    "frontier.cached_share": "cached share of the input",
    "frontier.batch_share": "share that may wait for a batch",
    "frontier.batch_discount": "discount of a batch",
    "frontier.price_change_per_year": "frontier's price, change a year",
    "small.escalated_share": "share that asks the frontier",
    "small.audit_share": "audited share",
    "small.escalated_to_mean_tokens": "tokens of what escalates, to the mean",
    "small.escalated_to_frontier_price": "price of what escalates, to the frontier's",
    "hardware.kind": "hardware",
    "hardware.usd_per_hour": "hardware, $ an hour",
    "hardware.usd_per_month": "hardware, $ a month each",
    "hardware.usd_per_mtok": "small model, $ per M tokens",
    "hardware.requests_per_s": "requests a second, a core",
    "hardware.usd_per_mtok, derived": "hardware, $ per M tokens, derived",
    "hardware.replicas": "replicas",
    "hardware.purchase_usd": "hardware, $ to buy",
    "hardware.lifetime_months": "hardware, months of life",
    "hardware.power_usd_per_month": "power, $ a month",
    "hardware.tokens_per_s": "tokens a second, a replica",
    "hardware.utilisation": "share of the throughput used",
    "hardware.least_replicas": "replicas, at least",
    "hardware.operations_usd_per_month": "operations, $ a month",
    "work.engineer_weeks": "engineer-weeks to build",
    "work.usd_per_engineer_week": "$ an engineer-week",
    "work.engineer_weeks_per_month": "engineer-weeks a month",
    "work.labels": "labels to buy",
    "work.usd_per_label": "$ a label",
    "work.retrainings_per_year": "retrainings a year",
    "work.usd_per_retraining": "$ a retraining",
}
"""Inputs by their key in a scenario; one that is not here is called by its key."""

SHARES = ("_share", "_discount", "utilisation", "growth_per_month", "price_change_per_year")


def called(key: str) -> str:
    """An input's name for people: `small.escalated_share` is "share that asks the frontier"."""
    return INPUTS.get(key, key.rpartition(".")[2].replace("_", " "))


def value_of(key: str, value: float) -> str:
    """A value of that input, in its unit."""
    return _form(key)(value)


def band_of(key: str, band: Band) -> str:
    """An input's value with its low and high."""
    return between(band, _form(key))


def _form(key: str) -> Callable[[float], str]:
    name = key.rpartition(".")[2]
    if name.endswith(SHARES):
        return percent
    return usd if "usd" in name else count


def usd(value: float) -> str:
    """US dollars, to three figures: $0.27, $45, $640, $4.5K, $2.5M."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    if size < 0.005 or not math.isfinite(size):
        if 0 < size < 1e-4:
            return "under $0.0001" if value > 0 else "-$0.0001"
        return "$0" if size == 0 else f"{sign}${size:.2g}"
    if size < 9.995:
        return f"{sign}${size:.2f}".replace(".00", "")
    return f"{sign}${count(size)}"


def count(value: float) -> str:
    """A number to three figures: 0.25, 12, 640, 4.5K, 3.3M, 1B."""
    sign, size = ("-" if value < 0 else ""), abs(value)
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if size >= 0.9995 * unit and math.isfinite(size):
            return sign + _figures(size / unit) + letter
    return sign + _figures(size)


def percent(share: float) -> str:
    """A share: 25%, 2.5%, 0.04%."""
    return "0%" if abs(share) < 5e-6 else _figures(100 * share) + "%"


def between(band: Band, form: Callable[[float], str]) -> str:
    """A band as point (low to high); the point alone where it is certain."""
    point, low, high = form(band.point), form(band.low), form(band.high)
    return point if low == point == high else f"{point} ({low} to {high})"


def money(band: Band) -> str:
    """US dollars with their low and high: $4.5K ($3.9K to $5.2K)."""
    return between(band, usd)


def months(value: float) -> str:
    """A number of months: "1 month", "3 months"; parts of a month count as one begun."""
    whole = math.ceil(value - 1e-9)
    return "1 month" if whole == 1 else f"{whole:,} months"


def sentence(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def _figures(value: float) -> str:
    """Three figures, no exponent, no zeros behind the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
