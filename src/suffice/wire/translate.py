"""Translation: a caller speaks one dialect, the upstream another. They meet in the middle, which is chat.

The request becomes the upstream's (CannotCarry where something has no place there), the answer becomes the caller's: a
whole one at its end, a stream event by event, an error with its status and message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.wire.chat import DIALECT as CHAT
from suffice.wire.dialect import CannotCarry, Dialect, Turning

Doc = dict[str, Any]
Headers = Sequence[tuple[bytes, bytes]]

ANTHROPIC_VERSION = b"2023-06-01"
MOST_BYTES = 64 * 2**20
"""Of a whole answer that is kept to be turned."""
TOLD_CHARS = 500
"""Of an error that is written in no dialect."""
_OF_ONE_VENDOR = (b"anthropic-", b"openai-", b"x-stainless-")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Translated:
    """One request in the upstream's dialect, and what its answer needs to become the caller's."""

    caller: Dialect
    target: Dialect
    asked: Doc
    said: Doc
    body: bytes

    def answer(self, status: int, streamed: bool) -> list[Turning]:
        """What turns the answer, one after the other."""
        if status >= 400:
            return [Whole(lambda body: _error(self.caller, status, body))]
        if not streamed:
            return [Whole(self._whole)]
        found: list[Turning] = []
        if self.target.stream_to_chat is not None:
            found.append(self.target.stream_to_chat(self.said))
        if self.caller.stream_from_chat is not None:
            found.append(self.caller.stream_from_chat(self.asked))
        elif not _wants_usage(self.asked):
            found.append(WithoutUsage())
        return found

    def _whole(self, body: bytes) -> bytes:
        document = decode(body)
        if not isinstance(document, dict):
            raise InputError("the answer is not a JSON object")
        if self.target.answer_to_chat is not None:
            document = self.target.answer_to_chat(document)
        if self.caller.answer_from_chat is not None:
            document = self.caller.answer_from_chat(document, self.asked)
        return msgspec.json.encode(document)


def translated(caller: Dialect, target: Dialect, body: bytes) -> Translated:
    """A request of the caller's in the dialect of the target. Raises InputError, CannotCarry naming the parameter."""
    for dialect in (caller, target):
        if dialect is not CHAT and (dialect.to_chat is None or dialect.from_chat is None):
            raise CannotCarry(f"no upstream of this model speaks {caller.name}: asked is {target.name}", "model")
    asked = decode(body)
    if not isinstance(asked, dict):
        raise InputError("the request body is not a JSON object")
    said = caller.to_chat(asked) if caller.to_chat is not None else asked
    if target.from_chat is not None:
        said = target.from_chat(said)
    elif said.get("stream") is True:
        # Who answers in another dialect has to tell the usage, and chat tells it on demand.
        said = {**said, "stream_options": {"include_usage": True}}
    return Translated(caller, target, asked, said, msgspec.json.encode(said))


def headers(caller: Dialect, target: Dialect, given: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The caller's headers as the other vendor takes them: his key where it is looked for, none of one vendor's own."""
    kept = [(key, value) for key, value in given if not key.startswith(_OF_ONE_VENDOR)]
    if target.name == "messages":
        kept.append((b"anthropic-version", ANTHROPIC_VERSION))
        key = next((value[7:] for name, value in kept if name == b"authorization" and value[:7] == b"Bearer "), None)
        if key is not None and not any(name == b"x-api-key" for name, _ in kept):
            return [*((name, value) for name, value in kept if name != b"authorization"), (b"x-api-key", key)]
    elif caller.name == "messages":
        own = next((value for name, value in kept if name == b"x-api-key"), None)
        kept = [(name, value) for name, value in kept if name != b"x-api-key"]
        if own is not None and not any(name == b"authorization" for name, _ in kept):
            kept.append((b"authorization", b"Bearer " + own))
    return kept


def _wants_usage(asked: Doc) -> bool:
    options = asked.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


class Whole:
    """Keeps a whole answer and turns it at its end."""

    def __init__(self, turn: Any) -> None:
        self._turn = turn
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The next bytes that came; nothing can be passed on yet. Raises InputError beyond a size."""
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise InputError(f"the answer is longer than {MOST_BYTES / 2**20:g} MB")
        self._kept.append(data)
        return []

    def end(self) -> list[bytes]:
        """All of it."""
        return [self._turn(b"".join(self._kept))]


class WithoutUsage:
    """Leaves out the chunk of a chat stream that tells the usage, where nobody asked for it.

    Takes what a `stream_to_chat` gives: one event a piece. What was left out is in `kept`, for the record.
    """

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """One event."""
        if b'"choices":[],"usage":' not in data:
            return [data]
        self.kept.append(data)
        return []

    def end(self) -> list[bytes]:
        """Nothing is kept."""
        return []


def _error(caller: Dialect, status: int, body: bytes) -> bytes:
    """An upstream's error, whoever wrote it, as the caller's dialect writes errors."""
    try:
        document = decode(body)
    except InputError:
        document = None
    told = document.get("error") if isinstance(document, dict) else None
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    if isinstance(told, dict) and isinstance(told.get("message"), str):
        code = next((told[key] for key in ("code", "type") if isinstance(told.get(key), str)), kind)
        param = told.get("param")
        return caller.error(told["message"], code, kind, param if isinstance(param, str) else None)
    message = told if isinstance(told, str) else body[: 4 * TOLD_CHARS].decode("utf-8", "replace")[:TOLD_CHARS]
    return caller.error(message.strip() or f"the upstream answered with status {status}", kind, kind, None)
