"""Rows for fitting: each answer as the position of what it says to each head, and what it says to each slot; folds.

As little as fits and loops need: a contract may have thousands of labels, and a train thousands of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from suffice.core.types import OutputContract, ToolCall
from suffice.core.values import Value, canonical
from suffice.specialists.heads import Path, answers, heads_of, index_of
from suffice.specialists.pieces import slots_of

Codes = npt.NDArray[np.int32]

T = TypeVar("T")

NOT_ASKED = -1
FOLDS = 3
_SAID = {value: canonical(value) for value in (False, True)}


class TakenApart(NamedTuple):
    """One answer. `codes` (heads,) are the positions among each head's values, NOT_ASKED where it is not asked or
    answers none of them; None where the answer has another shape than the contract. `values` are what the slots hold,
    by path; `tool` is the one that is called."""

    codes: Codes | None
    values: dict[Path, object]
    tool: str | None


class Apart:
    """Takes answers of one contract apart."""

    def __init__(self, contract: OutputContract) -> None:
        self._contract = contract
        self.slots = slots_of(contract)
        self.heads = heads_of(contract)
        self._known = [index_of(head) for head in self.heads]
        self._tools = isinstance(contract, ToolCall)

    def of(self, answer: Value) -> TakenApart:
        """One answer, taken apart."""
        given = answers(self._contract, answer)
        if given is None:
            return TakenApart(None, {}, None)
        tool = given.get(()) if self._tools else None
        codes = np.full(len(self.heads), NOT_ASKED, dtype=np.int32)
        for at, (head, known) in enumerate(zip(self.heads, self._known, strict=True)):
            if head.path in given and (head.tool is None or head.tool == tool):
                said = given[head.path]
                codes[at] = known.get(_SAID[said] if isinstance(said, bool) else canonical(said), NOT_ASKED)
        return TakenApart(codes, {slot.path: given.get(slot.path) for slot in self.slots}, tool)


def folds(rows: Sequence[T], unit: Callable[[T], str]) -> list[tuple[list[T], list[T]]]:
    """Thirds of `rows`, each as (the two others, it); rows of one unit are never on both sides."""
    units = [unit(row) for row in rows]
    third = {each: position % FOLDS for position, each in enumerate(sorted(set(units)))}
    place = [third[each] for each in units]
    return [
        (
            [row for row, at in zip(rows, place, strict=True) if at != fold],
            [row for row, at in zip(rows, place, strict=True) if at == fold],
        )
        for fold in range(FOLDS)
    ]
