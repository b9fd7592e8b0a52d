"""Chat Completions: odd bodies, what is asked for, and answers as the vendor's SDK reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Message, Request
from suffice.core.values import Value
from suffice.wire import chat, sse
from suffice.wire.dialect import Told

USER = {"role": "user", "content": "hello"}
TOLD = Told(record="rec_1", model="suffice/t@1", created=1_700_000_000, prompt_tokens=7)
TEXT = Rendered("refund")
CALLS = Rendered(None, (("light", '{"state":"on"}'), ("stop", "{}")))
NONE = Rendered(None)


def asked_by(body: dict[str, Any]) -> chat.ChatRequest:
    return chat.ChatRequest(json.dumps({"model": "m", "messages": [USER], **body}).encode())


STREAMED = asked_by({"stream": True, "stream_options": {"include_usage": True}})


def asked(**body: Any) -> Request:
    return chat.request_of({"model": "m", "messages": [USER], **body})


# ---------------------------------------------------------------------------------------------- bodies


def test_what_is_read_of_a_request() -> None:
    found = asked(max_tokens=9, max_completion_tokens=5, temperature=0.1, user="u", unheard_of={"x": 1})
    assert found == Request(model="m", messages=(Message("user", "hello"),), max_tokens=5)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"5", b"\xff", b"{}", b'{"messages":null}', b'{"messages":{}}', b'{"messages":"x"}'],
)
def test_a_body_without_messages_is_one_sentence(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        chat.ChatRequest(body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"messages":[{"role":"user","content":"\xff"}]}', id="not UTF-8"),
        pytest.param(b'{"messages":5,"messages":[]}', id="messages twice"),
        pytest.param(b'{"messages":[],"tools":[1e400]}', id="a number too large"),
    ],
)
def test_a_body_that_only_a_second_look_finds_bad_is_left_to_the_upstream(body: bytes) -> None:
    assert chat.ChatRequest(body).request.unsupported


@pytest.mark.parametrize("key", ["messages", "x"])
def test_brackets_without_end_are_one_sentence(key: str) -> None:
    with pytest.raises(InputError, match="JSON"):
        _ = chat.ChatRequest(b'{"messages":[],"%s":' % key.encode() + b"[" * 5000 + b"]" * 5000 + b"}").request


def test_half_an_emoji_is_relayed() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi \\ud83d"}]}'
    assert chat.ChatRequest(body).model == "m"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
turns = st.fixed_dictionaries({}, optional=dict.fromkeys(("role", "content", "tool_calls"), anything)) | anything
KEYS = ("model", "n", "stop", "max_tokens", "tools", "tool_choice", "response_format", "modalities", "stream", "audio")
bodies = st.fixed_dictionaries(
    {"messages": st.lists(turns, max_size=3) | anything}, optional=dict.fromkeys(KEYS, anything)
)


@given(bodies)
def test_odd_shapes_are_a_request_or_a_sentence(body: dict[str, Any]) -> None:
    try:
        found = chat.request_of(body)
    except InputError:
        assert not isinstance(body["messages"], list)
    else:
        assert len(found.messages) == len(body["messages"])


@given(st.binary(max_size=40))
def test_odd_bytes_are_a_sentence(body: bytes) -> None:
    with pytest.raises(InputError):
        chat.ChatRequest(body)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("n", 2, "n"),
        ("n", 0, "n"),
        ("logprobs", True, "logprobs"),
        ("top_logprobs", 3, "logprobs"),
        ("stop", "\n", "stop"),
        ("stop", ["a"], "stop"),
        ("modalities", ["text", "audio"], "audio"),
        ("audio", {"voice": "x"}, "audio"),
        ("n", 1, ""),
        ("n", None, ""),
        ("logprobs", False, ""),
        ("stop", None, ""),
        ("stop", [], ""),
        ("modalities", ["text"], ""),
        ("temperature", 2, ""),
        ("seed", 5, ""),
        ("reasoning_effort", "high", ""),
        ("unheard_of", {"n": 2}, ""),
    ],
)
def test_what_no_specialist_can_give(field: str, value: Any, named: str) -> None:
    assert asked(**{field: value}).unsupported == named


def test_tools_are_the_same_whatever_the_order_of_their_keys() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    back = json.loads(json.dumps(tool), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert asked(tools=[tool]).tools == asked(tools=[back]).tools != asked(tools=[]).tools == ""
    assert asked(tools=[tool]).tools == asked(tools=[tool], tool_choice="auto").tools
    assert asked(tools=[tool]).tools != asked(tools=[tool], tool_choice="required").tools


def test_a_plain_response_format_is_none() -> None:
    assert asked(response_format={"type": "text"}).response_format == asked().response_format == ""
    assert asked(response_format={"type": "json_object"}).response_format != ""


def test_content_in_parts() -> None:
    text = {"type": "text", "text": "a"}
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    (plain,) = asked(messages=[{"role": "user", "content": [text, text]}]).messages
    (pictured,) = asked(messages=[{"role": "user", "content": [text, image]}]).messages
    (calling,) = asked(messages=[{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]).messages
    assert plain == Message("user", "a\na", True)
    assert (pictured.plain, calling.plain) == (False, False)


# ---------------------------------------------------------------------------------------------- answers


def answered(message: Any, finish: str = "stop") -> Value:
    return chat.answer_of({"choices": [{"index": 0, "message": message, "finish_reason": finish}]})


def test_answers() -> None:
    function = {"name": "f", "arguments": '{"a": 1}'}
    assert answered({"content": "a"}) == "a"
    assert answered({"content": ""}) == ""
    assert answered({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}) == "ab"
    expected = {"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}
    assert answered({"content": None, "tool_calls": [{"function": function}]}, "tool_calls") == expected
    assert answered({"content": None, "function_call": function}, "function_call") == expected
    assert answered({"content": "a", "tool_calls": []}) == "a"
    assert answered({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}) == {
        "tool_calls": [{"name": "f", "arguments": {}}]
    }


@pytest.mark.parametrize(
    ("message", "finish"),
    [
        ({"content": "a"}, "length"),
        ({"content": "a"}, "content_filter"),
        ({"content": None, "refusal": "I cannot"}, "stop"),
        ({"content": None}, "stop"),
        ({"content": 5}, "stop"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "tool_calls"),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, "tool_calls"),
        ({"tool_calls": [5]}, "tool_calls"),
        ("a", "stop"),
    ],
)
def test_no_answer_is_one_sentence(message: Any, finish: str) -> None:
    with pytest.raises(InputError):
        answered(message, finish)


@pytest.mark.parametrize("completion", [None, 5, [], {}, {"choices": []}, {"choices": 5}, {"choices": [5]}])
def test_no_completion_is_one_sentence(completion: Any) -> None:
    with pytest.raises(InputError):
        chat.answer_of(completion)


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "text", "text": 5}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": "[" * 5000}}]},
    ],
    ids=["a part that is no text", "deep arguments"],
)
def test_an_odd_answer_is_one_sentence(message: Any) -> None:
    with pytest.raises(InputError):
        answered(message)


# ---------------------------------------------------------------------------------------------- written


@pytest.mark.parametrize("answer", [TEXT, CALLS, NONE, Rendered(""), Rendered('日本 \u2028 "x"\n')], ids=repr)
def test_the_sdk_reads_a_whole_answer(answer: Rendered) -> None:
    found = ChatCompletion.model_validate_json(chat.completion(answer, TOLD, STREAMED), strict=True)
    (choice,) = found.choices
    assert choice.message.content == answer.content
    calls = choice.message.tool_calls or []
    assert [(c.function.name, c.function.arguments) for c in calls if c.type == "function"] == list(answer.calls)
    assert choice.finish_reason == ("tool_calls" if answer.calls else "stop")
    assert found.usage is not None
    assert found.usage.total_tokens == 7 + answer.tokens
    assert len({c.id for c in calls}) == len(answer.calls)


@pytest.mark.parametrize("answer", [TEXT, CALLS, NONE, Rendered("")], ids=repr)
@pytest.mark.parametrize("usage", [True, False])
def test_the_sdk_reads_a_stream(answer: Rendered, usage: bool) -> None:
    events = chat.stream(answer, TOLD, STREAMED if usage else asked_by({}))
    assert events[-1] == b"data: [DONE]\n\n"
    chunks = [ChatCompletionChunk.model_validate_json(data) for data in sse.datas(b"".join(events[:-1]))]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == (answer.content or "")
    assert sum(chunk.usage is not None for chunk in chunks) == usage
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert finishes[-1] == ("tool_calls" if answer.calls else "stop")
    assert not any(finishes[:-1])


@pytest.mark.parametrize("answer", [TEXT, CALLS, Rendered("")], ids=repr)
def test_a_stream_spells_the_whole_answer(answer: Rendered) -> None:
    whole = json.loads(chat.completion(answer, TOLD, STREAMED))
    spelt = sse.assemble(b"".join(chat.stream(answer, TOLD, STREAMED)))
    assert spelt is not None
    assert chat.answer_of(spelt) == chat.answer_of(whole)
    assert ChatCompletion.model_validate(spelt).choices[0].finish_reason == whole["choices"][0]["finish_reason"]
    for key in ("id", "object", "created", "model", "usage"):
        assert spelt[key] == whole[key]


def test_an_error_body() -> None:
    assert json.loads(chat.error("no", "bad", param="n"))["error"] == {
        "message": "no",
        "type": "invalid_request_error",
        "param": "n",
        "code": "bad",
    }
