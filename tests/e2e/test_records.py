"""Records: one for every exchange, whole, readable, and without anybody's key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from e2e_support import (
    FakeUpstream,
    Gateway,
    Reply,
    called,
    chat,
    completion,
    config,
    events,
    rows,
    streamed,
    suffice,
    until,
    whole,
)

Serve = Callable[..., Gateway]


def cli(gateway: Gateway, *flags: str) -> list[dict[str, Any]]:
    """`suffice records --json`."""
    done = suffice("records", "--json", "--home", gateway.home, *flags)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kind_has_its_record(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    labels = {
        "X-Suffice-Session": "s 1",
        "X-Suffice-Group": "g1",
        "X-Suffice-Slices": "vip, eu",
        "X-Suffice-Task": "t.1",
    }
    asked = [
        gateway.post(chat("plain"), labels),
        _with(gateway, upstream, streamed(events({"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, usage=True)), chat("s", stream=True)),  # noqa: E501
        _with(gateway, upstream, streamed(events({"content": "abcdefgh"})), chat("no usage", stream=True)),
        _with(gateway, upstream, whole(None, **called("route", "{}")), chat("tool")),
        _with(gateway, upstream, whole("no usage", usage=False), chat("no usage")),
        _with(gateway, upstream, Reply(429, parts=[b'{"error":{"message":"slow"}}'], length=True), chat("429")),
        gateway.post(b"not json"),
        gateway.post(chat("bad header"), {"X-Suffice-Route": "nowhere"}),
    ]  # fmt: skip
    gateway.record(asked[-1].id)
    found = cli(gateway)
    assert [record["id"] for record in found] == [answer.id for answer in asked]
    plain, stream, estimated, tool, unmetered, slow, broken, refused = found

    assert plain["request"] == json.loads(chat("plain")) and plain["answer"] == asked[0].json
    assert (plain["session"], plain["group"], plain["slices"]) == ("s 1", "g1", ["vip", "eu"])
    assert (plain["task"], plain["stage"], plain["reason"], plain["route"]) == ("t.1", "observe", "observe", "frontier")
    assert (plain["prompt_tokens"], plain["completion_tokens"], plain["tokens_estimated"]) == (100, 10, False)
    assert plain["cost_usd"] == pytest.approx(100 * 2.5e-6 + 10 * 10e-6)  # gpt-4o: $2.50 and $10 per million
    assert 0 < plain["first_chunk_ms"] <= plain["latency_ms"] < 5000 and plain["failure"] is None
    assert plain["upstream"] == "openai" and plain["model"] == "gpt-4o" and not plain["streamed"]

    assert stream["streamed"] and stream["answer"]["choices"][0]["message"]["content"] == "ab"
    assert (
        stream["answer"]["choices"][0]["finish_reason"] == "stop" and stream["answer"]["usage"]["total_tokens"] == 110
    )
    assert (stream["prompt_tokens"], stream["tokens_estimated"]) == (100, False)
    assert estimated["tokens_estimated"] and estimated["prompt_tokens"] > 0 and estimated["completion_tokens"] > 0
    assert estimated["cost_usd"] > 0
    assert tool["answer"]["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "route"
    assert unmetered["tokens_estimated"] and unmetered["completion_tokens"] > 0
    assert (slow["status"], slow["failure"], slow["cost_usd"]) == (429, None, None)
    assert slow["answer"] == {"error": {"message": "slow"}}
    assert (broken["status"], broken["request"]) == (400, "not json") and "JSON" in broken["failure"]
    assert refused["status"] == 400 and refused["failure"].startswith("X-Suffice-Route: ")


def test_estimated_completion_tokens_are_of_the_text_said(gateway: Gateway, upstream: FakeUpstream) -> None:
    """`billing` is one or two tokens; the specialist's own usage estimates it as two (four bytes a token)."""
    answer = _with(gateway, upstream, streamed(events({"content": "billing"})), chat("x", stream=True))
    assert gateway.record(answer.id)["completion_tokens"] <= 10


