"""The watch: it rarely alarms where it must not, soon where it must, and takes labels as they come."""

import math
from collections.abc import Callable
from itertools import permutations, product

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.types import Floats
from suffice.proof.bounds import p_betting
from suffice.proof.monitor import (
    ALPHA,
    WINDOWS,
    Audits,
    Limit,
    Shift,
    Wealth,
    alarmed,
    audits,
    book,
    evidence,
    open_audit,
    running_bound,
    settle,
    shifted,
    stakes,
    start,
    watch_shift,
)

DELTA = 0.05
RUNS = 2000
TOO_MANY = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / RUNS)

means = st.floats(-2, 2)
guesses = st.tuples(means, means, means)
chances = st.floats(0.0025, 1)


# ---------------------------------------------------------------------------------------------- false alarms


def alarms(
    random: np.random.Generator, limit: Limit, risk: float, q: Floats, draw: Callable[[Floats], Floats], count: int
) -> tuple[bool, int]:
    """One watch over `count` audits: whether it ever alarms, and after how many requests.

    A quarter of the requests escalates; the others fall evenly on the probabilities `q`. A label is 0 to 40 audits late
    (those of errors come at once: the worst case for whoever skips), one in ten never comes, and stakes are
    published after every third audit. The watch starts suspicious, so that it stakes, and errs, from the first request.
    """
    asked = 0.75 * float(q.mean())
    gaps = random.geometric(asked, count) - 1
    kinds = random.choice(len(q), count, p=q / q.sum())
    zs = draw(random.random(count))
    lost = random.random(count) < 0.1
    due = np.arange(count) + np.where(zs > 0, 0, random.integers(0, 41, count))
    arriving: dict[int, list[int]] = {}
    for i in random.permutation(np.flatnonzero(~lost)):
        arriving.setdefault(int(due[i]), []).append(int(i))
    q_err, seen, stamped = float(q.mean()), 0, []
    wealth = msgspec.structs.replace(start(limit), mean=(3 * limit.eps,) * 3)
    lam = stakes(wealth, limit, q_err)
    for i in range(count):
        if i % 3 == 0:
            lam = stakes(wealth, limit, q_err)
        stamped.append(lam)
        wealth = open_audit(book(wealth, limit, lam, q_err, int(gaps[i])), limit, lam, float(q[kinds[i]]))
        seen += int(gaps[i]) + 1
        for j in arriving.get(i, ()):
            wealth = settle(wealth, limit, stamped[j], float(q[kinds[j]]), float(zs[j]), q_err)
            if alarmed(wealth, limit):
                return True, seen
    return False, seen


def errors(rate: float) -> Callable[[Floats], Floats]:
    return lambda u: (u < rate).astype(np.float64)


RARE, CANARY = np.array([0.02, 0.05, 0.2]), np.array([0.9, 0.92, 1.0])


@pytest.mark.parametrize(
    ("limit", "q", "draw", "count"),
    [
        (Limit(eps=0.1, delta=DELTA), RARE, errors(0.1 / 0.75), 60),
        (Limit(eps=0.1, delta=DELTA), CANARY, errors(0.1 / 0.75), 150),
        (
            Limit(eps=0.1, delta=DELTA, signed=True, least_q=0.9),
            CANARY,
            lambda u: (u < 0.1 + 0.1 / 0.75).astype(np.float64) - (u > 0.9),
            150,
        ),
    ],
    ids=["few audits", "canary", "signed"],
)
def test_false_alarms_are_as_rare_as_promised_with_late_and_lost_labels(
    limit: Limit, q: Floats, draw: Callable[[Floats], Floats], count: int
) -> None:
    random = np.random.default_rng(1)
    false = sum(alarms(random, limit, 0.1, q, draw, count)[0] for _ in range(RUNS))
    assert false / RUNS <= TOO_MANY


def test_an_error_rate_of_five_times_the_limit_is_found_soon() -> None:
    random, limit = np.random.default_rng(2), Limit(eps=0.02, delta=DELTA)
    found = [alarms(random, limit, 0.1, np.array([0.1]), errors(0.1 / 0.75), 1500) for _ in range(100)]
    assert all(alarm for alarm, _ in found)
    assert np.median([requests for _, requests in found]) < 3000


def test_half_the_limit_is_left_in_peace() -> None:
    random, limit = np.random.default_rng(3), Limit(eps=0.1, delta=DELTA)
    false = sum(alarms(random, limit, 0.05, CANARY, errors(0.05 / 0.75), 150)[0] for _ in range(200))
    assert false <= 0.02 * 200


