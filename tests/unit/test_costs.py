"""Costs: whatever they are summed up by, the lines and the audits are the bill."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.store import costs, records
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.store.watches import Audit, add_audit

DAY = 86_400.0
names = st.sampled_from([None, "a", "b"])
tokens = st.none() | st.integers(0, 1000)
some_rows = st.lists(
    st.builds(
        lambda task, key, model, route, at, prompt, completion, usd: Row(
            id="", at=at, source="live", task=task, key=key, model=model, route=route, prompt_tokens=prompt,
            completion_tokens=completion, cost_usd=usd, upstream=None if route in records.FREE else route,
        ),
        names, names, st.sampled_from(["m", "n"]), st.sampled_from(["specialist", "frontier", "none"]),
        st.floats(0, 3 * DAY), tokens, tokens, st.none() | st.floats(0, 10),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(some_rows)
def test_every_way_to_sum_up_gives_the_same_bill(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    home = Home(tmp_path_factory.mktemp("costs"))
    numbered = [msgspec.structs.replace(row, id=f"rec_{n}") for n, row in enumerate(rows)]
    with home.connect() as connection:
        records.insert(connection, numbered)
        records.insert(connection, [Row(id="imported", at=1.0, source="import", cost_usd=99.0)])
    for by in get_args(costs.By):
        found = costs.sums(home, by)
        assert sum(one.requests for one in found) == len(rows)
        assert sum(one.usd for one in found) == pytest.approx(sum(row.cost_usd or 0 for row in rows))
        assert sum(one.prompt for one in found) == sum(row.prompt_tokens or 0 for row in rows)
        paid = [row for row in rows if row.route == "frontier" and row.completion_tokens is not None]
        assert sum(one.unpriced for one in found) == sum(row.cost_usd is None for row in paid)
        within = costs.sums(home, by, since=DAY, until=2 * DAY)
        assert sum(one.requests for one in within) == sum(DAY <= row.at < 2 * DAY for row in rows)


def test_days_are_utc_and_what_has_no_name_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.connect() as connection:
        records.insert(connection, [Row(id="1", at=DAY - 1, source="live"), Row(id="2", at=DAY, source="live")])
    assert [one.group for one in costs.sums(home, "day")] == ["1970-01-01", "1970-01-02"]
    assert [one.group for one in costs.sums(home, "key")] == ["none"]
    assert [one.group for one in costs.sums(home, "task")] == ["none"]


def test_audits_are_summed_apart(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert costs.audit_sums(home).audits == 0
    for n, usd in enumerate((0.5, None)):
        add_audit(home, Audit(record=f"rec_{n}", at=float(n), prompt_tokens=3, completion_tokens=1, cost_usd=usd))
    found = costs.audit_sums(home)
    assert (found.audits, found.prompt, found.usd, found.unpriced) == (2, 6, 0.5, 1)
    assert costs.audit_sums(home, since=1.0).audits == 1
