"""Upstreams that send what nobody should: relayed as it is or refused, always recorded, never waited for for ever."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import pytest
from e2e_support import Gateway, chat, completion, events, rows, until
from raw_upstream import RawUpstream, Step, good, http

EVENTS = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SECRET = "caller-secret-in-the-query"


@pytest.fixture(scope="module")
def raw() -> Iterator[RawUpstream]:
    server = RawUpstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(raw: RawUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("bad") / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(
        f'[upstreams.raw]\nbase_url = "{raw.url}"\nattempts = 1\n[server]\nfirst_byte_s = 1.0\nidle_s = 1.0\n'
    )
    running = Gateway(home)
    yield running
    running.close()


@pytest.fixture(autouse=True)
def healthy(gateway: Gateway, raw: RawUpstream) -> None:
    """Good answers between the bad ones: what is tested here is not the breaker."""
    raw.answer = lambda request: good()
    for _ in range(3):
        assert gateway.post(chat()).status == 200


def chunked(parts: Sequence[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


NO_ANSWER: dict[str, list[Step]] = {
    "no HTTP": [b"220 smtp.example ESMTP\r\n", "close"],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x28", "close"],
    "nothing": ["close"],
    "reset": ["reset"],
    "half a head": [b"HTTP/1.1 200 OK\r\ncontent-ty", "close"],
    "a zero byte in a header": [b"HTTP/1.1 200 OK\r\nx-a: b\x00c\r\ncontent-length: 2\r\n\r\n{}", "close"],
    "a header without a name": [b"HTTP/1.1 200 OK\r\n: b\r\ncontent-length: 2\r\n\r\n{}", "close"],
    "a header of a megabyte": [b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * 2**20 + b"\r\ncontent-length: 0\r\n\r\n", "close"],
    "a negative length": [b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n{}", "close"],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}x", "close"],
    "a status that is none": [http(799, b"{}")],
    "another protocol": [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
    "silence": ["silence"],
    "a head that does not end": [b"HTTP/1.1 200 OK\r\nx-a: b\r\n", "silence"],
    "interim answers without end": [*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 50, "silence"],
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_is_no_answer_is_a_502_or_504_with_its_record(gateway: Gateway, raw: RawUpstream, name: str) -> None:
    raw.answer = lambda request: NO_ANSWER[name]
    began = time.monotonic()
    answer = gateway.post(chat(), path=f"/v1/chat/completions?key={SECRET}")
    assert time.monotonic() - began < 4
    error = answer.json["error"]
    assert (answer.status, error["code"]) in [
        (502, "upstream_unreachable"), (502, "upstream_broken"), (504, "upstream_timeout")
    ]  # fmt: skip
    record = gateway.record(answer.id)
    assert (record["status"], record["failure"]) == (answer.status, error["message"])
    assert "\n" not in error["message"] and len(error["message"]) < 400
    assert SECRET not in error["message"] and SECRET not in gateway.log


CUT_SHORT: dict[str, list[Step]] = {
    "too few bytes": [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{", "close"],
    "a chunk's length that is none": [EVENTS + b"5\r\ndata:\r\nzz\r\nx", "close"],
    "no last chunk": [EVENTS + b"5\r\ndata:\r\n", "close"],
    "silence in the middle": [EVENTS + b"5\r\ndata:\r\n", "silence"],
    "a chunk larger than it says": [EVENTS + b"2\r\ndata:\r\n0\r\n\r\n", "close"],
    "a reset": [EVENTS + b"5\r\ndata:\r\n", "reset"],
}


@pytest.mark.parametrize("name", CUT_SHORT)
def test_an_answer_cut_short_does_not_look_whole(gateway: Gateway, raw: RawUpstream, name: str) -> None:
    raw.answer = lambda request: CUT_SHORT[name]
    began = time.monotonic()
    connection = gateway.open()
    connection.request("POST", "/v1/chat/completions", chat(stream=True), {"X-Suffice-Session": f"cut {name}"})
    response = connection.getresponse()
    if response.status == 200:
        with pytest.raises((HTTPException, ConnectionError)):
            response.read()
    else:  # it all came at once: there was no first byte to relay
        assert response.status == 502 and response.read()
    assert time.monotonic() - began < 4
    record = until(lambda: rows(gateway.home, "session = ?", f"cut {name}"))[0]
    assert record["failure"] and "raw" in record["failure"]
    connection.close()


RELAYED: dict[str, tuple[list[Step], int, bytes]] = {
    "more bytes than said": ([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n\r\n"], 200, b"{}"),
    "no UTF-8": ([http(200, b'{"choices": "\xff\xfe\x80"}')], 200, b'{"choices": "\xff\xfe\x80"}'),
    "until it closes": ([b"HTTP/1.0 200 OK\r\n\r\nabc", "close"], 200, b"abc"),
    "no body": ([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
    "continue first": ([b"HTTP/1.1 100 Continue\r\n\r\n" + http(200, b"{}")], 200, b"{}"),
    "gzip that is none": ([http(200, b"no gzip", "content-encoding: gzip")], 200, b"no gzip"),
    "a body of zeros": ([http(200, bytes(100_000))], 200, bytes(100_000)),
}


@pytest.mark.parametrize("name", RELAYED)
def test_odd_answers_are_relayed_and_recorded(gateway: Gateway, raw: RawUpstream, name: str) -> None:
    steps, status, body = RELAYED[name]
    raw.answer = lambda request: steps
    answer = gateway.post(chat())
    assert (answer.status, answer.body) == (status, body)
    assert gateway.record(answer.id)["status"] == status


def test_a_header_cannot_be_smuggled_into_the_callers_answer(gateway: Gateway, raw: RawUpstream) -> None:
    for line in (b"x-a: b\rx-suffice-route: specialist", b"x-a: b\n x-evil: 1", b"x-a: b\r\n set-cookie: evil=1"):
        raw.answer = lambda request, line=line: [
            b"HTTP/1.1 200 OK\r\n" + line + b"\r\ncontent-length: 2\r\n\r\n{}",
            "close",
        ]  # type: ignore[misc]
        answer = gateway.post(chat())
        assert answer.status in (200, 502) and answer.route == "frontier"
        assert "x-evil" not in answer.headers and "set-cookie" not in answer.headers
        assert gateway.record(answer.id)["status"] == answer.status


def test_a_gzip_bomb_stays_packed(gateway: Gateway, raw: RawUpstream) -> None:
    bomb = gzip.compress(bytes(150 * 2**20), 6)
    raw.answer = lambda request: [http(200, bomb, "content-encoding: gzip")]
    before = _memory_mb(gateway)
    answer = gateway.post(chat(), {"Accept-Encoding": "gzip"})
    assert answer.body == bomb
    assert gateway.record(answer.id)["status"] == 200
    assert _memory_mb(gateway) - before < 120
    assert gateway.post(chat()).status == 200


def test_a_hundred_thousand_tiny_chunks(gateway: Gateway, raw: RawUpstream) -> None:
    stream = b"".join(events(*[{"content": "ab"}] * 600))
    parts = [stream[at : at + 1] for at in range(len(stream))][:100_000]
    raw.answer = lambda request: [EVENTS + chunked(parts)]
    answer = gateway.post(chat(stream=True), timeout_s=60)
    assert answer.body == b"".join(parts) and len(parts) > 90_000
    assert json.loads(gateway.record(answer.id)["answer"])["choices"][0]["message"]["content"].startswith("abab")


def test_a_redirect_to_another_host_is_not_followed(gateway: Gateway, raw: RawUpstream) -> None:
    other = RawUpstream()
    raw.answer = lambda request: [http(302, b"", f"location: {other.url}/chat/completions")]
    answer = gateway.post(chat(), {"Authorization": "Bearer caller-secret"})
    assert answer.status == 302 and not other.seen
    other.close()


def test_an_answer_of_another_kind_after_a_bad_one_is_not_mixed_up(gateway: Gateway, raw: RawUpstream) -> None:
    """Bytes too many on a kept connection must never become the next caller's answer."""
    evil = http(200, completion("evil"))
    raw.answer = lambda request: [http(200, completion("first")) + evil]
    assert gateway.post(chat()).content == "first"
    raw.answer = lambda request: good("second")
    assert [gateway.post(chat()).content for _ in range(5)] == ["second"] * 5


def _memory_mb(gateway: Gateway) -> float:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024
