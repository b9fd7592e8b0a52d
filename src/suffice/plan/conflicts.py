"""What does not agree: a rule with the verdict, a rule with money, a tier with the sums, an input with a need.

Each is shown once, from the side that lost: with what it was up against, who of the other rules is on either side, and
why the plan goes the way it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from suffice.plan import rules, wording
from suffice.plan.decision import MONEY, Decision, Money
from suffice.plan.result import Architecture, Contradiction, Figures, Verdict
from suffice.plan.rules import Rule
from suffice.plan.scenario import Band, Scenario

MATTERS = 1.5
"""A tier's range of costs is told to be off when the whole band lies this far outside."""


def found(
    held: Sequence[Rule], decision: Decision, money: Money, scenario: Scenario, figures: Figures
) -> tuple[Contradiction, ...]:
    """All contradictions, what matters most first."""
    return (
        *_rules(held, decision, money, scenario, figures),
        *_inputs(scenario),
        *_unused(scenario),
        *_tier(decision, scenario, figures),
    )


# ------------------------------------------------------------------------------------- rules and the verdict


def _rules(
    held: Sequence[Rule], decision: Decision, money: Money, scenario: Scenario, figures: Figures
) -> Iterator[Contradiction]:
    losers = [rule for rule in held if not _content(rule, decision.verdict)]
    if decision.by != MONEY and not _same_side(money.asks, decision.verdict):
        yield _money_lost(held, decision, money, scenario, figures)
    for rule in losers:
        yield Contradiction(
            between=(rule.name, decision.by),
            told=" ".join(
                part
                for part in (
                    f"T{_named(rule.name)[1:]} asks for {wording.NAMES[rule.says]}, {_asked(decision, money)}.",
                    _others(rule, held, decision),
                    _why_not(rule, decision, money, figures),
                )
                if part
            ),
            followed=decision.by,
        )


def _content(rule: Rule, verdict: Verdict) -> bool:
    """Whether a rule has what it asks for. A rule that asks for a small model beside the frontier is content with it
    alone; one that asks for it alone is not content where requests still leave, unless they are as good as none."""
    if rule.says == "hybrid":
        return verdict in ("hybrid", "self_hosted")
    if rule.says == "frontier":
        return verdict in ("frontier", "not_yet")
    return verdict == "self_hosted" or (rule.kind == "binding" and verdict == "hybrid")


def _same_side(asked: Verdict, verdict: Verdict) -> bool:
    small = ("hybrid", "self_hosted")
    return (asked in small) == (verdict in small)


def _named(rule: str) -> str:
    return f'the rule "{rule.replace("_", " ")}"'


def _asked(decision: Decision, money: Money) -> str:
    """What the winner asks for, as the second half of a sentence."""
    verdict = "the frontier for now" if decision.verdict == "not_yet" else wording.NAMES[decision.verdict]
    if decision.by == MONEY:
        sure = "" if money.clear else ", if not surely,"
        return f"money{sure} for {verdict}"
    return f"{_named(decision.by)} for {verdict}"


def _others(rule: Rule, held: Sequence[Rule], decision: Decision) -> str:
    """The other rules on the winning side."""
    names = [each.name for each in held if _content(each, decision.verdict) and each.name != decision.by]
    if not names:
        return ""
    told = ", ".join(f'"{name.replace("_", " ")}"' for name in dict.fromkeys(names))
    return f"With the plan {'is' if len(set(names)) == 1 else 'are'} {told}."


def _why_not(rule: Rule, decision: Decision, money: Money, figures: Figures) -> str:
    """Why the plan does not follow it, and what to do about it."""
    binding = next((each for each in rules.RULES if each.name == decision.by and each.kind == "binding"), None)
    if binding is not None:
        if rule.kind == "ability":
            return (
                "What binds comes first, but no rule makes a small model able: prove it on held-out answers before"
                " anything is built, or change what binds."
            )
        return "What binds comes first: the alternative is not dear but impossible."
    if rule.name == "volume" and decision.by == MONEY:
        return _of_volume(rule, money, figures)
    return f"The plan follows {'money' if decision.by == MONEY else _named(decision.by)}: {rule.otherwise}."


def _of_volume(rule: Rule, money: Money, figures: Figures) -> str:
    """The table of volumes against the sums: what it leaves out is the price."""
    tokens = figures.tokens_per_day[0].point
    bill, price = figures.monthly_usd["frontier"].point, figures.usd_per_mtok["frontier"].point
    tier = rules.tier_of(tokens)
    low, high = (wording.usd(usd) for usd in tier.usd_per_month)
    even = figures.break_even.tokens_per_day
    if even is None:
        turns = "at these prices no volume that was looked at turns it"
    else:
        turns = f"at these prices the hybrid pays from about {wording.count(even)} tokens/day on"
    return (
        f"The plan follows money: the table goes by tokens alone. {wording.count(tokens)} tokens/day cost"
        f" {wording.usd(bill)} a month here, at {wording.usd(price)} per million, where the table expects {low} to"
        f" {high}; {turns}."
    )


