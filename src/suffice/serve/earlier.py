"""Responses that no upstream knows: those of specialists, and those that were put together from another dialect.

Callers may follow on them (`previous_response_id`), ask for them again and delete them, as they may with any other that
the vendor keeps. Here they are kept as records: a request that follows on one gets its turns back before it goes on.
What follows on an upstream's own response goes to that upstream.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.serve.edges import JSON, Refused, Scope, Send, send_whole
from suffice.serve.feedback import WAITS_S
from suffice.store import responses as kept
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.wire import responses
from suffice.wire.dialect import Asked
from suffice.wire.responses_document import OURS

_PATH = re.compile(r"(?:/v1)?/responses/([^/?]+)((?:/[^/?]+)?)/?(?:\?.*)?\Z")
ANSWERED = 200


class Earlier:
    """Finds earlier responses of a home, in threads."""

    def __init__(self, home: Home, config: Config) -> None:
        self._home, self._several = home, len(config.upstreams) > 1

    async def followed(self, asked: Asked, name: str, key: str | None) -> tuple[Asked, str | None]:
        """The request with its earlier turns put in; or, with the request, the upstream that has them (None: any).

        Raises Refused (400) where a response of ours is not there, or another key's.
        """
        if not name.startswith(OURS):
            return asked, await self.holder(name)
        row = await self._find(name, key)
        if row is None:
            told = f"there is no response {name[:100]!r} to follow on"
            raise Refused(told, 400, "previous_response_not_found", "previous_response_id")
        return responses.following(asked, decode(row.request or b""), decode(row.answer or b"")), None

    async def holder(self, name: str | None) -> str | None:
        """The upstream that gave this response; None where there is but one, or it is not known."""
        if name is None or not self._several:
            return None
        return await asyncio.to_thread(kept.upstream_of, self._home, name)

    async def tell(self, name: str, scope: Scope, send: Send, key: str | None) -> None:
        """Answer a request about a response of ours. Raises Refused."""
        found = _PATH.match(scope["path"])
        rest, method = found[2] if found is not None else "", scope["method"]
        row = await self._find(name, key)
        request, answer = (_object(body) for body in ((row.request, row.answer) if row is not None else (None, None)))
        if not answer or request.get("store") is False:
            raise Refused(f"there is no response {name[:100]!r}", 404, "not_found", "response_id")
        document: Any
        if (method, rest) == ("GET", "") and b"stream=true" not in scope["query_string"]:
            document = answer
        elif (method, rest) == ("GET", "/input_items"):
            document = responses.listed(request, name)
        elif (method, rest) == ("DELETE", ""):
            await asyncio.to_thread(kept.withdraw, self._home, name)
            document = {"id": name, "object": "response", "deleted": True}
        else:
            raise Refused(f"{name[:100]!r} is whole: there is nothing to stream or cancel", 400, "invalid_request")
        await send_whole(send, ANSWERED, JSON, msgspec.json.encode(document))

    async def _find(self, name: str, key: str | None) -> Row | None:
        """The record of a response of this caller's. It is written some milliseconds after its answer."""
        for wait_s in (0.0, *WAITS_S):
            await asyncio.sleep(wait_s)
            row = await asyncio.to_thread(kept.find, self._home, name)
            if row is not None:
                return row if row.key == key and row.dialect == responses.DIALECT.name and row.answer else None
        return None


def about(path: str) -> str | None:
    """The id of the response that a path speaks of, None for any other path."""
    found = _PATH.match(path)
    return found[1] if found is not None else None


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        found = decode(body or b"")
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
