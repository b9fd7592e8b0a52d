"""The watch over a live task: a few answers are audited, and a bet tells when the risk has risen above its limit.

Every auto-routed request is a step. Its X is Z/q if it was accepted and audited (Z the loss, q the chance with which
the coin sent it to audit) and 0 otherwise, so the mean of X is the share of *all* requests accepted and wrong, however
unevenly the coin falls. A gambler stakes λ on each X being above ε: the fortune grows by the factor 1 + λ(X - ε).

**Why the alarm can be trusted.** As long as the risk, given all that went before, is at most ε at every moment, no
step is expected to gain, whatever λ >= 0 was fixed before it: by Ville's inequality the fortune ever reaches 1/δ with a
chance of at most δ, over the whole life of the watch and however often one looks (Waudby-Smith and Ramdas, arXiv
2010.09686). Three consequences:

- *Old stakes are valid.* λ must not depend on the step it is bet on, and any λ published before is such.
- *Late, shuffled and lost labels are valid.* An audit without its label is booked as the smallest X there can be, so
  the booked fortune is never above the true one, in whichever order labels come, if they come. (*Skipping* such audits
  is not valid: where agreement is reported later than disagreement, or lost, what is left over is too bad.)
- *An average is not enough.* A risk that is above ε by day and below it by night is above its limit by day.

Three fortunes play side by side, each guessing the risk from another stretch of the past (`WINDOWS`); their average is
a fortune too. States are immutable and JSON; arithmetic only: who asks, when, and on which coin is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
import numpy as np
from scipy.optimize import brentq

from suffice.core.types import Bools, Floats
from suffice.proof.bounds import STAKES

Triple = tuple[float, float, float]

WINDOWS: Triple = (20.0, 100.0, 400.0)
"""The stretches of the past that the risk is guessed from, in audits of average worth (a step is worth `q_err`)."""

LARGEST_STAKE = 0.5
"""Of what would ruin the gambler in one step."""

ALPHA = 0.005
"""Weight of the newest request in the escalation share: it remembers about the last 400. In `bench/watch.py` 0.01 took
twice as long to revoke; 0.0025 was a tenth faster, but more easily misled by an expected share that is itself measured
on a thousand rows."""

TOO_FAR = 4.5
"""Standard deviations at which the escalation share counts as shifted."""

_RAREST = 0.05
"""Shares nearer to 0 or 1 are judged as if they were this far: there a handful of requests is many deviations."""


# ---------------------------------------------------------------------------------------------- who is audited


class Audits(msgspec.Struct, frozen=True, kw_only=True):
    """How likely an accepted request is audited: more likely where the specialist is less sure.

    `scale` and `least` make the probability, `share` is its mean over the accepted requests it was made from, `q_err`
    the audit probability of an average *error* there. `q_err` only sets the size of the stakes: a wrong one (in a
    canary, say, where every probability is (1 - s) + s·q) costs speed and never validity.
    """

    scale: float
    least: float
    q_err: float
    share: float

    def probability(self, confidence: float) -> float:
        """The chance, in [least, 1], that an accepted request of this confidence (in [0, 1]) is audited."""
        wished = self.scale * math.sqrt(max(0.0, 1.0 - confidence))
        return min(1.0, max(self.least, wished))


def audits(confidences: Floats, share: float) -> Audits:
    """Spread audits over accepted requests such that `share` of them are audited, a quarter of that at the least.

    `confidences`, shape (n,), are the learned chances of being right of the accepted tune requests. The probability
    goes with the root of the chance p of an error, for that makes the mean of Z/q as exact as it can be at a given
    cost. Where weighting cannot reach `share` (no rows, nobody in doubt, audit everything) all have the same chance.
    Raises ValueError for NaN, or a confidence or share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of audits lies in [0, 1], not at {share}")
    if np.isnan(confidences).any() or (confidences.size and not (confidences.min() >= 0 and confidences.max() <= 1)):
        raise ValueError("a confidence is NaN or lies outside [0, 1]")
    p = 1.0 - np.asarray(confidences, dtype=np.float64)
    roots, least = np.sqrt(p), share / 4

    def q(scale: float) -> Floats:
        return np.clip(scale * roots, least, 1.0)

    # Beyond this scale all who are in doubt at all are audited for certain.
    utmost = 1 / float(roots[roots > 0].min()) if roots.any() else 0.0
    if share in (0.0, 1.0) or not utmost or float(q(utmost).mean()) <= share:
        return Audits(scale=0.0, least=share, q_err=share, share=share)
    scale = float(brentq(lambda scale: float(q(scale).mean()) - share, 0.0, utmost, xtol=1e-15))
    return Audits(scale=scale, least=least, q_err=float(p.sum() / (p / q(scale)).sum()), share=share)


