"""The walk: how far it goes, where it must stop, what it says, and how seldom it is wrong."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.risk_control.fwer_control import control_fwer

from suffice.core.types import Bools, Floats, LossKind, Policy, Rejection, Threshold
from suffice.proof.bounds import Ints, p_binary
from suffice.proof.certify import Evidence, Shuffle, allowed_slices, certify, grid, short_of_floor

LAX_TO_STRICT = np.linspace(0, 1, 21)
GRID = tuple(float(score) for score in LAX_TO_STRICT[::-1])


def evidence(scores: Floats, losses: Floats, *, groups: Ints | None = None, cap: int = 1, **slices: Bools) -> Evidence:
    yes = np.ones(len(scores), dtype=np.bool_)
    return Evidence(scores=scores, acceptable=yes, losses=losses, groups=groups, cap=cap, slices=slices)


def run(
    found: Evidence, policy: Policy, kind: LossKind = "binary", grid: tuple[float, ...] = GRID, attempt: int = 1
) -> Threshold | Rejection:
    return certify(
        found,
        policy=policy,
        kind=kind,
        attempt=attempt,
        grid=grid,
        seed_digest="a dataset",
        promise="agreement",
        reference="frontier",
        at=7.0,
    )


def certified(found: Threshold | Rejection) -> Threshold:
    assert isinstance(found, Threshold), found
    return found


# ---------------------------------------------------------------------------------------------- where it goes


def test_a_good_specialist_gets_the_threshold_that_its_errors_allow() -> None:
    random, n = np.random.default_rng(0), 2000
    scores = random.random(n)
    losses = ((scores < 0.5) & (random.random(n) < 0.3)).astype(np.float64)
    found = certified(run(evidence(scores, losses), Policy(max_error=0.02)))
    certificate = found.certificate
    assert found.score == certificate.threshold
    assert 0.43 < found.score <= 0.5  # from 0.5 down errors come: 2% of all requests are reached at 0.433
    assert certificate.coverage == pytest.approx(1 - found.score, abs=0.03)
    assert certificate.p_value <= certificate.delta == pytest.approx(0.025)
    assert (certificate.n, certificate.attempt, certificate.at) == (n, 1, 7.0)
    assert certificate.method == "binomial, fixed sequence"


def test_the_walk_stops_at_the_first_failure_even_if_a_laxer_threshold_would_pass() -> None:
    """Signed losses: a bad stretch of scores, then a stretch that is better than the frontier and makes up for it."""
    scores = np.repeat([0.95, 0.75, 0.5], 1000)
    losses = np.repeat([0.0, 1.0, -1.0], 1000)
    levels = (0.95, 0.75, 0.5)
    policy = Policy(max_error=0.05)
    assert certified(run(evidence(scores, losses), policy, "signed", levels)).score == 0.95
    assert certified(run(evidence(scores, losses), policy, "signed", (0.5,))).score == 0.5


def test_the_walk_agrees_with_mapie() -> None:
    random, n = np.random.default_rng(1), 1500
    scores = random.random(n)
    losses = (random.random(n) < 0.25 * (1 - scores) ** 2).astype(np.float64)
    p = np.array([p_binary((scores >= level) * losses, 0.03) for level in GRID])
    theirs = control_fwer(p, 0.025, fwer_method="fixed_sequence")
    ours = certified(run(evidence(scores, losses), Policy(max_error=0.03)))
    assert ours.score == GRID[int(np.max(theirs))]


@pytest.mark.parametrize("kind", ["binary", "graded", "signed"])
def test_escalated_answers_cost_nothing(kind: LossKind) -> None:
    n = 1000
    acceptable = np.arange(n) % 2 == 0
    found = Evidence(scores=np.ones(n), acceptable=acceptable, losses=(~acceptable).astype(np.float64))
    certificate = certified(run(found, Policy(), kind)).certificate
    assert certificate.coverage == 0.5


def test_later_attempts_have_less_to_spend() -> None:
    n = 200
    scores, losses = np.ones(n), np.zeros(n)
    assert isinstance(run(evidence(scores, losses), Policy(), attempt=1), Threshold)
    assert isinstance(run(evidence(scores, losses), Policy(), attempt=3), Rejection)
    assert short_of_floor(n, Policy(), 1, "binary") == 0
    assert short_of_floor(n, Policy(), 3, "binary") == 272 - n


def test_the_same_evidence_gives_the_same_certificate() -> None:
    random = np.random.default_rng(2)
    found = evidence(random.random(800), random.choice([-1.0, 0.0, 1.0], 800, p=[0.03, 0.95, 0.02]))
    assert run(found, Policy(max_error=0.05), "signed") == run(found, Policy(max_error=0.05), "signed")


# ---------------------------------------------------------------------------------------------- slices


def test_a_slice_that_is_worse_holds_the_threshold_back() -> None:
    random, n = np.random.default_rng(3), 3000
    scores = random.random(n)
    rare = random.random(n) < 0.3
    losses = (rare & (scores < 0.8) & (random.random(n) < 0.08)).astype(np.float64)
    policy = Policy(max_error=0.05, max_slice_error=0.02)
    free = certified(run(evidence(scores, losses), policy))
    held = certified(run(evidence(scores, losses, rare=rare), policy))
    assert free.score == 0.0
    assert held.score > 0.4


def test_a_slice_without_requests_is_ignored() -> None:
    n = 500
    empty = np.zeros(n, dtype=np.bool_)
    assert isinstance(run(evidence(np.ones(n), np.zeros(n), never=empty), Policy()), Threshold)


def test_slices_too_rare_for_a_promise_are_not_allowed() -> None:
    tune = {"common": np.arange(100) < 40, "rare": np.arange(100) < 10, "none": np.zeros(100, dtype=np.bool_)}
    # The floor at 5% is 72 requests, and half as many again must be expected among 1,000: a share of 10.8%.
    assert allowed_slices(tune, 1000, Policy(), 1, "binary") == ("common",)
    assert allowed_slices(tune, 1100, Policy(), 1, "binary") == ("common", "rare")


# ---------------------------------------------------------------------------------------------- how seldom it is wrong


@pytest.mark.parametrize(
    ("kind", "grouped"), [("binary", False), ("graded", False), ("signed", False), ("binary", True)]
)
def test_a_threshold_that_breaks_the_promise_is_as_rare_as_agreed(kind: LossKind, grouped: bool) -> None:
    """Risk rises along the grid and is exactly ε at its seventh step: certifying that step breaks the promise."""
    random, units, repetitions, policy = np.random.default_rng(4), 400, 2000, Policy(max_error=0.05, confidence=0.9)
    levels = tuple(float(level) for level in range(9, 0, -1))
    chance = 0.05 / 7 * 9  # of an error, within each of nine equally likely levels
    size = 3 if grouped else 1
    n = units * size
    groups = np.arange(n) // size if grouped else None
    broken = 0
    for _ in range(repetitions):
        draws = np.repeat(random.random(units), size)  # where rows come in groups, a group is right or wrong together
        losses = (draws < chance).astype(np.float64)
        if kind == "graded":  # twice as often wrong, by half on average
            losses = (draws < 2 * chance) * random.random(n)
        if kind == "signed":  # as often better as it is worse besides
            losses = (draws < chance + 0.05).astype(np.float64) - (draws > 0.95)
        scores = random.integers(1, 10, n).astype(np.float64)
        found = run(evidence(scores, losses, groups=groups, cap=size), policy, kind, levels)
        broken += isinstance(found, Threshold) and found.score <= 3
    allowed = 0.05  # half of δ for a first attempt
    assert broken / repetitions <= allowed + 3 * np.sqrt(allowed * (1 - allowed) / repetitions)


def test_grouped_evidence_is_counted_in_groups() -> None:
    groups = np.repeat(np.arange(300), 3)
    found = evidence(np.ones(900), np.zeros(900), groups=groups, cap=3, odd=groups % 2 == 1)
    certificate = certified(run(found, Policy(max_error=0.05))).certificate
    assert certificate.n == 300
    assert certificate.method == "betting mixture over groups, at most 3 of a group, fixed sequence"
    assert short_of_floor(90, Policy(max_error=0.05), 1, "binary", grouped=True) == 11


# ---------------------------------------------------------------------------------------------- refusals


def test_a_refusal_tells_the_verdict_and_nothing_of_what_was_seen() -> None:
    """Whatever leaves calibration but its verdict would spoil it for the next attempt."""
    n = 1000
    few, many = np.zeros(n), np.ones(n)
    few[:40] = 1
    reasons = [run(evidence(np.ones(n), losses), Policy()) for losses in (few, many)]
    assert reasons[0] == reasons[1]
    assert isinstance(reasons[0], Rejection)
    assert reasons[0].reasons == (
        "cannot certify: 1,000 calibration requests do not show an error of at most 2% with 95% confidence, "
        "even at the strictest threshold",
    )


def test_nothing_to_go_by_is_a_refusal_not_an_error() -> None:
    nothing = evidence(np.array([]), np.array([]))
    assert isinstance(run(nothing, Policy()), Rejection)
    no_grid = run(evidence(np.ones(500), np.zeros(500)), Policy(), grid=())
    assert isinstance(no_grid, Rejection)
    assert "tune" in no_grid.reasons[0]


def test_evidence_that_cannot_be_is_refused_by_name() -> None:
    yes = np.ones(3, dtype=np.bool_)
    with pytest.raises(ValueError, match="`scores` holds NaN"):
        evidence(np.array([0.1, np.nan, 0.3]), np.zeros(3))
    with pytest.raises(ValueError, match="`losses` holds NaN"):
        evidence(np.zeros(3), np.array([0.1, np.nan, 0.3]))
    with pytest.raises(ValueError, match=r"`losses` has shape \(2,\)"):
        evidence(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="slice vip"):
        evidence(np.zeros(3), np.zeros(3), vip=yes[:2])
    with pytest.raises(ValueError, match="true or false"):
        Evidence(scores=np.zeros(3), acceptable=np.ones(3), losses=np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="more than 1 rows"):
        evidence(np.zeros(3), np.zeros(3), groups=np.array([1, 1, 2]))
    with pytest.raises(ValueError, match="0 or 1"):
        run(evidence(np.zeros(3), np.full(3, 0.5)), Policy(), "binary")
    with pytest.raises(ValueError, match="decreasing"):
        run(evidence(np.zeros(3), np.zeros(3)), Policy(), grid=(0.1, 0.2))


# ---------------------------------------------------------------------------------------------- grid and order


@given(st.lists(st.floats(0, 1), max_size=400), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_the_grid_runs_from_the_surest_acceptable_answer_to_the_least_sure(scores: list[float], size: int) -> None:
    array = np.array(scores)
    acceptable = np.arange(len(scores)) % 3 > 0
    levels = grid(array, acceptable, size)
    assert len(levels) <= size
    assert set(levels) <= set(array[acceptable])
    assert all(stricter > laxer for stricter, laxer in pairwise(levels))
    if acceptable.any():
        assert levels[0] == array[acceptable].max()
        assert size == 1 or levels[-1] == array[acceptable].min()


def test_a_grid_of_scores_that_are_no_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        grid(np.array([np.nan]), np.array([True]))


def test_one_order_serves_every_subset() -> None:
    n = 50
    found = evidence(np.zeros(n), np.zeros(n))
    shuffle = Shuffle(found, "a dataset")
    whole = shuffle.order(np.ones(n, dtype=np.bool_))
    rows = np.arange(n) % 3 == 0
    part = np.flatnonzero(rows)[shuffle.order(rows)]
    assert list(part) == [row for row in whole if rows[row]]
    assert not np.array_equal(whole, Shuffle(found, "another").order(np.ones(n, dtype=np.bool_)))


def test_a_slice_that_errs_too_often_stops_the_walk_and_the_certificate_names_its_limit() -> None:
    n = 3000
    scores = np.linspace(1, 0, n)
    small = np.arange(n) % 10 == 0
    losses = (small & (scores < 0.6)).astype(np.float64)  # all of the slice, from 0.6 down; 10% of the whole
    policy = Policy(max_error=0.05, max_slice_error=0.1)
    free = certified(run(evidence(scores, losses), policy))
    bound = certified(run(evidence(scores, losses, small=small), policy))
    assert free.score < 0.25 < 0.5 <= bound.score
    assert (free.certificate.max_slice_error, bound.certificate.max_slice_error) == (None, 0.1)


def test_the_window_is_part_of_the_certificate() -> None:
    found = certify(
        evidence(np.ones(500), np.zeros(500)), policy=Policy(loss="f1"), kind="graded", attempt=1, grid=(1.0,),
        seed_digest="d", promise="agreement", reference="frontier", window=(1.0, 2.0),
    )  # fmt: skip
    certificate = certified(found).certificate
    assert (certificate.window, certificate.loss) == ((1.0, 2.0), "f1")
    assert certificate.method == "betting mixture, fixed sequence, time split"
