"""The whole loop on recorded traffic: the specialist answers to the letter as the frontier did."""

from __future__ import annotations

import asyncio
import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from e2e_support import (
    FakeUpstream,
    Gateway,
    Reply,
    Seen,
    called,
    completion,
    config,
    events,
    rows,
    streamed,
    told,
    until,
)

from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
N = 1500
URGENT = {"damaged_item", "refund_status", "payment_problem", "complaint", "account_access"}
TOOLS = [{"type": "function", "function": {"name": "route_ticket", "parameters": {"type": "object", "properties": {"intent": {"type": "string"}, "priority": {"type": "string"}}}}}]  # fmt: skip  # noqa: E501


def system(i: int) -> str:
    day = datetime.date(2026, 1, 1) + datetime.timedelta(days=i // 20)
    return f"You triage tickets of a shop. Today is {day.isoformat()}. Answer with intent and priority as JSON."


def fields(truth: str) -> dict[str, str]:
    return {"intent": truth, "priority": "high" if truth in URGENT or len(truth) % 2 else "normal"}


def compact(truth: str) -> dict[str, Any]:
    return {"content": json.dumps(fields(truth), separators=(",", ":"))}


def fenced(truth: str) -> dict[str, Any]:
    return {"content": "```json\n" + json.dumps(dict(reversed(fields(truth).items())), indent=2) + "\n```"}


def bare(truth: str) -> dict[str, Any]:
    return {"content": truth.replace("_", " ").title()}


def spaced_tool(truth: str) -> dict[str, Any]:
    return {"content": None, **called("route_ticket", json.dumps(fields(truth)))}


SHAPES = [
    compact,
    fenced,
    bare,
    spaced_tool,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_accepted_answers_are_the_frontiers_to_the_letter(
    serve: Serve, upstream: FakeUpstream, tickets: list[Ticket], shape: Callable[[str], dict[str, Any]]
) -> None:
    truths = {ticket.text: ticket.truth for ticket in tickets}

    def answer(seen: Seen) -> Reply:
        message = shape(truths[seen.text])
        if seen.json.get("stream"):
            return _as_stream(message)
        return Reply(
            parts=[completion(message["content"], **{k: v for k, v in message.items() if k != "content"})], length=True
        )

    upstream.answer = answer
    gateway = serve(config(upstream.url))
    extra = {"tools": TOOLS} if "tool" in shape.__name__ else {}
    asyncio.run(_send(gateway, tickets[:N], extra))
    until(lambda: len(rows(gateway.home)) == N)

    document = told("learn", "triage", "--home", gateway.home, "--max-error", "0.08")
    assert document["release"] == "triage@1" and document["promise"] == "agreement", document["reasons"]
    assert document["dropped"] == {} and document["examples"] == N
    told("stage", "triage", "live", "--home", gateway.home)
    until(lambda: _ask(gateway, tickets[0], N, extra).headers.get("x-suffice-release"), deadline_s=2)

    # Every pair of values in the frontier's layout: fields are predicted one by one.
    layouts = {
        json.dumps(_letter(shape(truth)), sort_keys=True).replace(priority, other)
        for truth in set(truths.values())
        for priority in ("high", "normal")
        for other in ("high", "normal")
    }
    accepted = right = 0
    for position, ticket in enumerate(tickets[N : N + 150]):
        stream = position % 3 == 0
        raw = _ask(gateway, ticket, N + position, extra, stream)
        if raw.headers["x-suffice-route"] != "specialist":
            assert raw.headers["x-suffice-reason"] in ("below_threshold", "unfamiliar"), raw.headers
            continue
        accepted += 1
        message = _streamed_message(raw.text) if stream else json.loads(raw.text)["choices"][0]["message"]
        said = json.dumps(_letter(message), sort_keys=True)
        assert said in layouts, f"{said} is not how the frontier writes it, e.g. {next(iter(layouts))}"
        right += said == json.dumps(_letter(shape(ticket.truth)), sort_keys=True)
    print(f"{accepted} accepted, {right} right")
    assert accepted > 50 and right >= 0.75 * accepted


def _letter(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or []
    return {
        "content": message.get("content"),
        "calls": [(call["function"]["name"], call["function"]["arguments"]) for call in calls],
    }


def _as_stream(message: dict[str, Any]) -> Reply:
    if message.get("tool_calls"):
        call = {"index": 0, **message["tool_calls"][0]}
        return streamed(events({"role": "assistant", "content": None, "tool_calls": [call]}, finish="tool_calls"))
    text = message["content"]
    return streamed(
        events({"role": "assistant", "content": ""}, *({"content": text[i : i + 7]} for i in range(0, len(text), 7)))
    )


def _streamed_message(raw: str) -> dict[str, Any]:
    message: dict[str, Any] = {"content": None, "tool_calls": []}
    for line in raw.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                delta = choice["delta"]
                if delta.get("content") is not None and not delta.get("tool_calls"):
                    message["content"] = (message["content"] or "") + delta["content"]
                message["tool_calls"] += delta.get("tool_calls", [])
    return message


class _Got:
    def __init__(self, headers: dict[str, str], text: str) -> None:
        self.headers, self.text = headers, text


def _body(ticket: Ticket, i: int, extra: dict[str, Any], stream: bool) -> bytes:
    messages = [{"role": "system", "content": system(i)}, {"role": "user", "content": ticket.text}]
    return json.dumps({"model": "gpt-4o", "messages": messages, "stream": stream, **extra}).encode()


def _ask(gateway: Gateway, ticket: Ticket, i: int, extra: dict[str, Any], stream: bool = False) -> _Got:
    answer = gateway.post(_body(ticket, i, extra, stream), {"X-Suffice-Task": "triage"})
    assert answer.status == 200
    return _Got(answer.headers, answer.body.decode())


async def _send(gateway: Gateway, tickets: list[Ticket], extra: dict[str, Any]) -> None:
    """All of it, one in ten streamed, 16 at a time."""
    coin, gate = random.Random(1), asyncio.Semaphore(16)

    async def one(session: aiohttp.ClientSession, i: int, ticket: Ticket) -> None:
        async with gate:
            body = _body(ticket, i, extra, coin.random() < 0.1)
            async with session.post(
                f"{gateway.url}/chat/completions", data=body, headers={"X-Suffice-Task": "triage"}
            ) as got:
                assert got.status == 200
                await got.read()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, i, ticket) for i, ticket in enumerate(tickets)))
