"""Responses: what is read is what chat would have said; answers and streams as the vendor's SDK reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Message, Request, Usage
from suffice.core.values import Value
from suffice.wire import chat, dialects, responses, sse
from suffice.wire.dialect import CannotCarry, Told, Turning
from suffice.wire.responses_chat import from_chat, to_chat
from suffice.wire.responses_document import OURS, answer_from_chat, answer_to_chat
from suffice.wire.responses_stream import FromChat, ToChat

TOLD = Told(record="rec_1", model="suffice/t@1", created=1_700_000_000, prompt_tokens=7)
ANSWERS = [
    Rendered("refund"),
    Rendered(""),
    Rendered(None),
    Rendered(None, (("light", '{"state":"on"}'), ("stop", "{}"))),
]
SCHEMA = {"type": "object", "properties": {"intent": {"type": "string"}}, "additionalProperties": False}
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
ASKED = responses.ResponsesRequest(
    json.dumps(
        {
            "model": "m",
            "input": "hello",
            "instructions": "Be brief.",
            "tools": [{"type": "function", "name": "light", "parameters": SCHEMA, "strict": None}],
            "text": {"format": {"type": "json_schema", "name": "t", "schema": SCHEMA, "strict": True}},
            "metadata": {"a": "b"},
        }
    ).encode()
)


def asked(**body: Any) -> Request:
    return responses.ResponsesRequest(json.dumps({"model": "m", "input": "hello", **body}).encode()).request


def in_chat(**body: Any) -> Request:
    return chat.request_of({"model": "m", "messages": [{"role": "user", "content": "hello"}], **body})


# ---------------------------------------------------------------------------------------------- requests


def test_instructions_and_text_are_a_system_and_a_user_turn() -> None:
    found = asked(instructions="Be brief.", max_output_tokens=5, temperature=0.1, store=True, unheard_of=1)
    told = (Message("system", "Be brief."), Message("user", "hello"))
    assert found == Request(model="m", messages=told, max_tokens=5)


@pytest.mark.parametrize("strict", [None, False, "absent"])
def test_tools_and_formats_are_those_of_chat(strict: Any) -> None:
    said = {} if strict == "absent" else {"strict": strict}
    function = {"name": "light", "description": "On or off.", "parameters": SCHEMA}
    found = asked(
        tools=[{"type": "function", **function, **said}],
        tool_choice={"type": "function", "name": "light"},
        text={"format": {"type": "json_schema", "name": "t", "schema": SCHEMA, "strict": True}},
    )
    same = in_chat(
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "light"}},
        response_format={"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA, "strict": True}},
    )
    assert found == same and found.tools and found.response_format


def test_calls_and_their_results_are_turns() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "wait", "annotations": []}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
    ]
    told = [("user", "a\nb", True), ("assistant", "wait", False), ("tool", "one", True), ("tool", "two", True)]
    assert asked(input=items).messages == tuple(Message(*turn) for turn in told)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"top_logprobs": 2}, "logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "logprobs"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools"),
        ({"tool_choice": {"type": "file_search"}}, "tools"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"input": [{"type": "web_search_call", "id": "1"}]}, "web_search_call"),
        ({"input": [5]}, "input"),
    ],
)
def test_what_is_not_all_here_is_unsupported(body: dict[str, Any], named: str) -> None:
    assert asked(**body).unsupported == named


def test_an_image_is_not_plain() -> None:
    content = [{"type": "input_text", "text": "what is it?"}, {"type": "input_image", "image_url": "https://x/y.png"}]
    assert asked(input=[{"role": "user", "content": content}]).messages == (Message("user", "what is it?", False),)


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"5", b"\xff", b'{"input":{}}', b'{"input":5}'])
def test_a_body_that_is_none_is_one_sentence(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        responses.ResponsesRequest(body)
    assert "\n" not in str(caught.value)


def test_a_body_that_only_a_lenient_reader_takes_is_left_to_the_upstream() -> None:
    found = responses.ResponsesRequest(b'{"model":"m","input":"hi \\ud83d","stream":true}')
    assert (found.model, found.stream, found.request.unsupported) == ("m", True, "a body that is not strictly JSON")


# ---------------------------------------------------------------------------------------------- any conversation

texts = st.text(max_size=12)
names = st.text("abcxyz_", min_size=1, max_size=6)
schemas = st.dictionaries(names, st.sampled_from([{"type": "string"}, {"type": "integer"}]), max_size=3).map(
    lambda properties: {"type": "object", "properties": properties}
)
parts = st.lists(texts.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=3)
calls = st.lists(
    names.map(lambda name: {"id": f"c{name}", "type": "function", "function": {"name": name, "arguments": "{}"}}),
    min_size=1,
    max_size=2,
)
images = st.just([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}])
told_by_user = st.builds(lambda content: [{"role": "user", "content": content}], texts | parts | images)
told_by_assistant = st.builds(lambda content: [{"role": "assistant", "content": content}], texts | parts)
called = st.builds(
    lambda content, calls: [
        {"role": "assistant", "content": content, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls),
    ],
    st.none() | texts,
    calls,
)
turns = st.lists(st.tuples(told_by_user, told_by_assistant | called), max_size=3).map(
    lambda pairs: [message for pair in pairs for side in pair for message in side]
)
heads = st.lists(
    st.builds(lambda r, t: {"role": r, "content": t}, st.sampled_from(["system", "developer"]), texts), max_size=2
)
tools = st.lists(
    st.builds(
        lambda name, schema, more: {"type": "function", "function": {"name": name, "parameters": schema, **more}},
        names,
        schemas,
        st.sampled_from([{}, {"strict": True}, {"description": "does it"}]),
    ),
    min_size=1,
    max_size=3,
)
bodies = st.builds(
    lambda head, turns, last, more: {"model": "m", "messages": [*head, *turns, *last], **more},
    heads,
    turns,
    told_by_user,
    st.fixed_dictionaries(
        {},
        optional={
            "tools": tools,
            "tool_choice": st.sampled_from(
                ["auto", "none", "required", {"type": "function", "function": {"name": "f"}}]
            ),
            "response_format": schemas.map(
                lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
            )
            | st.just({"type": "json_object"}),
            "max_tokens": st.integers(1, 99),
            "temperature": st.just(0.5),
            "stream": st.booleans(),
        },
    ),
)


@given(bodies)
@settings(max_examples=150, deadline=None)
def test_any_chat_request_reads_the_same_in_this_dialect_and_comes_back(body: dict[str, Any]) -> None:
    there = from_chat(body)
    assert responses.ResponsesRequest(json.dumps(there).encode()).request == chat.request_of(body)
    back = to_chat(there)
    assert chat.request_of(back) == chat.request_of(body)
    assert [message.get("tool_calls") for message in back["messages"]] == [
        message.get("tool_calls") for message in body["messages"]
    ]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "previous_response_id",
    "reasoning",
    "include",
    "stream",
]
ITEM_KEYS = ["type", "role", "content", "call_id", "name", "arguments", "output", "summary", "status"]
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "output_text", "input_image"])
odd_items = st.dictionaries(st.sampled_from(ITEM_KEYS), anything | KINDS | st.lists(anything, max_size=2), max_size=5)


@given(st.dictionaries(st.sampled_from(KEYS), anything | st.lists(odd_items, max_size=3), max_size=5))
@settings(max_examples=200, deadline=None)
def test_any_body_is_read_or_refused_in_one_sentence(body: dict[str, Any]) -> None:
    raw = json.dumps(body).encode()
    try:
        assert isinstance(responses.ResponsesRequest(raw).request, Request)
    except InputError:
        return
    try:
        to_chat(body)
    except InputError as error:
        assert str(error)


@given(
    st.dictionaries(
        st.sampled_from(["object", "status", "output", "usage", "error", "id"]), anything | st.lists(odd_items)
    )
)
@settings(max_examples=150, deadline=None)
def test_any_document_is_an_answer_or_none(document: dict[str, Any]) -> None:
    for read in (responses.answer_of, answer_to_chat):
        try:
            read(document)
        except InputError as error:
            assert str(error)
    responses.DIALECT.usage_of(document)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]}, "input[0].content[0]"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"truncation": "auto"}, "truncation"),
    ],
)
def test_what_chat_has_no_place_for_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(CannotCarry) as caught:
        to_chat({"model": "m", "input": "x", **body})
    assert caught.value.param == param and param in str(caught.value)


@pytest.mark.parametrize("body", [{"n": 2}, {"stop": ["x"]}, {"seed": 5}, {"logprobs": True}, {"functions": [{}]}])
def test_what_responses_has_no_place_for_is_named(body: dict[str, Any]) -> None:
    with pytest.raises(CannotCarry) as caught:
        from_chat({"model": "m", "messages": [{"role": "user", "content": "x"}], **body})
    assert caught.value.param == next(iter(body))


def test_what_only_says_how_it_is_kept_is_left_out() -> None:
    body = {"store": True, "metadata": {"a": "b"}, "include": ["reasoning.encrypted_content"], "background": False}
    assert to_chat({"model": "m", "input": "x", **body}) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
    }
    assert from_chat({"model": "m", "messages": []})["store"] is False


# ---------------------------------------------------------------------------------------------- answers


def said(answer: Rendered) -> Value:
    if answer.calls:
        return {"tool_calls": [{"name": name, "arguments": json.loads(told)} for name, told in answer.calls]}
    return answer.content


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_specialists_answer_is_a_response_to_the_sdk_and_to_us(answer: Rendered) -> None:
    body = responses.whole(answer, TOLD, ASKED)
    found = Response.model_validate_json(body, strict=True)
    assert found.id == f"{OURS}rec_1" and found.model == "suffice/t@1" and found.instructions == "Be brief."
    assert found.usage is not None and found.usage.total_tokens == 7 + answer.tokens and found.metadata == {"a": "b"}
    assert dialects.spoken_in(json.loads(body)) is responses.DIALECT
    if answer.content is not None or answer.calls:
        assert dialects.answer_of(json.loads(body)) == said(answer)
    assert responses.DIALECT.usage_of(json.loads(body)) == Usage(prompt=7, completion=answer.tokens)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_stream_is_events_to_the_sdk_and_spells_the_same_response(answer: Rendered) -> None:
    raw = b"".join(responses.events(answer, TOLD, ASKED))
    found = [EVENT.validate_json(data, strict=True) for data in sse.datas(raw)]
    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert [event.type for event in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1].type == "response.completed"
    whole = responses.DIALECT.assemble(raw)
    told = json.loads(responses.whole(answer, TOLD, ASKED))
    if answer.content != "":  # a stream of nothing has no message
        assert whole == told
    assert dialects.heard(json.dumps(whole).encode()) == dialects.heard(json.dumps(told).encode()) or not answer.content


def test_a_stream_cut_off_is_no_answer_but_tells_what_came() -> None:
    written = responses.events(Rendered("refund"), TOLD, ASKED)
    cut = responses.DIALECT.assemble(b"".join(written[:5]))
    assert cut is not None and cut["output"][0]["content"][0]["text"] == "refund"
    with pytest.raises(InputError, match="in_progress"):
        responses.answer_of(cut)


def test_an_output_that_the_last_event_leaves_out_is_found_in_the_pieces() -> None:
    events = [json.loads(data) for data in sse.datas(b"".join(responses.events(ANSWERS[3], TOLD, ASKED)))]
    events[-1]["response"]["output"] = []
    raw = b"".join(sse.event(json.dumps(event).encode()) for event in events)
    assert responses.answer_of(responses.DIALECT.assemble(raw)) == said(ANSWERS[3])


@pytest.mark.parametrize(
    "more",
    [
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        {"status": "failed", "error": {"message": "no"}},
        {"output": [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}]},
        {"output": [{"type": "web_search_call"}]},
        {"output": [{"type": "function_call", "name": "f", "arguments": "{"}]},
        {"output": []},
    ],
)
def test_no_answer(more: dict[str, Any]) -> None:
    document = {**json.loads(responses.whole(Rendered("x"), TOLD, ASKED)), **more}
    with pytest.raises(InputError):
        responses.answer_of(document)


def test_commentary_is_no_part_of_the_answer() -> None:
    def message(phase: str, text: str) -> dict[str, Any]:
        return {"type": "message", "phase": phase, "content": [{"type": "output_text", "text": text}]}

    output = [message("commentary", "Let me see."), message("final_answer", "refund")]
    assert responses.answer_of({"object": "response", "output": output}) == "refund"


# ---------------------------------------------------------------------------------------------- to and from chat

CHAT = chat.ChatRequest(b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}')
REQUEST = {"model": "m", "input": "hello"}


def turned(turning: Turning, data: bytes, size: int) -> bytes:
    pieces = [piece for i in range(0, len(data), size) for piece in turning.feed(data[i : i + size])]
    return b"".join([*pieces, *turning.end()])


@pytest.mark.parametrize("answer", ANSWERS)
def test_whole_answers_turn_into_chat_and_back(answer: Rendered) -> None:
    document = json.loads(responses.whole(answer, TOLD, ASKED))
    there = answer_to_chat(document)
    ChatCompletion.model_validate(there, strict=True)
    back = answer_from_chat(there, {"model": "m", "input": "x"})
    Response.model_validate(back, strict=True)
    if answer.content is not None or answer.calls:
        assert chat.answer_of(there) == said(answer) == responses.answer_of(back)
    assert chat.usage_of(there) == responses.DIALECT.usage_of(back) == Usage(prompt=7, completion=answer.tokens)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_streams_turn_into_chat_and_back_however_they_are_cut(answer: Rendered, size: int) -> None:
    there = turned(ToChat(REQUEST), b"".join(responses.events(answer, TOLD, ASKED)), size)
    assert there == turned(ToChat(REQUEST), b"".join(responses.events(answer, TOLD, ASKED)), 10_000)
    for data in sse.datas(there):
        if data != b"[DONE]":
            ChatCompletionChunk.model_validate_json(data, strict=True)
    completion = sse.assemble(there)
    back = turned(FromChat(REQUEST), b"".join(chat.stream(answer, TOLD, CHAT)), size)
    for data in sse.datas(back):
        EVENT.validate_json(data, strict=True)
    document = responses.DIALECT.assemble(back)
    if answer.content or answer.calls:
        assert chat.answer_of(completion) == said(answer) == responses.answer_of(document)
    assert chat.usage_of(completion) == Usage(prompt=7, completion=answer.tokens)
    assert responses.DIALECT.usage_of(document) == Usage(prompt=7, completion=answer.tokens)


def test_an_answer_cut_off_stays_cut_off() -> None:
    document = json.loads(responses.whole(Rendered("refu"), TOLD, ASKED))
    document |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    there = answer_to_chat(document)
    assert there["choices"][0]["finish_reason"] == "length"
    back = answer_from_chat(there, {})
    assert (back["status"], back["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


@pytest.mark.parametrize("kind", [ToChat, FromChat])
def test_a_stream_that_breaks_off_does_not_look_whole(kind: type[ToChat] | type[FromChat]) -> None:
    whole = responses.events(ANSWERS[0], TOLD, ASKED) if kind is ToChat else chat.stream(ANSWERS[0], TOLD, CHAT)
    for n in range(2):
        turning = kind(REQUEST)
        turning.feed(b"".join(whole[:n]))
        with pytest.raises(InputError):
            turning.end()


def test_an_error_in_a_stream_is_one_in_the_other() -> None:
    there = turned(ToChat(REQUEST), sse.event(b'{"type":"error","code":"x","message":"overloaded"}'), 9)
    assert json.loads(next(sse.datas(there)))["error"]["message"] == "overloaded"
    back = list(sse.datas(turned(FromChat(REQUEST), sse.event(b'{"error":{"message":"overloaded"}}'), 9)))
    assert json.loads(back[-1])["response"]["error"]["message"] == "overloaded"


odd_events = st.dictionaries(
    st.sampled_from(["type", "response", "item", "output_index", "delta", "error", "choices", "id", "usage"]),
    anything
    | odd_items
    | st.sampled_from(
        ["response.created", "response.output_text.delta", "response.output_item.added", "response.completed", "error",
         "response.output_item.done", "response.function_call_arguments.delta"]
    )
    | st.lists(st.fixed_dictionaries({"delta": st.dictionaries(st.sampled_from(["content", "tool_calls"]), anything)})),
    max_size=5,
)  # fmt: skip


@given(st.lists(odd_events.map(lambda event: json.dumps(event).encode()) | st.binary(max_size=20), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_stream_is_turned_or_refused(events: list[bytes]) -> None:
    raw = b"".join(map(sse.event, events))
    responses.DIALECT.assemble(raw)
    for kind in (ToChat, FromChat):
        try:
            turned(kind(REQUEST), raw, 11)
        except InputError as error:
            assert str(error)


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"data:", b" x", b"\r", b"\n", b"\r\n", b"y"]), max_size=30).map(b"".join),
    st.integers(1, 9),
)
def test_events_are_the_same_however_they_arrive(raw: bytes, size: int) -> None:
    feed = sse.Feed()
    found = [data for i in range(0, len(raw), size) for data in feed.feed(raw[i : i + size])]
    assert [*found, *feed.end()] == list(sse.datas(raw))
