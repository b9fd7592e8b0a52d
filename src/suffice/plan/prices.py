"""What a call costs, from the maintained table of `genai-prices` and the user's own overrides."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from importlib.metadata import version

from suffice.core.config import Price
from suffice.core.errors import InputError
from suffice.core.types import Usage

TIERED_TOKENS = 100_000
"""Above this some models charge more per token, so the whole sum is asked for instead of the unit prices."""

MODELS = 4_096
"""Prices kept at hand: the names of models are the callers', who may think of any number."""


@dataclass(frozen=True)
class Unit:
    """What a model costs, in US dollars per million tokens, and who says so (`[prices.MODEL]`, or the table)."""

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_usd_per_mtok: float
    written_usd_per_mtok: float
    said_by: str


class Prices:
    """Prices a call; None for a model that neither the overrides nor the table know."""

    def __init__(self, overrides: Mapping[str, Price]) -> None:
        self._overrides = overrides
        self._unit = lru_cache(MODELS)(self._unit_prices)

    def usd(self, model: str, usage: Usage) -> float | None:
        """US dollars for one call."""
        if usage.prompt > TIERED_TOKENS and model not in self._overrides:
            return _table(model, usage)
        unit = self._unit(model)
        if unit is None:
            return None
        plain = max(usage.prompt - usage.cached - usage.written, 0)
        tokens = (plain, usage.completion, usage.cached, usage.written)
        return sum(n * price for n, price in zip(tokens, unit, strict=True))

    def unit(self, model: str, prompt: int = 0) -> Unit:
        """What a million tokens cost, in requests of so many tokens of input: of long ones some models ask more.

        Raises InputError for a model that nobody here knows.
        """
        long = prompt > TIERED_TOKENS and model not in self._overrides
        unit = _per_token(model, prompt) if long else self._unit(model)
        if unit is None:
            close = difflib.get_close_matches(model, {*self._overrides, *_names()}, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else "."
            raise InputError(
                f"no price is known for model {model!r} in {table_version()}{hint} Give its price: "
                f'[prices."{model}"] in suffice.toml, or `input_usd_per_mtok` and `output_usd_per_mtok` in the '
                "scenario's [frontier]"
            )
        told = "[prices] of suffice.toml" if model in self._overrides else table_version()
        a, b, c, d = (round(usd * 1e6, 9) for usd in unit)  # 5, not 4.999999999999999
        return Unit(a, b, c, d, told)

    def _unit_prices(self, model: str) -> tuple[float, float, float, float] | None:
        """US dollars per token of input, of output, of input read from the provider's cache and put into it."""
        if model in self._overrides:
            price = self._overrides[model]
            read, write = price.cached_usd_per_mtok, price.written_usd_per_mtok
            told = (price.input_usd_per_mtok, price.output_usd_per_mtok)
            cached = (told[0] if read is None else read, told[0] if write is None else write)
            a, b, c, d = (usd / 1e6 for usd in (*told, *cached))
            return a, b, c, d
        return _per_token(model, 1000)


def _per_token(model: str, prompt: int) -> tuple[float, float, float, float] | None:
    """As `_unit_prices`, from the table, for requests of so many tokens of input."""
    each = [
        _table(model, usage)
        for usage in (
            Usage(prompt=prompt, completion=0),
            Usage(prompt=prompt, completion=1000),
            Usage(prompt=prompt, completion=0, cached=prompt),
            Usage(prompt=prompt, completion=0, written=prompt),
        )
    ]
    known = [usd for usd in each if usd is not None]
    if len(known) < len(each):
        return None
    return known[0] / prompt, (known[1] - known[0]) / 1000, known[2] / prompt, known[3] / prompt


def table_version() -> str:
    """The table of prices that is installed."""
    return f"genai-prices {version('genai-prices')}"


def table_date(today: date) -> str | None:
    """The newest day, not after today, from which a price of the table holds: how old the table is at most.

    It carries no date of its own; None where none of its prices has one.
    """
    return max((start.isoformat() for start in _starts() if start <= today), default=None)


@lru_cache(1)
def _starts() -> list[date]:
    from genai_prices.data_snapshot import get_snapshot

    variants = (v for provider in get_snapshot().providers for m in provider.models for v in m.price_variants or ())
    starts = (getattr(variant.constraint, "start_date", None) for variant in variants)
    return [start for start in starts if start is not None]


def _names() -> list[str]:
    from genai_prices.data_snapshot import get_snapshot

    return [model.id for provider in get_snapshot().providers for model in provider.models]


def _table(model: str, usage: Usage) -> float | None:
    from genai_prices import Usage as Tokens  # slow to import, and not needed where every model is overridden
    from genai_prices import calc_price

    try:
        tokens = Tokens(
            input_tokens=usage.prompt,
            output_tokens=usage.completion,
            cache_read_tokens=usage.cached or None,
            cache_write_tokens=usage.written or None,
        )
        return float(calc_price(tokens, model_ref=model).total_price)
    except LookupError:
        return None
