"""Messages: the same request as chat's, and answers, streams and errors in its shape."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message as SdkMessage
from anthropic.types.message_create_params import MessageCreateParamsBase
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from suffice.core.errors import InputError
from suffice.core.same import nameless
from suffice.core.style import Rendered
from suffice.core.types import Message, Request, Usage
from suffice.wire import dialects, messages
from suffice.wire.chat import ChatRequest
from suffice.wire.dialect import CannotCarry, Told
from suffice.wire.messages_answers import answer_from_chat, answer_to_chat
from suffice.wire.messages_chat import (
    CARRIED_FROM_CHAT,
    CARRIED_TO_CHAT,
    LEFT_OUT_FROM_CHAT,
    LEFT_OUT_TO_CHAT,
    from_chat,
    to_chat,
)
from suffice.wire.messages_stream import assemble

TOLD = Told(record="rec_1", model="suffice/triage@1", created=1, prompt_tokens=12)
ASK: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
TOOL = {"name": "route", "description": "Route it.", "input_schema": {"type": "object", "properties": {"to": {"type": "string"}}}}  # fmt: skip  # noqa: E501


def read(**fields: Any) -> Request:
    return messages.MessagesRequest(json.dumps({**ASK, **fields}).encode()).request


# ---------------------------------------------------------------------------------------------- requests

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abcXYZ_09", min_size=1, max_size=6)
content = st.one_of(
    text,
    st.lists(
        st.one_of(
            st.builds(lambda t: {"type": "text", "text": t}, text),
            st.just({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}),
            st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}),
        ),
        min_size=1,
        max_size=3,
    ),
)
json_values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | text, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2), max_leaves=4)  # fmt: skip  # noqa: E501
objects = st.dictionaries(text, json_values, max_size=3)


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A conversation of chat that ends with a user's turn or with results of tools."""
    found: list[dict[str, Any]] = []
    for told in draw(st.lists(some_text, max_size=2)):
        found.append({"role": "system", "content": told})
    for _ in range(draw(st.integers(0, 3))):
        found.append({"role": "user", "content": draw(content)})
        calls = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(draw(objects))}}
            for i, name in enumerate(draw(st.lists(names, max_size=2)))
        ]
        said = draw(st.none() | text) if calls else draw(text)
        found.append({"role": "assistant", "content": said, **({"tool_calls": calls} if calls else {})})
        for call in calls:
            found.append({"role": "tool", "tool_call_id": call["id"], "content": draw(text)})
    if not found or found[-1]["role"] in ("system", "assistant") or draw(st.booleans()):
        found.append({"role": "user", "content": draw(content)})
    return found


@st.composite
def chats(draw: st.DrawFn) -> dict[str, Any]:
    body: dict[str, Any] = {"model": draw(names), "messages": draw(turns()), "max_tokens": draw(st.integers(1, 99))}
    if draw(st.booleans()):
        tools: list[Any] = [
            {"type": "function", "function": {"name": name, "description": draw(text), "parameters": draw(objects)}}
            for name in draw(st.lists(names, min_size=1, max_size=2))
        ]
        body["tools"] = tools
        forced = {"type": "function", "function": {"name": tools[0]["function"]["name"]}}
        body["tool_choice"] = draw(st.sampled_from(["auto", "none", "required", forced]))
        body["parallel_tool_calls"] = draw(st.booleans())
    if draw(st.booleans()):
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": draw(names), "schema": draw(objects), "strict": True}}  # fmt: skip  # noqa: E501
    if draw(st.booleans()):
        body["stop"] = draw(st.lists(some_text, min_size=1, max_size=2))
    return body


def same(request: Request) -> tuple[object, ...]:
    """What is compared: the name of a format has no place in Messages."""
    form = nameless(request.response_format)
    return request.model, request.messages, request.tools, form, request.unsupported, request.max_tokens


@settings(max_examples=200, deadline=None)
@given(body=chats())
def test_a_chat_request_says_the_same_in_messages(body: dict[str, Any]) -> None:
    there = from_chat(body)
    asked = ChatRequest(json.dumps(body).encode()).request
    assert same(messages.MessagesRequest(json.dumps(there).encode()).request) == same(asked)
    back = {key: value for key, value in to_chat(there).items() if key != "stream_options"}
    assert same(ChatRequest(json.dumps(back).encode()).request) == same(asked)


