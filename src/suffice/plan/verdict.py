"""The judgement of a plan, from top to bottom.

    what binds excludes architectures  ->  can a small model do the work at all?  ->  what is cheaper, and from when on?
    ->  where money cannot tell, the soft rules  ->  what disagrees with that, and which mistakes the inputs show

Not known here: how the figures came about (`planner.py`), nor where they are shown (`told.py`, `report.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from suffice.plan import conflicts, mistakes, rules, wording
from suffice.plan.decision import MONEY, Decision, Money
from suffice.plan.result import Architecture, Contradiction, Figures, Fired, Sources, Verdict, Warned
from suffice.plan.rules import Rule, Seen
from suffice.plan.scenario import Scenario

CLEAR = 0.9
"""Money is clear when this share of the draws agrees; else the soft rules are heard."""

LIKELY = 0.5
"""A later month is clear when this share of the draws has one within the plan: nothing is built before it, so that less
is asked for than to build now."""

USUAL_MONTHS = 18
"""What is commonly asked for: to break even within 12 to 18 months."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a plan that is judgement, under the names it has there."""

    verdict: Verdict
    told: str
    tier: str
    then: Architecture | None
    from_month: int | None
    impossible: dict[Architecture, str]
    rules: tuple[Fired, ...]
    contradictions: tuple[Contradiction, ...]
    warnings: tuple[Warned, ...]


def judge(scenario: Scenario, figures: Figures, sources: Sources | None = None) -> Judged:
    """What to do, why, and what speaks against it. `sources`: which inputs came from elsewhere than the scenario."""
    tokens = figures.tokens_per_day[0].point
    seen = Seen(needs=scenario.needs, tokens_per_day=tokens, escalated_share=scenario.small.escalated_share)
    held = rules.fired(seen)
    impossible = rules.excluded(held, seen)
    money = asked_of_money(scenario, figures, impossible)
    decision = decide(held, impossible, money, measured=scenario.small.escalated_share.n is not None)
    return Judged(
        verdict=decision.verdict,
        told=_told(decision, money, scenario, figures, held, impossible),
        tier=_tier(figures),
        then=decision.then,
        from_month=decision.from_month,
        impossible=impossible,
        rules=tuple(rules.told(rule, seen) for rule in held),
        contradictions=conflicts.found(held, decision, money, scenario, figures),
        warnings=mistakes.shown(scenario, figures, decision, money, sources or {}),
    )


# ------------------------------------------------------------------------------------------------ decision


def asked_of_money(scenario: Scenario, figures: Figures, impossible: dict[Architecture, str]) -> Money:
    """What is cheaper over the plan's months, building included, and from which month on.

    Self-hosting alone is always cheaper than asking the frontier as well, and answers what the small model is unsure
    of: money may choose it only where nothing would escalate, or where asking is impossible.
    """
    alone = "hybrid" in impossible or scenario.small.escalated_share.point == 0
    small: Architecture = "self_hosted" if alone else "hybrid"
    chance = figures.cheaper_chance[small]
    running, worth = figures.running_cheaper_from[small], figures.worth_building_from[small]
    if figures.saving_usd[small].point > 0:
        if running is not None and running.month > 1:
            return Money(small, "not_yet", clear=running.within >= LIKELY, chance=chance, later=running)
        return Money(small, small, clear=chance >= CLEAR, chance=chance)
    if worth is not None and worth.month > 1:
        return Money(small, "not_yet", clear=worth.within >= LIKELY, chance=chance, later=worth)
    return Money(small, "frontier", clear=chance <= 1 - CLEAR, chance=chance)


