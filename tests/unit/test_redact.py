"""Redaction: what is held back, that it comes back whatever the cut, and that it fails closed."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.config import Privacy
from suffice.core.errors import InputError
from suffice.serve.detectors import Detectors
from suffice.serve.personal import find
from suffice.serve.redact import CannotRedact, Redaction
from suffice.serve.restore import EventStream, Restored, WholeAnswer

FORMS = Detectors(Privacy())
BLOCK = '-----BEGIN RSA PRIVATE KEY-----\nMIIE"x\\y\n-----END RSA PRIVATE KEY-----'
SECRETS = {
    "bob.smith+x@mail.example.co.uk": "EMAIL",
    "4111 1111 1111 1111": "CARD",
    "3782 822463 10005": "CARD",
    "DE89 3704 0044 0532 0130 00": "IBAN",
    "GB29NWBK60161331926819": "IBAN",
    "+49 30 901820": "PHONE",
    "(415) 555-2671": "PHONE",
    "555-123-4567": "PHONE",
    "020 7946 0958": "PHONE",
    "06 12 34 56 78": "PHONE",
    "123-45-6789": "SSN",
    "192.168.10.12": "IP",
    "2001:db8::8a2e:370:7334": "IP",
    "sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx": "KEY",
    "sk-ant-api03-Ab3dE6gH9jKlMn0pQrStUvWx": "KEY",
    "AKIAIOSFODNN7EXAMPLE": "KEY",
    "ghp_Ab3dE6gH9jKlMn0pQrStUvWx12345yZ7c8F9": "KEY",
    "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q": "KEY",
    "xoxb-1234567890-abcdefghij": "KEY",
    "sk_live_Ab3dE6gH9jKlMn0pQr": "KEY",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N": "KEY",
    BLOCK: "KEY",
}


def found(text: str) -> list[tuple[str, str]]:
    return [(one.kind, text[one.start : one.end]) for one in find(text)]


# ---------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(("secret", "kind"), SECRETS.items(), ids=lambda x: str(x)[:14])
def test_each_form_is_found_whole_wherever_it_stands(secret: str, kind: str) -> None:
    for before, after in (("", ""), ("it is ", ", thanks."), ("(", ")"), ("a: ", "\nb"), ('{"x":"', '"}')):
        assert found(before + secret + after) == [(kind, secret)], before


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("tel: 5551234567", "5551234567"),
        ("call me at 07911123456 today", "07911123456"),
        ("Authorization: Bearer Ab3dE6gH9jKlMn0pQrStUvWx", "Ab3dE6gH9jKlMn0pQrStUvWx"),
        ("log: \\nbob@example.com", "bob@example.com"),
        ("see https://example.com/?to=bob%40example.org&a=1", "bob%40example.org"),
        ('```{"to": "bob\\u0040example.org"}', "bob\\u0040example.org"),
        ("bob\uff20example.org", "bob\uff20example.org"),
        ("card 4111 1111 1111 1111 12/27", "4111 1111 1111 1111"),
        ("card 4111 1111 1111 1111 1 2 3", "4111 1111 1111 1111"),
        ("ref AB12 DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"),
    ],
)
def test_what_stands_around_says_where_it_ends(text: str, secret: str) -> None:
    assert [said for _, said in found(text)] == [secret]


@pytest.mark.parametrize(
    "text",
    [
        "order 123-456-7890 and 0012-3456-789",
        "invoice 2024-000123, 1234567890123456",
        "4111 1111 1111 1112",
        "DE89370400440532013001",
        "on 01.02.2024 10:30, 2024-05-12 10:30:22",
        "1,234,567.89 of 200 000 000",
        "version 1.2.3, std::vector, 12:30:45, a::b",
        "550e8400-e29b-41d4-a716-446655440000",
        "user@localhost, @mention, pkg@1.2.3",
        "000-12-3456",
        "the secret of my success is patience",
    ],
)
def test_numbers_of_other_kinds_stay(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "a.", "a@", "x@a.", "1", "1 ", "4444 ", "01 ", "+1", "-----BEGIN PRIVATE KEY-----", "-----BEGIN A "),
        *("password ", "password" + " " * 50, "sk-", "eyJaaaaaaaaaa.", "DE89 ", "::", "a:", "1.", "\\"),
        *("tel 12345678 ", "4111 1111 1111 1111 "),
    ],
)
def test_the_time_is_in_proportion_to_the_text(unit: str) -> None:
    def took(size: int) -> float:
        text = unit * (size // len(unit))
        begun = time.process_time()
        find(text)
        return time.process_time() - begun

    assert took(2**17) < 2.0, "a megabyte of it would take a few seconds at most; a square of it, minutes"


def test_own_expressions_are_looked_for_and_checked() -> None:
    own = Detectors(Privacy(also={"EMPLOYEE": "E[0-9]{6}"}))
    assert [one.kind for one in own.find("é E123456 and bob@example.com")] == ["EMPLOYEE", "EMAIL"]
    for wrong in ("(a", "(a)\\1", "a*", "(?=a)"):
        with pytest.raises(InputError, match=r"also\.X"):
            Detectors(Privacy(also={"X": wrong}))
    with pytest.raises(ValueError, match="capital letters"):
        Privacy(also={"employee": "E"})


def test_a_detector_that_is_not_installed_is_told_at_once() -> None:
    with pytest.raises(InputError, match="presidio"):
        Detectors(Privacy(detector="presidio", model="no_such_model"))


# ---------------------------------------------------------------------------------------------- requests


def redacted(document: Any) -> tuple[Any, Redaction]:
    redaction = Redaction(FORMS)
    return json.loads(redaction.body(json.dumps(document).encode())), redaction


def test_content_is_replaced_and_what_steers_is_not() -> None:
    arguments = json.dumps({"to": "bob@example.com", "card": 4111111111111111, "note": "a\nbob@example.com"})
    body = {
        "model": "gpt-4o",
        "user": "ann@example.com",
        "messages": [
            {"role": "system", "content": "You are ops@example.com"},
            {"role": "user", "content": [{"type": "text", "text": "mail bob@example.com"}]},
            {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "send", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sent to bob@example.com"},
        ],
        "tools": [{"type": "function", "function": {"name": "send", "description": "not to eve@example.com"}}],
    }
    told, redaction = redacted(body)
    assert [m["role"] for m in told["messages"]] == ["system", "user", "assistant", "tool"]
    assert told["user"] == "<EMAIL_1>"
    assert told["tools"][0]["function"] == {"name": "send", "description": "not to <EMAIL_2>"}
    assert told["messages"][0]["content"] == "You are <EMAIL_3>"
    assert told["messages"][1]["content"] == [{"type": "text", "text": "mail <EMAIL_4>"}]
    called = json.loads(told["messages"][2]["tool_calls"][0]["function"]["arguments"])
    assert called == {"to": "<EMAIL_4>", "card": "<CARD_1>", "note": "a\n<EMAIL_4>"}
    assert told["messages"][3]["content"] == "sent to <EMAIL_4>"
    assert redaction.values["EMAIL_4"] == "bob@example.com"


def test_a_longer_conversation_keeps_the_placeholders_of_what_came_before() -> None:
    messages = [{"role": "user", "content": "I am ann@example.com"}]
    first, _ = redacted({"messages": messages, "tools": [{"description": "ops@example.com"}]})
    longer = [*messages, {"role": "user", "content": "and bob@example.com"}]
    then, _ = redacted({"messages": longer, "tools": [{"description": "ops@example.com"}]})
    assert then["messages"][0] == first["messages"][0]
    assert then["tools"] == first["tools"]


def test_a_placeholder_of_the_callers_own_is_none_of_ours() -> None:
    told, redaction = redacted({"messages": [{"role": "user", "content": "<EMAIL_1> is not bob@example.com"}]})
    assert told["messages"][0]["content"] == "<EMAIL_1> is not <EMAIL_2>"
    assert Restored(redaction.values).text("<EMAIL_1> <EMAIL_2>") == "<EMAIL_1> bob@example.com"


CLOSED: dict[str, bytes] = {
    "no JSON": b"hello bob",
    "half": b'{"messages": [',
    "half a surrogate pair": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "UTF-16": '{"messages": []}'.encode("utf-16"),
    "too deep": b"[" * 100_000 + b"]" * 100_000,
} | {
    name: json.dumps(document).encode()
    for name, document in {
        "image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        "image of messages": {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        "image in a tool's result": {
            "messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]
        },
        "image of responses": {
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]
        },
        "image without a type": {"messages": [{"role": "user", "content": [{"image_url": "http://x"}]}]},
        "image in a text": {"messages": [{"role": "user", "content": "![](data:image/png;base64,AAAA)"}]},
        "audio": {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "spoken answer": {"messages": [], "modalities": ["text", "audio"]},
        "file": {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f1"}]}]},
        "document": {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
        "something new": {"messages": [{"role": "user", "content": [{"type": "hologram", "text": "hi"}]}]},
        "tokens": {"input": [1, 2, 3]},
        "lists of tokens": {"input": [[1, 2], [3]]},
        "an earlier response": {"input": "hi", "previous_response_id": "resp_1"},
        "in the background": {"input": "hi", "background": True},
        "in a key": {"messages": [], "metadata": {"bob@example.com": "1"}},
        "in a name": {"messages": [{"role": "user", "name": "bob@example.com", "content": "hi"}]},
        "in a model": {"model": "sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx", "messages": []},
        "in a number": {"messages": [], "tools": [{"x": 4111111111111111}]},
    }.items()
}


@pytest.mark.parametrize("name", CLOSED)
def test_what_cannot_be_looked_into_or_replaced_does_not_leave(name: str) -> None:
    with pytest.raises(CannotRedact) as told:
        Redaction(FORMS).body(CLOSED[name])
    assert "bob@" not in str(told.value) and "411111" not in str(told.value), "the reason does not tell it"


def test_keys_that_stand_twice_leave_once() -> None:
    twice = b'{"messages": [{"role": "user", "content": "bob@example.com"}], "messages": []}'
    assert b"bob" not in Redaction(FORMS).body(twice)


words = st.sampled_from([*SECRETS, "hello", "<EMAIL_1>", "<", "a < b", '{"x": ', '"quoted"', "\\n", "é", " ", "\n"])
texts = st.lists(words, max_size=6).map(", ".join)
values = st.recursive(
    texts | st.integers(-999, 999) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


def redaction_of(document: Any) -> tuple[bytes, Redaction]:
    redaction = Redaction(FORMS)
    return redaction.body(json.dumps(document).encode()), redaction


@given(values | values.map(json.dumps).map(lambda text: {"a": text}) | values.map(json.dumps))
@settings(max_examples=150, deadline=None)
def test_what_is_held_back_comes_back_and_nothing_of_it_leaves(document: Any) -> None:
    left, redaction = redaction_of({"a": document})
    told = json.dumps(json.loads(left), ensure_ascii=False)
    for secret in SECRETS:
        assert secret not in told
    if redaction.values:
        turning = WholeAnswer(redaction.values)
        assert turning.feed(left) == []
        assert _plain(json.loads(b"".join(turning.end()))) == _plain({"a": document})


def _plain(value: Any) -> Any:
    """Texts that are JSON as what they say: how they are escaped may change."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return "JSON", _plain(json.loads(value))
        except ValueError:
            return value
    return value


