"""The Responses API through the gateway, by the vendor's SDK: relayed, answered by specialists, translated, chained."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from e2e_support import (
    FakeUpstream,
    Gateway,
    Reply,
    Seen,
    called,
    config,
    events,
    rows,
    streamed,
    told,
    until,
    whole,
)
from openai.types.responses import FunctionToolParam, Response
from pydantic import BaseModel

from conftest import Serve
from suffice.core.style import Rendered
from suffice.demo.workload import Ticket
from suffice.wire import responses
from suffice.wire.dialect import Told

SYSTEM = "You triage tickets of a shop."
ROUTE: FunctionToolParam = {
    "type": "function",
    "name": "route_ticket",
    "parameters": {"type": "object", "properties": {"intent": {"type": "string"}}},
    "strict": False,
}
IN_CHAT: Any = {"type": "function", "function": {"name": "route_ticket", "parameters": ROUTE["parameters"]}}
N = 1500
ESCALATED = ("below_threshold", "unfamiliar", "timeout")  # the last on a machine that is busy with others


class Triage(BaseModel):
    intent: str


def responded(seen: Seen, answer: Rendered, id: str = "up_1") -> Reply:
    """What an upstream that speaks this dialect answers."""
    asked = responses.ResponsesRequest(seen.body)
    said = Told(record=id, model="gpt-4o", created=1_700_000_000, prompt_tokens=100)
    if asked.stream:
        return streamed([part.replace(b"resp_suffice_", b"resp_") for part in responses.events(answer, said, asked)])
    return Reply(parts=[responses.whole(answer, said, asked).replace(b"resp_suffice_", b"resp_")], length=True)


# ---------------------------------------------------------------------------------------------- relayed


def test_answers_and_streams_are_relayed_and_recorded(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    upstream.answer = lambda seen: responded(seen, Rendered("hi"))
    client = gateway.client()
    assert client.responses.create(model="gpt-4o", input="hello").output_text == "hi"
    with client.responses.stream(model="gpt-4o", input="hello") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "hi"
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [seen.path for seen in upstream.seen] == ["/v1/responses"] * 2
    found = until(lambda: len(kept := rows(gateway.home)) == 2 and kept)
    assert {(row["dialect"], row["response_id"], row["prompt_tokens"]) for row in found} == {
        ("responses", "resp_up_1", 100)
    }
    assert [json.loads(row["answer"])["output"][0]["content"][0]["text"] for row in found] == ["hi", "hi"]


def test_what_is_stored_is_asked_of_the_upstream_that_stored_it(serve: Serve, upstream: FakeUpstream) -> None:
    other = FakeUpstream()
    try:
        more = f'[upstreams.other]\nbase_url = "{other.url}"\nmodels = ["o-*"]\n'
        gateway = serve(config(upstream.url, more))
        other.answer = lambda seen: responded(seen, Rendered("queued"), "up_2")
        client = gateway.client()
        made = client.responses.create(model="o-1", input="hello", background=True, store=True)
        until(lambda: rows(gateway.home, "response_id = ?", made.id))
        other.answer = lambda seen: Reply(parts=[made.model_dump_json().encode()], length=True)
        assert client.responses.retrieve(made.id).id == made.id
        assert client.responses.cancel(made.id).id == made.id
        client.responses.delete(made.id)
        other.answer = lambda seen: responded(seen, Rendered("more"), "up_3")
        client.responses.create(model="gpt-4o", input="go on", previous_response_id=made.id)
        assert [(seen.method, seen.path) for seen in other.seen[1:]] == [
            ("GET", f"/v1/responses/{made.id}"),
            ("POST", f"/v1/responses/{made.id}/cancel"),
            ("DELETE", f"/v1/responses/{made.id}"),
            ("POST", "/v1/responses"),
        ]
        assert upstream.seen == []
    finally:
        other.close()


# ---------------------------------------------------------------------------------------------- translated


@pytest.fixture
def translating(serve: Serve, upstream: FakeUpstream) -> Gateway:
    return serve(f'[upstreams.local]\nbase_url = "{upstream.url}"\ndialects = ["chat"]\n')


def test_an_upstream_of_chat_answers_responses(translating: Gateway, upstream: FakeUpstream) -> None:
    client = translating.client()
    upstream.answer = lambda seen: (
        streamed(events({"content": "a"}, {"content": "b"}, usage=True)) if seen.json.get("stream") else whole("ab")
    )
    found = client.responses.create(model="m", instructions=SYSTEM, input="hello", store=True)
    assert (found.output_text, found.status) == ("ab", "completed")
    assert found.usage is not None and found.usage.input_tokens == 100
    assert upstream.seen[0].path == "/v1/chat/completions" and [
        m["role"] for m in upstream.seen[0].json["messages"]
    ] == ["system", "user"]
    with client.responses.stream(model="m", input="hello") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "ab" and deltas == ["a", "b"]
    upstream.answer = lambda seen: whole('{"intent":"refund"}')
    parsed = client.responses.parse(model="m", input="hello", text_format=Triage)
    assert parsed.output_parsed == Triage(intent="refund")
    assert upstream.seen[-1].json["response_format"]["json_schema"]["strict"] is True
    # What it answered is kept here: the next turn finds it.
    upstream.answer = lambda seen: whole("bye")
    assert client.responses.create(model="m", input="and?", previous_response_id=found.id).output_text == "bye"
    assert [message["content"] for message in upstream.seen[-1].json["messages"]] == ["hello", "ab", "and?"]


def test_a_tool_round_trip_over_an_upstream_of_chat(translating: Gateway, upstream: FakeUpstream) -> None:
    client = translating.client()
    upstream.answer = lambda seen: whole(None, **called("route_ticket", '{"intent":"refund"}'))
    first = client.responses.create(model="m", input="hello", tools=[ROUTE])
    call = first.output[0]
    assert call.type == "function_call" and (call.name, call.call_id) == ("route_ticket", "call_1")
    upstream.answer = lambda seen: whole("done")
    turns: list[Any] = [
        {"role": "user", "content": "hello"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "routed"},
    ]
    assert client.responses.create(model="m", input=turns, tools=[ROUTE]).output_text == "done"
    sent = upstream.seen[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "call_1"


def test_what_cannot_be_carried_is_named(translating: Gateway, upstream: FakeUpstream) -> None:
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]") as caught:
        translating.client().responses.create(model="m", input="x", tools=[{"type": "web_search"}])
    assert caught.value.param == "tools[0]" and upstream.seen == []


# ---------------------------------------------------------------------------------------------- answered here


def test_a_task_pinned_in_chat_answers_here_and_is_chained(
    serve: Serve, upstream: FakeUpstream, learned: Path, tickets: list[Ticket]
) -> None:
    told("stage", "triage@1", "live", "--home", learned)
    gateway = serve(config(upstream.url), home=learned)
    client = gateway.client(default_headers={"X-Suffice-Task": "triage"})
    for ticket in tickets[2500:2510]:  # the first one pins the prompt
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": ticket.text}]
        )
    upstream.answer = lambda seen: responded(seen, Rendered("from the frontier"))
    found: list[tuple[Ticket, Response]] = []
    for ticket in tickets[2510:2540]:
        raw = client.responses.with_raw_response.create(model="gpt-4o", instructions=SYSTEM, input=ticket.text)
        if raw.headers["x-suffice-route"] == "specialist":
            found.append((ticket, raw.parse()))
        else:
            assert raw.headers["x-suffice-reason"] in ESCALATED
    assert len(found) > 10 and sum(one.output_text == ticket.truth for ticket, one in found) > 0.8 * len(found)
    ticket, first = found[0]
    assert first.id.startswith("resp_suffice_") and first.model == "suffice/triage@1"
    with client.responses.stream(model="gpt-4o", instructions=SYSTEM, input=ticket.text) as stream:
        assert "response.output_text.delta" in [event.type for event in stream]
        assert stream.get_final_response().output_text == first.output_text

    # It can be asked for again, followed on, and deleted, like one that the vendor keeps.
    assert client.responses.retrieve(first.id).output_text == first.output_text
    assert client.responses.input_items.list(first.id).data[0].type == "message"
    upstream.seen.clear()
    follow = client.responses.create(model="gpt-4o", input="Why?", previous_response_id=first.id)
    assert follow.output_text == "from the frontier"
    sent = upstream.seen[-1].json
    assert "previous_response_id" not in sent and len(sent["input"]) == 3
    assert sent["input"][1]["content"][0]["text"] == first.output_text and "id" not in sent["input"][1]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="no response"):
        client.responses.create(model="gpt-4o", input="Why?", previous_response_id=first.id)
    private = client.responses.create(model="gpt-4o", instructions=SYSTEM, input=ticket.text, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(private.id)


def test_a_task_learned_here_answers_in_chat(
    serve: Serve, upstream: FakeUpstream, tickets: list[Ticket], tmp_path: Path
) -> None:
    truths = {ticket.text: ticket.truth for ticket in tickets}
    upstream.answer = lambda seen: responded(
        seen,
        Rendered(None, (("route_ticket", json.dumps({"intent": truths[seen.json["input"]]})),)),
        str(len(upstream.seen)),
    )
    gateway = serve(config(upstream.url))
    asyncio.run(_send(gateway, tickets[:N]))
    until(lambda: len(rows(gateway.home)) == N)
    document = told("learn", "triage", "--home", gateway.home, "--max-error", "0.1")
    assert document["release"] == "triage@1", document["reasons"]
    assert document["dropped"] == {} and document["examples"] == N
    told("stage", "triage", "live", "--home", gateway.home)
    client = gateway.client(default_headers={"X-Suffice-Task": "triage"})

    def in_chat(ticket: Ticket) -> Any:
        asked: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ticket.text}]
        return client.chat.completions.with_raw_response.create(model="gpt-4o", messages=asked, tools=[IN_CHAT])

    upstream.answer = lambda seen: whole("from the frontier")
    until(lambda: in_chat(tickets[0]).headers.get("x-suffice-release"), deadline_s=3)
    accepted = right = 0
    for ticket in tickets[N : N + 60]:
        raw = in_chat(ticket)
        if raw.headers["x-suffice-route"] != "specialist":
            assert raw.headers["x-suffice-reason"] in ESCALATED
            continue
        accepted += 1
        right += json.loads(raw.parse().choices[0].message.tool_calls[0].function.arguments) == {"intent": ticket.truth}
    assert accepted > 15 and right >= 0.75 * accepted
    # And what was recorded here can be trained on elsewhere.
    out = tmp_path / "out"
    told("dataset", "triage", "--export", "openai", "--to", out, "--home", gateway.home)
    file = next(file for file in sorted(out.rglob("*.jsonl")))
    line = json.loads(file.read_text().splitlines()[0])
    assert [message["role"] for message in line["messages"]][:2] == ["system", "user"] and line["tools"] == [IN_CHAT]


async def _send(gateway: Gateway, tickets: list[Ticket]) -> None:
    slots = asyncio.Semaphore(16)
    client = gateway.async_client()

    async def one(ticket: Ticket) -> None:
        async with slots:
            await client.responses.create(
                model="gpt-4o",
                instructions=SYSTEM,
                input=ticket.text,
                tools=[ROUTE],
                extra_headers={"X-Suffice-Task": "triage"},
            )

    await asyncio.gather(*map(one, tickets))
