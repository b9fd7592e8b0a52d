"""What a call costs."""

from __future__ import annotations

import pytest

from suffice.core.config import Price
from suffice.plan.prices import Prices


def test_the_users_own_price_comes_first() -> None:
    prices = Prices({"gpt-4o": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=10.0)})
    assert prices.usd("gpt-4o", 1_000_000, 100_000) == pytest.approx(2.0)
    assert prices.usd("gpt-4o", 0, 0) == 0.0


def test_a_model_of_the_table_and_one_that_nobody_knows() -> None:
    prices = Prices({})
    assert prices.usd("gpt-4o", 1_000_000, 0) == pytest.approx(2.5, rel=0.5)
    one, two = prices.usd("gpt-4o", 1000, 1000), prices.usd("gpt-4o", 2000, 2000)
    assert one is not None
    assert two == pytest.approx(2 * one)
    for unknown in ("my-own-model", "", "suffice/t@1"):
        assert prices.usd(unknown, 10, 10) is None
