"""The published cases: the planner reproduces them, and finds what in them does not agree, by general rules."""

from __future__ import annotations

import msgspec
import pytest

from suffice.core.errors import InputError
from suffice.plan import cases, reading
from suffice.plan.planner import plan
from suffice.plan.result import Check, Plan
from suffice.plan.scenario import Claim, Scenario, sure


def of(name: str, *changes: str) -> Plan:
    return plan(reading.override(cases.read(name), *changes))


def failed(found: Plan, key: str) -> Check:
    """The one check of that kind that does not hold."""
    (check,) = [check for check in found.checks if not check.holds and key in check.claim]
    return check


def test_a_case_that_there_is_none_of_lists_those_there_are() -> None:
    assert {"triage", "vehicle", "moderation", "sums", "rule-of-thumb"} <= set(cases.names())
    with pytest.raises(InputError, match="moderation, rule-of-thumb, sums, triage, vehicle"):
        cases.read("nonesuch")


# ---------------------------------------------------------------------------------------------- triage


def test_triage_costs_400_and_200_against_4500() -> None:
    found = of("triage")
    assert found.monthly_usd["frontier"].point == pytest.approx(4_500)
    first = found.months["self_hosted"][1]
    assert first.parts["hardware"].point == pytest.approx(400)
    assert first.parts["operations"].point == pytest.approx(200)
    assert found.monthly_usd["self_hosted"].point == pytest.approx(600)
    assert found.monthly_usd["frontier"].point / (found.usd_per_mtok["frontier"].point) == pytest.approx(100)
    assert found.usd_per_mtok["frontier"].point == pytest.approx(45)  # (b)


def test_triage_is_right_at_100m_a_month_wrong_at_1m_and_turns_at_about_50m() -> None:
    assert of("triage").verdict == "hybrid"
    # the same prices at another volume: $45 per million
    assert of("triage", "frontier.usd_per_mtok=45", "tokens_per_month=1M").verdict == "frontier"
    (check,) = [check for check in of("triage").checks if "break_even_tokens_per_day" in check.claim]
    assert check.holds
    assert check.computed.point * 30 == pytest.approx(50e6, rel=0.02)
    for rests_on in ("engineer-weeks to build 5", "$45", "$400", "$200"):
        assert rests_on in check.told
    # with the small model behind a frontier that still answers a tenth, a little later
    even = of("triage").break_even.tokens_per_day
    assert even is not None
    assert 50e6 < even * 30 < 60e6


def test_triages_threshold_moves_with_the_engineers() -> None:
    check = failed(of("triage", "engineer_weeks=12"), "break_even_tokens_per_day")
    assert check.computed.point * 30 == pytest.approx((600 + 12 * 4_000 / 12) / 45 * 1e6, rel=1e-3)
    assert check.would_make_it_true["work.engineer_weeks"] == pytest.approx(4.95, abs=0.01)


def test_triages_ten_times_are_seven_and_a_half() -> None:  # (c)
    check = failed(of("triage"), "times_cheaper")
    assert check.claimed == 10
    assert check.computed.point == pytest.approx(7.5)
    assert check.would_make_it_true == pytest.approx(
        {"self_hosted.usd_per_month": 450, "frontier.usd_per_month": 6_000}
    )


def test_triages_tier_says_frontier_and_the_money_does_not() -> None:  # (d)
    found = of("triage")
    assert found.tier.startswith("under 10M")
    (contradiction,) = [each for each in found.contradictions if "volume" in each.between]
    assert contradiction.followed == "money"
    assert "$45 per million" in contradiction.told


# ---------------------------------------------------------------------------------------------- vehicle


