"""What a plan is made from: the inputs, typed, each with its unit in its name and each perhaps uncertain.

Not known here: where an input came from a file or from records, and what anything costs in the end.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Source = Literal["measured", "scenario", "assumed", "certificate", "table", "derived"]
"""Where an input came from: records; the scenario file; a default of ours; a release; the table of prices; the others.
"""

DAYS_PER_MONTH = 365 / 12


class Band(msgspec.Struct, frozen=True):
    """An uncertain input: nine times in ten it lies within [low, high]; a certain one has all three alike.

    `n`: how many observations stand behind it; None where nobody counted.
    """

    low: float
    point: float
    high: float
    n: int | None = None


def sure(value: float) -> Band:
    """A number that is known."""
    return Band(value, value, value)


class Volume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked now and in a year. Two of requests a day, tokens a request and tokens a day give the third."""

    requests_per_day: Band | None = None
    tokens_per_day: Band | None = None
    input_tokens_per_request: Band | None = None
    output_tokens_per_request: Band | None = None
    growth_per_month: Band = sure(0.0)  # 0.1: a tenth more each month
    output_share: Band = Band(0.05, 0.2, 0.4)  # of tokens, where the tokens of a request are not told apart
    peak_to_mean: Band = sure(3.0)  # the busiest hour against the mean hour


class Frontier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The dear model: its name in the table of prices, or its prices, or what it costs now (`usd_per_month`)."""

    model: str | None = None
    usd_per_mtok: Band | None = None  # input and output alike
    usd_per_month: Band | None = None  # the bill of the first month
    input_usd_per_mtok: Band | None = None
    output_usd_per_mtok: Band | None = None
    cached_usd_per_mtok: Band | None = None
    cached_share: Band = sure(0.0)  # of input tokens that the provider's cache gives
    batch_share: Band = sure(0.0)  # of tokens that may wait for the batch price
    batch_discount: Band = sure(0.5)
    price_change_per_year: Band = Band(-0.5, -0.2, 0.1)  # -0.8: prices fall by 80% in a year


class Small(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The small model and how much it may do: shares are of requests, and of their tokens unless the ratio says."""

    escalated_share: Band = Band(0.1, 0.25, 0.5)
    audit_share: Band = sure(0.01)  # of accepted requests
    escalated_to_mean_tokens: Band = sure(1.0)  # tokens of an escalated request against those of a mean one
    escalated_to_frontier_price: Band = sure(1.0)  # below 1: what escalates goes to a cheaper model


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the small model runs. `rented`: by the hour, on or off duty. `owned`: bought, and written off over its
    life. `serverless`: by the token or the busy second, nothing while idle. `cpu`: beside the gateway, at no price of
    its own but the machine's."""

    kind: Literal["rented", "owned", "serverless", "cpu"] = "cpu"
    usd_per_hour: Band | None = None
    usd_per_month: Band | None = None  # of one replica, instead of by the hour
    usd_per_mtok: Band | None = None  # serverless only, where it is sold by the token
    purchase_usd: Band | None = None
    lifetime_months: Band = sure(36.0)
    power_usd_per_month: Band = sure(0.0)
    tokens_per_s: Band | None = None  # input and output together, of one replica under load
    requests_per_s: Band | None = None  # instead of tokens: of one core, for a specialist on the processor
    utilisation: Band = sure(0.5)  # of the throughput that may be planned with at the peak
    least_replicas: int = 1
    operations_usd_per_month: Band = sure(0.0)


class Work(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """People and data. What a hybrid needs once, and what it needs again."""

    engineer_weeks: Band = Band(1.0, 2.0, 6.0)
    usd_per_engineer_week: Band = Band(2_500.0, 4_000.0, 6_000.0)
    engineer_weeks_per_month: Band = Band(0.0, 0.1, 0.5)
    labels: Band = sure(0.0)
    usd_per_label: Band = Band(0.05, 0.2, 1.0)
    retrainings_per_year: Band = sure(4.0)
    usd_per_retraining: Band = sure(20.0)


class Needs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What binds before money does, and what is known of the work and of the team. None: not said."""

    p99_ms: float | None = None
    runs_on: Literal["server", "edge"] = "server"
    residency: Literal["none", "region", "no_egress"] = "none"
    compliance: bool | None = None
    work: Literal["narrow", "mixed", "wide"] | None = None
    data: Literal["plenty", "sparse"] | None = None
    user_facing: bool | None = None
    verifiable: bool | None = None
    reasoning: bool | None = None  # long documents, several steps, novel synthesis, broad knowledge
    product: Literal["early", "growing", "mature"] | None = None
    load: Literal["steady", "bursty"] | None = None
    ml_team: Literal["none", "some", "strong"] | None = None
    gpu_operations: bool | None = None
    cost_binds: bool | None = None  # what it costs decides whether it is done at all
    untuned_only: bool | None = None  # small models were tried, but only as they come
    held_out_checked: bool | None = None  # the mean and the worst 5% were looked at on held-out rows


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody says it costs: the plan recomputes it, and says what would have to be so.

    A volume of its own, where it was said of another one than the scenario's.
    """

    of: Literal["frontier", "hybrid", "self_hosted"]
    usd_per_month: float | None = None
    usd_per_mtok: float | None = None
    times_cheaper: float | None = None  # than the frontier
    saves_share: float | None = None  # of the frontier's bill: 0.9 is ten times cheaper
    tokens_per_day: float | None = None
    requests_per_day: float | None = None
    break_even_usd_per_month: float | None = None  # of the frontier's bill, from which on it is said to pay
    break_even_requests_per_day: float | None = None
    break_even_tokens_per_day: float | None = None
    break_even_months: float | None = None  # until what it took to build is paid back
    said: str = ""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All inputs of a plan. `stated`: those that the file gave ("volume.tokens_per_day"); the others are defaults."""

    name: str = "plan"
    months: int = 12
    days_per_month: float = DAYS_PER_MONTH
    volume: Volume = Volume()
    frontier: Frontier = Frontier()
    small: Small = Small()
    hardware: Hardware = Hardware()
    work: Work = Work()
    needs: Needs = Needs()
    claims: tuple[Claim, ...] = ()
    stated: frozenset[str] = frozenset()
