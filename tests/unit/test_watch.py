"""The state of a watch: what it is limited by, how requests and labels move it, what it says."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from suffice.core.losses import Unverified
from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    LossName,
    Policy,
    Promise,
    Recipe,
    Reference,
    Release,
    Report,
    Tail,
    Threshold,
)
from suffice.core.values import Value
from suffice.proof import monitor
from suffice.proof.bounds import clopper_pearson
from suffice.serve import watch
from suffice.serve.watch import Published, State
from suffice.store.watches import Due, Step

CONFIDENCES = tuple(np.linspace(0.3, 1.0, 200).tolist())
POLICY = Policy(max_error=0.05, audit=0.2)


def release(
    promise: Promise = "agreement",
    *,
    disagreement: Estimate | None = None,
    reference: Reference | None = None,
    loss: LossName = "exact",
    max_error: float = 0.05,
) -> Release:
    share = Estimate(value=0.8, low=0.7, high=0.9, n=400)
    certificate = Certificate(
        max_error=max_error, confidence=0.95, attempt=1, delta=0.025, n=500, method="m", p_value=0.01, threshold=0.5,
        coverage=0.8, promise=promise, reference=reference or ("frontier" if promise == "agreement" else "human"),
        loss=loss,
    )  # fmt: skip
    return Release(
        draft=Draft(
            task="t", recipe=Recipe(family="linear"), contract=Choice(("a", "b")), dataset="d", artefact="a",
            threshold=Threshold(score=0.5, certificate=certificate),
        ),
        tail=Tail(promised=False, max_tail_error=0.5, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None, unseen_coverage=None,
            unseen_error=None, latency_p50_ms=1.0, latency_p99_ms=2.0, disagreement=disagreement, band_upper=0.6,
        ),
    )  # fmt: skip


def opened(promise: Promise = "agreement", policy: Policy = POLICY, number: int = 1, **more: object) -> State:
    return watch.opened(release(promise, **more), CONFIDENCES, policy, number)  # type: ignore[arg-type]


def trusted(**more: float) -> Policy:
    return Policy(max_error=0.05, audit=0.2, audit_reference="trusted", **more)  # type: ignore[arg-type]


def step(i: int, state: State, reason: str = "accepted", audited: bool = False, coin: float = 0.2) -> Step:
    return Step(
        record=f"r{i}", task="t", watch=1, at=float(i), reason=reason, coin=coin if reason == "accepted" else None,
        audited=audited if reason == "accepted" else None, stakes=watch.stamp(state.stakes),
    )  # fmt: skip


def due(
    opening: Step, said: Value = "a", heard: Value = "a", right: Value | None = None, *, kind: str = "human",
    failed: bool = False, refused: bool = False, differs: float | None = None, missing: bool = False,
    silent: bool = False,
) -> Due:  # fmt: skip
    content = heard if isinstance(heard, str) else json.dumps(heard)
    message = {"role": "assistant", "content": None if refused else content, "refusal": "no" if refused else None}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    return Due(
        record=opening.record, at=opening.at, coin=opening.coin or 1.0, stakes=opening.stakes, differs=differs,
        missing=missing, predicted=json.dumps(said), answer=None if failed or silent else json.dumps(body).encode(),
        failed=failed, trusted=right, kind=kind if right is not None else None,
    )  # fmt: skip


def labelled(state: State, dues: Sequence[Due]) -> State:
    return watch.settled(state, [(d, label) for d in dues if (label := watch.judged(state, d)) is not None])


# ---------------------------------------------------------------------------------------------- the limit


def test_the_limit_by_the_kind_of_certificate() -> None:
    seen = Estimate(value=0.04, low=0, high=1, n=500)
    agreement = opened()
    assert (agreement.by, agreement.limit) == ("frontier", monitor.Limit(eps=0.05, delta=0.025))
    assert opened(policy=trusted()).by == "frontier", "agreement knows nobody else"
    for promise in ("absolute", "signed"):
        state = opened(promise, disagreement=seen)
        high = clopper_pearson(20, 500, 1 - 0.025)[1]
        assert (state.by, state.limit) == ("disagreement", monitor.Limit(eps=high, delta=0.0125))
    few = opened("signed", disagreement=Estimate(value=0.0, low=0, high=1, n=10_000))
    assert few.limit is not None and few.limit.eps == 0.05, "never below the certificate's own"
    assert opened("absolute").limit is None, "nothing was recorded: it is measured first"
    assert opened("absolute", trusted()).limit == monitor.Limit(eps=0.05, delta=0.025)
    signed = opened("signed", trusted())
    assert signed.limit == monitor.Limit(eps=0.05, delta=0.025, signed=True, least_q=0.05)
    assert (signed.by, signed.reference) == ("trusted", "human")


def test_each_watch_of_a_task_has_its_own_share() -> None:
    assert [opened(number=j).delta for j in (1, 2, 3)] == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert opened(policy=Policy(max_error=0.05, false_alarm=0.2)).delta == pytest.approx(0.1)


def test_a_certificate_made_by_another_loss_is_watched_by_that() -> None:
    state = opened(policy=Policy(max_error=0.05, audit=0.2, loss="f1"), loss="exact")
    label = watch.judged(state, due(step(0, state, audited=True), ["a", "b"], ["a", "c"]))
    assert label is not None and label.loss == 1.0


# ---------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(("heard", "refused", "z"), [("a", False, 0.0), ("b", False, 1.0), ("", True, 1.0)])
def test_a_label_of_agreement(heard: str, refused: bool, z: float) -> None:
    state = opened()
    label = watch.judged(state, due(step(0, state, audited=True), "a", heard, refused=refused))
    assert label is not None and (label.differs, label.loss) == (z, z)


def test_a_trusted_answer_says_nothing_of_agreement() -> None:
    state = opened()
    label = watch.judged(state, due(step(0, state, audited=True), "a", "b", "a"))
    assert label is not None and label.loss == 1.0


@pytest.mark.parametrize(
    ("heard", "right", "loss"),
    [("a", None, 0.0), ("b", None, None), ("b", "b", 1.0), ("b", "a", -1.0), ("b", "c", 0.0), ("a", "c", 0.0)],
)
def test_a_signed_label_by_trusted_answers(heard: str, right: str | None, loss: float | None) -> None:
    state = opened("signed", trusted())
    label = watch.judged(state, due(step(0, state, audited=True), "a", heard, right))
    assert label is not None and (label.differs, label.loss) == (float(heard != "a"), loss)


@pytest.mark.parametrize(("right", "loss"), [(None, None), ("a", 0.0), ("b", 1.0)])
def test_an_absolute_label_by_trusted_answers(right: str | None, loss: float | None) -> None:
    state = opened("absolute", trusted())
    label = watch.judged(state, due(step(0, state, audited=True), "a", "a", right))
    assert label is not None and label.loss == loss
    lost = watch.judged(state, due(step(0, state, audited=True), "a", "a", right, failed=True))
    assert (lost.loss if lost else None) == loss, "the frontier is not needed for it"


def test_another_kind_of_trusted_answer_is_none() -> None:
    state = opened("absolute", trusted(), reference="rule")
    assert watch.judged(state, due(step(0, state, audited=True), right="b", kind="human", silent=True)) is None
    label = watch.judged(state, due(step(0, state, audited=True), right="b", kind="rule", silent=True))
    assert label is not None and label.loss == 1.0


def test_nothing_new_is_no_label() -> None:
    state = opened("signed", trusted())
    opening = step(0, state, audited=True)
    assert watch.judged(opened(), due(opening, silent=True)) is None
    assert watch.judged(opened(), due(opening, failed=True)) is None
    assert watch.judged(state, due(opening, heard="b", differs=1.0)) is None
    assert watch.judged(state, due(opening, heard="b", right="b", failed=True)) is None, "worse than whom?"


def test_what_differs_is_counted_once_however_late_it_is_told_who_was_right() -> None:
    state = opened("signed", trusted())
    opening = step(0, state, audited=True)
    state = watch.followed(state, [opening])
    first = labelled(state, [due(opening, heard="b")])
    assert (first.answered, first.differing, first.settled) == (1, 1, 0)
    second = labelled(first, [due(opening, heard="b", right="b", differs=1.0)])
    assert (second.answered, second.differing, second.settled) == (1, 1, 1)


def test_labels_in_any_order_end_in_the_same_fortune() -> None:
    state = opened()
    for i in range(40):  # so that something is staked
        opening = step(i, state, audited=True)
        state = labelled(watch.followed(state, [opening]), [due(opening, heard="b" if i % 4 else "a")])
    assert max(state.stakes) > 0
    steps = [step(i, state, audited=i % 3 == 0, reason="accepted" if i % 2 else "below_threshold") for i in range(300)]
    dues = [due(s, heard="b" if i % 5 == 0 else "a") for i, s in enumerate(steps) if s.audited]
    inorder = labelled(watch.followed(state, steps), dues)
    ends = []
    for seed in range(5):
        shuffled, now = dues.copy(), state
        random.Random(seed).shuffle(shuffled)
        for chunk in range(0, 300, 50):
            now = watch.followed(now, steps[chunk : chunk + 50])
        for one in shuffled:
            now = labelled(now, [one])
        ends.append(now)
    for end in ends:
        assert end.wealth.log == pytest.approx(inorder.wealth.log)
        assert (end.steps, end.audited, end.settled, end.differing, end.answered) == (
            inorder.steps, inorder.audited, inorder.settled, inorder.differing, inorder.answered,
        )  # fmt: skip


def test_following_in_parts_is_following_at_once() -> None:
    state = opened()
    steps = [step(i, state, audited=i % 7 == 0, reason="canary" if i % 2 else "unfamiliar") for i in range(100)]
    parts = state
    for s in steps:
        parts = watch.followed(parts, [s])
    at_once = watch.followed(state, steps)
    assert parts.wealth.log == pytest.approx(at_once.wealth.log)
    assert parts.wealth.mean == pytest.approx(at_once.wealth.mean)
    assert parts.shift.level == pytest.approx(at_once.shift.level)
    assert (parts.steps, parts.accepted) == (at_once.steps, at_once.accepted) == (100, 50)
    assert watch.followed(state, []) is state


def test_a_lost_label_stays_booked_as_the_best_there_can_be() -> None:
    state = msgspec.structs.replace(opened(), stakes=(0.5, 0.5, 0.5))
    opening = step(0, state, audited=True)
    lost = watch.followed(state, [opening])
    agreed = labelled(lost, [due(opening, heard="a")])
    differing = labelled(lost, [due(opening, heard="b")])
    assert lost.wealth.log == pytest.approx(agreed.wealth.log)
    assert lost.wealth.log < differing.wealth.log


# ---------------------------------------------------------------------------------------------- an alarm


def drifted(state: State, policy: Policy = POLICY, n: int = 400) -> State:
    for i in range(n):
        opening = step(i, state, audited=True, coin=1.0)
        state = labelled(watch.followed(state, [opening]), [due(opening, heard="b" if i % 2 else "a")])
        if state.alarmed:
            break
    return state


def test_an_alarm_says_how_sure_it_is_and_is_not_forgotten() -> None:
    state = drifted(opened())
    assert state.alarmed
    assert "differs from the frontier's (limit 5%)" in watch.told(state)
    assert f"of {state.steps} requests {state.audited} were audited, {state.differing} of these differ" in watch.told(
        state
    )
    later = watch.followed(state, [step(i, state, reason="below_threshold") for i in range(5000)])
    assert monitor.evidence(later.wealth) < -math.log(state.delta)
    assert later.alarmed, "a fortune that falls again takes nothing back"


def test_an_alarm_by_disagreement_says_so() -> None:
    state = drifted(opened("signed", disagreement=Estimate(value=0.02, low=0, high=1, n=1000)))
    assert state.alarmed
    assert "disagrees with the frontier more than when it was certified" in watch.told(state)


def test_an_alarm_says_no_more_than_its_limit() -> None:
    told = watch.told(drifted(opened()))
    assert "a chance of at most 1 in " in told and told.endswith("if the limit still held")
    signed = drifted(opened("signed", trusted()))
    assert "more often than the frontier by more than promised" in watch.told(signed)


def test_no_exact_bound_on_disagreement_is_made_of_rows_that_err_together() -> None:
    """Groups of 10, correlation 0.3: the rows' own bound was too low in 11.6% of draws, where 1.25% are allowed."""
    made = release("signed", disagreement=Estimate(value=0.02, low=0, high=1, n=1000))
    certificate = msgspec.structs.replace(made.draft.threshold.certificate, method="betting mixture over groups")
    threshold = Threshold(score=0.5, certificate=certificate)
    grouped = msgspec.structs.replace(made, draft=msgspec.structs.replace(made.draft, threshold=threshold))
    assert watch.usual(made, POLICY) is not None
    assert watch.usual(grouped, POLICY) is None
    assert watch.opened(grouped, CONFIDENCES, POLICY, 1).limit is None, "live audits are to tell"


