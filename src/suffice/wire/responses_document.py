"""Response objects: built, read, and put into chat completions and back.

Source: the vendor's API reference, "The Response object". Not known here: requests, streams.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from suffice.core.errors import InputError
from suffice.core.types import Usage
from suffice.wire.chat import is_count
from suffice.wire.dialect import CannotCarry

Doc = dict[str, Any]

OURS = "resp_suffice_"
"""How ids of responses begin that no upstream knows: a specialist's, and those put together from another dialect."""
_ECHOED: Doc = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""What a response says of the request, and what it says where that is silent."""


def document(
    request: Doc,
    *,
    id: str,
    created: Any,
    model: Any,
    output: Sequence[Doc],
    usage: Doc | None,
    status: str | None = None,
    cut: str | None = None,
) -> Doc:
    """A response to `request` (in this dialect); `cut` says why it is incomplete. Seconds since 1970."""
    told = {key: value if request.get(key) is None else request[key] for key, value in _ECHOED.items()}
    return {
        "id": id,
        "object": "response",
        "created_at": created if is_count(created) else 0,
        "status": status or ("incomplete" if cut else "completed"),
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "model": model if isinstance(model, str) else "",
        "output": list(output),
        **told,
        "usage": usage,
    }


def text_part(text: str) -> Doc:
    """Text as a part of a message."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def message_item(id: str, n: int, parts: Sequence[Doc], status: str) -> Doc:
    """The n-th item of a response, a message."""
    return {"id": f"msg_{id}_{n}", "type": "message", "status": status, "role": "assistant", "content": list(parts)}


def call_item(id: str, n: int, call: Any, function: Doc, status: str) -> Doc:
    """The n-th item of a response, a function call; `call` is its id, by which its result is told."""
    name, arguments = function.get("name"), function.get("arguments")
    return {
        "id": f"fc_{id}_{n}",
        "type": "function_call",
        "status": status,
        "arguments": arguments if isinstance(arguments, str) else "",
        "call_id": call if isinstance(call, str) else f"call_{id}_{n}",
        "name": name if isinstance(name, str) else "",
    }


def reply(
    id: str, text: str | None, calls: Iterable[tuple[Any, Doc]], *, refusal: str | None = None, status: str
) -> list[Doc]:
    """The items of an answer: text or refusal as a message, and calls as (their ids, name and arguments)."""
    parts = [text_part(text)] if text else []
    if refusal:
        parts.append({"type": "refusal", "refusal": refusal})
    called = list(calls)
    if text is not None and not parts and not called:
        parts.append(text_part(text))
    items = [message_item(id, 0, parts, status)] if parts else []
    return items + [call_item(id, i, call, function, status) for i, (call, function) in enumerate(called, len(items))]


def said_by(output: Iterable[Any]) -> tuple[str | None, str | None]:
    """The text of the messages and their refusal. Commentary is no part of an answer that has more than that."""
    messages = [item for item in output if isinstance(item, dict) and item.get("type") == "message"]
    final = [item for item in messages if item.get("phase") != "commentary"] or messages
    contents = [item.get("content") for item in final]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    texts = [part["text"] for part in parts if part.get("type") == "output_text" and isinstance(part.get("text"), str)]
    refusals = [part["refusal"] for part in parts if isinstance(part.get("refusal"), str)]
    return "".join(texts) if texts else None, "".join(refusals) or None


