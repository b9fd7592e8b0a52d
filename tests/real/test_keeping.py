"""What is kept of what was said, and what is not: parts, keys, retention, erasure, exports."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from suffice.core.config import Records
from suffice.core.errors import InputError, StoreError
from suffice.learn import datasets as learned
from suffice.serve.capture import Capture
from suffice.store import dropping, erasing, patterns, records, releases, watches
from suffice.store.dropping import DAY_S
from suffice.store.erasing import Wish
from suffice.store.home import Home
from suffice.store.records import Row, Trusted, Writer
from suffice.store.rekey import rekey
from suffice.store.sealed import Keys, id_of, keys_of
from suffice.store.watches import Audit

Cli = Callable[..., tuple[int, list[Any], str]]
OLD, NEW = bytes(range(32)), bytes(range(1, 33))
SECRET = "the-words-of-one-person"
SYSTEM = "You are told what to do at some length. " * 20


def request(user: str, system: str = SYSTEM) -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return json.dumps({"model": "m", "messages": messages}).encode()


def row(name: str, user: str = SECRET, at: float = 0.0, **other: Any) -> Row:
    said: dict[str, Any] = {
        "input": user,
        "predicted": json.dumps(user),
        "request": request(user),
        "answer": request(user),
    }
    told: dict[str, Any] = {"id": name, "at": at, "source": "live", "task": "t", "status": 200, "route": "frontier"}
    return Row(**told | said | other)


def filled(home: Home, rows: list[Row], judged: int = 100) -> Home:
    """A home with rows that a gateway wrote, an audit and a trusted answer for each of the first."""
    connection = home.connect()
    Writer(home.bodies).insert(connection, rows)
    connection.close()
    for each in rows[:judged]:
        watches.add_audit(home, Audit(record=each.id, at=each.at, answer=each.answer))
        records.add_trusted(home, Trusted(each.id, "human", each.input))
    return home


def read(home: Home) -> list[tuple[Row, Any, bytes | None]]:
    audits = watches.get_audits(home, [found.id for found, _ in records.query(home)])
    return [(found, told and told.value, audits[found.id].answer) for found, told in records.query(home)]


def on_disk(home: Home) -> bytes:
    return b"".join(path.read_bytes() for path in home.folder.rglob("*") if path.is_file())


def count(home: Home, table: str) -> int:
    with home.engine.connect() as db:
        return int(db.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


# ---------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("key", [None, OLD], ids=["readable", "sealed"])
def test_what_repeats_is_stored_once_and_every_reader_sees_it_whole(tmp_path: Path, key: bytes | None) -> None:
    home = filled(Home(tmp_path, keys=Keys(key)), [row(f"r{i}", f"user {i}", float(i)) for i in range(50)])
    assert count(home, "parts") == 1
    assert [(found.request, told, audit) for found, told, audit in read(home)] == [
        (request(f"user {i}"), f"user {i}", request(f"user {i}")) for i in range(50)
    ]
    assert [one.request for some in patterns.unread(home, 0) for one in some] == [
        request(f"user {i}") for i in range(50)
    ]
    if key is None:
        assert on_disk(home).count(SYSTEM.encode()) < 120, "answers and audits are not cut, requests are"


def test_a_group_that_could_not_be_written_leaves_no_reference_to_a_part_that_is_not_there(tmp_path: Path) -> None:
    home = Home(tmp_path)
    connection, writer = home.connect(), Writer(home.bodies)
    with pytest.raises(OverflowError):
        writer.insert(connection, [row("a"), row("b"), row("c", prompt_tokens=2**70)])
    writer.insert(connection, [row("a"), row("b")])
    connection.close()
    assert [found.request for found, _ in records.query(home)] == [request(SECRET)] * 2


def test_a_writer_hears_of_swept_parts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    connection, writer = home.connect(), Writer(home.bodies)
    writer.insert(connection, [row("a"), row("b")])
    erasing.erase(home, ["a", "b"], Wish(ids=("a", "b")))
    assert count(home, "parts") == 0
    writer.insert(connection, [row("c"), row("d")])
    connection.close()
    assert [found.request for found, _ in records.query(home)] == [None, None, request(SECRET), request(SECRET)]


# ---------------------------------------------------------------------------------------------- keys


def test_nothing_that_was_said_can_be_read_without_the_key(tmp_path: Path) -> None:
    home = filled(Home(tmp_path, keys=Keys(OLD)), [row(f"r{i}") for i in range(5)])
    assert [told for _, told, _ in read(home)] == [SECRET] * 5
    capture = Capture(home.connect, Records(), lambda *_: None, tmp_path, bodies=home.bodies)
    capture._pending = [row("aside")]
    capture._put_aside()
    stored = on_disk(home)
    assert SECRET.encode() not in stored and SYSTEM.encode()[:40] not in stored and OLD not in stored
    capture._prepare()
    assert {found.input for found, _ in records.query(home, ids=["aside"])} == {SECRET}


def test_a_home_opens_with_its_own_key_only(tmp_path: Path) -> None:
    filled(Home(tmp_path, keys=Keys(OLD)), [row("a")])
    for keys in (Keys(), Keys(NEW)):
        with pytest.raises(StoreError, match=f"key {id_of(OLD)}.*encrypt_key_env"):
            Home(tmp_path, keys=keys)
    with pytest.raises(InputError, match="THE_KEY, which is not set"):
        keys_of(Records(encrypt_key_env="THE_KEY"), {})
    with pytest.raises(InputError, match="THE_KEY holds no key"):
        keys_of(Records(encrypt_key_env="THE_KEY"), {"THE_KEY": "secret"})
    assert keys_of(Records(encrypt_key_env="K"), {"K": OLD.hex()}).current == id_of(OLD)


def test_a_sealed_body_does_not_open_in_another_place_or_changed(tmp_path: Path) -> None:
    home = filled(Home(tmp_path, keys=Keys(OLD)), [row("a"), row("b", "something else")])
    with sqlite3.connect(home.db_path) as db:
        db.execute("UPDATE records SET answer = (SELECT answer FROM records WHERE id = 'a') WHERE id = 'b'")
    with pytest.raises(StoreError, match="record b, answer was changed"):
        list(records.query(home))


def test_keys_can_be_changed_and_done_without(tmp_path: Path) -> None:
    home = filled(Home(tmp_path), [row(f"r{i}") for i in range(3)])
    before = read(home)
    for current, former in ((OLD, []), (NEW, [OLD]), (None, [NEW])):
        both = Home(tmp_path, keys=Keys(current, former))
        assert read(both) == before
        assert rekey(both, lambda *_: None)["records"] == 3
        dropping.settle(both)
        own = Home(tmp_path, keys=Keys(current))
        assert read(own) == before and (SECRET.encode() in on_disk(own)) == (current is None)


def test_a_writer_that_slept_over_a_sweep_and_a_change_of_keys_refers_to_no_part_that_is_gone(tmp_path: Path) -> None:
    home = Home(tmp_path, keys=Keys(OLD))
    rekey(home, lambda *_: None)
    writer, connection = Writer(home.bodies), home.connect()
    writer.insert(connection, [row("a"), row("b")])  # the second has its instructions as a part
    erasing.erase(home, ["a", "b"], Wish(ids=("a", "b")))
    rekey(home, lambda *_: None)
    writer.insert(connection, [row("c")])
    connection.close()
    assert next(found.request for found, _ in records.query(home) if found.id == "c") == request(SECRET)


def test_a_command_names_the_variable_that_is_missing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "suffice.toml").write_text('[records]\nencrypt_key_env = "THE_KEY"\n')
    filled(Home(tmp_path / "home", keys=Keys(OLD)), [row("a")])
    assert "THE_KEY" in cli("records")[2]
    monkeypatch.setenv("THE_KEY", NEW.hex())
    code, _, err = cli("records")
    assert code == 2 and id_of(OLD) in err and id_of(NEW) in err
    monkeypatch.setenv("THE_KEY", OLD.hex())
    assert cli("records")[1][0]["input"] == SECRET


# ---------------------------------------------------------------------------------------------- retention


def test_what_is_too_old_goes_by_its_task(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rows = [
        row(f"{task}{age}", at=(100 - age) * DAY_S, task=task or None) for task in ("", "t", "u") for age in (1, 5, 50)
    ]
    filled(home, rows)
    limits = {None: 10.0, "t": 2.0, "u": None}
    dropped = list(dropping.expire(home, lambda task: limits.get(task, 10.0), ["t", "u"], 100 * DAY_S))
    assert sum(one.records for one in dropped) == 3
    assert {found.id for found, _ in records.query(home) if found.gone == "expired"} == {"50", "t5", "t50"}
    for found, told, audit in read(home):
        bodies = (found.request, found.answer, found.input, found.predicted, told, audit)
        assert all(each is None for each in bodies) == (found.gone is not None), found.id
        assert (found.status, found.route) == (200, "frontier")
    assert not list(dropping.expire(home, lambda task: limits.get(task, 10.0), ["t", "u"], 100 * DAY_S))


def test_the_command_purges_and_a_tombstone_does_not_come_back(cli: Cli, written: Callable[..., Path]) -> None:
    (file := written([{"input": SECRET, "output": "x", "reference": "y", "at": 5.0, "task": "t"}]))
    cli("import", file)
    home = Path(file.parent / "home")
    (home / "suffice.toml").write_text("[tasks.t]\nkeep_days = 3\n")
    assert cli("records", "--purge")[1][0]["records"] == 1
    cli("import", file)
    ((found,)) = cli("records")[1]
    assert (found["gone"], found["input"], found["answer"], found["reference"]) == ("expired", None, None, None)
    told = learned.curated(Home(home), "t")
    assert not told.examples and list(told.dropped) == [learned.GONE["expired"]]


# ---------------------------------------------------------------------------------------------- erasure


def test_one_persons_records_are_gone_from_the_disk(cli: Cli, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    theirs = "<" + "long story of one person, told again and again in a conversation; " * 8
    rows = [
        row(f"p{i}", SECRET, float(i), group="person", session=f"s{i}", request=request(SECRET, theirs))
        for i in range(120)
    ]
    rows += [row(f"o{i}", f"other {i}", float(i), group="other") for i in range(120)]
    filled(home, [each for pair in zip(rows[:120], rows[120:], strict=True) for each in pair], 10)
    assert cli("erase", "--group", "person", "--dry-run")[1][0]["records"] == 120
    assert SECRET.encode() in on_disk(home)
    code, (told,), _ = cli("erase", "--group", "person")
    assert (code, told["records"], told["trusted"], told["log_emptied"]) == (0, 120, 5, True)
    stored = on_disk(home)
    assert SECRET.encode() not in stored and theirs.encode()[:60] not in stored and b"person" not in stored
    kept = [found for found, _ in records.query(home) if found.gone is None]
    assert [found.request for found in kept] == [request(f"other {i}") for i in range(120)]
    assert all(found.status == 200 and found.group is None for found, _ in records.query(home) if found.gone)
    assert cli("erase", "--group", "person")[0] == 1, "nobody is meant any more"


def test_an_audit_that_comes_after_its_record_was_erased_keeps_nothing(tmp_path: Path) -> None:
    home = filled(Home(tmp_path), [row("a"), row("b")], judged=0)
    erasing.erase(home, ["a"], Wish(ids=("a",)))
    for name in "ab":
        watches.add_audit(home, Audit(record=name, at=0.0, answer=SECRET.encode(), prompt_tokens=3))
    audits = watches.get_audits(home, ["a", "b"])
    assert audits["a"].answer is None and audits["a"].prompt_tokens == 3
    assert audits["b"].answer == SECRET.encode()


def test_a_text_is_found_in_the_arguments_of_a_call_however_they_are_escaped() -> None:
    wish = Wish(texts=("Zoë Müller",))
    arguments = json.dumps({"to": ["Zoë Müller"]})  # as most clients write it: with escapes
    body = json.dumps({"tool_calls": [{"function": {"arguments": arguments}}]}).encode()
    assert b"u00fc" in body and wish.stands_in(body)
    assert not wish.stands_in(body.replace(b"u00fc", b"u00fd"))


def test_a_text_is_found_however_deep_it_stands() -> None:
    assert Wish(texts=("ü",)).stands_in(b"[" * 900 + b'"\\u00fc"' + b"]" * 900)


@pytest.mark.parametrize("key", [None, OLD], ids=["readable", "sealed"])
def test_a_text_is_found_however_it_is_written_and_wherever_it_stands(tmp_path: Path, key: bytes | None) -> None:
    text = 'Zoë "the" first'
    escaped, plain = json.dumps(text).encode(), json.dumps(text, ensure_ascii=False).encode()
    rows = [
        row("a", "", request=b'{"x":' + escaped + b"}"),
        row("b", "", answer=plain),
        row("c", text),
        row("d", "Zo"),
        row("e", "", request=b"no json: " + text.encode()),
    ]
    home = filled(Home(tmp_path, keys=Keys(key)), rows)
    records.add_trusted(home, Trusted("d", "human", {"name": text}))
    wish = Wish(texts=(text,))
    assert erasing.find(home, wish) == ["a", "b", "c", "d", "e"]
    erasing.erase(home, ["a", "b", "c", "d", "e"], wish)
    assert erasing.find(home, wish) == []


def test_records_that_wait_to_be_written_are_erased_too(tmp_path: Path) -> None:
    home = Home(tmp_path)
    capture = Capture(home.connect, Records(), lambda *_: None, tmp_path)
    capture._pending = [row("a", group="person"), row("b", "other")]
    capture._put_aside()
    assert erasing.erase(home, [], Wish(groups=("person",))).records == 1
    assert SECRET.encode() not in on_disk(home)
    capture._prepare()
    assert [(found.id, found.gone, found.input) for found, _ in records.query(home)] == [
        ("a", "erased", None), ("b", None, "other"),
    ]  # fmt: skip


def test_what_was_learned_from_erased_records_is_told(cli: Cli, written: Callable[..., Path], tmp_path: Path) -> None:
    rows = [
        {
            "input": f"{'please refund order' if i % 2 else 'where is parcel'} {i}",
            "output": "ab"[i % 2],
            "group": f"g{i}",
        }
        for i in range(400)
    ]
    code, (document,), err = cli("learn", "t", "--data", written(rows), "--max-error", "0.1", "--recipe", "linear")
    assert code == 0, err
    home = Home(tmp_path / "home")
    code, (told,), _ = cli("erase", "--group", "g7", "--group", "g8")
    assert (told["records"], told["releases"]) == (2, [document["release"]])
    assert "learned from were erased" in releases.events(home, "t", kind="erased")[0].what
    assert not Path(document["report"]).exists()
    made = learned.kept(home, "t", "")
    assert {line.group for line in made.lines if not line.example} == {None}
    assert {line.record for line in made.lines if line.group is None} <= set(told["record_ids"])
    assert cli("show", "t@1")[0] == 0
    assert len(learned.curated(home, "t").examples) == 398


# ---------------------------------------------------------------------------------------------- exports


def test_exports_hold_every_record_whole(cli: Cli, tmp_path: Path) -> None:
    home = filled(Home(tmp_path / "home"), [row(f"r{i}", f"user {i}", at=float(i)) for i in range(20)])
    lines, table = tmp_path / "all.jsonl", tmp_path / "some.parquet"
    assert cli("records", "--export", lines)[1] == [{"file": str(lines), "records": 20}]
    assert [json.loads(line)["request"] for line in lines.read_bytes().splitlines()] == [
        json.loads(request(f"user {i}")) for i in range(20)
    ]
    cli("records", "--export", table, "--since", 5, "--limit", 10)
    got = pq.read_table(table).to_pylist()
    assert [each["id"] for each in got] == [f"r{i}" for i in range(10, 20)]
    assert (got[0]["request"], got[0]["reference"]) == (request("user 10").decode(), '"user 10"')
    assert (got[0]["at"].timestamp(), got[0]["status"], got[0]["latency_ms"]) == (10.0, 200, None)
    for wrong in (lines, tmp_path / "x.csv"):
        assert cli("records", "--export", wrong)[0] == 2
    code, (counted,), _ = cli("import", lines, home="there")
    assert (code, counted["imported"]) == (0, 20) and len(home.folder.parts) > 1
