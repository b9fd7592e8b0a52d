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

import unicodedata

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]

LONGEST_CHARS = 8_000
"""Longer texts are cut in the middle: the first three quarters of this and the last quarter are read."""

PIECE_LENGTHS = (2, 3, 4, 5)

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
        length = 2 * LONGEST_CHARS  # lower-casing may lengthen a text
        self._powers = np.full(length, _BASE, dtype=np.uint64)
        self._powers[0] = 1
        np.cumprod(self._powers, out=self._powers)
        self._inverses = np.full(length, pow(_BASE, -1, 1 << 64), dtype=np.uint64)
        self._inverses[0] = 1
        np.cumprod(self._inverses, out=self._inverses)
        self._ascii_kinds = np.array([_kind(chr(code)) for code in range(128)], dtype=np.uint8)

    def hashes(self, text: str) -> Hashes:
        """One hash per occurrence of a feature in `normalised` text, unsorted; the top bit tells words from pieces."""
        if not text:
            return np.zeros(0, dtype=np.uint64)
        raw = text.encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(raw, dtype=np.uint32)[: len(self._powers) - 1]
        length = len(codes)
        prefix = np.zeros(length + 1, dtype=np.uint64)
        np.cumsum(self._powers[:length] * codes, out=prefix[1:])
        spaces = np.flatnonzero(codes == _SPACE)
        starts, stops = self._pieces(spaces, length)
        word_starts, word_stops = self._words(text, codes)
        if len(word_starts):
            starts = np.concatenate((starts, word_starts, word_starts[:-1]))
            stops = np.concatenate((stops, word_stops, word_stops[1:]))
        result = (prefix[stops] - prefix[starts]) * self._inverses[starts]
        result ^= result >> _HALF
        result *= _MIX
        words = 2 * len(word_starts) - 1
        result &= _REST_BITS
        if words > 0:
            result[-words:] |= _WORD_BIT
        return result

    @staticmethod
    def _pieces(spaces: Ints, length: int) -> tuple[Ints, Ints]:
        """Where the pieces of 2 to 5 characters start and stop (exclusive)."""
        # The furthest stop of a piece from each start: just behind the next space after it.
        limit = np.repeat(spaces[1:] + 1, np.diff(spaces)) if len(spaces) > 1 else np.zeros(0, dtype=np.int64)
        at = np.arange(len(limit))
        starts, stops = [], []
        for size in PIECE_LENGTHS:
            keep = np.flatnonzero(limit - at >= size)
            starts.append(keep)
            stops.append(keep + size)
        return np.concatenate(starts), np.concatenate(stops)

    def _words(self, text: str, codes: Codes) -> tuple[Ints, Ints]:
        """Where words start and stop (exclusive). A pair is hashed from the one's start to the other's stop."""
        if text.isascii():
            kinds = self._ascii_kinds[codes]
        else:
            kinds = np.fromiter(map(_kind, text), dtype=np.uint8, count=len(text))[: len(codes)]
        edge = kinds[1:] != kinds[:-1]
        alone = kinds == _ALONE
        inside = kinds != _SEPARATOR
        # Texts start and end with a space, so the first character never starts a word and the last never ends one.
        starts = np.flatnonzero(inside[1:] & (edge | alone[1:])) + 1
        stops = np.flatnonzero(inside[:-1] & (edge | alone[:-1])) + 1
        return starts, stops