def test_no_labels_no_alarm() -> None:
    state = opened()
    state = watch.followed(state, [step(i, state, audited=True) for i in range(3000)])
    assert not state.alarmed
    assert max(state.wealth.log) <= 0


# ---------------------------------------------------------------------------------------------- missing


def test_missing_audits_are_counted_against_those_answered() -> None:
    state = opened("absolute", trusted())
    openings = [step(i, state, audited=True) for i in range(420)]
    state = labelled(watch.followed(state, openings), [due(s) for s in openings[:400]])
    assert (state.answered, state.settled) == (400, 0), "answers are there, labels not yet"
    state = watch.missed(state, 20)
    assert not state.too_many_missing, "20 of 420 is below 5%"
    state = watch.missed(state, 2)
    assert state.too_many_missing
    late = labelled(state, [due(openings[400], missing=True)])
    assert (late.missing, late.answered) == (21, 401)
    assert not watch.missed(opened(), 19).too_many_missing
    assert watch.missed(opened(), 20).too_many_missing
    assert watch.missed(state, 0) is state


# ---------------------------------------------------------------------------------------------- measuring


def test_the_usual_disagreement_is_measured_where_nothing_was_recorded() -> None:
    state = opened("absolute")
    openings = [step(i, state, audited=True, coin=0.5) for i in range(310)]
    silent = [step(1000 + i, state, reason="below_threshold") for i in range(300)]
    state = watch.followed(state, [*openings, *silent])
    state = labelled(state, [due(s, heard="b" if i % 30 == 0 else "a") for i, s in enumerate(openings[:299])])
    assert not state.is_measured
    assert not state.alarmed and watch.stamp(state.stakes) == "0.0,0.0,0.0"
    state = labelled(state, [due(openings[299])])
    assert state.is_measured
    wrong, waiting = [(1.0, 0.5)] * 10, [0.5] * 10
    done = watch.measured(state, wrong, waiting)
    assert done.limit is not None and done.limit.delta == state.delta / 2
    seen = (10 + 10) / 0.5 / state.steps
    assert seen < done.limit.eps < 5 * seen, "what waits for its label counts as differing"
    assert done.wealth == monitor.start(done.limit)
    assert not done.is_measured
    after = labelled(done, [due(openings[305], heard="b")])
    assert after.wealth.log == (0, 0, 0), "nothing was staked on what was asked before"


