"""The store on a real disk: imports, queries, stages, pins, the ledger, and homes that are not ours to open."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from suffice.core.errors import InputError, StoreError
from suffice.core.prompt import Prompt, Template
from suffice.core.style import Style
from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    Recipe,
    Release,
    Report,
    Stage,
    Tail,
    Threshold,
)
from suffice.store import records, releases, schema
from suffice.store.home import Home
from suffice.store.records import Row, Trusted
from suffice.store.releases import Serving


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def row(
    name: str, at: float = 0.0, task: str | None = "t", response_id: str | None = None, route: str = "frontier"
) -> Row:
    return Row(
        id=name, at=at, source="import", task=task, route=route, status=200, answer=b"{}", response_id=response_id
    )


def ids(home: Home, **wanted: object) -> list[str]:
    return [found.id for found, _ in records.query(home, **wanted)]  # type: ignore[arg-type]


def release() -> Release:
    """Any release: what it says does not matter here."""
    share = Estimate(value=0.9, low=0.8, high=1.0, n=10)
    certificate = Certificate(
        max_error=0.02, confidence=0.95, attempt=1, delta=0.025, n=10, method="m", p_value=0.01, threshold=0.5,
        coverage=0.9, promise="agreement", reference="frontier",
    )  # fmt: skip
    return Release(
        draft=Draft(
            task="t", recipe=Recipe(family="linear"), contract=Choice(("a",)), dataset="d", artefact="a",
            threshold=Threshold(score=0.5, certificate=certificate),
        ),
        tail=Tail(promised=False, max_tail_error=0.2, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None,
            unseen_coverage=share, unseen_error=share, latency_p50_ms=1.0, latency_p99_ms=2.0,
        ),
    )  # fmt: skip


def add(home: Home, digest: str = "x") -> str:
    return releases.add_release(home, "t", release(), Serving(prompt=None, style=Style()), digest).name


# ---------------------------------------------------------------------------------------------- records


def test_importing_again_changes_nothing(home: Home) -> None:
    rows = [row("a"), row("b", response_id="r1")]
    assert records.import_rows(home, rows, [Trusted("a", "human", "x")]) == (2, 0)
    assert records.import_rows(home, rows, [Trusted("a", "human", "x")]) == (0, 2)
    with home.engine.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM trusted").scalar_one() == 1


def test_a_row_is_known_by_its_response_and_its_trusted_answer_reaches_the_first(home: Home) -> None:
    records.import_rows(home, [row("a", response_id="r1")], [])
    assert records.import_rows(home, [row("b", response_id="r1")], [Trusted("b", "rule", ["x"])]) == (0, 1)
    ((found, trusted),) = records.query(home)
    assert found.id == "a"
    assert trusted == Trusted("a", "rule", ["x"])


def test_the_latest_trusted_answer_counts(home: Home) -> None:
    records.import_rows(home, [row("a")], [Trusted("a", "human", "x")])
    records.import_rows(home, [row("a")], [Trusted("a", "human", None)])
    assert records.add_trusted(home, Trusted("a", "rule", False))
    assert records.add_trusted(home, Trusted("nobody", "rule", False)) is None
    ((_, trusted),) = records.query(home)
    assert trusted == Trusted("a", "rule", False)


def test_the_same_trusted_answer_again_writes_nothing(home: Home) -> None:
    records.import_rows(home, [row("a")], [])
    told = [
        ("human", ["x", "y"], True),
        ("human", ["y", "x"], False),
        ("rule", ["y", "x"], True),
        ("rule", '["x", "y"]', False),
        ("rule", ["x"], True),
        ("rule", ["x", "y"], True),
    ]
    for kind, value, new in told:
        assert records.add_trusted(home, Trusted("a", kind, value)) is new  # type: ignore[arg-type]
    with home.engine.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM trusted").scalar_one() == 4


def test_many_who_say_the_same_at_once_say_it_once(home: Home) -> None:
    records.import_rows(home, [row("a")], [])
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda _: records.add_trusted(home, Trusted("a", "human", "x")), range(16)))
    assert sorted(map(str, new)) == ["False"] * 15 + ["True"]


def test_an_import_is_all_or_nothing(home: Home) -> None:
    with pytest.raises(TypeError):
        records.import_rows(home, [row("a")], [Trusted("a", "human", object())])  # type: ignore[arg-type]
    assert ids(home) == []


def test_queries(home: Home) -> None:
    rows = [row("c", 1.0), row("a", 2.0, task="u"), row("b", 2.0, route="specialist"), row("d", 3.0, task=None)]
    records.import_rows(home, rows, [])
    assert ids(home) == ["c", "a", "b", "d"]
    assert ids(home, task="t") == ["c", "b"]
    assert ids(home, route="specialist") == ["b"]
    assert ids(home, reason="no_task", since=2.0, until=3.0) == ["a", "b"]
    assert ids(home, ids=["d", "c", "none"]) == ["c", "d"]
    assert ids(home, limit=2) == ["b", "d"]
    assert ids(home, limit=0) == []
    assert records.counts(home) == {"t": {"records": 2, "specialist": 1}, "u": {"records": 1, "specialist": 0}}


def test_a_record_is_printed_whole(home: Home) -> None:
    records.import_rows(home, [row("a")], [Trusted("a", "human", {"x": [1]})])
    ((found, trusted),) = records.query(home)
    told = records.document(found, trusted)
    assert (told["id"], told["answer"], told["reference"], told["reference_kind"]) == ("a", {}, {"x": [1]}, "human")


def test_two_writers_at_once_lose_nothing(home: Home) -> None:
    def write(name: str) -> None:
        for i in range(20):
            records.import_rows(home, [row(f"{name}{i}")], [])

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids(home)) == 40


# ---------------------------------------------------------------------------------------------- homes


def test_a_home_made_by_a_newer_version_is_refused(home: Home) -> None:
    with sqlite3.connect(home.db_path) as db:
        db.execute("UPDATE alembic_version SET version_num = '0099'")
    with pytest.raises(StoreError, match="newer version"):
        Home(home.folder)


def test_a_home_of_the_first_version_is_brought_up_to_date_with_all_that_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    with sqlite3.connect(folder / "suffice.db") as db:
        db.executescript((Path(__file__).parent / "home_v1.sql").read_text())
    home = Home(folder)
    with home.engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    found = list(records.query(home, task="old"))
    assert [row.input for row, _ in found] == ["hello", "bye"]
    assert [trusted.value if trusted else None for _, trusted in found] == ["b", None]
    assert list(releases.all_tasks(home)) == ["old"]
    assert ids(Home(folder)) == [row.id for row, _ in found], "opening it again changes nothing"


def test_homes_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        Home(tmp_path / "file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "suffice.db").write_bytes(b"this is no database at all, though long enough" * 50)
    with pytest.raises(StoreError, match=r"suffice\.db"):
        Home(tmp_path / "odd")


def test_a_second_server_or_a_second_run_on_one_task_is_refused(home: Home) -> None:
    other = Home(home.folder)
    with home.serving(), pytest.raises(StoreError, match="already running"), other.serving():
        pass
    with home.learning("t"), other.learning("u"), pytest.raises(StoreError, match="learn t"), other.learning("t"):
        pass
    with other.learning("t"), other.serving():
        pass


# ---------------------------------------------------------------------------------------------- tasks and releases


def test_a_task_starts_in_observe_and_takes_its_first_release(home: Home) -> None:
    releases.ensure_task(home, "t")
    releases.ensure_task(home, "t")
    assert [(task.stage, task.release) for task in releases.all_tasks(home).values()] == [(Stage.OBSERVE, None)]
    assert (add(home), add(home)) == ("t@1", "t@2")
    assert releases.all_tasks(home)["t"].release == 2
    newest = releases.get_release(home, "t")
    assert newest is not None
    assert (newest.name, newest.release) == ("t@2", release())
    assert releases.get_release(home, "t", 3) is None
    assert [stored.n for stored in releases.all_releases(home, "t")] == [1, 2]


def test_a_new_release_does_not_replace_the_one_that_is_live(home: Home) -> None:
    releases.ensure_task(home, "t")
    add(home)
    releases.set_stage(home, "t", Stage.LIVE, None)
    add(home)
    task = releases.all_tasks(home)["t"]
    assert (task.stage, task.release) == (Stage.LIVE, 1)
    releases.set_stage(home, "t", Stage.CANARY, 2)
    releases.set_stage(home, "t", Stage.LIVE, 1)  # and back
    assert releases.all_tasks(home)["t"].release == 1


def test_stages_that_cannot_be(home: Home) -> None:
    with pytest.raises(InputError, match="no task"):
        releases.set_stage(home, "t", Stage.OBSERVE, None)
    releases.ensure_task(home, "t")
    releases.set_stage(home, "t", Stage.OBSERVE, None)
    with pytest.raises(InputError, match="no release"):
        releases.set_stage(home, "t", Stage.LIVE, None)
    with pytest.raises(InputError, match="t@1"):
        releases.set_stage(home, "t", Stage.LIVE, 1)


def test_the_kill_switch(home: Home) -> None:
    for name in ("t", "u"):
        releases.ensure_task(home, name)
    add(home)
    releases.set_stage(home, "t", Stage.LIVE, None)
    assert releases.stop_all(home, Stage.OBSERVE) == ["t"]
    assert {task.stage for task in releases.all_tasks(home).values()} == {Stage.OBSERVE}


def test_a_prompt_is_pinned_once(home: Home) -> None:
    releases.ensure_task(home, "t")
    add(home)
    first, second = (Prompt(messages=(("system", Template((text,))),)) for text in "ab")
    assert releases.pin(home, "t", 1, first) == first
    assert releases.pin(Home(home.folder), "t", 1, second) == first
    stored = releases.get_release(home, "t")
    assert stored is not None
    assert stored.prompt == first


def test_the_ledger_counts_and_takes_no_attempt_twice(home: Home) -> None:
    assert releases.attempts(home, "t") == 0
    releases.charge(home, "t", 1, 0.025, "digest")
    assert (releases.attempts(home, "t"), releases.attempts(home, "u")) == (1, 0)
    assert releases.attempts(Home(home.folder), "t") == 1
    with pytest.raises(Exception, match="UNIQUE"):
        releases.charge(home, "t", 1, 0.025, "digest")


def test_splits_and_runs_are_kept(home: Home) -> None:
    releases.put_splits(home, "t", {"a": "train", "b": "test"})
    releases.put_splits(home, "t", {"b": "train"})
    releases.put_splits(home, "t", {})
    assert releases.get_splits(home, "t") == {"a": "train", "b": "train"}
    releases.add_run(home, "t", "key", 1, {"release": None})
    releases.add_run(home, "t", "other", 0, {"release": "t@1"})
    assert releases.last_run(home, "t") == (0, {"release": "t@1"})
    assert releases.last_run(home, "t", "key") == (1, {"release": None})
    assert releases.last_run(home, "t", "none") is None
