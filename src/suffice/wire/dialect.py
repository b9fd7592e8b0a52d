"""What a dialect is: how one vendor writes requests, answers, streams, usage and errors. Pure: bytes <-> nouns.

Each dialect is one file with one `Dialect` at its end; `wire.dialects` lists them. Whoever records, learns or serves
goes by the record's dialect and never asks which vendor it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from suffice.core.errors import InputError
from suffice.core.style import Rendered
from suffice.core.types import Request, Usage
from suffice.core.values import Value


class Asked(Protocol):
    """A request's body as received, and what it says. Only what routing needs is read before someone asks."""

    body: bytes
    model: str
    stream: bool

    @property
    def request(self) -> Request:
        """The request in the nouns of the system; odd shapes are no errors, they are `unsupported`."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What stands around a specialist's answer: the record's id, the model's name, seconds since 1970, the prompt's
    estimated tokens."""

    record: str
    model: str
    created: int
    prompt_tokens: int


class CannotCarry(InputError):
    """A request cannot be put into another dialect: `param` names what has no place there."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class Turning(Protocol):
    """Turns an answer's bytes while they pass: another dialect's, or with placeholders restored. One answer each.

    For an event stream `feed` gives what can be said by now; for a whole answer it keeps what comes and `end` gives
    all. Raises InputError where what came cannot be turned; nothing is passed on unturned then.
    """

    def feed(self, data: bytes) -> list[bytes]:
        """The next bytes that came; what can be passed on."""

    def end(self) -> list[bytes]:
        """There are no more; what is left to pass on."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One vendor's way. `path` is below the base URL (`/v1`).

    `read` raises InputError in one sentence for a body that is none of its requests. `whole` and `events` write a
    specialist's answer; `events` is the whole stream, an event each. `assemble` gives the document that a stream spells
    (None: it spells none). `answer_of` raises InputError where a document holds no answer: cut off, refused, filtered.
    `usage_of` is None where a document tells none. `error` writes an error body: message, code, kind, parameter.

    To and from chat, the middle through which any two dialects meet: `to_chat` and `from_chat` put a parsed request
    into the other, `answer_to_chat` and `answer_from_chat` a whole answer (raise CannotCarry naming what has no place;
    never drop in silence what changes the answer), `stream_to_chat` and `stream_from_chat` make what turns a stream.
    None where the dialect is the middle itself, or has none (embeddings).
    """

    name: str
    path: str
    read: Callable[[bytes], Asked]
    whole: Callable[[Rendered, Told, Asked], bytes]
    events: Callable[[Rendered, Told, Asked], list[bytes]]
    assemble: Callable[[bytes], dict[str, Any] | None]
    answer_of: Callable[[Any], Value]
    usage_of: Callable[[Any], Usage | None]
    error: Callable[[str, str, str, str | None], bytes]
    to_chat: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    from_chat: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    answer_to_chat: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    answer_from_chat: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None
    """The chat completion, and the request (in this dialect) that it answers."""
    stream_to_chat: Callable[[dict[str, Any]], Turning] | None = None
    stream_from_chat: Callable[[dict[str, Any]], Turning] | None = None
    """Both take the request in this dialect."""
    says: Mapping[str, str] = field(default_factory=dict)
    """What its answers say of themselves, by which they are told from others'; chat is what says nothing."""
    decides: bool = True
    """Whether a specialist can answer such requests."""
    earlier: Callable[[Asked], str] | None = None
    """The id of the answer that a request follows on, "" for none; None where requests always bring all turns."""


def relayed(
    name: str,
    path: str,
    read: Callable[[bytes], Asked],
    usage_of: Callable[[Any], Usage | None],
    error: Callable[[str, str, str, str | None], bytes],
) -> Dialect:
    """A dialect that is relayed and recorded, and whose requests no specialist answers."""

    def no_answer(document: Any) -> Value:
        raise InputError(f"{name}: there is no answer to learn from")

    def none_written(answer: Rendered, told: Told, asked: Asked) -> Any:
        raise InputError(f"{name}: no specialist answers")

    return Dialect(
        name=name,
        path=path,
        read=read,
        whole=none_written,
        events=none_written,
        assemble=lambda raw: None,
        answer_of=no_answer,
        usage_of=usage_of,
        error=error,
        decides=False,
    )
