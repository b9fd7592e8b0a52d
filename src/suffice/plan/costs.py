"""What each architecture costs, month by month: pure arithmetic, for any number of draws of the inputs at once.

The frontier alone answers everything. The hybrid asks the small model first, always, and the frontier for what
escalates and for audits. The small model alone answers everything. Shapes: (D, M), D draws by M months; an input is
(D,). Everything is told in docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from suffice.plan.inputs import Inputs
from suffice.plan.result import Architecture
from suffice.plan.units import Plain, Requests, Tokens, Usd, UsdPerToken

SECONDS_PER_DAY = 86_400.0
HOURS_PER_DAY = 24.0

ARCHITECTURES: tuple[Architecture, ...] = ("frontier", "hybrid", "self_hosted")
ONCE = ("building", "labels")
"""The parts that are paid once, in the first month."""

Drawn = Mapping[str, Plain]
"""Inputs by name, (D,) each, in the units of `inputs.UNITS`."""


class Ledger(NamedTuple):
    """Months of all architectures, (D, M): tokens and requests a day, and US dollars a month by part."""

    tokens_per_day: Tokens
    requests_per_day: Requests
    parts: dict[Architecture, dict[str, Usd]]

    def until(self, months: int) -> Ledger:
        """The first months alone."""
        return Ledger(
            Tokens(self.tokens_per_day.values[:, :months]),
            Requests(self.requests_per_day.values[:, :months]),
            {
                name: {part: Usd(usd.values[:, :months]) for part, usd in parts.items()}
                for name, parts in self.parts.items()
            },
        )

    def usd(self, architecture: Architecture) -> Plain:
        """US dollars a month, all parts, (D, M)."""
        first, *others = self.parts[architecture].values()
        return sum(others, first).values

    def mtok_per_day(self) -> Plain:
        """Million tokens a day of the first month, (D,); never 0, so that it can be divided by."""
        return np.asarray(np.maximum(self.tokens_per_day.values[:, 0] / 1e6, 1e-15))

    def once(self, architecture: Architecture) -> Plain:
        """US dollars that are paid once, (D,)."""
        paid = [self.parts[architecture][part].values[:, 0] for part in ONCE if part in self.parts[architecture]]
        return np.asarray(sum(paid, np.zeros(self.tokens_per_day.values.shape[0])))

    def running(self, architecture: Architecture) -> Plain:
        """US dollars a month without what is paid once, (D, M)."""
        usd = self.usd(architecture).copy()
        usd[:, 0] -= self.once(architecture)
        return usd


class _Volume(NamedTuple):
    """A day of each month, (D, M)."""

    requests: Requests
    read: Tokens
    written: Tokens

    @property
    def tokens(self) -> Tokens:
        return self.read + self.written


def ledger(inputs: Inputs, drawn: Drawn, months: int | None = None) -> Ledger:
    """All months of all architectures; `months` where more or fewer than the plan's are looked at."""
    at = {name: values[:, None] for name, values in drawn.items()}
    month = np.arange(inputs.months if months is None else months, dtype=float)[None, :]
    volume = _volume(at, month)
    frontier = _frontier_usd(inputs, at, month, volume)
    small = _small_parts(inputs, at, month, volume)
    escalated = np.minimum(at["small.escalated_share"] * at["small.escalated_to_mean_tokens"], 1.0)
    asked: dict[str, Usd] = {
        "frontier": frontier * (escalated * at["small.escalated_to_frontier_price"]),
        "audits": frontier * (at["small.audit_share"] * (1.0 - escalated)),
    }
    return Ledger(
        volume.tokens,
        volume.requests,
        {"frontier": {"frontier": frontier}, "hybrid": asked | small, "self_hosted": small},
    )


def standing_by(inputs: Inputs, drawn: Drawn) -> tuple[Plain, Plain] | None:
    """Of the first month, (D,) each: how many replicas the mean second keeps busy, and how many there are. None where
    hardware is paid for what it does."""
    if inputs.by_token:
        return None
    at = {name: values[:, None] for name, values in drawn.items()}
    busy = _busy(at, _volume(at, np.zeros((1, 1))))
    return np.asarray(busy[:, 0]), np.asarray(replicas(inputs, at, busy)[:, 0])