def test_a_vehicle_has_no_choice_at_any_price() -> None:
    for price in ("model=gpt-5.5", "frontier.usd_per_mtok=0.001"):
        found = of("vehicle", price)
        assert found.verdict == "self_hosted"
        assert {"frontier", "hybrid"} <= set(found.impossible)
        assert any(rule.rule in ("p99", "edge") and rule.binding for rule in found.rules)
    by_latency_alone = of("vehicle", "runs_on=server", "escalated_share=0")
    assert by_latency_alone.verdict != "frontier"
    assert "frontier" in by_latency_alone.impossible


# ---------------------------------------------------------------------------------------------- moderation


def test_moderations_tenth_costs_seven_times_the_whole_that_was_claimed() -> None:  # (f)
    found = of("moderation")
    assert found.months["hybrid"][0].parts["frontier"].point == pytest.approx(250_000)
    check = failed(found, "90% small, 10% frontier: usd_per_month")
    assert not check.holds
    assert check.computed.low > 250_000
    assert "$250K, 7.1 times as much" in check.told
    assert "the batch price for all of it would not, that is $138K" in check.told


def test_what_would_make_moderations_35000_true_does_make_it_true() -> None:
    check = failed(of("moderation"), "90% small, 10% frontier: usd_per_month")
    true = check.would_make_it_true
    assert set(true) >= {
        "small.escalated_to_mean_tokens", "small.escalated_to_frontier_price", "small.escalated_share",
        "frontier.usd_per_mtok", "volume.tokens_per_day",
    }  # fmt: skip
    assert true["small.escalated_to_mean_tokens"] < 0.1
    assert true["small.escalated_share"] == pytest.approx(0.1 * true["small.escalated_to_mean_tokens"], rel=0.01)
    for name in ("small.escalated_to_mean_tokens", "small.escalated_to_frontier_price", "small.escalated_share"):
        there = of("moderation", f"{name}={true[name]!r}")
        assert there.monthly_usd["hybrid"].point == pytest.approx(35_000, rel=1e-4)
        assert all(check.holds for check in there.checks if "90% small" in check.claim)


def test_five_tokens_are_no_post() -> None:  # (g)
    check = failed(of("moderation"), "tokens a request")
    assert check.claimed == 5
    assert check.would_make_it_true["volume.tokens_per_day"] == 60e9
    told = cases.read("moderation")
    fewer = msgspec.structs.replace(told, volume=msgspec.structs.replace(told.volume, requests_per_day=sure(3e6)))
    assert not [check for check in plan(fewer).checks if "tokens a request" in check.claim]


# ---------------------------------------------------------------------------------------------- sums


def test_a_hundred_million_tokens_cost_300_or_10_or_45_a_million() -> None:  # (a), (b)
    found = of("sums")
    apart = [check for check in found.checks if "against another claim" in check.claim]
    assert [check.claimed for check in apart] == pytest.approx([300, 300, 10])
    assert [check.computed.point for check in apart] == pytest.approx([10, 45, 45])
    assert "one of the two takes a month for a day" in apart[0].told
    assert "takes a month" not in apart[1].told
    assert apart[0].would_make_it_true["volume.tokens_per_day"] == pytest.approx(100e6)


def test_the_slip_is_found_by_its_ratio_whatever_it_is_called() -> None:
    told = cases.read("sums")
    year = Claim(of="frontier", usd_per_month=12_000.0, said="what finance has")
    month = Claim(of="frontier", usd_per_month=1_000.0, said="what the vendor has")
    found = plan(Scenario(volume=told.volume, frontier=told.frontier, days_per_month=30, claims=(year, month)))
    assert "takes a year for a month" in failed(found, "against another claim").told


def test_a_price_per_thousand_taken_for_one_per_million_is_found() -> None:
    claim = Claim(of="frontier", usd_per_month=1_000.0, usd_per_mtok=0.01)
    told = cases.read("sums")
    check = failed(plan(Scenario(volume=told.volume, frontier=told.frontier, claims=(claim,))), "usd_per_mtok")
    assert "thousand" in check.told or check.computed.point == pytest.approx(1_000 / (100e6 / 30 * 365 / 12 / 1e6))


