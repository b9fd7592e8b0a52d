"""Importing whole files: every format and layout, interruptions by a real kill, and what does not grow with a file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from suffice.learn import curate, imports
from suffice.store import records
from suffice.store.home import Home
from suffice.store.records import Row

Cli = Callable[..., tuple[int, list[Any], str]]
Written = Callable[..., Path]
IMPORT = [sys.executable, "-m", "suffice.cli.main", "import"]
DEADLINE_S = 30.0
N = 8_000
"""Lines of a file that is interrupted: of eight batches."""


def exchange(i: int, answer: str = "card") -> dict[str, Any]:
    """A request and its answer, in the full form."""
    return {
        "request": {"model": "gpt-4o", "messages": [{"role": "user", "content": f"mail number {i}"}]},
        "response": {
            "id": f"chatcmpl-{i}",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
        },
    }


def observed(i: int, **fields: Any) -> dict[str, Any]:
    """A generation of Langfuse."""
    return {
        "id": f"obs-{i}",
        "traceId": f"trace-{i}",
        "type": "GENERATION",
        "startTime": f"2025-06-15T15:06:{i:02d}Z",
        "model": "gpt-4o",
        "input": exchange(i)["request"]["messages"],
        "output": {"role": "assistant", "content": "card"},
        "usageDetails": {"input": 1000, "output": 100},
        "userId": f"user {i % 2}",
        **fields,
    }


def spent(i: int, **fields: Any) -> dict[str, Any]:
    """A row of LiteLLM's spend logs, as a database writes it."""
    return {
        "request_id": f"chatcmpl-{i}",
        "call_type": "acompletion",
        "spend": 0.5,
        "startTime": "2025-06-15 15:06:40.25",
        "model": "gpt-4o",
        "messages": json.dumps(exchange(i)["request"]["messages"]),
        "response": json.dumps(exchange(i)["response"]),
        **fields,
    }


def stored(tmp_path: Path, home: str = "home") -> list[Row]:
    """All records, by id."""
    return sorted((row for row, _ in records.query(Home(tmp_path / home))), key=lambda row: row.id)


def as_csv(entries: Iterable[dict[str, Any]]) -> str:
    rows = [{k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in entry.items()} for entry in entries]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------- formats and layouts


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("layout", ["lines", "list", "pretty", "page", "pretty page", "csv"])
@pytest.mark.parametrize(("name", "make"), [("langfuse", observed), ("litellm", spent)])
def test_a_log_in_any_layout(
    tmp_path: Path, cli: Cli, name: str, make: Callable[[int], dict[str, Any]], layout: str, packed: bool
) -> None:
    entries = [make(i) for i in range(30)]
    page = {"data": entries, "meta": {"page": 1}}
    text = {
        "lines": "".join(json.dumps(entry) + "\n" for entry in entries),
        "list": json.dumps(entries),
        "pretty": json.dumps(entries, indent=2),
        "page": json.dumps(page) + "\n",
        "pretty page": json.dumps(page, indent=1),
        "csv": as_csv(entries),
    }[layout]
    path = tmp_path / ("log.csv" if layout == "csv" else "log.json")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    code, (told,), _ = cli("import", path, "--task", "mail")
    assert (code, told["format"], told["imported"], told["known"], told["bad"]) == (0, name, 30, 0, [])
    rows = stored(tmp_path)
    assert {(row.dialect, row.route, row.task, row.model) for row in rows} == {("chat", "frontier", "mail", "gpt-4o")}
    assert [row.cost_usd for row in rows] == pytest.approx([0.5 if name == "litellm" else 0.0035] * 30)
    assert {(row.prompt_tokens, row.completion_tokens, row.tokens_estimated) for row in rows} == {(1000, 100, False)}
    assert cli("import", path, "--task", "mail")[1][0]["known"] == 30


def test_a_file_and_its_compressed_copy_are_one_file(tmp_path: Path, cli: Cli, written: Written) -> None:
    path = written([{"input": str(i), "output": "a"} for i in range(5)])
    cli("import", path)
    copy = tmp_path / "copy.jsonl.gz"
    copy.write_bytes(gzip.compress(path.read_bytes()))
    assert cli("import", copy)[1][0]["known"] == 5
    copy.write_bytes(gzip.compress(path.read_bytes())[:-9])
    code, _, err = cli("import", copy)
    assert code == 2 and "gzip" in err and len(err.splitlines()) == 1


