"""Logistic regression for a sparse and a dense block of features, by L-BFGS in float32: deterministic, one thread.

The objective is scikit-learn's (`sum of losses + |W|^2 / (2 C)`, intercepts free), and so is the stopping rule. It is
solved here because a dense block inside a sparse matrix, and vectors in float64, make the general solver twice as slow.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.signedinteger[Any]]

_MEMORY = 8
_SMALLEST_STEP = 1e-3
_SUFFICIENT = 1e-4
_MOST_LOGITS = 16_000_000
"""Numbers of a block of rows, of 4 bytes each; some copies of it are held at once."""


def one_thread() -> AbstractContextManager[object]:
    """Linear algebra on one thread: on products this small, several wait for each other ten times longer."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


class Problem:
    """Mean loss and gradient for weights (S + D + 1, K): sparse features, dense features, intercept.

    `targets` is (n,) with the class of each row for a softmax over K columns, or (n, K) of 0, 1 or -1 (not asked) for
    K independent yes/no questions. `strength` is scikit-learn's C.
    """

    def __init__(self, sparse: Any, dense: Floats32, targets: Ints, columns: int, strength: float) -> None:
        rows = dense.shape[0]
        self._penalty = np.float32(1 / (strength * max(1, rows)))
        self._rows = max(1, rows)
        self.shape = (sparse.shape[1] + dense.shape[1] + 1, columns)
        size = max(1, _MOST_LOGITS // max(columns, 1))
        self._blocks = [
            _Block(
                sparse[begin : begin + size] if rows > size else sparse,
                dense[begin : begin + size],
                targets[begin : begin + size],
            )
            for begin in range(0, max(rows, 1), size)
        ]

    def __call__(self, weights: Floats32) -> tuple[float, Floats32]:
        """The objective, and its gradient in the shape of `weights`."""
        loss, gradient = self._blocks[0](weights, self._rows)
        for block in self._blocks[1:]:
            more, slope = block(weights, self._rows)
            loss += more
            gradient += slope
        gradient[:-1] += self._penalty * weights[:-1]
        ridge = 0.5 * float(self._penalty) * float(np.vdot(weights[:-1], weights[:-1]))
        return loss / self._rows + ridge, gradient


class _Block:
    """Some rows of a problem: so many that their logits fit into memory."""

    def __init__(self, sparse: Any, dense: Floats32, targets: Ints) -> None:
        self._sparse = sparse
        self._transposed = sparse.T.tocsr()
        self._dense = dense
        if targets.ndim == 1:
            self._at: tuple[Ints, Ints] | None = (np.arange(len(targets)), targets)
        else:
            self._at = None
            self._yes = (targets == 1).astype(np.float32)
            self._asked = (targets >= 0).astype(np.float32)

    def __call__(self, weights: Floats32, rows: int) -> tuple[float, Floats32]:
        """The summed loss, and the gradient of the mean over `rows`."""
        split = self._sparse.shape[1]
        logits = self._sparse @ weights[:split]
        logits += self._dense @ weights[split:-1]
        logits += weights[-1]
        loss = self._softmax(logits) if self._at is not None else self._yes_no(logits)
        logits /= np.float32(rows)  # by now the slopes
        gradient = np.empty_like(weights)
        gradient[:split] = self._transposed @ logits
        gradient[split:-1] = self._dense.T @ logits
        gradient[-1] = logits.sum(axis=0)
        return loss, gradient

    def _softmax(self, logits: Floats32) -> float:
        """The summed loss; `logits` become its slopes."""
        assert self._at is not None
        logits -= logits.max(axis=1, keepdims=True)
        own = logits[self._at].astype(np.float64)
        np.exp(logits, out=logits)
        totals = logits.sum(axis=1, keepdims=True)
        logits /= totals
        logits[self._at] -= 1
        return float((np.log(totals[:, 0].astype(np.float64)) - own).sum())

    def _yes_no(self, logits: Floats32) -> float:
        losses = self._asked * (np.logaddexp(np.float32(0), logits) - self._yes * logits)
        # The logistic function by tanh, which does not overflow.
        np.copyto(logits, self._asked * (0.5 + 0.5 * np.tanh(logits / 2) - self._yes))
        return float(losses.sum(dtype=np.float64))


def minimise(problem: Problem, tolerance: float, most_steps: int) -> Floats32:
    """Weights where no entry of the gradient exceeds `tolerance`, or the best after `most_steps`. From zero."""
    weights = np.zeros(problem.shape, dtype=np.float32)
    value, gradient = problem(weights)
    moves: list[tuple[Floats32, Floats32, float]] = []
    for _ in range(most_steps):
        if float(np.abs(gradient).max(initial=0.0)) <= tolerance:
            break
        direction = _direction(gradient, moves)
        slope = float(np.vdot(gradient, direction))
        step = 1.0
        while True:
            moved = weights - np.float32(step) * direction
            new_value, new_gradient = problem(moved)
            if new_value <= value - _SUFFICIENT * step * slope:
                break
            step /= 2
            if step < _SMALLEST_STEP:
                return weights  # what is left to gain is below float32's resolution
        change, bend = moved - weights, new_gradient - gradient
        product = float(np.vdot(change, bend))
        if product > 1e-12:
            moves = [*moves[-(_MEMORY - 1) :], (change, bend, product)]
        weights, value, gradient = moved, new_value, new_gradient
    return weights


def _direction(gradient: Floats32, moves: list[tuple[Floats32, Floats32, float]]) -> Floats32:
    """The two-loop recursion: the gradient times an estimate of the inverse curvature from the last moves."""
    if not moves:
        return gradient * np.float32(min(1.0, 1.0 / float(np.abs(gradient).sum())))
    direction = gradient.copy()
    shares = []
    for change, bend, product in reversed(moves):
        share = float(np.vdot(change, direction)) / product
        direction -= np.float32(share) * bend
        shares.append(share)
    _, bend, product = moves[-1]
    direction *= np.float32(product / float(np.vdot(bend, bend)))
    for (change, bend, product), share in zip(moves, reversed(shares), strict=True):
        direction += np.float32(share - float(np.vdot(bend, direction)) / product) * change
    return direction
