"""Messages and Chat Completions: answers, usage and stop reasons of one in the words of the other.

Source: the vendors' API references. Thinking and citations have no place in chat and are left out; which stop sequence
was met is not told by chat.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from suffice.core.errors import InputError
from suffice.wire.chat import is_count
from suffice.wire.dialect import CannotCarry
from suffice.wire.messages_chat import Doc, blocks_of, call_from_chat, call_to_chat, list_of

_STOPS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}
_STOPS |= {"model_context_window_exceeded": "length", "refusal": "content_filter"}
_FINISHES = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use"}
_FINISHES |= {"content_filter": "refusal"}
_CACHES = ("cached_tokens", "cache_write_tokens")


def usage_to_chat(usage: Any) -> Doc | None:
    """What was used, as chat tells it: what a cache gave or took is part of the prompt."""
    if not isinstance(usage, dict):
        return None
    fresh, completion = usage.get("input_tokens"), usage.get("output_tokens")
    cached, written = usage.get("cache_read_input_tokens") or 0, usage.get("cache_creation_input_tokens") or 0
    if not (is_count(fresh) and is_count(completion) and is_count(cached) and is_count(written)):
        return None
    prompt = fresh + cached + written
    found: Doc = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if cached or written:
        found["prompt_tokens_details"] = {"cached_tokens": cached, "cache_write_tokens": written}
    return found


def usage_from_chat(usage: Any) -> Doc:
    """The reverse. Where nothing is told there must be numbers all the same: zeros, marked as `unknown`."""
    told = usage if isinstance(usage, dict) else {}
    details = told.get("prompt_tokens_details")
    details = details if isinstance(details, dict) else {}
    counts = [told.get("prompt_tokens"), told.get("completion_tokens"), *map(details.get, _CACHES)]
    prompt, completion, cached, written = (count if is_count(count) else 0 for count in counts)
    if not (is_count(counts[0]) and is_count(counts[1])):
        return {"input_tokens": 0, "output_tokens": 0, "unknown": True}
    return {
        "input_tokens": max(0, prompt - cached - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def finish_of(stop: Any) -> str:
    """Chat's word for why an answer ended."""
    return _STOPS.get(stop, "stop") if isinstance(stop, str) else "stop"


def stop_of(finish: Any) -> str:
    """The reverse."""
    return _FINISHES.get(finish, "end_turn") if isinstance(finish, str) else "end_turn"


def answer_to_chat(message: Doc, clock: Callable[[], float] = time.time) -> Doc:
    """A message as a chat completion; thinking has no place there. Raises InputError for what is no message."""
    blocks = [block for block in list_of(message.get("content"), "content") if isinstance(block, dict)]
    said = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    calls = [call_to_chat(block) for block in blocks if block.get("type") == "tool_use"]
    stop = message.get("stop_reason")
    if stop == "pause_turn":
        raise InputError("the answer is a turn that was paused, which chat completions cannot go on with")
    text = "".join(said) if said or not calls else None
    told: Doc = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        told["tool_calls"] = calls
    found: Doc = {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": int(clock()),
        "model": message.get("model"),
        "choices": [{"index": 0, "message": told, "logprobs": None, "finish_reason": finish_of(stop)}],
    }
    usage = usage_to_chat(message.get("usage"))
    return {**found, "usage": usage} if usage is not None else found


def answer_from_chat(completion: Doc, request: Doc) -> Doc:
    """A chat completion as a message. Raises InputError for what is none, and for arguments that are no JSON."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise InputError("the response has no choices[0].message")
    stop = stop_of(choice.get("finish_reason"))
    content = message.get("content")
    if content is None and message.get("refusal"):
        content, stop = message["refusal"], "refusal"
    blocks = blocks_of(content, "assistant")
    if isinstance(blocks, str):
        blocks = [{"type": "text", "text": blocks}] if blocks else []
    calls = list_of(message.get("tool_calls") or [], "tool_calls")
    blocks += _uses(calls, cut=choice.get("finish_reason") == "length")
    return {
        "id": completion.get("id"),
        "type": "message",
        "role": "assistant",
        "model": completion.get("model"),
        "content": blocks,
        "stop_reason": "tool_use" if calls and stop == "end_turn" else stop,
        "stop_sequence": None,
        "usage": usage_from_chat(completion.get("usage")),
    }


def _uses(calls: list[Any], cut: bool) -> list[Doc]:
    """Calls as blocks. The last one of an answer that met its limit may be cut off, and is left out: half of its
    arguments would be another call. Raises InputError for others whose arguments are no object."""
    found = []
    for i, call in enumerate(calls, 1):
        try:
            found.append(call_from_chat(call))
        except CannotCarry:
            if not (cut and i == len(calls)):
                raise InputError("a call's arguments are no JSON object") from None
    return found
