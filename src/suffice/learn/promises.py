"""What can be promised, by the references at hand: told on train and tune, before any label of the proof is read."""

from __future__ import annotations

from collections.abc import Sequence

from suffice.core.errors import InputError
from suffice.core.types import Example, Promise, Reference, Splits
from suffice.core.values import canonical


def promise(found: Sequence[Example], splits: Splits) -> tuple[Promise, Reference]:
    """What can be promised of these examples, and the reference's name.

    Raises InputError where calibration and test mix trusted answers of two kinds.
    """
    kinds = {example.reference_kind for example in found if example.has_reference}
    if not kinds:
        return "agreement", "frontier"
    in_proof = {e.reference_kind for part in (splits.calibration, splits.test) for e in part if e.has_reference}
    if len(in_proof) > 1:
        raise InputError("trusted answers of kind human and rule are mixed: import one kind, or make them one")
    kind: Reference = in_proof.pop() if in_proof else next(iter(kinds))
    return ("absolute" if undisputed(found, [*splits.train, *splits.tune]) else "signed"), kind


def likely(found: Sequence[Example]) -> Promise:
    """The promise to plan for before there are splits; the one that takes most examples, where it is not clear."""
    if not any(example.has_reference for example in found):
        return "agreement"
    return "absolute" if undisputed(found, found) else "signed"


def undisputed(found: Sequence[Example], compared: Sequence[Example]) -> bool:
    """Every example has a trusted answer, and among `compared` the frontier's recorded one is never another."""
    return all(example.has_reference for example in found) and not any(
        example.has_output and canonical(example.output) != canonical(example.reference) for example in compared
    )
