"""A scenario from TOML: every mistake is one sentence that names file, table and key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from suffice.core import toml
from suffice.core.errors import InputError
from suffice.plan import changing, starting
from suffice.plan.parsing import TABLES, WHOLE, text_of, turned, value_of, whole_number
from suffice.plan.scenario import DAYS_PER_MONTH, Claim, Scenario

MOST_TOKENS_PER_DAY = 1e15
"""Growth beyond this is a slip: it is more than all models together read in a day."""


def read(path: Path) -> Scenario:
    """A scenario from a file. Raises InputError naming file, table and key."""
    return from_dict(toml.read(path), str(path))


def from_dict(data: Mapping[str, Any], where: str) -> Scenario:
    """A scenario from parsed TOML. Raises InputError that names `where`, the table and the key."""
    top = ["name", *WHOLE, *TABLES, "claims"]
    for key, value in data.items():
        toml.known(key, top, where)
        if key in TABLES and not isinstance(value, dict):
            raise InputError(f"{where}: `{key}` must be a table, [{key}]")
    built: dict[str, Any] = {key: whole_number(key, data[key], where) for key in WHOLE if key in data}
    if "name" in data:
        built["name"] = text_of(data["name"], f"{where}: `name`")
    days = built.get("days_per_month", DAYS_PER_MONTH)
    tables = {table: turned(data[table], table, days, f"{where}: [{table}]") for table in TABLES if table in data}
    for table, entries in tables.items():
        built[table] = _table(entries, table, f"{where}: [{table}]")
    stated = frozenset(f"{table}.{key}" for table, entries in tables.items() for key in entries)
    claims = _claims(data.get("claims", []), days, where)
    return whole(Scenario(**built, claims=claims, stated=stated), where)


def template(scenario: Scenario | None = None) -> str:
    """The commented file that `suffice plan --init` writes: it asks what matters, can be planned as it stands, and
    reads back as the scenario it was written from."""
    return starting.written(scenario)


def override(scenario: Scenario, *changes: str) -> Scenario:
    """The scenario with values changed, `KEY=VALUE` each, as `changing.override` tells; then checked as a whole."""
    for change in changes:
        scenario = whole(changing.override(scenario, change), f"--what-if {change}")
    return scenario


def whole(scenario: Scenario, where: str) -> Scenario:
    """What keys together cannot say. Raises InputError."""
    volume, small = scenario.volume, scenario.small
    each = (volume.input_tokens_per_request, volume.output_tokens_per_request)
    tokens = (volume.requests_per_day.high if volume.requests_per_day else 0.0) * sum(
        band.high for band in each if band
    )
    tokens = max(tokens, volume.tokens_per_day.high if volume.tokens_per_day else 0.0)
    try:
        grown = tokens * (1 + volume.growth_per_month.high) ** (scenario.months - 1)
    except OverflowError:
        grown = math.inf
    if grown > MOST_TOKENS_PER_DAY:
        raise InputError(
            f"{where}: [volume]: `growth_per_month` of up to {volume.growth_per_month.high:g} makes {grown:.2g} "
            f"tokens a day in month {scenario.months}, more than all models read: 0.1 is a tenth more each month"
        )
    escalated = small.escalated_share.point * small.escalated_to_mean_tokens.point
    if escalated > 1:
        raise InputError(
            f"{where}: [small]: `escalated_share` {small.escalated_share.point:g} of the requests with "
            f"`escalated_to_mean_tokens` {small.escalated_to_mean_tokens.point:g} times the tokens is more than 100% "
            "of all tokens"
        )
    return scenario


def _table(entries: Mapping[str, Any], table: str, place: str) -> msgspec.Struct:
    kind = TABLES[table]
    hints = get_type_hints(kind)
    values = {key: value_of(value, hints[key], f"{table}.{key}", f"{place}: `{key}`") for key, value in entries.items()}
    if table == "hardware" and "kind" not in values:
        values["kind"] = _kind_of(values)
    return kind(**values)


def _kind_of(values: Mapping[str, Any]) -> str:
    """Where the hardware's kind was left out: what its other keys are about."""
    if "usd_per_mtok" in values:
        return "serverless"
    if "purchase_usd" in values:
        return "owned"
    return "rented" if "tokens_per_s" in values else "cpu"


def _claims(entries: Any, days: float, where: str) -> tuple[Claim, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{where}: `claims` must be tables, [[claims]]")
    hints = get_type_hints(Claim)
    claims = []
    for i, entry in enumerate(entries, 1):
        place = f"{where}: [[claims]] {i}"
        said = turned(entry, "claims", days, place)
        if "of" not in said:
            raise InputError(f"{place}: `of` is missing: frontier, hybrid or self_hosted")
        if not said.keys() - {"of", "said"}:
            raise InputError(f"{place} claims nothing: give `usd_per_month`, `usd_per_mtok` or `times_cheaper`, say")
        read = {key: value_of(value, hints[key], f"claims.{key}", f"{place}: `{key}`") for key, value in said.items()}
        claims.append(Claim(**read))
    return tuple(claims)
