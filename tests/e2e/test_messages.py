"""Anthropic Messages through the gateway, by the vendor's SDK: relayed, translated, learned from, answered here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import ToolParam
from e2e_support import (
    DEADLINE_S,
    EVENTS_TYPE,
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
from openai.types.chat import ChatCompletionToolParam

from conftest import Serve
from suffice.core.style import Rendered
from suffice.demo.workload import generate
from suffice.wire import messages
from suffice.wire.dialect import Told

SYSTEM = "You triage tickets of a shop. Answer with one intent."
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"intent": {"type": "string"}}, "required": ["intent"]}
ROUTE: ToolParam = {"name": "route_ticket", "description": "Route it.", "input_schema": SCHEMA}
IN_CHAT: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "route_ticket", "description": "Route it.", "parameters": SCHEMA},
}
PIXEL = "iVBORw0KGgo="
THOUGHT: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "cache_read_input_tokens": 91, "cache_creation_input_tokens": 0, "output_tokens": 1}}},  # noqa: E501
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see."}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "h"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "i"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 12}},  # noqa: E501
    {"type": "message_stop"},
]  # fmt: skip
THINKING = [f"event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode() for told in THOUGHT]
N = 900
BOTH = 'dialects = ["chat", "messages"]\n'


def said(seen: Seen, answer: Rendered) -> Reply:
    """What an upstream that speaks this dialect answers."""
    asked = messages.MessagesRequest(seen.body)
    about = Told(record="up", model="claude", created=1, prompt_tokens=100)
    if asked.stream:
        return streamed(messages.events(answer, about, asked))
    return Reply(parts=[messages.whole(answer, about, asked)], length=True)


def client(gateway: Gateway, **headers: str) -> anthropic.Anthropic:
    """The official client, with its own idea of the path."""
    return anthropic.Anthropic(
        base_url=gateway.url.removesuffix("/v1"), api_key="caller-key", max_retries=0, timeout=DEADLINE_S,
        default_headers=headers,
    )  # fmt: skip


def ask(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def relaying(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """In front of an upstream that speaks Messages."""
    yield from _gateway(upstream_server, tmp_path_factory, "messages")


@pytest.fixture(scope="module")
def translating(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """In front of an upstream that speaks chat alone."""
    yield from _gateway(upstream_server, tmp_path_factory, "chat")


def _gateway(upstream: FakeUpstream, factory: pytest.TempPathFactory, dialect: str) -> Iterator[Gateway]:
    home = factory.mktemp(dialect) / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(config(upstream.url, f'dialects = ["{dialect}"]\n'))
    running = Gateway(home)
    yield running
    running.close()


# ---------------------------------------------------------------------------------------------- relayed


def test_an_answer_is_relayed_and_recorded(relaying: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: said(seen, Rendered("hi"))
    raw = client(relaying).messages.with_raw_response.create(**ask())
    found = raw.parse()
    assert found.content[0].type == "text" and found.content[0].text == "hi" and found.usage.input_tokens == 100
    (seen,) = upstream.seen
    assert seen.path == "/v1/messages" and seen.header("authorization") == ["Bearer caller-key"]
    assert len(seen.header("anthropic-version")) == 1
    record = relaying.record(raw.headers["x-suffice-record"])
    assert (record["dialect"], record["response_id"], record["prompt_tokens"]) == ("messages", "msg_up", 100)


def test_thinking_passes_byte_for_byte(relaying: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: streamed(THINKING)
    body = json.dumps(ask(stream=True, thinking={"type": "enabled", "budget_tokens": 1024}), indent=1).encode()
    answer = relaying.post(body, path="/v1/messages")
    assert answer.body == b"".join(THINKING) and upstream.seen[0].body == body
    record = relaying.record(answer.id)
    assert (record["prompt_tokens"], record["cached_tokens"], record["completion_tokens"]) == (100, 91, 12)
    assert json.loads(record["answer"])["content"][0]["signature"] == "EqQB"
    with client(relaying).messages.stream(**ask(thinking={"type": "enabled", "budget_tokens": 1024})) as stream:
        assert "".join(stream.text_stream) == "hi"
        assert stream.get_final_message().content[0].type == "thinking"


async def test_the_async_client_and_tools(relaying: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: said(seen, Rendered(None, (("route_ticket", '{"intent":"refund"}'),)))
    base = relaying.url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=0) as asking:
        async with asking.messages.stream(**ask(tools=[ROUTE])) as stream:
            final = await stream.get_final_message()
        whole_one = await asking.messages.create(**ask(tools=[ROUTE]))
    answers: list[Any] = [final, whole_one]
    for found in answers:
        assert found.content[0].type == "tool_use" and found.content[0].input == {"intent": "refund"}
        assert found.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, anthropic.AuthenticationError), (429, anthropic.RateLimitError), (400, anthropic.BadRequestError)],
)
def test_errors_are_the_sdks_own(
    relaying: Gateway, upstream: FakeUpstream, status: int, kind: type[anthropic.APIStatusError]
) -> None:
    error = {"type": "error", "error": {"type": "some_error", "message": "no"}, "request_id": "req_1"}
    upstream.answer = lambda seen: Reply(status, parts=[json.dumps(error).encode()], length=True)
    with pytest.raises(kind) as caught:
        client(relaying).messages.create(**ask())
    assert caught.value.body == error


def test_our_own_errors_have_its_shape(relaying: Gateway, upstream: FakeUpstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="X-Suffice-Route") as caught:
        client(relaying, **{"X-Suffice-Route": "nowhere"}).messages.create(**ask())
    assert isinstance(caught.value.body, dict) and caught.value.body["error"]["type"] == "invalid_request_error"


# ---------------------------------------------------------------------------------------------- translated


def test_an_upstream_of_chat_answers_messages(translating: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: (
        streamed(events({"content": "a"}, {"content": "b"}, usage=True)) if seen.json.get("stream") else whole("ab")
    )
    asking = client(translating)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    turn = [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, image]}]
    raw = asking.messages.with_raw_response.create(**ask(system=SYSTEM, messages=turn))
    found = raw.parse()
    assert found.content[0].type == "text" and found.content[0].text == "ab" and found.stop_reason == "end_turn"
    assert (found.usage.input_tokens, found.usage.output_tokens) == (100, 10)
    (seen,) = upstream.seen
    assert seen.path == "/v1/chat/completions" and seen.header("authorization") == ["Bearer caller-key"]
    assert seen.header("x-api-key") == [] and seen.header("anthropic-version") == []
    sent = seen.json["messages"]
    assert sent[0] == {"role": "system", "content": SYSTEM}
    assert sent[1]["content"][1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    record = translating.record(raw.headers["x-suffice-record"])
    assert record["dialect"] == "messages" and json.loads(record["answer"])["type"] == "message"
    with asking.messages.stream(**ask()) as stream:
        assert list(stream.text_stream) == ["a", "b"]
        assert stream.get_final_message().usage.input_tokens == 100


def test_a_tool_round_trip_over_chat(translating: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: whole(None, **called("route_ticket", '{"intent":"refund"}'))
    asking = client(translating)
    first = asking.messages.create(**ask(tools=[ROUTE], tool_choice={"type": "any"}))
    use = first.content[0]
    assert use.type == "tool_use" and use.input == {"intent": "refund"} and first.stop_reason == "tool_use"
    assert upstream.seen[0].json["tools"] == [IN_CHAT] and upstream.seen[0].json["tool_choice"] == "required"
    upstream.answer = lambda seen: whole("done")
    turns: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "routed"}]},
    ]
    last = asking.messages.create(model="claude", max_tokens=9, messages=turns, tools=[ROUTE])
    assert last.content[0].type == "text" and last.content[0].text == "done"
    sent = upstream.seen[1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == "call_1"


def test_parallel_calls_streamed_over_chat(translating: Gateway, upstream: FakeUpstream) -> None:
    def piece(index: int, **call: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **call}]}

    pieces = [
        piece(0, id="a", type="function", function={"name": "route_ticket", "arguments": ""}),
        piece(0, function={"arguments": '{"intent":'}),
        piece(0, function={"arguments": '"refund"}'}),
        piece(1, id="b", type="function", function={"name": "route_ticket", "arguments": '{"intent":"return"}'}),
    ]
    upstream.answer = lambda seen: streamed(events(*pieces, finish="tool_calls", usage=True))
    with client(translating).messages.stream(**ask(tools=[ROUTE])) as stream:
        final = stream.get_final_message()
    assert [(block.id, block.input) for block in final.content if block.type == "tool_use"] == [
        ("a", {"intent": "refund"}),
        ("b", {"intent": "return"}),
    ]


def test_what_cannot_be_carried_is_named(translating: Gateway, upstream: FakeUpstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="thinking") as caught:
        client(translating).messages.create(**ask(thinking={"type": "enabled", "budget_tokens": 1024}))
    assert isinstance(caught.value.body, dict) and caught.value.body["error"]["param"] == "thinking"
    assert upstream.seen == []


def test_an_error_of_the_upstream_is_one_of_the_callers_dialect(translating: Gateway, upstream: FakeUpstream) -> None:
    error = {"error": {"message": "Too long", "type": "invalid_request_error", "param": "messages", "code": "length"}}
    upstream.answer = lambda seen: Reply(400, parts=[json.dumps(error).encode()], length=True)
    with pytest.raises(anthropic.BadRequestError, match="Too long"):
        client(translating).messages.create(**ask())


def test_an_answer_that_cannot_be_read_is_a_502(translating: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(200, parts=[b"<html>hello</html>"], length=True)
    with pytest.raises(anthropic.InternalServerError) as caught:
        client(translating).messages.create(**ask())
    assert caught.value.status_code == 502


def test_an_upstream_of_messages_answers_chat(relaying: Gateway, upstream: FakeUpstream) -> None:
    asking = relaying.client()
    upstream.answer = lambda seen: said(seen, Rendered("hi"))
    turns: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello"}]
    found = asking.chat.completions.create(model="claude", messages=turns)
    assert found.choices[0].message.content == "hi" and found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.prompt_tokens == 100
    (seen,) = upstream.seen
    assert seen.path == "/v1/messages" and seen.header("x-api-key") == ["caller-key"]
    assert seen.header("authorization") == [] and seen.header("anthropic-version") == ["2023-06-01"]
    assert (seen.json["system"], seen.json["messages"]) == (SYSTEM, turns[1:])
    upstream.answer = lambda seen: streamed(THINKING)
    chunks = list(
        asking.chat.completions.create(
            model="claude", messages=turns, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content] == ["h", "i"]
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens == 100 and usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 91
    upstream.answer = lambda seen: said(seen, Rendered(None, (("route_ticket", '{"intent":"refund"}'),)))
    with asking.chat.completions.stream(model="claude", messages=turns, tools=[IN_CHAT]) as stream:
        for _ in stream:
            pass
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None and calls[0].function.arguments == '{"intent":"refund"}'
    with pytest.raises(openai.BadRequestError, match="`n`") as caught:
        asking.chat.completions.create(model="claude", messages=turns, n=2)
    assert caught.value.param == "n"


def test_a_stream_that_breaks_off_does_not_look_whole(relaying: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(headers=EVENTS_TYPE, parts=THINKING[:8])
    with pytest.raises((openai.APIError, Exception), match=r"closed|incomplete|peer|onnection"):
        list(
            relaying.client().chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
        )


# ---------------------------------------------------------------------------------------------- learned from


@pytest.fixture(scope="module")
def taught(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that saw a task of texts and one of calls in Messages, learned both and answers both."""
    home = tmp_path_factory.mktemp("taught") / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(config(upstream_server.url, BOTH))
    truths = {ticket.text: ticket.truth for ticket in generate(N, 5)}
    upstream_server.reset()

    def answer(seen: Seen) -> Reply:
        intent = truths[seen.text]
        called = (("route_ticket", json.dumps({"intent": intent})),)
        return said(seen, Rendered(None, called) if "tools" in seen.json else Rendered(intent))

    upstream_server.answer = answer
    gateway = Gateway(home)
    try:
        asyncio.run(_teach(gateway, list(truths)))
        until(lambda: len(rows(home)) == 2 * len(truths))
    finally:
        gateway.stop()
    for task in ("words", "calls"):
        found = told("learn", task, "--home", home, "--max-error", "0.2", "--recipe", "linear")
        assert found["release"] == f"{task}@1", found["reasons"]
        told("stage", task, "live", "--home", home)
    return home


