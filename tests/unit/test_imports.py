"""Traffic from files: both forms, CSV, and what a bad line says."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from suffice.core.errors import InputError
from suffice.learn.imports import Parsed, parse
from suffice.store.records import Row

NOW = 1_800_000_000.0
BODY = {"model": "gpt-x", "messages": [{"role": "user", "content": "hello"}]}
REPLY = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def lines(folder: Path, *entries: Any, name: str = "f.jsonl") -> Parsed:
    """The file of these lines, parsed; texts are written as they are."""
    path = folder / name
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries), encoding="utf-8")
    return parse(path, None, NOW)


def one(folder: Path, **entry: Any) -> Row:
    parsed = lines(folder, entry)
    assert not parsed.bad
    return parsed.rows[0]


def table(folder: Path, data: str | bytes) -> Parsed:
    path = folder / "f.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return parse(path, "t", NOW)


def said(row: Row) -> tuple[str | None, Any]:
    return row.input, json.loads(row.answer) if row.answer is not None else None


def test_the_full_form(folder: Path) -> None:
    row = one(folder, request=BODY, response=REPLY, task="t", session="s", group="g", slices=["x", "y"], at=5)
    assert (row.task, row.session, row.group, row.slices, row.at) == ("t", "s", "g", "x,y", 5.0)
    assert (row.model, row.route, row.status, row.response_id) == ("gpt-x", "frontier", 200, "chatcmpl-1")
    assert (row.prompt_tokens, row.completion_tokens) == (3, 1)
    assert json.loads(row.request or b"") == BODY
    assert json.loads(row.answer or b"") == REPLY


@pytest.mark.parametrize(
    "output", ["a", 5, 1.5, True, None, ["a", "b"], [], {"city": ["Boston"]}, {"tool_calls": []}, {}, ""], ids=repr
)
def test_the_short_form_keeps_every_shape(folder: Path, output: Any) -> None:
    assert said(one(folder, input="hello", output=output)) == ("hello", output)
    parsed = lines(folder, {"input": "hello", "reference": output})
    assert [answer.value for answer in parsed.trusted] == [output]
    assert (parsed.rows[0].answer, parsed.rows[0].route) == (None, "none")


def test_references(folder: Path) -> None:
    parsed = lines(
        folder,
        {"input": "x", "output": "a", "reference": "b"},
        {"input": "x", "output": "a", "reference": "b", "reference_kind": "rule"},
        {"request": BODY, "reference": "c"},
        {"input": "x", "output": "a"},
    )
    assert [(t.kind, t.value) for t in parsed.trusted] == [("human", "b"), ("rule", "b"), ("human", "c")]
    assert [t.record for t in parsed.trusted] == [row.id for row in parsed.rows[:3]]


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (5, 5.0),
        (5.5, 5.5),
        ("5.5", 5.5),
        (None, NOW),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        ("1970-01-02T00:00:00+00:00", 86400.0),
    ],
)
def test_times(folder: Path, at: Any, seconds: float) -> None:
    assert one(folder, input="x", output="a", at=at).at == seconds


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("{", "JSON"),
        ("5", "object"),
        ('"text"', "object"),
        ({}, "input"),
        ({"text": "x", "label": "y"}, "text, label"),
        ({"input": 5, "output": "a"}, "`input`"),
        ({"input": None, "output": "a"}, "`input`"),
        ({"input": "x"}, "`output`"),
        ({"input": "x", "output": [1]}, "`output`"),
        ({"input": "x", "output": {"tool_calls": [{"id": 1}]}}, "tool_calls"),
        ({"input": "x", "reference": [None]}, "`reference`"),
        ({"input": "x", "reference": "a", "reference_kind": "frontier"}, "`reference_kind`"),
        ({"input": "x", "reference": "a", "reference_kind": ["human"]}, "`reference_kind`"),
        ({"input": "x", "output": "a", "at": "yesterday"}, "`at`"),
        ({"input": "x", "output": "a", "at": True}, "`at`"),
        ({"input": "x", "output": "a", "at": []}, "`at`"),
        ('{"input": "x", "output": "a", "at": 1e999}', ""),
        ({"input": "x", "output": "a", "task": 5}, "`task`"),
        ({"input": "x", "output": "a", "task": ""}, "`task`"),
        ({"input": "x", "output": "a", "group": 5}, "`group`"),
        ({"input": "x", "output": "a", "slices": 5}, "`slices`"),
        ({"request": {}, "response": REPLY}, "`messages`"),
        ({"request": "x", "response": REPLY}, "request"),
        ({"request": BODY}, "`response`"),
        ({"request": BODY, "response": "a"}, "`response`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_line_is_named_and_the_others_kept(folder: Path, entry: Any, named: str) -> None:
    good = {"input": "x", "output": "a"}
    parsed = lines(folder, good, "", entry, good)
    assert [(bad.line, named in bad.reason) for bad in parsed.bad] == [(3, True)]
    assert len(parsed.rows) == 2


@pytest.mark.parametrize(
    "entry",
    [
        "[" * 5000,
        {"input": "x", "output": "a", "at": "0001-01-01T00:00:00+23:00"},
        {"input": "x", "output": "a", "at": 1e300},
    ],
    ids=["deep", "the year one", "a time beyond all years"],
)
def test_a_very_odd_line_is_only_a_bad_line(folder: Path, entry: Any) -> None:
    parsed = lines(folder, {"input": "x", "output": "a"}, entry)
    assert [bad.line for bad in parsed.bad] == [2]


def test_byte_order_mark_blank_lines_and_windows_lines(folder: Path) -> None:
    path = folder / "f.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"input":"x","output":"a"}\r\n\r\n{"input":"y","output":"\xff"}\r\n')
    parsed = parse(path, "t", NOW)
    assert [row.input for row in parsed.rows] == ["x"]
    assert [bad.line for bad in parsed.bad] == [3]


def test_ids_come_from_content_line_and_task(folder: Path) -> None:
    entry = {"input": "x", "output": "a"}
    first, copy = lines(folder, entry, entry), lines(folder, entry, entry, name="copy.jsonl")
    assert len({row.id for row in first.rows}) == 2  # the same content twice is two rows
    assert [row.id for row in first.rows] == [row.id for row in copy.rows]
    assert first.rows[0].id != parse(folder / "f.jsonl", "other", NOW).rows[0].id
    assert first.rows[0].id != lines(folder, entry, name="shorter.jsonl").rows[0].id


def test_rows_of_one_file_stay_in_order(folder: Path) -> None:
    parsed = lines(folder, *({"input": str(i), "output": "a"} for i in range(30)))
    assert [row.input for row in sorted(parsed.rows, key=lambda row: (row.at, row.id))] == [str(i) for i in range(30)]


def test_files_that_are_none(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl"):
        parse(folder / "no.jsonl", None, NOW)
    with pytest.raises(InputError, match="cannot be read"):
        parse(folder, None, NOW)
    with pytest.raises(InputError, match="empty"):
        lines(folder)
    with pytest.raises(InputError, match="input"):
        table(folder, "text,label\na,b\n")
    with pytest.raises(InputError, match="UTF-8"):
        table(folder, b"input,output\n\xff,a\n")


# ---------------------------------------------------------------------------------------------- CSV


def test_csv(folder: Path) -> None:
    parsed = table(
        folder,
        '\ufeffinput,output,reference,group\r\n"two\r\nlines, and ""quotes""",a,,g\r\nplain,,b,\r\ndigits,5,,\r\n'
        'json,"{""a"": 1}",,\r\n',
    )
    assert not parsed.bad
    assert [row.input for row in parsed.rows] == ['two\r\nlines, and "quotes"', "plain", "digits", "json"]
    assert [said(row)[1] for row in parsed.rows] == ["a", None, "5", '{"a": 1}']
    assert [row.group for row in parsed.rows] == ["g", None, None, None]
    assert [(t.record, t.value) for t in parsed.trusted] == [(parsed.rows[1].id, "b")]
    assert {row.task for row in parsed.rows} == {"t"}


