"""What a call costs, from the maintained table of `genai-prices` and the user's own overrides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from suffice.core.config import Price

TIERED_TOKENS = 100_000
"""Above this some models charge more per token, so the whole sum is asked for instead of the unit prices."""


class Prices:
    """Prices a call; None for a model that neither the overrides nor the table know."""

    def __init__(self, overrides: Mapping[str, Price]) -> None:
        self._overrides = overrides
        self._unit = cache(self._unit_prices)

    def usd(self, model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
        """US dollars for one call."""
        if prompt_tokens > TIERED_TOKENS and model not in self._overrides:
            return _table(model, prompt_tokens, completion_tokens)
        unit = self._unit(model)
        return None if unit is None else prompt_tokens * unit[0] + completion_tokens * unit[1]

    def _unit_prices(self, model: str) -> tuple[float, float] | None:
        """US dollars per input and per output token."""
        if model in self._overrides:
            price = self._overrides[model]
            return price.input_usd_per_mtok / 1e6, price.output_usd_per_mtok / 1e6
        both = _table(model, 1000, 1000), _table(model, 1000, 0)
        if both[0] is None or both[1] is None:
            return None
        return both[1] / 1000, (both[0] - both[1]) / 1000


def _table(model: str, prompt_tokens: int, completion_tokens: int) -> float | None:
    from genai_prices import Usage, calc_price  # slow to import, and not needed where every model is overridden

    try:
        usage = Usage(input_tokens=prompt_tokens, output_tokens=completion_tokens)
        return float(calc_price(usage, model_ref=model).total_price)
    except LookupError:
        return None
