"""Where errors gather: the least sure of the accepted answers, and the worst of the graded ones.

Each is *promised* where test shows it (at the δ of the attempt), *refuted* where test makes it all but impossible, and
left open otherwise: a file leaves a few dozen labels here, and to demand the promise would turn most sound releases
away.
"""

from __future__ import annotations

import math

import numpy as np

from suffice.core.types import Bools, Cvar, Estimate, Floats, LossKind, Policy, Tail
from suffice.proof.bounds import LOWEST, Ints, attempt_delta, mean, needed, p_ge, p_le, share, worst_mean
from suffice.proof.certify import Evidence, Scored, Shuffle

_BAND = 0.05  # the least sure twentieth of what is accepted
_FEWEST = (
    8  # tune examples that the band spans: by one or two its share of the traffic would be anything from 0.5 to 15%
)
_PLAN = 200  # labels to plan for in the band when nothing is known of its error
_WORST = 0.05  # of all requests


def band_upper(tune: Scored, threshold: float) -> float:
    """The last score of the band: the least sure 5% of what tune accepts (8 examples or more), and what ties with them.

    Raises ValueError where tune accepts nothing at this threshold.
    """
    accepted = np.sort(tune.scores[(tune.scores >= threshold) & tune.acceptable])
    if not accepted.size:
        raise ValueError(f"no tune example is accepted at the threshold {threshold}")
    spans = max(math.ceil(_BAND * accepted.size), min(_FEWEST, accepted.size))
    return float(accepted[spans - 1])


def tail_of(
    test: Evidence, shuffle: Shuffle, threshold: float, upper: float, kind: LossKind, policy: Policy, attempt: int,
    seed: int,
) -> tuple[Tail, float]:  # fmt: skip
    """What test knows of the band from `threshold` to `upper`, and the p-value by which it is refuted."""
    band = test.accepted(threshold) & (test.scores <= upper)
    losses, limit = test.losses[band], policy.tail_error
    groups = None if test.groups is None else test.groups[band]
    order = shuffle.order(band)
    delta = attempt_delta(policy.delta, attempt)
    promised = p_le(losses, limit, kind, order=order, groups=groups, cap=test.cap) <= delta
    shown = Display(groups, seed).mean(losses, kind)
    missing = 0 if promised else _labels_missing(shown, limit, attempt_delta(policy.delta, attempt + 1), kind)
    least = losses if test.least is None else test.least[band]
    refuted = p_ge(least, limit, kind, order=order, groups=groups, cap=test.cap)
    return Tail(promised=promised, max_tail_error=limit, error=shown, labels_missing=missing), refuted


def cvar_of(
    test: Evidence, shuffle: Shuffle, threshold: float, tune_losses: Floats, policy: Policy, attempt: int, seed: int
) -> tuple[Cvar, float]:
    """The mean loss of the worst twentieth of all requests, escalated ones 0, and the p-value by which it is refuted.

    It is at most c if for some t the mean of (X - t)+ is at most 0.05·(c - t) (Rockafellar and Uryasev 2000), and the
    best t is the 95% quantile of X, here that of `tune_losses`: the graded losses of *all* tune requests at the
    threshold. Where that is c or more nothing can be shown, and refuted is that 95% of the losses are at most c.
    """
    losses = test.accepted(threshold) * test.losses
    value = worst_mean(losses, _WORST, seed, test.groups)
    limit = policy.max_cvar
    if limit is None:
        return Cvar(promised=False, max_cvar=None, value=value), 1.0
    t = float(np.quantile(tune_losses, 1 - _WORST, method="higher")) if tune_losses.size else 0.0
    order = shuffle.order(np.ones(len(losses), dtype=np.bool_))
    if t >= limit:
        above = (losses > limit).astype(np.float64)
        refuted = p_ge(above, _WORST, "binary", order=order, groups=test.groups, cap=test.cap)
        return Cvar(promised=False, max_cvar=limit, value=value), refuted
    beyond, eps = np.maximum(losses - t, 0.0) / (1 - t), _WORST * (limit - t) / (1 - t)
    delta = attempt_delta(policy.delta, attempt)
    promised = p_le(beyond, eps, "graded", order=order, groups=test.groups, cap=test.cap) <= delta
    refuted = p_ge(beyond, eps, "graded", order=order, groups=test.groups, cap=test.cap)
    return Cvar(promised=promised, max_cvar=limit, value=value), refuted


class Display:
    """Estimates for people, with intervals that know of groups: exact where requests stand alone, else bootstraps."""

    def __init__(self, groups: Ints | None, seed: int) -> None:
        self._groups, self._seed = groups, seed

    def share(self, hits: Bools, rows: Bools | None = None) -> Estimate:
        """The share of True, among `rows` if given; shapes (n,)."""
        return self.mean(hits.astype(np.float64), "binary", rows)

    def mean(self, losses: Floats, kind: LossKind, rows: Bools | None = None) -> Estimate:
        """The mean of losses of this kind, over `rows` if given; shapes (n,)."""
        groups = self._groups
        if rows is not None:
            losses, groups = losses[rows], None if groups is None else groups[rows]
        if groups is None and kind != "graded" and set(np.unique(losses)) <= {0.0, 1.0}:
            return share(losses == 1)
        return mean(losses, LOWEST[kind], self._seed, groups)


def _labels_missing(shown: Estimate, limit: float, delta: float, kind: LossKind) -> int:
    """How many fresh labels in the band would promise the tail, if its error is about what test showed."""
    # Half an error is added to the count: a band of fifteen rows without one is not a band without error.
    rate = ((shown.value or 0.0) * shown.n + 0.5) / (shown.n + 1)
    return needed(limit, delta, kind, rate) if rate < limit else _PLAN