# ---------------------------------------------------------------------------------------------- the bet


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("signed", [False, True])
def test_no_step_is_expected_to_gain_at_the_limit(signed: bool, settled: bool) -> None:
    """Every course of five requests, weighed by its chance: the mean fortune is 1, or less while labels are missing."""
    q, eps, q_err = 0.4, 0.1, 0.4
    limit = Limit(eps=eps, delta=DELTA, signed=signed, least_q=q if signed else 0.0)
    worse, better = (0.3, 0.2) if signed else (0.1, 0.0)  # of all requests; the difference is the limit
    outcomes: dict[float | None, float] = {None: 1 - q, 1.0: q * worse, -1.0: q * better, 0.0: q * (1 - worse - better)}
    mean = np.zeros(3)
    for course in product(outcomes, repeat=5):
        chance = math.prod(outcomes[z] for z in course)
        wealth = Wealth(log=(0.0, 0.0, 0.0), mean=(2 * eps, 5 * eps, 20 * eps))
        late = []
        for i, z in enumerate(course if chance else ()):
            lam = stakes(wealth, limit, q_err)
            if z is None:
                wealth = book(wealth, limit, lam, q_err)
                continue
            wealth = open_audit(wealth, limit, lam, q)
            if i % 2:  # every second label is late
                late.append((lam, z))
            else:
                wealth = settle(wealth, limit, lam, q, z, q_err)
        for lam, z in late if settled else ():
            wealth = settle(wealth, limit, lam, q, z, q_err)
        mean += chance * np.exp(wealth.log)
    if settled:
        assert mean == pytest.approx(1, rel=1e-12)
    else:
        assert (mean < 1).all()


@pytest.mark.parametrize(
    "limit", [Limit(eps=0.02, delta=DELTA), Limit(eps=0.02, delta=DELTA, signed=True, least_q=0.1)]
)
def test_labels_may_come_in_any_order(limit: Limit) -> None:
    opened = [((0.01, 0.04, 0.0), 0.1, 1.0), ((0.03, 0.02, 0.01), 0.5, 0.0), ((0.04, 0.04, 0.04), 1.0, 0.25)]
    waiting = start(limit)
    for lam, q, _ in opened:
        waiting = book(open_audit(waiting, limit, lam, q), limit, lam, 0.1, 7)
    logs = []
    for order in permutations(opened):
        wealth = waiting
        for lam, q, z in order:
            wealth = settle(wealth, limit, lam, q, z, 0.1)
        logs.append(wealth.log)
    # What the terms add up to by the definition, each fortune by itself.
    for w in range(3):
        terms = [math.log(1 + lam[w] * (x - 0.02)) for lam, q, z in opened for x in [z / q] + 7 * [0.0]]
        assert [log[w] for log in logs] == pytest.approx([math.fsum(terms)] * len(logs), abs=1e-12)


@given(guesses, chances, st.booleans(), st.floats(0.001, 0.5), st.integers(0, 1000), chances)
def test_a_step_without_a_label_never_gains(
    mean: tuple[float, float, float], q: float, signed: bool, eps: float, count: int, q_err: float
) -> None:
    limit = Limit(eps=eps, delta=DELTA, signed=signed, least_q=0.0025 if signed else 0.0)
    wealth = Wealth(log=(1.0, 0.0, -3.0), mean=mean)
    lam = stakes(wealth, limit, q_err)
    assert evidence(open_audit(wealth, limit, lam, q)) <= evidence(wealth)
    assert evidence(book(wealth, limit, lam, q_err, count)) <= evidence(wealth)


@given(guesses, chances, st.booleans(), st.floats(0.001, 1), chances, st.floats(-1, 1))
def test_no_label_can_ruin(
    mean: tuple[float, float, float], q: float, signed: bool, eps: float, q_err: float, z: float
) -> None:
    limit = Limit(eps=eps, delta=DELTA, signed=signed, least_q=0.0025 if signed else 0.0)
    z = z if signed else abs(z)
    wealth = Wealth(log=(0.0, 0.0, 0.0), mean=mean)
    lam = stakes(wealth, limit, q_err)
    opened = open_audit(wealth, limit, lam, q)
    assert min(opened.log) >= math.log(0.5) - 1e-12  # at most half a fortune rides on one step
    after = settle(opened, limit, lam, q, z, q_err)
    for w in range(3):
        assert after.log[w] == pytest.approx(math.log(1 + lam[w] * (z / q - eps)), abs=1e-9)
        assert after.mean[w] == pytest.approx(mean[w] + (z / q - mean[w]) * q_err / WINDOWS[w])