def test_the_running_bound() -> None:
    state = opened()
    assert watch.running_bound(state, [], [], 0.95) == 1.0
    state = watch.followed(state, [step(i, state) for i in range(5000)])
    assert watch.running_bound(state, [], [], 0.95) < 0.02
    wrong = watch.running_bound(state, [(1.0, 0.2)], [], 0.95)
    assert wrong == watch.running_bound(state, [], [0.2], 0.95), "what waits counts as wrong"


# ---------------------------------------------------------------------------------------------- boosts


def test_more_audits_are_drawn_while_the_traffic_is_shifted_within_a_budget() -> None:
    policy = Policy(max_error=0.05, audit=0.01, boost=0.5, boost_budget=30)
    state = watch.opened(release(), CONFIDENCES, policy, 1)
    assert not state.is_boosted and state.audits.share == 0.01
    calm = [step(i, state, reason="below_threshold" if i % 5 == 0 else "accepted") for i in range(400)]
    state = watch.followed(state, calm)
    assert not state.is_boosted and not state.is_shifted
    state = watch.followed(state, [step(i, state, reason="unfamiliar") for i in range(400)])
    assert state.is_boosted and state.audits.share == 0.5 and state.boost_left == 30
    assert msgspec.json.decode(msgspec.json.encode(state), type=Published).audits == state.boosted
    state = watch.followed(state, [step(i, state, audited=True) for i in range(20)])
    assert state.is_boosted and state.boost_left == 10
    spent = watch.followed(state, [step(i, state, audited=True) for i in range(20)])
    assert not spent.is_boosted and spent.boost_left == 0 and spent.is_shifted
    calmed = watch.followed(
        state, [step(i, state, reason="unfamiliar" if i % 5 == 0 else "accepted") for i in range(2000)]
    )
    assert not calmed.is_boosted and calmed.boost_left == 10, "it ends with the shift"


