"""OpenAI Embeddings: relayed and recorded, never answered here.

Source: the vendor's API reference for `POST /v1/embeddings`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import Message, Request, Usage
from suffice.wire import chat
from suffice.wire.dialect import relayed


class _Head(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw()
    model: Any = None


_head = msgspec.json.Decoder(_Head)
_input = msgspec.json.Decoder()


class EmbeddingsRequest:
    """A body as received. Raises InputError (one sentence) when it is not a JSON object."""

    stream = False

    def __init__(self, body: bytes) -> None:
        self.body = body
        try:
            self._head = _head.decode(body)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise InputError(f"the request body is not a JSON object: {error}") from error
        self.model = self._head.model if isinstance(self._head.model, str) else ""

    @cached_property
    def request(self) -> Request:
        """The texts as turns of a user: what tokens are estimated from. Inputs of tokens have no text."""
        try:
            given = _input.decode(self._head.input) if bytes(self._head.input) else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            given = None
        texts = given if isinstance(given, list) else [given]
        messages = tuple(Message("user", text) for text in texts if isinstance(text, str))
        return Request(model=self.model, messages=messages, unsupported="embeddings")


def usage_of(document: Any) -> Usage | None:
    """Tokens as told; there is no output."""
    usage = document.get("usage") if isinstance(document, dict) else None
    prompt = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return Usage(prompt=prompt, completion=0) if chat.is_count(prompt) else None


DIALECT = relayed("embeddings", "/embeddings", EmbeddingsRequest, usage_of, chat.error)
