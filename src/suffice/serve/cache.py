"""The exact cache: an upstream's answer given again to the same request. Off unless a policy asks for it.

The same means: the same bytes but for what cannot change an answer, asked the same way by the same caller. Honest about
chance: a request is kept and answered from here only if it asks for temperature 0, unless the policy says that any will
do. In memory, a worker's own, and gone with it: nothing of it is on a disk.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from suffice.core.types import Policy
from suffice.serve.access import Caller
from suffice.serve.capture import Exchange
from suffice.serve.edges import EVENTS, JSON, Headers
from suffice.serve.outbound import Sending

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NO_MATTER = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})
"""Fields of a body that say who asks, not what."""
_HEADERS = frozenset(
    {b"authorization", b"x-api-key", b"api-key", b"anthropic-version", b"anthropic-beta", b"openai-organization",
     b"openai-project", b"openai-beta", b"content-type", b"accept"}
)  # fmt: skip
"""Headers that say who asks or what kind of answer is wanted."""
_STATEFUL = ("store", "background", "previous_response_id", "conversation")
_ZERO = (b"0", b"0.0")


class Kept(NamedTuple):
    """An answer at hand: `record` is the one that it was first given in, `until` on the cache's clock."""

    record: str
    upstream: str | None
    chunks: tuple[bytes, ...]
    streamed: bool
    encoding: str
    size: int
    until: float

    @property
    def headers(self) -> Headers:
        """That go with it, beside ours; `X-Suffice-Cached` names the record in which it was given first."""
        told = [*(EVENTS if self.streamed else JSON), (b"x-suffice-cached", self.record.encode())]
        return [*told, (b"content-encoding", self.encoding.encode())] if self.encoding else told


class Cache:
    """Answers by what was asked, the one used longest ago let go first. All methods belong to the event loop.

    `max_bytes`: of bodies, over all answers.
    """

    def __init__(self, max_bytes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max, self._clock = max_bytes, clock
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self.bytes = 0
        self.hits = self.misses = 0

    def key(self, policy: Policy, caller: Caller, sending: Sending) -> bytes | None:
        """What identifies this request; None where it is not to be kept or answered from here."""
        if policy.cache_s is None or sending.dialect is None:
            return None
        try:
            body = _decode(sending.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None
        if not (policy.cache_any_temperature or bytes(body.get("temperature", b"")) in _ZERO or _settled(sending)):
            return None
        if any(bytes(body[name]) not in (b"null", b"false") for name in _STATEFUL if name in body):
            return None
        sha = hashlib.sha256()
        who = (caller.name or "").encode()
        asked = (part for name in sorted(body.keys() - _NO_MATTER) for part in (name.encode(), bytes(body[name])))
        for part in (who, sending.path.encode(), *_told(sending.headers), *asked):
            sha.update(len(part).to_bytes(8, "big") + part)
        return sha.digest()

    def get(self, key: bytes) -> Kept | None:
        """The answer, if it is at hand and not too old."""
        kept = self._kept.get(key)
        if kept is not None and kept.until > self._clock():
            self._kept.move_to_end(key)
            self.hits += 1
            return kept
        self._drop(key)
        self.misses += 1
        return None

    def put(self, key: bytes, exchange: Exchange, policy: Policy) -> None:
        """Keep the answer of an exchange that ended well; one that failed, was cut or is too large is not kept."""
        if exchange.status != 200 or exchange.failure is not None or exchange.cut or exchange.kept > self._max:
            return
        self._drop(key)
        until = self._clock() + (policy.cache_s or 0)
        told = exchange.streamed, exchange.encoding, exchange.kept
        kept = Kept(exchange.id, exchange.upstream, tuple(exchange.chunks), *told, until)
        self._kept[key] = kept
        self.bytes += kept.size
        while self.bytes > self._max:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Let everything go: something that may be in it was erased."""
        self._kept.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def _drop(self, key: bytes) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self.bytes -= gone.size


def _settled(sending: Sending) -> bool:
    """Whether there is no chance in the answer, whatever the body says: embeddings."""
    return sending.dialect is not None and not sending.dialect.decides


def _told(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [part for header in sorted(headers) if header[0] in _HEADERS for part in header]