def _money_lost(
    held: Sequence[Rule], decision: Decision, money: Money, scenario: Scenario, figures: Figures
) -> Contradiction:
    """A rule went before money."""
    rule = next(each for each in held if each.name == decision.by)
    year = figures.saving_usd[money.small].point
    if money.asks == "frontier":
        wants = f"money asks for the frontier, which is {wording.usd(-year)} cheaper in {_period(scenario)}"
    elif money.asks == "not_yet":
        wants = f"money asks for {wording.NAMES[money.small]} from month {money.from_month} on"
    else:
        wants = f"money asks for {wording.NAMES[money.small]}, which saves {wording.usd(year)} in {_period(scenario)}"
    reason = {
        "binding": "the plan follows the rule, for it is no matter of price",
        "ability": (
            "the plan follows the rule, for the sums take for granted that a small model can do the work: `suffice"
            " learn` measures it, and a measured share goes before the rule"
        ),
        "soft": "the plan follows the rules, for money is not sure",
    }[rule.kind]
    told = f"T{_named(rule.name)[1:]} asks for {wording.NAMES[rule.says]}; {wants}: {reason}."
    return Contradiction(between=(MONEY, rule.name), told=told, followed=rule.name)


# ---------------------------------------------------------------------------------------- inputs and tiers


def _inputs(scenario: Scenario) -> Iterator[Contradiction]:
    """Inputs that a need rules out."""
    needs, kind = scenario.needs, scenario.hardware.kind
    if needs.residency == "no_egress" and kind == "serverless":
        yield Contradiction(
            between=("residency", "hardware.kind"),
            told="No request may leave, and serverless hardware is somebody else's: its costs stand in for machines of"
            " your own, which the scenario should name.",
            followed="residency",
        )
    if needs.runs_on == "edge" and kind in ("rented", "serverless"):
        yield Contradiction(
            between=("edge", "hardware.kind"),
            told=f'The model runs on the device, and {kind} hardware is counted: with kind = "cpu" or "owned" the'
            " plan counts what the device costs.",
            followed="hardware.kind",
        )
    if needs.gpu_operations is False and kind in ("rented", "owned"):
        yield Contradiction(
            between=("gpu_operations", "hardware.kind"),
            told=f"Nobody runs GPUs, and {kind} hardware is counted: labels, fields and tool calls are served from the"
            ' processor (kind = "cpu"); for a model that writes, count somebody\'s weeks.',
            followed="hardware.kind",
        )


def _unused(scenario: Scenario) -> Iterator[Contradiction]:
    """Keys that the scenario states and the arithmetic has no use for beside others."""
    hardware, volume = scenario.hardware, scenario.volume
    kind = hardware.kind
    unused: list[tuple[str, str, str]] = []
    if kind != "owned":
        why = f"{kind} hardware is not bought"
        bought = ("purchase_usd", "lifetime_months", "power_usd_per_month")
        unused += [(f"hardware.{key}", "hardware.kind", why) for key in bought]
    if hardware.usd_per_mtok is not None:
        why = "hardware is paid by the token"
        keys = ("tokens_per_s", "requests_per_s", "utilisation", "least_replicas")
        unused += [(f"hardware.{key}", "hardware.usd_per_mtok", why) for key in keys]
    if volume.input_tokens_per_request is not None and volume.output_tokens_per_request is not None:
        why = "the tokens of a request, in and out, say it already"
        unused.append(("volume.output_share", "volume.output_tokens_per_request", why))
    for key, other, why in unused:
        if key in scenario.stated:
            yield Contradiction(between=(key, other), told=f"`{key}` is said and not used: {why}.", followed=other)


def _tier(decision: Decision, scenario: Scenario, figures: Figures) -> Iterator[Contradiction]:
    """What the table of volumes expects of costs and of work, against the sums."""
    tier = rules.tier_of(figures.tokens_per_day[0].point)
    cost = figures.monthly_usd[tier.says]
    low, high = tier.usd_per_month
    if cost.high * MATTERS < low or cost.low > MATTERS * high:
        expects = f"{wording.usd(low)} to {wording.usd(high)}"
        price = wording.usd(figures.usd_per_mtok[tier.says].point)
        yield Contradiction(
            between=("tier", MONEY),
            told=f"At {tier.name} tokens/day the table expects {wording.NAMES[tier.says]} to cost {expects} a month;"
            f" here it costs {wording.money(cost)}, at {price} per million tokens: the table has no prices in it.",
            followed=MONEY,
        )
    chosen = decision.then or decision.verdict
    if chosen in ("hybrid", "self_hosted"):
        yield from _weeks(tier, scenario, figures, "self_hosted" if chosen == "self_hosted" else "hybrid")


def _weeks(tier: rules.Tier, scenario: Scenario, figures: Figures, small: Architecture) -> Iterator[Contradiction]:
    """The tier's engineering against the weeks that are counted, and what the larger figure would do."""
    counted, expected = scenario.work.engineer_weeks, tier.engineer_weeks
    if expected is None or expected[0] <= counted.high:
        return
    more = (expected[1] - counted.point) * scenario.work.usd_per_engineer_week.point
    saved = figures.saving_usd[small].point - more
    still = "would still save" if saved > 0 else "would no longer pay: it would cost"
    yield Contradiction(
        between=("tier", "work.engineer_weeks"),
        told=f"For {tier.name} tokens/day the table expects {tier.engineering}; the plan counts {_weeks_told(counted)},"
        f" since Suffice relays, fits, proves and watches. With {wording.count(expected[1])} weeks it {still}"
        f" {wording.usd(abs(saved))} in {_period(scenario)}.",
        followed="work.engineer_weeks",
    )


def _weeks_told(weeks: Band) -> str:
    return f"{wording.between(weeks, wording.count)} engineer-weeks"


def _period(scenario: Scenario) -> str:
    return wording.months(scenario.months)
