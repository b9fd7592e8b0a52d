"""Open questions: which pieces of the input an answer copies, and where they stand.

A text is split into tokens so fine that values begin and end at their edges: letters, digits, and each other mark by
itself; in scripts that write no spaces between words, and in Hangul, every syllable. An answer's values are found among
the tokens without regard to case and white space. What this does not know: pieces that overlap each other.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.types import Fields, Many, Number, OutputContract, Span, ToolCall
from suffice.specialists.writings import LARGE, SCALES, WORDS, Scalar, Writing, folded, learned_form

Path = tuple[str, ...]
Place = tuple[int, int]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

OUTSIDE = 0
"""The tag of tokens in no piece; kind k's pieces begin with the tag 1 + 2k and go on with 2 + 2k."""
_LEARNED_FROM = 2_000
"""Rows that a writing is learned from."""

_ASCII = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")
_ALONE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)


@cache
def _any_script() -> re.Pattern[str]:
    """The pattern of a token. Combining marks belong to the letter before them; `re` has no class for them."""
    marks = [chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M"]
    mark = f"[{''.join(marks)}]*"
    return re.compile(rf"[{_ALONE}]{mark}|(?:[^\W\d_{_ALONE}]{mark})+|\d+|\S")


def tokens(text: str) -> list[Place]:
    """Where the tokens of a text start and stop (exclusive), in characters."""
    pattern = _ASCII if text.isascii() else _any_script()
    return [match.span() for match in pattern.finditer(text)]


# ---------------------------------------------------------------------------------------------- slots


class Slot(msgspec.Struct, frozen=True):
    """One open question: where its answer stands, the tool that must be called for it, and what it takes."""

    path: Path
    tool: str | None = None
    many: bool = False
    number: bool = False


def slots_of(contract: OutputContract) -> tuple[Slot, ...]:
    """All open questions of a supported contract, in a fixed order; none for a closed one."""
    if not isinstance(contract, ToolCall):
        return tuple(dict.fromkeys(_slots(contract, ())))
    found = ((name, slot) for name, inner in contract.tools for slot in _slots(inner, (name,)))
    return tuple(dict.fromkeys(msgspec.structs.replace(slot, tool=name) for name, slot in found))


def _slots(contract: OutputContract, path: Path) -> Iterator[Slot]:
    if isinstance(contract, Fields):
        for name, inner in contract.fields:
            yield from _slots(inner, (*path, name))
        return
    many = isinstance(contract, Many)
    item = contract.of if isinstance(contract, Many) else contract
    if isinstance(item, Span | Number):
        yield Slot(path, None, many, isinstance(item, Number))


def kinds_of(slots: Sequence[Slot]) -> list[int]:
    """What kind of piece each slot is filled from: arguments of the same name in several tools share one."""
    keys = [(slot.path[1:] if slot.tool is not None else slot.path, slot.number) for slot in slots]
    order = {key: kind for kind, key in enumerate(dict.fromkeys(keys))}
    return [order[key] for key in keys]


# ---------------------------------------------------------------------------------------------- location


class Piece(NamedTuple):
    """A piece of a text: the position of its slot, and its first token and the one behind its last."""

    slot: int
    start: int
    stop: int


class Tokenised(NamedTuple):
    """A text with its tokens, and each token without case."""

    text: str
    places: list[Place]
    keys: list[str]

    def piece(self, start: int, stop: int) -> str:
        """The text of some tokens."""
        return self.text[self.places[start][0] : self.places[stop - 1][1]]


def tokenised(text: str) -> Tokenised:
    """`text` with its tokens."""
    places = tokens(text)
    return Tokenised(text, places, [text[start:stop].casefold() for start, stop in places])


def located(
    slots: Sequence[Slot], writings: Sequence[Writing], values: Mapping[Path, object], text: Tokenised
) -> list[Piece] | None:
    """Where the values of one answer (by slot path) stand in its input: leftmost, no two overlapping, lists in order.

    Long values choose before short ones. None if some value does not stand in the text. A value that is said where
    nothing is found (`Writing.absent`) needs no piece.
    """
    wanted: list[tuple[int, list[Scalar]]] = []
    for position, (slot, writing) in enumerate(zip(slots, writings, strict=True)):
        items = [item for item in items_of(values.get(slot.path)) if item != writing.absent]
        if items:
            wanted.append((position, items))
    wanted.sort(key=lambda each: -max(len(str(item)) for item in each[1]))
    free = np.ones(len(text.places), dtype=bool)
    found: list[Piece] = []
    for position, items in wanted:
        places = _in_order(items, slots[position], writings[position], text, free)
        if places is None:
            return None
        found += [Piece(position, start, stop) for start, stop in places]
    return sorted(found, key=lambda piece: piece.start)


def items_of(value: object) -> list[Scalar]:
    """The items of a slot's value: of a list its own, nothing for an absent one."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str | int | float) and item != ""]


def _in_order(
    items: Sequence[Scalar], slot: Slot, writing: Writing, text: Tokenised, free: Bools
) -> list[Place] | None:
    """Places of the items, each behind the one before if they stand so, else wherever they stand."""
    for ordered in (True, False) if len(items) > 1 else (True,):
        taken, places, behind = free.copy(), [], 0
        for item in items:
            place = _first(item, slot, writing, text, taken, behind if ordered else 0)
            if place is None:
                break
            taken[place[0] : place[1]] = False
            places.append(place)
            behind = place[1]
        else:
            free[:] = taken
            return places
    return None


def _first(item: Scalar, slot: Slot, writing: Writing, text: Tokenised, free: Bools, behind: int) -> Place | None:
    """The first free tokens from `behind` on that say `item`."""
    if slot.number:
        return next((place for place in _saying(item, writing, text, behind) if free[place[0] : place[1]].all()), None)
    wanted = tokenised(str(item)).keys
    if not wanted or isinstance(item, bool):
        return None
    for start in range(behind, len(text.keys) - len(wanted) + 1):
        if text.keys[start] == wanted[0] and text.keys[start : start + len(wanted)] == wanted:
            stop = start + len(wanted)
            if free[start:stop].all():
                return start, stop
    return _first_compact(folded(str(item)), text, free, behind)


def _first_compact(wanted: str, text: Tokenised, free: Bools, behind: int) -> Place | None:
    """The first free tokens that make up `wanted` when spaces and marks are dropped."""
    if not wanted:
        return None
    for start in range(behind, len(text.keys)):
        if not wanted.startswith(text.keys[start]) or not free[start]:
            continue
        said = ""
        for stop in range(start, len(text.keys)):
            said += folded(text.keys[stop])
            if not wanted.startswith(said) or not free[stop]:
                break
            if said == wanted:
                return start, stop + 1
    return None


def _saying(value: Scalar, writing: Writing, text: Tokenised, behind: int) -> Iterator[Place]:
    """Tokens from `behind` on that say a number, the longest from each start first."""
    for start in range(behind, len(text.keys)):
        if not _begins(text, start):
            continue
        for stop in range(min(len(text.keys), start + 8), start, -1):
            if writing.says(text.piece(start, stop), value):
                yield start, stop
                break


def _begins(text: Tokenised, at: int) -> bool:
    """Whether a number may begin at a token."""
    key = text.keys[at]
    if key[0] in "-+−":
        return at + 1 < len(text.keys) and text.keys[at + 1][0].isdigit() and (at == 0 or _apart(text, at))
    return key[0].isdigit() or key in WORDS or key in LARGE


def _apart(text: Tokenised, at: int) -> bool:
    return text.places[at - 1][1] < text.places[at][0]


# ---------------------------------------------------------------------------------------------- writings


def learned_writings(slots: Sequence[Slot], rows: Sequence[tuple[Tokenised, Mapping[Path, object]]]) -> list[Writing]:
    """How each slot's values are written, from texts with their answers (by slot path). Reads the first 2,000."""
    return [_learned(slot, rows[:_LEARNED_FROM]) for slot in slots]


def _learned(slot: Slot, rows: Sequence[tuple[Tokenised, Mapping[Path, object]]]) -> Writing:
    said = [(text, item) for text, values in rows for item in items_of(values.get(slot.path))]
    if slot.number:
        numbers = [item for _, item in said if isinstance(item, int | float) and not isinstance(item, bool)]
        floating = bool(numbers) and all(isinstance(item, float) for item in numbers)
        options = [
            Writing(number=True, decimal=decimal, scale=scale, floating=floating)
            for scale in SCALES
            for decimal in ".,"
        ]
        hits = [sum(_stands(item, slot, option, text) is not None for text, item in said) for option in options]
        best = options[hits.index(max(hits))]
        return msgspec.structs.replace(best, absent=_absent(slot, best, said))
    plain = Writing()
    pairs = []
    for text, item in said:
        place = _stands(item, slot, plain, text)
        if place is not None and isinstance(item, str):
            pairs.append((text.piece(*place), " ".join(item.split())))
    form, exceptions = learned_form(pairs)
    return Writing(form=form, exceptions=exceptions, absent=_absent(slot, plain, said))


def _stands(item: Scalar, slot: Slot, writing: Writing, text: Tokenised) -> Place | None:
    return _first(item, slot, writing, text, np.ones(len(text.places), dtype=bool), 0)


def _absent(slot: Slot, writing: Writing, said: Sequence[tuple[Tokenised, Scalar]]) -> Scalar:
    """What is said where the text holds no such piece ("unknown", 1): the commonest of what stands in no text."""
    if slot.many:
        return None
    missing = Counter(item for text, item in said if _stands(item, slot, writing, text) is None)
    if not missing:
        return None
    value, count = missing.most_common(1)[0]
    return value if count >= 2 and 2 * count >= missing.total() else None


# ---------------------------------------------------------------------------------------------- tags


def tags_of(pieces: Sequence[Piece], kinds: Sequence[int], count: int) -> Ints:
    """The tag of each of `count` tokens."""
    tags = np.zeros(count, dtype=np.int64)
    for piece in pieces:
        tags[piece.start : piece.stop] = 2 + 2 * kinds[piece.slot]
        tags[piece.start] -= 1
    return tags


def spans_of(tags: Sequence[int]) -> list[tuple[int, int, int]]:
    """The way back: (kind, first token, behind the last) of each piece, in order."""
    found: list[tuple[int, int, int]] = []
    for at, tag in enumerate(tags):
        if tag == OUTSIDE:
            continue
        kind, inside = divmod(tag - 1, 2)
        if inside and found and found[-1][0] == kind and found[-1][2] == at:
            found[-1] = (kind, found[-1][1], at + 1)
        else:
            found.append((kind, at, at + 1))
    return found


def follows(kinds: int) -> tuple[Bools, Bools]:
    """Which tags may begin a text (K,), and which may stand behind which (K, K): a piece goes on only where it is."""
    count = 1 + 2 * kinds
    first = np.ones(count, dtype=bool)
    first[2::2] = False
    after = np.ones((count, count), dtype=bool)
    after[:, 2::2] = False
    for kind in range(kinds):
        after[1 + 2 * kind : 3 + 2 * kind, 2 + 2 * kind] = True
    return first, after