@given(guesses, st.integers(0, 60), chances)
def test_many_steps_at_once_are_as_many_single_ones(mean: tuple[float, float, float], count: int, q_err: float) -> None:
    limit, wealth = Limit(eps=0.02, delta=DELTA), Wealth(log=(0.0, 1.0, -1.0), mean=mean)
    lam = stakes(wealth, limit, q_err)
    at_once, single = book(wealth, limit, lam, q_err, count), wealth
    for _ in range(count):
        single = book(single, limit, lam, q_err)
    assert at_once.log == pytest.approx(single.log, abs=1e-9)
    assert at_once.mean == pytest.approx(single.mean, abs=1e-12)


def test_a_new_watch_stakes_nothing_and_needs_the_evidence_it_says() -> None:
    limit = Limit(eps=0.02, delta=DELTA)
    wealth = start(limit)
    assert stakes(wealth, limit, 0.01) == (0.0, 0.0, 0.0)
    assert evidence(wealth) == 0
    # One fortune of 60 beside two lost ones is an average of 20 = 1/δ.
    assert alarmed(Wealth(log=(math.log(60.01), -2000.0, -2000.0), mean=wealth.mean), limit)
    assert not alarmed(Wealth(log=(math.log(59.99), -2000.0, -2000.0), mean=wealth.mean), limit)
    assert not alarmed(Wealth(log=(-5000.0, -5000.0, -5000.0), mean=wealth.mean), limit)


@pytest.mark.parametrize(
    ("signed", "q", "z"),
    [
        *((False, 0.5, z) for z in (-0.1, 1.1, math.nan)),
        *((True, 0.5, z) for z in (-1.1, 1.1, math.nan)),
        *((False, q, 1.0) for q in (0.0, 1.1, math.nan)),
        (True, 0.05, 1.0),  # rarer than the least that was declared
    ],
)
def test_what_cannot_be_is_refused(signed: bool, q: float, z: float) -> None:
    limit = Limit(eps=0.02, delta=DELTA, signed=signed, least_q=0.1 if signed else 0.0)
    with pytest.raises(ValueError):
        settle(start(limit), limit, (0.0, 0.0, 0.0), q, z, 0.01)


@pytest.mark.parametrize(
    ("eps", "delta", "signed", "least_q"),
    [(0.0, 0.05, False, 0.0), (0.02, 1.0, False, 0.0), (math.nan, 0.05, False, 0.0), (0.02, 0.05, True, 0.0)],
)
def test_an_impossible_limit_is_refused(eps: float, delta: float, signed: bool, least_q: float) -> None:
    with pytest.raises(ValueError):
        Limit(eps=eps, delta=delta, signed=signed, least_q=least_q)


@given(guesses, guesses, st.floats(0, 1), st.integers(0, 10**9))
def test_states_survive_the_store(
    log: tuple[float, float, float], mean: tuple[float, float, float], level: float, steps: int
) -> None:
    for state in (
        Wealth(log=log, mean=mean),
        Limit(eps=0.02, delta=DELTA, signed=True, least_q=0.0025),
        Audits(scale=level, least=0.0025, q_err=0.02, share=0.01),
        Shift(expected=0.3, level=level, steps=steps),
    ):
        assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state


# ---------------------------------------------------------------------------------------------- who is audited


@given(st.lists(st.floats(0, 1), max_size=50), st.just(0.0) | st.floats(1e-6, 1))
@settings(max_examples=200)
def test_the_mean_audit_probability_is_the_share(confidences: list[float], part: float) -> None:
    made = audits(np.array(confidences, dtype=np.float64), part)
    q = np.array([made.probability(c) for c in confidences])
    if confidences:
        assert q.mean() == pytest.approx(part, rel=1e-6, abs=1e-9)
        assert (q >= part / 4 * (1 - 1e-9)).all() and (q <= 1).all()
        assert (np.diff(q[np.argsort(confidences)]) <= 0).all()  # the surer, the rarer
        p = 1 - np.array(confidences)
        if part and p.sum() > 1e-6:
            assert made.q_err == pytest.approx(p.sum() / (p / q).sum(), rel=1e-6)
    assert 0 <= made.q_err <= 1


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("confidences", [np.ones(5), np.array([]), np.array([0.2, 0.9, 1.0])], ids=len)
def test_audits_where_there_is_nothing_to_weigh_by(confidences: Floats, share: float) -> None:
    made = audits(confidences, share)
    if share in (0.0, 1.0) or not (confidences < 1).any():
        assert [made.probability(c) for c in (0.0, 0.5, 1.0)] == [share] * 3
        assert made.q_err == share


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.1])
def test_audits_refuse_what_is_no_chance(bad: float) -> None:
    with pytest.raises(ValueError):
        audits(np.array([0.5, bad]), 0.01)
    with pytest.raises(ValueError):
        audits(np.array([0.5]), bad)


