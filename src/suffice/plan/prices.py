"""What a call costs, from the maintained table of `genai-prices` and the user's own overrides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from suffice.core.config import Price
from suffice.core.types import Usage

TIERED_TOKENS = 100_000
"""Above this some models charge more per token, so the whole sum is asked for instead of the unit prices."""

MODELS = 4_096
"""Prices kept at hand: the names of models are the callers', who may think of any number."""


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

    def _unit_prices(self, model: str) -> tuple[float, float, float, float] | None:
        """US dollars per token of input, of output, of input read from the provider's cache and put into it."""
        if model in self._overrides:
            price = self._overrides[model]
            read, write = price.cached_usd_per_mtok, price.written_usd_per_mtok
            told = (price.input_usd_per_mtok, price.output_usd_per_mtok)
            cached = (told[0] if read is None else read, told[0] if write is None else write)
            a, b, c, d = (usd / 1e6 for usd in (*told, *cached))
            return a, b, c, d
        each = [
            _table(model, usage)
            for usage in (
                Usage(prompt=1000, completion=0),
                Usage(prompt=1000, completion=1000),
                Usage(prompt=1000, completion=0, cached=1000),
                Usage(prompt=1000, completion=0, written=1000),
            )
        ]
        known = [usd / 1000 for usd in each if usd is not None]
        if len(known) < len(each):
            return None
        return known[0], known[1] - known[0], known[2], known[3]


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
