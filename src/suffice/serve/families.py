"""What is measured: the names, kinds and labels of all metrics, and how numbers are written for Prometheus. Pure.

Every label's value comes out of a closed list or out of the configuration, and how many there may be is bounded: what
is beyond that is counted as `other`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ADDED_S = (5e-05, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
PREDICT_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Family:
    """One metric. A histogram takes a double for each bucket, one for what is above them, one for the sum."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def width(self) -> int:
        """How many doubles one series takes."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1

    def slot(self, labels: Iterable[str]) -> str:
        """The name under which a series with these label values is counted. ASCII, one line."""
        return f"{self.name}\t{json.dumps([*labels])}"


_SPENT = ("task", "key", "model", "upstream")
FAMILIES = {
    family.name: family
    for family in (
        Family("suffice_requests_total", "counter", "Requests by route and reason.", ("route", "reason")),
        Family(
            "suffice_answers_total", "counter", "Answers by dialect and class of status.",
            ("route", "dialect", "status"),
        ),
        Family("suffice_requests_in_flight", "gauge", "Requests under way."),
        Family(
            "suffice_request_seconds", "histogram", "From a request's first byte to its answer's last.",
            ("route",), REQUEST_S,
        ),
        Family(
            "suffice_first_byte_seconds", "histogram", "From a request's first byte to its answer's first.",
            ("route",), REQUEST_S,
        ),
        Family(
            "suffice_added_seconds", "histogram", "What the gateway added: the whole, less the time at upstreams.",
            ("route",), ADDED_S,
        ),
        Family("suffice_predict_seconds", "histogram", "A specialist's prediction, waiting included.", (), PREDICT_S),
        Family(
            "suffice_tokens_total", "counter",
            "Tokens on record; prompt includes what the provider's cache gave or took.", ("kind", *_SPENT),
        ),
        Family("suffice_cost_usd_total", "counter", "US dollars on record; audits are apart.", _SPENT),
        Family("suffice_unpriced_total", "counter", "Paid answers without a price.", _SPENT),
        Family(
            "suffice_upstream_attempts_total", "counter", "Tries at upstreams by what came of them.",
            ("upstream", "outcome"),
        ),
        Family("suffice_breaker_open", "gauge", "1 while an upstream is left alone.", ("upstream",)),
        Family("suffice_audits_total", "counter", "Audits by outcome.", ("outcome",)),
        Family("suffice_audit_cost_usd_total", "counter", "US dollars for audits.", ("upstream",)),
        Family("suffice_faults_total", "counter", "Faults of specialists and matchers."),
        Family("suffice_unrecorded_total", "counter", "Exchanges that were served and not recorded."),
        Family("suffice_records_unwritten", "gauge", "Exchanges answered and not yet on the disk."),
        Family("suffice_records_lag_seconds", "gauge", "How long the oldest of them has waited, by the worst worker."),
        Family("suffice_records_slots_free", "gauge", "Exchanges that may still be under way."),
        Family("suffice_specialists_loaded", "gauge", "Specialists in memory."),
        Family("suffice_specialists_bytes", "gauge", "Their bytes."),
        Family("suffice_specialist_loads_total", "counter", "Loads by outcome.", ("outcome",)),
        Family("suffice_specialist_evictions_total", "counter", "Specialists let go for want of memory."),
        Family("suffice_specialist_predictions_total", "counter", "Predictions by where they ran.", ("where",)),
        Family("suffice_specialist_batches_total", "counter", "Batches of the thread."),
        Family("suffice_task_stage", "gauge", "1 for the stage that a task is in.", ("task", "stage")),
        Family("suffice_watch_evidence", "gauge", "Evidence against the promise, a natural logarithm.", ("task",)),
        Family("suffice_watch_alarm_at", "gauge", "The evidence that is an alarm.", ("task",)),
        Family("suffice_watch_requests", "gauge", "Requests under the open watch.", ("task",)),
        Family("suffice_watch_audits", "gauge", "Audits of the open watch by state.", ("task", "state")),
    )
}  # fmt: skip
HIGHEST = frozenset({"suffice_records_lag_seconds"})
"""Gauges of which the workers' highest is told, not the sum."""


def text(series: Mapping[str, list[float]]) -> str:
    """Series by their slots' names, in Prometheus' text format (0.0.4). Names that no family has are left out."""
    of: dict[str, list[tuple[list[str], list[float]]]] = {}
    for slot, values in series.items():
        name, _, told = slot.partition("\t")
        of.setdefault(name, []).append((json.loads(told), values))
    lines = []
    for family in FAMILIES.values():
        if family.name in of:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            for labels, values in sorted(of[family.name]):
                lines += _lines(family, labels, values)
    return "\n".join(lines) + "\n"


def _lines(family: Family, labels: list[str], values: list[float]) -> list[str]:
    told = [f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True)]
    if family.kind != "histogram":
        return [f"{family.name}{_braces(told)} {_number(values[0])}"]
    lines, count = [], 0.0
    for bound, value in zip((*(f"{b:g}" for b in family.buckets), "+Inf"), values, strict=False):
        count += value
        upto = f'le="{bound}"'
        lines.append(f"{family.name}_bucket{_braces([*told, upto])} {_number(count)}")
    lines.append(f"{family.name}_sum{_braces(told)} {_number(values[-1])}")
    lines.append(f"{family.name}_count{_braces(told)} {_number(count)}")
    return lines


def _braces(told: list[str]) -> str:
    return "{" + ",".join(told) + "}" if told else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