def test_no_boost_where_none_is_wished() -> None:
    state = watch.opened(release(), CONFIDENCES, Policy(max_error=0.05, audit=0.3, boost=0.2), 1)
    state = watch.followed(state, [step(i, state, reason="unfamiliar") for i in range(1000)])
    assert state.is_shifted and not state.is_boosted


# ---------------------------------------------------------------------------------------------- as JSON


@pytest.mark.parametrize("promise", ["agreement", "absolute", "signed"])
def test_a_state_survives_its_json_to_the_last_bit(promise: Promise) -> None:
    state = drifted(opened(promise, trusted()), n=25)
    assert msgspec.json.decode(msgspec.json.encode(state), type=State) == state
    assert watch.unstamped(watch.stamp((0.1, 1 / 3, 1e-300))) == (0.1, 1 / 3, 1e-300)


def test_a_state_of_an_older_version_is_read() -> None:
    old = msgspec.to_builtins(opened())
    for name in ("loss", "reference", "answered", "peak", "again"):
        del old[name]
    assert msgspec.convert(old, State).answered == 0


def test_an_alarm_waits_for_requests_that_were_admitted_before_it() -> None:
    state = opened()
    assert state.limit is not None
    edge = -math.log(state.limit.delta) + 0.01
    wealth = monitor.Wealth(log=(edge, edge, edge), mean=(0.2, 0.2, 0.2))
    hot = msgspec.structs.replace(state, wealth=wealth, stakes=(1.0, 1.0, 1.0), peak=edge)
    assert hot.alarmed
    assert watch.is_sure(hot, 0)
    assert not watch.is_sure(hot, 100), "a hundred that are with the frontier may yet take it back"