def test_weighted_audits_see_more_errors_for_the_same_money() -> None:
    random = np.random.default_rng(4)
    confidences = 1 - random.beta(0.3, 10, 5000)
    assert audits(confidences, 0.01).q_err > 1.5 * 0.01


# ---------------------------------------------------------------------------------------------- what is shown


@given(st.integers(0, 30), st.integers(0, 400), st.floats(0.05, 1), st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_the_bound_is_the_least_mean_that_the_fortune_rules_out(count: int, silent: int, q: float, seed: int) -> None:
    xs = np.random.default_rng(seed).random(count) / q
    bound = running_bound(xs, count + silent, q, DELTA)
    grid = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1]) * (1 - 1e-9)

    def fortune(mean: float) -> float:
        lam = grid / (1 - q * mean)
        logs = [
            math.fsum(
                [math.log(1 + stake * (q * mean - q * x)) for x in xs] + silent * [math.log(1 + stake * q * mean)]
            )
            for stake in lam
        ]
        return sum(math.exp(min(log, 700.0)) for log in logs) / 10

    if bound < 1:
        assert fortune(min(bound + 1e-6, 1 - 1e-9)) >= 1 / DELTA * (1 - 1e-6)
    if bound > 1e-6:
        assert fortune(bound - 1e-6) < 1 / DELTA


def test_the_bound_covers_the_true_risk() -> None:
    random, q, risk, steps = np.random.default_rng(5), 0.2, 0.03, 3000
    counts = random.binomial(steps, q * risk, size=400)
    bounds = np.array([running_bound(np.full(k, 1 / q), steps, q, DELTA) for k in counts])
    assert (bounds >= risk).mean() >= 0.95
    assert np.median(bounds) < 3 * risk


def test_the_bound_agrees_with_the_certificates_test() -> None:
    """With no loss at all the current fortune is the highest, so the two tests are one."""
    bound = running_bound(np.array([]), 2000, 0.5, DELTA)
    assert p_betting(np.zeros(2000), 0.5 * bound, order=np.arange(2000)) == pytest.approx(DELTA, rel=1e-6)


def test_the_bound_shows_nothing_of_nothing_and_is_quick_with_millions() -> None:
    assert running_bound(np.array([]), 0, 0.01, DELTA) == 1.0
    assert running_bound(np.full(50, 100.0), 60, 0.01, DELTA) == 1.0
    assert running_bound(np.full(100, 400.0), 10**9, 1 / 400, DELTA) < 1e-3
    for xs, steps in ((np.array([math.nan]), 5), (np.array([101.0]), 5), (np.ones(3), 2)):
        with pytest.raises(ValueError):
            running_bound(xs, steps, 0.01, DELTA)


# ---------------------------------------------------------------------------------------------- without labels


def test_a_shift_of_the_escalation_share_is_seen_and_chance_is_not() -> None:
    random = np.random.default_rng(6)
    calm = Shift(expected=0.2, level=0.2, steps=0)
    false = 0
    for _ in range(50):
        shift = calm
        for part in np.split(random.random(5000) < 0.2, 100):
            shift = watch_shift(shift, part)
            false += shifted(shift)
    assert false == 0
    assert shifted(watch_shift(shift, random.random(300) < 0.5))
    assert shifted(watch_shift(shift, np.zeros(300, dtype=bool)))  # nobody escalates any more: as suspicious


def test_the_first_escalations_of_a_sure_specialist_are_no_shift() -> None:
    shift = watch_shift(Shift(expected=0.01, level=0.01, steps=0), [True, True])
    assert not shifted(shift)
    assert shifted(watch_shift(shift, [True] * math.ceil(1 / ALPHA)))


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 200))
def test_requests_may_be_told_one_by_one_or_together(escalated: list[bool], cut: int) -> None:
    calm = Shift(expected=0.2, level=0.2, steps=0)
    together = watch_shift(calm, escalated)
    parts = watch_shift(watch_shift(calm, escalated[:cut]), np.array(escalated[cut:], dtype=bool))
    single = calm.level
    for one in escalated:
        single += ALPHA * (one - single)
    assert together.steps == parts.steps == len(escalated)
    assert (together.level, parts.level) == pytest.approx((single, single))
