"""Responses streams: written, reassembled for records, and turned into chat's and back.

Source: the vendor's API reference, "Streaming events". An item is told when it begins, in pieces, and whole when it
ends; the last event holds the whole response.
"""

from __future__ import annotations

from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.wire import sse
from suffice.wire.responses_document import (
    OURS,
    call_item,
    call_to_chat,
    cut_of,
    document,
    finish_of,
    message_item,
    text_part,
    usage_from_chat,
    usage_to_chat,
)

Doc = dict[str, Any]
LAST = ("response.completed", "response.incomplete", "response.failed")
_encode = msgspec.json.encode


def read(data: bytes) -> Doc:
    """An event's document; an empty one for the mark of a stream's end.

    Raises InputError for what is no JSON object: what was lost with it must not look as if nothing was.
    """
    if data.strip() == b"[DONE]":
        return {}
    found = decode(data)
    if not isinstance(found, dict):
        raise InputError("an event of the stream is no JSON object")
    return found


class Writer:
    """Writes the events of one response, in their order. Each method gives the bytes of what it adds.

    A message is closed by the call that follows it; calls stay open until the end, for their pieces may be mixed.
    """

    def __init__(self, request: Doc, *, id: str, created: Any, model: Any) -> None:
        self._request, self._id, self._created, self._model = request, id, created, model
        self._n = 0
        self._output: list[Doc] = []
        self._calls: dict[int, int] = {}
        self._text: list[str] | None = None
        self._refusing = False

    def begin(self) -> list[bytes]:
        """The response is there, and begins."""
        told = self._document("in_progress", None)
        return [self._event(f"response.{name}", response=told) for name in ("created", "in_progress")]

    def text(self, piece: str, *, refusal: bool = False) -> list[bytes]:
        """A piece of text, or of a refusal."""
        events = self._close_text() if self._text is not None and refusal != self._refusing else []
        if self._text is None:
            self._text, self._refusing = [], refusal
            item = message_item(self._id, len(self._output), [], "in_progress")
            self._output.append(item)
            events.append(self._event("response.output_item.added", output_index=self._last, item=item))
            events.append(self._event("response.content_part.added", **self._in_part(), part=self._part("")))
        self._text.append(piece)
        kind = "refusal" if refusal else "output_text"
        more: Doc = {} if refusal else {"logprobs": []}
        return [*events, self._event(f"response.{kind}.delta", **self._in_part(), delta=piece, **more)]

    def call(self, index: int, call: Any, function: Doc) -> list[bytes]:
        """A piece of the index-th call: its id and name come with the first."""
        events: list[bytes] = []
        if index not in self._calls:
            events += self._close_text()
            n = self._calls[index] = len(self._output)
            item = call_item(self._id, n, call, {**function, "arguments": ""}, "in_progress")
            self._output.append(item)
            events.append(self._event("response.output_item.added", output_index=n, item=item))
        piece = function.get("arguments")
        if isinstance(piece, str) and piece:
            n = self._calls[index]
            item = self._output[n]
            self._output[n] = {**item, "arguments": item["arguments"] + piece}
            events.append(
                self._event("response.function_call_arguments.delta", output_index=n, item_id=item["id"], delta=piece)
            )
        return events

    def end(self, usage: Doc | None, cut: str | None = None) -> list[bytes]:
        """All has been said; `cut` says why it is not whole."""
        status = "incomplete" if cut else "completed"
        events = self._close_text(status)
        for n in self._calls.values():
            item = self._output[n] = {**self._output[n], "status": status}
            events.append(
                self._event(
                    "response.function_call_arguments.done",
                    output_index=n,
                    item_id=item["id"],
                    name=item["name"],
                    arguments=item["arguments"],
                )
            )
            events.append(self._event("response.output_item.done", output_index=n, item=item))
        return [*events, self._event(f"response.{status}", response=self._document(status, usage, cut))]

    def fail(self, error: Any) -> list[bytes]:
        """The answer broke off with this error."""
        message = error.get("message") if isinstance(error, dict) else error
        told = {"code": "server_error", "message": message if isinstance(message, str) else "the upstream failed"}
        return [self._event("response.failed", response={**self._document("failed", None), "error": told})]

    @property
    def _last(self) -> int:
        return len(self._output) - 1

    def _in_part(self) -> Doc:
        return {"output_index": self._last, "item_id": self._output[-1]["id"], "content_index": 0}

    def _part(self, text: str) -> Doc:
        return {"type": "refusal", "refusal": text} if self._refusing else text_part(text)

    def _close_text(self, status: str = "completed") -> list[bytes]:
        if self._text is None:
            return []
        text = "".join(self._text)
        item = self._output[-1] = {**self._output[-1], "content": [self._part(text)], "status": status}
        said = {"refusal": text} if self._refusing else {"text": text, "logprobs": []}
        self._text = None
        return [
            self._event(f"response.{'refusal' if self._refusing else 'output_text'}.done", **self._in_part(), **said),
            self._event("response.content_part.done", **self._in_part(), part=self._part(text)),
            self._event("response.output_item.done", output_index=self._last, item=item),
        ]

    def _document(self, status: str, usage: Doc | None, cut: str | None = None) -> Doc:
        told = {"id": self._id, "created": self._created, "model": self._model}
        return document(self._request, **told, output=self._output, usage=usage, status=status, cut=cut)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _encode({"type": kind, "sequence_number": self._n, **fields})
        self._n += 1
        return sse.named(kind, data)


