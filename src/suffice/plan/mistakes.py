"""The five mistakes people make with such a decision, told when the inputs show them, each with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator

from suffice.plan import wording
from suffice.plan.decision import Decision, Money
from suffice.plan.result import Figures, Sources, Warned
from suffice.plan.scenario import Scenario


def shown(
    scenario: Scenario, figures: Figures, decision: Decision, money: Money, sources: Sources
) -> tuple[Warned, ...]:
    """The mistakes that the inputs show."""
    return (
        *_unproven(scenario, decision, sources),
        *_untuned(scenario),
        *_no_volume_model(scenario, figures, decision),
        *_compliance(scenario, decision),
        *_untried(scenario, money),
    )


def _unproven(scenario: Scenario, decision: Decision, sources: Sources) -> Iterator[Warned]:
    needs, measured = scenario.needs, scenario.small.escalated_share.n is not None
    chosen = decision.then or decision.verdict
    if chosen == "frontier" or needs.held_out_checked is True:
        return
    source, _ = sources.get("small.escalated_share", ("assumed", ""))
    if needs.held_out_checked is None and source == "certificate":
        return
    share = scenario.small.escalated_share
    some = f"all but {wording.between(share, wording.percent)} of the" if share.high > 0 else "all"
    yield Warned(
        mistake="moving for cost without a held-out check of the mean and the worst 5%",
        told=f"That a small model may answer {some} requests is"
        f" {'measured' if measured else 'assumed'}; how wrong it is there, nobody has looked. `suffice learn TASK`"
        " certifies both on held-out answers before anything is switched: the mean (`max_error`) and the least sure"
        " answers (`max_tail_error`, `max_cvar`).",
    )


def _untuned(scenario: Scenario) -> Iterator[Warned]:
    if scenario.needs.untuned_only:
        yield Warned(
            mistake='"small models are not good enough", from one that was not tuned',
            told="A small model as it comes says little about one fitted to the task. `suffice learn TASK` fits the"
            " smallest first on your own answers and says what each can do; the escalated share of this plan is then"
            " measured.",
        )


def _no_volume_model(scenario: Scenario, figures: Figures, decision: Decision) -> Iterator[Warned]:
    growth = scenario.volume.growth_per_month
    if decision.verdict != "frontier" or growth.n is not None or growth.low != 0 or growth.high != 0:
        return
    if "volume.growth_per_month" in scenario.stated:
        return
    even = figures.break_even.tokens_per_day
    now = figures.tokens_per_day[0].point
    turns = f" It turns at about {wording.count(even)} tokens/day." if even is not None and even > now else ""
    yield Warned(
        mistake='"just use the frontier", without a model of the volume',
        told=f"The plan knows today's {wording.count(now)} tokens/day and no growth.{turns} Say"
        " `growth_per_month` (volume), or let Suffice record: it measures both, and the plan says from which month on"
        " it is wrong.",
    )


def _compliance(scenario: Scenario, decision: Decision) -> Iterator[Warned]:
    needs = scenario.needs
    if needs.compliance is not True and needs.residency == "none":
        return
    forced = decision.by == "residency"
    yield Warned(
        mistake="taking compliance for self-hosting",
        told=("The verdict rests on it: ask" if forced else "Ask") + " what the rule really demands. Some hosted offers"
        " comply (a region, no retention, a contract for the data), and a machine of one's own does not comply by"
        ' itself. Between the two lies `egress = "redacted"`: what names a person stays, the rest may ask the'
        " frontier.",
    )


def _untried(scenario: Scenario, money: Money) -> Iterator[Warned]:
    needs, measured = scenario.needs, scenario.small.escalated_share.n is not None
    if measured or not (needs.ml_team == "none" or needs.gpu_operations is False):
        return
    pays = {money.small: "It would pay", "not_yet": "It pays later, and can be known now"}.get(
        money.asks, "Whether it would do the work can be known before it pays"
    )
    yield Warned(
        mistake='"we have no GPU team", without trying',
        told=f"{pays}: specialists for labels, fields and tool calls are fitted and served on a processor, in minutes."
        " Record some traffic, or `suffice import` a log, and run `suffice learn`: it says yes or no.",
    )
