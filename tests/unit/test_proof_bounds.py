"""P-values that hold at the exact boundary, agree with independent oracles, and refuse what they cannot judge."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import binom, binomtest

from suffice.core.types import Floats, LossKind
from suffice.proof import bounds
from suffice.proof.bounds import (
    BEYOND_REACH,
    Ints,
    attempt_delta,
    clopper_pearson,
    floor,
    mean,
    needed,
    p_betting,
    p_binary,
    p_ge,
    p_le,
    share,
)

DELTA = 0.05
REPETITIONS = 2000
Draw = Callable[[np.random.Generator, int, float], Floats]
TOO_MANY = DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / REPETITIONS)


def ones(k: int, n: int) -> Floats:
    return np.array([1.0] * k + [0.0] * (n - k))


def in_order(n: int) -> Ints:
    return np.arange(n)


# ---------------------------------------------------------------------------------------------- oracles


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_binary_agrees_with_scipy(n: int, part: float, eps: float) -> None:
    k = round(part * n)
    at_most = binomtest(k, n, eps, alternative="less").pvalue
    at_least = binomtest(k, n, eps, alternative="greater").pvalue
    assert p_binary(ones(k, n), eps) == pytest.approx(at_most, rel=1e-8, abs=1e-300)
    assert p_ge(ones(k, n), eps, "binary", order=in_order(n)) == pytest.approx(at_least, rel=1e-8, abs=1e-300)


@pytest.mark.parametrize(("k", "n"), [(0, 256), (3, 256), (5, 512), (20, 1024), (31, 2048)])
def test_binary_agrees_with_mapie(k: int, n: int) -> None:
    # Its p-value is the smaller of Hoeffding's and the binomial tail, and the exact tail is never the larger one.
    theirs = compute_hoeffding_bentkus_p_value(np.array([k / n]), n, 0.02, binary=True)[0, 0]
    assert p_binary(ones(k, n), 0.02) == pytest.approx(theirs, rel=1e-8)


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.5, 0.99))
@settings(max_examples=50, deadline=None)
def test_interval_agrees_with_scipy(k: int, extra: int, confidence: float) -> None:
    n = k + extra
    if n == 0:
        assert clopper_pearson(0, 0) == (0.0, 1.0)
        return
    theirs = binomtest(k, n).proportion_ci(confidence, method="exact")
    assert clopper_pearson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def wealth(gains: tuple[float, ...], eps: float, cap: int = 1) -> float:
    """The final fortune, multiplied out as the definition has it."""
    stakes = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1]) * (1 - 1e-9) / (1 - eps) / cap
    return float(np.mean([np.prod([1 + stake * gain for gain in gains]) for stake in stakes]))


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("better", [0.0, 0.1, 0.4])
def test_no_fortune_is_expected_from_a_fair_bet(eps: float, better: float) -> None:
    """Exact enumeration on {-1, 0, 1} with mean exactly eps: the p-value is below u with a chance of at most u."""
    chance = {-1.0: better, 1.0: eps + better, 0.0: 1 - eps - 2 * better}
    n, fortune, below = 5, 0.0, np.zeros(3)
    levels = np.array([0.05, 0.2, 0.5])
    for losses in product(chance, repeat=n):
        weight = float(np.prod([chance[loss] for loss in losses]))
        fortune += weight * wealth(tuple(eps - loss for loss in losses), eps)
        below += weight * (p_betting(np.array(losses), eps, order=in_order(n)) <= levels)
    assert fortune == pytest.approx(1, abs=1e-9)
    assert (below <= levels + 1e-9).all()


def test_betting_is_the_largest_product_on_the_way() -> None:
    losses, eps = np.array([0.0, 0.0, -1.0, 1.0, 0.3]), 0.2
    gains = tuple(eps - losses)
    largest = max(wealth(gains[:t], eps) for t in range(1, 6))
    assert p_betting(losses, eps, order=in_order(5)) == pytest.approx(1 / largest)
    groups, cap = np.array([7, 3, 7, 3, 9]), 2
    sums = (gains[1] + gains[3], gains[0] + gains[2], gains[4])  # ascending codes: 3, 7, 9
    order = np.array([1, 2, 0])
    largest = max(wealth(tuple(sums[i] for i in order[:t]), eps, cap) for t in range(1, 4))
    assert p_betting(losses, eps, order=order, groups=groups, cap=cap) == pytest.approx(1 / max(1.0, largest))


# ---------------------------------------------------------------------------------------------- the promise


def binary(random: np.random.Generator, n: int, eps: float) -> Floats:
    return (random.random(n) < eps).astype(np.float64)


def graded(random: np.random.Generator, n: int, eps: float) -> Floats:
    return random.beta(0.2, 0.2 * (1 - eps) / eps, n)


def signed(random: np.random.Generator, n: int, eps: float) -> Floats:
    return random.choice([-1.0, 0.0, 1.0], n, p=[0.03, 0.94 - eps, 0.03 + eps])


@pytest.mark.parametrize(
    ("kind", "draw", "n", "eps"),
    [
        ("binary", binary, 150, 0.02),
        ("binary", binary, 1000, 0.02),
        ("graded", graded, 400, 0.05),
        ("signed", signed, 1000, 0.02),
    ],
)
def test_a_false_promise_is_as_rare_as_agreed(kind: LossKind, draw: Draw, n: int, eps: float) -> None:
    random = np.random.default_rng(1)
    passed = [p_le(draw(random, n, eps), eps, kind, order=in_order(n)) <= DELTA for _ in range(REPETITIONS)]
    assert np.mean(passed) <= TOO_MANY


@pytest.mark.parametrize("kind", ["binary", "graded", "signed"])
def test_a_false_refutation_is_as_rare_as_agreed(kind: LossKind) -> None:
    random, n, eps = np.random.default_rng(2), 500, 0.04
    draw = {"binary": binary, "graded": graded, "signed": signed}[kind]
    refuted = [p_ge(draw(random, n, eps), eps, kind, order=in_order(n)) <= DELTA for _ in range(REPETITIONS)]
    assert np.mean(refuted) <= TOO_MANY


def test_rows_that_err_together_break_the_binomial_and_not_the_bet_over_groups() -> None:
    random, eps, size, count, correlation = np.random.default_rng(3), 0.05, 10, 150, 0.3
    groups = np.repeat(np.arange(count), size)
    shape = (1 - correlation) / correlation
    naive, grouped = 0, 0
    for _ in range(REPETITIONS):
        rate = np.repeat(random.beta(eps * shape, (1 - eps) * shape, count), size)
        losses = (random.random(count * size) < rate).astype(np.float64)
        naive += p_le(losses, eps, "binary", order=in_order(losses.size)) <= DELTA
        grouped += p_le(losses, eps, "binary", order=in_order(count), groups=groups, cap=size) <= DELTA
    assert naive / REPETITIONS > 2 * TOO_MANY
    assert grouped / REPETITIONS <= TOO_MANY


def test_betting_certifies_a_good_specialist() -> None:
    random = np.random.default_rng(4)
    passed = [
        p_le(signed(random, 3000, -0.01), 0.02, "signed", order=in_order(3000)) <= 0.025,
        p_le(binary(random, 3000, 0.008), 0.02, "graded", order=in_order(3000)) <= 0.025,
        p_le(ones(3, 1000), 0.02, "binary", order=in_order(1000)) <= 0.025,
    ]
    assert all(passed)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60), st.data())
@settings(max_examples=100, deadline=None)
def test_labelling_one_more_disagreement_never_raises_p(losses: list[float], data: st.DataObject) -> None:
    """An unlabelled disagreement counts +1, so a label can only lower the loss: labels may come in any order."""
    row = data.draw(st.integers(0, len(losses) - 1))
    before, after = np.array(losses), np.array(losses)
    after[row] = min(after[row], data.draw(st.sampled_from([-1.0, 0.0, 1.0])))
    order = np.array(data.draw(st.permutations(range(len(losses)))))
    assert p_betting(after, 0.1, order=order) <= p_betting(before, 0.1, order=order) * (1 + 1e-9)


# ---------------------------------------------------------------------------------------------- floors and ledger


@pytest.mark.parametrize(
    ("kind", "delta", "floors"),
    [
        ("binary", 0.05, [598, 299, 149, 99, 59]),
        ("binary", 0.025, [736, 368, 183, 122, 72]),
        ("signed", 0.025, [1033, 515, 256, 170, 101]),
        ("graded", 0.025, [1033, 515, 256, 170, 101]),
    ],
)
def test_floors(kind: LossKind, delta: float, floors: list[int]) -> None:
    limits = [0.005, 0.01, 0.02, 0.03, 0.05]
    assert [floor(eps, delta, kind) for eps in limits] == floors
    for eps, n in zip(limits, floors, strict=True):
        assert p_le(np.zeros(n), eps, kind, order=in_order(n)) <= delta
        assert p_le(np.zeros(n - 1), eps, kind, order=in_order(n - 1)) > delta


def test_the_floor_of_grouped_examples_counts_groups() -> None:
    n = floor(0.05, 0.025, "binary", grouped=True)
    groups = np.repeat(np.arange(n), 3)
    assert n == 101
    assert p_le(np.zeros(3 * n), 0.05, "binary", order=in_order(n), groups=groups, cap=3) <= 0.025


def test_all_attempts_together_spend_less_than_delta() -> None:
    assert attempt_delta(0.05, 1) == 0.025
    assert sum(attempt_delta(0.05, k) for k in range(1, 100_000)) < 0.05
    with pytest.raises(ValueError, match="from 1"):
        attempt_delta(0.05, 0)


@pytest.mark.parametrize(("kind", "loss_rate"), [("binary", 0.01), ("graded", 0.01), ("signed", -0.01)])
def test_what_is_needed_usually_suffices(kind: LossKind, loss_rate: float) -> None:
    random, eps = np.random.default_rng(5), 0.02
    n = needed(eps, 0.025, kind, loss_rate, worse=0.02 if kind == "signed" else None)
    draw = signed if kind == "signed" else binary
    losses = [draw(random, n, loss_rate) for _ in range(300)]
    assert 0.6 < np.mean([p_le(row, eps, kind, order=in_order(n)) <= 0.025 for row in losses]) <= 1.0
    assert n >= floor(eps, 0.025, kind)


def test_what_can_never_be_shown_is_said() -> None:
    with pytest.raises(ValueError, match="never"):
        needed(0.02, 0.025, "binary", 0.02)
    assert needed(0.02, 0.025, "signed", 0.0199, worse=0.5) == BEYOND_REACH
    assert needed(0.02, 0.025, "binary", 0.0) == floor(0.02, 0.025, "binary")


# ---------------------------------------------------------------------------------------------- refusals


def test_nothing_seen_proves_nothing() -> None:
    nothing = np.array([])
    for kind in ("binary", "graded", "signed"):
        assert p_le(nothing, 0.02, kind, order=in_order(0)) == 1.0
        assert p_ge(nothing, 0.02, kind, order=in_order(0)) == 1.0
    assert p_betting(nothing, 0.02, order=in_order(0), groups=in_order(0)) == 1.0


@pytest.mark.parametrize(
    ("losses", "kind", "says"),
    [
        ([0.0, np.nan], "binary", "NaN"),
        ([0.0, np.nan], "signed", "NaN"),
        ([0.0, 0.5], "binary", "0 or 1"),
        ([0.0, -1.0], "graded", r"\[0, 1\]"),
        ([0.0, -1.5], "signed", r"\[-1, 1\]"),
        ([0.0, 1.5], "graded", r"\[0, 1\]"),
    ],
)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_loss_that_cannot_be_is_refused(losses: list[float], kind: LossKind, says: str, grouped: bool) -> None:
    groups = in_order(2) if grouped else None
    for test in (p_le, p_ge):
        with pytest.raises(ValueError, match=says):
            test(np.array(losses), 0.1, kind, order=in_order(2), groups=groups)


def test_arguments_that_would_void_the_proof_are_refused() -> None:
    losses = np.zeros(4)
    with pytest.raises(ValueError, match="more than the cap"):
        p_betting(losses, 0.1, order=in_order(2), groups=np.array([0, 0, 0, 1]), cap=2)
    with pytest.raises(ValueError, match="permutation"):
        p_betting(losses, 0.1, order=np.array([0, 0, 1, 2]))
    with pytest.raises(ValueError, match="permutation"):
        p_betting(losses, 0.1, order=in_order(3))
    with pytest.raises(ValueError, match="limit"):
        p_binary(losses, 1.0)


def test_extremes_stay_numbers() -> None:
    assert p_betting(-np.ones(3000), 0.02, order=in_order(3000)) == pytest.approx(0.0)
    assert p_betting(np.ones(3000), 0.02, order=in_order(3000)) == 1.0


# ---------------------------------------------------------------------------------------------- estimates


def test_an_estimate_never_claims_certainty() -> None:
    clean = mean(np.zeros(100), -1.0, seed=0)
    assert clean.value == 0 and clean.low < 0 < clean.high
    empty = share(np.array([], dtype=np.bool_))
    assert (empty.value, empty.low, empty.high, empty.n) == (None, 0.0, 1.0, 0)
    assert mean(np.array([]), -1.0, seed=0).value is None


def test_the_bootstrap_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    estimates = [mean(signed(random, 400, 0.02), -1.0, seed=i) for i in range(300)]
    assert np.mean([estimate.low <= 0.02 <= estimate.high for estimate in estimates]) > 0.9


# ---------------------------------------------------------------------------------------------- display, in groups


def test_a_mean_over_groups_is_as_unsure_as_its_groups_are_few() -> None:
    random = np.random.default_rng(0)
    groups = np.arange(2000) // 20
    together = np.repeat((random.random(100) < 0.1).astype(np.float64), 20)
    alone, known = bounds.mean(together, 0.0, 1), bounds.mean(together, 0.0, 1, groups)
    assert alone.value == known.value
    assert known.high - known.low > 3 * (alone.high - alone.low)
    assert bounds.mean(np.zeros(2000), 0.0, 1, groups).high == pytest.approx(bounds.clopper_pearson(0, 100)[1])


def test_the_mean_of_the_worst() -> None:
    losses = np.r_[np.ones(20), np.full(60, 0.5), np.zeros(920)]
    found = bounds.worst_mean(losses, 0.05, 0)
    assert found.value == pytest.approx((20 + 30 * 0.5) / 50)
    assert found.low < 0.7 < found.high <= 1
    assert bounds.worst_mean(np.r_[1.0, np.zeros(9)], 0.05, 0).value == 1  # half a row is taken
    assert bounds.worst_mean(np.zeros(0), 0.05, 0).value is None
    wide = bounds.worst_mean(losses, 0.05, 0, np.arange(1000) // 50)
    assert wide.high - wide.low > found.high - found.low


def test_an_upper_bound_on_a_mean_holds_for_the_worst_spread() -> None:
    for n, right in ((50, 0.2), (400, 0.02)):
        k = np.arange(n + 1)
        bounds_of = np.array([bounds.mean_upper(i / n, n, 0.05) for i in k])
        assert binom.pmf(k, n, right)[bounds_of < right].sum() <= 0.05
        assert all(bounds_of[:-1] >= [bounds.clopper_pearson(int(i), n, 0.9)[1] - 1e-9 for i in k[:-1]])
    assert bounds.mean_upper(0.0, 60, 0.05) == pytest.approx(1 - 0.05 ** (1 / 60))
    assert (bounds.mean_upper(0.5, 0, 0.05), bounds.mean_upper(1.0, 9, 0.05)) == (1.0, 1.0)
    with pytest.raises(ValueError, match="mean"):
        bounds.mean_upper(1.2, 10, 0.05)
