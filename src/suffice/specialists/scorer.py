"""The learned score ("is the specialist right?") and the guard ("has anything like this been seen?"). Any family's.

Both are fitted on tune, from numbers a specialist has at hand for each answer: shape (n, F) with one column a signal.
What this does not know: what the signals mean, except which of them are `evidence`: log-odds whose mean is the raw
score that is kept where tune is too small, or too uniform, to learn a better one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import le, mul

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FEWEST_ROWS = 100
"""Below this many tune rows the evidence alone is the score."""

FEWEST_EACH = 8
"""... and below this many right, or this many wrong, of them."""

LARGEST_LOG_ODDS = 30.0
"""Scores stay within sigmoid(±30): float64 still tells neighbours at 1 - 1e-13 apart, so sure answers do not tie."""

_EVIDENCE_PENALTY = 0.3
_PENALTY = 30.0
"""Ridge on all other signals. Weaker (1 to 10) gains nothing on large tunes and loses 2 to 5 points of coverage where
a tune holds 10 to 30 errors."""
_NEWTON_STEPS = 50


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), with x beyond half of LARGEST_LOG_ODDS squeezed into ±LARGEST_LOG_ODDS, its order kept."""
    half = LARGEST_LOG_ODDS / 2
    if abs(x) > half:
        x = math.copysign(half + half * math.tanh((abs(x) - half) / (4 * half)), x)
    return 1 / (1 + math.exp(-x))


class Scorer:
    """score = sigmoid(bias + signals @ weights)."""

    def __init__(self, weights: Floats, bias: float) -> None:
        self.weights = weights
        self.bias = bias
        self._weights: list[float] = weights.tolist()

    def score(self, signals: Sequence[float]) -> float:
        """The chance of being right, within (0, 1), for one answer's F signals."""
        return sigmoid(math.fsum(map(mul, signals, self._weights)) + self.bias)


def enough(right: Bools) -> bool:
    """Whether there are rows, right ones and wrong ones enough to learn a score from."""
    return len(right) >= FEWEST_ROWS and min(right.sum(), (~right).sum()) >= FEWEST_EACH


def fit_scorer(signals: Floats, right: Bools, evidence: Sequence[int]) -> Scorer:
    """Fit on tune: signals (n, F), whether the specialist was right (n,), and the columns that are log-odds themselves.

    A ridge logistic regression on standardised signals. With few rows, or nearly all of them right (or wrong), there
    is nothing to learn from: the mean of the evidence alone.
    """
    columns = list(evidence)
    raw = np.zeros(signals.shape[1])
    raw[columns] = 1 / len(columns)
    if not enough(right):
        return Scorer(raw, 0.0)
    mean, scale = signals.mean(axis=0), signals.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)  # a signal that never varies tells nothing
    design = np.column_stack(((signals - mean) / scale, np.ones(len(right))))
    penalty = np.full(design.shape[1], _PENALTY)
    penalty[columns] = _EVIDENCE_PENALTY
    penalty[-1] = 1e-6
    weights = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)))
        gradient = design.T @ (chance - right) + penalty * weights
        curvature = (design * np.maximum(chance * (1 - chance), 1e-6)[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # Damped: a full step from far away can overshoot.
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if float(np.abs(step).max()) < 1e-9:
            break
    plain = weights[:-1] / scale
    return Scorer(plain, float(weights[-1] - mean @ plain))


class Guard:
    """familiar = every strangeness is within its limit."""

    def __init__(self, limits: Floats) -> None:
        self.limits = limits
        self._limits: list[float] = limits.tolist()

    def familiar(self, strangeness: Sequence[float]) -> bool:
        """For one input's G numbers, larger is stranger."""
        return all(map(le, strangeness, self._limits))


def fit_guard(strangeness: Floats, share: float = 0.01) -> Guard:
    """Limits such that at most about `share` of the tune rows (n, G) lie beyond any: the budget is split evenly."""
    if not len(strangeness):
        return Guard(np.full(strangeness.shape[1], np.inf))
    return Guard(np.quantile(strangeness, 1 - share / strangeness.shape[1], axis=0, method="higher"))
