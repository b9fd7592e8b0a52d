"""Budgets and the calendar periods they are for. Pure: the clock is an argument, all periods are in UTC."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

import msgspec

from suffice.core.errors import InputError

Period = Literal["hour", "day", "week", "month", "total"]
"""`week` begins on Monday; `total` has no end."""
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([kMG]?)")
_TIMES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class Budget(msgspec.Struct, frozen=True):
    """So much in each period: US dollars, or tokens."""

    amount: float
    period: Period

    def __str__(self) -> str:
        return f"{self.amount:,.10g}/{self.period}"


def amount(text: str) -> float:
    """`500`, `2.5k`, `5M`. Raises InputError for anything else, and for 0."""
    found = _AMOUNT.fullmatch(text.strip())
    value = float(found[1]) * _TIMES[found[2]] if found else 0.0
    if value <= 0:
        raise InputError(f"{text!r} is no amount above 0, such as 10, 2.5k or 5M")
    return value


def budget(text: str) -> Budget:
    """`10/day`, `5M/month`. Raises InputError."""
    told, _, period = text.partition("/")
    for known in get_args(Period):
        if period == known:
            return Budget(amount(told), known)
    raise InputError(f"{text!r} is no budget: AMOUNT/PERIOD, the period being one of {', '.join(get_args(Period))}")


def began(period: Period, at: float) -> float:
    """When the period that `at` lies in began; seconds since 1970."""
    if period == "total":
        return 0.0
    now = datetime.fromtimestamp(math.floor(at), UTC)  # a fraction might be rounded up into the next period
    if period == "hour":
        return now.replace(minute=0, second=0, microsecond=0).timestamp()
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        day -= timedelta(days=day.weekday())
    elif period == "month":
        day = day.replace(day=1)
    return day.timestamp()


def ends(period: Period, at: float) -> float | None:
    """When the period that `at` lies in ends, which is when the next begins; None: never."""
    if period == "total":
        return None
    start = datetime.fromtimestamp(began(period, at), UTC)
    if period == "month":
        return (start + timedelta(days=32)).replace(day=1).timestamp()
    lengths = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
    return (start + lengths[period]).timestamp()
