"""Bad input, by HTTP and by the CLI: one clear sentence, the right status or exit code, nothing lost."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest
from e2e_support import FakeUpstream, Gateway, chat, rows, suffice, told

from suffice.demo.workload import Ticket

# ---------------------------------------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"not json", "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":null}', "messages"),
        (b'{"model":"m","messages":"hi"}', "messages"),
        (b'{"model":"m","messages":[{"role":"user"', "JSON"),
        (b'{"model":"m","messages":[]} trailing', "JSON"),
        (b"\xff\xfe\x00", "JSON"),
    ],
)
def test_a_body_that_is_no_chat_request(gateway: Gateway, upstream: FakeUpstream, body: bytes, word: str) -> None:
    answer = gateway.post(body)
    error = answer.json["error"]
    assert answer.status == 400 and word in error["message"] and error["type"] == "invalid_request_error"
    assert "\n" not in error["message"] and not upstream.seen
    record = gateway.record(answer.id)
    assert (record["status"], record["request"], record["failure"]) == (400, body, error["message"])


@pytest.mark.parametrize("declared", [True, False])
def test_a_100_mb_body(gateway: Gateway, upstream: FakeUpstream, declared: bool) -> None:
    size = 100 * 2**20
    connection = gateway.open()
    body = (b"x" * 2**20 for _ in range(100))
    headers = {"Content-Length": str(size)} if declared else {}
    connection.request("POST", "/v1/chat/completions", body, headers, encode_chunked=not declared)
    response = connection.getresponse()
    error = json.loads(response.read())["error"]
    assert response.status == 413 and "64 MB" in error["message"] and not upstream.seen
    connection.close()
    assert gateway.post(chat()).status == 200


def test_http_that_is_no_http(gateway: Gateway, upstream: FakeUpstream) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:
        raw.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:  # hangs up in the middle of its body
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
    assert gateway.post(chat()).status == 200 and "Traceback" not in gateway.log


# ---------------------------------------------------------------------------------------------- the CLI


def one_line(*arguments: str | Path, code: int = 2, word: str = "", stdin: bytes = b"", cwd: Path | None = None) -> str:
    """Run; it must end with `code` and say why in one line."""
    done = suffice(*arguments, stdin=stdin, cwd=cwd)
    text = done.stderr.decode()
    assert done.returncode == code, (done.returncode, done.stdout, text)
    assert len(text.splitlines()) == 1 and text.startswith("suffice: "), text
    assert word in text, text
    return text


def test_unusable_commands(learned: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    file = tmp_path / "a file"
    file.write_text("x")
    one_line("nonsense", word="nonsense")
    one_line("records", "--home", none, word="none")
    one_line("tasks", "--home", file, word=str(file))
    one_line("learn", "unknown", "--home", learned, word="unknown")
    one_line("learn", "triage@1", "--home", learned)
    one_line("learn", "triage", "--data", none, "--home", learned, word=str(none))
    one_line("learn", "triage", "--max-error", "1.5", "--home", learned, word="max_error")
    one_line("learn", "triage", "--recipe", "magic", "--home", learned, word="magic")
    one_line("stage", "triage", "loud", "--home", learned, word="loud")
    one_line("stage", "triage@7", "live", "--home", learned, word="triage@7")
    one_line("answer", "triage", none, "--home", learned, word=str(none))
    one_line("answer", "triage", "-", "--home", learned, stdin=b'{"input":"x"}\noops\n', word="line 2")
    one_line("answer", "nobody", "-", "--home", learned, code=1, word="nobody")
    one_line("show", "nobody", "--home", learned, word="nobody")
    assert not none.exists()


@pytest.mark.parametrize(
    ("toml", "word"),
    [
        ("[upstreams.x]\nbase_url = 5", "base_url"),
        ("[upstreams.x]\nbase_url = 'ftp://h'", "base_url"),
        ("[upstreams.x]\nbase_urll = 'http://h'", "base_url"),
        ("[server]\nidle = 1", "idle"),
        ("[records]\non_full = 'maybe'", "on_full"),
        ("[policy]\nmax_error = 2", "max_error"),
        ("[tasks.t.match]\n", "match"),
        ("[nonsense]\n", "nonsense"),
        ("not toml", "TOML"),
        ("[records]\nslots = 0", "slots"),
        ("[tasks.'a b']\nmax_error = 0.1", "a b"),
    ],
)
def test_a_wrong_configuration_names_the_key(tmp_path: Path, toml: str, word: str) -> None:
    (tmp_path / "suffice.toml").write_text(toml)
    one_line("check", "--home", tmp_path, word=word)


def test_a_file_with_broken_lines_keeps_the_good_ones(tmp_path: Path, tickets: list[Ticket]) -> None:
    lines: list[bytes] = [json.dumps({"input": t.text, "reference": t.truth}).encode() for t in tickets[:50]]
    broken = [b"{oops", b"[]", b'{"input": 7, "reference": "x"}', b'{"output": "x"}', b"\xff\xfe", b'{"input": "x"}',
              b'{"input":"x","reference":"y","at":"yesterday"}', b'{"request":{"model":"m"},"reference":"x"}']  # fmt: skip  # noqa: E501
    file = tmp_path / "mixed.jsonl"
    file.write_bytes(b"\n".join([*lines[:25], *broken, b"", *lines[25:]]) + b"\n")
    done = suffice("import", file, "--task", "t", "--home", tmp_path / "home", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and document["imported"] == 50
    assert [bad["line"] for bad in document["bad"]] == list(range(26, 34))
    assert len(done.stderr.splitlines()) == 8 and b"Traceback" not in done.stderr
    again = told("import", file, "--task", "t", "--home", tmp_path / "home")
    assert (again["imported"], again["known"]) == (0, 50) and len(rows(tmp_path / "home")) == 50


BAD_FILES = {
    "empty.jsonl": b"",
    "only broken.jsonl": b"{oops\n{oops\n",
    "binary.jsonl": bytes(range(256)) * 10,
    "no columns.csv": b"a,b\n1,2\n",
    "latin.csv": "input,reference\ngrün,x\n".encode("latin-1"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_without_one_good_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(BAD_FILES[name])
    done = suffice("import", tmp_path / name, "--task", "t", "--home", tmp_path / "home")
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert name.encode() in done.stderr.splitlines()[-1]


ODD_LINES: dict[str, tuple[str, bytes]] = {
    "deep": ("x.jsonl", b'{"input":"x","reference":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "huge usage": (
        "x.jsonl",
        b'{"request":{"model":"m","messages":[]},"response":{"choices":[],"usage":{"prompt_tokens":9223372036854775808,'
        b'"completion_tokens":1}}}',
    ),
    "task with release": ("x.jsonl", b'{"input":"x","reference":"y","task":"a@3"}'),
    "bad task name": ("x.jsonl", b'{"input":"x","reference":"y","task":"../../a b"}'),
    "huge csv cell": ("x.csv", b"input,reference\n" + b"x" * 200_000 + b",y"),
    "reference of lists": ("x.jsonl", b'{"input":"x","reference":[["a"]]}'),
}


@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_line_is_told_and_costs_the_others_nothing(tmp_path: Path, name: str) -> None:
    file, line = ODD_LINES[name]
    good = b"good,z" if file.endswith(".csv") else b'{"input":"good","reference":"z"}'
    (tmp_path / file).write_bytes(line + b"\n" + good + b"\n")
    done = suffice("import", tmp_path / file, "--task", "t", "--home", tmp_path / "home", "--json")
    assert b"Traceback" not in done.stderr, done.stderr[-300:]
    assert done.returncode == 0, done.stderr
    assert [row["input"] for row in rows(tmp_path / "home", "task = 't'") if row["input"] == "good"] == ["good"]
    assert {row["task"] for row in rows(tmp_path / "home")} == {"t"}


@pytest.mark.parametrize("mark", ["\u2028", "\x0c"])
def test_a_csv_cell_may_hold_any_white_space(tmp_path: Path, mark: str) -> None:
    (tmp_path / "x.csv").write_text(f"input,reference\none{mark}two,a\nthree,b\n", "utf-8")
    told("import", tmp_path / "x.csv", "--task", "t", "--home", tmp_path / "home")
    assert [row["input"] for row in rows(tmp_path / "home")] == [f"one{mark}two", "three"]


def test_a_time_far_away_can_be_shown(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"input":"x","reference":"y","at":1e18}\n{"input":"x","reference":"y"}\n')
    suffice("import", tmp_path / "x.jsonl", "--task", "t", "--home", tmp_path / "home")
    done = suffice("records", "--home", tmp_path / "home")
    assert b"Traceback" not in done.stderr, done.stderr[-300:]


def test_data_that_cannot_teach(tmp_path: Path, tickets: list[Ticket]) -> None:
    coin = random.Random(0)
    data = {
        "one label": [(t.text, "same") for t in tickets[:1000]],
        "twelve": [(t.text, t.truth) for t in tickets[:12]],
        "coins": [(f"the same text {i % 7}", coin.choice("ab")) for i in range(1000)],
    }
    for name, pairs in data.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"input": text, "reference": label}) + "\n" for text, label in pairs))
        document = told("learn", "t", "--data", file, "--home", tmp_path / name, code=1)
        assert document["release"] is None and document["reasons"], name
        text = suffice("learn", "t", "--home", tmp_path / name)
        assert text.returncode == 1 and text.stderr == b""
        assert len(rows(tmp_path / name)) == len(pairs)
        assert suffice("stage", "t", "live", "--home", tmp_path / name).returncode == 2
