"""The exact cache through HTTP: opt-in, honest about chance, whole and streamed, and no caller gets another's."""

from __future__ import annotations

import json
from collections.abc import Callable

from e2e_support import FakeUpstream, Gateway, Reply, chat, config, events, streamed, suffice, whole

Serve = Callable[..., Gateway]
ON = "\n[policy]\ncache_s = 60\n"


def test_the_same_request_is_asked_once(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, ON))
    asked = [gateway.post(chat("one", temperature=0)) for _ in range(3)]
    assert [answer.headers["x-suffice-route"] for answer in asked] == ["frontier", "cache", "cache"]
    assert len({answer.body for answer in asked}) == 1 and len(upstream.seen) == 1
    assert asked[1].headers["x-suffice-cached"] == asked[0].headers["x-suffice-record"]
    assert gateway.post(chat("one")).headers["x-suffice-route"] == "frontier", "temperature is the vendor's default"
    gateway.post(chat("one", temperature=0), headers={"Authorization": "Bearer someone-else"})
    assert len(upstream.seen) == 3, "and another's key is another caller"
    forced = gateway.post(chat("one", temperature=0), headers={"X-Suffice-Route": "frontier"})
    assert forced.headers["x-suffice-route"] == "frontier" and len(upstream.seen) == 4, "who asks the frontier gets it"
    upstream.reset()

    upstream.answer = lambda seen: streamed(events({"role": "assistant"}, {"content": "a"}, {"content": "b"}))
    streams = [gateway.post(chat("two", temperature=0, stream=True)) for _ in range(2)]
    assert [answer.headers["x-suffice-route"] for answer in streams] == ["frontier", "cache"]
    assert streams[0].body == streams[1].body and streams[1].headers["content-type"].startswith("text/event-stream")

    for answer in (*asked, *streams):
        gateway.record(answer.headers["x-suffice-record"])
    rows = [json.loads(line) for line in suffice("records", "--home", gateway.home, "--json").stdout.splitlines()]
    cached = [row for row in rows if row["route"] == "cache"]
    assert [row["cost_usd"] for row in cached] == [None] * 3
    assert [row["prompt_tokens"] for row in cached[:2]] == [100, 100]
    assert json.loads(asked[0].body) == cached[0]["answer"] == cached[1]["answer"]


def test_a_failure_is_not_kept(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, ON))
    upstream.answer = lambda seen: whole() if len(upstream.seen) > 1 else Reply(status=400, parts=[b"{}"])
    assert [gateway.post(chat("x", temperature=0)).status for _ in range(2)] == [400, 200]
