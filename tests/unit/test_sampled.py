"""Rows that are there because a specialist was unsure of them train, and never certify."""

from __future__ import annotations

import msgspec

from suffice.core.types import Example, Stage
from suffice.learn import curate
from suffice.store.records import Row


def _row(i: int, stage: Stage) -> Row:
    body = {"model": "m", "messages": [{"role": "user", "content": f"mail {i}"}]}
    answer = {"choices": [{"message": {"content": "a" if i % 2 else "b"}}]}
    return Row(
        id=f"r{i:04d}",
        at=float(i),
        source="live",
        task="t",
        stage=stage,
        route="frontier",
        reason="below_threshold",
        status=200,
        request=msgspec.json.encode(body),
        answer=msgspec.json.encode(answer),
    )


def _places(stage: Stage) -> set[str]:
    found = curate.examples([(_row(i, stage), None) for i in range(400)]).examples
    sizes = curate.sizes(400, 100)
    assert isinstance(sizes, curate.Sizes)
    return set(curate.split(found, {}, sizes, seed=0).values())


def test_escalations_of_a_live_task_only_train() -> None:
    assert _places(Stage.LIVE) == _places(Stage.CANARY) == {"train"}


def test_what_was_observed_or_shadowed_may_certify() -> None:
    everything = {"train", "tune", "calibration", "test"}
    assert _places(Stage.OBSERVE) == _places(Stage.SHADOW) == _places(Stage.REVOKED) == everything


def test_a_unit_of_calibration_takes_in_no_such_row() -> None:
    first = Example(id="1", input="x", output="a", has_output=True, group="g")
    later = Example(id="2", input="y", output="b", has_output=True, group="g", sampled=False)
    assigned = curate.split([first, later], {"1": "calibration"}, curate.Sizes(1, 1, 1, 1), seed=0)
    parts, _ = curate.splits([first, later], assigned)
    assert [example.id for example in parts.calibration] == ["1"]
