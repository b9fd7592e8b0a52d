"""The learned score and the guard, on arrays made here."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from suffice.specialists.scorer import LARGEST_LOG_ODDS, fit_guard, fit_scorer, sigmoid


def signals_and_truth(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    signals = dice.normal(size=(n, 3))
    chance = 1 / (1 + np.exp(-(1.0 + signals[:, 0] - 2 * signals[:, 1])))
    return signals, dice.random(n) < chance


def test_the_score_learns_which_signals_tell() -> None:
    signals, right = signals_and_truth(4000)
    scorer = fit_scorer(signals, right, evidence=[0, 1])
    assert scorer.weights == pytest.approx([1.0, -2.0, 0.0], abs=0.2)
    assert scorer.bias == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("n", [0, 20, 99])
def test_a_small_tune_keeps_the_raw_order(n: int) -> None:
    signals, right = signals_and_truth(n)
    scorer = fit_scorer(signals, right, evidence=[2])
    assert scorer.score([5.0, 5.0, 1.0]) < scorer.score([-5.0, 0.0, 1.1])


@pytest.mark.parametrize("truth", [True, False])
def test_a_uniform_tune_keeps_the_raw_order(truth: bool) -> None:
    signals, _ = signals_and_truth(500)
    scorer = fit_scorer(signals, np.full(500, truth), evidence=[1])
    assert scorer.score([9.0, 1.0, 0.0]) < scorer.score([0.0, 1.1, 0.0])


def test_separable_and_constant_signals_stay_finite() -> None:
    signals = np.column_stack((np.linspace(-1, 1, 300), np.ones(300), np.linspace(-1, 1, 300)))
    scorer = fit_scorer(signals, signals[:, 0] > 0, evidence=[0])
    assert np.isfinite(scorer.weights).all()
    assert scorer.score([1.0, 1.0, 1.0]) > 0.9 > 0.1 > scorer.score([-1.0, 1.0, -1.0])


def test_the_squeezed_sigmoid_is_strictly_increasing() -> None:
    at = np.linspace(-80, 80, 3201)
    values = [sigmoid(float(x)) for x in at]
    assert all(low < high for low, high in pairwise(values))
    assert values[0] > 0 and values[-1] < 1
    assert sigmoid(1e9) <= 1 / (1 + np.exp(-LARGEST_LOG_ODDS))
    assert sigmoid(0.0) == 0.5


def test_the_guard_spends_at_most_its_share() -> None:
    strangeness = np.random.default_rng(1).normal(size=(5000, 3))
    guard = fit_guard(strangeness, share=0.01)
    beyond = np.mean([not guard.familiar(row) for row in strangeness.tolist()])
    assert 0.005 < beyond <= 0.01
    assert not guard.familiar([0.0, 0.0, 9.0])
    assert fit_guard(np.zeros((0, 2))).familiar([1e9, 1e9])
