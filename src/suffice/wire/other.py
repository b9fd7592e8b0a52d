"""What is relayed without being read: every path under `/v1` that is no dialect's.

Only what a record can use is looked at: the model that a JSON body names, and tokens where the answer tells them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from suffice.core.types import Request, Usage
from suffice.wire import chat
from suffice.wire.dialect import relayed
from suffice.wire.responses_document import usage_in


class _Head(msgspec.Struct):
    model: Any = None


_head = msgspec.json.Decoder(_Head)


class OtherRequest:
    """A body as received, empty where it is passed on piece by piece. Whatever it is, it is no error."""

    stream = False

    def __init__(self, body: bytes) -> None:
        self.body = body
        try:
            model = _head.decode(body).model if body else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            model = None
        self.model = model if isinstance(model, str) else ""
        self.request = Request(model=self.model, messages=(), unsupported="pass-through")


def usage_of(document: Any) -> Usage | None:
    """Tokens, as either of the vendor's APIs tells them."""
    return chat.usage_of(document) or usage_in(document)


DIALECT = relayed("other", "", OtherRequest, usage_of, chat.error)
