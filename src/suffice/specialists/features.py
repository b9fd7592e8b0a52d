"""From a text to what a linear model reads: words, pairs and pieces of words. One path for fit and predict.

A feature is known by a 64-bit hash of its characters, so a vocabulary is one sorted array instead of a dictionary of
strings: a tenth of the memory, and a whole text is looked up with a few array operations. The hash is
`sum(c_j * B**j) mod 2**64` over the characters' code points; since B is odd it can be read off prefix sums for any
substring. Two n-grams collide with a chance of about 2**-64.

Text is lower-cased and its white space collapsed; accents and punctuation stay. A word is a run of letters, digits and
combining marks; an ideograph or kana is a word by itself, for such scripts write no spaces. Pieces are the n-grams of
2 to 5 characters that do not cross a space, the space at either end included (scikit-learn calls them `char_wb`).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Floats32 = npt.NDArray[np.float32]

LONGEST_CHARS = 8_000
"""Longer texts are cut in the middle: the first three quarters of this and the last quarter are read."""

PIECE_LENGTHS = (2, 3, 4, 5)
_LENGTHS = np.array(PIECE_LENGTHS)[:, None]

_BASE = 0x9E3779B97F4A7C15
_SEPARATOR, _LETTER, _ALONE = 0, 1, 2
_SPACE = 32
_WORD_BIT = np.uint64(1 << 63)
_REST_BITS = np.uint64((1 << 63) - 1)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def normalised(text: str) -> str:
    """`text` in lower case, white space collapsed, cut to LONGEST_CHARS, one space before and after; "" if blank."""
    if len(text) > LONGEST_CHARS:
        tail = LONGEST_CHARS // 4
        text = text[: LONGEST_CHARS - tail] + " " + text[-tail:]
    words = text.lower().split()
    return f" {' '.join(words)} " if words else ""


def _kind(char: str) -> int:
    code = ord(char)
    if 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF:
        return _ALONE
    return _LETTER if unicodedata.category(char)[0] in "LNM" or char == "_" else _SEPARATOR


class Hasher:
    """Hashes of all features of a text. Holds constant tables only: make one and share it."""

    def __init__(self) -> None:
        length = 3 * LONGEST_CHARS + 3  # lower-casing makes at most three code points of one
        self._powers = np.full(length, _BASE, dtype=np.uint64)
        self._powers[0] = 1
        np.cumprod(self._powers, out=self._powers)
        self._inverses = np.full(length, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
        self._inverses[0] = 1
        np.cumprod(self._inverses, out=self._inverses)
        self._ascii_inside = np.array([_kind(chr(code)) == _LETTER for code in range(128)])

    def hashes(self, text: str) -> Hashes:
        """One hash per occurrence of a feature in `normalised` text, unsorted; the top bit tells words from pieces."""
        if not text:
            return np.zeros(0, dtype=np.uint64)
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        prefix = np.zeros(len(codes) + 1, dtype=np.uint64)
        (self._powers[: len(codes)] * codes).cumsum(out=prefix[1:])
        starts, stops = self._pieces((codes == _SPACE).nonzero()[0])
        pieces = len(starts)
        word_starts, word_stops = self._words(text, codes)
        starts = np.concatenate((starts, word_starts, word_starts[:-1]))
        stops = np.concatenate((stops, word_stops, word_stops[1:]))
        result = (prefix[stops] - prefix[starts]) * self._inverses[starts]
        # A product mod 2**64 mixes upwards only: fold the upper half down and multiply again.
        result ^= result >> _HALF
        result *= _MIX
        result &= _REST_BITS
        result[pieces:] |= _WORD_BIT
        return result

    @staticmethod
    def _pieces(spaces: Ints) -> tuple[Ints, Ints]:
        """Where the pieces of 2 to 5 characters start and stop (exclusive)."""
        # A piece ends at the latest just behind the next space after its start: `room` is its longest length.
        room = (spaces[1:] + 1).repeat(spaces[1:] - spaces[:-1]) - np.arange(spaces[-1])
        size, starts = (room >= _LENGTHS).nonzero()
        return starts, starts + size + PIECE_LENGTHS[0]

    def _words(self, text: str, codes: Codes) -> tuple[Ints, Ints]:
        """Where words start and stop (exclusive). A pair is hashed from the one's start to the other's stop."""
        # Texts start and end with a space, so every word has an edge on both sides.
        if text.isascii():
            inside = self._ascii_inside[codes]
            edges = (inside[1:] != inside[:-1]).nonzero()[0] + 1
            return edges[::2], edges[1::2]
        kinds = np.fromiter(map(_kind, text), dtype=np.uint8, count=len(text))[: len(codes)]
        edge = kinds[1:] != kinds[:-1]
        alone = kinds == _ALONE
        inside = kinds != _SEPARATOR
        starts = (inside[1:] & (edge | alone[1:])).nonzero()[0] + 1
        stops = (inside[:-1] & (edge | alone[:-1])).nonzero()[0] + 1
        return starts, stops


class Vocabulary:
    """Which features count, and how much: sorted hashes (V,), their inverse document frequencies (V,) float32."""

    def __init__(self, hashes: Hashes, weights: Floats32) -> None:
        self.hashes = hashes
        self.weights = weights
        self._words_from = int(hashes.searchsorted(_WORD_BIT))
        # 1 + log(count) for every count that a text of the longest length can reach
        self._damped = (1 + np.log(np.maximum(np.arange(3 * LONGEST_CHARS), 1))).astype(np.float32)

    def read(self, hashes: Hashes) -> tuple[Ints, Floats32, float]:
        """Known rows (ascending), their TF-IDF values with pieces and words each of length 1, and the share known."""
        if not len(hashes) or not len(self.hashes):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 0.0
        # Sorted, neighbours are looked up near each other, and a repeated feature stands beside itself.
        hashes = np.sort(hashes)
        at = self.hashes.searchsorted(hashes)
        rows = at[self.hashes.take(at, mode="clip") == hashes]
        known = len(rows) / len(hashes)
        if not len(rows):
            return rows, np.zeros(0, dtype=np.float32), 0.0
        last = np.empty(len(rows), dtype=bool)
        last[-1] = True
        np.not_equal(rows[1:], rows[:-1], out=last[:-1])
        ends = last.nonzero()[0]
        if len(ends) < len(rows):
            rows = rows[ends]
            counts = ends.copy()
            counts[0] += 1
            counts[1:] -= ends[:-1]
            values = self.weights.take(rows)
            values *= self._damped.take(counts, mode="clip")
        else:
            values = self.weights.take(rows)
        split = int(rows.searchsorted(self._words_from))
        for part in (values[:split], values[split:]):
            if len(part):
                part /= np.float32(math.sqrt(float(part @ part)))
        return rows, values, known


def build_vocabulary(texts: Sequence[Hashes], fewest: int, most: int) -> Vocabulary:
    """The `most` features that occur in the most texts (at least `fewest`); ties go by hash, so that it reproduces."""
    per_text = [np.unique(hashes) for hashes in texts]
    every, counts = np.unique(np.concatenate(per_text), return_counts=True)
    keep = counts >= fewest
    every, counts = every[keep], counts[keep]
    if len(every) > most:
        chosen = np.sort(np.lexsort((every, -counts))[:most])
        every, counts = every[chosen], counts[chosen]
    weights = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
    return Vocabulary(every, weights)
