"""The official SDK in front of the gateway: nothing of it changes but the base URL."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from e2e_support import EVENTS_TYPE, FakeUpstream, Gateway, Reply, called, completion, events, streamed, whole
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": "route", "parameters": {"type": "object", "properties": {}}}}
]


class Triage(BaseModel):
    intent: str
    urgent: bool


def test_plain_answer_and_our_headers(gateway: Gateway, upstream: FakeUpstream) -> None:
    raw = gateway.client().chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK)
    assert raw.parse().choices[0].message.content == "hi"
    assert raw.headers["x-suffice-route"] == "frontier" and raw.headers["x-suffice-reason"] == "no_task"
    assert raw.headers["x-suffice-record"].startswith("rec_") and "x-suffice-task" not in raw.headers


def test_stream_with_usage(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: streamed(events({"content": "a"}, {"content": "b"}, usage=True))
    chunks = list(
        gateway.client().chat.completions.create(
            model="gpt-4o", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "ab"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 110


def test_tools(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: whole(None, **called("route", '{ "to":"billing" }'))
    answer = gateway.client().chat.completions.create(model="gpt-4o", messages=ASK, tools=TOOLS)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None and calls[0].type == "function"
    assert calls[0].function.arguments == '{ "to":"billing" }'
    assert upstream.seen[0].json["tools"] == TOOLS


def test_streamed_tools(gateway: Gateway, upstream: FakeUpstream) -> None:
    head: dict[str, Any] = {
        "index": 0,
        "id": "call_9",
        "type": "function",
        "function": {"name": "route", "arguments": ""},
    }
    pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": text}}]} for text in ('{"to"', ':"billing"}')]
    upstream.answer = lambda seen: streamed(events({"tool_calls": [head]}, *pieces, finish="tool_calls"))
    with gateway.client().chat.completions.stream(model="gpt-4o", messages=ASK, tools=TOOLS) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None and message.tool_calls[0].function.arguments == '{"to":"billing"}'


def test_structured_output(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: whole('{"intent":"refund","urgent":true}')
    parsed = gateway.client().chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Triage)
    assert parsed.choices[0].message.parsed == Triage(intent="refund", urgent=True)
    assert upstream.seen[0].json["response_format"]["json_schema"]["name"] == "Triage"


def test_several_choices_and_logprobs(gateway: Gateway, upstream: FakeUpstream) -> None:
    body = json.loads(completion("x"))
    token = {"token": "x", "logprob": -0.25, "bytes": [120], "top_logprobs": []}
    body["choices"] = [
        {**body["choices"][0], "index": i, "logprobs": {"content": [token], "refusal": None}} for i in (0, 1)
    ]
    upstream.answer = lambda seen: Reply(parts=[json.dumps(body).encode()], length=True)
    answer = gateway.client().chat.completions.create(model="gpt-4o", messages=ASK, n=2, logprobs=True)
    assert [choice.index for choice in answer.choices] == [0, 1]
    logprobs = answer.choices[1].logprobs
    assert logprobs is not None and logprobs.content is not None and logprobs.content[0].logprob == -0.25


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, openai.AuthenticationError), (429, openai.RateLimitError), (400, openai.BadRequestError), (500, openai.InternalServerError)],  # noqa: E501
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_sdks_own(
    gateway: Gateway, upstream: FakeUpstream, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    error = {
        "message": "Incorrect API key provided: sk-***",
        "type": "invalid_request_error",
        "param": None,
        "code": "bad",
    }
    upstream.answer = lambda seen: Reply(status, parts=[json.dumps({"error": error}).encode()], length=True)
    with pytest.raises(kind) as caught:
        gateway.client().chat.completions.create(model="gpt-4o", messages=ASK, stream=stream)
    assert caught.value.status_code == status and caught.value.body == error
    record = gateway.record(caught.value.response.headers["x-suffice-record"])
    assert (record["status"], json.loads(record["answer"])) == (status, {"error": error})


def test_error_inside_a_stream(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(headers=EVENTS_TYPE, parts=[b'data: {"error": {"message": "overloaded"}}\n\n'])
    with pytest.raises(openai.APIError, match="overloaded"):
        list(gateway.client().chat.completions.create(model="gpt-4o", messages=ASK, stream=True))


async def test_async_client(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: streamed(events({"content": "a"}))
    stream = await gateway.async_client().chat.completions.create(model="gpt-4o", messages=ASK, stream=True)
    assert "a" in [c.choices[0].delta.content async for c in stream if c.choices]


def test_models_are_the_upstreams(gateway: Gateway, upstream: FakeUpstream) -> None:
    listed = {"object": "list", "data": [{"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}]}
    upstream.answer = lambda seen: Reply(parts=[json.dumps(listed).encode()], length=True)
    assert [model.id for model in gateway.client("k2").models.list()] == ["gpt-4o"]
    assert upstream.seen[0].path == "/v1/models" and upstream.seen[0].header("authorization") == ["Bearer k2"]


def test_models_error_is_relayed(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(401, parts=[b'{"error":{"message":"no"}}'], length=True)
    with pytest.raises(openai.AuthenticationError):
        gateway.client().models.list()