# ---------------------------------------------------------------------------------------------- declared verifiers


def test_the_watch_goes_by_the_certificates_own_verifier() -> None:
    state = opened(loss="rouge >= 0.6")
    one = step(0, state, audited=True)
    alike = watch.judged(state, due(one, "your parcel is on its way", "Your parcel is well on its way."))
    other = watch.judged(state, due(one, "your parcel is on its way", "We are closed today."))
    assert alike is not None and other is not None
    assert (alike.loss, other.loss) == (0.0, 1.0)
    graded = opened(loss="rouge")
    label = watch.judged(graded, due(one, "your parcel is on its way", "Your parcel is well on its way."))
    assert label is not None and label.loss == pytest.approx(1 - 2 * 6 / 13)


def test_a_verifier_that_is_not_at_hand_gives_no_label() -> None:
    state = opened(loss="embedding >= 0.9")
    one = step(0, state, audited=True)
    with pytest.raises(Unverified):
        watch.judged(state, due(one, "a", "b"))
    label = watch.judged(state, due(one, "a", "a"))
    assert label is not None and label.loss == 0.0, "of the same answer nobody need be asked"


@pytest.mark.parametrize("promise", ["agreement", "absolute"])
def test_what_a_model_judged_is_watched_by_likeness_against_what_the_first_audits_show(promise: Promise) -> None:
    state = opened(promise, loss="judge:tone#0123456789ab")
    assert (state.by, state.loss, state.limit) == ("disagreement", "embedding", None)
    assert watch.usual(release(promise, loss="judge:tone"), POLICY) is None


def test_usual_disagreement_by_degrees_has_a_bound_that_holds_for_degrees() -> None:
    seen = Estimate(value=0.03, low=0.0, high=0.1, n=400)
    graded = watch.usual(release("signed", disagreement=seen, loss="rouge", max_error=0.01), POLICY)
    binary = watch.usual(release("signed", disagreement=seen, max_error=0.01), POLICY)
    assert graded is not None and binary is not None
    assert 0.05 < binary < graded < 0.08, "a share's own bound is sharper"
