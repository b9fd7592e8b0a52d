"""P-values for "the mean loss is at least ε", and what follows from them: floors, intervals, sample sizes.

Two tests, chosen by the *declared* kind of loss and never by the values seen (choosing afterwards would void both).
Binary losses of independent requests: the exact binomial tail (Clopper and Pearson 1934). Everything else, and
anything in groups: a betting mixture (Waudby-Smith and Ramdas, arXiv 2010.09686). A gambler who stakes a share λ of
a fortune of 1 on every loss being below ε cannot expect to gain if the mean is ε or more, so by Ville's inequality
the fortune ever reaches 1/δ with a chance of at most δ.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betaincinv, logsumexp, rel_entr

from suffice.core.types import Bools, Estimate, Floats, LossKind

Ints = npt.NDArray[np.int64]

# Stakes as a share of the largest that can never ruin the gambler. Small ones win slowly when losses are many, large
# ones quickly when there are none; an even mixture costs at most a factor of ten against the best in hindsight.
STAKES = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0]) * (1 - 1e-9)

LOWEST: dict[LossKind, float] = {"binary": 0.0, "graded": 0.0, "signed": -1.0}
"""The smallest loss that each kind can have; the largest is 1."""

RESAMPLES = 1_000
"""Bootstrap draws behind a displayed interval."""

BEYOND_REACH = 10_000_000
"""What `needed` answers when no sample that anyone would label is enough."""


def check_losses(losses: Floats, kind: LossKind) -> None:
    """Raise ValueError if a loss is NaN or cannot be of this kind (binary: 0 or 1; graded: [0, 1]; signed: [-1, 1])."""
    _check_range(losses, LOWEST[kind])
    if kind == "binary" and not np.isin(losses, (0.0, 1.0)).all():
        raise ValueError("a binary loss is 0 or 1")


def p_binary(losses: Floats, eps: float) -> float:
    """The exact p-value of "the mean loss is at least `eps`" for independent losses that are 0 or 1.

    `losses` has shape (n,), one entry for each request, escalated ones 0. It is the chance of at most this many
    ones among n at rate `eps` (Clopper and Pearson 1934). No losses: 1. Raises ValueError for another value, NaN, or
    `eps` outside (0, 1).
    """
    _check_eps(eps, low=0.0)
    check_losses(losses, "binary")
    return float(bdtr(int(losses.sum()), losses.size, eps)) if losses.size else 1.0


def p_betting(
    losses: Floats, eps: float, *, order: Ints, groups: Ints | None = None, cap: int = 1, low: float = -1.0
) -> float:
    """A p-value of "the mean loss is at least `eps`" for losses anywhere in [`low`, 1].

    `losses` has shape (n,). `order` is a permutation of the units: it decides in which order they are bet on, so it
    must be drawn without a look at the losses. Without `groups` each row is a unit. With `groups`, integer codes of
    shape (n,), the unit is the group (units are numbered by ascending code), the bet is on the sum over its rows, and
    stakes are divided by `cap`, the most rows that any group may have: rows of one group may then depend on each
    other in any way, and the promise is about the mean over rows of groups cut down to `cap`.

    The p-value is one over the largest fortune reached (Waudby-Smith and Ramdas, arXiv 2010.09686). No losses: 1.
    Raises ValueError for NaN, a loss out of range, `eps` outside (-1, 1), a group larger than `cap`, or an `order` that
    is not a permutation.
    """
    _check_eps(eps, low=-1.0)
    _check_range(losses, low)
    gains = eps - np.asarray(losses, dtype=np.float64)
    if groups is not None:
        gains = _per_group(gains, groups, cap)
    if order.shape != gains.shape or not (np.sort(order) == np.arange(gains.size)).all():
        raise ValueError(f"`order` is not a permutation of the {gains.size} units")
    if not gains.size:
        return 1.0
    stakes = STAKES / (1 - eps) / (cap if groups is not None else 1)
    growth = np.cumsum(np.log1p(stakes[:, None] * gains[order]), axis=1)  # (stakes, units), in logs: products overflow
    highest = growth.max(axis=0)
    wealth = highest + np.log(np.exp(growth - highest).mean(axis=0))
    return math.exp(-max(0.0, float(wealth.max())))


def p_le(losses: Floats, eps: float, kind: LossKind, *, order: Ints, groups: Ints | None = None, cap: int = 1) -> float:
    """The p-value of "the mean loss is at least `eps`", by the test that the declared `kind` calls for.

    A small value speaks for a mean loss below `eps`. Binary losses without groups take the binomial, all others the
    betting mixture; arguments and errors as for `p_binary` and `p_betting`.
    """
    check_losses(losses, kind)
    if kind == "binary" and groups is None:
        return p_binary(losses, eps)
    return p_betting(losses, eps, order=order, groups=groups, cap=cap, low=LOWEST[kind])


def p_ge(losses: Floats, eps: float, kind: LossKind, *, order: Ints, groups: Ints | None = None, cap: int = 1) -> float:
    """The p-value of "the mean loss is at most `eps`": the mirror of `p_le`, with which the gate refutes.

    A small value speaks for a mean loss above `eps`. Arguments and errors as for `p_le`.
    """
    check_losses(losses, kind)
    if kind == "binary" and groups is None:
        _check_eps(eps, low=0.0)
        return float(bdtrc(int(losses.sum()) - 1, losses.size, eps)) if losses.sum() else 1.0
    return p_betting(-losses, -eps, order=order, groups=groups, cap=cap, low=-1.0)


def floor(eps: float, delta: float, kind: LossKind, *, grouped: bool = False) -> int:
    """The smallest number of calibration units that can certify at all: enough only if not one loss is seen.

    Units are requests, or groups when `grouped` (groups smaller than their cap need more of them). Raises ValueError
    for `eps` or `delta` outside (0, 1).
    """
    _check_eps(eps, low=0.0)
    _check_delta(delta)
    if kind == "binary" and not grouped:
        return _first(lambda n: n * math.log1p(-eps) <= math.log(delta))
    growth = np.log1p(STAKES / (1 - eps) * eps)
    return _first(lambda n: _log_mean(n * growth) >= -math.log(delta))


def attempt_delta(delta: float, k: int) -> float:
    """What the `k`-th attempt of a task may spend of `delta`: the sum over all attempts ever made stays below it.

    Raises ValueError for `k` below 1 or `delta` outside (0, 1).
    """
    _check_delta(delta)
    if k < 1:
        raise ValueError(f"attempts are counted from 1, not {k}")
    return delta / (k * (k + 1))


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval for a share of which `k` of `n` were seen; (0, 1) when n is 0.

    Raises ValueError unless 0 <= k <= n and 0 < confidence < 1. (Clopper and Pearson 1934.)
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is no share")
    _check_delta(confidence)
    side = (1 - confidence) / 2
    low = float(betaincinv(k, n - k + 1, side)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - side)) if k < n else 1.0
    return low, high


def mean_upper(mean: float, n: int, delta: float) -> float:
    """What the mean of independent values in [0, 1] is below, with a chance of 1 - `delta`, `mean` being that of n.

    The largest p for which n times the divergence of `mean` from p is at most log(1/delta) (Hoeffding 1963, theorem 1);
    for shares `clopper_pearson` is a little sharper. 1 when n is 0. Raises ValueError for a mean outside [0, 1].
    """
    _check_delta(delta)
    if not 0 <= mean <= 1:
        raise ValueError(f"a mean of {mean} is not in [0, 1]")
    if n == 0 or mean == 1:
        return 1.0

    def beyond(p: float) -> float:
        return n * float(rel_entr(mean, p) + rel_entr(1 - mean, 1 - p)) + math.log(delta)

    highest = float(np.nextafter(1.0, 0.0))
    return float(brentq(beyond, mean, highest)) if mean < highest and beyond(highest) > 0 else 1.0


def share(hits: Bools) -> Estimate:
    """The share of True, with its exact 95% interval (rows taken as independent)."""
    k, n = int(np.count_nonzero(hits)), int(hits.size)
    low, high = clopper_pearson(k, n)
    return Estimate(value=k / n if n else None, low=low, high=high, n=n)


def mean(values: Floats, low: float, seed: int, groups: Ints | None = None) -> Estimate:
    """The mean of values in [`low`, 1] with a 95% bootstrap percentile interval. For display; it promises nothing.

    With `groups`, integer codes of shape (n,), whole groups are drawn, so that rows which err together do not pass for
    many. Where all values are equal the bootstrap would show certainty, so the interval then allows for a value never
    seen in n rows (or groups). Raises ValueError for NaN or a value out of range.
    """
    _check_range(values, low)
    n = int(values.size)
    if n == 0:
        return Estimate(value=None, low=low, high=1.0, n=0)
    centre = float(values.mean())
    if values.min() == values.max():
        unseen = clopper_pearson(0, n if groups is None else len(np.unique(groups)))[1]
        return Estimate(value=centre, low=centre - unseen * (centre - low), high=centre + unseen * (1 - centre), n=n)
    random = np.random.default_rng(seed)
    if groups is None:
        # Resampling rows is resampling counts of the distinct values: these are few, and rows are many.
        distinct, counts = np.unique(values, return_counts=True)
        draws = random.multinomial(n, counts / n, size=RESAMPLES) @ distinct / n
    else:
        _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        sums = np.bincount(codes, weights=values)
        drawn = random.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
        draws = (drawn @ sums) / (drawn @ sizes)
    ends = np.quantile(draws, (0.025, 0.975))
    return Estimate(value=centre, low=float(ends[0]), high=float(ends[1]), n=n)


def worst_mean(values: Floats, part: float, seed: int, groups: Ints | None = None) -> Estimate:
    """The mean of the largest `part` of values in [0, 1], with a 95% bootstrap interval. For display, as `mean` is."""
    _check_range(values, 0.0)
    n = int(values.size)
    if n == 0:
        return Estimate(value=None, low=0.0, high=1.0, n=0)
    codes = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(-values)
    descending, codes = values[order], codes[order]

    def tail(weights: Floats) -> float:
        """Mean of the heaviest `part` of the rows, each as often as its weight says; a row may be cut in two."""
        room = part * weights.sum()
        taken = np.clip(room - (np.cumsum(weights) - weights), 0.0, weights)
        return float(descending @ taken / room)

    random = np.random.default_rng(seed)
    units = int(codes.max()) + 1
    draws = random.multinomial(units, np.full(units, 1 / units), size=RESAMPLES)
    low, high = np.quantile([tail(drawn[codes].astype(np.float64)) for drawn in draws], (0.025, 0.975))
    return Estimate(value=tail(np.ones(n)), low=float(low), high=float(high), n=n)


def needed(
    eps: float, delta: float, kind: LossKind, loss_rate: float, *, worse: float | None = None, grouped: bool = False
) -> int:
    """About how many calibration units would certify with a chance of 80%, if the mean loss is `loss_rate`.

    An estimate for the sentence "at least N more", made from tune figures; never a promise. `loss_rate` is the mean
    over all requests, escalated ones 0. `worse` is the share of requests with loss 1; by default as small as
    `loss_rate` allows (the rest of the losses are 0, or -1 for signed). `BEYOND_REACH` when no sample that anyone
    would label is enough. Raises ValueError unless the least loss <= loss_rate < eps.
    """
    smallest = floor(eps, delta, kind, grouped=grouped)
    if not LOWEST[kind] <= loss_rate < eps:
        raise ValueError(f"an expected loss of {loss_rate} can never certify {eps}")
    if kind == "binary" and not grouped:

        def likely(n: int) -> bool:
            allowed = np.arange(int(eps * n) + 1)  # the most losses at which n units still certify
            most = int(np.searchsorted(bdtr(allowed, n, eps), delta, side="right")) - 1
            return most >= 0 and float(bdtr(most, n, loss_rate)) >= 0.8

        return _first(likely, smallest)

    up = max(loss_rate, 0.0) if worse is None else worse
    chances = np.array([up, max(up - loss_rate, 0.0), 0.0])
    chances[2] = max(1 - chances.sum(), 0.0)
    logs = np.log1p(STAKES[:, None] / (1 - eps) * (eps - np.array([1.0, -1.0, 0.0])))  # (stakes, outcomes)
    growth = logs @ chances
    spread = np.sqrt(np.maximum(logs**2 @ chances - growth**2, 0.0))
    # 0.84 standard deviations below its mean is where a fortune stays above in 80% of runs.
    return _first(lambda n: _log_mean(n * growth - 0.84 * math.sqrt(n) * spread) >= -math.log(delta), smallest)


def _first(enough: Callable[[int], bool], start: int = 1) -> int:
    """The smallest n >= start that is enough (found by doubling and halving), or `BEYOND_REACH`."""
    high = start
    while not enough(high):
        high *= 2
        if high > BEYOND_REACH:
            return BEYOND_REACH
    low = max(high // 2, start - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _log_mean(logs: Floats) -> float:
    return float(logsumexp(logs)) - math.log(logs.size)


def _per_group(gains: Floats, groups: Ints, cap: int) -> Floats:
    if groups.shape != gains.shape:
        raise ValueError(f"`groups` has shape {groups.shape}, the losses {gains.shape}")
    if not gains.size:
        return gains
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.max() > cap:
        raise ValueError(f"a group has {sizes.max()} rows, more than the cap of {cap}")
    sums: Floats = np.bincount(codes, weights=gains).astype(np.float64)
    return sums


def _check_range(losses: Floats, low: float) -> None:
    if losses.ndim != 1:
        raise ValueError(f"losses are one row of numbers, not of shape {losses.shape}")
    if np.isnan(losses).any():
        raise ValueError("a loss is NaN")
    if losses.size and not (losses.min() >= low and losses.max() <= 1):
        raise ValueError(f"a loss lies outside [{low:g}, 1]")


def _check_eps(eps: float, low: float) -> None:
    if not low < eps < 1:
        raise ValueError(f"an error limit lies between {low:g} and 1, not at {eps}")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"a chance lies between 0 and 1, not at {delta}")