# ---------------------------------------------------------------------------------------------- streams


def chat_events(pieces: list[str], of_arguments: bool) -> list[bytes]:
    def event(delta: Any, finish: str | None = None) -> bytes:
        return sse({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def delta(piece: str) -> Any:
        return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if of_arguments else {"content": piece}

    return [event({"role": "assistant"}), *(event(delta(p)) for p in pieces), event({}, "stop"), b"data: [DONE]\n\n"]


def messages_events(pieces: list[str], of_arguments: bool) -> list[bytes]:
    def delta(piece: str) -> Any:
        key, kind = ("partial_json", "input_json_delta") if of_arguments else ("text", "text_delta")
        return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, key: piece}}

    stop = {"type": "content_block_stop", "index": 0}
    return [sse(document, document["type"]) for document in [*map(delta, pieces), stop, {"type": "message_stop"}]]


def responses_events(pieces: list[str], of_arguments: bool) -> list[bytes]:
    kind = "response.function_call_arguments" if of_arguments else "response.output_text"
    name = "arguments" if of_arguments else "text"
    deltas = [{"type": f"{kind}.delta", "output_index": 0, "delta": piece} for piece in pieces]
    done = {"type": f"{kind}.done", "output_index": 0, name: "".join(pieces)}
    return [sse(document, str(document["type"])) for document in [*deltas, done]]


