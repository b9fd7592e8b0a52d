"""What a call costs."""

from __future__ import annotations

import pytest

from suffice.core.config import Price
from suffice.core.types import Usage
from suffice.plan.prices import Prices


def test_the_users_own_price_comes_first() -> None:
    prices = Prices({"gpt-4o": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)})
    assert prices.usd("gpt-4o", Usage(prompt=1_000_000, completion=100_000)) == pytest.approx(2.0)
    assert prices.usd("gpt-4o", Usage(prompt=0, completion=0)) == 0.0


def test_a_model_of_the_table_and_one_that_nobody_knows() -> None:
    prices = Prices({})
    assert prices.usd("gpt-4o", Usage(prompt=1_000_000, completion=0)) == pytest.approx(2.5, rel=0.5)
    one, two = (
        prices.usd("gpt-4o", Usage(prompt=1000, completion=1000)),
        prices.usd("gpt-4o", Usage(prompt=2000, completion=2000)),
    )
    assert one is not None
    assert two == pytest.approx(2 * one)
    for unknown in ("my-own-model", "", "suffice/t@1"):
        assert prices.usd(unknown, Usage(prompt=10, completion=10)) is None


def test_what_a_providers_cache_gave_is_cheaper_and_what_it_took_is_not() -> None:
    def of(**usage: int) -> float:
        usd = Prices({}).usd("claude-sonnet-4-5", Usage(completion=0, **usage))
        assert usd is not None
        return usd

    plain = of(prompt=10_000)
    assert of(prompt=10_000, cached=8_000) < 0.5 * plain < plain < of(prompt=10_000, written=8_000)
    own = Prices({"m": Price(input_usd_per_mtok=10.0, output_usd_per_mtok=0.0, cached_usd_per_mtok=1.0)})
    assert own.usd("m", Usage(prompt=1_000_000, completion=0, cached=500_000)) == pytest.approx(5.5)
    assert own.usd("m", Usage(prompt=1_000_000, completion=0, written=500_000)) == pytest.approx(10.0)
