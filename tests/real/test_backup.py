"""Backups: taken while others write, verified, restored to homes that are whole."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suffice.core.errors import InputError, StoreError
from suffice.core.types import digest_of
from suffice.store import artefacts, backup, records
from suffice.store.home import Home
from suffice.store.records import Row, Writer
from suffice.store.sealed import Keys

Cli = Callable[..., tuple[int, list[Any], str]]


def silent(what: str, done: float) -> None:
    assert 0.0 <= done <= 1.0, what


class Model:
    def save(self, folder: Path) -> None:
        (folder / "weights").write_bytes(b"weights")


def rows(start: int, n: int) -> list[Row]:
    request = b'{"messages": [{"role": "system", "content": "' + b"x" * 400 + b'"}, {"content": "%d"}]}'
    return [Row(id=f"r{i:06d}", at=float(i), source="live", request=request % i) for i in range(start, start + n)]


def filled(folder: Path, keys: Keys | None = None) -> Home:
    home = Home(folder, keys=keys)
    connection = home.connect()
    Writer(home.bodies).insert(connection, rows(0, 2_000))
    connection.close()
    artefacts.save(home, Model())
    (folder / "suffice.toml").write_text("[policy]\nmax_error = 0.03\n")
    (folder / "reports" / "t@1.html").write_text("page")
    (folder / "fits" / "t").mkdir(parents=True)
    (folder / "fits" / "t" / "half").write_text("no use")
    (folder / "processes").mkdir()
    (folder / "processes" / "1.json").write_text("{}")
    (folder / "limits").write_bytes(b"no use")
    return home


def test_a_backup_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    over = threading.Event()
    written: list[int] = []

    def write() -> None:
        connection, writer = home.connect(), Writer(home.bodies)
        for start in range(2_000, 200_000, 50):
            if over.is_set():
                break
            writer.insert(connection, rows(start, 50))
            written.append(start)
        connection.close()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while not written:
            pass
        before = len(written)
        made = backup.backup(home, None, tmp_path / "b.tar", 5.0, silent)
        assert len(written) > before, "it was written to meanwhile"
    finally:
        over.set()
        writing.join()
    told = backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)
    found = [row.request for row, _ in records.query(Home(tmp_path / "new"))]
    assert told == made and len(found) == made.records >= 2_000 and len(found) % 50 == 0
    assert found == [row.request for row in rows(0, len(found))]


def test_a_restored_home_has_what_it_needs_and_nothing_else(cli: Cli, tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    code, (made,), err = cli("backup", tmp_path / "b.tar")
    assert code == 0, err
    assert (tmp_path / "b.tar").stat().st_mode & 0o77 == 0
    assert made["records"] == 2_000 and not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    code, (told,), err = cli("restore", tmp_path / "b.tar", home="new")
    assert code == 0 and told["files"] == made["files"], err
    new = tmp_path / "new"
    artefact = next((home.folder / "releases").iterdir()).name
    assert artefacts.digest_of_files(new / "releases" / artefact) == artefact
    assert (new / "suffice.toml").read_text() == (home.folder / "suffice.toml").read_text()
    assert (new / "reports" / "t@1.html").exists()
    assert not [name for name in ("fits", "processes", "limits") if (new / name).exists()]
    assert cli("records", "--limit", 1, home="new")[1] == cli("records", "--limit", 1)[1]


def test_settings_that_are_a_link_are_in_it(tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    settings = home.folder / "suffice.toml"
    settings.rename(tmp_path / "mounted.toml")
    settings.symlink_to(tmp_path / "mounted.toml")
    backup.backup(home, settings, tmp_path / "b.tar", 5.0, silent)
    backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)
    assert (tmp_path / "new" / "suffice.toml").read_text() == "[policy]\nmax_error = 0.03\n"


def test_a_backup_that_lies_in_the_home_is_no_part_of_the_next(tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    first, second = (backup.backup(home, None, home.folder / f"{name}.tar", 5.0, silent) for name in "ab")
    assert first.files.keys() == second.files.keys() and "a.tar" not in second.files


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    filled(tmp_path / "home")
    assert cli("backup", tmp_path / "b.tar")[0] == 0
    code, _, err = cli("backup", tmp_path / "b.tar")
    assert code == 2 and "exists" in err
    code, _, err = cli("restore", tmp_path / "b.tar")
    assert code == 2 and "not empty" in err
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError):
        backup.restore(tmp_path / "b.tar", tmp_path / "file", silent)


def test_damage_is_found_before_anything_is_made(tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    file = tmp_path / "b.tar"
    backup.backup(home, None, file, 5.0, silent)
    whole = file.read_bytes()
    at = whole.index(b"weights", whole.index(b"releases/"))
    at = whole.index(b"weights", at + 512)
    for damaged in (whole[: len(whole) // 2], whole[:at] + b"WEIGHTS" + whole[at + 7 :], b"no tar", b""):
        file.write_bytes(damaged)
        with pytest.raises(StoreError):
            backup.restore(file, tmp_path / "new", silent)
        assert not (tmp_path / "new").exists()
    assert digest_of(whole) != digest_of(damaged)


def test_a_damaged_artefact_is_told_when_the_backup_is_made(tmp_path: Path) -> None:
    home = filled(tmp_path / "home")
    next((home.folder / "releases").iterdir()).joinpath("weights").write_bytes(b"other")
    with pytest.raises(StoreError, match=r"artefact .* is damaged"):
        backup.backup(home, None, tmp_path / "b.tar", 5.0, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_is_encrypted_stays_so(tmp_path: Path) -> None:
    home = filled(tmp_path / "home", Keys(bytes(32)))
    backup.backup(home, None, tmp_path / "b.tar", 5.0, silent)
    assert b"x" * 40 not in (tmp_path / "b.tar").read_bytes()
    backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)
    with pytest.raises(StoreError, match="encrypted"):
        Home(tmp_path / "new")
    assert len(list(records.query(Home(tmp_path / "new", keys=Keys(bytes(32)))))) == 2_000


def test_names_that_lead_out_of_the_home_are_refused(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(tmp_path / "evil", "../evil")
    with pytest.raises(StoreError, match="no backup of ours"):
        backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)


def test_a_backup_without_a_database_is_not_restored(tmp_path: Path) -> None:
    told = b'{"version": "0", "schema": 4, "at": 0, "records": 0, "files": {}}'
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        member = tarfile.TarInfo("backup.json")
        member.size = len(told)
        tar.addfile(member, io.BytesIO(told))
    with pytest.raises(StoreError, match=r"it has no suffice\.db"):
        backup.restore(tmp_path / "b.tar", tmp_path / "new", silent)
    assert not (tmp_path / "new").exists()
