"""The demo's whole story, small and with a frontier that does not wait: the last act ends as it says."""

from pathlib import Path

from e2e_support import suffice

from suffice.cli.demo_command import _ending
from suffice.demo import story
from suffice.demo.phrases import RULES
from suffice.demo.workload import generate


def test_the_frontier_changes_its_mind_and_the_demo_tells_what_came_of_it(tmp_path: Path) -> None:
    plan = story.Plan(
        home=tmp_path / "home",
        observed=generate(2500, 3),
        fresh=generate(60, 3, start=2500),
        later=generate(story.LATER, 3, start=2560),
        rules=RULES,
        seed=3,
        latency_ms=0,
        max_error=0.05,
    )
    told = story.tell(plan, lambda what, done: None)
    found = told["found"]
    assert (found["records"], found["verdict"], found["prompts"]) == (2500, "small model", 1)
    assert told["learned"]["release"] == f"{found['name']}@1"
    assert told["n"] == 60 and told["usd_per_1000"]["audits"] is not None
    seen = told["changed"]
    assert not seen["revoked_before"]
    assert 0 < seen["differing"] <= seen["audited"] <= seen["requests"] <= seen["sent"] <= story.CHANGED
    assert 0 < seen["differing"] <= seen["differing_out"] <= seen["answered_by_specialist"] < seen["sent"]
    assert f"{found['name']}@1" in seen["alarm"] and "differs from the frontier's" in seen["alarm"]
    assert "the frontier has changed" in seen["cause"]
    assert seen["after_alarm"]["requests"] >= 500
    assert seen["after_alarm"]["escalated"] == seen["after_alarm"]["requests"]
    kinds = [event["kind"] for event in seen["events"]]
    assert kinds.index("alarm") < kinds.index("cause") < kinds.index("recovery")
    if seen["resumed"]:  # the certificate is earned again or not: both are told
        assert seen["resumed"]["release"] in seen["recovery"]
        assert seen["resumed"]["served_by_specialist"]["n"] == story.RESUMED
    ending = _ending(plan, told)
    assert f"after {seen['requests']:,} requests and {seen['audited']:,} audits" in ending
    assert seen["alarm"] in ending and seen["cause"] in ending and seen["recovery"] in ending
    shown = suffice("show", found["name"], "--home", plan.home)
    assert seen["recovery"] in shown.stdout.decode(), "read back from the home, which is left to look at"