def assemble(raw: bytes) -> Doc | None:
    """The response that a stream spells; None if it holds none.

    The last event tells all. A stream that broke off gives what had come, with the status it had then; one that holds
    but an error gives that.
    """
    whole: Doc | None = None
    items: dict[int, Doc] = {}
    error: Doc | None = None
    for data in sse.datas(raw):
        try:
            event = read(data)
        except InputError:
            continue  # a record keeps what can be read
        kind, index = event.get("type"), event.get("output_index")
        if isinstance(event.get("response"), dict):
            whole = {**(whole or {}), **event["response"]}
            if kind in LAST:
                break
        elif kind == "error" or "error" in event:
            error = {"error": event["error"] if isinstance(event.get("error"), dict) else event}
        elif isinstance(index, int):
            _take(items, index, event)
    if whole is None and not items:
        return error
    whole = whole or {"object": "response", "status": "in_progress"}
    # Some servers leave the output out of the last event: it was told in pieces.
    return whole if whole.get("output") else {**whole, "output": [items[index] for index in sorted(items)]}


def _take(items: dict[int, Doc], index: int, event: Doc) -> None:
    """One event of an item, added to what has come of it."""
    item, delta = event.get("item"), event.get("delta")
    if isinstance(item, dict):
        items[index] = item
    elif isinstance(delta, str):
        found = items.setdefault(index, {"type": "message", "role": "assistant", "content": []})
        if event.get("type") == "response.function_call_arguments.delta":
            found["arguments"] = f"{found.get('arguments') or ''}{delta}"
        elif event.get("type") in ("response.output_text.delta", "response.refusal.delta"):
            key = "text" if event["type"] == "response.output_text.delta" else "refusal"
            content = found["content"] if isinstance(found.get("content"), list) else []
            last = content[-1] if content and isinstance(content[-1], dict) else {}
            if not isinstance(last.get(key), str):
                last = {"type": "output_text" if key == "text" else key, key: ""}
                content.append(last)
            last[key] += delta
            found["content"] = content


# ---------------------------------------------------------------------------------------------- into chat