# ---------------------------------------------------------------------------------------------- the rule of thumb


def test_under_which_assumptions_8000_conversations_or_500_dollars_hold() -> None:
    found = of("rule-of-thumb")
    assert found.break_even.requests_per_day == pytest.approx(8_000, rel=0.01)
    assert found.break_even.usd_per_month == pytest.approx(500, rel=0.01)
    held = [check for check in found.checks if check.claim.endswith(("requests_per_day", "usd_per_month"))]
    assert len(held) == 2
    assert all(check.holds for check in held)
    # $500 / (8,000 a day x 365 / 12 days): both are one rule at this price of a conversation only
    assert "$0.0021 at the frontier (here $0.0021)" in found.break_even.rule_of_thumb
    # 20% escalates and 1% of the rest is audited: 79.2% of $500 is left for the small model
    assert "at most $396 a month, and does here" in found.break_even.rule_of_thumb


def test_the_rule_of_thumb_is_told_to_fail_where_there_is_something_to_build() -> None:
    found = of("rule-of-thumb", "engineer_weeks=3")
    checks = [check for check in found.checks if check.claim.endswith(("requests_per_day", "usd_per_month"))]
    assert [check.holds for check in checks] == [False, False]
    assert "and does not here" in found.break_even.rule_of_thumb
    # at that volume the peak needs a second machine: $104 + 2 x $292, and $12,000 over twelve months
    assert found.break_even.usd_per_month == pytest.approx((688 + 1_000) / 0.792, rel=0.01)


def test_500_dollars_lie_where_the_tiers_say_frontier() -> None:  # (e)
    check = failed(of("rule-of-thumb"), "against the volume tiers")
    assert (check.computed.low, check.computed.high) == (1_000, 10_000)
    assert "frontier up to 10M tokens a day" in check.told
    assert check.would_make_it_true["frontier.usd_per_mtok"] == pytest.approx(500 / (10 * 365 / 12))


# ---------------------------------------------------------------------------------------------- other claims


def test_a_share_saved_is_recomputed_and_solved_for() -> None:
    told = cases.read("rule-of-thumb")
    claim = Claim(of="hybrid", saves_share=0.9, said="a telecom")
    check = failed(plan(msgspec.structs.replace(told, claims=(claim,))), "saves_share")
    assert check.computed.point == pytest.approx(0, abs=0.01)
    assert "volume.tokens_per_day" not in check.would_make_it_true  # a fifth still asks the frontier
    few = reading.override(told, "escalated_share=0.05")
    check = failed(plan(msgspec.structs.replace(few, claims=(claim,))), "saves_share")
    price = check.would_make_it_true["frontier.usd_per_mtok"]
    found = plan(reading.override(few, f"frontier.usd_per_mtok={price!r}"))
    assert found.monthly_usd["hybrid"].point == pytest.approx(0.1 * found.monthly_usd["frontier"].point, rel=1e-3)


def test_a_payback_is_recomputed_and_solved_for() -> None:
    told = cases.read("triage")
    claim = Claim(of="hybrid", break_even_months=1.5)
    check = failed(plan(msgspec.structs.replace(told, claims=(claim,))), "break_even_months")
    assert check.computed == of("triage").break_even.month
    weeks = check.would_make_it_true["work.engineer_weeks"]
    there = plan(reading.override(told, f"engineer_weeks={weeks!r}")).break_even.month
    assert there is not None
    assert there.point == pytest.approx(1.5, rel=1e-3)
    for later in (6.0, 30.0):  # sooner than said is as said
        holds = plan(msgspec.structs.replace(told, claims=(Claim(of="hybrid", break_even_months=later),)))
        assert holds.checks[0].holds


def test_the_rule_of_thumb_is_about_even_in_both_places() -> None:
    found = plan(cases.read("rule-of-thumb"))
    assert "Money cannot tell" in found.told
    assert "costs about as much as the frontier" in found.break_even.told
