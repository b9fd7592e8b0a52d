"""Which input decides: the saving at each one's low and high, and the value that makes another architecture cheaper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from suffice.plan import solve
from suffice.plan.costs import Ledger
from suffice.plan.inputs import Inputs
from suffice.plan.result import Architecture, Flip
from suffice.plan.units import Plain

NOTHING = 1e-6
"""A saving that moves by less than this share of itself does not depend on the input."""


def sensitivity(inputs: Inputs, chosen: Architecture, other: Architecture | None = None) -> tuple[Flip, ...]:
    """One row for each input that the saving of `chosen` depends on, the widest first.

    The saving, in US dollars over all months, building included, is against `other`: left out, against the frontier,
    and of the frontier against a hybrid.
    """
    against: Architecture = other or ("hybrid" if chosen == "frontier" else "frontier")
    saving = _saving(chosen, against)
    flips = [_flip(inputs, name, saving, against) for name in inputs.numbers]
    found = [flip for flip in flips if flip is not None]
    return tuple(sorted(found, key=lambda flip: -abs(flip.saving_usd_at_high - flip.saving_usd_at_low)))


def _saving(chosen: Architecture, against: Architecture) -> Callable[[Ledger], Plain]:
    def saving(shown: Ledger) -> Plain:
        return np.asarray((shown.usd(against) - shown.usd(chosen)).sum(axis=1))

    return saving


def _flip(inputs: Inputs, name: str, saving: Callable[[Ledger], Plain], against: Architecture) -> Flip | None:
    band = inputs.numbers[name].band
    at_low, at_high = np.broadcast_to(saving(solve.at(inputs, name, np.array([band.low, band.high]))), (2,))
    value = solve.root(inputs, name, saving)
    if value is None and abs(at_high - at_low) <= NOTHING * max(abs(at_low), abs(at_high)):
        return None
    return Flip(
        input=name,
        band=band,
        saving_usd_at_low=float(at_low),
        saving_usd_at_high=float(at_high),
        flips_at=value,
        flips_to=against if value is not None else None,
    )
