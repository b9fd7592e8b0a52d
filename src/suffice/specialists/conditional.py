"""Choosing one of a varying number of options by the features of each: a softmax over those at hand.

The conditional logit (McFadden 1974). Fitted by L-BFGS with a ridge on standardised features; several options of a
question may be right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_STEPS = 200


def log_softmax(logits: Floats) -> Floats:
    """Log probabilities of the options of one question: shape (options,)."""
    top = logits - logits.max()
    return np.asarray(top - np.log(np.exp(top).sum()))


def starts_of(sizes: Sequence[int]) -> Ints:
    """Where each question's options begin, when all are written one after another."""
    return np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64) if len(sizes) else np.zeros(0, dtype=np.int64)


def likelihood(logits: Floats, starts: Ints, right: Bools) -> tuple[float, Floats]:
    """Summed negative log-likelihood that a right option is chosen, and its slope by each logit: shape (options,).

    Questions without any right option count nothing. No question may be without options.
    """
    sizes = np.diff(np.append(starts, len(logits)))
    raised = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), sizes))
    whole = np.add.reduceat(raised, starts)
    part = np.add.reduceat(np.where(right, raised, 0.0), starts)
    asked = part > 0
    loss = float((np.log(whole[asked]) - np.log(part[asked])).sum())
    counted = np.repeat(asked, sizes)
    slope = raised / np.repeat(whole, sizes) - np.where(right, raised, 0.0) / np.repeat(np.where(asked, part, 1), sizes)
    return loss, np.where(counted, slope, 0.0)


def fit_conditional(features: Floats, sizes: Sequence[int], right: Bools, ridge: float = 1.0) -> Floats:
    """Weights (F,) for options (P, F) of questions with so many options each; `right` (P,) marks the right ones.

    `ridge` is on the weights of features scaled to unit variance, against the summed likelihood.
    """
    width = features.shape[1]
    if not len(sizes) or not right.any():
        return np.zeros(width)
    starts = starts_of(sizes)
    scale = features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, np.inf)
    design = features / scale

    def objective(weights: Floats) -> tuple[float, Floats]:
        loss, slope = likelihood(design @ weights, starts, right)
        return loss + 0.5 * ridge * float(weights @ weights), design.T @ slope + ridge * weights

    return minimised(objective, np.zeros(width)) / scale


def minimised(objective: Callable[[Floats], tuple[float, Floats]], start: Floats, steps: int = _STEPS) -> Floats:
    """Where L-BFGS ends on an objective that gives its value and slope."""
    from scipy.optimize import minimize

    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 10})
    return np.asarray(found.x, dtype=np.float64)
