"""What this Python's Unicode tables say of each character, as arrays: the exported graph must read text as the server
does, wherever it runs and whichever version of Unicode is known there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.specialists.features import _kind as kind_of

Ints = npt.NDArray[np.int64]

CODES = 0x110000
PAGE = 256
PLANE = 0x10000
_MIXED = (0x00000, 0x10000, 0xE0000)
"""The planes whose characters differ from each other."""
SIGMA, FINAL_SIGMA = 0x3A3, 0x3C2
DOTTED_I, DOT_ABOVE = 0x130, 0x307
"""The one character that becomes two in lower case, and the second of them."""
OTHER, CASED, IGNORED = 0, 1, 2
"""What a character means to a capital sigma beside it, whose small form depends on where in a word it stands."""


class Pages(NamedTuple):
    """A property of all characters: that of c is `values[blocks[pages[c // PAGE], c % PAGE]]`; blocks repeat."""

    pages: Ints
    blocks: Ints
    values: Ints


def paged(of: Callable[[str], int]) -> Pages:
    """`of` for every character there may be, halves of surrogate pairs among them.

    Planes that hold ideographs, private characters or nothing are asked about by their first character.
    """
    every = np.empty(CODES, dtype=np.int64)
    for start in range(0, CODES, PLANE):
        if start in _MIXED:
            every[start : start + PLANE] = [of(chr(code)) for code in range(start, start + PLANE)]
        else:
            every[start : start + PLANE] = of(chr(start))
    values, places = np.unique(every, return_inverse=True)
    blocks, pages = np.unique(places.reshape(-1, PAGE), axis=0, return_inverse=True)
    return Pages(pages.reshape(-1).astype(np.int64), blocks.astype(np.int64), values)


def lowered(char: str) -> int:
    """What is added to a character's code to get its small form."""
    return ord(char.lower()[0]) - ord(char)


def kind(char: str) -> int:
    """Whether it separates words, is part of one, or stands for one by itself; 3 for white space."""
    return 3 if char.isspace() else kind_of(char)


def beside_sigma(char: str) -> int:
    """Probed, since the tables themselves are not to be had: a capital sigma is final behind a cased character."""
    if (f"a{char}\u03a3").lower()[-1] != "\u03c2":
        return OTHER
    return IGNORED if (f"1{char}\u03a3").lower()[-1] != "\u03c2" else CASED


def grows() -> list[int]:
    """The characters that become several in lower case."""
    return [code for start in _MIXED for code in range(start, start + PLANE) if len(chr(code).lower()) > 1]
