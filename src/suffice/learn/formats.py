"""Logs that people have, as lines of ours: one small pure function for each format.

An adapter takes an entry as another tool wrote it and returns the full or the short form (`learn.imports`), with what
the log tells beside it: `cost_usd`, and `user`, the person for whom the call was made. It raises InputError, naming the
key, where the exchange is not whole, and Skip for what is no answered call of a chat model. What a log holds beyond the
request, the answer and these is left behind: headers and keys never come along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.wire import chat

Entry = dict[str, Any]

KNOWN = {
    "suffice": "`request` and `response`, or `input` and `output`",
    "records": "what `suffice records --json` prints",
    "openai": "stored chat completions with their `messages`",
    "finetuning": "`messages` that end with the assistant's",
    "litellm": "`messages`, `response` and `response_cost` or `spend`",
    "langfuse": "`traceId`, `input` and `output`",
}
"""The formats, and what their entries are known by."""

_OPTIONS = (
    *("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls", "response_format"),
    *("temperature", "top_p", "n", "stop", "seed", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"),
    *("presence_penalty", "frequency_penalty", "logit_bias", "reasoning_effort", "modalities", "audio"),
)
_CUT = re.compile(rb"\.\.\. \((?:litellm_)?truncated (?:skipped )?\d+ chars")
_REDACTED = b'"redacted-by-litellm"'
_MILLISECONDS = 1e11
"""A time above this is in milliseconds since 1970 (seconds would be the year 5138)."""


class Skip(InputError):
    """An entry that is whole but no answered call of a chat model (a span, an embedding): left out, and not bad."""


def format_of(keys: Iterable[str]) -> str | None:
    """The format that an entry with these keys, or a table with these columns, is in; None: none that is known."""
    has = set(keys)
    if {"dialect", "route"} <= has:
        return "records"
    if "request" in has:
        return "suffice"
    if "standard_logging_object" in has or (
        has & {"response_cost", "spend", "proxy_server_request"} and has & {"messages", "response", "request_id"}
    ):
        return "litellm"
    if has & {"traceId", "trace_id"} and has & {"type", "startTime", "start_time"} and has & {"input", "output"}:
        return "langfuse"
    if "input" in has:
        return "suffice"
    if "choices" in has or ("custom_id" in has and has & {"body", "response"}):
        return "openai"
    return "finetuning" if "messages" in has else None


def openai(entry: Entry) -> Entry:
    """A chat completion that was stored with `store: true`.

    Source: OpenAI's API reference, "List Chat Completions" (developers.openai.com/api/reference): a completion with
    `request_id`, `input_user`, `metadata` and the sampling settings of its request. The list leaves the messages out;
    they are an endpoint of their own, and are expected here under `messages`, as its page or as a list.
    """
    if "custom_id" in entry:
        raise InputError(
            "a batch file holds either the requests or the answers: join the two on `custom_id` into lines of "
            "`request` and `response`"
        )
    messages = entry.get("messages")
    found = _messages(messages.get("data") if isinstance(messages, dict) else messages)
    if found is None:
        raise InputError(
            "`messages` is missing: stored completions are listed without them, "
            "GET /v1/chat/completions/ID/messages gives them"
        )
    asked = [{key: value for key, value in m.items() if key != "id" and value is not None} for m in found]
    kept = ("id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint")
    return {
        "request": _request(entry.get("model"), asked, entry),
        "response": {key: entry[key] for key in kept if key in entry},
        "at": _at(entry, "created"),
        "session": _text(_object(entry.get("metadata")).get("session_id")),
        "user": _text(entry.get("input_user")),
    }


def finetuning(entry: Entry) -> Entry:
    """An example for fine-tuning a chat model; the last message, the assistant's, is the answer.

    Source: OpenAI's guide "Supervised fine-tuning" (`messages`, `tools`, `parallel_tool_calls`). No model is named.
    """
    found = _messages(entry.get("messages"))
    if found is None:
        raise InputError("`messages` is not a list of messages")
    if len(found) < 2 or found[-1].get("role") != "assistant":
        raise InputError("`messages` does not end with an answer of the assistant's to something asked before it")
    answer = {key: value for key, value in found[-1].items() if key != "weight"}
    return {"request": _request(None, found[:-1], entry), "response": _completion(answer)}


def litellm(entry: Entry) -> Entry:
    """A call through LiteLLM: what its logging callbacks are given, or a row of its table of spend logs.

    Source: docs.litellm.ai/docs/proxy/logging_spec (StandardLoggingPayload: `messages`, `response`, `model_parameters`,
    `response_cost`, `startTime` in seconds) and `LiteLLM_SpendLogs` in its schema.prisma (`request_id`, `spend`,
    `proxy_server_request`, JSON perhaps as text). Prompts are stored only where `store_prompts_in_spend_logs` is set,
    and then mostly in `proxy_server_request` (BerriAI/litellm#34747); long texts are cut in the middle and marked.
    """
    inner = entry.get("standard_logging_object")
    entry = inner if isinstance(inner, dict) else entry
    if entry.get("status") == "failure":
        raise Skip("the call failed (`status` is failure)")
    response = _unpacked(entry.get("response"))
    answered = isinstance(response, dict) and isinstance(response.get("choices"), list)
    kind = entry.get("call_type") or "completion"
    if not answered and kind not in ("completion", "acompletion"):
        raise Skip(f"`call_type` is {kind}, no chat completion")
    body = _unpacked(entry.get("proxy_server_request"))
    if isinstance(body, dict) and "messages" not in body:
        body = _unpacked(body.get("body"))
    body = body if isinstance(body, dict) else {}
    asked = body.get("messages") or entry.get("messages")
    messages = _messages(_unpacked(asked))
    if messages is None and isinstance(asked, str) and asked.strip() not in ("", "{}", "[]"):
        messages = [{"role": "user", "content": asked}]
    if messages is None:
        raise InputError("`messages` is empty: LiteLLM keeps them only with `store_prompts_in_spend_logs`")
    _intact("messages", messages)
    _intact("response", response)
    if isinstance(response, str) and response.strip():
        response = _completion({"role": "assistant", "content": response})
    elif not isinstance(response, dict) or not answered:
        raise InputError("`response` is empty, or no chat completion")
    usage = response.get("usage") or _usage(entry.get("prompt_tokens"), entry.get("completion_tokens"))
    parameters = _unpacked(entry.get("model_parameters"))
    cost = _number(_first(entry, "response_cost", "spend"))
    cached = str(entry.get("cache_hit")).lower() == "true"
    return {
        "request": _request(
            _first(body, "model") or _first(entry, "model_group", "model"), messages, {**_object(parameters), **body}
        ),
        "response": {"id": _first(entry, "request_id", "id"), **response, **({"usage": usage} if usage else {})},
        "at": _at(entry, "startTime"),
        "session": _text(_first(entry, "session_id", "trace_id")),
        "user": _text(entry.get("end_user")),
        # Nothing is also what LiteLLM writes for a model whose price it does not know.
        "cost_usd": cost if cost or cached else None,
    }


def langfuse(entry: Entry) -> Entry:
    """A generation that Langfuse observed, from its API, its tables' export or its export to blob storage.

    Source: langfuse.com/docs/api-and-data-platform (Observation: `traceId`, `usageDetails`, `costDetails`) and its
    "Blob storage export field reference" (the same in snake_case, `input` and `output` as text that may be JSON, times
    in UTC without a zone). `input` is `{"messages", "tools"}`, a list of messages, or text, which makes a line of the
    short form; `output` is a message, a completion, text or JSON. A trace stands for a session where none is named.
    """
    kind = entry.get("type")
    if kind is not None and str(kind).upper() != "GENERATION":
        raise Skip(f"`type` is {kind}, not GENERATION")
    if str(entry.get("level")).upper() == "ERROR":
        raise Skip("the call failed (`level` is ERROR)")
    asked, said = _unpacked(entry.get("input")), _unpacked(entry.get("output"))
    for key, value in (("input", asked), ("output", said)):
        if value in (None, "", [], {}):
            raise InputError(f"`{key}` is empty")
    common = {
        "at": _at(entry, "startTime", "start_time"),
        "session": _text(_first(entry, "sessionId", "session_id", "traceId", "trace_id")),
        "user": _text(_first(entry, "userId", "user_id")),
        "cost_usd": _langfuse_cost(entry),
    }
    options = asked if isinstance(asked, dict) else {}
    messages = _messages(options.get("messages") if options else asked)
    response = _langfuse_answer(said, entry["output"])
    if messages is None:
        prompt = options.get("prompt")
        text = prompt if isinstance(prompt, str) else _written(asked, entry["input"])
        return {**common, "input": text, "output": chat.answer_of(response)}
    parameters = _object(_unpacked(_first(entry, "modelParameters", "model_parameters")))
    # Langfuse writes settings as text too, which a vendor would refuse; those are no part of what was asked.
    options = {**{key: value for key, value in parameters.items() if not isinstance(value, str)}, **options}
    usage = response.get("usage") or _langfuse_usage(entry)
    model = _first(entry, "model", "provided_model_name", "providedModelName")
    return {
        **common,
        "request": _request(model, messages, options),
        "response": {"id": _text(entry.get("id")), **response, **({"usage": usage} if usage else {})},
    }


ADAPTERS: Mapping[str, Callable[[Entry], Entry]] = {
    "openai": openai,
    "finetuning": finetuning,
    "litellm": litellm,
    "langfuse": langfuse,
}
"""By format. `suffice` needs none, and `records` become rows as they are."""


# ---------------------------------------------------------------------------------------------- Langfuse's answers


def _langfuse_answer(said: Any, written: Any) -> Entry:
    """The completion that an `output` is: given as one, as a message (perhaps in a list), or as what was said."""
    if isinstance(said, list) and len(said) == 1 and _is_answer(said[0]):
        said = said[0]
    if isinstance(said, dict) and isinstance(said.get("choices"), list):
        return said
    if _is_answer(said):
        return _completion({"role": "assistant", **said})
    return _completion({"role": "assistant", "content": _written(said, written)})


def _is_answer(said: Any) -> bool:
    return isinstance(said, dict) and (
        (said.get("role") == "assistant" and "content" in said) or isinstance(said.get("tool_calls"), list)
    )


def _langfuse_usage(entry: Entry) -> Entry | None:
    """Kinds of tokens add up: what was read from a cache is counted as `input_cached_tokens`, not within `input`."""
    details = _object(_unpacked(_first(entry, "usageDetails", "usage_details", "usage")))
    sums = [
        sum(int(count) for key, value in details.items() if key.startswith(kind) and (count := _number(value)))
        for kind in ("input", "output")
    ]
    if any(sums):
        return _usage(*sums)
    return _usage(
        _first(details, "promptTokens") or _first(entry, "promptTokens", "inputTokens"),
        _first(details, "completionTokens") or _first(entry, "completionTokens", "outputTokens"),
    )


def _langfuse_cost(entry: Entry) -> float | None:
    details = _object(_unpacked(_first(entry, "costDetails", "cost_details")))
    told = _number(_first(details, "total")), _number(_first(entry, "totalCost", "total_cost", "calculatedTotalCost"))
    # Nothing without details is also what stands there for a model without a price.
    return told[0] or told[1] or (sum(_number(value) or 0.0 for value in details.values()) if details else None)


# ---------------------------------------------------------------------------------------------- what they share


def _request(model: Any, messages: list[Entry], options: Mapping[str, Any]) -> Entry:
    named = {"model": model} if isinstance(model, str) else {}
    return {
        **named,
        "messages": messages,
        **{key: options[key] for key in _OPTIONS if options.get(key) is not None},
    }


def _completion(message: Entry) -> Entry:
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    return {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def _usage(prompt: Any, completion: Any) -> Entry | None:
    """Tokens as a completion tells them; None where both are missing or nothing."""
    counts = [_number(value) for value in (prompt, completion)]
    if not any(counts):
        return None
    return {"prompt_tokens": int(counts[0] or 0), "completion_tokens": int(counts[1] or 0)}


def _messages(value: Any) -> list[Entry] | None:
    """A list of messages, None for anything else; a batch of one conversation is that conversation."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    return value if all(isinstance(item, dict) and isinstance(item.get("role"), str) for item in value) else None


def _intact(key: str, value: Any) -> None:
    """Raises InputError where LiteLLM has cut a text or hidden it: that is not what was asked, nor what was said."""
    text = msgspec.json.encode(value)
    if _CUT.search(text):
        raise InputError(f"`{key}` was cut by LiteLLM (`MAX_STRING_LENGTH_PROMPT_IN_DB` is how much it keeps)")
    if _REDACTED in text:
        raise InputError(f"`{key}` was redacted by LiteLLM (`turn_off_message_logging`)")


def _unpacked(value: Any) -> Any:
    """What a text holds that is a JSON object or list, perhaps as a text within a text; anything else as it is."""
    for _ in range(2):
        text = value.lstrip() if isinstance(value, str) else ""
        if text[:1] not in ("{", "[") and text[:3] not in ('"{\\', '"[{', '"{}'):
            return value
        try:
            value = decode(text)
        except InputError:
            return value
    return value


def _written(value: Any, original: Any) -> str:
    """A value as text: as it was written, where it was text."""
    return original if isinstance(original, str) else msgspec.json.encode(value).decode()


def _object(value: Any) -> Entry:
    return value if isinstance(value, dict) else {}


def _first(entry: Mapping[str, Any], *keys: str) -> Any:
    """The first of these that is there and says something."""
    for key in keys:
        value = entry.get(key)
        if value is not None and value != "":
            return value
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    """A number, perhaps written as text; None for anything else and for what is below nothing."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else -1.0
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < float("inf") else None


def _at(entry: Entry, *keys: str) -> float | None:
    """Seconds since 1970, from a number or from ISO 8601, in UTC where no zone is named. Raises InputError."""
    value = _first(entry, *keys)
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        return number / 1000 if number >= _MILLISECONDS else number
    try:
        at = datetime.fromisoformat(value)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"`{keys[0]}` is neither seconds since 1970 nor an ISO 8601 time: {value!r}") from error