def test_formats_may_be_mixed_in_one_file(tmp_path: Path, cli: Cli, written: Written) -> None:
    example = {"messages": [*exchange(4)["request"]["messages"], {"role": "assistant", "content": "card"}]}
    code, (told,), err = cli(
        "import",
        written([exchange(1), observed(2), spent(3), example, {"input": "x", "output": "y"}, {"text": "x"}]),
    )
    assert (code, told["imported"], told["format"]) == (0, 5, "finetuning, langfuse, litellm, suffice")
    assert [bad["line"] for bad in told["bad"]] == [6] and "line 6" in err


def test_what_is_no_call_is_counted_and_no_bad_line(cli: Cli, written: Written) -> None:
    spans = [observed(i, type="SPAN") for i in range(3)]
    _, (told,), err = cli("import", written([observed(9), *spans, observed(10, level="ERROR")]))
    assert (told["imported"], told["bad"], err) == (1, [], "")
    assert told["left_out"] == {"`type` is SPAN, not GENERATION": 3, "the call failed (`level` is ERROR)": 1}


def test_a_format_that_is_named_is_that_of_all_lines(cli: Cli, written: Written) -> None:
    file = written([{"input": "x", "output": "y", "id": "1"}])
    assert cli("import", file, "--format", "litellm")[0] == 2
    assert cli("import", file, "--format", "langfuse")[1][0]["format"] == "langfuse"
    assert cli("import", file, "--format", "nonsense")[0] == 2


def test_rows_of_one_user_are_a_group_where_that_is_asked_for(tmp_path: Path, cli: Cli, written: Written) -> None:
    file = written([observed(i) for i in range(4)])
    cli("import", file, home="plain")
    cli("import", file, "--by-user", home="grouped")
    assert {row.group for row in stored(tmp_path, "plain")} == {None}
    assert {row.group for row in stored(tmp_path, "grouped")} == {"user 0", "user 1"}


# ---------------------------------------------------------------------------------------------- costs


def test_costs_told_and_computed(tmp_path: Path, cli: Cli, written: Written) -> None:
    bare = exchange(3)
    del bare["response"]["usage"]
    alias = exchange(4)
    alias["request"]["model"], alias["response"]["model"] = "ours", "gpt-4o"
    nobody = exchange(5)
    nobody["request"]["model"] = "ours"
    cli("import", written([{**exchange(1), "cost_usd": 7}, exchange(2), bare, alias, nobody]))
    told, computed, estimated, aliased, unknown = stored(tmp_path)
    assert told.cost_usd == 7
    assert computed.cost_usd == pytest.approx(1000 * 2.5e-6 + 100 * 10e-6)
    assert aliased.cost_usd == computed.cost_usd and unknown.cost_usd is None
    assert estimated.tokens_estimated and estimated.prompt_tokens == 4 and estimated.cost_usd
    assert not computed.tokens_estimated


def test_what_is_learned_from_a_file_is_priced_as_an_import_is(tmp_path: Path, cli: Cli, written: Written) -> None:
    file = written([exchange(i) for i in range(12)])
    assert cli("learn", "mail", "--data", file)[0] == 1
    cli("import", file, "--task", "mail", home="there")
    assert [row.cost_usd for row in stored(tmp_path)] == [row.cost_usd for row in stored(tmp_path, "there")]
    assert all(row.cost_usd for row in stored(tmp_path))


def test_a_cost_that_is_none_is_a_bad_line(cli: Cli, written: Written) -> None:
    lines = [{"input": "x", "output": "y", "cost_usd": cost} for cost in (-1, "much", True, 0.5)]
    _, (told,), _ = cli("import", written(lines))
    assert [bad["line"] for bad in told["bad"]] == [1, 2, 3]


# ---------------------------------------------------------------------------------------------- records of a home