def decide(held: Sequence[Rule], impossible: dict[Architecture, str], money: Money, measured: bool) -> Decision:
    """The verdict, and what decided. `measured`: the escalated share was counted, so that a rule of thumb on what small
    models can do gives way to it."""
    if "frontier" in impossible:
        return Decision(money.small, None, None, by=next(rule.name for rule in held if "frontier" in rule.excludes))
    unable = next((rule for rule in held if rule.kind == "ability"), None)
    if unable is not None and not measured and money.asks != "frontier":
        return Decision("frontier", None, None, by=unable.name)
    if not money.clear and money.asks != "frontier":
        against = [rule for rule in held if rule.says == "frontier"]
        if 2 * len(against) > len(held):
            return Decision("frontier", None, None, by=against[0].name)
    then = money.small if money.asks == "not_yet" else None
    return Decision(money.asks, then, money.from_month, by=MONEY)


# ------------------------------------------------------------------------------------------------ sentences

DO: dict[Verdict, str] = {
    "hybrid": "Go hybrid: a small model that answers, and the frontier where it is unsure.",
    "self_hosted": "Go self-hosted: a small model of your own, and nothing behind it.",
    "frontier": "Don't: stay with the frontier alone.",
}


def _told(
    decision: Decision,
    money: Money,
    scenario: Scenario,
    figures: Figures,
    held: Sequence[Rule],
    impossible: dict[Architecture, str],
) -> str:
    """What to do and why, in two or three sentences."""
    if decision.verdict == "not_yet":
        return _later(money, decision, figures)
    if decision.verdict == "frontier":
        return f"{DO['frontier']} {_against(decision, money, scenario, figures)}"
    small = decision.verdict
    if "frontier" in impossible:
        return f"{DO[small]} {_bound(small, scenario, figures, held, impossible)}"
    return f"{DO[small]} {_price(small, figures)} {_saving(small, money, scenario, figures)}"


def _bound(
    small: Architecture,
    scenario: Scenario,
    figures: Figures,
    held: Sequence[Rule],
    impossible: dict[Architecture, str],
) -> str:
    """Why nothing else can be, what that costs, and whether it can be done."""
    other = "Nothing else is possible" if "hybrid" in impossible else "The frontier alone is not possible"
    sentences = [f"{other}: {impossible['frontier']}.", _price(small, figures)]
    more = -figures.saving_usd[small].point
    if more > 0:
        period = wording.months(scenario.months)
        sentences.append(f"What binds costs {wording.usd(more)} in {period}, building included.")
    unable = next((rule for rule in held if rule.kind == "ability"), None)
    if unable is not None:
        sentences.append(f"But {unable.why}: prove it before anything is built.")
    return " ".join(sentences)


def _price(small: Architecture, figures: Figures) -> str:
    now, frontier = figures.monthly_usd[small], figures.monthly_usd["frontier"]
    once = figures.once_usd[small].point
    built = f", after {wording.usd(once)} to build it" if once > 0 else ""
    return (
        f"It costs {wording.money(now)} a month to run{built}; the frontier alone costs"
        f" {wording.money(frontier)} a month."
    )


def _saving(small: Architecture, money: Money, scenario: Scenario, figures: Figures) -> str:
    paid = figures.break_even.month
    when = f" and is paid back after {wording.months(paid.point)}" if paid is not None else ""
    sure = "" if money.chance >= CLEAR else ", which is not sure: look at what flips it"
    return (
        f"Over {wording.months(scenario.months)} it saves {wording.money(figures.saving_usd[small])}{when};"
        f" it is the cheaper one in {_share(money.chance)} the cases that the inputs allow{sure}."
    )


def _share(chance: float) -> str:
    return "all" if chance == 1 else f"{wording.percent(min(round(chance, 2), 0.99))} of"


def _later(money: Money, decision: Decision, figures: Figures) -> str:
    month = decision.from_month or 1
    volume = wording.count(figures.tokens_per_day[month - 1].point)
    now = {name: wording.usd(figures.monthly_usd[name].point) for name in ("frontier", money.small)}
    once = wording.usd(figures.once_usd[money.small].point)
    return (
        f"Not yet: stay with the frontier, and go {wording.NAMES[money.small]} at {volume} tokens/day, from month"
        f" {month}.{_sure_of(money)} Today the frontier costs {now['frontier']} a month; the"
        f" {wording.NAMES[money.small]} would cost {now[money.small]} to run, and {once} to build."
    )


