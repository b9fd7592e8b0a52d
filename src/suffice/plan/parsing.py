"""Values of a scenario file: numbers as people write them, ranges, words, other units.

An uncertain number is a number, `[low, high]`, `[low, point, high]` or `{low = , point = , high = }`, for a share also
`{point = , n = }`: counted among n. A number may be written as people say it: 50e6, "50M", "25%". Every mistake is an
InputError of one sentence that begins with its place.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import msgspec

from suffice.core.errors import InputError
from suffice.core.toml import known
from suffice.plan.inputs import SHARE, UNITS, Bounds
from suffice.plan.scenario import Band, Claim, Frontier, Hardware, Needs, Small, Volume, Work
from suffice.plan.uncertain import counted_share

TABLES: dict[str, type[msgspec.Struct]] = {
    "volume": Volume,
    "frontier": Frontier,
    "small": Small,
    "hardware": Hardware,
    "work": Work,
    "needs": Needs,
}
WHOLE: dict[str, Bounds] = {"months": (1, 120), "days_per_month": (20.0, 31.0)}
PLAIN: dict[str, Bounds] = {
    "needs.p99_ms": (1e-3, 1e7),
    "hardware.least_replicas": (0, 1e6),
    "claims.tokens_per_day": (1e-6, 1e15),
    "claims.requests_per_day": (1e-6, 1e12),
    "claims.saves_share": (-1e3, 1.0),
}
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "bn": 1e9, "t": 1e12, "%": 0.01, "": 1.0}
_NUMBER = re.compile(r"\s*\$?\s*([-+]?(?:\d[\d,_ ]*\d|\d)?(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*([kKmMbBtT%]|[bB][nN])?\s*")

Turn = Callable[[float, float], float]
"""A value in the unit it was said in, and the days of a month, to its value in the unit that is calculated with."""

OTHER_UNITS: dict[str, tuple[str, Turn]] = {
    "volume.tokens_per_month": ("tokens_per_day", lambda value, days: value / days),
    "volume.requests_per_month": ("requests_per_day", lambda value, days: value / days),
    "volume.growth_per_year": ("growth_per_month", lambda value, days: _root12(value)),
    "frontier.usd_per_1k_tokens": ("usd_per_mtok", lambda value, days: value * 1e3),
    "frontier.input_usd_per_1k_tokens": ("input_usd_per_mtok", lambda value, days: value * 1e3),
    "frontier.output_usd_per_1k_tokens": ("output_usd_per_mtok", lambda value, days: value * 1e3),
    "claims.tokens_per_month": ("tokens_per_day", lambda value, days: value / days),
    "claims.requests_per_month": ("requests_per_day", lambda value, days: value / days),
    "claims.usd_per_year": ("usd_per_month", lambda value, days: value / 12),
    "claims.usd_per_1k_tokens": ("usd_per_mtok", lambda value, days: value * 1e3),
    "claims.break_even_tokens_per_month": ("break_even_tokens_per_day", lambda value, days: value / days),
}
"""What may be said in another unit: the key it stands for, and how it is turned into its unit."""


def turned(entries: Mapping[str, Any], table: str, days: float, place: str) -> dict[str, Any]:
    """Keys in other units, as the keys they stand for; `days` of a month. Raises InputError for an unknown key, and
    for one thing said in two units."""
    names = list((Claim if table == "claims" else TABLES[table]).__struct_fields__)
    others = [name.partition(".")[2] for name in OTHER_UNITS if name.startswith(f"{table}.")]
    found: dict[str, Any] = {}
    for key, value in entries.items():
        if key not in names + others:
            _elsewhere(key, place)
        known(key, names + others, place)
        if f"{table}.{key}" not in OTHER_UNITS:
            found[key] = value
            continue
        name, turn = OTHER_UNITS[f"{table}.{key}"]
        _percent_fits(value, f"{table}.{name}", f"{place}: `{key}`")
        if name in entries or name in found:
            raise InputError(f"{place}: `{key}` and `{name}` say the same in two units: leave one out")
        found[name] = _in_unit(value, turn, days, f"{place}: `{key}`")
    return found


def _in_unit(value: Any, turn: Turn, days: float, place: str) -> Any:
    """A number, or a band in any of its forms, in another unit."""
    if isinstance(value, dict):
        return {key: each if key == "n" else turn(_number(each, place), days) for key, each in value.items()}
    if isinstance(value, list):
        return [turn(_number(each, place), days) for each in value]
    return turn(_number(value, place), days)


def _root12(share: float) -> float:
    """Growth of a month that makes this growth in a year."""
    return math.copysign(abs(1 + share) ** (1 / 12), 1 + share) - 1


def value_of(value: Any, hint: Any, name: str, place: str) -> Any:  # a band, number, word or switch, as `hint` says
    """A value of the kind that its key takes, within what can be."""
    words = get_args(hint)
    if get_origin(hint) is not None and str in map(type, words):  # a closed list of words, perhaps left out
        return _word(value, words, place)
    kinds = [kind for kind in (words or (hint,)) if kind is not type(None)]
    if any(str in map(type, get_args(kind)) for kind in kinds):
        return _word(value, get_args(kinds[0]), place)
    if Band in kinds:
        _percent_fits(value, name, place)
        return _band(value, UNITS[name][1], place)
    if bool in kinds:
        return _yes_or_no(value, place)
    if str in kinds:
        return text_of(value, place)
    _percent_fits(value, name, place)
    bounds = PLAIN.get(name, (0.0, 1e15))
    number = _within(_number(value, place), bounds, place)
    return _integer(number, place) if int in kinds else number


def _percent_fits(value: Any, name: str, place: str) -> None:
    """Raises InputError for per cent of what is an amount and no share."""
    if "share" in name or UNITS.get(name, ("", SHARE))[0].startswith(("share", "times")):
        return
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    for part in parts:
        if isinstance(part, str) and part.rstrip().endswith("%"):
            raise InputError(f"{place} is an amount, and {part!r} a share")


def _band(value: Any, bounds: Bounds, place: str) -> Band:
    if isinstance(value, dict):
        for key in value:
            known(key, ["low", "point", "high", "n"], place)
        if value.keys() == {"point", "n"} and bounds == SHARE:
            return _counted(value, place)
        if "low" not in value or "high" not in value:
            raise InputError(
                f"{place}: a range has `low` and `high`, and perhaps `point`; a counted share `point` and `n`"
            )
        n = None if "n" not in value else _integer(_within(_number(value["n"], place), (1, 1e12), place), place)
        parts = [value[key] for key in ("low", "point", "high") if key in value]
    else:
        parts, n = (value, None) if isinstance(value, list) else ([value], None)
    if not 1 <= len(parts) <= 3:
        raise InputError(f"{place}: a range is [low, high] or [low, point, high]")
    numbers = [_within(_number(part, place), bounds, place) for part in parts]
    low, high = numbers[0], numbers[-1]
    point = numbers[1] if len(numbers) == 3 else _middle(low, high, bounds)
    if not low <= point <= high:
        raise InputError(f"{place}: low, point and high must rise, not {', '.join(f'{each:g}' for each in numbers)}")
    return Band(low, point, high, n)


def _counted(value: Mapping[str, Any], place: str) -> Band:
    n = _integer(_within(_number(value["n"], place), (1, 1e12), place), place)
    return counted_share(_within(_number(value["point"], place), SHARE, place), n)


def _middle(low: float, high: float, bounds: Bounds) -> float:
    """The point of a range without one: the middle of a share or of what may be negative, the geometric mean of an
    amount, since amounts are uncertain by factors."""
    if low > 0 and bounds != SHARE:
        return low if low == high else math.sqrt(low) * math.sqrt(high)
    return (low + high) / 2


def _number(value: Any, place: str) -> float:
    """A number, or one as people write it: "50M", "1.5B", "25%", "$4,500"."""
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        if not found or not found[1]:
            raise InputError(f"{place}: {value!r} is no number (50e6, 50M and 25% are)")
        value = float(re.sub(r"[,_ ]", "", found[1])) * _SUFFIXES[(found[2] or "").lower()]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{place} must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError as error:
        raise InputError(f"{place}: more than any number that can be counted with") from error
    if not math.isfinite(number):
        raise InputError(f"{place} must be a number, not {number:g}")
    return number


def _within(number: float, bounds: Bounds, place: str) -> float:
    low, high = bounds
    if low <= number <= high:
        return number
    if bounds == SHARE:
        hint = f"; {number:g}% is {number / 100:g}" if 2 <= number <= 100 else ""
        raise InputError(f"{place} is a share from 0 to 1, not {number:g}{hint}")
    if number < 0 <= low:
        raise InputError(f"{place} cannot be negative, but is {number:g}")
    raise InputError(f"{place} lies between {low:g} and {high:g}, and is {number:g}")


def _integer(number: float, place: str) -> int:
    if number != int(number):
        raise InputError(f"{place} must be a whole number, not {number:g}")
    return int(number)


def _word(value: Any, words: tuple[Any, ...], place: str) -> str:
    if value in words and isinstance(value, str):
        return value
    close = difflib.get_close_matches(str(value), [word for word in words if isinstance(word, str)], n=1, cutoff=0.7)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{place} is one of {', '.join(f'{word!r}' for word in words)}, not {value!r}{hint}")


def _yes_or_no(value: Any, place: str) -> bool:
    words = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    raise InputError(f"{place} is true or false, not {value!r}")


def text_of(value: Any, place: str) -> str:
    """A text, and nothing else."""
    if not isinstance(value, str):
        raise InputError(f"{place} must be a text, not {value!r}")
    return value


def whole_number(key: str, value: Any, where: str) -> float | int:
    """A number that stands above all tables."""
    number = _within(_number(value, f"{where}: `{key}`"), WHOLE[key], f"{where}: `{key}`")
    return _integer(number, f"{where}: `{key}`") if key == "months" else number


def _elsewhere(key: str, place: str) -> None:
    """Raises InputError where a key is known, but of another table."""
    others = [table for table, kind in TABLES.items() if key in kind.__struct_fields__]
    if others:
        raise InputError(f"{place}: `{key}` belongs to {' or '.join(f'[{table}]' for table in others)}")
