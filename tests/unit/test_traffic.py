"""Traffic: the flows of a home are its records, counted once each, whoever they belong to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.store import records, traffic
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.store.watches import Audit, add_audit

DAY = 86_400.0
some_rows = st.lists(
    st.builds(
        lambda task, model, route, at, prompt, completion, usd, source, failure: Row(
            id="", at=at, source=source, task=task, model=model, route=route, prompt_tokens=prompt,
            completion_tokens=completion, cost_usd=usd, status=500 if failure else 200, failure=failure,
            request=b"x" * 400, answer=b"y" * 40,
        ),
        st.sampled_from([None, "a", "b"]), st.sampled_from(["m", "n"]),
        st.sampled_from(["specialist", "frontier", "none"]), st.integers(0, 300_000).map(float),
        st.none() | st.integers(0, 1000), st.none() | st.integers(0, 1000), st.none() | st.floats(0, 10),
        st.sampled_from(["live", "import"]), st.sampled_from([None, None, "broken"]),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


def filled(folder: Path, rows: list[Row]) -> Home:
    home = Home(folder)
    with home.connect() as connection:
        records.insert(
            connection, [msgspec.structs.replace(row, id=row.id or f"rec_{n}") for n, row in enumerate(rows)]
        )
    return home


def counts(row: Row) -> bool:
    answered = row.status == 200 and row.failure is None and (row.source == "live" or row.route != "none")
    return row.completion_tokens is not None or answered


@settings(max_examples=8, deadline=None)
@given(some_rows)
def test_every_answered_record_is_counted_once(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    found = traffic.read(filled(tmp_path_factory.mktemp("traffic"), rows))
    counted = [row for row in rows if counts(row)]
    if not counted:
        assert found is None
        return
    assert found is not None
    assert sum(flow.requests for flow in found.flows) == len(counted)
    assert sum(flow.usd for flow in found.flows) == pytest.approx(sum(row.cost_usd or 0.0 for row in counted))
    told = [row for row in counted if row.completion_tokens is not None]
    assert sum(f.completion for f in found.flows) == sum(r.completion_tokens or 0 for r in told) + 10 * (
        len(counted) - len(told)
    )
    assert found.unanswered == sum(row.source == "live" and not counts(row) for row in rows)
    assert sum(found.hours) == len(rows)
    for task in (None, "a", "b"):
        of = [row for row in counted if row.task == task]
        assert sum(flow.requests for flow in found.flows if flow.task == task) == len(of)
        days = {int((row.at - found.start) / DAY) for row in of}
        assert {flow.day for flow in found.flows if flow.task == task} == days


def test_a_window_is_from_and_before(tmp_path: Path) -> None:
    home = filled(tmp_path, [Row(id="", at=n * DAY, source="live", status=200, completion_tokens=1) for n in range(5)])
    found = traffic.read(home, since=DAY, until=3 * DAY)
    assert found is not None
    assert (found.start, found.end, sum(flow.requests for flow in found.flows)) == (DAY, 2 * DAY, 2)
    assert traffic.read(home, since=9 * DAY) is None


def test_rows_of_a_file_without_times_are_no_traffic(tmp_path: Path) -> None:
    moment = 1_790_000_000.123457
    rows = [Row(id=f"imp_{n:024d}", at=moment, source="import", route="frontier", status=200) for n in range(30)]
    rows += [Row(id="", at=float(n), source="live", status=200, completion_tokens=1) for n in range(3)]
    found = traffic.read(filled(tmp_path, rows))
    assert found is not None
    assert (found.untimed, found.end, sum(flow.requests for flow in found.flows)) == (30, 2.0, 3)


def test_a_log_by_the_second_is_traffic_however_busy(tmp_path: Path) -> None:
    rows = [Row(id=f"imp_{n:024d}", at=5.0, source="import", route="frontier", status=200) for n in range(30)]
    found = traffic.read(filled(tmp_path, rows))
    assert found is not None and found.untimed == 0 and found.flows[0].requests == 30


def test_tokens_that_nobody_counted_are_estimated_from_what_is_stored(tmp_path: Path) -> None:
    text = "word " * 100
    body = msgspec.json.encode({"input": text})
    row = Row(
        id="", at=1.0, source="import", dialect="short", route="frontier", status=200, request=body, answer=b'"yes"'
    )
    found = traffic.read(filled(tmp_path, [row]))
    assert found is not None
    assert (found.flows[0].prompt, found.flows[0].told) == (len(text) // 4, False)


def test_audits_belong_to_the_task_of_their_record(tmp_path: Path) -> None:
    home = filled(tmp_path, [Row(id="r", at=1.0, source="live", task="a", model="m", status=200, completion_tokens=1)])
    add_audit(home, Audit(record="r", at=2.0, prompt_tokens=3, completion_tokens=1, cost_usd=0.5))
    found = traffic.read(home)
    assert found is not None
    assert [(each.task, each.model, each.audits, each.usd, each.priced) for each in found.audits] == [
        ("a", "m", 1, 0.5, True)
    ]
