"""The table of decisions."""

from __future__ import annotations

import pytest

from suffice.core.contracts import refusal
from suffice.core.types import Accepted, Choice, Decision, Escalated, Prediction, Reason, Route, Stage
from suffice.serve.cascade import audit_chance, closed, decide


@pytest.mark.parametrize(
    ("stage", "has_release", "fresh", "broken", "reason"),
    [
        (None, True, True, False, Reason.NO_TASK),
        (Stage.OBSERVE, True, True, False, Reason.OBSERVE),
        (Stage.OBSERVE, False, False, True, Reason.OBSERVE),
        (Stage.REVOKED, True, True, False, None),
        (Stage.REVOKED, False, True, False, Reason.REVOKED),
        (Stage.REVOKED, True, False, True, Reason.REVOKED),
        (Stage.LIVE, False, True, False, Reason.NO_RELEASE),
        (Stage.LIVE, True, False, False, Reason.FAULT),
        (Stage.LIVE, True, True, True, Reason.FAULT),
        (Stage.LIVE, True, True, False, None),
        (Stage.CANARY, True, True, False, None),
        (Stage.SHADOW, True, True, False, None),
    ],
)
def test_whether_a_specialist_is_asked(
    stage: Stage | None, has_release: bool, fresh: bool, broken: bool, reason: Reason | None
) -> None:
    assert closed(Route.AUTO, stage, has_release, fresh, broken) is reason
    assert closed(Route.SPECIALIST, stage, has_release, fresh, broken) is reason
    assert closed(Route.FRONTIER, stage, has_release, fresh, broken) is Reason.FORCED


def decided(
    stage: Stage, *, value: str = "a", score: float = 0.9, familiar: bool = True, fits: bool = True, coin: float = 0.0
) -> Decision:
    prediction = Prediction(value=value, score=score, familiar=familiar)
    return decide(
        prediction,
        refusal(prediction, Choice(("a",)), 0.8),
        release="t@1",
        stage=stage,
        fits=fits,
        coin=coin,
        canary_share=0.1,
    )


def reason(decision: Decision) -> Reason | None:
    assert decision.release == "t@1"
    assert decision.prediction is not None  # what it would have said is known, whoever answers
    return decision.reason if isinstance(decision, Escalated) else None


@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.CANARY, Stage.SHADOW])
def test_an_answer_that_may_not_be_given_escalates_at_every_stage(stage: Stage) -> None:
    assert reason(decided(stage, score=0.79)) is Reason.BELOW_THRESHOLD
    assert reason(decided(stage, score=float("nan"))) is Reason.BELOW_THRESHOLD
    assert reason(decided(stage, familiar=False)) is Reason.UNFAMILIAR
    assert reason(decided(stage, value="b")) is Reason.CONTRACT
    assert reason(decided(stage, fits=False)) is Reason.UNSUPPORTED


def test_the_stage_says_how_much_of_the_rest_is_answered() -> None:
    assert isinstance(decided(Stage.LIVE, coin=0.99), Accepted)
    assert isinstance(decided(Stage.LIVE, score=0.8), Accepted)
    assert isinstance(decided(Stage.CANARY, coin=0.09), Accepted)
    assert reason(decided(Stage.CANARY, coin=0.1)) is Reason.CANARY
    assert reason(decided(Stage.SHADOW)) is Reason.SHADOW


def test_a_revoked_release_answers_nothing_whatever_it_says() -> None:
    assert reason(decided(Stage.REVOKED)) is Reason.REVOKED
    assert reason(decided(Stage.REVOKED, score=0.1)) is Reason.REVOKED


def test_how_likely_the_frontiers_answer_comes_to_be_known() -> None:
    assert audit_chance(Stage.LIVE, Reason.ACCEPTED, 0.02, 0.1) == 0.02
    assert audit_chance(Stage.CANARY, Reason.ACCEPTED, 0.02, 0.1) == pytest.approx(0.9 + 0.1 * 0.02)
    assert audit_chance(Stage.CANARY, Reason.CANARY, 0.02, 0.1) == pytest.approx(0.9 + 0.1 * 0.02)
    assert audit_chance(Stage.LIVE, Reason.BELOW_THRESHOLD, 0.02, 0.1) is None
    assert audit_chance(Stage.SHADOW, Reason.SHADOW, 0.02, 0.1) is None
