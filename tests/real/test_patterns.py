"""Patterns in the store: sums kept while records are placed, and what people decide survives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from suffice.core.errors import InputError, StoreError
from suffice.core.match import Rule
from suffice.core.prompt import Template
from suffice.core.types import Stage
from suffice.store import patterns, records, releases
from suffice.store.home import Home
from suffice.store.records import Row

RULE = Rule(head=(("system", Template(("You sort mail.",))),))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def row(i: int, task: str | None = None, cost: float | None = 0.5) -> Row:
    body = {"messages": [{"role": "system", "content": "You sort mail."}, {"role": "user", "content": f"mail {i}"}]}
    return Row(
        id=f"r{i:03}", at=100.0 + i, source="live", task=task, route="frontier", status=200, cost_usd=cost,
        prompt_tokens=10, completion_tokens=1, request=msgspec.json.encode(body), answer=b"{}",
    )  # fmt: skip


def put(home: Home, rows: list[Row]) -> None:
    with home.connect() as db:
        records.insert(db, rows)


def placed(home: Home, n: int = 6) -> tuple[int, int]:
    """Two patterns with half of the records each."""
    put(home, [row(i) for i in range(n)])
    first, second = patterns.add_rule(home, RULE, 1.0), patterns.add_rule(home, Rule(), 1.0)
    found = next(patterns.unread(home, 0))
    patterns.place(
        home, [(r, first if i % 2 else second) for i, r in enumerate(found)], patterns.Bookmark(found[-1].seq)
    )
    return first, second


def named(home: Home, pattern: int, task: str) -> None:
    releases.ensure_task(home, task)
    patterns.assign(home, [pattern], task)


def ids(home: Home, task: str) -> list[str]:
    return [r.id for r, _ in records.query(home, task=task)]


def test_sums_follow_the_records_that_are_placed_and_moved(home: Home) -> None:
    first, second = placed(home)
    known = {p.id: p for p in patterns.all_patterns(home)}
    assert (known[first].records, known[first].cost_usd, known[first].last_at) == (3, 1.5, 105.0)
    everything = patterns.sample(home, [first, second], 100)
    patterns.place(home, [(r, first) for r in everything])
    patterns.place(home, [(r, first) for r in everything])
    known = {p.id: p for p in patterns.all_patterns(home)}
    assert (known[first].records, known[second].records, known[second].cost_usd) == (6, 0, 0.0)
    assert patterns.count_unread(home, patterns.bookmark(home).seq) == 0


def test_a_sample_stays_while_the_pattern_grows(home: Home) -> None:
    first, second = placed(home, 40)
    before = {r.id for r in patterns.sample(home, [first, second], 10)}
    put(home, [row(i) for i in range(40, 80)])
    new = next(patterns.unread(home, patterns.bookmark(home).seq))
    patterns.place(home, [(r, first) for r in new])
    after = {r.id for r in patterns.sample(home, [first, second], 20)}
    lowest = sorted(patterns.sample(home, [first, second], 80), key=lambda r: r.coin)[:20]
    assert after == {r.id for r in lowest}
    assert len(before & after) >= 3


def test_a_task_has_the_records_of_its_patterns_and_those_that_name_it(home: Home) -> None:
    first, _ = placed(home)
    named(home, first, "mail")
    put(home, [row(50, "mail"), row(51, "other")])
    assert ids(home, "mail") == ["r001", "r003", "r005", "r050"]
    assert records.counts(home) == {"mail": {"records": 4, "specialist": 0}, "other": {"records": 1, "specialist": 0}}


def test_a_renamed_task_keeps_what_it_had_and_answers_to_its_old_name(home: Home) -> None:
    first, _ = placed(home)
    named(home, first, "mail")
    put(home, [row(50, "mail")])
    patterns.rename(home, "mail", "post")
    put(home, [row(51, "mail")])
    assert ids(home, "post") == ["r001", "r003", "r005", "r050", "r051"]
    assert patterns.today(home, "mail") == "post"
    assert list(releases.all_tasks(home)) == ["post"]
    patterns.rename(home, "post", "letters")
    assert patterns.today(home, "mail") == "letters"
    patterns.rename(home, "letters", "mail")
    assert (patterns.today(home, "mail"), patterns.today(home, "post")) == ("mail", "mail")
    assert len(ids(home, "mail")) == 5
    patterns.assign(home, [first], "something else")
    assert len(ids(home, "mail")) == 5, "what a person decided is left alone"


def test_merging_makes_one_task_and_rows_that_were_read_only_train(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "a")
    named(home, second, "b")
    releases.put_splits(home, "a", {"r001": "calibration"})
    patterns.merge(home, "a", "b")
    assert ids(home, "b") == [f"r{i:03}" for i in range(6)]
    assert releases.get_splits(home, "b") == {"r001": "train"}
    assert patterns.today(home, "a") == "b"
    with pytest.raises(InputError, match="no task 'a'"):
        patterns.merge(home, "a", "b")


def test_splitting_off_a_prompt_makes_a_task_of_it(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "a")
    patterns.assign(home, [second], "a")
    releases.put_splits(home, "a", {"r001": "test"})
    patterns.split_off(home, "a", [second], "b")
    assert ids(home, "b") == ["r000", "r002", "r004"]
    assert releases.get_splits(home, "b") == {"r001": "train"}
    assert patterns.rules_of(home, "b") == [Rule()]


def test_what_was_read_of_a_part_trains_in_the_whole_and_the_rest_of_the_whole_stays(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "a")
    patterns.assign(home, [second], "a")
    releases.put_splits(home, "a", {f"r{i:03}": "calibration" for i in range(6)})
    patterns.split_off(home, "a", [second], "b")
    patterns.merge(home, "b", "a")
    read = {f"r{i:03}": "train" if i % 2 == 0 else "calibration" for i in range(6)}
    assert releases.get_splits(home, "a") == read


def test_rows_that_a_matcher_was_fitted_on_train_only(home: Home) -> None:
    parent, _ = placed(home)
    child = patterns.add_group(home, parent, "g0", 1.0)
    patterns.place(home, [(r, child) for r in patterns.sample(home, [parent], 10)])
    releases.put_fitted(home, parent, ["r001", "r003"])
    named(home, child, "a")
    releases.put_splits(home, "a", {"r005": "calibration"})
    assert releases.get_splits(home, "a") == {"r001": "train", "r003": "train", "r005": "calibration"}
    patterns.rename(home, "a", "b")
    assert releases.get_splits(home, "b") == {"r001": "train", "r003": "train", "r005": "calibration"}
    assert releases.get_splits(home, "other") == {}


def test_a_task_that_answers_is_not_renamed_under_its_watch(home: Home) -> None:
    first, _ = placed(home)
    named(home, first, "mail")
    releases.stop_all(home, Stage.REVOKED)
    with pytest.raises(InputError, match="suffice stage mail observe"):
        patterns.rename(home, "mail", "post")
    with pytest.raises(InputError, match="no task 'none'"):
        patterns.ignore(home, "none")


def test_what_joins_an_ignored_task_is_ignored(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "mail")
    patterns.ignore(home, "mail")
    named(home, second, "mail")
    patterns.add_declared(home, "mail", 1.0)
    assert [p.ignored for p in patterns.all_patterns(home)] == [True] * 3
    patterns.ignore(home, "mail", ignored=False)
    assert not any(p.ignored for p in patterns.all_patterns(home))


def test_merging_keeps_whether_the_whole_is_ignored(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "talk")
    named(home, second, "mail")
    patterns.ignore(home, "talk")
    patterns.merge(home, "mail", "talk")
    assert all(p.ignored for p in patterns.all_patterns(home))


def test_a_merged_task_gives_its_name_back_although_both_were_tried(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "a")
    named(home, second, "b")
    for task in ("a", "b"):
        releases.charge(home, task, 1, 0.02, "looked at")
        releases.add_run(home, task, f"key of {task}", 1, {"task": task})
        patterns.put_document(home, task, {"about": task}, 1.0)
    patterns.merge(home, "a", "b")
    patterns.rename(home, "b", "a")
    assert releases.attempts(home, "a") == 1
    assert releases.last_run(home, "a") == (1, {"task": "b"})
    assert patterns.documents(home) == {"a": {"about": "b"}}


def test_nobody_decides_about_a_task_that_is_being_learned(home: Home) -> None:
    first, second = placed(home)
    named(home, first, "mail")
    patterns.assign(home, [second], "mail")
    with home.learning("mail"):
        with pytest.raises(StoreError, match="suffice learn mail"):
            patterns.rename(home, "mail", "post")
        with pytest.raises(StoreError, match="suffice learn mail"):
            patterns.split_off(home, "mail", [second], "post")
    assert list(releases.all_tasks(home)) == ["mail"]


def test_what_is_found_under_a_name_of_before_is_the_tasks_of_today(home: Home) -> None:
    first, second = placed(home)
    patterns.assign(home, [first], "mail")
    patterns.rename(home, "mail", "post")
    patterns.assign(home, [second], "mail")
    patterns.put_document(home, "mail", {"records": 6}, 1.0)
    assert list(releases.all_tasks(home)) == ["post"]
    assert {p.task for p in patterns.all_patterns(home)} == {"post"}
    assert list(patterns.documents(home)) == ["post"]


def test_large_records_are_read_few_at_a_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = placed(home, 40)
    monkeypatch.setattr(patterns, "MOST_BYTES", 5 * len(row(0).request or b""))
    batches = list(patterns.unread(home, 0))
    assert max(map(len, batches)) <= 5
    assert [r.id for batch in batches for r in batch] == [f"r{i:03}" for i in range(40)]
    assert [r.seq for batch in patterns.members(home, first, 3, 20) for r in batch] == list(range(4, 21, 2))
    assert len(patterns.sample(home, [first, second], 40)) <= 5
    monkeypatch.setattr(patterns, "MOST_BYTES", 1)
    assert [len(batch) for batch in patterns.unread(home, 0)] == [1] * 40


def test_a_name_goes_with_the_requests_that_come_with_it(home: Home) -> None:
    put(home, [row(1, "a"), row(2, "b")])
    for task in ("a", "b"):
        releases.ensure_task(home, task)
    first, second = (patterns.add_declared(home, task, 1.0) for task in ("a", "b"))
    patterns.place(home, zip(next(patterns.unread(home, 0)), (first, second), strict=True))
    patterns.merge(home, "a", "b")
    with pytest.raises(InputError, match="its own"):
        patterns.split_off(home, "b", [second], "c")
    patterns.split_off(home, "b", [first], "c")
    put(home, [row(3, "a")])
    assert (ids(home, "c"), ids(home, "b")) == (["r001", "r003"], ["r002"])
    assert patterns.today(home, "a") == "c"