async def _teach(gateway: Gateway, texts: list[str]) -> None:
    base = gateway.url.removesuffix("/v1")
    slots = asyncio.Semaphore(8)
    async with anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=0) as asking:

        async def one(text: str, task: str, **more: Any) -> None:
            async with slots:
                headers = {"X-Suffice-Task": task}
                await asking.messages.create(**ask(text, system=SYSTEM, **more), extra_headers=headers)

        async with asyncio.TaskGroup() as group:
            for text in texts:
                group.create_task(one(text, "words"))
                group.create_task(one(text, "calls", tools=[ROUTE]))


def test_a_task_of_messages_answers_in_every_dialect(taught: Path, serve: Serve, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: said(seen, Rendered("escalated")) if "/messages" in seen.path else whole("escalated")
    gateway = serve(config(upstream.url, BOTH), home=taught)
    ours = client(gateway, **{"X-Suffice-Task": "words"})
    theirs = gateway.client(default_headers={"X-Suffice-Task": "words"})
    agreed = 0
    for ticket in generate(60, 77):
        raw = ours.messages.with_raw_response.create(**ask(ticket.text, system=SYSTEM))
        if raw.headers["x-suffice-route"] != "specialist":
            continue
        agreed += 1
        if agreed > 4:
            break
        first = raw.parse()
        assert first.content[0].type == "text" and first.model == "suffice/words@1"
        with ours.messages.stream(**ask(ticket.text, system=SYSTEM)) as stream:
            assert "".join(stream.text_stream) == first.content[0].text
        turns: list[Any] = [{"role": "developer", "content": SYSTEM}, {"role": "user", "content": ticket.text}]
        chat = theirs.chat.completions.create(model="m", messages=turns)
        assert chat.choices[0].message.content == first.content[0].text and chat.model == "suffice/words@1"
        parts = theirs.chat.completions.create(model="m", messages=turns, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in parts if c.choices) == first.content[0].text
    assert agreed > 4


def test_a_task_of_calls_answers_in_every_dialect(taught: Path, serve: Serve, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: said(seen, Rendered("escalated")) if "/messages" in seen.path else whole("escalated")
    gateway = serve(config(upstream.url, BOTH), home=taught)
    ours = client(gateway, **{"X-Suffice-Task": "calls"})
    theirs = gateway.client(default_headers={"X-Suffice-Task": "calls"})
    agreed = 0
    for ticket in generate(60, 77):
        with ours.messages.stream(**ask(ticket.text, system=SYSTEM, tools=[ROUTE])) as stream:
            first = stream.get_final_message()
        if not first.model.startswith("suffice/"):
            continue
        agreed += 1
        if agreed > 4:
            break
        assert first.content[0].type == "tool_use" and first.stop_reason == "tool_use"
        turns: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ticket.text}]
        chat = theirs.chat.completions.create(model="m", messages=turns, tools=[IN_CHAT])
        calls = chat.choices[0].message.tool_calls
        assert calls is not None and calls[0].type == "function"
        assert json.loads(calls[0].function.arguments) == first.content[0].input
    assert agreed > 4


def test_what_was_recorded_is_exported(taught: Path, tmp_path: Path) -> None:
    target = tmp_path / "words"
    told("dataset", "words", "--export", "openai", "--to", target, "--home", taught)
    line = json.loads(next(iter(target.glob("train*.jsonl"))).read_text().splitlines()[0])
    assert [message["role"] for message in line["messages"]] == ["system", "user", "assistant"]
