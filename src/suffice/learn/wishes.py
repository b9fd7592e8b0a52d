"""How many more examples a wish needs: a smaller error, more coverage, or a certificate at all.

Estimates from tune, for planning; never a promise. They say how many examples would certify with a chance of 80% if
the task's new traffic is like its old, and the specialist errs as often as on tune (more examples make it better).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from suffice.core.types import Floats, LossKind, Policy
from suffice.learn import curate
from suffice.learn.judging import Answers, Terms
from suffice.proof import bounds

POINTS = 100
"""Points of the curve that a run's document keeps."""


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a run's calibration was like: `units` independent ones, each as full as `fullness` of the cap on groups."""

    kind: LossKind
    units: int
    examples: int
    grouped: bool = False
    fullness: float = 1.0

    @property
    def worth(self) -> int:
        """As many full units as the units at hand are worth: stakes are cut for the largest group there may be."""
        return round(self.units * self.fullness)


class Wished(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a wish: `more` examples (0: enough are there; None: no number of them will do), and it in words."""

    more: int | None
    told: str


def wished(document: Mapping[str, Any], policy: Policy, coverage: float, attempt: int) -> Wished:
    """How many more examples `policy.max_error` at this `coverage` would take, by a run's `document`.

    `attempt` is the next of the task's ledger. Documents of versions that kept no curve, and of runs that fitted
    nothing, have no answer. Raises ValueError for a coverage outside (0, 1).
    """
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage is a share between 0 and 1, not {coverage}")
    curve, kept = document.get("tune_curve"), document.get("calibration")
    if not curve or not kept:
        return Wished(more=None, told="how many more examples it takes is not known: the last run fitted nothing")
    wish = f"a coverage of {_percent(coverage)} at max_error = {_percent(policy.max_error)}"
    reached = [point["loss"] for point in curve if point["coverage"] >= coverage]
    if not reached:
        return Wished(
            more=None,
            told=f"{wish} is out of reach: only {_percent(curve[-1]['coverage'])} of the requests get an answer within "
            "the contract and unlike nothing seen",
        )
    basis = msgspec.convert(kept, Basis)
    more = more_examples(reached[0], policy.max_error, bounds.attempt_delta(policy.delta, attempt), basis)
    if more is None:
        return Wished(
            more=None,
            told=f"{wish}: more labels alone will not help, on tune the specialist's loss there is "
            f"{_percent(reached[0])} of all requests; a larger model family or cleaner answers may",
        )
    if more == 0:
        return Wished(more=0, told=f"{wish}: as many examples as there are may do")
    return Wished(more=more, told=f"{wish}: about {more:,} more examples")


def missing(seen: Answers, terms: Terms, policy: Policy, attempt: int, basis: Basis) -> str:
    """What a run that could not certify is short of, at the lowest coverage asked for; `attempt` is the next one."""
    n = len(seen.scores)
    surest = np.argsort(-np.where(seen.acceptable, seen.scores, -np.inf))[
        : max(1, int(np.ceil(policy.min_coverage * n)))
    ]
    kept = np.zeros(n, dtype=np.bool_)
    kept[surest] = True
    parts = [("", np.ones(n, dtype=np.bool_), policy.max_error)]
    parts += [(f" in slice {name}", seen.slices[name], policy.slice_error) for name in terms.promised]
    delta = bounds.attempt_delta(policy.delta, attempt)
    most = 0
    for where, rows, eps in parts:
        inside = int(rows.sum())
        rate = max(0.0, float(seen.losses[kept & rows].sum()) / max(inside, 1))
        more = more_examples(rate, eps, delta, basis, share=inside / n)
        if more is None:
            return (
                f"on tune this specialist errs on {_percent(rate)} of all requests{where} even at the coverage of "
                f"{_percent(policy.min_coverage)} asked for: more labels alone will not help; a larger model "
                "family, cleaner answers or a larger max_error may"
            )
        most = max(most, more)
    if most == 0:
        tenth = round(0.1 * basis.examples)
        return f"estimated from tune, only just too few examples are at hand: {tenth:,} more examples may settle it"
    return (
        f"estimated from tune, about {most:,} more examples are needed for a coverage of "
        f"{_percent(policy.min_coverage)}"
    )


def more_examples(rate: float, eps: float, delta: float, basis: Basis, share: float = 1.0) -> int | None:
    """Examples short of showing `eps` where the mean loss is `rate`, in a slice of this `share`; None: no number."""
    rate = max(rate, 0.0)
    if rate >= eps or share <= 0:
        return None
    needed = bounds.needed(eps, delta, basis.kind, rate, grouped=basis.grouped)
    if needed >= bounds.BEYOND_REACH:
        return None
    per_unit = min(max(2.0, basis.examples / max(1, basis.units)), 1 / curate.CALIBRATION)
    return max(0, round((needed / share / basis.fullness - basis.units) * per_unit))


def curve(seen: Answers) -> tuple[Floats, Floats]:
    """Coverage, and the mean declared loss of all requests, at every threshold of tune from strict to lax."""
    n = len(seen.scores)
    surest = np.argsort(-np.where(seen.acceptable, seen.scores, -np.inf), kind="stable")[: int(seen.acceptable.sum())]
    return np.arange(1, len(surest) + 1) / max(n, 1), np.cumsum(seen.losses[surest]) / max(n, 1)


def tune_curve(seen: Answers) -> list[dict[str, float]]:
    """The curve in at most `POINTS` points, as a run's document keeps it."""
    coverage, losses = curve(seen)
    kept = np.unique(np.linspace(0, len(coverage) - 1, min(POINTS, len(coverage))).round().astype(np.int64))
    return [{"coverage": round(float(coverage[i]), 6), "loss": round(float(losses[i]), 6)} for i in kept]


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