def test_records_are_carried_over_as_they_are(tmp_path: Path, cli: Cli, written: Written) -> None:
    here = Home(tmp_path / "here")
    request, answer = (json.dumps(body).encode() for body in exchange(1).values())
    common: dict[str, Any] = {"source": "live", "task": "mail", "status": 200, "request": request, "answer": answer}
    made = [
        Row(id="rec_1", at=5.5, route="openai", reason="below_threshold", stage="live", score=0.25, predicted='"card"',
            threshold=0.5, acceptable=True, watch=3, coin=0.5, audited=True, stakes="1", release="mail@1", session="s",
            cost_usd=0.25, prompt_tokens=3, completion_tokens=1, latency_ms=9.5, response_id="chatcmpl-1", **common),
        Row(id="rec_2", at=6, route="specialist", reason="accepted", stage="live", score=0.9, predicted='"card"',
            release="mail@1", tokens_estimated=True, slices="a,b", **common),
        Row(id="rec_3", at=7, route="none", status=502, failure="it hung up", source="live", request=b"{oops"),
    ]  # fmt: skip
    records.import_rows(here, made, [records.Trusted("rec_2", "rule", None)])
    cli("import", written([{"input": "x", "output": None, "at": 8}, {"input": "y", "reference": "z"}]), home="here")
    _, documents, _ = cli("records", home="here")
    file = written(documents, "records.jsonl")
    _, (told,), err = cli("import", file, home="there")
    assert (told["format"], told["imported"], told["bad"], err) == ("records", 5, [], "")
    assert cli("import", file, home="there")[1][0]["known"] == 5
    assert cli("import", file, home="here")[1][0]["known"] == 5

    before, after = stored(tmp_path, "here"), stored(tmp_path, "there")
    left = {"release", "watch", "coin", "audited", "stakes", "request", "answer"}
    names = [name for name in Row.__struct_fields__ if name not in left]
    assert [[getattr(row, name) for name in names] for row in after] == [
        [getattr(row, name) for name in names] for row in before
    ]
    assert {(row.release, row.watch, row.coin, row.audited, row.stakes) for row in after} == {(None,) * 5}
    assert [records.body(row.answer) for row in after] == [records.body(row.answer) for row in before]
    assert [records.body(row.request) for row in after] == [records.body(row.request) for row in before]
    assert [imports.origin_of(row.id) for row in after] == [imports.origin_of(row.id) for row in before]

    found = list(records.query(Home(tmp_path / "there"), task="mail"))
    assert [trusted for _, trusted in found] == [None, records.Trusted("rec_2", "rule", None)]
    unsure, served = curate.examples(found).examples
    assert not unsure.sampled  # it is there because a specialist was unsure of it
    assert not served.has_output and served.has_reference
    assert not curate.examples([(row, None) for row, _ in found if row.route == "specialist"]).examples


@pytest.mark.parametrize("shape", ["suffice", "litellm", "langfuse"])
def test_what_a_specialist_answered_is_known_by_its_model(
    tmp_path: Path, cli: Cli, written: Written, shape: str
) -> None:
    """Logs of a proxy or a tracer before a gateway of ours: its answers are no truth, and the rest is no sample."""
    ours, theirs = "suffice/mail@3", "gpt-4o"
    lines: list[dict[str, Any]] = []
    for i, model in enumerate((ours, theirs)):
        full = exchange(i)
        full["response"]["model"] = model
        lines.append({"suffice": full, "langfuse": observed(i, model=model)}.get(shape) or spent(
            i, response=json.dumps({**full["response"], "model": f"openai/{model}" if model == ours else model})
        ))  # fmt: skip
    cli("import", written(lines), "--task", "mail")
    rows = stored(tmp_path)
    assert [row.route for row in rows] == ["specialist", "frontier"]
    found = curate.examples([(row, None) for row in rows])
    assert [(example.id, example.sampled) for example in found.examples] == [(rows[1].id, False)]
    assert found.dropped == {curate.BY_SPECIALIST: [rows[0].id]}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "../x y"}, "`id`"),
        ({"id": 5}, "id"),
        ({"source": "theirs"}, "`source`"),
        ({"at": None}, ""),
        ({"latency_ms": "fast"}, "latency_ms"),
        ({"reference_kind": "frontier"}, "`reference_kind`"),
        ({"task": "a@3"}, "`task`"),
    ],
    ids=str,
)
def test_a_record_that_is_none(cli: Cli, written: Written, fields: dict[str, Any], named: str) -> None:
    record = {"id": "rec_1", "at": 1.0, "source": "live", "dialect": "chat", "route": "frontier", "request": None}
    code, _, err = cli("import", written([{**record, **fields}]))
    assert (code, named in err) == ((0, True) if fields == {"at": None} else (2, True))