# ---------------------------------------------------------------------------------------------- the bet


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is tested: the risk is at most `eps` at every moment; `delta` is the chance of ever alarming if so.

    `signed`: losses are in [-1, 1], and no audit is rarer than `least_q`, so that X is never below -1/least_q. Raises
    ValueError unless 0 < eps <= 1, 0 < delta < 1, and 0 < least_q <= 1 where signed.
    """

    eps: float
    delta: float
    signed: bool = False
    least_q: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.eps <= 1 and 0 < self.delta < 1):
            raise ValueError(f"no watch with a limit of {self.eps} and a chance of {self.delta}")
        if self.signed and not 0 < self.least_q <= 1:
            raise ValueError(f"a signed watch needs the least audit probability, not {self.least_q}")


class Wealth(msgspec.Struct, frozen=True, kw_only=True):
    """The three fortunes, as natural logarithms, and the risk that each one guesses."""

    log: Triple
    mean: Triple


def start(limit: Limit) -> Wealth:
    """A new watch: fortunes of 1, and a guess of half the limit, which stakes nothing."""
    guess = limit.eps / 2
    return Wealth(log=(0.0, 0.0, 0.0), mean=(guess, guess, guess))


def stakes(wealth: Wealth, limit: Limit, q_err: float) -> Triple:
    """The λ of each fortune for requests to come; to be stamped on them, for their labels are booked with it.

    q_err·(μ/ε - 1) grows fastest if the risk is μ and errors are rare (X is 1/q at a rate of μq: the Poisson limit;
    the usual quadratic one stakes a half or a third of it). Nothing is staked while the guess is below the limit.
    """
    cap = LARGEST_STAKE / (limit.eps + 1 / limit.least_q if limit.signed else limit.eps)
    return _three(min(cap, max(0.0, q_err * (mean / limit.eps - 1))) for mean in wealth.mean)


def book(wealth: Wealth, limit: Limit, lam: Triple, q_err: float, count: int = 1) -> Wealth:
    """`count` steps of the same `lam` whose X is known at once to be 0: escalated, or accepted and not audited.

    Raises ValueError for a negative `count`.
    """
    if count < 0:
        raise ValueError(f"{count} steps")
    return Wealth(
        log=_three(log + count * math.log1p(-stake * limit.eps) for log, stake in zip(wealth.log, lam, strict=True)),
        mean=_three(mean * (1 - q_err / w) ** count for mean, w in zip(wealth.mean, WINDOWS, strict=True)),
    )


def open_audit(wealth: Wealth, limit: Limit, lam: Triple, q: float) -> Wealth:
    """An audited step whose label is not there yet: the smallest X it can have is booked, the guesses stay.

    `q` is the probability with which it was audited, all ways together. Where signed, a label that never comes stays
    booked as a better answer and hides as much risk: 10% of them lost hide a risk of 10%. Raises ValueError for `q`
    outside (0, 1], or below `least_q` where signed.
    """
    least = _least(limit, q)
    return msgspec.structs.replace(
        wealth, log=_three(log + _term(stake, least, limit) for log, stake in zip(wealth.log, lam, strict=True))
    )


def settle(wealth: Wealth, limit: Limit, lam: Triple, q: float, z: float, q_err: float) -> Wealth:
    """The label of an audit arrived: its loss `z` takes the place of what `open_audit` booked for it.

    To be called at most once for an audit, with the `lam` and `q` that it was opened with; in any order. Raises
    ValueError for NaN, for `z` outside [0, 1] (signed: [-1, 1]) and for `q` as `open_audit` does.
    """
    least = _least(limit, q)
    if not (-1.0 if limit.signed else 0.0) <= z <= 1:
        raise ValueError(f"an audited loss is NaN or out of range: {z}")
    x = z / q
    return Wealth(
        log=_three(
            log + (_term(stake, x, limit) - _term(stake, least, limit))
            for log, stake in zip(wealth.log, lam, strict=True)
        ),
        mean=_three(mean + (x - mean) * q_err / w for mean, w in zip(wealth.mean, WINDOWS, strict=True)),
    )


def evidence(wealth: Wealth) -> float:
    """The natural logarithm of the average fortune; at log(1/δ) it is an alarm."""
    highest = max(wealth.log)
    return highest + math.log(sum(math.exp(log - highest) for log in wealth.log) / len(wealth.log))


def alarmed(wealth: Wealth, limit: Limit) -> bool:
    """Whether the watch may revoke now. Once is enough: a fortune that falls again takes nothing back."""
    return evidence(wealth) >= -math.log(limit.delta)


def _least(limit: Limit, q: float) -> float:
    """The smallest X that an audit of probability `q` can turn out to have."""
    if not max(limit.least_q if limit.signed else 0.0, 0.0) <= q <= 1 or q == 0:
        raise ValueError(f"an audit of probability {q}")
    return -1 / q if limit.signed else 0.0


def _term(stake: float, x: float, limit: Limit) -> float:
    return math.log1p(stake * (x - limit.eps))


def _three(values: Iterable[float]) -> Triple:
    first, second, third = values
    return first, second, third


# ---------------------------------------------------------------------------------------------- what is shown


def running_bound(xs: Floats, steps: int, least_q: float, delta: float) -> float:
    """An upper bound, at 1 - `delta`, on the mean risk over the `steps` requests so far; 1.0 where nothing is shown.

    `xs` are the nonzero X = Z/q among them, audits without a label as Z = 1; no audit was rarer than `least_q`. It is
    the smallest m for which the betting test of "the mean is at least m" (`bounds.p_betting` on least_q·X) has 1/δ at
    *this* moment, not at its best. It holds for one look, at a moment chosen beforehand; the alarm holds always.

    Takes time in proportion to `xs`, however many steps. Raises ValueError for NaN, an X beyond ±1/least_q, more xs
    than steps, and `least_q` or `delta` out of range.
    """
    if not (0 < least_q <= 1 and 0 < delta < 1):
        raise ValueError(f"no bound for a least probability of {least_q} and a chance of {delta}")
    if steps < xs.size:
        raise ValueError(f"{xs.size} audits among {steps} steps")
    losses = least_q * np.asarray(xs, dtype=np.float64)
    if not (np.abs(losses) <= 1 + 1e-9).all():
        raise ValueError("an X is NaN or lies beyond what the least audit probability allows")
    losses = np.clip(losses, -1.0, 1.0)
    silent = steps - xs.size

    def reached(mean: float) -> bool:
        lam = STAKES / (1 - least_q * mean)
        logs = silent * np.log1p(lam * least_q * mean)
        logs += np.log1p(lam[:, None] * (least_q * mean - losses)).sum(axis=1)
        highest = float(logs.max())
        return highest + math.log(float(np.exp(logs - highest).mean())) >= -math.log(delta)

    # The fortune grows with the mean it is tested against, for both the gains and the stakes do.
    return _smallest(reached)


def _smallest(enough: Callable[[float], bool]) -> float:
    """The smallest m in [0, 1] that is enough, from above, to within 1e-12; 1.0 if none below is."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


