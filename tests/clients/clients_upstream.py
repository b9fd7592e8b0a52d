"""An upstream that speaks one dialect, as its vendor writes it: text in pieces, a tool's call, JSON by a schema.

Written by hand from the vendors' references and not with what the gateway writes, so that its clients are an oracle of
both. What is asked decides what is answered: with a tool's result the text that tells it, with tools a call of the
first, with a schema a value of it, otherwise `HELLO`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from e2e_support import EVENTS_TYPE, Reply, Seen

Doc = dict[str, Any]

HELLO = ["Hello ", "from ", "afar: ", "æøå ☃"]
VALUES: Doc = {"city": "Oslo", "degrees": 7}
CALL = "get_weather"
RESULT = "7 degrees"
FINAL = ["It is ", RESULT, " in Oslo."]
PROMPT_TOKENS, COMPLETION_TOKENS = 100, 10


@dataclass(frozen=True)
class Said:
    """What is to be answered: pieces of a text, or a call of the tool with these arguments."""

    pieces: list[str]
    tool: str | None = None
    arguments: str = ""

    @property
    def text(self) -> str:
        """In one."""
        return "".join(self.pieces)


def said(tools: Iterable[tuple[str, Doc]], schema: Doc | None, results: bool) -> Said:
    """What is answered to a request with these tools (name, schema), this format, and a tool's result or none."""
    offered = dict(tools)
    if offered and not results:
        name = CALL if CALL in offered else next(iter(offered))
        return Said([], name, json.dumps(filled(offered[name])))
    if results:
        # What a client has as its answer's own tool is called at the end.
        own = next((name for name in offered if name != CALL), None)
        return Said([], own, json.dumps(filled(offered[own]))) if own else Said(FINAL)
    if schema is not None:
        text = json.dumps(filled(schema))
        return Said([text[:5], text[5:12], text[12:]])
    return Said(HELLO)


def filled(schema: Doc) -> Doc:
    """A value of a flat schema."""
    return {name: value for name, value in VALUES.items() if name in schema.get("properties", {})}


def events(documents: Iterable[Doc], named: bool) -> Reply:
    """A stream of them, with or without their names."""
    parts = []
    for document in documents:
        name = f"event: {document['type']}\n" if named else ""
        parts.append(f"{name}data: {json.dumps(document, ensure_ascii=False)}\n\n".encode())
    return Reply(headers=EVENTS_TYPE, parts=parts)


def whole(document: Doc) -> Reply:
    """One document."""
    return Reply(parts=[json.dumps(document).encode()], length=True)


# ---------------------------------------------------------------------------------------------- chat


def chat(seen: Seen) -> Reply:
    """Chat Completions."""
    asked = seen.json
    tools = [(tool["function"]["name"], tool["function"].get("parameters", {})) for tool in asked.get("tools", [])]
    form = asked.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema")
    answer = said(tools, schema, any(message["role"] == "tool" for message in asked["messages"]))
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }
    head = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": asked["model"]}
    finish = "tool_calls" if answer.tool else "stop"
    calls = [{"id": "call_1", "type": "function", "function": {"name": answer.tool, "arguments": answer.arguments}}]
    if not asked.get("stream"):
        message: Doc = {"role": "assistant", "content": answer.text or None, "refusal": None}
        if answer.tool:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        return whole({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    if answer.tool:
        function = {"name": answer.tool, "arguments": ""}
        deltas: list[Doc] = [{"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}]
        for part in (answer.arguments[:4], answer.arguments[4:]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    else:
        deltas = [{"content": piece} for piece in answer.pieces]
    deltas[0] = {"role": "assistant", "content": None if answer.tool else "", **deltas[0]}
    choices: list[list[Doc]] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": finish}])
    told: list[Doc] = [{**head, "object": "chat.completion.chunk", "choices": choice} for choice in choices]
    if (asked.get("stream_options") or {}).get("include_usage"):
        told.append({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage})
    reply = events(told, named=False)
    return Reply(headers=reply.headers, parts=[*reply.parts, b"data: [DONE]\n\n"])


# ---------------------------------------------------------------------------------------------- messages


def messages(seen: Seen) -> Reply:
    """Anthropic Messages."""
    asked = seen.json
    tools = [(tool["name"], tool["input_schema"]) for tool in asked.get("tools", [])]
    form = (asked.get("output_config") or {}).get("format") or asked.get("output_format") or {}
    blocks = [block for turn in asked["messages"] if isinstance(turn["content"], list) for block in turn["content"]]
    answer = said(tools, form.get("schema"), any(block["type"] == "tool_result" for block in blocks))
    stop = "tool_use" if answer.tool else "end_turn"
    block: Doc = {"type": "text", "text": answer.text}
    if answer.tool:
        block = {"type": "tool_use", "id": "toolu_1", "name": answer.tool, "input": json.loads(answer.arguments)}
    message: Doc = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [block],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS},
    }
    if not asked.get("stream"):
        return whole(message)
    begun = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    if answer.tool:
        start: Doc = {**block, "input": {}}
        deltas: list[Doc] = [
            {"type": "input_json_delta", "partial_json": part}
            for part in ("", answer.arguments[:4], answer.arguments[4:])
        ]
    else:
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in answer.pieces]
    return events(
        [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": start},
            {"type": "ping"},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": COMPLETION_TOKENS},
            },
            {"type": "message_stop"},
        ],
        named=True,
    )


# ---------------------------------------------------------------------------------------------- responses


def responses(seen: Seen) -> Reply:
    """OpenAI Responses."""
    asked = seen.json
    tools = [(tool["name"], tool.get("parameters") or {}) for tool in asked.get("tools", [])]
    schema = ((asked.get("text") or {}).get("format") or {}).get("schema")
    items = asked["input"] if isinstance(asked["input"], list) else []
    answer = said(tools, schema, any(item.get("type") == "function_call_output" for item in items))
    item: Doc = {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}],
    }
    if answer.tool:
        item = {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": answer.tool,
            "arguments": answer.arguments,
        }
    response: Doc = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": None,
        "model": asked["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": asked.get("store", True),
        "temperature": 1.0,
        "text": asked.get("text") or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools", []),
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": PROMPT_TOKENS,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": COMPLETION_TOKENS,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
        },
        "user": None,
        "metadata": {},
    }
    if not asked.get("stream"):
        return whole(response)
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    of = {"item_id": item["id"], "output_index": 0}
    if answer.tool:
        start: Doc = {**item, "status": "in_progress", "arguments": ""}
        inner: list[Doc] = [
            {"type": "response.function_call_arguments.delta", **of, "delta": part}
            for part in (answer.arguments[:4], answer.arguments[4:])
        ]
        inner.append({"type": "response.function_call_arguments.done", **of, "arguments": answer.arguments})
    else:
        start = {**item, "status": "in_progress", "content": []}
        part = item["content"][0]
        of = {**of, "content_index": 0}
        inner = [{"type": "response.content_part.added", **of, "part": {**part, "text": ""}}]
        inner += [
            {"type": "response.output_text.delta", **of, "delta": piece, "logprobs": []} for piece in answer.pieces
        ]
        inner.append({"type": "response.output_text.done", **of, "text": answer.text, "logprobs": []})
        inner.append({"type": "response.content_part.done", **of, "part": part})
    told: list[Doc] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": start},
        *inner,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return events(({**event, "sequence_number": number} for number, event in enumerate(told)), named=True)
