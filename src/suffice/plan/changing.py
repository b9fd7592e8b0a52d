"""A scenario with values changed: `--what-if KEY=VALUE`."""

from __future__ import annotations

import tomllib
from typing import Any, get_type_hints

import msgspec

from suffice.core.errors import InputError
from suffice.core.toml import known
from suffice.plan.parsing import OTHER_UNITS, TABLES, WHOLE, turned, value_of, whole_number
from suffice.plan.scenario import Band, Frontier, Scenario, Volume


def override(scenario: Scenario, change: str) -> Scenario:
    """The scenario with `KEY=VALUE` changed, KEY being `table.key`, or `key` alone where only one table has it.

    Another volume keeps the tokens of a request as they are, and the price where a bill was told; another price
    replaces one told in another way. Raises InputError for a key that is unknown or could be two, and for a value that
    cannot be.
    """
    where = f"--what-if {change}"
    key, sign, text = change.partition("=")
    if not sign or not key.strip() or not text.strip():
        raise InputError(f"{where}: say KEY=VALUE, such as tokens_per_day=50e6")
    table, name = _place(key.strip(), where)
    return _changed(scenario, table, name, _parsed(text.strip()), where)


def _place(key: str, where: str) -> tuple[str, str]:
    """The table and key that a name means; a name in another unit is one too."""
    names = [f"{table}.{each}" for table, kind in TABLES.items() for each in kind.__struct_fields__]
    names += [name for name in OTHER_UNITS if not name.startswith("claims.")]
    if key in WHOLE:
        return "", key
    found = [name for name in names if name == key or name.partition(".")[2] == key]
    if len(found) > 1:
        raise InputError(f"{where}: `{key}` could be {' or '.join(found)}: say which")
    if not found:
        bare = [name.partition(".")[2] for name in names]
        known(key, [*WHOLE, *(names if "." in key else bare)], where)
    table, _, name = found[0].partition(".")
    return table, name


def _changed(scenario: Scenario, table: str, key: str, value: Any, where: str) -> Scenario:
    if not table:
        return msgspec.structs.replace(scenario, **{key: whole_number(key, value, where)})
    said = turned({key: value}, table, scenario.days_per_month, where)
    ((name, told),) = said.items()
    kind = TABLES[table]
    read = value_of(told, get_type_hints(kind)[name], f"{table}.{name}", f"{where}: [{table}] `{name}`")
    changed = msgspec.structs.replace(getattr(scenario, table), **{name: read})
    if table == "volume":
        changed = _volume_kept(scenario.volume, changed, name)
        scenario = _bill_kept(scenario, changed)
    if table == "frontier":
        changed = _one_price(changed, name)
    if (table, name) == ("hardware", "usd_per_mtok") and "hardware.kind" not in scenario.stated:
        changed = msgspec.structs.replace(changed, kind="serverless")  # as in a file
    stated = scenario.stated | {f"{table}.{name}"}
    return msgspec.structs.replace(scenario, **{table: changed}, stated=stated)


def _volume_kept(before: Volume, after: Volume, name: str) -> Volume:
    """More tokens are more requests, and more requests more tokens: a request stays as it is."""
    if after.input_tokens_per_request is not None and after.output_tokens_per_request is not None:
        if name == "tokens_per_day":
            return msgspec.structs.replace(after, requests_per_day=None)
        return msgspec.structs.replace(after, tokens_per_day=None) if after.requests_per_day else after
    other = {"tokens_per_day": "requests_per_day", "requests_per_day": "tokens_per_day"}.get(name)
    if other is None:
        return after
    old, new, kept = getattr(before, name), getattr(after, name), getattr(before, other)
    if old is None or kept is None or not old.point > 0:
        return after
    times = new.point / old.point
    return msgspec.structs.replace(
        after, **{other: Band(*(times * each for each in (kept.low, kept.point, kept.high)))}
    )


def _bill_kept(scenario: Scenario, after: Volume) -> Scenario:
    """A bill that was told is the stated volume's: at another one the price stays, and the bill is another."""
    bill, old, new = scenario.frontier.usd_per_month, _tokens(scenario.volume), _tokens(after)
    if bill is None or not old or new is None:
        return scenario
    times = new / old
    scaled = Band(bill.low * times, bill.point * times, bill.high * times)
    return msgspec.structs.replace(scenario, frontier=msgspec.structs.replace(scenario.frontier, usd_per_month=scaled))


def _tokens(volume: Volume) -> float | None:
    """Tokens a day at the points; None where they are not told."""
    each, read, said = volume.requests_per_day, volume.input_tokens_per_request, volume.output_tokens_per_request
    if each is not None and read is not None and said is not None:
        return each.point * (read.point + said.point)
    return volume.tokens_per_day.point if volume.tokens_per_day is not None else None


def _one_price(after: Frontier, name: str) -> Frontier:
    """The price that was asked about replaces one that was told in another way."""
    ways = (("usd_per_mtok",), ("usd_per_month",), ("input_usd_per_mtok", "output_usd_per_mtok"))
    if name == "model":
        return msgspec.structs.replace(after, **dict.fromkeys(("cached_usd_per_mtok", *sum(ways, ()))))
    if not any(name in way for way in ways):
        return after
    return msgspec.structs.replace(after, **{key: None for way in ways if name not in way for key in way})


def _parsed(text: str) -> Any:
    """A value as TOML would have it, else the text itself: 50e6, [1, 2, 6], 50M, no_egress."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