# ---------------------------------------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("unknown.jsonl", b'{"text": "x", "label": "y"}\n' * 3, ["text, label", "langfuse", "litellm", "suffice"]),
        ("unknown.csv", b"text,label\nx,y\n", ["text, label", "langfuse", "`input`"]),
        ("table.parquet", b"PAR1\x15\x00\x15\x0c", ["Parquet"]),
        ("wide.json", '{"input": "x"}'.encode("utf-16"), ["UTF-8"]),
        ("empty.jsonl", b"", ["empty"]),
        ("blank.jsonl", b"\n \n", ["empty"]),
        ("empty.json.gz", gzip.compress(b""), ["empty"]),
        ("cut.json", json.dumps([exchange(1)], indent=1)[:-30].encode(), ["JSON"]),
        ("none.json", b"[]", ["empty"]),
        ("spans.json", json.dumps([observed(1, type="SPAN")]).encode(), ["not one"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_no_use_is_told_in_one_line(
    tmp_path: Path, cli: Cli, name: str, content: bytes, words: list[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    code, out, err = cli("import", tmp_path / name)
    assert (code, out, len(err.splitlines())) == (2, [], 1), err
    assert all(word in err for word in [name, *words]), err


def test_a_pipe_is_no_file(tmp_path: Path, cli: Cli) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"input": "x", "output": "y"}\n')
    os.close(writer)
    code, _, err = cli("import", f"/dev/fd/{reader}")
    os.close(reader)
    assert code == 2 and "twice" in err


def test_lists_that_come_page_by_page_are_explained(cli: Cli, written: Written) -> None:
    page = {"object": "list", "data": [exchange(1)], "has_more": True}
    _, (told,), _ = cli("import", written([page, page, exchange(2)]))
    assert told["imported"] == 1
    assert ["data" in bad["reason"] for bad in told["bad"]] == [True, True]


def test_lines_whose_first_is_cut_are_still_lines(cli: Cli, written: Written) -> None:
    _, (told,), _ = cli("import", written(['{"input": "x", "out', {"input": "y", "output": "z"}]))
    assert (told["imported"], [bad["line"] for bad in told["bad"]]) == (1, [1])


def test_lines_none_of_which_can_be_read_are_told_one_by_one(cli: Cli, written: Written) -> None:
    code, _, err = cli("import", written(["{", "5"]))
    assert (code, "line 1" in err, "line 2" in err) == (2, True, True)
    code, _, err = cli("import", written(["[", '  {"input": "x",, "output": "y"}', "]"], "data.json"))
    assert (code, "line 2" in err, len(err.splitlines())) == (2, True, 1)


def test_a_document_that_is_too_large(
    tmp_path: Path, cli: Cli, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "LARGEST", 1000)
    lines = [exchange(i) for i in range(10)]
    assert cli("import", written(lines))[1][0]["imported"] == 10
    (tmp_path / "x.json").write_text(json.dumps(lines))
    code, _, err = cli("import", tmp_path / "x.json")
    assert code == 2 and "JSON Lines" in err


def test_a_line_of_50_mb_and_one_that_is_too_long(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        for size in (50, 65):
            file.write(b'{"input": "' + b"x" * (size * 2**20) + b'", "output": "a"}\n')
        file.write(b'{"input": "last", "output": "a"}\n')
    _, (told,), _ = cli("import", path)
    assert told["imported"] == 2
    assert told["bad"] == [{"line": 2, "reason": "longer than 64 MB"}]


def test_many_bad_lines_are_counted(cli: Cli, written: Written) -> None:
    _, (told,), err = cli("import", written([*["oops"] * 10_010, {"input": "x", "output": "y"}]))
    assert (told["imported"], len(told["bad"]), told["bad_lines"]) == (1, 10_000, 10_010)
    assert len(err.splitlines()) == 21 and "9,990 more" in err


# ---------------------------------------------------------------------------------------------- interruptions


def place(db: sqlite3.Connection) -> tuple[int, float | None] | None:
    """The line of the only bookmark, and when its import was done."""
    found: tuple[int, float | None] | None = db.execute("SELECT line, done_at FROM imports").fetchone()
    return found


def interrupted(file: Path, home: Path, how: signal.Signals) -> tuple[int, str]:
    """Import in a process of its own that is ended between two batches; the line it was at, and what it said.

    The database is held while the signal is sent, so that the import cannot come to its end first.
    """
    Home(home)
    with (
        closing(sqlite3.connect(home / "suffice.db", timeout=0, isolation_level=None)) as db,
        subprocess.Popen([*IMPORT, file, "--home", home], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        end = time.monotonic() + DEADLINE_S
        while not db.in_transaction:
            assert process.poll() is None and time.monotonic() < end
            if place(db) is not None:
                with suppress(sqlite3.OperationalError):  # it is writing
                    db.execute("BEGIN IMMEDIATE")
        process.send_signal(how)
        db.rollback()
        _, err = process.communicate(timeout=DEADLINE_S)
        found = place(db)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    assert found is not None and found[1] is None
    return found[0], err.decode()


LINES: dict[str, Callable[[int], str]] = {
    "lines.jsonl": lambda i: json.dumps({"input": f"mail {i}", "output": "a"} if i % 1000 else {"input": 5}),
    "lines.jsonl.gz": lambda i: json.dumps({"input": f"mail {i}", "output": "a"}),
    "table.csv": lambda i: f'"mail\n{i}",a' if i else "input,output",
    "document.json": lambda i: ("," if i else "[") + json.dumps({"input": f"mail {i}", "output": "a"}),
}


@pytest.mark.parametrize(
    ("name", "how"), [*((name, signal.SIGKILL) for name in LINES), ("lines.jsonl", signal.SIGINT)], ids=str
)
def test_an_import_goes_on_where_it_was_killed(tmp_path: Path, cli: Cli, name: str, how: signal.Signals) -> None:
    file = tmp_path / name
    text = "\n".join(map(LINES[name], range(N))) + ("\n]" if name.endswith(".json") else "\n")
    file.write_bytes(gzip.compress(text.encode(), 1) if name.endswith(".gz") else text.encode())
    line, err = interrupted(file, tmp_path / "home", how)
    if how == signal.SIGINT:
        assert "the next import goes on there" in err and "Traceback" not in err
    held = stored(tmp_path)
    assert 0 < len(held) < N - 1000 and len(held) % 1000 == 0
    code, (told,), _ = cli("import", file)
    assert (code, told["resumed_after"], told["known"]) == (0, line, 0)
    assert told["imported"] + len(held) == len(stored(tmp_path))

    _, (whole,), _ = cli("import", file, home="whole")
    both = stored(tmp_path), stored(tmp_path, "whole")
    assert [row.id for row in both[0]] == [row.id for row in both[1]]
    assert [row.input for row in both[0]] == [row.input for row in both[1]]
    assert len({row.at for row in both[0]}) == 1  # or `at` would tell copies of these rows apart
    again = cli("import", file)[1][0]
    assert (again["imported"], again["known"], again["resumed_after"]) == (0, whole["imported"], None)


def test_a_file_that_is_read_as_another_format_starts_again(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(map(LINES["lines.jsonl"], range(N))))
    interrupted(file, tmp_path / "home", signal.SIGKILL)
    held = len(stored(tmp_path))
    told = cli("import", file, "--format", "suffice")[1][0]
    assert told["resumed_after"] is None and told["known"] == held


def test_a_full_database_keeps_what_it_took(tmp_path: Path, cli: Cli, written: Written) -> None:
    file = written([{"input": f"{i}" + "x" * 500, "output": "a"} for i in range(5000)])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "suffice.toml").write_text("[records]\nmax_db_mb = 3\n")
    code, _, err = cli("import", file)
    held = len(stored(tmp_path))
    assert code == 2 and held and len(err.splitlines()) == 1
    assert "full" in err and f"{held:,} rows are imported" in err
    (tmp_path / "home" / "suffice.toml").unlink()
    assert cli("import", file)[1][0]["imported"] == 5000 - held


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    peaks = []
    for n in (2_000, 20_000):
        file = tmp_path / f"{n}.{kind}"
        lines = (json.dumps({"input": f"{i} " + "x" * 1000, "output": "a"}) for i in range(n))
        rows = (f'{i} "" {"x" * 1000},a' for i in range(n))
        file.write_text("\n".join(lines) if kind == "jsonl" else "input,output\n" + "\n".join(rows))
        process = subprocess.Popen([*IMPORT, file, "--home", tmp_path / f"home{n}"], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(used.ru_maxrss / 1024)
    assert peaks[1] < peaks[0] + 10, f"{peaks} MB for files of 2 MB and 20 MB"