def _volume(at: Drawn, month: Plain) -> _Volume:
    growth = (1.0 + at["volume.growth_per_month"]) ** month
    read, written = at.get("volume.input_tokens_per_request"), at.get("volume.output_tokens_per_request")
    if read is None or written is None:
        share, tokens = at["volume.output_share"], Tokens(at["volume.tokens_per_day"] * growth)
        return _Volume(Requests(at["volume.requests_per_day"] * growth), tokens * (1.0 - share), tokens * share)
    if "volume.requests_per_day" in at:
        requests = Requests(at["volume.requests_per_day"] * growth)
    else:
        requests = Requests(at["volume.tokens_per_day"] / (read + written) * growth)
    return _Volume(requests, requests.of(read), requests.of(written))


def _frontier_usd(inputs: Inputs, at: Drawn, month: Plain, volume: _Volume) -> Usd:
    """What the frontier asks a month for all of the traffic."""
    if "frontier.usd_per_mtok" in at:
        read = written = UsdPerToken.per_million(at["frontier.usd_per_mtok"])
    else:
        read = UsdPerToken.per_million(at["frontier.input_usd_per_mtok"])
        written = UsdPerToken.per_million(at["frontier.output_usd_per_mtok"])
    cached_share = at["frontier.cached_share"]
    cached = (
        UsdPerToken.per_million(at["frontier.cached_usd_per_mtok"]) if "frontier.cached_usd_per_mtok" in at else read
    )
    mean_read = read * (1.0 - cached_share) + cached * cached_share
    a_day = volume.read.at(mean_read) + volume.written.at(written)
    listed = (1.0 + at["frontier.price_change_per_year"]) ** (month / 12.0)
    waiting = 1.0 - at["frontier.batch_share"] * at["frontier.batch_discount"]
    return a_day * (listed * waiting * inputs.days_per_month)


def _small_parts(inputs: Inputs, at: Drawn, month: Plain, volume: _Volume) -> dict[str, Usd]:
    """What the small model costs a month, whoever answers in the end: it reads every request."""
    each_month = np.ones_like(volume.tokens.values)
    first = each_month * (month == 0)
    week = at["work.usd_per_engineer_week"]
    return {
        "hardware": _hardware(inputs, at, volume),
        "operations": Usd(at["hardware.operations_usd_per_month"] * each_month),
        "engineers": Usd(at["work.engineer_weeks_per_month"] * week * each_month),
        "retraining": Usd(at["work.retrainings_per_year"] / 12.0 * at["work.usd_per_retraining"] * each_month),
        "building": Usd(at["work.engineer_weeks"] * week * first),
        "labels": Usd(at["work.labels"] * at["work.usd_per_label"] * first),
    }


def _hardware(inputs: Inputs, at: Drawn, volume: _Volume) -> Usd:
    if "hardware.usd_per_mtok" in at:
        return volume.tokens.at(UsdPerToken.per_million(at["hardware.usd_per_mtok"])) * inputs.days_per_month
    busy = _busy(at, volume)
    if inputs.by_token:  # the hours in which it works; utilisation is how full a busy hour is
        hours = busy * (HOURS_PER_DAY * inputs.days_per_month)
        return Usd(hours * at["hardware.usd_per_hour"])
    return Usd(replicas(inputs, at, busy) * _usd_per_replica(inputs, at))


def _busy(at: Drawn, volume: _Volume) -> Plain:
    """How many replicas the mean second keeps busy, at the utilisation that may be planned with."""
    if "hardware.tokens_per_s" in at:
        return volume.tokens.values / SECONDS_PER_DAY / (at["hardware.tokens_per_s"] * at["hardware.utilisation"])
    return volume.requests.values / SECONDS_PER_DAY / (at["hardware.requests_per_s"] * at["hardware.utilisation"])


def replicas(inputs: Inputs, at: Drawn, busy: Plain) -> Plain:
    """Whole ones, enough for the peak, and at least as many as always stand by."""
    peak = busy * at["volume.peak_to_mean"]
    return np.maximum(np.ceil(peak * (1.0 - 1e-12)), float(inputs.least_replicas))


def _usd_per_replica(inputs: Inputs, at: Drawn) -> Plain:
    """US dollars a month for one, busy or idle."""
    if "hardware.purchase_usd" in at:
        return at["hardware.purchase_usd"] / at["hardware.lifetime_months"] + at["hardware.power_usd_per_month"]
    if "hardware.usd_per_month" in at:
        return at["hardware.usd_per_month"]
    return at["hardware.usd_per_hour"] * HOURS_PER_DAY * inputs.days_per_month
