"""What live traffic shows: the same losses as learning's, stages, the tail, and a new certificate after an alarm."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    Example,
    LossName,
    Policy,
    Prediction,
    Promise,
    Recipe,
    Rejection,
    Release,
    Report,
    Tail,
    Text,
    Threshold,
)
from suffice.core.values import Value
from suffice.learn import judging
from suffice.proof.bounds import attempt_delta, floor
from suffice.serve import evidence, watch
from suffice.serve.evidence import Attempt, Rows, Terms
from suffice.serve.watch import State
from suffice.store.watches import Seen

CONFIDENCES = tuple(np.sort(np.random.default_rng(0).random(1000)).tolist())
POLICY = Policy(max_error=0.05)


def release(promise: Promise = "agreement", loss: LossName = "exact", slices: tuple[str, ...] = ()) -> Release:
    share = Estimate(value=0.8, low=0.7, high=0.9, n=400)
    certificate = Certificate(
        max_error=0.05, confidence=0.95, attempt=1, delta=0.025, n=500, method="m", p_value=0.01, threshold=0.5,
        coverage=0.8, promise=promise, reference="frontier" if promise == "agreement" else "human", loss=loss,
    )  # fmt: skip
    return Release(
        draft=Draft(
            task="t", recipe=Recipe(family="linear"), contract=Choice(("a", "b")), dataset="d", artefact="a",
            threshold=Threshold(score=0.5, certificate=certificate), slices=slices,
        ),
        tail=Tail(promised=False, max_tail_error=0.5, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None, unseen_coverage=None,
            unseen_error=None, latency_p50_ms=1.0, latency_p99_ms=2.0, band_upper=0.6, memory_mb=3.0,
        ),
    )  # fmt: skip


ABSENT = "absent"


def seen(
    i: int,
    said: Value = "a",
    heard: Value = "a",
    right: Value = ABSENT,
    *,
    score: float = 0.9,
    acceptable: bool = True,
    kind: str = "human",
    refused: bool = False,
    group: str | None = None,
    session: str | None = None,
    slices: str = "",
) -> Seen:
    content = heard if isinstance(heard, str) else json.dumps(heard)
    message = {"role": "assistant", "content": None if refused else content, "refusal": "no" if refused else None}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return Seen(
        seq=i, record=f"r{i}", at=float(i), score=score, acceptable=acceptable, predicted=json.dumps(said),
        answer=json.dumps(body).encode(), session=session, group=group, slices=slices,
        trusted=None if right == ABSENT else right, kind=None if right == ABSENT else kind,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- as learning sees it


VALUES: list[Value] = ["a", "b", ["x", "y"], ["y", "x"], ["x"], {"city": ["Rome"], "day": None}, {"city": ["Rome"]}]


@pytest.mark.parametrize(("promise", "loss"), list(itertools.product(("agreement", "signed"), ("exact", "f1"))))
def test_rows_are_what_learning_would_compare(promise: Promise, loss: LossName) -> None:
    terms = Terms(promise=promise, reference="frontier" if promise == "agreement" else "human", loss=loss)
    rights = [ABSENT] if promise == "agreement" else [ABSENT, *VALUES]
    asked = list(itertools.product(VALUES, VALUES, rights, (False, True)))
    live = [seen(i, *row[:3], refused=row[3]) for i, row in enumerate(asked)]
    learned = [
        Example(
            id=f"r{i}", input="x", output=None if refused else heard, has_output=True,
            reference=None if right == ABSENT else right, has_reference=right != ABSENT,
            usable=not refused or right != ABSENT,
        )
        for i, (_, heard, right, refused) in enumerate(asked)
    ]  # fmt: skip
    predictions = [Prediction(value=said, score=0.9) for said, *_ in asked]
    found = evidence.rows(live, terms)
    wanted = judging.compare(predictions, Text(), learned, judging.Terms(terms.kind, loss))
    for name in ("losses", "wrong", "correct", "frontier_wrong", "differs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


@pytest.mark.parametrize("loss", ["exact", "f1"])
def test_a_disagreement_that_nobody_has_judged_counts_whole(loss: LossName) -> None:
    said: Value = ["x", "y"]
    heard: Value = ["x", "z"]
    agreement = Terms(promise="agreement", reference="frontier", loss=loss)
    signed = Terms(promise="signed", reference="human", loss=loss)
    assert evidence.rows([seen(0, said, heard)], agreement).losses[0] == (1.0 if loss == "exact" else 0.5)
    assert evidence.rows([seen(0, said, heard)], signed).losses[0] == 1.0
    assert evidence.rows([seen(0, said, said)], signed).losses[0] == 0.0


def test_references_are_never_mixed() -> None:
    agreement = Terms(promise="agreement", reference="frontier", loss="exact")
    assert evidence.rows([seen(0, "a", "b", "a")], agreement).losses[0] == 1.0, "it is not about who is right"
    signed = Terms(promise="signed", reference="human", loss="exact")
    assert evidence.rows([seen(0, "a", "b", "a")], signed).losses[0] == -1.0
    assert evidence.rows([seen(0, "a", "b", "a", kind="rule")], signed).losses[0] == 1.0


def test_what_a_release_is_judged_by_live() -> None:
    assert evidence.terms_of(release()) == Terms(promise="agreement", reference="frontier", loss="exact")
    for promise in ("signed", "absolute"):
        assert evidence.terms_of(release(promise)) == Terms(promise="signed", reference="human", loss="exact")
    assert evidence.terms_of(release("signed"), "f1").kind == "signed"
    assert evidence.terms_of(release(loss="f1")).kind == "graded"


def test_groups_and_their_cap() -> None:
    sizes = [1, 2, 2, 2, 7]
    some = [seen(i, group=f"g{g}") for i, g in enumerate(np.repeat(range(5), sizes).tolist())]
    found = evidence.rows(some, evidence.terms_of(release()))
    assert found.cap == 2
    assert found.within(2).sum() == 1 + 2 + 2 + 2 + 2
    assert found.evidence(2).n_units == 5
    assert found.evidence(None).groups is None
    interleaved = evidence.rows(
        [some[i] for i in np.random.default_rng(1).permutation(len(some))], evidence.terms_of(release())
    )
    assert np.bincount(interleaved.units[interleaved.within(2)]).max() == 2
    assert evidence.units([seen(0), seen(1, session="s"), seen(2, group="s", session="s")]) == [
        "row r0", "session s", "group s",
    ]  # fmt: skip
    nothing = evidence.rows([], evidence.terms_of(release()))
    assert (nothing.cap, nothing.evidence(None).n_units) == (1, 0)


# ---------------------------------------------------------------------------------------------- the next stage


def shadow(
    n: int, wrong: int, accepted: int, promise: Promise = "agreement", loss: LossName = "exact", **more: Value
) -> list[str]:
    live = [
        seen(i, heard="b" if i < wrong else "a", score=0.9 if i < accepted else 0.1, **more)  # type: ignore[arg-type]
        for i in range(n)
    ]
    rows = evidence.rows(live, evidence.terms_of(release(promise, loss)))
    return evidence.shadow_needs(rows, release(promise, loss), POLICY, 0.05)


def test_what_a_shadow_needs() -> None:
    assert shadow(199, 0, 199) == ["200 requests in shadow (199 so far)"]
    assert shadow(200, 10, 160) == []
    (need,) = shadow(200, 30, 160)
    assert "of 200 requests in shadow 15% would be answered unlike the frontier, where 5% is allowed" in need
    (need,) = shadow(200, 0, 40)
    assert "coverage: of 200 requests in shadow 20% would be answered, where 30% is asked for" in need
    assert len(shadow(200, 30, 40)) == 2


def test_graded_answers_are_unlike_by_degrees() -> None:
    live = [seen(i, ["x", "y", "z"], ["x", "y", "w"] if i % 7 == 0 else ["x", "y", "z"]) for i in range(200)]
    graded, exact = (release(loss=loss) for loss in ("f1", "exact"))
    assert evidence.shadow_needs(evidence.rows(live, evidence.terms_of(graded)), graded, POLICY, 0.05) == []
    assert evidence.shadow_needs(evidence.rows(live, evidence.terms_of(exact)), exact, POLICY, 0.05)


def test_an_unknown_usual_disagreement_stops_nothing() -> None:
    live = evidence.rows([seen(i, heard="b") for i in range(200)], evidence.terms_of(release("signed")))
    assert evidence.shadow_needs(live, release("signed"), POLICY, None) == []


def canary(state: State | None, promised: bool = True) -> list[str]:
    return evidence.canary_needs(state, promised, 17)


def test_what_a_canary_needs() -> None:
    state = watch.opened(release(), CONFIDENCES, POLICY, 1)
    enough = msgspec.structs.replace(state, steps=500)
    assert canary(enough) == []
    assert canary(None) == ["500 requests under watch (0 so far)"]
    assert "17 labels in the band" in canary(enough, promised=False)[0]
    shifted = msgspec.structs.replace(enough, shift=msgspec.structs.replace(state.shift, level=0.9, steps=500))
    assert not shifted.is_boosted
    assert "has shifted" in canary(shifted)[0], "also when nothing is left of the boost"
    assert "missing" in canary(msgspec.structs.replace(enough, missing=20))[0]


def test_looks_at_the_tail() -> None:
    assert [evidence.tail_look(n, 0) for n in (199, 200, 1000)] == [None, 200, 200]
    assert [evidence.tail_look(n, 1) for n in (200, 399, 400)] == [None, None, 400]
    assert evidence.tail_look(800, 2) == 800
    ok, bad = np.zeros(200), np.r_[np.ones(100), np.zeros(100)]
    alone, pairs = np.arange(200), np.arange(200) // 50
    assert evidence.tail_promised(ok, alone, POLICY, "binary", 0.025, 1)
    assert not evidence.tail_promised(bad, alone, POLICY, "binary", 0.025, 1)
    assert not evidence.tail_promised(ok, pairs, POLICY, "binary", 0.025, 1), "four sessions are four, not 200"
    rows = evidence.rows(
        [seen(i, score=score, acceptable=i != 5) for i, score in enumerate((0.4, 0.5, 0.55, 0.6, 0.61, 0.55))],
        evidence.terms_of(release()),
    )
    assert evidence.in_band(rows, release()).tolist() == [False, True, True, True, False, False]


# ---------------------------------------------------------------------------------------------- after an alarm


def traffic(n: int, risk: float, seed: int, promise: Promise = "agreement", **more: np.ndarray) -> Rows:
    """Requests whose error rate falls with the score, `risk` of all when everything is accepted."""
    random = np.random.default_rng(seed)
    scores = random.random(n)
    differs = random.random(n) < 2 * risk * (1 - scores)
    lost = differs.astype(np.float64)
    yes = np.ones(n, dtype=np.bool_)
    return Rows(
        scores=scores, acceptable=yes, losses=lost, least=lost.copy(), wrong=lost.copy(),
        correct=~differs, frontier_wrong=~yes, differs=differs, unlike=lost.copy(), units=np.arange(n), slices={},
            digest=str(seed),
    )  # fmt: skip


def plan_of(
    number: int = 0, k: int = 2, policy: Policy = POLICY, promise: Promise = "agreement", grouped: bool = False
) -> Attempt:
    return evidence.attempt(number, release(promise), policy, k, grouped)


def again(
    rows: Rows, test: Rows, plan: Attempt, policy: Policy = POLICY, old: Release | None = None
) -> Release | Rejection:
    old = old or release(plan.terms.promise)
    draft = evidence.certified(rows, plan, old, CONFIDENCES, policy, 7.0)
    if isinstance(draft, Rejection):
        return draft
    return evidence.judged(draft, rows, test, plan, old, CONFIDENCES, policy)


def test_sizes_are_known_before_any_look() -> None:
    assert (plan_of().calibration, plan_of().test) == (500, 250)
    assert (plan_of(1).calibration, plan_of(1).test) == (1000, 500)
    tight = Policy(max_error=0.005)
    for k in (2, 5):
        for promise in ("agreement", "signed"):
            plan = plan_of(k=k, policy=tight, promise=promise)
            assert plan.calibration == floor(0.005, attempt_delta(0.05, k), plan.terms.kind)
    grouped = plan_of(k=2, policy=tight, grouped=True)
    assert grouped.calibration == floor(0.005, attempt_delta(0.05, 2), "binary", grouped=True)


def test_the_first_requests_after_the_alarm_are_taken() -> None:
    live = [seen(i) for i in range(749)]
    assert plan_of().cut(live) is None
    assert (
        plan_of().cut([*live, seen(749)]) == plan_of().cut([*live, *(seen(i) for i in range(749, 999))]) == (500, 750)
    )
    pairs = [seen(i, session=str(i // 2)) for i in range(1500)]
    assert plan_of(grouped=True).cut(pairs[:1496]) is None
    assert plan_of(grouped=True).cut(pairs) == (999, 1497), "as soon as the last unit has begun"


def test_which_promise_is_tried_for_does_not_depend_on_the_labels_at_hand() -> None:
    assert plan_of(promise="signed").terms == plan_of(promise="absolute").terms
    assert plan_of(promise="signed").terms.promise == "signed"
    assert plan_of().terms.promise == "agreement"


def test_a_sound_release_is_certified_again_with_a_whole_report() -> None:
    plan = plan_of()
    verdict = again(traffic(plan.calibration, 0.01, 1), traffic(plan.test, 0.01, 2), plan)
    assert isinstance(verdict, Release)
    certificate, report = verdict.draft.threshold.certificate, verdict.report
    assert (certificate.attempt, certificate.n, certificate.at) == (2, 500, 7.0)
    assert certificate.delta == pytest.approx(0.05 / 6)
    assert certificate.promise == "agreement"
    assert verdict.draft.dataset != release().draft.dataset
    assert verdict.draft.artefact == release().draft.artefact
    for name in ("accuracy", "coverage", "accepted_error", "disagreement"):
        assert getattr(report, name).n == plan.test, name
    assert report.band_upper is not None and report.band_upper > verdict.draft.threshold.score
    assert (report.latency_p99_ms, report.memory_mb) == (2.0, 3.0)
    assert verdict.tail.error.n > 0


def test_a_bad_one_is_refused_without_a_figure() -> None:
    plan = plan_of()
    verdict = again(traffic(plan.calibration, 0.5, 1), traffic(plan.test, 0.5, 2), plan)
    assert isinstance(verdict, Rejection) and verdict.report is None
    other = again(traffic(plan.calibration, 0.6, 3), traffic(plan.test, 0.5, 2), plan)
    assert isinstance(other, Rejection) and other.reasons == verdict.reasons, "the verdict and nothing else"


def test_too_little_coverage_is_seen_before_the_gate() -> None:
    rows = traffic(500, 0.0, 1)
    rows.scores[:] = 0.0
    draft = evidence.certified(rows, plan_of(), release(), CONFIDENCES, POLICY, 0.0)
    assert isinstance(draft, Rejection) and "too little coverage" in draft.reasons[0]


def test_the_gate_refutes() -> None:
    plan = plan_of()
    verdict = again(traffic(plan.calibration, 0.01, 1), traffic(plan.test, 0.5, 2), plan)
    assert isinstance(verdict, Rejection) and verdict.report is not None


def test_a_signed_promise_needs_labels_for_disagreements_only() -> None:
    plan = plan_of(promise="signed")
    n = plan.calibration + plan.test
    random = np.random.default_rng(3)
    poor = [seen(i, "a", "b" if random.random() < 0.1 else "a", score=random.random()) for i in range(n)]
    helped = [msgspec.structs.replace(row, trusted="a", kind="human") if b'"b"' in row.answer else row for row in poor]

    def verdict(live: Sequence[Seen]) -> Release | Rejection:
        rows = evidence.rows(live, plan.terms)
        return again(rows.part(0, plan.calibration), rows.part(plan.calibration, n), plan)

    refused, certified = verdict(poor), verdict(helped)
    assert isinstance(refused, Rejection)
    assert isinstance(certified, Release) and certified.draft.threshold.certificate.promise == "signed"
    assert certified.report.net_loss is not None and certified.report.frontier_error is not None
    assert certified.report.accuracy.value == 1.0
    assert certified.report.coverage.value == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("share", "kept"), [(0.5, True), (0.1, False)])
def test_a_slice_is_closed_by_its_size_and_not_by_its_errors(share: float, kept: bool) -> None:
    plan = plan_of()
    old = release(slices=("vip",))
    n = plan.calibration + plan.test
    for wrong in (False, True):
        live = [
            seen(i, heard="b" if wrong and i % 100 < 5 else "a", score=float(i % 97) / 97,
                 slices="vip" if i % 100 < 100 * share else "")
            for i in range(n)
        ]  # fmt: skip
        rows = evidence.rows(live, plan.terms, old.draft.slices)
        draft = evidence.certified(rows.part(0, plan.calibration), plan, old, CONFIDENCES, POLICY, 0.0)
        if isinstance(draft, Rejection):
            assert wrong
            continue
        assert draft.slices == (("vip",) if kept else ())
        assert draft.closed_slices == (() if kept else ("vip",))
        verdict = evidence.judged(draft, rows.part(0, plan.calibration), rows.part(plan.calibration, n), plan, old,
                                  CONFIDENCES, POLICY)  # fmt: skip
        if isinstance(verdict, Release):
            assert [found.name for found in verdict.report.slices] == ["vip"]
            assert kept or verdict.report.slices[0].coverage.value == 0


@pytest.mark.parametrize("promise", ["agreement", "signed"])
def test_at_the_boundary_false_certificates_are_as_rare_as_promised(promise: Promise) -> None:
    """The true risk of everything that could be accepted is above the limit at every threshold of the grid."""
    plan = plan_of(promise=promise, k=1)
    policy = Policy(max_error=0.05, min_coverage=0.99)  # one threshold only: all
    false = 0
    runs = 300
    for seed in range(runs):
        rows = traffic(plan.calibration, 0.0, seed)
        wrong = np.random.default_rng((seed, 1)).random(plan.calibration) < 0.05
        rows.losses[:] = wrong
        rows.scores[:] = 1.0
        draft = evidence.certified(rows, plan, release(promise), CONFIDENCES, policy, 0.0)
        false += not isinstance(draft, Rejection)
    delta = attempt_delta(0.05, 1)
    assert false / runs <= delta + 3 * np.sqrt(delta / runs)


def test_at_the_boundary_in_groups() -> None:
    policy = Policy(max_error=0.05, min_coverage=0.99)
    plan = evidence.attempt(0, release(), policy, 1, grouped=True)
    false, runs = 0, 200
    for seed in range(runs):
        random = np.random.default_rng((seed, 2))
        n = 2 * plan.calibration
        bad = random.random(plan.calibration) < 0.05  # pairs err together
        rows = traffic(n, 0.0, seed)
        rows.losses[:] = np.repeat(bad, 2)
        rows.units[:] = np.repeat(np.arange(plan.calibration), 2)
        rows.scores[:] = 1.0
        false += not isinstance(evidence.certified(rows, plan, release(), CONFIDENCES, policy, 0.0), Rejection)
    delta = attempt_delta(0.05, 1)
    assert false / runs <= delta + 3 * np.sqrt(delta / runs)