class ToChat:
    """Turns a stream of this dialect into chat's. Reasoning is left out: chat has none."""

    def __init__(self, request: Doc) -> None:
        self._feed = sse.Feed()
        self._head: Doc = {"object": "chat.completion.chunk", "id": "", "created": 0, "model": request.get("model")}
        self._calls: dict[int, int] = {}
        self._said: dict[int, int] = {}
        self._begun = self._done = False

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks that can be said by now. Raises InputError."""
        return [chunk for event in self._feed.feed(data) for chunk in self._event(read(event))]

    def end(self) -> list[bytes]:
        """Raises InputError where the stream broke off."""
        chunks = [chunk for event in self._feed.end() for chunk in self._event(read(event))]
        if not self._done:
            raise InputError("the stream ended before the response was complete")
        return chunks

    def _event(self, event: Doc) -> list[bytes]:
        kind, index = event.get("type"), event.get("output_index")
        response = event.get("response")
        if self._done:
            return []
        if kind == "error" or ("error" in event and kind is None):
            return self._failed(event.get("error") if isinstance(event.get("error"), dict) else event)
        if isinstance(response, dict):
            return self._life(str(kind), response)
        if not isinstance(index, int):
            return []
        delta = event.get("delta")
        if kind == "response.output_item.added":
            return self._item(index, event.get("item"))
        if kind == "response.output_item.done":
            return self._rest(index, event.get("item"))
        if isinstance(delta, str) and kind in ("response.output_text.delta", "response.refusal.delta"):
            self._said[index] = self._said.get(index, 0) + len(delta)
            return self._delta({"content" if kind == "response.output_text.delta" else "refusal": delta})
        if isinstance(delta, str) and kind == "response.function_call_arguments.delta":
            return self._arguments(index, delta)
        return []

    def _life(self, kind: str, response: Doc) -> list[bytes]:
        created = response.get("created_at")
        told = {
            "id": f"chatcmpl-{response.get('id')}",
            "created": int(created) if isinstance(created, int | float) else 0,
        }
        self._head |= {**told, "model": response.get("model") or self._head["model"]}
        if kind == "response.failed":
            return self._failed(response.get("error"))
        if kind not in LAST:
            return []
        output = response.get("output")
        rest = [
            chunk
            for index, item in enumerate(output if isinstance(output, list) else [])
            for chunk in self._rest(index, item)
        ]
        finish = finish_of(response, bool(self._calls))
        chunks = [*rest, *self._delta({}, finish)]
        if (usage := usage_to_chat(response)) is not None:
            chunks.append(sse.event(_encode({**self._head, "choices": [], "usage": usage})))
        self._done = True
        return [*chunks, sse.DONE]

    def _item(self, index: int, item: Any) -> list[bytes]:
        if not isinstance(item, dict) or item.get("type") != "function_call" or index in self._calls:
            return []
        n = self._calls[index] = len(self._calls)
        return self._delta({"tool_calls": [{"index": n, **call_to_chat({**item, "arguments": ""})}]})

    def _arguments(self, index: int, delta: str) -> list[bytes]:
        if index not in self._calls or not delta:
            return []
        self._said[index] = self._said.get(index, 0) + len(delta)
        return self._delta({"tool_calls": [{"index": self._calls[index], "function": {"arguments": delta}}]})

    def _rest(self, index: int, item: Any) -> list[bytes]:
        """What of a whole item did not come in pieces."""
        chunks = self._item(index, item)
        said = self._said.get(index, 0)
        if not isinstance(item, dict):
            return chunks
        if item.get("type") == "function_call" and isinstance(item.get("arguments"), str):
            return [*chunks, *self._arguments(index, item["arguments"][said:])]
        content = item.get("content")
        if item.get("type") != "message" or said or not isinstance(content, list):
            return chunks
        for part in content:
            for key, name in (("text", "content"), ("refusal", "refusal")):
                if isinstance(part, dict) and isinstance(part.get(key), str) and part[key]:
                    self._said[index] = self._said.get(index, 0) + len(part[key])
                    chunks += self._delta({name: part[key]})
        return chunks

    def _delta(self, delta: Doc, finish: str | None = None) -> list[bytes]:
        if not self._begun:
            self._begun = True
            return [*self._delta({"role": "assistant", "content": ""}), *self._delta(delta, finish)]
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return [sse.event(_encode({**self._head, "choices": [choice]}))]

    def _failed(self, error: Any) -> list[bytes]:
        self._done = True
        told = error if isinstance(error, dict) else {}
        message = told.get("message") or "the response failed"
        return [sse.event(_encode({"error": {"message": message, "type": "api_error", "code": told.get("code")}}))]


# ---------------------------------------------------------------------------------------------- out of chat


class FromChat:
    """Turns chat's stream into one of this dialect, the answer to `request`."""

    def __init__(self, request: Doc) -> None:
        self._feed = sse.Feed()
        self._request = request
        self._writer: Writer | None = None
        self._finish: str | None = None
        self._usage: Doc | None = None
        self._done = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that can be said by now. Raises InputError."""
        return [event for chunk in self._feed.feed(data) for event in self._chunk(chunk)]

    def end(self) -> list[bytes]:
        """What is left. Raises InputError where the stream broke off."""
        events = [event for chunk in self._feed.end() for event in self._chunk(chunk)]
        return [*events, *self._ended()]

    def _chunk(self, data: bytes) -> list[bytes]:
        if self._done:
            return []
        if data.strip() == b"[DONE]":
            return self._ended()
        chunk = read(data)
        events = []
        if self._writer is None:
            told = {"created": chunk.get("created"), "model": chunk.get("model") or self._request.get("model")}
            self._writer = Writer(self._request, id=f"{OURS}{chunk.get('id')}", **told)
            events = self._writer.begin()
        if chunk.get("error") is not None:
            self._done = True
            return [*events, *self._writer.fail(chunk["error"])]
        self._usage = usage_from_chat(chunk.get("usage")) or self._usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            events += self._delta(self._writer, choice.get("delta"))
            self._finish = choice.get("finish_reason") or self._finish
        return events

    def _delta(self, writer: Writer, delta: Any) -> list[bytes]:
        if not isinstance(delta, dict):
            return []
        events: list[bytes] = []
        for key in ("content", "refusal"):
            if isinstance(delta.get(key), str) and delta[key]:
                events += writer.text(delta[key], refusal=key == "refusal")
        calls = delta.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict):
                function, index = call.get("function"), call.get("index")
                told = function if isinstance(function, dict) else {}
                events += writer.call(index if isinstance(index, int) else place, call.get("id"), told)
        return events

    def _ended(self) -> list[bytes]:
        if self._done:
            return []
        if self._writer is None or self._finish is None:
            raise InputError("the stream ended before the completion was whole")
        self._done = True
        return self._writer.end(self._usage, cut_of(self._finish))
