"""What else the frontier might have written: the tokens of an answer whose probabilities came with it, as far as they
were in doubt. What is learned from them, `specialists.causal_soft` says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

LEAST = math.log(0.001)
"""Alternatives that are less likely are dropped: they teach nothing, and most tokens have no others."""


class Doubt(msgspec.Struct, frozen=True, array_like=True):
    """One token. `start`, `end`: its place in the text, in characters; `likely`: the texts that may stand there, its
    own first, each with its log-probability (natural log)."""

    start: int
    end: int
    likely: tuple[tuple[str, float], ...]


class Chances(msgspec.Struct, frozen=True, array_like=True):
    """An answer's text, as it was written, and its tokens that were in doubt, in their order."""

    text: str
    doubts: tuple[Doubt, ...]


Piece = tuple[str, Mapping[str, float]]
"""A token's text, and the log-probabilities of texts that may stand in its place; none where nothing is known."""

_decoder = msgspec.msgpack.Decoder(Chances)


def packed(pieces: Sequence[Piece]) -> bytes | None:
    """The tokens of an answer as `unpacked` reads them; None where none was in doubt."""
    doubts: list[Doubt] = []
    at = 0
    for text, told in pieces:
        others = {other: chance for other, chance in told.items() if other != text and LEAST <= chance <= 0}
        own = told.get(text, -math.inf)
        if text and others and math.isfinite(own):
            likely = ((text, min(own, 0.0)), *sorted(others.items(), key=lambda each: (-each[1], each[0])))
            doubts.append(Doubt(at, at + len(text), likely))
        at += len(text)
    if not doubts:
        return None
    return msgspec.msgpack.encode(Chances("".join(text for text, _ in pieces), tuple(doubts)))


def unpacked(data: bytes) -> Chances:
    """What `packed` made."""
    return _decoder.decode(data)
