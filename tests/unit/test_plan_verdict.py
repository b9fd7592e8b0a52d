"""The planner's judgement: what binds, what money says, what rules argue, and that no disagreement is hidden."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from suffice.plan import cases, rules, wording
from suffice.plan.planner import plan
from suffice.plan.result import Architecture, BreakEven, Figures, Month, Turning
from suffice.plan.rules import RULES, TIERS, Rule, Seen, tier_of
from suffice.plan.scenario import Band, Frontier, Hardware, Needs, Scenario, Small, Volume, Work, sure
from suffice.plan.verdict import Judged, judge

ARCHITECTURES: tuple[Architecture, ...] = ("frontier", "hybrid", "self_hosted")
NEEDS: dict[str, dict[str, Any]] = {
    "edge": {"runs_on": "edge"},
    "residency": {"residency": "no_egress"},
    "p99": {"p99_ms": 80},
    "reasoning": {"reasoning": True},
    "unverifiable": {"verifiable": False},
    "wide_sparse": {"work": "wide", "data": "sparse"},
    "narrow": {"work": "narrow"},
    "variable": {"work": "wide", "user_facing": True},
    "sparse": {"data": "sparse"},
    "cost": {"cost_binds": True},
    "early": {"product": "early"},
    "mature": {"product": "mature", "load": "steady"},
    "compliance": {"compliance": True},
    "region": {"residency": "region"},
    "hosted_p99": {"p99_ms": 600},
    "no_ml_team": {"ml_team": "none"},
}
"""For each rule the needs under which it holds."""


def figures(frontier: float, hybrid: float, own: float, *, tokens: float, chance: float, once: float = 8e3) -> Figures:
    """US dollars a month of each, flat over a year; `chance`: in which share of draws the small model is cheaper."""
    monthly: dict[Architecture, float] = {"frontier": frontier, "hybrid": hybrid, "self_hosted": own}
    paid: dict[Architecture, float] = {"frontier": 0.0, "hybrid": once, "self_hosted": once}
    saved = {name: 12 * frontier - 12 * monthly[name] - paid[name] for name in ARCHITECTURES}
    now = Turning(month=1, low=1, high=1, chance=1.0, within=1.0)
    return Figures(
        monthly_usd={name: sure(usd) for name, usd in monthly.items()},
        once_usd={name: sure(usd) for name, usd in paid.items()},
        year_usd={name: sure(12 * usd + paid[name]) for name, usd in monthly.items()},
        usd_per_mtok={name: sure(usd / (tokens * 30 / 1e6)) for name, usd in monthly.items()},
        months={name: _months(usd, tokens) for name, usd in monthly.items()},
        tokens_per_day=(sure(tokens),) * 12,
        requests_per_day=(sure(tokens / 1e3),) * 12,
        break_even=BreakEven(month=None, tokens_per_day=1e6, requests_per_day=1e3, usd_per_month=500.0, told=""),
        saving_usd={name: sure(usd) for name, usd in saved.items()},
        cheaper_chance=dict.fromkeys(ARCHITECTURES, chance),
        running_cheaper_from={name: now if monthly[name] < frontier else None for name in ARCHITECTURES},
        worth_building_from={name: now if saved[name] > 0 else None for name in ARCHITECTURES},
    )


def _months(usd: float, tokens: float) -> tuple[Month, ...]:
    return tuple(
        Month(month=i, tokens_per_day=sure(tokens), usd=sure(usd), cumulative_usd=sure(i * usd), parts={})
        for i in range(1, 13)
    )


PAYS = figures(20e3, 6e3, 2e3, tokens=60e6, chance=0.99)
COSTS = figures(100, 900, 800, tokens=1e6, chance=0.0)
UNSURE = figures(2e3, 1.2e3, 1e3, tokens=5e6, chance=0.6)


def judged(found: Figures = PAYS, small: Small = Small(), **needs: Any) -> Judged:  # noqa: B008
    return judge(Scenario(needs=Needs(**needs), small=small), found)


def names(found: Judged) -> list[str]:
    return [rule.rule for rule in found.rules]


# ---------------------------------------------------------------------------------------------------- rules


def test_every_rule_is_tested() -> None:
    assert {rule.name for rule in RULES} == {*NEEDS, "volume", "p99_escalated"}


@pytest.mark.parametrize("name", NEEDS)
def test_a_rule_holds_where_its_need_is_said_and_nowhere_else(name: str) -> None:
    assert name in names(judged(**NEEDS[name]))
    assert name not in names(judged())


def test_without_needs_only_volume_speaks() -> None:
    assert names(judged()) == ["volume"]


@pytest.mark.parametrize("ms, held", [(200, "p99"), (201, "hosted_p99"), (999, "hosted_p99"), (1000, None)])
def test_the_frontiers_round_trip(ms: float, held: str | None) -> None:
    found = names(judged(p99_ms=ms))
    assert [name for name in found if "p99" in name and name != "p99_escalated"] == ([held] if held else [])


@pytest.mark.parametrize("tokens, tier", [(1, 0), (9.99e6, 0), (10e6, 1), (50e6, 1), (51e6, 2), (1e9, 3), (1.1e9, 4)])
def test_tiers_of_volume(tokens: float, tier: int) -> None:
    assert tier_of(tokens) is TIERS[tier]
    seen = Seen(needs=Needs(), tokens_per_day=tokens, escalated_share=sure(0.1))
    assert [rule.says for rule in rules.fired(seen)] == [TIERS[tier].says]


def test_growth_into_another_tier_is_told() -> None:
    grown = plan(_scenario(tokens=8e6, growth=0.1))
    assert grown.tier.startswith("under 10M tokens/day: frontier")
    assert "; from month 4 10M to 50M tokens/day: hybrid" in grown.tier


# ---------------------------------------------------------------------------------------------- what binds


@pytest.mark.parametrize("name", ["edge", "residency", "p99"])
@pytest.mark.parametrize("found", [PAYS, COSTS, UNSURE], ids=["pays", "costs", "unsure"])
def test_what_binds_comes_before_money(name: str, found: Figures) -> None:
    verdict = judged(found, **NEEDS[name])
    assert verdict.verdict == "self_hosted"
    assert set(verdict.impossible) == {"frontier", "hybrid"}
    assert verdict.rules[0].binding
    assert "Nothing else is possible" in verdict.told


def test_money_that_would_rather_have_the_frontier_is_shown_where_something_binds() -> None:
    shown = judged(COSTS, runs_on="edge").contradictions[0]
    assert shown.between == ("money", "edge")
    assert shown.followed == "edge"
    assert "no matter of price" in shown.told
    assert "What binds costs $16.4K in 12 months" in judged(COSTS, runs_on="edge").told


def test_a_short_p99_leaves_the_hybrid_where_next_to_nothing_escalates() -> None:
    rare = judged(small=Small(escalated_share=sure(0.005)), p99_ms=100)
    assert rare.verdict == "hybrid"
    assert set(rare.impossible) == {"frontier"}
    assert "The frontier alone is not possible" in rare.told
    often = judged(small=Small(escalated_share=sure(0.05)), p99_ms=100)
    assert "5% of the requests would wait" in often.impossible["hybrid"]


def test_what_binds_does_not_make_a_small_model_able() -> None:
    found = judged(runs_on="edge", reasoning=True)
    assert found.verdict == "self_hosted"
    shown = next(each for each in found.contradictions if each.between == ("reasoning", "edge"))
    assert "prove it on held-out answers" in shown.told
    assert found.told.endswith("are what small models are bad at: prove it before anything is built.")


# -------------------------------------------------------------------------------------------------- money


def test_money_decides_among_what_is_possible() -> None:
    assert judged(PAYS).verdict == "hybrid"
    assert judged(COSTS).verdict == "frontier"
    assert judged(COSTS).told.startswith("Don't: stay with the frontier alone. It costs $100 a month")


def test_self_hosting_alone_is_chosen_by_money_only_where_nothing_escalates() -> None:
    assert PAYS.year_usd["self_hosted"].point < PAYS.year_usd["hybrid"].point
    assert judged(PAYS).verdict == "hybrid"
    assert judged(PAYS, small=Small(escalated_share=sure(0.0))).verdict == "self_hosted"


def test_not_yet_names_the_month_and_its_volume() -> None:
    found = plan(_scenario(tokens=0.6e6, growth=0.3))
    assert found.verdict == "not_yet"
    assert found.then == "hybrid"
    assert found.from_month is not None and found.from_month > 1
    volume = wording.count(found.months["frontier"][found.from_month - 1].tokens_per_day.point)
    assert f"at {volume} tokens/day, from month {found.from_month}" in found.told


def test_not_yet_says_how_sure_the_month_is() -> None:
    told = plan(_scenario(tokens=0.6e6, growth=0.3)).told
    assert "Of the cases that the inputs allow, " in told
    assert " agree with that month, " in told
    assert " at the earliest, " in told


@pytest.mark.parametrize(("chance", "verdict"), [(0.7, "not_yet"), (0.09, "frontier")])
def test_a_month_that_few_draws_agree_with_gives_way_to_the_rules(chance: float, verdict: str) -> None:
    later = Turning(month=4, low=2, high=None, chance=chance / 2, within=chance)
    counted = msgspec.structs.replace(COSTS, worth_building_from=dict.fromkeys(ARCHITECTURES, later))
    found = judged(counted, ml_team="none")
    assert found.verdict == verdict
    assert ("in only 9% of the cases" in found.told) == (verdict == "frontier")


def test_no_growth_no_not_yet() -> None:
    assert plan(_scenario(tokens=0.6e6, growth=0.0)).verdict == "frontier"


def test_where_money_cannot_tell_the_rules_are_heard() -> None:
    assert judged(UNSURE, ml_team="none", product="early").verdict == "frontier"
    assert "Money cannot tell" in judged(UNSURE, ml_team="none", product="early").told
    assert judged(UNSURE, work="narrow", product="mature", load="steady").verdict == "hybrid"


def test_a_payback_just_after_the_plans_months_is_told() -> None:
    found = plan(_scenario(tokens=6e6, growth=0.0, weeks=3))
    assert found.verdict == "frontier"
    assert found.break_even.month is not None and 12 < found.break_even.month.point <= 18
    assert "`months = 18`" in found.told


# ------------------------------------------------------------------------------------- ability


@pytest.mark.parametrize("name", ["reasoning", "unverifiable", "wide_sparse"])
def test_what_small_models_cannot_do_weighs_more_than_money_until_somebody_measures_it(name: str) -> None:
    assumed = judged(PAYS, **NEEDS[name])
    assert assumed.verdict == "frontier"
    assert "nobody has measured" in assumed.told
    assert ("money", name) in [each.between for each in assumed.contradictions]
    measured = judged(PAYS, small=Small(escalated_share=Band(0.2, 0.25, 0.3, n=900)), **NEEDS[name])
    assert measured.verdict == "hybrid"
    assert next(each for each in measured.contradictions if each.between[0] == name).followed == "money"


# ---------------------------------------------------------------------------------------- contradictions

SMALL = [rule for rule in RULES if rule.kind == "soft" and rule.says != "frontier" and rule.name != "volume"]
LARGE = [rule for rule in RULES if rule.kind == "soft" and rule.says == "frontier" and rule.name != "volume"]


def together(one: Rule, other: Rule) -> dict[str, Any] | None:
    first, second = NEEDS[one.name], NEEDS[other.name]
    return None if any(first[key] != second[key] for key in first.keys() & second.keys()) else {**first, **second}


PAIRS = [(one, other) for one, other in product(SMALL, LARGE) if together(one, other) is not None]


@pytest.mark.parametrize("found", [PAYS, COSTS, UNSURE], ids=["pays", "costs", "unsure"])
@pytest.mark.parametrize("one, other", PAIRS, ids=lambda rule: rule.name)
def test_of_two_rules_that_disagree_the_one_that_lost_is_shown(one: Rule, other: Rule, found: Figures) -> None:
    needs = together(one, other)
    assert needs is not None
    verdict = judged(found, **needs)
    lost, won = (one, other) if verdict.verdict == "frontier" else (other, one)
    shown = [each for each in verdict.contradictions if each.between[0] == lost.name]
    assert len(shown) == 1
    assert shown[0].followed == shown[0].between[1] != lost.name
    if won.says != "self_hosted" or verdict.verdict == "self_hosted":
        assert won.name.replace("_", " ") in shown[0].told or shown[0].followed == won.name


def test_rules_that_agree_with_the_verdict_contradict_nothing() -> None:
    found = judged(PAYS, work="narrow", product="mature", load="steady", cost_binds=True)
    assert [each for each in found.contradictions if each.between[0] not in ("tier",)] == []


def test_a_hybrid_is_not_what_compliance_asks_for() -> None:
    shown = next(each for each in judged(PAYS, compliance=True).contradictions if each.between[0] == "compliance")
    assert shown.followed == "money"
    assert 'egress = "redacted"' in shown.told


def test_hardware_that_a_need_rules_out() -> None:
    hardware = Hardware(kind="serverless", usd_per_mtok=sure(1.0))
    found = judge(Scenario(needs=Needs(residency="no_egress"), hardware=hardware), PAYS)
    assert ("residency", "hardware.kind") in [each.between for each in found.contradictions]
    rented = judge(Scenario(needs=Needs(gpu_operations=False), hardware=Hardware(kind="rented")), PAYS)
    assert ("gpu_operations", "hardware.kind") in [each.between for each in rented.contradictions]


def test_the_tiers_costs_and_weeks_against_the_sums() -> None:
    cheap = judged(COSTS).contradictions
    assert any(each.between == ("tier", "money") and "expects frontier only to cost $1K" in each.told for each in cheap)
    dear = judged(PAYS).contradictions
    weeks = next(each for each in dear if each.between == ("tier", "work.engineer_weeks"))
    assert "With 48 weeks it would no longer pay: it would cost $24K in 12 months" in weeks.told
    enough = judge(Scenario(work=Work(engineer_weeks=sure(30.0))), PAYS)
    assert all(each.between != ("tier", "work.engineer_weeks") for each in enough.contradictions)


# ------------------------------------------------------------------------------------------- mistakes


def mistakes(found: Judged) -> list[str]:
    return [each.mistake for each in found.warnings]


def test_no_mistake_is_told_of_inputs_that_show_none() -> None:
    small = Small(escalated_share=Band(0.2, 0.25, 0.3, n=900))
    certified = judge(Scenario(small=small), PAYS, {"small.escalated_share": ("certificate", "")})
    assert certified.warnings == ()
    assert judged(PAYS, held_out_checked=True, ml_team="strong").warnings == ()


def test_moving_without_a_held_out_check() -> None:
    assert "worst 5%" in mistakes(judged(PAYS))[0]
    assert "worst 5%" in mistakes(judged(PAYS, held_out_checked=False))[0]
    assert all("worst 5%" not in each for each in mistakes(judged(COSTS)))
    searched = Scenario(small=Small(escalated_share=Band(0.2, 0.25, 0.3, n=900)))
    assert "is measured" not in judged(PAYS).warnings[0].told
    assert "requests is measured; how wrong" in judge(searched, PAYS).warnings[0].told


def test_judging_by_a_model_that_was_not_tuned() -> None:
    assert any("not good enough" in each for each in mistakes(judged(COSTS, untuned_only=True)))


def test_the_frontier_without_a_model_of_the_volume() -> None:
    assert any("just use the frontier" in each for each in mistakes(judged(COSTS)))
    said = Scenario(stated=frozenset({"volume.growth_per_month"}))
    assert all("just use" not in each.mistake for each in judge(said, COSTS).warnings)
    grows = Scenario(volume=Volume(growth_per_month=Band(0.0, 0.05, 0.1)))
    assert all("just use" not in each.mistake for each in judge(grows, COSTS).warnings)


@pytest.mark.parametrize("needs", [{"compliance": True}, {"residency": "region"}, {"residency": "no_egress"}])
def test_compliance_is_not_self_hosting(needs: dict[str, Any]) -> None:
    warned = next(each for each in judged(PAYS, **needs).warnings if "compliance" in each.mistake)
    assert "what the rule really demands" in warned.told


@pytest.mark.parametrize("needs", [{"ml_team": "none"}, {"gpu_operations": False}])
def test_no_team_without_trying(needs: dict[str, Any]) -> None:
    assert any("no GPU team" in each for each in mistakes(judged(PAYS, **needs)))


# -------------------------------------------------------------------------------------- worked cases


def test_triage_is_right_at_its_volume_against_the_table_of_volumes() -> None:
    found = plan(cases.read("triage"))
    assert found.verdict == "hybrid"
    assert found.tier.startswith("under 10M tokens/day: frontier")
    shown = next(each for each in found.contradictions if each.between == ("volume", "money"))
    assert "at $45 per million" in shown.told
    assert "the hybrid pays from about 1.88M tokens/day on" in shown.told


def test_the_vehicle_is_decided_by_what_binds() -> None:
    found = plan(cases.read("vehicle"))
    assert found.verdict == "self_hosted"
    assert [rule.rule for rule in found.rules if rule.binding] == ["edge", "p99"]


def test_moderation_costs_more_than_its_tier() -> None:
    found = plan(cases.read("moderation"))
    assert found.verdict == "hybrid"
    assert any("$25K to $150K a month; here it costs $263K" in each.told for each in found.contradictions)


def _scenario(tokens: float, growth: float, weeks: float = 2.0) -> Scenario:
    return Scenario(
        volume=Volume(tokens_per_day=sure(tokens), growth_per_month=sure(growth)),
        frontier=Frontier(usd_per_mtok=sure(8.0), price_change_per_year=sure(0.0)),
        work=Work(engineer_weeks=sure(weeks), usd_per_engineer_week=sure(4e3), engineer_weeks_per_month=sure(0.05)),
    )


def test_every_rule_and_tier_is_told_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "plan.md").read_text("utf-8")
    assert [rule.name for rule in RULES if f"`{rule.name}`" not in text] == []
    assert [tier.name for tier in TIERS if f"| {tier.name} |" not in text] == []
