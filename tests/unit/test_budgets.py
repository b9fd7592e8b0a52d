"""Calendar periods against the calendar itself, and amounts as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from suffice.core.budgets import Budget, Period, amount, began, budget, ends
from suffice.core.errors import InputError

LATE = 4_102_444_800.0  # 2100


def at(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("hour", at(2026, 12, 31, 23, 59, 59), at(2026, 12, 31, 23), at(2027, 1, 1)),
        ("day", at(2028, 2, 28, 12), at(2028, 2, 28), at(2028, 2, 29)),
        ("week", at(2027, 1, 1), at(2026, 12, 28), at(2027, 1, 4)),
        ("month", at(2026, 1, 31, 23, 59, 59), at(2026, 1, 1), at(2026, 2, 1)),
        ("month", at(2028, 2, 29), at(2028, 2, 1), at(2028, 3, 1)),
        ("month", at(2026, 12, 1), at(2026, 12, 1), at(2027, 1, 1)),
        ("total", at(2026, 6, 1), 0.0, None),
    ],
)
def test_periods(period: Period, now: float, start: float, end: float | None) -> None:
    assert (began(period, now), ends(period, now)) == (start, end)


@example("hour", 256402799.99999952)
@given(st.sampled_from(["hour", "day", "week", "month"]), st.floats(0, LATE))
def test_periods_follow_each_other_without_gap(period: Period, now: float) -> None:
    start, end = began(period, now), ends(period, now)
    assert end is not None and start <= now < end
    assert began(period, end) == end and began(period, start) == start
    assert began(period, (datetime.fromtimestamp(end, UTC) - timedelta(microseconds=1)).timestamp()) == start


def test_amounts_and_budgets() -> None:
    assert [amount(text) for text in ("10", "2.5k", "5M", "0.25")] == [10.0, 2500.0, 5e6, 0.25]
    assert budget("10/day") == Budget(10.0, "day") and budget("5M/month") == Budget(5e6, "month")
    for text in ("", "0", "-1", "1e9", "ten", "nan", "5 M"):
        with pytest.raises(InputError):
            amount(text)
    for text in ("10", "10/", "10/fortnight", "/day", "0/day"):
        with pytest.raises(InputError):
            budget(text)
