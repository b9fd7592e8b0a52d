"""Solving the whole arithmetic for one input, all others at their points: where does a number become another one?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from suffice.plan.costs import Ledger, ledger
from suffice.plan.inputs import SHARE, UNITS, Inputs, tokens_per_day
from suffice.plan.uncertain import points
from suffice.plan.units import Plain

GRID = 60
"""Places that are looked at on either side of the point before a root is narrowed down."""

REACH = 1e6
"""An amount is looked at down to a millionth of its point and up to a million times of it."""

MOST_TOKENS = 1e13
"""Tokens a day up to which a volume is looked at, however small today's is."""

VOLUME = "volume.tokens_per_day"
PRICE = "frontier.usd_per_mtok"
_BILL = "frontier.usd_per_month"
_PRICES = ("usd_per_mtok", "usd_per_month", "input_usd_per_mtok", "output_usd_per_mtok", "cached_usd_per_mtok")

Found = Callable[[Ledger], Plain]
"""What is looked at: (D,) of a ledger of D draws; a root is where it is 0."""


def at(inputs: Inputs, name: str, values: Plain, months: int | None = None) -> Ledger:
    """The ledger at (K,) values of one input. `VOLUME` and `PRICE` move all inputs of their kind in step."""
    drawn = points(inputs)
    for each, times in _moved(inputs, name).items():
        drawn[each] = values if times is None else values * times
    return ledger(inputs, drawn, months)


def volume_of(inputs: Inputs, name: str, value: float) -> Inputs:
    """The inputs at another point of `VOLUME` or `PRICE` (or of any input), their bands in proportion. At another
    volume a bill that was told is another one: the price stays."""
    for each, times in _moved(inputs, name).items():
        old, new = inputs.numbers[each].band, value * (1.0 if times is None else times)
        factor = new / old.point if old.point else 1.0
        band = type(old)(old.low * factor, new, old.high * factor, old.n)
        inputs = inputs.swapped(each, band)
    return inputs


def value_of(inputs: Inputs, name: str) -> float:
    """The point of an input; of `VOLUME` and `PRICE` the tokens of the first day and the mean price of a token."""
    if name == VOLUME:
        return tokens_per_day(inputs.numbers)
    if name == PRICE and PRICE not in inputs.numbers:
        shown = ledger(inputs, points(inputs), 1)
        waiting = (
            1 - inputs.numbers["frontier.batch_share"].band.point * inputs.numbers["frontier.batch_discount"].band.point
        )
        mtok = float(shown.tokens_per_day.values[0, 0]) * inputs.days_per_month / 1e6
        return float(shown.usd("frontier")[0, 0]) / mtok / waiting if mtok and waiting else 0.0
    return inputs.numbers[name].band.point


def root(inputs: Inputs, name: str, found: Found, months: int | None = None) -> float | None:
    """The value nearest to the point at which `found` changes its sign, by Brent's method; None if there is none."""
    point = value_of(inputs, name)
    below, above = _looked_at(inputs, name, point)
    signs = _signs(found(at(inputs, name, np.concatenate([below, above]), months)), len(below) + len(above))
    sides = ((below, signs[: len(below)]), (above, signs[len(below) :]))
    crossings = [_nearest(inputs, name, found, *side, months) for side in sides]
    near = [value for value in crossings if value is not None]
    return min(near, key=lambda value: abs(value - point)) if near else None


def last_root(inputs: Inputs, name: str, found: Found, months: int | None = None) -> float | None:
    """The highest value at which `found` rises above 0, and above which it stays there; None if there is none."""
    point = value_of(inputs, name)
    below, above = _looked_at(inputs, name, point)
    values = np.concatenate([below[::-1], above[1:]])
    signs = _signs(found(at(inputs, name, values, months)), len(values))
    under = np.flatnonzero(signs < 0)
    if signs[-1] < 0 or not len(under):
        return None
    low = int(under[-1])
    return _narrowed(inputs, name, found, float(values[low]), float(values[low + 1]), months)


def _nearest(inputs: Inputs, name: str, found: Found, values: Plain, signs: Plain, months: int | None) -> float | None:
    """The first change of sign along values that lead away from the point."""
    changed = np.flatnonzero(signs != signs[0])
    if not len(changed):
        return None
    after = int(changed[0])
    return _narrowed(inputs, name, found, float(values[after - 1]), float(values[after]), months)


def _signs(values: Plain, n: int) -> Plain:
    return np.where(np.broadcast_to(values, (n,)) >= 0, 1.0, -1.0)


def _narrowed(inputs: Inputs, name: str, found: Found, a: float, b: float, months: int | None) -> float:
    def one(value: float) -> float:
        return float(np.broadcast_to(found(at(inputs, name, np.array([value]), months)), (1,))[0])

    signs = one(a), one(b)
    if 0.0 in signs:
        return (a, b)[signs.index(0.0)]
    return float(brentq(one, a, b, xtol=1e-12 + 1e-8 * max(abs(a), abs(b)), rtol=1e-8))


def _moved(inputs: Inputs, name: str) -> dict[str, float | None]:
    """The inputs that move with a name, and how many times of its value each is (None: it is the value)."""
    numbers = inputs.numbers
    if name == VOLUME:
        names = [each for each in (VOLUME, "volume.requests_per_day", _BILL) if each in numbers]
    elif name == PRICE:
        names = [each for key in _PRICES if (each := f"frontier.{key}") in numbers]
    else:
        return {name: None}
    whole = value_of(inputs, name)
    return {each: numbers[each].band.point / whole if whole else 1.0 for each in names}


def _looked_at(inputs: Inputs, name: str, point: float) -> tuple[Plain, Plain]:
    """Values away from the point, downwards and upwards, over all that can be."""
    low, high = UNITS[name][1]
    steps = np.linspace(0.0, 1.0, GRID)
    if (low, high) == SHARE or low < 0:
        high = min(high, 10.0)
        return point + (low - point) * steps, point + (high - point) * steps
    base = point or 1e-3
    below = np.maximum(base * REACH**-steps, low)
    reach = max(REACH, MOST_TOKENS / base) if name == VOLUME else REACH
    above = np.minimum(base * reach**steps, high)
    return np.append(below, low) if point else np.array([point]), above if point else np.append([0.0], above)
