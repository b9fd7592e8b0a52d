"""Whether what an answer says stands in its input: a text as a piece of it, a number in some writing.

What stands there can be found by a tagger; what does not has to be worked out, and no specialist does that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from suffice.core.types import OutputContract
from suffice.core.values import Value
from suffice.learn.places import leaves
from suffice.specialists.writings import ONES, TENS, WORDS

PIECES = 0.9
"""From this share of answers that stand in their input on, an open field is a piece of the input."""
MOST_ITEMS = 4_000
MOST_CHARS = 20_000_000
"""Items that are looked for, and characters that they are looked for in; what is left out is left out evenly."""

_DIGITS = re.compile(r"\d{1,3}(?:[,.'\u2019\u00a0\u202f ]\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?")
_MARKS = str.maketrans("", "", "'\u2019\u00a0\u202f ")
_WORD = re.compile(rf"\b(?:({'|'.join(TENS)})[- ]({'|'.join(ONES[1:10])})|{'|'.join(sorted(WORDS))})\b")


def is_piece(text: str, item: Value) -> bool:
    """Whether `item` is a text that stands in `text`, whole words of it, but for case and white space."""
    if not isinstance(item, str) or not item:
        return False
    wanted, whole = " ".join(item.casefold().split()), text.casefold()
    if not wanted:
        return False
    return _stands(whole, wanted) or ((wanted != item or "\n" in whole) and _stands(" ".join(whole.split()), wanted))


def _stands(text: str, item: str) -> bool:
    start = text.find(item)
    while start >= 0:
        end = start + len(item)
        before = start > 0 and _joined(text[start - 1], item[0])
        if not before and not (end < len(text) and _joined(item[-1], text[end])):
            return True
        start = text.find(item, start + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two characters beside each other are in one word; ideographs and the like stand alone."""
    if left.isdigit() or right.isdigit():
        return left.isdigit() and right.isdigit()
    return left.isalpha() and right.isalpha() and left < "\u2e80" and right < "\u2e80"


def numbers_in(text: str) -> set[float]:
    """Every number that stands in a text in some writing: digits, with separators of thousands or a decimal comma, and
    English number words below a hundred. What may be read in two ways is both."""
    found: set[float] = set()
    for match in _DIGITS.finditer(text):
        written = match.group().translate(_MARKS)
        readings = {written.replace(",", ""), written.replace(".", "").replace(",", ".")}
        if "," in written or "." in written:
            readings |= {written.replace(",", "").replace(".", "")}
            if not re.fullmatch(r"\d{1,3}(?:[,.]\d{3})+(?:[.,]\d+)?", written):
                readings |= set(re.split("[,.]", written))
        values = {float(reading) for reading in readings if re.fullmatch(r"\d+(?:\.\d+)?", reading)}
        found |= values
        if text[max(match.start() - 1, 0) : match.start()] in ("-", "\u2212"):
            found |= {-value for value in values}
    for match in _WORD.finditer(text.casefold()):
        found.add(float(WORDS[match[1]] + WORDS[match[2]] if match[1] else WORDS[match.group()]))
    return found


def stands(text: str, item: Value) -> bool:
    """Whether what an answer says, a text or a number, stands in the input."""
    if isinstance(item, int | float) and not isinstance(item, bool):
        return any(abs(number - item) <= 1e-9 * max(1.0, abs(item)) for number in numbers_in(text))
    return is_piece(text, item)


def share(pairs: Sequence[tuple[str, Value]]) -> float:
    """The share of (input, item) pairs whose item stands in its input; 0 without any. Of many, some are looked at."""
    looked_at = [pairs[i] for i in some([len(text) for text, _ in pairs])]
    return sum(stands(text, item) for text, item in looked_at) / len(looked_at) if looked_at else 0.0


def some(sizes: Sequence[int], most_items: int = MOST_ITEMS, fewest: int = 200) -> list[int]:
    """Positions of a bounded part of things of these sizes: one at random (fixed seed) of each of equal stretches."""
    n = len(sizes)
    if n <= fewest:
        return list(range(n))
    most = min(most_items, max(fewest, int(MOST_CHARS / max(float(np.mean(sizes)), 1.0))))
    if n <= most:
        return list(range(n))
    edges = np.linspace(0, n, most + 1).astype(int)
    found: list[int] = np.random.default_rng(0).integers(edges[:-1], edges[1:]).tolist()
    return found


def looked_at(inputs: Sequence[str], values: Sequence[Value]) -> list[int]:
    """Which rows are looked at where not all need be. Raises ValueError unless there is an input for each answer."""
    if len(inputs) != len(values):
        raise ValueError(f"{len(inputs)} inputs for {len(values)} answers")
    answers = [len(value) if isinstance(value, str) else 50 for value in values]
    return some([len(text) + size for text, size in zip(inputs, answers, strict=True)])


def by_place(
    contract: OutputContract, texts: Sequence[str], answers: Sequence[Value], kinds: tuple[type, ...]
) -> dict[str, list[tuple[str, Value]]]:
    """(input, item) for each item that stands where the contract has one of `kinds`, by place."""
    found: dict[str, list[tuple[str, Value]]] = {}
    for text, answer in zip(texts, answers, strict=True):
        for where, leaf, item in leaves(contract, answer):
            if isinstance(leaf, kinds):
                found.setdefault(where, []).append((text, item))
    return found


def items(rows: Sequence[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """The rows, lists taken apart."""
    for text, value in rows:
        for item in value if isinstance(value, list) else [value]:
            yield text, item
