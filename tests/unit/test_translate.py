"""Translation: streams, whole answers, errors and headers of one dialect in another."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.wire import chat, dialects, messages, sse
from suffice.wire.dialect import CannotCarry, Dialect, Told, Turning
from suffice.wire.translate import Translated, headers, translated

CHAT, MESSAGES, RESPONSES = (dialects.DIALECTS[name] for name in ("chat", "messages", "responses"))
TOLD = Told(record="rec_1", model="m-1", created=1, prompt_tokens=12)
TEXT = Rendered(content="höre, hear")
CALLS = Rendered(content=None, calls=(("route", '{"to":"a","n":1}'), ("note", "{}")))
BOTH = Rendered(content="Let me see.", calls=(("route", '{"to":"a"}'),))
ASKED: dict[str, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "messages": {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]},
    "responses": {"model": "m", "input": "x"},
}
PAIRS = [
    (caller, target)
    for caller in (CHAT, MESSAGES, RESPONSES)
    for target in (CHAT, MESSAGES, RESPONSES)
    if caller is not target and MESSAGES in (caller, target)
]


def between(caller: Dialect, target: Dialect, **fields: Any) -> Translated:
    return translated(caller, target, json.dumps({**ASKED[caller.name], **fields}).encode())


def through(turnings: list[Turning], pieces: list[bytes]) -> bytes:
    """All of the answer, as the way out puts turnings one after the other."""
    for turning in turnings:
        pieces = [out for piece in pieces for out in turning.feed(piece)] + turning.end()
    return b"".join(pieces)


def stable(raw: bytes) -> bytes:
    """Without what the clock, or chance, says."""
    kept = []
    for data in sse.datas(raw):
        found = json.loads(data) if data != b"[DONE]" else {}
        for place in (found, found.get("response", {})):
            for name in ("created", "created_at", "completed_at"):
                place.pop(name, None)
        kept.append(json.dumps(found))
    return "\n".join(kept).encode()


@pytest.mark.parametrize(("caller", "target"), PAIRS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("answer", [TEXT, CALLS])
def test_an_answer_means_the_same_whole_and_streamed(caller: Dialect, target: Dialect, answer: Rendered) -> None:
    whole, asked = between(caller, target), between(caller, target, stream=True)
    there = target.read(whole.body)
    turned = json.loads(through(whole.answer(200, False), [target.whole(answer, TOLD, there)]))
    expected = dialects.answer_of(json.loads(target.whole(answer, TOLD, there)))
    assert caller.answer_of(turned) == expected
    streamed = through(asked.answer(200, True), target.events(answer, TOLD, target.read(asked.body)))
    spelt = caller.assemble(streamed)
    assert spelt is not None and caller.answer_of(spelt) == expected
    usage = caller.usage_of(turned)
    assert usage is not None and usage.prompt == 12
    if caller is not CHAT:  # which tells it in a stream only where it is asked to
        assert caller.usage_of(spelt) == usage


def test_text_before_calls_is_kept() -> None:
    turned = through(between(CHAT, MESSAGES, stream=True).answer(200, True), messages.events(BOTH, TOLD, _asked()))
    spelt = chat.DIALECT.assemble(turned)
    assert spelt is not None and spelt["choices"][0]["message"]["content"] == "Let me see."
    assert spelt["choices"][0]["finish_reason"] == "tool_calls"


def _asked() -> Any:
    return messages.MessagesRequest(json.dumps(ASKED["messages"]).encode())


def test_usage_in_a_stream_only_where_it_is_asked_for() -> None:
    events = messages.events(TEXT, TOLD, _asked())
    without = through(between(CHAT, MESSAGES, stream=True).answer(200, True), events)
    asked = between(CHAT, MESSAGES, stream=True, stream_options={"include_usage": True})
    assert b'"usage"' not in without and without.endswith(sse.DONE)
    assert b'"prompt_tokens":12' in through(asked.answer(200, True), events)


def test_an_upstream_of_chat_is_asked_for_its_usage() -> None:
    assert json.loads(between(MESSAGES, CHAT, stream=True).body)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(("caller", "target"), PAIRS, ids=lambda dialect: dialect.name)
def test_a_stream_cut_short_does_not_look_whole(caller: Dialect, target: Dialect) -> None:
    asked = between(caller, target, stream=True)
    events = target.events(TEXT, TOLD, target.read(asked.body))
    with pytest.raises(InputError):
        through(asked.answer(200, True), events[:2])


def test_errors_keep_their_status_and_message() -> None:
    error = b'{"type":"error","error":{"type":"rate_limit_error","message":"Slow down"}}'
    turned = json.loads(through(between(CHAT, MESSAGES).answer(429, False), [error]))
    assert turned["error"]["message"] == "Slow down" and turned["error"]["code"] == "rate_limit_error"
    back = chat.error("No such model", "model_not_found", "invalid_request_error", "model")
    found = json.loads(through(between(MESSAGES, CHAT).answer(404, False), [back]))
    assert found["type"] == "error" and found["error"]["type"] == "not_found_error"
    assert found["error"]["message"] == "No such model"
    page = json.loads(through(between(MESSAGES, CHAT).answer(502, False), [b"<html>Bad gateway</html>"]))
    assert page["error"] | {"type": "api_error", "message": "<html>Bad gateway</html>"} == page["error"]


def test_an_error_within_a_stream_is_one_there() -> None:
    said = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    turned = through(between(CHAT, MESSAGES, stream=True).answer(200, True), [said])
    assert json.loads(next(sse.datas(turned)))["error"]["message"] == "Overloaded"
    back = through(between(MESSAGES, CHAT, stream=True).answer(200, True), [b'data: {"error":{"message":"no"}}\n\n'])
    assert json.loads(next(sse.datas(back))) == {"type": "error", "error": {"type": "api_error", "message": "no"}}


def test_the_callers_key_goes_where_it_is_looked_for() -> None:
    there = headers(CHAT, MESSAGES, [(b"authorization", b"Bearer k"), (b"openai-project", b"p"), (b"accept", b"*/*")])
    assert there == [(b"accept", b"*/*"), (b"anthropic-version", b"2023-06-01"), (b"x-api-key", b"k")]
    back = headers(MESSAGES, CHAT, [(b"x-api-key", b"k"), (b"anthropic-version", b"2023-06-01")])
    assert back == [(b"authorization", b"Bearer k")]


def test_embeddings_have_no_middle() -> None:
    with pytest.raises(CannotCarry):
        translated(dialects.DIALECTS["embeddings"], MESSAGES, b'{"input":"x"}')


def _piece(index: int, **function: str) -> bytes:
    delta = {"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]}
    return sse.event(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode())


def test_calls_whose_pieces_are_mixed_are_told_one_after_the_other() -> None:
    mixed = [
        _piece(0, name="f", arguments=""),
        _piece(1, name="g", arguments='{"b":'),
        _piece(0, arguments='{"a":1'),
        _piece(1, arguments="2}"),
        _piece(0, arguments="}"),
        _piece(2, name="h", arguments=""),
        sse.event(b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}'),
        sse.DONE,
    ]
    told = MESSAGES.assemble(through(between(MESSAGES, CHAT, stream=True).answer(200, True), mixed))
    assert told is not None and told["stop_reason"] == "tool_use"
    assert [(block["name"], block["input"]) for block in told["content"]] == [
        ("f", {"a": 1}),
        ("g", {"b": 2}),
        ("h", {}),
    ]


def test_a_call_is_told_while_it_comes() -> None:
    turning = between(MESSAGES, CHAT, stream=True).answer(200, True)[0]
    turning.feed(_piece(0, name="f", arguments='{"a":1}'))
    told = b"".join(turning.feed(_piece(1, name="g", arguments='{"b":')))
    assert b"content_block_stop" in told and b'"g"' in told and b'{\\"b\\":' in told


def test_a_piece_of_a_call_that_is_whole_is_an_error_and_never_a_wrong_call() -> None:
    mixed = [_piece(0, name="f", arguments="{}"), _piece(1, name="g", arguments="{}"), _piece(0, arguments="}")]
    with pytest.raises(InputError, match="mixed"):
        through(between(MESSAGES, CHAT, stream=True).answer(200, True), mixed)


# ---------------------------------------------------------------------------------------------- whatever comes


@settings(max_examples=60, deadline=None)
@given(data=st.data(), pair=st.sampled_from(PAIRS), answer=st.sampled_from([TEXT, CALLS, BOTH]))
def test_however_the_bytes_are_cut(data: st.DataObject, pair: tuple[Dialect, Dialect], answer: Rendered) -> None:
    caller, target = pair
    asked = between(caller, target, stream=True)
    raw = b"".join(target.events(answer, TOLD, target.read(asked.body)))
    raw = data.draw(st.sampled_from([raw, raw.replace(b"\n", b"\r\n"), raw.replace(b"\n", b"\r")]))
    cuts = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
    pieces = [raw[start:end] for start, end in pairwise(cuts)]
    cut, alone = through(asked.answer(200, True), pieces), through(asked.answer(200, True), [raw])
    if RESPONSES in pair:  # ids of items are drawn
        assert caller.answer_of(caller.assemble(cut)) == caller.answer_of(caller.assemble(alone))
    else:
        assert stable(cut) == stable(alone)


EVENT = st.sampled_from(
    [*messages.events(BOTH, TOLD, _asked()), *chat.stream(BOTH, TOLD, _asked()), b": ping\n\n", b'data: {"type":"ping"}\n\n', b"data: 1\n\n", b"data: {\n\n", b'data: {"choices":[{"delta":{"tool_calls":[{}]}}]}\n\n', b'data: {"type":"content_block_delta","index":0}\n\n', b'data: {"type":"message_start"}\n\n']  # noqa: E501
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(EVENT | st.binary(max_size=12), max_size=12), pair=st.sampled_from(PAIRS))
def test_whatever_comes_is_turned_or_refused(parts: list[bytes], pair: tuple[Dialect, Dialect]) -> None:
    caller, target = pair
    asked = between(caller, target, stream=True)
    with suppress(InputError):
        through(asked.answer(200, True), parts)
    for dialect in pair:
        spelt = dialect.assemble(b"".join(parts))
        with suppress(InputError):
            dialect.answer_of(spelt)
        dialect.usage_of(spelt)
    for status in (200, 500):
        with suppress(InputError):
            through(asked.answer(status, False), parts)
