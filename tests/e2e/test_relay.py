"""Relay: bytes go up as they came and come back as they are, as they arrive; hang-ups, time-outs, broken upstreams."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import signal
import socket
import threading
import time
from collections.abc import Callable

import aiohttp
import pytest
from e2e_support import (
    EVENTS_TYPE,
    Break,
    FakeUpstream,
    Gateway,
    Reply,
    chat,
    completion,
    config,
    events,
    rows,
    streamed,
    until,
    whole,
)

Serve = Callable[..., Gateway]

ODD_BODIES = {
    "whitespace": b' {\r\n\t"model" :"m" ,\n "messages"  :\n [ {"role":"user","content":"x"} ]\t}\n ',
    "unknown fields": b'{"zzz":{"a":[1,2,{"b":null}]},"model":"m","messages":[{"role":"alien","x":1}],"mood":"odd"}',
    "escapes": rb'{"model":"m","messages":[{"role":"user","content":"\u00e9\ud83d\ude00\/\u0000"}]}',
    "utf-8": '{"model":"m","messages":[{"role":"user","content":"é😀\u2028"}]}'.encode(),
    "duplicate keys": b'{"model":"a","model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}',
    "big numbers": b'{"model":"m","messages":[],"seed":123456789012345678901234567890,"x":1e400,"y":1.0,"z":-0}',
    "model is no text": b'{"model":7,"messages":[{"role":"user","content":"x"}],"stream":"yes"}',
    "images": b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"what?"},'
    b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}',
    "deep": b'{"model":"m","messages":[],"x":' + b"[" * 300 + b"]" * 300 + b"}",
    "two megabytes": chat("x" * 2_000_000),
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_request_bytes_arrive_as_they_were(gateway: Gateway, upstream: FakeUpstream, name: str) -> None:
    answer = gateway.post(ODD_BODIES[name])
    assert answer.status == 200, answer.body
    assert upstream.seen[0].body == ODD_BODIES[name]
    assert upstream.seen[0].path == "/v1/chat/completions"


def test_a_lone_surrogate_is_the_upstreams_to_judge(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = rb'{"model":"m","messages":[{"role":"user","content":"cut emoji \ud83d"}]}'
    assert gateway.post(body).status == 200
    assert upstream.seen[0].body == body


def test_request_sent_in_chunks_arrives_whole(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = chat("in pieces")
    connection = gateway.open()
    connection.request("POST", "/v1/chat/completions", iter([body[:7], body[7:20], body[20:]]), encode_chunked=True)
    assert connection.getresponse().read()
    connection.close()
    assert upstream.seen[0].body == body


def test_query_and_headers_go_upstream_but_ours_do_not(gateway: Gateway, upstream: FakeUpstream) -> None:
    sent = {
        "Authorization": "Bearer caller-secret",
        "OpenAI-Organization": "org-1",
        "X-Custom": "kept",
        "User-Agent": "app/1",
        "X-Suffice-Task": "triage",
        "X-Suffice-Session": "s1",
        "X-Suffice-Unknown": "u",
    }
    answer = gateway.post(chat(), sent, path="/v1/chat/completions?api-version=2024-10-21&x=%20a")
    assert answer.status == 200
    seen = upstream.seen[0]
    assert seen.path == "/v1/chat/completions?api-version=2024-10-21&x=%20a"
    assert seen.header("authorization") == ["Bearer caller-secret"]
    assert (seen.header("openai-organization"), seen.header("x-custom")) == (["org-1"], ["kept"])
    assert seen.header("user-agent") == ["app/1"]
    assert not [key for key, _ in seen.headers if key.startswith(b"x-suffice")]
    assert b"suffice" not in b"".join(value for _, value in seen.headers).lower()


def test_configured_key_replaces_the_callers(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, 'api_key_env = "E2E_KEY"\n'), env={"E2E_KEY": "configured-secret"})
    gateway.post(chat(), {"Authorization": "Bearer caller-secret"})
    gateway.post(chat())
    assert [seen.header("authorization") for seen in upstream.seen] == [["Bearer configured-secret"]] * 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": {"message": "bad\\u00e9",  "type":"invalid_request_error", "param":null,"code":"x"}}\n'),
        (401, b'{"error":{"message":"Incorrect API key provided"}}'),
        (429, b'{"error":{"message":"slow down"}}'),
        (500, b"<html>boom</html>"),
        (503, b""),
        (200, b"not json at all \xff\xfe"),
    ],
)
def test_status_headers_and_body_come_back_unchanged(
    gateway: Gateway, upstream: FakeUpstream, status: int, body: bytes
) -> None:
    headers = [
        (b"content-type", b"text/weird"),
        (b"retry-after", b"77"),
        (b"x-request-id", b"r1"),
        (b"x-suffice-x", b"1"),
    ]
    upstream.answer = lambda seen: Reply(
        status, [*headers, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")], [body], length=True
    )
    connection = gateway.open()
    connection.request("POST", "/v1/chat/completions", chat())
    response = connection.getresponse()
    assert (response.status, response.read()) == (status, body)
    assert response.getheader("content-type") == "text/weird" and response.getheader("retry-after") == "77"
    assert response.getheader("x-request-id") == "r1" and response.getheader("x-suffice-x") is None
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2"]
    connection.close()


def test_redirects_are_not_followed(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(307, [(b"location", upstream.url.encode() + b"/elsewhere")], [b""])
    answer = gateway.post(chat())
    assert (answer.status, answer.headers["location"]) == (307, upstream.url + "/elsewhere")
    assert len(upstream.seen) == 1


def test_compressed_answer_is_relayed_compressed_and_recorded_readable(
    gateway: Gateway, upstream: FakeUpstream
) -> None:
    packed = gzip.compress(completion("zipped"))
    upstream.answer = lambda seen: Reply(
        200, [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], [packed]
    )
    answer = gateway.post(chat(), {"Accept-Encoding": "gzip"})
    assert answer.body == packed and answer.headers["content-encoding"] == "gzip"
    record = gateway.record(answer.id)
    assert json.loads(record["answer"])["choices"][0]["message"]["content"] == "zipped"
    assert record["prompt_tokens"] == 100


def test_chunks_are_relayed_one_by_one_as_they_arrive(gateway: Gateway, upstream: FakeUpstream) -> None:
    said = events({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"})
    gates = [threading.Event() for _ in said]
    upstream.answer = lambda seen: streamed([part for pair in zip(gates, said, strict=True) for part in pair])
    gates[0].set()
    response = gateway.begin(chat(stream=True))
    for position, event in enumerate(said):
        assert response.read1(65536) == event
        if position + 1 < len(gates):
            gates[position + 1].set()
    assert response.read() == b""
    assert response.getheader("content-type") == "text/event-stream"


@pytest.mark.parametrize("part", [b"data: {}", b"\n", b"\n: comment\r\n\r\n"])
def test_an_events_fragments_are_not_waited_for(gateway: Gateway, upstream: FakeUpstream, part: bytes) -> None:
    gate = threading.Event()
    upstream.answer = lambda seen: streamed([part, gate, b"rest"])
    response = gateway.begin(chat(stream=True))
    assert response.read1(65536) == part
    gate.set()
    assert response.read() == b"rest"


async def test_64_concurrent_streams_keep_chunks_apart(gateway: Gateway, upstream: FakeUpstream) -> None:
    first, second, third = threading.Event(), threading.Event(), threading.Event()
    gates = (first, second, third)
    upstream.answer = lambda seen: streamed([f"data: {seen.text}-1\n\n".encode(), first, f"data: {seen.text}-2\n\n".encode(), second,  # noqa: E501
                                             f"data: {seen.text}-3\n\n".encode(), third])  # fmt: skip
    counts = [0, 0, 0]

    async def one(session: aiohttp.ClientSession, i: int) -> list[bytes]:
        chunks: list[bytes] = []
        async with session.post(f"{gateway.url}/chat/completions", data=chat(f"s{i}", stream=True)) as response:
            async for data, _ in response.content.iter_chunks():
                if data:
                    counts[len(chunks)] += 1
                    chunks.append(data)
                    if counts[len(chunks) - 1] == 64:
                        gates[len(chunks) - 1].set()
        return chunks

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.timeout(20):
        got = await asyncio.gather(*(one(session, i) for i in range(64)))
    assert got == [[f"data: s{i}-{n}\n\n".encode() for n in (1, 2, 3)] for i in range(64)]


@pytest.mark.parametrize("stream", [True, False])
def test_hang_up_cancels_the_upstream_call(gateway: Gateway, upstream: FakeUpstream, stream: bool) -> None:
    never = threading.Event()
    said = events({"content": "a"})[:1] if stream else []
    upstream.answer = lambda seen: Reply(headers=EVENTS_TYPE, parts=[*said, never], before=None if stream else never)
    connection = gateway.open()
    connection.request(
        "POST", "/v1/chat/completions", chat("hang up", stream=stream), {"X-Suffice-Session": f"gone{stream}"}
    )
    if stream:
        response = connection.getresponse()
        assert response.read1(65536) == said[0]
    until(lambda: upstream.seen)
    assert connection.sock is not None or stream
    if stream:
        response.close()
    connection.close()
    assert upstream.seen[0].gone.wait(5), "the upstream call goes on"
    record = until(lambda: rows(gateway.home, "session = ?", f"gone{stream}"))[0]
    assert record["failure"] == "the caller hung up"
    assert record["status"] == (200 if stream else None)


def test_slow_reader_holds_the_upstream_back(gateway: Gateway, upstream: FakeUpstream) -> None:
    """40 MB for a client that does not read must not pile up in the gateway: the upstream is held back."""
    upstream.answer = lambda seen: streamed([b"x" * 65536] * 640)
    response = gateway.begin(chat(stream=True))
    response.read1(10)
    time.sleep(1.0)  # not for luck: long enough for all of it, were nothing held back
    assert not upstream.seen[0].done.is_set()
    assert len(response.read()) > 40_000_000
    assert upstream.seen[0].done.wait(5)


def test_deadlines(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, "[server]\nfirst_byte_s = 0.3\nidle_s = 0.3\n"))
    never = threading.Event()
    upstream.answer = lambda seen: Reply(parts=[never], before=never)
    late = gateway.post(chat())
    assert (late.status, late.json["error"]["code"]) == (504, "upstream_timeout")
    assert "0.3 s" in late.json["error"]["message"]
    assert gateway.record(late.id)["failure"] == late.json["error"]["message"]
    assert upstream.seen[0].gone.wait(5)

    upstream.answer = lambda seen: streamed([b"data: {}\n\n", never])
    response = gateway.begin(chat(stream=True))
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    failed = gateway.record(response.getheader("x-suffice-record") or "")
    assert "paused for more than 0.3 s" in failed["failure"]
    assert upstream.seen[1].gone.wait(5)
    assert gateway.metric('suffice_requests_total{route="frontier",reason="no_task"}') == 2


def test_connect_deadline(serve: Serve) -> None:
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    filling = []
    for _ in range(4):  # fill the backlog, so that the next connection is not accepted
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
        filling.append(filler)
    gateway = serve(config(f"http://127.0.0.1:{full.getsockname()[1]}/v1", "[server]\nconnect_s = 0.3\n"))
    began = time.monotonic()
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
    assert "did not accept a connection within 0.3 s" in answer.json["error"]["message"]
    assert time.monotonic() - began < 3
    for filler in [*filling, full]:
        filler.close()


@pytest.mark.parametrize("length", [True, False])
def test_upstream_that_breaks_off_breaks_the_callers_answer(
    gateway: Gateway, upstream: FakeUpstream, length: bool
) -> None:
    headers = [(b"content-length", b"1000")] if length else []
    upstream.answer = lambda seen: Reply(200, [*EVENTS_TYPE, *headers], [*events({"content": "half"})[:1], Break])
    response = gateway.begin(chat(stream=True))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    record = gateway.record(response.getheader("x-suffice-record") or "")
    assert "broke off" in record["failure"]
    assert json.loads(record["answer"])["choices"][0]["message"]["content"] == "half"


def test_upstream_that_breaks_off_is_one_line_in_the_log(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    upstream.answer = lambda seen: streamed([*events({"content": "half"})[:1], Break])
    response = gateway.begin(chat(stream=True))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    gateway.record(response.getheader("x-suffice-record") or "")
    gateway.stop()
    assert "Traceback" not in gateway.log


def test_upstream_down(serve: Serve) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    gateway = serve(config(f"http://127.0.0.1:{port}/v1"))
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_unreachable")
    assert f"127.0.0.1:{port}" in answer.json["error"]["message"] and answer.route == "frontier"
    record = gateway.record(answer.id)
    assert (record["status"], record["failure"]) == (502, answer.json["error"]["message"])
    assert gateway.get("/readyz").status == 200


def test_no_upstream(serve: Serve) -> None:
    gateway = serve()
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (503, "no_upstream")
    assert gateway.record(answer.id)["status"] == 503
    assert gateway.get("/v1/models").json == {"object": "list", "data": []}


def test_sigterm_lets_a_stream_finish(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    gate = threading.Event()
    said = events({"content": "a"}, {"content": "b"})
    upstream.answer = lambda seen: streamed([said[0], gate, *said[1:]])
    response = gateway.begin(chat(stream=True))
    assert response.read1(65536) == said[0]
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: _refuses(gateway))
    gate.set()
    assert response.read() == b"".join(said[1:])
    assert gateway.process.wait(10) == 0
    record = gateway.record(response.getheader("x-suffice-record") or "")
    assert record["failure"] is None
    assert json.loads(record["answer"])["choices"][0]["message"]["content"] == "ab"
    assert "Traceback" not in gateway.log


def test_stream_longer_than_the_drain_is_cut_and_recorded(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, "[server]\ndrain_s = 1\n"))
    said = events({"content": "a"})
    upstream.answer = lambda seen: streamed([said[0], threading.Event()])
    response = gateway.begin(chat(stream=True))
    assert response.read1(65536) == said[0]
    assert gateway.stop() == 0
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    record = gateway.record(response.getheader("x-suffice-record") or "")
    assert "server stopped" in record["failure"]


def test_malformed_events_pass_through(gateway: Gateway, upstream: FakeUpstream) -> None:
    raw = [b"data: {oops\n\n", b"event: x\ndata: 1\n\n", b"\xff\xfe\n\n", b'data: {"choices": 7}\n\n', b"no end"]
    upstream.answer = lambda seen: streamed(raw)
    answer = gateway.post(chat(stream=True))
    assert answer.body == b"".join(raw)
    assert gateway.record(answer.id)["status"] == 200


def test_keep_alive_connection_serves_many(gateway: Gateway, upstream: FakeUpstream) -> None:
    connection = gateway.open()
    for i in range(20):
        upstream.answer = lambda seen: whole(seen.text)
        connection.request("POST", "/v1/chat/completions", chat(f"n{i}"))
        assert json.loads(connection.getresponse().read())["choices"][0]["message"]["content"] == f"n{i}"
    connection.close()


def _refuses(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 1).close()
    except OSError:
        return True
    return False


def test_what_is_the_connections_own_or_a_browsers_stays_here(gateway: Gateway, upstream: FakeUpstream) -> None:
    gateway.post(chat(), {"Connection": "close, X-Secret", "X-Secret": "s", "Cookie": "console=1", "X-Kept": "k"})
    (seen,) = upstream.seen
    assert seen.header("x-kept") == ["k"]
    assert not any(seen.header(name) for name in ("x-secret", "cookie"))


def test_two_words_on_where_a_request_may_go_are_none(gateway: Gateway, upstream: FakeUpstream) -> None:
    connection = gateway.open()
    connection.putrequest("POST", "/v1/chat/completions")
    body = chat()
    for name, value in (
        ("X-Suffice-Route", "specialist"),
        ("X-Suffice-Route", "frontier"),
        ("Content-Length", len(body)),
    ):
        connection.putheader(name, str(value))
    connection.endheaders(body)
    answer = connection.getresponse()
    assert answer.status == 400 and b"X-Suffice-Route stands twice" in answer.read()
    assert not upstream.seen


def test_models_are_listed_while_the_upstream_is_dead(serve: Serve) -> None:
    gateway = serve(config("http://127.0.0.1:9"))
    assert gateway.get("/v1/models").json == {"object": "list", "data": []}