def _sure_of(money: Money) -> str:
    """How sure the month is that money asks for."""
    later = money.later
    if later is None or (later.chance == 1 and later.low == later.high == later.month):
        return ""
    if not money.clear:
        return f" That is so at the point values, but in only {_few(later.within)} the cases within the plan."
    late = f"in month {later.high} at the latest" if later.high is not None else "in some not within the plan"
    return (
        f" Of the cases that the inputs allow, {wording.percent(round(later.chance, 2))} agree with that month, and"
        f" {wording.percent(round(later.within, 2))} with one within the plan (from month {later.low or 1} at the"
        f" earliest, {late})."
    )


def _few(chance: float) -> str:
    return "none of" if chance == 0 else f"{wording.percent(max(round(chance, 2), 0.01))} of"


def _against(decision: Decision, money: Money, scenario: Scenario, figures: Figures) -> str:
    frontier, small = (figures.monthly_usd[name].point for name in ("frontier", money.small))
    if decision.by == MONEY:
        once, period = wording.usd(figures.once_usd[money.small].point), wording.months(scenario.months)
        falls_short = f"{once} to build it do not come back in {period}" if small < frontier else f"{once} to build it"
        return (
            f"It costs {wording.usd(frontier)} a month; the {wording.NAMES[money.small]} would cost"
            f" {wording.usd(small)} to run, and {falls_short}{_pays_from(figures)}.{_in_time(scenario, figures)}"
        )
    small_name, share = wording.NAMES[money.small], wording.percent(round(money.chance, 2))
    rule = next(rule for rule in rules.RULES if rule.name == decision.by)
    if rule.kind == "ability":
        year = figures.saving_usd[money.small].point
        gain = f"save {wording.usd(year)} in {wording.months(scenario.months)}" if year > 0 else "be cheaper later"
        return (
            f"The {small_name} would {gain} if a small model could do the work, which nobody has measured, and"
            f" {rule.why}."
        )
    if money.later is not None:
        return (
            f"Money cannot tell: the {small_name} is worth it from month {money.later.month} on at the point values,"
            f" but in only {_few(money.later.within)} the cases within the plan's months, and the rules that hold ask"
            " for the frontier."
        )
    return (
        f"Money cannot tell: the {small_name} is the cheaper one in {share} of the cases that the inputs allow, and"
        " the rules that hold ask for the frontier."
    )


def _in_time(scenario: Scenario, figures: Figures) -> str:
    """What the plan's months are too short for, and the usual limit is not."""
    paid = figures.break_even.month
    if paid is None or not scenario.months < paid.point <= USUAL_MONTHS:
        return ""
    return (
        f" It would be paid back after {wording.months(paid.point)}; where 12 to {USUAL_MONTHS} are good enough, plan"
        f" with `months = {USUAL_MONTHS}`."
    )


def _pays_from(figures: Figures) -> str:
    even = figures.break_even
    if even.tokens_per_day is None:
        return ""
    bill = f" ({wording.usd(even.usd_per_month)} a month)" if even.usd_per_month is not None else ""
    return f"; it pays from about {wording.count(even.tokens_per_day)} tokens/day{bill} on"


def _tier(figures: Figures) -> str:
    """The tier of the first month, and the one that growth leads to."""
    now = rules.tier_of(figures.tokens_per_day[0].point)
    last = rules.tier_of(figures.tokens_per_day[-1].point)
    if last == now:
        return now.told()
    month = next(i for i, band in enumerate(figures.tokens_per_day, 1) if rules.tier_of(band.point) == last)
    return f"{now.told()}; from month {month} {last.told()}"
