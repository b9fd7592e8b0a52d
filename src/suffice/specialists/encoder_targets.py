"""What an encoder is tuned to say: the classes of each closed question, and the tags of each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.types import Example, OutputContract
from suffice.core.values import canonical
from suffice.specialists.embedding import cut
from suffice.specialists.heads import Answers, answers, heads_of, index_of
from suffice.specialists.pieces import (
    OUTSIDE,
    Place,
    kinds_of,
    learned_writings,
    located,
    slots_of,
    tags_of,
    tokenised,
)

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.int8]

NOT_ASKED = -1


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
    given = [answers(contract, example.target) for example in train]
    for head in heads_of(contract):
        index = index_of(head)
        own = np.full(len(train), NOT_ASKED, dtype=np.int64)
        for row, answer in enumerate(given):
            if answer is not None and head.path in answer and (head.tool is None or answer.get(()) == head.tool):
                own[row] = index.get(canonical(answer[head.path]), NOT_ASKED)
        present = np.unique(own[own != NOT_ASKED])
        if len(present) < 2:
            continue
        own = np.where(own != NOT_ASKED, np.searchsorted(present, own), NOT_ASKED)
        if len(present) == 2:
            pairs.append(own.astype(np.int8))
        else:
            classes.append(own)
            sizes.append(len(present))
    yes_no = np.stack(pairs, axis=1) if pairs else np.zeros((len(train), 0), dtype=np.int8)
    tagged, tags = _tagged(contract, train, given)
    return Targets(classes, sizes, yes_no, tagged, tags)


def _tagged(
    contract: OutputContract, train: Sequence[Example], given: Sequence[Answers | None]
) -> tuple[list[Tagged | None], int]:
    """Each row's tags, and how many there are (0: the contract has no open question, or train never answers one)."""
    slots = slots_of(contract)
    nothing: tuple[list[Tagged | None], int] = [None] * len(train), 0
    if not slots:
        return nothing
    tools = {slot.tool for slot in slots}
    asked = [values is not None and (values.get(()) if None not in tools else None) in tools for values in given]
    texts = [tokenised(cut(example.input)) for example in train]
    rows = [(text, values or {}) for text, values, own in zip(texts, given, asked, strict=True) if own]
    writings = learned_writings(slots, rows)
    kinds = kinds_of(slots)
    found: list[Tagged | None] = []
    for text, values, own in zip(texts, given, asked, strict=True):
        pieces = located(slots, writings, values or {}, text) if own and text.places else None
        tags = None if pieces is None else tags_of(pieces, kinds, len(text.places))
        found.append(None if tags is None else Tagged(text.places, tags))
    if all(row is None or bool((row.tags == OUTSIDE).all()) for row in found):
        return nothing
    return found, 1 + 2 * (max(kinds) + 1)