def test_first_chunk_is_timed_before_the_rest(gateway: Gateway, upstream: FakeUpstream) -> None:
    gate = threading.Event()
    said = events({"content": "a"})
    upstream.answer = lambda seen: streamed([said[0], gate, *said[1:]])
    response = gateway.begin(chat(stream=True))
    response.read1(65536)
    threading.Timer(0.3, gate.set).start()
    response.read()
    record = gateway.record(response.getheader("x-suffice-record") or "")
    assert record["first_chunk_ms"] + 250 < record["latency_ms"] < record["first_chunk_ms"] + 2000


def test_keys_are_nowhere(serve: Serve, upstream: FakeUpstream) -> None:
    caller, configured = "sk-caller-7f3a91", "sk-configured-55e0c2"
    gateway = serve(config(upstream.url, 'api_key_env = "E2E_KEY"\n'), env={"E2E_KEY": configured})
    gateway.client(caller).chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    gateway.post(chat(), {"Authorization": f"Bearer {caller}", "api-key": caller, "Cookie": f"k={caller}"})
    upstream.answer = lambda seen: Reply(500, parts=[b"boom"])
    gateway.post(chat(), {"Authorization": f"Bearer {caller}"})
    upstream.answer = lambda seen: Reply(parts=[b"x", _never()])
    response = gateway.begin(chat(stream=True), {"Authorization": f"Bearer {caller}"})
    response.read1(1)
    response.close()
    until(lambda: len(rows(gateway.home)) >= 3)
    live = [path for path in gateway.home.rglob("*") if path.is_file()]
    assert any(path.name.endswith("-wal") for path in live)
    blobs = [path.read_bytes() for path in live]
    gateway.stop()
    blobs += [path.read_bytes() for path in [*gateway.home.rglob("*"), gateway.stderr] if path.is_file()]
    for blob in blobs:
        assert caller.encode() not in blob and configured.encode() not in blob


def test_filters_and_the_table(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    ids = [gateway.post(chat(f"n{i}"), {"X-Suffice-Task": f"t{i % 2}"}).id for i in range(30)]
    gateway.record(ids[-1])
    assert [record["id"] for record in cli(gateway)] == ids, "oldest first, no limit unless asked"
    assert [record["id"] for record in cli(gateway, "--task", "t1", "--limit", "3")] == ids[1::2][-3:]
    assert [record["id"] for record in cli(gateway, "--id", ids[7])] == [ids[7]]
    table = suffice("records", "--home", gateway.home).stdout.decode().splitlines()
    assert len(table) == 21 and ids[-1] in table[-1]


def _poison(usage: str) -> Reply:
    body = completion("poison").replace(b'"prompt_tokens": 100', b'"prompt_tokens": ' + usage.encode())
    assert usage.encode() in body
    return Reply(parts=[body], length=True)


@pytest.mark.parametrize("usage", ["-1", "1.5", '"many"', "null", "9223372036854775807"])
def test_odd_usage_costs_no_record(gateway: Gateway, upstream: FakeUpstream, usage: str) -> None:
    answer = _with(gateway, upstream, _poison(usage), chat())
    assert gateway.record(answer.id)["status"] == 200


def test_usage_beyond_64_bits_does_not_stop_the_writer(serve: Serve, upstream: FakeUpstream) -> None:
    """One odd answer of an upstream must not cost the others their record."""
    gateway = serve(config(upstream.url))
    odd = _with(gateway, upstream, _poison("9223372036854775808"), chat())
    upstream.answer = lambda seen: whole()
    others = [gateway.post(chat()) for _ in range(5)]
    for answer in [*others, odd]:
        gateway.record(answer.id)


def test_deeply_nested_bodies_are_recorded_and_shown(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    deep = b'{"model":"m","messages":[],"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    answer = gateway.post(deep)
    assert answer.status in (200, 400), answer.body
    gateway.record(answer.id)
    assert len(cli(gateway)) == 1


def _with(gateway: Gateway, upstream: FakeUpstream, reply: Reply, body: bytes) -> Any:
    upstream.answer = lambda seen: reply
    return gateway.post(body)


def _never() -> threading.Event:
    return threading.Event()