def test_what_a_request_says() -> None:
    request = read(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "c"}, {"type": "tool_use", "id": "t", "name": "route", "input": {}}]},  # noqa: E501
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}, {"type": "text", "text": "d"}]},  # noqa: E501
            {"role": "user", "content": [{"type": "document", "source": {}}]},
        ],
    )  # fmt: skip
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "a\nb"),
        Message("assistant", "c", False),
        Message("tool", "ok"),
        Message("user", "d"),
        Message("user", "", False),
    )
    assert (request.tools, request.response_format, request.unsupported, request.max_tokens) == ("", "", "", 9)


def test_tools_stand_in_chats_form() -> None:
    chat = {**ASK, "tools": [{"type": "function", "function": {"name": "route", "description": "Route it.", "parameters": TOOL["input_schema"]}}], "tool_choice": "required"}  # fmt: skip  # noqa: E501
    there = read(tools=[{**TOOL, "cache_control": {"type": "ephemeral"}}], tool_choice={"type": "any"})
    assert there.tools == ChatRequest(json.dumps(chat).encode()).request.tools and there.unsupported == ""


@pytest.mark.parametrize(
    ("fields", "unsupported"),
    [
        ({"stop_sequences": ["x"]}, "stop"),
        ({"stop_sequences": []}, ""),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools of the vendor's own"),
        ({"tools": [TOOL], "thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking with tools"),
        ({"tools": [TOOL], "thinking": {"type": "adaptive"}}, ""),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, ""),
        ({"mcp_servers": [{"url": "https://x.test"}]}, "tools of the vendor's own"),
    ],
)
def test_what_no_specialist_can_give(fields: dict[str, Any], unsupported: str) -> None:
    assert read(**fields).unsupported == unsupported


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 1}, "seed"),
        ({"audio": {}}, "audio"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages"),
        ({"messages": [{"role": "user", "name": "Ann", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}, {"role": "user", "content": "x"}]}, "messages"),  # noqa: E501
    ],
)  # fmt: skip
def test_what_chat_cannot_carry_there(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        from_chat({"model": "m", "messages": [{"role": "user", "content": "x"}], **fields})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"top_k": 4}, "top_k"),
        ({"container": "c"}, "container"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools"),
        ({"output_config": {"effort": "max"}}, "output_config"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, "messages"),  # noqa: E501
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]}, "messages"),
    ],
)  # fmt: skip
def test_what_messages_cannot_carry_there(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        to_chat({**ASK, **fields})
    assert caught.value.param == param


def test_what_asks_for_nothing_is_left_out() -> None:
    there = from_chat({"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 1, "user": "u", "stream_options": {}, "logit_bias": None})  # fmt: skip  # noqa: E501
    assert there == {"model": "m", "max_tokens": 8192, "messages": [{"role": "user", "content": "x"}]}
    back = to_chat({**ASK, "metadata": {"user_id": "u"}, "cache_control": {"type": "ephemeral"}, "thinking": {"type": "adaptive"}})  # fmt: skip  # noqa: E501
    assert back == {"model": "m", "max_completion_tokens": 9, "messages": ASK["messages"]}


@pytest.mark.parametrize(
    ("heading", "carried", "left_out", "params"),
    [
        ("from Messages to chat", CARRIED_TO_CHAT, LEFT_OUT_TO_CHAT, MessageCreateParamsBase),
        ("from chat to Messages", CARRIED_FROM_CHAT, LEFT_OUT_FROM_CHAT, CompletionCreateParamsBase),
    ],
)
def test_the_docs_tell_what_becomes_of_every_parameter(
    heading: str, carried: tuple[str, ...], left_out: tuple[str, ...], params: type
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text("utf-8")
    table = page[page.index(f"| {heading} |") :].split("\n\n")[0].split("\n")
    told = {row.split("|")[1].strip(): row for row in table}
    for name in carried:
        assert f"`{name}`" in told["carried"] + told["left out"]
    for name in left_out:
        assert f"`{name}`" in told["left out"]
    for name in params.__annotations__.keys() - {*carried, *left_out}:
        assert f"`{name}`" in told["400"]


# ---------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer",
    [Rendered(content="billing"), Rendered(content=None, calls=(("route", '{"to":1.50}'), ("note", "{}")))],
)
def test_a_specialists_answer_is_the_same_whole_and_streamed(answer: Rendered) -> None:
    asked = messages.MessagesRequest(json.dumps(ASK).encode())
    whole = json.loads(messages.whole(answer, TOLD, asked))
    assert SdkMessage.model_validate(whole, strict=True).model == "suffice/triage@1"
    spelt = assemble(b"".join(messages.events(answer, TOLD, asked)))
    assert spelt == whole
    said: Any = answer.content or {
        "tool_calls": [{"name": "route", "arguments": {"to": 1.5}}, {"name": "note", "arguments": {}}]
    }
    assert dialects.answer_of(whole) == said
    assert b'{"to":1.50}' in messages.whole(answer, TOLD, asked) or answer.content


@pytest.mark.parametrize("stop", ["max_tokens", "refusal", "pause_turn", "model_context_window_exceeded"])
def test_what_is_no_answer(stop: str) -> None:
    with pytest.raises(InputError):
        messages.answer_of({"type": "message", "content": [{"type": "text", "text": "x"}], "stop_reason": stop})


def test_usage_counts_what_the_cache_gave_and_took() -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 7}
    assert messages.usage_of({"usage": usage}) == Usage(prompt=125, completion=7, cached=100, written=20)


def test_errors_are_the_vendors() -> None:
    body = json.loads(messages.error("no", "egress_denied", "invalid_request_error"))
    assert body["type"] == "error" and body["error"]["type"] == "permission_error" and body["error"]["message"] == "no"


@pytest.mark.parametrize("code", ["model_not_allowed", "task_not_allowed", "no_price"])
def test_what_a_key_may_not_is_a_permission_error(code: str) -> None:
    assert json.loads(messages.error("no", code))["error"]["type"] == "permission_error"


def test_a_call_that_the_limit_cut_off_is_left_out() -> None:
    def completion(finish: str, *arguments: str) -> dict[str, Any]:
        calls = [
            {"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": a}}
            for i, a in enumerate(arguments)
        ]
        message = {"role": "assistant", "content": "Let me see", "tool_calls": calls}
        return {"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}

    told = answer_from_chat(completion("length", '{"a": 1}', '{"a": 1'), {})
    assert [block["type"] for block in told["content"]] == ["text", "tool_use"]
    assert told["content"][1]["input"] == {"a": 1} and told["stop_reason"] == "max_tokens"
    for odd_one in (completion("tool_calls", '{"a": 1'), completion("length", '{"a": 1', "{}")):
        with pytest.raises(InputError, match="arguments are no JSON object"):
            answer_from_chat(odd_one, {})


# ---------------------------------------------------------------------------------------------- streams


def test_a_stream_with_thinking_citations_and_a_ping() -> None:
    told: list[Any] = [
        {"type": "message_start", "message": {"id": "m1", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 1}}},  # noqa: E501
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},  # noqa: E501
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},  # noqa: E501
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]  # fmt: skip
    whole = assemble(b"".join(f"event: {t['type']}\ndata: {json.dumps(t)}\n\n".encode() for t in told))
    assert whole is not None and whole["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ]
    assert whole["usage"] == {"input_tokens": 9, "cache_read_input_tokens": 3, "output_tokens": 12}
    assert messages.answer_of(whole) == {"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}


def test_an_error_within_a_stream() -> None:
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    assert assemble(error) == {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    start = b'data: {"type":"message_start","message":{"content":[]}}\n\n'
    text = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"par"}}\n\n'
    broken = assemble(start + text + error)
    with pytest.raises(InputError):
        messages.answer_of(broken)


odd = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4) | st.sampled_from(["text", "tool_use", "tool_result", "user", "assistant", "image"]), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "name", "input", "source", "input_schema", "function", "id", "tool_calls"]), inner, max_size=3), max_leaves=8)  # fmt: skip  # noqa: E501
KEYS = ("messages", "system", "tools", "tool_choice", "output_config", "output_format", "thinking", "stop_sequences", "max_tokens", "model", "stream", "response_format", "stop", "parallel_tool_calls", "usage", "choices", "stop_reason")  # fmt: skip  # noqa: E501


@settings(max_examples=300, deadline=None)
@given(body=st.dictionaries(st.sampled_from(KEYS), odd | st.lists(odd, max_size=2)) | odd)
def test_no_body_is_more_than_a_400(body: Any) -> None:
    for attempt in (
        lambda: messages.MessagesRequest(json.dumps(body).encode()).request,
        lambda: to_chat(body) if isinstance(body, dict) else None,
        lambda: from_chat(body) if isinstance(body, dict) else None,
        lambda: messages.answer_of(body),
        lambda: answer_to_chat(body) if isinstance(body, dict) else None,
        lambda: answer_from_chat(body, {}) if isinstance(body, dict) else None,
        lambda: messages.usage_of(body),
    ):
        with suppress(InputError):
            attempt()