def usage_in(answer: Any) -> Usage | None:
    """Tokens as told in a response; None where it tells none."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("input_tokens"), usage.get("output_tokens")
    if not (is_count(prompt) and is_count(completion)):
        return None
    details = usage.get("input_tokens_details")
    cached, written = (
        details.get(key) if isinstance(details, dict) else 0 for key in ("cached_tokens", "cache_write_tokens")
    )
    return Usage(
        prompt=prompt,
        completion=completion,
        cached=cached if is_count(cached) else 0,
        written=written if is_count(written) else 0,
    )


# ---------------------------------------------------------------------------------------------- to and from chat

_CUT = {"max_output_tokens": "length", "content_filter": "content_filter"}
_CUT_FROM_CHAT = {finish: reason for reason, finish in _CUT.items()}


def finish_of(answer: Doc, calls: bool) -> str:
    """The finish reason in chat's words. Raises InputError for an answer that is none, or not whole yet."""
    status = answer.get("status", "completed")
    if status == "incomplete":
        details = answer.get("incomplete_details")
        return _CUT.get(str(details.get("reason")) if isinstance(details, dict) else "", "length")
    if status != "completed":
        error = answer.get("error")
        why = f": {error.get('message')}" if isinstance(error, dict) else ""
        raise InputError(f"the response is {status}{why}")
    return "tool_calls" if calls else "stop"


def usage_to_chat(answer: Doc) -> Doc | None:
    """Tokens as chat tells them."""
    usage = usage_in(answer)
    if usage is None:
        return None
    details = answer["usage"].get("output_tokens_details")
    thought = details.get("reasoning_tokens", 0) if isinstance(details, dict) else 0
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def call_to_chat(item: Doc) -> Doc:
    """A function call as chat writes it."""
    function = {"name": item.get("name") or "", "arguments": item.get("arguments") or ""}
    return {"id": item.get("call_id"), "type": "function", "function": function}


def answer_to_chat(answer: Doc) -> Doc:
    """A whole response as a chat completion. An error stays what it is. Raises CannotCarry or InputError."""
    output = answer.get("output")
    if not isinstance(output, list):
        if isinstance(answer.get("error"), dict):
            return answer
        raise InputError("the response has no output")
    for i, item in enumerate(output):
        if not isinstance(item, dict) or item.get("type") not in ("message", "function_call", "reasoning"):
            raise CannotCarry(f"`output[{i}]` of the answer has no place in Chat Completions", f"output[{i}]")
    text, refusal = said_by(output)
    calls = [call_to_chat(item) for item in output if item["type"] == "function_call"]
    message: Doc = {"role": "assistant", "content": text, "refusal": refusal}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_of(answer, bool(calls))}
    found: Doc = {
        "id": f"chatcmpl-{answer.get('id')}",
        "object": "chat.completion",
        "created": int(answer.get("created_at") or 0),
        "model": answer.get("model"),
        "choices": [choice],
    }
    usage = usage_to_chat(answer)
    return {**found, "usage": usage} if usage is not None else found


def usage_from_chat(usage: Any) -> Doc | None:
    """Tokens as Responses tells them."""
    if not isinstance(usage, dict):
        return None

    def count(holder: Any, key: str) -> int:
        found = holder.get(key) if isinstance(holder, dict) else 0
        return found if isinstance(found, int) else 0

    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    cached = count(usage.get("prompt_tokens_details"), "cached_tokens")
    written = count(usage.get("prompt_tokens_details"), "cache_write_tokens")
    thought = count(usage.get("completion_tokens_details"), "reasoning_tokens")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }


def cut_of(finish: Any) -> str | None:
    """Why an answer is incomplete, in the words of Responses; None for a whole one."""
    return _CUT_FROM_CHAT.get(finish) if isinstance(finish, str) else None


def answer_from_chat(completion: Doc, request: Doc) -> Doc:
    """A chat completion as the response to `request`. An error stays what it is. Raises InputError."""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        if isinstance(completion.get("error"), dict):
            return completion
        raise InputError("the completion has no choices[0].message")
    id = f"{OURS}{completion.get('id')}"
    cut = cut_of(choice.get("finish_reason"))
    calls = [call for call in message.get("tool_calls") or [] if isinstance(call, dict)]
    output = reply(
        id,
        message.get("content"),
        [(call.get("id"), call.get("function") or {}) for call in calls],
        refusal=message.get("refusal"),
        status="incomplete" if cut else "completed",
    )
    return document(
        request,
        id=id,
        created=completion.get("created"),
        model=completion.get("model"),
        output=output,
        usage=usage_from_chat(completion.get("usage")),
        cut=cut,
    )
