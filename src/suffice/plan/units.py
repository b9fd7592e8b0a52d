"""Amounts that know their unit: tokens, requests, US dollars, and US dollars per token.

Like is added to like only, anything may be multiplied by a plain number, and tokens become dollars at a price: a type
checker refuses the rest, and so does the program while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

Plain = NDArray[np.float64]
"""Numbers without a unit: shares, ratios, counts; (D, 1) by draw, (1, M) by month or (D, M)."""


class _Amount:
    """Numbers of one unit, of any shape that numpy can put together."""

    __slots__ = ("values",)
    __array_ufunc__ = (
        None  # numpy leaves arrays times an amount alone, so that it is a TypeError and no array of objects
    )

    def __init__(self, values: Plain | float) -> None:
        self.values: Plain = np.asarray(values, dtype=float)

    def _same(self, other: Self, does: Callable[[Plain, Plain], Plain]) -> Self:
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} and {type(other).__name__} are different units")
        return type(self)(does(self.values, other.values))

    def __add__(self, other: Self) -> Self:
        return self._same(other, np.add)

    def __sub__(self, other: Self) -> Self:
        return self._same(other, np.subtract)

    def __mul__(self, times: Plain | float) -> Self:
        return type(self)(self.values * times)


class Usd(_Amount):
    """US dollars."""

    __slots__ = ()


class UsdPerToken(_Amount):
    """US dollars per token: a millionth of what price lists print."""

    __slots__ = ()

    @classmethod
    def per_million(cls, usd: Plain | float) -> Self:
        """From US dollars per million tokens."""
        return cls(np.asarray(usd, dtype=float) / 1e6)


class Tokens(_Amount):
    """Tokens, of a day or of a month as the name of the variable says."""

    __slots__ = ()

    def at(self, price: UsdPerToken) -> Usd:
        """What they cost at a price. Raises TypeError for anything that is no price per token."""
        if type(price) is not UsdPerToken:
            raise TypeError(f"Tokens cost UsdPerToken, not {type(price).__name__}")
        return Usd(self.values * price.values)


class Requests(_Amount):
    """Requests, of a day or of a month as the name of the variable says."""

    __slots__ = ()

    def of(self, tokens_each: Plain | float) -> Tokens:
        """The tokens of so many requests."""
        return Tokens(self.values * tokens_each)
