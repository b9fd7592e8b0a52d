"""Homes of every earlier schema are brought up to date with all that they hold: `home_vN.sql` were dumped from them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from suffice.core.errors import StoreError
from suffice.store import datasets, patterns, records, releases, schema, watches
from suffice.store.home import Home
from suffice.store.records import Row, Trusted

HERE = Path(__file__).parent


def old(folder: Path, version: int) -> Path:
    folder.mkdir()
    with sqlite3.connect(folder / "suffice.db") as db:
        db.executescript((HERE / f"home_v{version}.sql").read_text())
    return folder


def test_every_earlier_schema_has_its_home() -> None:
    assert [path.stem for path in sorted(HERE.glob("home_v*.sql"))] == [f"home_v{n}" for n in range(1, schema.VERSION)]


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_a_home_becomes_what_a_new_one_is(tmp_path: Path, version: int) -> None:
    home, new = Home(old(tmp_path / "old", version)), Home(tmp_path / "new")
    with home.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []

    def shape(home: Home) -> dict[str, Any]:
        with home.engine.connect() as db:
            names = db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
            columns = {name: db.exec_driver_sql(f'PRAGMA table_info("{name}")').all() for name in names}
            indexes = db.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")
            told = {name: sorted((c[1], c[2], c[3], c[5]) for c in found) for name, found in columns.items()}
            return {**told, "": sorted(indexes.scalars())}

    assert shape(home) == shape(new)


@pytest.mark.parametrize("version", range(2, schema.VERSION))
def test_all_that_it_holds_is_still_read(tmp_path: Path, version: int) -> None:
    home = Home(old(tmp_path / "old", version))
    (one, trusted), (two, none) = list(records.query(home, task="old"))
    assert (one.id, one.input, one.group, one.cost_usd, one.response_id) == ("rec_1", "hello", "g1", 0.001, "c1")
    assert json.loads(one.request or b"")["messages"][1]["content"] == "hello"
    assert (trusted and trusted.value, none) == ("b", None)
    assert (two.route, two.predicted, two.slices, two.gone, two.key) == ("specialist", '"a"', "x,y", None, None)
    assert json.loads(watches.get_audits(home, ["rec_2"])["rec_2"].answer or b"")["id"] == "c2"
    (due,) = watches.due_steps(home)["old", 1] if watches.due_steps(home) else [None]
    assert due is None or due.predicted == '"a"'
    stored = releases.get_release(home, "old", 1)
    assert stored is not None and stored.release.draft.threshold.score == 0.5
    assert (releases.attempts(home, "old"), releases.get_splits(home, "old")) == (1, {"rec_1": "train"})
    assert [some.id for batch in patterns.unread(home, 0) for some in batch] == ["rec_1", "rec_2"]
    if version >= 3:
        assert patterns.today(home, "older") == "old" and datasets.get_manifest(home, "old", "d")


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_it_goes_on_being_used(cli: Callable[..., tuple[int, list[Any], str]], tmp_path: Path, version: int) -> None:
    home = Home(old(tmp_path / "home", version))
    request = b'{"model": "m", "messages": [{"role": "system", "content": "' + b"x" * 300 + b'"}]}'
    rows = [Row(id=f"new_{i}", at=9e9, source="live", task="old", request=request) for i in range(3)]
    records.import_rows(home, rows, [Trusted("new_1", "human", "z")])
    code, told, err = cli("records", "--task", "old")
    assert (code, len(told)) == (0, 5), err
    assert cli("erase", "--record", told[0]["id"])[1][0]["records"] == 1
    assert cli("records", "--id", told[0]["id"])[1][0]["gone"] == "erased"
    assert cli("tasks")[0] == 0


def test_a_newer_one_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with sqlite3.connect(home.db_path) as db:
        db.execute(f"UPDATE alembic_version SET version_num = '{schema.VERSION + 1:04d}'")
    with pytest.raises(
        StoreError, match=f"newer version: schema {schema.VERSION + 1}, this one knows {schema.VERSION}"
    ):
        Home(home.folder)
    with sqlite3.connect(home.db_path) as db:
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == (f"{schema.VERSION + 1:04d}",)
