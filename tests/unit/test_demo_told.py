"""What the demo says of its last act, however that ends."""

from typing import Any

from suffice.cli.demo_command import _changed
from suffice.demo.story import RENAMES

SEEN: dict[str, Any] = {
    "audit": 0.05, "renames": RENAMES, "speed": 10.0, "revoked_before": False, "alarm": None, "resumed": None,
    "sent": 3000, "requests": 3000, "audited": 81, "differing": 2, "differing_out": 40, "answered_by_specialist": 1800,
    "events": [{"kind": "stage", "what": "triage@1 put live"}],
}  # fmt: skip
ALARM = {
    "alarm": "triage@1: it differs", "cause": "the frontier has changed: 14 of 40", "requests": 700,
    "after_alarm": {"requests": 708, "escalated": 708}, "recovery": "triage@1 cannot be certified again",
}  # fmt: skip


def test_no_alarm_is_said_plainly() -> None:
    text = _changed(SEEN, 0.011)
    assert "No alarm came within 3,000 requests (81 audits, 2 of them differ), and 40 answers that differ" in text
    assert "triage@1 put live" in text


def test_a_task_that_was_revoked_before_is_not_counted_as_an_alarm() -> None:
    few = {name: SEEN[name] for name in ("audit", "renames", "speed", "alarm", "resumed", "events")}
    text = _changed(few | {"revoked_before": True}, None)
    assert "had been revoked before" in text and "No alarm" not in text and "unknown price" in text


def test_an_alarm_is_told_with_what_came_before_and_after_it() -> None:
    text = _changed(SEEN | ALARM, 0.011)
    assert "5% of the specialist's answers are audited, which costs $0.011 per 1,000 requests" in text
    assert "after 700 requests and 81 audits, 2 of which differ; 40 answers" in text
    assert "triage@1: it differs" in text and "14 of 40" in text
    assert "Of 708 requests after the alarm 708 went to the frontier" in text
    assert "cannot be certified again" in text and "of the next requests" not in text


def test_a_release_that_is_back_is_told() -> None:
    share = {"value": 0.42, "low": 0.33, "high": 0.52, "n": 100}
    text = _changed(SEEN | ALARM | {"resumed": {"release": "triage@2", "served_by_specialist": share}}, 0.011)
    assert "triage@2 answers 42.0% (33.0-52.0%, n = 100) of the next requests." in text