def sse(document: Any, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(document).encode() + b"\n\n"


def told(stream: bytes, of_arguments: bool) -> str:
    """The text of a stream's pieces, of any dialect."""
    said = ""
    for line in stream.splitlines():
        if not line.startswith(b"data: {"):
            continue
        document = json.loads(line[6:])
        if isinstance(document.get("delta"), str):
            said += document["delta"]
        elif isinstance(document.get("delta"), dict):
            said += document["delta"].get("partial_json" if of_arguments else "text", "")
        for choice in document.get("choices", []):
            for call in choice["delta"].get("tool_calls", []):
                said += call["function"]["arguments"]
            said += choice["delta"].get("content", "")
    return said


def cut(text: str | bytes, places: list[int]) -> list[Any]:
    edges = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(edges)]


DIALECTS = {"chat": chat_events, "messages": messages_events, "responses": responses_events}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("of_arguments", [False, True], ids=["text", "arguments"])
@given(
    parts=st.lists(words, min_size=1, max_size=6),
    pieces=st.lists(st.integers(0, 10**6), max_size=40),
    cuts=st.lists(st.integers(0, 10**6), max_size=30),
)
@settings(max_examples=40, deadline=None)
def test_a_stream_is_restored_however_it_is_cut(
    dialect: str, of_arguments: bool, parts: list[str], pieces: list[int], cuts: list[int]
) -> None:
    text = json.dumps({"a": ", ".join(parts)}) if of_arguments else "so: " + ", ".join(parts)
    body, redaction = redaction_of({"a": text})
    if not redaction.values:
        return
    left = json.loads(body)["a"]
    events = DIALECTS[dialect](cut(left, pieces), of_arguments)
    turning = EventStream(redaction.values)
    out = [piece for data in cut(b"".join(events), cuts) for piece in turning.feed(data)] + turning.end()
    said = told(b"".join(out), of_arguments)
    assert (json.loads(said) if of_arguments else said) == (json.loads(text) if of_arguments else text)
    if dialect == "responses":
        name = "arguments" if of_arguments else "text"
        done = json.loads(b"".join(out).splitlines()[-2][6:])[name]
        assert (json.loads(done) if of_arguments else done) == (json.loads(text) if of_arguments else text)


