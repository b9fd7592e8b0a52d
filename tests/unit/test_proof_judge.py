"""The gate: what it lets through, what it turns away and why, and what it tells a person."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pytest

from suffice.core.types import (
    Bools,
    Certificate,
    Choice,
    Draft,
    Floats,
    LossKind,
    Policy,
    Promise,
    Recipe,
    Reference,
    Rejection,
    Release,
    Threshold,
)
from suffice.proof.bounds import Ints
from suffice.proof.certify import Evidence
from suffice.proof.judge import judge, sentence

N = 1000
SCORES = np.linspace(1, 0, N)  # row i has the (i+1)-th highest score
LEAST_SURE = slice(665, 700)  # the 35 rows just above a threshold of 0.3


def draft(promise: Promise = "agreement", reference: Reference = "frontier", method: str = "binomial") -> Draft:
    certificate = Certificate(
        max_error=0.02,
        confidence=0.95,
        attempt=1,
        delta=0.025,
        n=1500,
        method=method,
        p_value=0.01,
        threshold=0.3,
        coverage=0.7,
        promise=promise,
        reference=reference,
    )
    return Draft(
        task="triage",
        recipe=Recipe(family="linear"),
        contract=Choice(values=("a", "b")),
        dataset="d" * 64,
        artefact="a" * 64,
        threshold=Threshold(score=0.3, certificate=certificate),
    )


def gate(
    losses: Floats,
    *,
    kind: LossKind = "binary",
    policy: Policy | None = None,
    p99_ms: float = 5.0,
    scores: Floats = SCORES,
    frontier_wrong: Bools | None = None,
    groups: Ints | None = None,
    cap: int = 1,
    recorded: Bools | None = None,
    differs: Bools | None = None,
    slices: Mapping[str, Bools] | None = None,
    promised: Sequence[str] = (),
    tune_losses: Floats | None = None,
    memory_mb: float | None = None,
) -> Release | Rejection:
    yes = np.ones(len(scores), dtype=np.bool_)
    return judge(
        draft(),
        Evidence(
            scores=scores, acceptable=yes, losses=losses, groups=groups, cap=cap,
            slices={name: rows for name, rows in (slices or {}).items() if name in promised},
        ),
        correct=losses <= 0,
        frontier_wrong=frontier_wrong,
        unseen=np.arange(len(scores)) % 4 == 0,
        tune=Evidence(scores=SCORES, acceptable=np.ones(N, dtype=np.bool_), losses=np.zeros(N)),
        kind=kind,
        policy=policy or Policy(),
        attempt=1,
        latency_p50_ms=1.0,
        latency_p99_ms=p99_ms,
        recorded=recorded,
        differs=differs,
        slices=slices,
        tune_losses=tune_losses,
        memory_mb=memory_mb,
    )  # fmt: skip


def wrong_at(rows: slice | list[int], loss: float = 1.0) -> Floats:
    losses = np.zeros(N)
    losses[rows] = loss
    return losses


def released(found: Release | Rejection) -> Release:
    assert isinstance(found, Release), found
    return found


def rejected(found: Release | Rejection) -> str:
    assert isinstance(found, Rejection), found
    assert len(found.reasons) == 1
    assert found.report is not None and found.tail is not None
    return found.reasons[0]


# ---------------------------------------------------------------------------------------------- through the gate


def test_a_sound_specialist_is_released_with_every_number_in_its_interval() -> None:
    report = released(gate(wrong_at([3, 10, 400, 690, 800, 900]))).report
    assert report.accuracy.value == 0.994
    assert report.coverage.value == 0.7
    assert report.accepted_error.value == 0.004  # of all requests; the two below the threshold were escalated
    assert report.accepted_error.low < 0.004 < report.accepted_error.high < 0.02
    assert report.unseen_coverage is not None and report.unseen_error is not None
    assert report.unseen_coverage.n == 250
    assert report.unseen_error.value == 0.004  # of rows 400, 800 and 900, all unseen, only 400 is accepted
    assert report.frontier_error is None and report.worse is None


def test_disagreement_is_counted_where_the_frontier_was_recorded() -> None:
    differs = np.isin(np.arange(N), [3, 690, 900, 999])  # the last two are escalated
    report = released(gate(np.zeros(N), recorded=np.arange(N) < 950, differs=differs)).report
    assert report.disagreement is not None
    assert (report.disagreement.n, report.disagreement.value) == (950, 2 / 950)
    assert released(gate(np.zeros(N))).report.disagreement is None
    assert report.band_upper == pytest.approx(SCORES[665])


def test_a_release_is_not_asked_to_prove_the_promise_a_second_time() -> None:
    assert isinstance(gate(wrong_at(slice(0, 20))), Release)  # 2% exactly: not proven again, not refuted


def test_a_sound_specialist_is_seldom_turned_away() -> None:
    random = np.random.default_rng(0)
    turned_away = 0
    for _ in range(300):
        losses = (random.random(N) < 0.02 / 0.7).astype(np.float64)  # the true risk is exactly ε
        turned_away += isinstance(gate(losses), Rejection)
    assert turned_away <= 10


def test_signed_losses_show_how_many_were_answered_worse() -> None:
    losses = wrong_at([1, 2, 3, 4, 5])
    losses[[10, 20, 30]] = -1.0
    frontier_wrong = losses < 0
    report = released(gate(losses, kind="signed", frontier_wrong=frontier_wrong)).report
    assert report.worse is not None and report.worse.value == 0.005
    assert report.frontier_error is not None and report.frontier_error.value == 0.003


def test_graded_errors_count_by_their_degree() -> None:
    report = released(gate(wrong_at(slice(0, 20), 0.5), kind="graded")).report
    assert report.accepted_error.value == pytest.approx(0.01)


# ---------------------------------------------------------------------------------------------- turned away


@pytest.mark.parametrize("kind", ["binary", "graded", "signed"])
def test_a_leak_into_calibration_is_found_out(kind: LossKind) -> None:
    reason = rejected(gate(wrong_at(slice(0, 60)), kind=kind))
    assert "calibration and test disagree" in reason
    assert "6%" in reason and "2%" in reason and "1,000" in reason


def test_a_rotten_tail_is_found_out_although_the_average_is_fine() -> None:
    found = gate(wrong_at(slice(685, 700)))
    assert "least sure" in rejected(found)
    assert "42.9% on 35" in rejected(found)


@pytest.mark.parametrize("kind", ["graded", "signed"])
def test_a_rotten_tail_is_found_out_by_betting_too(kind: LossKind) -> None:
    policy = Policy(max_error=0.04, max_tail_error=0.2)
    assert "least sure" in rejected(gate(wrong_at(LEAST_SURE), kind=kind, policy=policy))


def test_too_little_coverage_is_told_with_its_bound() -> None:
    reason = rejected(gate(np.zeros(N), policy=Policy(min_coverage=0.69)))
    assert "70%" in reason and "67" in reason and "69%" in reason


@pytest.mark.parametrize("p99_ms", [80.0, float("nan")])
def test_a_slow_specialist_is_turned_away(p99_ms: float) -> None:
    assert "too slow" in rejected(gate(np.zeros(N), p99_ms=p99_ms))


def test_every_reason_is_told_at_once() -> None:
    found = gate(wrong_at(slice(0, 700)), policy=Policy(min_coverage=0.9), p99_ms=80)
    assert isinstance(found, Rejection)
    assert len(found.reasons) == 4


def test_an_empty_test_split_shows_no_coverage() -> None:
    assert "too little coverage" in rejected(gate(np.array([]), scores=np.array([])))


def test_masks_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="frontier_wrong"):
        gate(np.zeros(N), frontier_wrong=np.zeros(3, dtype=np.bool_))


# ---------------------------------------------------------------------------------------------- the tail


def test_a_clean_tail_is_promised_when_there_are_labels_enough() -> None:
    tail = released(gate(np.zeros(N))).tail
    assert tail.promised and tail.labels_missing == 0
    assert (tail.error.n, tail.error.value, tail.max_tail_error) == (35, 0.0, 0.2)


def test_a_tail_without_labels_enough_is_left_open_with_the_number_that_is_missing() -> None:
    tail = released(gate(wrong_at([690, 695, 699]))).tail
    assert not tail.promised
    assert 35 < tail.labels_missing < 300
    unsure = released(gate(wrong_at([690, 692, 694, 695, 696, 697, 698, 699]))).tail
    assert (unsure.promised, unsure.labels_missing) == (False, 200)


def test_a_tail_that_test_never_reached_is_left_open() -> None:
    tail = released(gate(np.zeros(N), scores=np.ones(N))).tail
    assert (tail.promised, tail.error.value, tail.labels_missing) == (False, None, 200)


def test_the_band_holds_the_ties_at_the_threshold() -> None:
    scores = np.where(np.arange(N) < 600, 0.9, 0.3)
    found = judge(
        draft(),
        Evidence(scores=scores, acceptable=np.ones(N, dtype=np.bool_), losses=np.zeros(N)),
        correct=np.ones(N, dtype=np.bool_),
        frontier_wrong=None,
        unseen=np.ones(N, dtype=np.bool_),
        tune=Evidence(scores=scores, acceptable=np.ones(N, dtype=np.bool_), losses=np.zeros(N)),
        kind="binary",
        policy=Policy(),
        attempt=1,
        latency_p50_ms=1,
        latency_p99_ms=2,
    )
    assert released(found).tail.error.n == 400


def test_groups_are_judged_as_groups() -> None:
    """Twelve groups of five wrong rows are weak evidence against 4%, sixty wrong rows on their own strong evidence."""
    groups = np.arange(N) // 5
    policy = Policy(max_error=0.04)
    assert isinstance(gate(wrong_at(slice(0, 60)), policy=policy, groups=groups, cap=5), Release)
    assert isinstance(gate(wrong_at(slice(0, 65)), policy=policy), Rejection)


# ---------------------------------------------------------------------------------------------- in plain words


@pytest.mark.parametrize(
    ("promise", "reference", "says"),
    [
        ("agreement", "frontier", "at most 2% of all requests of task triage get an answer that differs from"),
        ("absolute", "human", "at most 2% of all requests of task triage get a wrong answer"),
        ("signed", "rule", "on balance at most 2% more of all requests of task triage are answered wrong than if"),
    ],
)
def test_the_sentence_says_what_is_promised(promise: Promise, reference: Reference, says: str) -> None:
    found = released(gate(wrong_at([690, 695, 699])))
    text = sentence(Release(draft=draft(promise, reference), tail=found.tail, report=found.report))
    assert text.startswith("With 95% confidence, ")
    assert says in text
    assert "1,500 requests" in text
    assert "it does not say" in text
    assert f"tail not yet proven: {found.tail.labels_missing:,} more labels in the band" in text
    assert text.count(". ") == 0 and text.endswith(".")


def test_the_sentence_counts_groups_and_a_promised_tail() -> None:
    found = released(gate(np.zeros(N)))
    method = "betting mixture over groups, at most 4 of a group, fixed sequence"
    text = sentence(Release(draft=draft(method=method), tail=found.tail, report=found.report))
    assert "1,500 groups of requests" in text
    assert "where at most 4 of the requests of one group or session count, shown on" in text
    assert "at most 20% of its least sure answers" in text


def test_the_sentence_says_that_one_request_of_a_group_counts() -> None:
    found = released(gate(np.zeros(N)))
    alone = sentence(Release(draft=draft(method="binomial, fixed sequence"), tail=found.tail, report=found.report))
    assert "count" not in alone
    once = draft(method="binomial, at most 1 of a group, fixed sequence")
    text = sentence(Release(draft=once, tail=found.tail, report=found.report))
    assert "where at most 1 of the requests of one group or session count, shown on 1,500 requests" in text


# ---------------------------------------------------------------------------------------------- slices, groups, size


def test_every_slice_is_shown_with_its_bounds_the_worst_first() -> None:
    rows = np.arange(N)
    losses = wrong_at(list(range(0, 40, 2)))
    even, odd, rare = rows % 2 == 0, rows % 2 == 1, rows >= 995
    found = gate(losses, slices={"odd": odd, "even": even, "rare": rare}, promised=("even",))
    shown = {slice_.name: slice_ for slice_ in released(found).report.slices}
    assert list(shown) == ["even", "odd", "rare"]
    assert (shown["even"].promised, shown["odd"].promised) == (True, False)
    assert (shown["even"].error.value, shown["even"].error.n) == (0.04, 500)
    assert shown["even"].error.low < 0.04 < shown["even"].error.high
    assert (shown["rare"].coverage.value, shown["rare"].error.high > 0.3) == (0.0, True)


def test_a_slice_whose_promise_test_refutes_is_turned_away() -> None:
    small = np.arange(N) % 10 == 0
    losses = wrong_at(list(range(0, 190, 10)))  # 19 of 1,000 are fine, 19 of the slice's 100 are not
    assert isinstance(gate(losses, slices={"small": small}), Release)
    reason = rejected(gate(losses, slices={"small": small}, promised=("small",)))
    assert "of slice small is 19% where the certificate allows 5%" in reason


def test_intervals_know_of_groups() -> None:
    groups = np.arange(N) // 20
    alone, together = gate(wrong_at(slice(100, 120))), gate(wrong_at(slice(100, 120)), groups=groups, cap=20)
    assert released(together).report.accepted_error.high > 1.5 * released(alone).report.accepted_error.high
    assert released(together).report.coverage.low < released(alone).report.coverage.low


def test_the_net_loss_is_shown_with_a_paired_interval() -> None:
    losses = wrong_at(list(range(20)))
    losses[100:140] = -1.0
    net = released(gate(losses, kind="signed")).report.net_loss
    assert net is not None and net.value == pytest.approx(-0.02)
    assert -0.04 < net.low < -0.02 < net.high < 0.0
    assert released(gate(np.zeros(N))).report.net_loss is None


@pytest.mark.parametrize(("memory_mb", "allowed"), [(9.0, True), (11.0, False), (None, True)])
def test_a_large_specialist_is_turned_away(memory_mb: float | None, allowed: bool) -> None:
    found = gate(np.zeros(N), memory_mb=memory_mb, policy=Policy(max_memory_mb=10))
    assert released(found).report.memory_mb == memory_mb if allowed else "too large" in rejected(found)


# ---------------------------------------------------------------------------------------------- the worst twentieth


def test_the_worst_twentieth_is_promised_refuted_or_left_open() -> None:
    losses = wrong_at(list(range(0, 60, 2)), 0.5)  # 3% of the requests lose a half: CVaR 0.3, mean 0.015
    shown = {}
    for limit in (0.1, 0.31, 0.9, None):
        found = gate(losses, kind="graded", policy=Policy(max_cvar=limit), tune_losses=losses)
        assert found.report is not None and found.report.cvar is not None
        cvar = found.report.cvar
        assert cvar.value.value == pytest.approx(0.3)
        assert cvar.value.low < 0.3 < cvar.value.high
        shown[limit] = (isinstance(found, Release), cvar.promised)
    assert shown == {0.1: (False, False), 0.31: (True, False), 0.9: (True, True), None: (True, False)}


def test_a_limit_that_tune_already_breaks_is_refuted_by_the_share_beyond_it() -> None:
    losses = wrong_at(list(range(0, 600, 5)), 0.15)  # 12% of the requests lose 0.15
    policy = Policy(max_cvar=0.1)
    assert "worst twentieth" in rejected(gate(losses, kind="graded", policy=policy, tune_losses=losses))
    few = wrong_at(list(range(0, 600, 20)), 0.15)
    assert isinstance(gate(few, kind="graded", policy=policy, tune_losses=losses), Release)


def test_a_worst_twentieth_that_keeps_its_limit_is_seldom_refuted_and_never_promised_beyond_it() -> None:
    """CVaR is exactly the limit: X is 0.4 in 5% of the requests."""
    random = np.random.default_rng(0)
    refuted = promised = 0
    for _ in range(100):
        losses = np.where(random.random(N) < 0.05 / 0.7, 0.4, 0.0) * (SCORES >= 0.3)
        tune = np.where(random.random(300) < 0.05, 0.4, 0.0)
        found = gate(losses, kind="graded", policy=Policy(max_error=0.05, max_cvar=0.4), tune_losses=tune)
        assert found.report is not None and found.report.cvar is not None
        refuted += isinstance(found, Rejection)
        promised += found.report.cvar.promised
    assert refuted <= 6
    assert promised <= 8  # at δ_1 = 0.025


# ---------------------------------------------------------------------------------------------- graded, in words


@pytest.mark.parametrize(
    ("promise", "says"),
    [
        ("agreement", "the mean loss (1 - F1 against the frontier's answers; 0 for requests passed on) over all"),
        ("absolute", "the mean loss (1 - F1 against the right answers; 0 for requests passed on) over all"),
        ("signed", "on balance the mean loss (1 - F1) over all requests of task triage is at most 2% above"),
    ],
)
def test_the_sentence_of_a_graded_certificate(promise: Promise, says: str) -> None:
    losses = wrong_at([1, 2], 0.5)
    found = released(gate(losses, kind="graded", policy=Policy(max_cvar=0.9), tune_losses=losses))
    made = draft(promise, "human", "betting mixture, fixed sequence")
    certificate = msgspec.structs.replace(
        made.threshold.certificate, loss="f1", window=(1.7e9, 1.7e9 + 864000), max_slice_error=0.05
    )
    made = msgspec.structs.replace(made, threshold=Threshold(score=0.3, certificate=certificate), slices=("en", "de"))
    text = sentence(Release(draft=made, tail=found.tail, report=found.report))
    assert says in text
    assert "for the window from 2023-11-14 to 2023-11-24 UTC" in text
    assert "(and at most 5% within each of the slices en, de)" in text
    assert "a mean loss of at most 90% in the worst twentieth of the requests is shown too" in text
