"""Finding the pieces of an input that an answer copies: token features, a conditional random field, and the way back.

A feature of a token is known by a 64-bit hash, as in `features.py`: words and their beginnings, ends and shapes, a few
tokens to either side, and what stands between. The embedding adds a vector for each word and one for the whole text.
What this does not know: pieces that overlap, values that do not stand in the text, anything behind `cut`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.specialists.crf import Chain, Decoded
from suffice.specialists.embedding import Reading, cut
from suffice.specialists.pieces import (
    Path,
    Place,
    Slot,
    follows,
    kinds_of,
    spans_of,
    tokens,
)
from suffice.specialists.saved import Arrays
from suffice.specialists.writings import Scalar, Writing

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

PREFIX = "tagger_"
"""How the names of a tagger's arrays begin within an artefact."""
UNREAD = math.log(0.01)
"""What a piece that says no value costs the answer's log probability."""

_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xD6E8FEB86659FD93)
_PAIR = np.uint64(0x9FB21C651E98DF25)
_HALF = np.uint64(32)
_EDGE = 3
_UPPER, _LOWER, _DIGIT, _LETTER = 1, 2, 3, 4


class TokenHasher:
    """Hashes of the features of each token. Holds constant tables only: make one and share it."""

    width = 32

    def __init__(self) -> None:
        # lower-casing keeps the number of characters here, so `cut` bounds the length
        length = len(cut("x" * 10**6)) + 2
        self._powers = np.full(length, _BASE, dtype=np.uint64)
        self._powers[0] = 1
        np.cumprod(self._powers, out=self._powers)
        self._inverses = np.full(length, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
        self._inverses[0] = 1
        np.cumprod(self._inverses, out=self._inverses)
        salts = [(index + 1) * 0x632BE59BD9B4E019 % (1 << 64) for index in range(self.width)]
        self._salts = np.array(salts, dtype=np.uint64)
        self._ascii = np.array([_kind(chr(code)) for code in range(128)], dtype=np.uint64)

    def features(self, text: str, places: Sequence[Place]) -> Hashes:
        """Shape (len(places), width): one hash for each token and kind of feature."""
        if not places:
            return np.zeros((0, self.width), dtype=np.uint64)
        edges = np.array(places, dtype=np.int64)
        starts, stops = edges[:, 0], edges[:, 1]
        low = text.lower() if text.isascii() else "".join(map(_lowered, text))
        codes = np.frombuffer(low.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        prefix = self._summed(codes * self._powers[: len(codes)])

        def piece(begin: Ints, end: Ints) -> Hashes:
            found: Hashes = (prefix[end] - prefix[begin]) * self._inverses[begin]
            return found

        words = piece(starts, stops)
        heads = [piece(starts, np.minimum(starts + size, stops)) for size in (2, 3, 4)]
        tails = [piece(np.maximum(stops - size, starts), stops) for size in (2, 3, 4)]
        shapes = self._shapes(text, starts, stops)
        flags = _flags(text, starts, stops)
        w, s, t = _padded(words), _padded(shapes), _padded(tails[1])
        count = len(starts)

        def at(of: Hashes, offset: int) -> Hashes:
            return of[_EDGE + offset : _EDGE + offset + count]

        pairs = w[:-1] * _PAIR + w[1:]

        def pair(offset: int) -> Hashes:
            """The token at `offset` and the next."""
            return pairs[_EDGE + offset : _EDGE + offset + count]

        raw = [
            *(at(w, offset) for offset in (0, -1, 1, -2, 2, -3, 3)),
            *(pair(offset) for offset in (-1, 0, -2, 1)),
            at(w, -1) * _PAIR + at(w, 1),
            pair(-1) * _PAIR + at(w, 1),
            pair(-3) * _PAIR + at(s, 0),
            *(at(s, offset) for offset in (0, -1, 1)),
            at(s, -1) * _PAIR + at(s, 0),
            at(s, 0) * _PAIR + at(s, 1),
            (at(s, -1) * _PAIR + at(s, 0)) * _PAIR + at(s, 1),
            at(w, -1) * _PAIR + at(s, 0),
            at(s, 0) * _PAIR + at(w, 1),
            pair(-2) * _PAIR + at(s, 0),
            *heads,
            *tails,
            at(t, -1),
            at(t, 1),
            flags,
        ]
        table = np.stack(raw, axis=1)
        table ^= self._salts
        table *= _MIX
        table ^= table >> _HALF
        table *= _MIX
        return table

    @staticmethod
    def _summed(numbers: Hashes) -> Hashes:
        prefix = np.zeros(len(numbers) + 1, dtype=np.uint64)
        np.cumsum(numbers, out=prefix[1:])
        return prefix

    def _shapes(self, text: str, starts: Ints, stops: Ints) -> Hashes:
        """Capitals, small letters, digits and marks; runs of letters of one kind count once."""
        if text.isascii():
            kinds = self._ascii[np.frombuffer(text.encode(), dtype=np.uint8)]
        else:
            kinds = np.fromiter(map(_kind, text), dtype=np.uint64, count=len(text))
        new = np.ones(len(kinds), dtype=bool)
        new[1:] = (kinds[1:] != kinds[:-1]) | (kinds[1:] == _DIGIT)
        new[starts] = True
        rank = np.cumsum(new) - 1
        prefix = self._summed(kinds * self._powers[rank] * new)
        found: Hashes = (prefix[stops] - prefix[starts]) * self._inverses[rank[starts]]
        return found


def _lowered(char: str) -> str:
    low = char.lower()
    return low if len(low) == 1 else char


def _kind(char: str) -> int:
    if char.isdigit():
        return _DIGIT
    if char.isalpha():
        return _UPPER if char.isupper() else _LOWER if char.islower() else _LETTER
    return 8 + ord(char)


def _padded(hashes: Hashes) -> Hashes:
    padded = np.empty(len(hashes) + 2 * _EDGE, dtype=np.uint64)
    padded[:_EDGE], padded[-_EDGE:] = 1, 2
    padded[_EDGE:-_EDGE] = hashes
    return padded


def _flags(text: str, starts: Ints, stops: Ints) -> Hashes:
    """What stands before and behind each token: nothing, a space, a line's end; whether it is the first or the last."""
    gaps = np.zeros(len(starts) + 1, dtype=np.uint64)
    gaps[1:-1] = starts[1:] > stops[:-1]
    gaps[0] = gaps[-1] = 3
    if "\n" in text:
        lines = np.flatnonzero(np.array([char == "\n" for char in text]))
        behind = lines.searchsorted(stops[:-1])
        gaps[1:-1] += lines.searchsorted(starts[1:]) > behind
    found: Hashes = 16 * gaps[:-1] + gaps[1:]
    return found


class TaggerSettings(msgspec.Struct, frozen=True):
    """What `model.json` holds of a tagger."""

    slots: tuple[Slot, ...]
    writings: tuple[Writing, ...]


class TagRead(NamedTuple):
    """What a tagger found in one text: what each slot says, by path, and which ones hold a piece, by position; the log
    probability of the likeliest tags; the smallest lead over tokens; the summed entropy; how many pieces there are."""

    values: dict[Path, Any]
    filled: list[int]
    log_right: float
    margin: float
    entropy: float
    pieces: int


_NOTHING = TagRead({}, [], 0.0, math.inf, 0.0, 0)


class Tagger:
    """A fitted tagger: a pure function of a text and its reading. Immutable, so thread-safe.

    Arrays, with K = 1 + 2 * kinds tags: `hashes` (V,) sorted; `sparse` (V, K) float16; `words` (E, K), `text` (D, K),
    `bias` (K,), `transitions` (K, K), `start` (K,).
    """

    def __init__(self, settings: TaggerSettings, arrays: Arrays, hasher: TokenHasher) -> None:
        self._settings = settings
        self._hasher = hasher
        self._hashes = arrays[PREFIX + "hashes"]
        sparse = arrays[PREFIX + "sparse"]
        # a last row of zeros for features that are not known
        self._sparse = np.concatenate((sparse.astype(np.float32), np.zeros((1, sparse.shape[1]), dtype=np.float32)))
        self._words = arrays[PREFIX + "words"]
        self._text = arrays[PREFIX + "text"]
        self._bias = arrays[PREFIX + "bias"]
        kinds = kinds_of(settings.slots)
        first, after = follows(1 + max(kinds, default=-1))
        transitions, start = arrays[PREFIX + "transitions"], arrays[PREFIX + "start"]
        self._of_tool: dict[str | None, tuple[Ints, dict[int, int], Chain]] = {}
        for tool in dict.fromkeys(slot.tool for slot in settings.slots):
            asked = {
                kind: at for at, (slot, kind) in enumerate(zip(settings.slots, kinds, strict=True)) if slot.tool == tool
            }
            order = sorted(asked)
            tags = np.array([0, *(tag for kind in order for tag in (1 + 2 * kind, 2 + 2 * kind))], dtype=np.int64)
            chain = Chain(transitions[np.ix_(tags, tags)], start[tags], first[tags], after[np.ix_(tags, tags)])
            self._of_tool[tool] = tags, {at: asked[kind] for at, kind in enumerate(order)}, chain

    def read(self, text: str, reading: Reading, tool: Scalar = None) -> TagRead:
        """The pieces of one text that fill the slots of a tool (None: of the answer itself)."""
        asked = self._of_tool.get(tool if isinstance(tool, str) else None)
        if asked is None:
            return _NOTHING
        tags, slot_of, chain = asked
        text = cut(text)
        places = tokens(text)
        found = chain.decode(self._emissions(text, places, reading, tags))
        pieces = [(slot_of[kind], start, stop) for kind, start, stop in spans_of(found.tags)]
        filled = self._filled(text, places, pieces, found)
        read = sum(map(len, filled.values()))
        doubt = (len(pieces) - read) * UNREAD
        values = {self._settings.slots[at].path: self._said(at, filled.get(at, [])) for at in slot_of.values()}
        return TagRead(values, list(filled), found.log_right + doubt, found.margin, found.entropy, len(pieces))

    def _emissions(self, text: str, places: Sequence[Place], reading: Reading, tags: Ints) -> Floats32:
        """Of each token for each of the tags: (T, len(tags))."""
        hashes = self._hasher.features(text, places)
        total = reading.words(places) @ self._words
        total += reading.vector @ self._text + self._bias
        if len(self._hashes) and len(places):
            rows = self._hashes.searchsorted(hashes)
            known = self._hashes.take(rows, mode="clip") == hashes
            rows[~known] = len(self._hashes)
            total += self._sparse.take(rows, axis=0).sum(axis=1)
        result: Floats32 = total[:, tags] if len(tags) < total.shape[1] else total
        return result

    def _filled(
        self, text: str, places: Sequence[Place], pieces: Sequence[tuple[int, int, int]], found: Decoded
    ) -> dict[int, list[tuple[float, Any]]]:
        """For each slot with pieces their values, each with its least sure token's chance; unreadable pieces not."""
        filled: dict[int, list[tuple[float, Any]]] = {}
        for slot, start, stop in pieces:
            value = self._settings.writings[slot].write(text[places[start][0] : places[stop - 1][1]])
            if value is not None:
                sure = float(found.chances[range(start, stop), found.tags[start:stop]].min())
                filled.setdefault(slot, []).append((sure, value))
        return filled

    def _said(self, at: int, own: list[tuple[float, Any]]) -> Any:
        """What a slot says: all its values, or the likeliest, or what is said where there is none."""
        if self._settings.slots[at].many:
            return [value for _, value in own]
        return max(own, key=lambda each: each[0])[1] if own else self._settings.writings[at].absent
