"""Server-sent events: streams as upstreams really send them, reassembled for the record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.wire import sse


def chunk(delta: Any = None, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }


def spelt(*chunks: Any, end: bytes = sse.DONE) -> dict[str, Any]:
    found = sse.assemble(b"".join(sse.event(json.dumps(item).encode()) for item in chunks) + end)
    assert found is not None
    return found


def message(found: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {**found["choices"][index]["message"]}


def call(index: int, arguments: str = "", **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]}


def test_text_is_joined_and_the_last_usage_kept() -> None:
    found = spelt(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "re"}, usage=None),
        chunk({"content": "fund"}),
        chunk({}, "stop"),
        {"id": "c", "choices": [], "usage": {"prompt_tokens": 1}},
    )
    assert message(found) == {"role": "assistant", "content": "refund"}
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["usage"] == {"prompt_tokens": 1}
    assert found["object"] == "chat.completion"


def test_calls_whose_pieces_are_interleaved() -> None:
    found = spelt(
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}]}),
        chunk(call(1, '{"y"')),
        chunk(call(0, '{"x"')),
        chunk({"tool_calls": [*call(1, ":2}")["tool_calls"], *call(0, ":1}")["tool_calls"]]}),
        chunk({}, "tool_calls"),
    )
    calls = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message(found)["tool_calls"]]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]


def test_whole_calls_without_an_index_stay_apart() -> None:
    whole = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in "ab"]
    found = spelt(chunk({"tool_calls": [whole[0]]}), chunk({"tool_calls": [whole[1]]}))
    assert [c["function"]["name"] for c in message(found)["tool_calls"]] == ["a", "b"]


def test_several_choices_and_unknown_fields() -> None:
    found = spelt(
        chunk({"content": "a"}, index=1),
        chunk({"content": "b", "reasoning_content": "h"}),
        chunk({"reasoning_content": "m"}),
        {"choices": [], "system_fingerprint": "fp"},
    )
    assert [message(found, i)["content"] for i in (0, 1)] == ["b", "a"]
    assert message(found)["reasoning_content"] == "hm"
    assert found["system_fingerprint"] == "fp"


@pytest.mark.parametrize("newline", [b"\r\n", b"\r", b"\n"])
def test_every_kind_of_line_end(newline: bytes) -> None:
    raw = b"".join(sse.event(json.dumps(chunk({"content": c}), ensure_ascii=False).encode()) for c in "é日🙂")
    found = sse.assemble((b": keep-alive\n\nevent: x\nid: 1\nretry: 5\n" + raw).replace(b"\n", newline))
    assert found is not None
    assert message(found)["content"] == "é日🙂"


def test_data_over_several_lines_and_without_a_space() -> None:
    found = sse.assemble(b'data:{"choices":[{"index":0,\ndata: "delta":{"content":"a"}}]}\n\n')
    assert found is not None
    assert message(found)["content"] == "a"


def test_a_stream_that_broke_off_has_no_finish_reason() -> None:
    raw = sse.event(json.dumps(chunk({"content": "re"})).encode()) + b'data: {"choices":[{"ind'
    found = sse.assemble(raw)
    assert found is not None
    assert (message(found)["content"], found["choices"][0]["finish_reason"]) == ("re", None)


@pytest.mark.parametrize(
    "raw", [b"", b"\n\n", b": x\n\n", b"data: [DONE]\n\n", b"data: {\n\n", b"data: 5\n\n", b"data\n\n"]
)
def test_no_chunk_is_nothing(raw: bytes) -> None:
    assert sse.assemble(raw) is None


def test_an_error_in_the_stream_is_the_answer() -> None:
    assert sse.assemble(sse.event(b'{"error": {"message": "no"}}')) == {"error": {"message": "no"}}


def test_what_comes_after_done_is_passed_over() -> None:
    assert message(spelt(chunk({"content": "a"}), end=sse.DONE + sse.event(b'{"choices": []}')))["content"] == "a"


@given(st.binary(max_size=200))
def test_odd_bytes_never_raise(raw: bytes) -> None:
    sse.assemble(raw)
    sse.assemble(b"data: " + raw + b"\n\n")


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [{"index": 0, "function": {"name": 5}}]}],
        [{"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]}],
        [{"tool_calls": "x"}, {"tool_calls": [{"index": 0}]}],
    ],
    ids=["a name that is no text", "arguments as an object", "calls that are no list"],
)
def test_odd_deltas_never_raise(deltas: list[Any]) -> None:
    spelt(*map(chunk, deltas))


def test_brackets_without_end_never_raise() -> None:
    sse.assemble(sse.event(b"[" * 5000))