def test_a_bad_csv_row_is_named(folder: Path) -> None:
    parsed = table(folder, 'input,output\nx,a\ny,b,c\nz\n"q\nr",\nlast,d\n')
    assert [row.input for row in parsed.rows] == ["x", "last"]
    assert [bad.line for bad in parsed.bad] == [3, 4, 6]


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0c", "\x1d"], ids=repr)
def test_csv_as_python_writes_it(folder: Path, odd: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["input", "output"], [f"one{odd}two", "a"]])
    assert [row.input for row in table(folder, out.getvalue()).rows] == [f"one{odd}two"]


def test_a_very_long_cell(folder: Path) -> None:
    assert len(table(folder, f'input,output\n"{"x" * 200_000}",a\n').rows) == 1


def test_an_exchange_of_messages_keeps_its_dialect(folder: Path) -> None:
    asked = {"model": "claude", "max_tokens": 9, "system": "S", "messages": [{"role": "user", "content": "x"}]}
    usage = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 2}
    said = {"type": "message", "id": "msg_1", "content": [{"type": "text", "text": "a"}], "usage": usage}
    row = one(folder, request=asked, response=said, task="t")
    assert (row.dialect, row.model, row.response_id) == ("messages", "claude", "msg_1")
    assert (row.prompt_tokens, row.completion_tokens) == (12, 2)