def test_only_what_may_become_a_placeholder_is_held_back() -> None:
    turning = EventStream({"EMAIL_1": "bob@example.com"})
    steps = [
        ("Hi ", "Hi "),
        ("a < b ", "a < b "),
        ("to <EM", "to "),
        ("AIL_", ""),
        ("1> and <", "bob@example.com and "),
    ]
    for piece, expected in steps:
        event = chat_events([piece], False)[1]
        out = turning.feed(event)
        assert told(b"".join(out), False) == expected
        assert (out == [event]) == (piece == expected), "events that do not change keep their bytes"
    other = sse({"id": "c", "choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]})
    assert turning.feed(other) == [other], "another choice does not wait"
    end = chat_events([], False)[1]
    assert told(b"".join(turning.feed(end)), False) == "<"


def test_what_is_not_known_is_passed_on_as_it_is() -> None:
    odd = b": ping\n\nevent: x\r\ndata: no json <EMAIL\r\n\r\nretry: 5\n\ndata: 17\n\ndata: [DONE]"
    for cuts in ([], list(range(len(odd)))):
        turning = EventStream({"EMAIL_1": "bob@example.com"})
        out = [piece for data in cut(odd, cuts) for piece in turning.feed(data)] + turning.end()
        assert b"".join(out) == odd


odd_values = st.recursive(
    st.sampled_from(
        ["<EMAIL_1>", "<EM", "AIL_1>", "x", 0, 1, None, True, "response.output_text.delta", "message_stop"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "index", "type", "content", "tool_calls", "function", "arguments"])
            | st.sampled_from(["finish_reason", "output_index", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.lists(odd_values.map(sse) | st.binary(max_size=30).map(lambda raw: b"data: " + raw), max_size=5),
    st.lists(st.integers(0, 10**6), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_any_events_come_through_the_same_however_they_are_cut(events: list[bytes], places: list[int]) -> None:
    def out(cuts: list[int]) -> bytes:
        turning = EventStream({"EMAIL_1": "bob@example.com"})
        return b"".join([piece for data in cut(b"".join(events), cuts) for piece in turning.feed(data)] + turning.end())

    assert out(places) == out([])


def test_an_answer_that_cannot_be_read_is_not_passed_on() -> None:
    turning = WholeAnswer({"EMAIL_1": "bob@example.com"})
    turning.feed(b"\x1f\x8b\x08\xff")
    with pytest.raises(InputError, match="UTF-8"):
        turning.end()


def test_brackets_that_a_writer_of_json_has_escaped_are_known() -> None:
    restored = Restored({"EMAIL_1": 'bob"@example.com'})
    assert json.loads(restored.text('{"a": "\\u003cEMAIL_1\\u003e", "b": "<EMAIL_1>"}')) == {
        "a": 'bob"@example.com',
        "b": 'bob"@example.com',
    }
