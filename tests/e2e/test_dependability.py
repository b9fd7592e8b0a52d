"""Upstreams that fail: what is tried again, whom else is asked, what the caller sees, what the record says."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_support import Answer, FakeUpstream, Gateway, Reply, chat, completion, rows, suffice, until, whole
from raw_upstream import RawUpstream, Step, good, http

from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
LIMITED = b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'


@pytest.fixture
def flaky() -> Iterator[RawUpstream]:
    server = RawUpstream()
    yield server
    server.close()


def nowhere() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def two(first: str, second: str, more: str = "", second_more: str = "") -> str:
    """A suffice.toml of an upstream and its fallback."""
    return (
        f'[upstreams.first]\nbase_url = "{first}"\nfallbacks = ["second"]\n{more}\n'
        f'[upstreams.second]\nbase_url = "{second}"\n{second_more}\n'
    )


def tries(gateway: Gateway, answer: Answer) -> list[tuple[str, int | None]]:
    """The failed attempts in the record: who, and which status."""
    told = json.loads(gateway.record(answer.id)["attempts"] or "[]")
    return [(tried["upstream"], tried.get("status")) for tried in told]


def posts(raw: RawUpstream) -> int:
    return len(raw.seen)


# ---------------------------------------------------------------------------------------------- callers see no failure


async def test_with_a_fifth_of_the_calls_failing_callers_see_no_failure(
    serve: Serve, upstream: FakeUpstream, flaky: RawUpstream
) -> None:
    coins, failed = random.Random(7), [0]
    kinds: list[list[Step]] = [
        ["reset"], ["close"], [http(500, b'{"error":{}}')], [http(429, LIMITED, "retry-after: 1")],
        [http(429, LIMITED, "retry-after: 60")], [http(503, b"")], [http(529, b"{}")], [b"HTTP/1.1 2", "reset"],
    ]  # fmt: skip
    answered: list[str] = []

    def answer(request: bytes) -> list[Step]:
        if coins.random() < 0.2:
            failed[0] += 1
            return coins.choice(kinds)
        text = json.loads(request.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
        answered.append(text)
        return good(text)

    flaky.answer = answer
    upstream.answer = lambda seen: whole(seen.text)
    gateway = serve(
        f'[upstreams.flaky]\nbase_url = "{flaky.url}"\nweight = 4\nfallbacks = ["backup"]\n'
        f'[upstreams.refusing]\nbase_url = "{nowhere()}"\nweight = 1\n'
        f'[upstreams.backup]\nbase_url = "{upstream.url}"\n'
    )
    slots = asyncio.Semaphore(32)
    async with gateway.async_client() as client:

        async def one(number: int) -> None:
            async with slots:
                said = await client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": f"n{number}"}]
                )
            assert said.choices[0].message.content == f"n{number}"

        await asyncio.gather(*(one(number) for number in range(2_000)))
    assert failed[0] > 200
    given = sorted([*answered, *(seen.text for seen in upstream.seen)])
    assert given == sorted(f"n{number}" for number in range(2_000))  # nobody's answer was paid for twice
    found = until(lambda: len(rows(gateway.home)) == 2_000 and rows(gateway.home))
    assert {(row["status"], row["failure"]) for row in found} == {(200, None)}
    told = [tried for row in found for tried in json.loads(row["attempts"] or "[]")]
    assert sum(tried["upstream"] == "flaky" for tried in told) == failed[0]
    assert any(tried["upstream"] == "refusing" for tried in told)
    assert {row["upstream"] for row in found} == {"flaky", "backup"}


def test_an_answer_tells_how_many_attempts_it_took(serve: Serve, upstream: FakeUpstream, flaky: RawUpstream) -> None:
    gateway = serve(two(flaky.url, upstream.url))
    left: list[list[Step]] = [[http(500, b"{}")], ["reset"]]
    flaky.answer = lambda request: left.pop(0) if left else good()
    answer = gateway.post(chat(), {"Idempotency-Key": "k-1"})
    assert (answer.status, answer.route, answer.headers["x-suffice-attempts"]) == (200, "second", "3")
    assert tries(gateway, answer) == [("first", 500), ("first", None)]
    assert all(b"k-1" in request for request in flaky.seen) and posts(flaky) == 2
    assert upstream.seen[0].header("idempotency-key") == ["k-1"]
    again = gateway.post(chat())
    assert (again.route, again.headers.get("x-suffice-attempts")) == ("frontier", None)
    assert gateway.record(again.id)["attempts"] is None


def test_a_stream_that_has_begun_is_never_asked_for_again(
    serve: Serve, upstream: FakeUpstream, flaky: RawUpstream
) -> None:
    head = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    flaky.answer = lambda request: [head + b"6\r\ndata: \r\n", "reset"]
    gateway = serve(two(flaky.url, upstream.url))
    response = gateway.begin(chat(stream=True))
    assert response.status == 200
    with pytest.raises(Exception, match=r"IncompleteRead|reset|closed"):
        response.read()
    record = gateway.record(response.getheader("x-suffice-record") or "")
    assert "broke off" in record["failure"] and posts(flaky) == 1 and not upstream.seen


# ---------------------------------------------------------------------------------------------- what is left is honest


def test_the_last_error_is_relayed_as_it_is(serve: Serve, flaky: RawUpstream) -> None:
    flaky.answer = lambda request: [http(429, LIMITED, "retry-after: 33", "x-request-id: r9")]
    gateway = serve(two(flaky.url, nowhere()))
    answer = gateway.post(chat())
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (429, LIMITED, "33")
    assert answer.headers["x-request-id"] == "r9" and posts(flaky) == 1  # 33 s are not waited for
    assert tries(gateway, answer) == [("second", None), ("second", None)]


def test_a_short_retry_after_is_waited_for(serve: Serve, flaky: RawUpstream) -> None:
    left = [[http(429, LIMITED, "retry-after: 9", "retry-after-ms: 300")]]
    flaky.answer = lambda request: left.pop() if left else good()
    gateway = serve(f'[upstreams.only]\nbase_url = "{flaky.url}"\n')
    began = time.monotonic()
    assert gateway.post(chat()).status == 200
    assert time.monotonic() - began >= 0.3 and posts(flaky) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422])
def test_the_callers_own_mistakes_are_relayed_at_once(
    serve: Serve, upstream: FakeUpstream, flaky: RawUpstream, status: int
) -> None:
    flaky.answer = lambda request: [http(status, b'{"error":{"message":"yours"}}')]
    gateway = serve(two(flaky.url, upstream.url))
    answers = [gateway.post(chat()) for _ in range(12)]  # enough to open a breaker, if they counted
    assert {(answer.status, answer.body) for answer in answers} == {(status, b'{"error":{"message":"yours"}}')}
    assert posts(flaky) == 12 and not upstream.seen


def test_what_leaves_something_behind_is_not_made_twice(
    serve: Serve, upstream: FakeUpstream, flaky: RawUpstream
) -> None:
    gateway = serve(two(flaky.url, upstream.url))
    flaky.answer = lambda request: [http(500, b"{}")]
    assert gateway.post(chat(store=True)).status == 500
    flaky.answer = lambda request: ["reset"]
    assert gateway.post(chat(store=True)).status == 502
    assert posts(flaky) == 2 and not upstream.seen
    flaky.answer = lambda request: [http(429, LIMITED, "retry-after: 60")]  # nothing was done: that is said
    assert gateway.post(chat(store=True)).status == 200
    flaky.close()
    assert gateway.post(chat(store=True)).status == 200 and len(upstream.seen) == 2  # never sent: refused


def test_all_attempts_together_end_in_time(serve: Serve, flaky: RawUpstream) -> None:
    flaky.answer = lambda request: ["silence"]
    more = "[server]\ntotal_s = 0.8\n"
    gateway = serve(two(flaky.url, flaky.url, "attempt_s = 0.3", "attempt_s = 30") + more)
    began = time.monotonic()
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (504, "upstream_timeout")
    assert 0.7 < time.monotonic() - began < 3 and posts(flaky) == 2
    assert tries(gateway, answer) == [("first", None), ("second", None)]


# ---------------------------------------------------------------------------------------------- who is asked for what


def test_another_upstream_is_asked_for_its_own_model(serve: Serve, upstream: FakeUpstream, flaky: RawUpstream) -> None:
    flaky.answer = lambda request: [http(503, b"{}")]
    gateway = serve(
        f'[upstreams.first]\nbase_url = "{flaky.url}"\nattempts = 1\nfallbacks = ["second/vendor/small"]\n'
        f'rename = {{ "gpt-4o" = "openai/gpt-4o" }}\n[upstreams.second]\nbase_url = "{upstream.url}"\n'
    )
    body = b'{"seed":123456789012345678901234567890,"model":"gpt-4o","messages":[ {"role":"user","content":"x"} ]}'
    answer = gateway.post(body)
    assert answer.status == 200 and answer.route == "second"
    assert flaky.seen[0].endswith(body.replace(b"gpt-4o", b"openai/gpt-4o"))
    assert upstream.seen[0].body == body.replace(b"gpt-4o", b"vendor/small")
    record = gateway.record(answer.id)
    assert (record["request"], record["model"], record["upstream"]) == (body, "gpt-4o", "second")


def test_what_may_not_leave_falls_back_only_to_who_is_inside(
    serve: Serve, upstream: FakeUpstream, flaky: RawUpstream
) -> None:
    gateway = serve(
        f'[upstreams.out]\nbase_url = "{flaky.url}"\nfallbacks = ["in"]\n'
        f'[upstreams.in]\nbase_url = "{upstream.url}"\ninside = true\nfallbacks = ["out"]\n[policy]\negress = "never"\n'
    )
    assert gateway.post(chat()).route == "in"
    upstream.answer = lambda seen: Reply(500, parts=[b"{}"])
    assert gateway.post(chat()).status == 500
    assert not flaky.seen


# ---------------------------------------------------------------------------------------------- breakers and limits


def test_an_upstream_that_is_down_is_left_alone_until_it_is_back(serve: Serve, flaky: RawUpstream) -> None:
    flaky.answer = lambda request: [http(500, b"{}")]
    gateway = serve(f'[upstreams.only]\nbase_url = "{flaky.url}"\nattempts = 1\n')
    assert [gateway.post(chat()).status for _ in range(10)] == [500] * 10
    asked, began = posts(flaky), time.monotonic()
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (503, "upstream_unavailable")
    assert answer.headers["retry-after"] == "1" and time.monotonic() - began < 0.5 and posts(flaky) == asked
    assert gateway.record(answer.id)["failure"] == answer.json["error"]["message"]
    flaky.answer = lambda request: good()
    until(lambda: gateway.post(chat()).status == 200, deadline_s=5)
    assert [gateway.post(chat()).status for _ in range(5)] == [200] * 5


def test_with_the_frontier_dead_a_live_task_goes_on(
    serve: Serve, learned: Path, tickets: list[Ticket], flaky: RawUpstream
) -> None:
    assert suffice("stage", "triage@1", "live", "--home", learned).returncode == 0
    flaky.answer = lambda request: ["reset"]
    gateway = serve(f'[upstreams.frontier]\nbase_url = "{flaky.url}"\n[policy]\naudit = 0\n', home=learned)
    answers, slowest = [], 0.0
    for ticket in tickets[-140:]:
        began = time.monotonic()
        answers.append(gateway.post(chat(ticket.text), {"X-Suffice-Task": "triage"}))
        if len(answers) > 80:
            slowest = max(slowest, time.monotonic() - began)
    routes = [answer.route for answer in answers]
    assert routes.count("specialist") > 40
    failed = [answer for answer in answers[80:] if answer.route != "specialist"]
    assert failed and {answer.status for answer in failed} <= {502, 503} and slowest < 1.5
    assert sum(answer.status == 503 for answer in failed) > len(failed) / 2  # at once, for the most part


def test_calls_at_once_are_limited_and_so_is_the_queue(serve: Serve, upstream: FakeUpstream) -> None:
    gate = threading.Event()
    upstream.answer = lambda seen: Reply(parts=[completion()], before=gate)
    gateway = serve(f'[upstreams.only]\nbase_url = "{upstream.url}"\nmax_connections = 2\nmax_waiting = 3\n')
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.post(chat()))) for _ in range(9)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) == 4)
    assert {answer.status for answer in answers} == {503} and len(upstream.seen) == 2
    assert {(answer.json["error"]["code"], answer.headers["retry-after"]) for answer in answers} == {
        ("upstream_busy", "1")
    }
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 4
    gate.clear()
    waiting = [gateway.open() for _ in range(4)]
    for connection in waiting:
        connection.request("POST", "/v1/chat/completions", chat())
    until(lambda: len(upstream.seen) == 7)
    for connection in waiting:  # they hang up, at the upstream and in the queue: their places are free again
        connection.close()
    until(lambda: len(rows(gateway.home, "failure = 'the caller hung up'")) == 4)
    gate.set()
    assert [gateway.post(chat()).status for _ in range(3)] == [200] * 3
