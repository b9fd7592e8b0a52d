"""Logs of other tools: how each is recognised, what its keys become, and what a bad entry says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from suffice.core.errors import InputError
from suffice.learn import formats, imports
from suffice.learn.formats import Skip
from suffice.learn.imports import Reading
from suffice.store import records
from suffice.store.home import Home
from suffice.wire import chat

ASKED = [{"role": "system", "content": "Sort the mail."}, {"role": "user", "content": "my card is lost"}]
TOOLS = [{"type": "function", "function": {"name": "block", "parameters": {"type": "object"}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "block", "arguments": '{"card": 1}'}}
REPLY = {
    "id": "chatcmpl-7",
    "object": "chat.completion",
    "created": 1_750_000_000,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "card"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
}

STORED = {
    **REPLY,
    "request_id": "req_1",
    "tool_choice": None,
    "tools": None,
    "seed": 7,
    "temperature": 0.0,
    "input_user": "ann",
    "metadata": {"session_id": "s1", "team": "mail"},
    "response_format": {"type": "json_object"},
    "messages": [{"id": f"chatcmpl-7-{i}", "name": None, **message} for i, message in enumerate(ASKED)],
}
EXAMPLE: dict[str, Any] = {"messages": [*ASKED, {"role": "assistant", "content": "card", "weight": 1}], "tools": TOOLS}
PAYLOAD = {
    "id": "chatcmpl-7",
    "trace_id": "tr-1",
    "call_type": "acompletion",
    "status": "success",
    "response_cost": 0.00031,
    "prompt_tokens": 20,
    "completion_tokens": 2,
    "startTime": 1_750_000_000.25,
    "endTime": 1_750_000_001.0,
    "model": "gpt-4o-2024-08-06",
    "model_group": "mail-model",
    "model_parameters": {"temperature": 0, "tools": TOOLS, "extra_headers": {"authorization": "secret"}},
    "metadata": {"user_api_key_hash": "88dc28"},
    "cache_hit": False,
    "end_user": "ann",
    "messages": ASKED,
    "response": REPLY,
}
SPENT = {
    "request_id": "chatcmpl-7",
    "call_type": "acompletion",
    "api_key": "88dc28",
    "spend": "0.00031",
    "prompt_tokens": "20",
    "completion_tokens": "2",
    "startTime": "2025-06-15 15:06:40.25",
    "model": "gpt-4o-2024-08-06",
    "model_group": "mail-model",
    "end_user": "ann",
    "session_id": "s1",
    "status": "success",
    "messages": "{}",
    "response": json.dumps(REPLY),
    "proxy_server_request": json.dumps(json.dumps({"model": "mail", "messages": ASKED, "tools": TOOLS})),
}
OBSERVED = {
    "id": "obs-1",
    "traceId": "trace-1",
    "type": "GENERATION",
    "startTime": "2025-06-15T15:06:40.250Z",
    "model": "gpt-4o",
    "modelParameters": {"temperature": 0, "max_tokens": "inf"},
    "input": {"messages": ASKED, "tools": TOOLS},
    "output": {"role": "assistant", "content": "card"},
    "usageDetails": {"input": 15, "input_cached_tokens": 5, "output": 2, "total": 22},
    "costDetails": {"input": 0.0003, "output": 0.00001, "total": 0.00031},
    "sessionId": "s1",
    "userId": "ann",
    "level": "DEFAULT",
}
EXPORTED = {
    "id": "obs-1",
    "trace_id": "trace-1",
    "type": "GENERATION",
    "start_time": "2025-06-15 15:06:40.250000",
    "provided_model_name": "gpt-4o",
    "model_parameters": '{"temperature":0}',
    "input": json.dumps(ASKED),
    "output": json.dumps({"role": "assistant", "content": None, "tool_calls": [CALL]}),
    "usage_details": '{"input": 20, "output": 2}',
    "cost_details": "{}",
    "total_cost": "0.00031",
    "session_id": "",
    "user_id": "",
}
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "suffice": [{"request": {"messages": ASKED}, "response": REPLY}, {"input": "x", "output": "y", "trace_id": "1"}],
    "records": [
        {
            "id": "rec_1",
            "at": 5.0,
            "source": "live",
            "dialect": "chat",
            "task": "t",
            "route": "frontier",
            "score": 0.5,
            "status": 200,
            "prompt_tokens": 3,
            "cost_usd": 0.5,
            "slices": ["a"],
            "request": {"messages": ASKED},
            "answer": REPLY,
            "predicted": "card",
            "reference": "card",
            "reference_kind": "human",
        },
        {"id": "rec_2", "dialect": "short", "route": "frontier", "request": {"input": "x"}, "answer": "y"},
    ],
    "openai": [
        STORED,
        {key: value for key, value in STORED.items() if key != "messages"},
        {"custom_id": "1", "body": {}},
    ],
    "finetuning": [EXAMPLE],
    "litellm": [PAYLOAD, SPENT, {"standard_logging_object": PAYLOAD, "kwargs": 1}],
    "langfuse": [OBSERVED, EXPORTED],
}


@pytest.mark.parametrize(("name", "entry"), [(name, entry) for name in SAMPLES for entry in SAMPLES[name]])
def test_an_entry_is_known_by_its_keys(name: str, entry: dict[str, Any]) -> None:
    assert formats.format_of(entry) == name
    assert set(SAMPLES) == set(formats.KNOWN)


def test_keys_of_no_format() -> None:
    assert formats.format_of({"text": 1, "label": 2}) is None
    assert formats.format_of({}) is None


def test_an_adapter_leaves_its_entry_as_it_was() -> None:
    for name, entries in SAMPLES.items():
        for entry in entries if name in formats.ADAPTERS else []:
            before = json.dumps(entry)
            with suppress(InputError):
                formats.ADAPTERS[name](entry)
            assert json.dumps(entry) == before


# ---------------------------------------------------------------------------------------------- OpenAI


def test_a_stored_completion() -> None:
    told = formats.openai(STORED)
    assert told["request"] == {
        "model": "gpt-4o-2024-08-06",
        "messages": ASKED,
        "seed": 7,
        "temperature": 0.0,
        "response_format": {"type": "json_object"},
    }
    assert (told["response"], told["at"], told["session"], told["user"]) == (REPLY, 1_750_000_000, "s1", "ann")


def test_messages_as_the_page_of_their_endpoint() -> None:
    page = {"object": "list", "data": STORED["messages"], "has_more": False}
    assert formats.openai({**STORED, "messages": page})["request"]["messages"] == ASKED


def test_a_fine_tuning_example() -> None:
    told = formats.finetuning(EXAMPLE)
    assert told["request"] == {"messages": ASKED, "tools": TOOLS}
    assert chat.answer_of(told["response"]) == "card"
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = formats.finetuning({"messages": [*ASKED, called]})["response"]
    assert chat.answer_of(answer) == {"tool_calls": [{"name": "block", "arguments": {"card": 1}}]}


# ---------------------------------------------------------------------------------------------- LiteLLM


def test_what_litellm_gives_its_callbacks() -> None:
    told = formats.litellm(PAYLOAD)
    assert told["request"] == {"model": "mail-model", "messages": ASKED, "tools": TOOLS, "temperature": 0}
    assert told["response"] == REPLY
    assert (told["at"], told["user"], told["cost_usd"]) == (1_750_000_000.25, "ann", 0.00031)
    assert "secret" not in json.dumps(told) and "88dc28" not in json.dumps(told)
    assert formats.litellm({"standard_logging_object": PAYLOAD}) == told


def test_a_row_of_litellms_spend_logs() -> None:
    told = formats.litellm(SPENT)
    assert told["request"] == {"model": "mail", "messages": ASKED, "tools": TOOLS}
    assert told["response"] == REPLY
    assert (told["at"], told["session"], told["cost_usd"]) == (1_750_000_000.25, "s1", 0.00031)


def test_tokens_beside_a_response_that_tells_none() -> None:
    bare = {key: value for key, value in REPLY.items() if key not in ("usage", "id")}
    response = formats.litellm({**SPENT, "response": bare})["response"]
    assert response["usage"] == {"prompt_tokens": 20, "completion_tokens": 2} and response["id"] == "chatcmpl-7"


def test_litellms_free_call_was_a_cache_or_has_no_price() -> None:
    assert formats.litellm({**SPENT, "spend": 0.0, "cache_hit": "True"})["cost_usd"] == 0
    assert formats.litellm({**SPENT, "spend": 0.0, "cache_hit": "False"})["cost_usd"] is None


def test_texts_where_messages_and_a_completion_would_be() -> None:
    told = formats.litellm({**PAYLOAD, "messages": "my card is lost", "response": "card"})
    assert told["request"]["messages"] == [{"role": "user", "content": "my card is lost"}]
    assert chat.answer_of(told["response"]) == "card"


# ---------------------------------------------------------------------------------------------- Langfuse


def test_a_generation_of_langfuses_api() -> None:
    told = formats.langfuse(OBSERVED)
    assert told["request"] == {"model": "gpt-4o", "messages": ASKED, "tools": TOOLS, "temperature": 0}
    assert chat.answer_of(told["response"]) == "card" and told["response"]["id"] == "obs-1"
    assert told["response"]["usage"] == {"prompt_tokens": 20, "completion_tokens": 2}
    assert (told["at"], told["session"], told["user"], told["cost_usd"]) == (1_750_000_000.25, "s1", "ann", 0.00031)


def test_a_row_of_langfuses_export() -> None:
    told = formats.langfuse(EXPORTED)
    assert told["request"] == {"model": "gpt-4o", "messages": ASKED, "temperature": 0}
    assert chat.answer_of(told["response"]) == {"tool_calls": [{"name": "block", "arguments": {"card": 1}}]}
    assert (told["at"], told["session"], told["user"], told["cost_usd"]) == (
        1_750_000_000.25,
        "trace-1",
        None,
        0.00031,
    )


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("card", "card"),
        ('{"label": "card"}', '{"label": "card"}'),
        ({"label": "card"}, '{"label":"card"}'),
        (["a", "b"], '["a","b"]'),
        ([{"role": "assistant", "content": "card"}], "card"),
        (REPLY, "card"),
        (json.dumps(REPLY), "card"),
        ({"content": "card"}, '{"content":"card"}'),
        ('"card"', '"card"'),
        (5, "5"),
    ],
    ids=str,
)
def test_the_shapes_of_langfuses_output(output: Any, answer: str) -> None:
    assert chat.answer_of(formats.langfuse({**OBSERVED, "output": output})["response"]) == answer


def test_a_completion_keeps_its_own_id_and_usage() -> None:
    response = formats.langfuse({**OBSERVED, "output": REPLY})["response"]
    assert (response["id"], response["usage"]) == ("chatcmpl-7", REPLY["usage"])


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("my card", "my card"),
        ({"prompt": "my card"}, "my card"),
        ({"city": "Rom"}, '{"city":"Rom"}'),
        ('{"city": "Rom"}', '{"city": "Rom"}'),
    ],
    ids=str,
)
def test_a_text_as_langfuses_input_makes_a_short_line(given: Any, text: str) -> None:
    told = formats.langfuse({**OBSERVED, "input": given})
    assert (told["input"], told["output"]) == (text, "card") and "request" not in told


@pytest.mark.parametrize(
    ("costs", "cost"),
    [
        ({"costDetails": {"total": 0.0}}, 0.0),
        ({"costDetails": {}, "calculatedTotalCost": 0.5}, 0.5),
        ({"costDetails": {}, "calculatedTotalCost": 0.0}, None),
        ({"costDetails": None, "totalCost": "1.5"}, 1.5),
    ],
    ids=str,
)
def test_langfuses_costs(costs: dict[str, Any], cost: float | None) -> None:
    assert formats.langfuse({**OBSERVED, **costs})["cost_usd"] == cost


def test_langfuses_older_usage() -> None:
    for usage in ({"input": 20, "output": 2, "unit": "TOKENS"}, {"promptTokens": 20, "completionTokens": 2}):
        told = formats.langfuse({**OBSERVED, "usageDetails": None, "usage": usage})
        assert told["response"]["usage"] == {"prompt_tokens": 20, "completion_tokens": 2}
    told = formats.langfuse({**OBSERVED, "usageDetails": {}})
    assert "usage" not in told["response"]


# ---------------------------------------------------------------------------------------------- what is bad


LONG = "a" * 700 + "... (litellm_truncated skipped 900 chars. see the docs) ..." + "a" * 1300


@pytest.mark.parametrize(
    ("name", "entry", "named"),
    [
        ("openai", {**STORED, "messages": None}, "`messages` is missing"),
        ("openai", {"custom_id": "1", "response": {"body": REPLY}}, "`custom_id`"),
        ("openai", {**STORED, "created": "soon"}, "`created`"),
        ("finetuning", {"messages": ASKED}, "`messages`"),
        ("finetuning", {"messages": "hello"}, "`messages`"),
        ("finetuning", {"messages": [EXAMPLE["messages"][-1]]}, "`messages`"),
        ("litellm", {**SPENT, "proxy_server_request": "{}"}, "`messages` is empty"),
        ("litellm", {**SPENT, "response": "{}"}, "`response` is empty"),
        ("litellm", {**PAYLOAD, "messages": [{"role": "user", "content": LONG}]}, "`messages` was cut"),
        ("litellm", {**PAYLOAD, "messages": [{"role": "user", "content": "ab... (truncated 12 chars)"}]}, "was cut"),
        ("litellm", {**PAYLOAD, "messages": [{"role": "user", "content": "redacted-by-litellm"}]}, "was redacted"),
        ("litellm", {**PAYLOAD, "response": {"text": "redacted-by-litellm"}}, "`response` was redacted"),
        ("litellm", {**PAYLOAD, "startTime": "soon"}, "`startTime`"),
        ("langfuse", {**OBSERVED, "input": None}, "`input` is empty"),
        ("langfuse", {**OBSERVED, "output": ""}, "`output` is empty"),
        ("langfuse", {**OBSERVED, "startTime": []}, "`startTime`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_entry_names_its_key(name: str, entry: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as caught:
        formats.ADAPTERS[name](entry)
    assert named in str(caught.value) and not isinstance(caught.value, Skip)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("litellm", {**PAYLOAD, "status": "failure"}),
        ("litellm", {**SPENT, "call_type": "aembedding", "response": {"data": []}}),
        ("langfuse", {**OBSERVED, "type": "SPAN"}),
        ("langfuse", {**OBSERVED, "level": "ERROR"}),
    ],
)
def test_what_is_no_answered_call_is_left_out(name: str, entry: dict[str, Any]) -> None:
    with pytest.raises(Skip):
        formats.ADAPTERS[name](entry)


ODD: list[Any] = [
    None,
    "",
    5,
    -1,
    1e300,
    True,
    [],
    {},
    "x",
    "{",
    [1],
    [[]],
    {"a": 1},
    [{"role": 5}],
    {"data": 5},
    "1e999",
]


def _variants(value: Any) -> Iterator[Any]:
    """`value` with each part of it replaced by each odd one, and without each key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: odd} for odd in [*ODD, *_variants(inner)])
    elif isinstance(value, list) and value:
        yield from ([odd, *value[1:]] for odd in [*ODD, *_variants(value[0])])


@pytest.mark.parametrize("name", SAMPLES)
def test_an_odd_entry_is_a_row_or_a_bad_line(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(variant) for entry in SAMPLES[name] for variant in _variants(entry)]
    path = tmp_path / "odd.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    reading = Reading(task="t", now=0.0, cost=lambda model, usage: (usage.prompt + usage.completion) * 1e-6)
    told = list(imports.read(imports.examine(path), reading))
    assert len(told) == len(lines) > 100
    assert all((line.row is None) == bool(line.reason) and "\n" not in line.reason for line in told)
    home = Home(tmp_path / "home")
    records.import_rows(home, [line.row for line in told if line.row], [line.trusted for line in told if line.trusted])
