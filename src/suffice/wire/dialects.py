"""The dialects by name, and how what was recorded in any of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.core.errors import InputError
from suffice.core.style import estimated_tokens
from suffice.core.types import Request, Usage
from suffice.core.values import Value, canonical, decode
from suffice.wire import chances, chat, embeddings, messages, other, responses
from suffice.wire.dialect import Dialect

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (chat.DIALECT, responses.DIALECT, messages.DIALECT, embeddings.DIALECT)
}
"""`short`, the form of imported pairs, is none: there is no request in it."""


def of(name: str) -> Dialect:
    """The dialect of a record. Records of a dialect that is not known here (another version's) read as chat."""
    return other.DIALECT if name == other.DIALECT.name else DIALECTS.get(name, chat.DIALECT)


def spoken_in(document: Any) -> Dialect:
    """The dialect that an answer's document is written in: each vendor's says so itself."""
    if isinstance(document, dict):
        for dialect in DIALECTS.values():
            if dialect.says and all(document.get(key) == value for key, value in dialect.says.items()):
                return dialect
    return chat.DIALECT


def request_in(dialect: str, body: bytes) -> Request:
    """The request in a recorded body. Raises InputError, also for one that no specialist could answer."""
    if not of(dialect).decides:
        raise InputError(f"a request in the dialect {dialect!r} is nothing to learn from")
    return of(dialect).read(body).request


def answer_of(document: Any) -> Value:
    """The answer in a recorded document. Raises InputError where it holds none."""
    return spoken_in(document).answer_of(document)


def heard(body: bytes) -> list[Value]:
    """The answer in a recorded body, in a list; an empty one where it cannot be an answer (a refusal, cut off)."""
    try:
        return [answer_of(decode(body))]
    except InputError:
        return []


def arguments_of(answer: bytes | None) -> list[str]:
    """The arguments of an answer's tool calls as they were written; none where there are none to read."""
    try:
        document = decode(answer or b"")
        to_chat = spoken_in(document).answer_to_chat
        calls = (to_chat(document) if to_chat else document)["choices"][0]["message"].get("tool_calls") or []
        return [call["function"]["arguments"] for call in calls if isinstance(call["function"]["arguments"], str)]
    except (InputError, AttributeError, LookupError, TypeError):
        return []


def chances_of(answer: bytes | None) -> bytes | None:
    """What else a recorded answer's tokens might have been, as `core.chances` packs it; None where it is not told."""
    if answer is None or b'"top_logprobs"' not in answer:
        return None
    try:
        return chances.chances_of(decode(answer))
    except InputError:
        return None


def estimated_usage(dialect: str, body: bytes, answer: bytes) -> Usage:
    """Estimated tokens of an exchange whose answer told none: from the texts, not their JSON."""
    try:
        request = of(dialect).read(body).request
        prompt = "".join(message.text for message in request.messages) + request.tools
        if not of(dialect).decides:
            return Usage(prompt=estimated_tokens(prompt), completion=0)
        said = answer_of(decode(answer))
    except InputError:
        prompt, said = body.decode("utf-8", "replace"), answer.decode("utf-8", "replace")
    told = said if isinstance(said, str) else canonical(said)
    return Usage(prompt=estimated_tokens(prompt), completion=estimated_tokens(told))