# ---------------------------------------------------------------------------------------------- without labels


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """The share of escalated requests, followed without a label: it may call for more audits, and never revokes.

    `expected` is the share at certification, `level` the moving average now, `steps` how many requests it has seen. A
    new one is `Shift(expected=share, level=share, steps=0)`.
    """

    expected: float
    level: float
    steps: int


def watch_shift(shift: Shift, escalated: Sequence[bool] | Bools) -> Shift:
    """Some more requests, in their order: whether each was escalated."""
    seen = np.asarray(escalated, dtype=np.float64)
    weights = ALPHA * (1 - ALPHA) ** np.arange(seen.size - 1, -1, -1)
    level = (1 - ALPHA) ** seen.size * shift.level + float(weights @ seen)
    return Shift(expected=shift.expected, level=level, steps=shift.steps + seen.size)


def shifted(shift: Shift) -> bool:
    """Whether the share is beyond 4.5 standard deviations, either way, of what independent requests would give.

    Never within the first 1/ALPHA requests: there a single escalation where few are expected would be beyond them.
    """
    if shift.steps * ALPHA < 1:
        return False
    usual = min(max(shift.expected, _RAREST), 1 - _RAREST)
    spread = ALPHA / (2 - ALPHA) * (1 - (1 - ALPHA) ** (2 * shift.steps))
    return abs(shift.level - shift.expected) > TOO_FAR * math.sqrt(usual * (1 - usual) * spread)
