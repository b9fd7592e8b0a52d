"""What an encoder is tuned to say: the classes of each closed question, and the tags of each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.types import Example, OutputContract
from suffice.specialists.apart import NOT_ASKED, Apart, TakenApart
from suffice.specialists.embedding import cut
from suffice.specialists.pieces import (
    OUTSIDE,
    Place,
    Slot,
    kinds_of,
    learned_writings,
    located,
    tags_of,
    tokenised,
)

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]


class Tagged(NamedTuple):
    """One row's tokens: where they stand (characters), and the tag of each."""

    places: list[Place]
    tags: Ints


class Targets(NamedTuple):
    """For n rows: per question of three answers or more its class (n,); yes/no questions (n, K); tags, or None each.

    NOT_ASKED stands where a row says nothing. Questions that train answers in one way only are left out.
    """

    classes: list[Ints]
    sizes: list[int]
    yes_no: Bytes
    tagged: list[Tagged | None]
    tags: int

    @property
    def anything(self) -> bool:
        """Whether there is something to learn."""
        return bool(self.sizes) or self.yes_no.shape[1] > 0 or self.tags > 1


def targets_of(contract: OutputContract, train: Sequence[Example]) -> Targets:
    """The targets of all of train's rows. A row whose pieces do not stand in its input has no tags."""
    classes: list[Ints] = []
    sizes: list[int] = []
    pairs: list[Bytes] = []
    apart = Apart(contract)
    taken = [apart.of(example.target) for example in train]
    codes = np.full((len(train), len(apart.heads)), NOT_ASKED, dtype=np.int32)
    for row, each in enumerate(taken):
        if each.codes is not None:
            codes[row] = each.codes
    for own in codes.T:
        present = np.unique(own[own != NOT_ASKED])
        if len(present) < 2:
            continue
        classed = np.where(own != NOT_ASKED, np.searchsorted(present, own), NOT_ASKED)
        if len(present) == 2:
            pairs.append(classed.astype(np.int8))
        else:
            classes.append(classed)
            sizes.append(len(present))
    yes_no = np.stack(pairs, axis=1) if pairs else np.zeros((len(train), 0), dtype=np.int8)
    tagged, tags = _tagged(apart.slots, train, taken)
    return Targets(classes, sizes, yes_no, tagged, tags)


def _tagged(
    slots: Sequence[Slot], train: Sequence[Example], taken: Sequence[TakenApart]
) -> tuple[list[Tagged | None], int]:
    """Each row's tags, and how many there are (0: the contract has no open question, or train never answers one)."""
    nothing: tuple[list[Tagged | None], int] = [None] * len(train), 0
    if not slots:
        return nothing
    tools = {slot.tool for slot in slots}
    asked = [answer.codes is not None and answer.tool in tools for answer in taken]
    texts = [tokenised(cut(example.input)) for example in train]
    rows = [(text, answer.values) for text, answer, own in zip(texts, taken, asked, strict=True) if own]
    writings = learned_writings(slots, rows)
    kinds = kinds_of(slots)
    found: list[Tagged | None] = []
    for text, answer, own in zip(texts, taken, asked, strict=True):
        pieces = located(slots, writings, answer.values, text) if own and text.places else None
        tags = None if pieces is None else tags_of(pieces, kinds, len(text.places))
        found.append(None if tags is None else Tagged(text.places, tags))
    if all(row is None or bool((row.tags == OUTSIDE).all()) for row in found):
        return nothing
    return found, 1 + 2 * (max(kinds) + 1)
