"""The rules of thumb that a plan is held against, as data: when each holds, what it asks for, and why.

Three kinds. `binding`: it excludes architectures, whatever they cost. `ability`: whether a small model can do the work
at all; it weighs more than money as long as nobody has measured it. `soft`: it argues, and money decides unless money
cannot tell. The rules and the tiers of volume are those of a framework put together from published articles of 2025 and
2026; several of them disagree with each other and with the sums, so none of them decides alone (`verdict.py`).

Not known here: what anything costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from suffice.plan import wording
from suffice.plan.result import Architecture, Fired
from suffice.plan.scenario import Band, Needs

Kind = Literal["binding", "ability", "soft"]

ROUND_TRIP_MS = 200.0
"""An answer promised within this cannot wait for a hosted model, whose round trip takes 500 to 1,000 ms."""

HOSTED_MS = 1_000.0
SLOWEST = 0.01
"""What escalates more often than this is the 99th percentile of the whole."""


@dataclass(frozen=True)
class Tier:
    """A tier of volume: up to how many tokens a day (the first tier: below), what the table asks for there, and what
    it expects: US dollars a month, engineer-weeks to build (None: a team that stays)."""

    name: str
    up_to: float
    says: Architecture
    calls_it: str
    usd_per_month: tuple[float, float]
    engineer_weeks: tuple[float, float] | None
    engineering: str

    def told(self) -> str:
        """The tier as the plan prints it."""
        low, high = (wording.usd(usd) for usd in self.usd_per_month)
        return f"{self.name} tokens/day: {self.calls_it}, {low} to {high} a month, {self.engineering}"


TIERS = (
    Tier("under 10M", 10e6, "frontier", "frontier", (1e3, 10e3), (0, 0), "integration only"),
    Tier("10M to 50M", 50e6, "hybrid", "hybrid", (5e3, 25e3), (8, 24), "1 to 2 engineers for 8 to 12 weeks"),
    Tier(
        "50M to 200M", 200e6, "hybrid", "self-hosted small model with the frontier behind it", (10e3, 50e3), (24, 48),
        "2 to 3 engineers for 12 to 16 weeks",
    ),
    Tier(
        "200M to 1B", 1e9, "hybrid", "production hybrid", (25e3, 150e3), (48, 120),
        "3 to 5 engineers for 16 to 24 weeks",
    ),
    Tier("over 1B", math.inf, "hybrid", "platform of several models", (100e3, 500e3), None, "a team that stays"),
)  # fmt: skip


def tier_of(tokens_per_day: float) -> Tier:
    """The tier of a volume."""
    if tokens_per_day < TIERS[0].up_to:
        return TIERS[0]
    return next(tier for tier in TIERS[1:] if tokens_per_day <= tier.up_to)


@dataclass(frozen=True)
class Seen:
    """What the rules look at: the needs, the first month's tokens a day, the share that would ask the frontier."""

    needs: Needs
    tokens_per_day: float
    escalated_share: Band

    def facts(self) -> dict[str, str]:
        """What a rule's reason may quote."""
        return {
            "volume": wording.count(self.tokens_per_day),
            "p99": wording.count(self.needs.p99_ms or 0.0),
            "escalated": wording.percent(self.escalated_share.point),
        }


@dataclass(frozen=True)
class Rule:
    """One rule: its name, when it holds (in words and as a test), what it asks for and excludes, why; and what to do
    about it where the plan does not follow it (`otherwise`)."""

    name: str
    when: str
    says: Architecture
    kind: Kind
    holds: Callable[[Seen], bool]
    why: str
    otherwise: str
    excludes: tuple[Architecture, ...] = ()


def _too_fast(seen: Seen) -> bool:
    return seen.needs.p99_ms is not None and seen.needs.p99_ms <= ROUND_TRIP_MS


def _hosted_is_close(seen: Seen) -> bool:
    return seen.needs.p99_ms is not None and ROUND_TRIP_MS < seen.needs.p99_ms < HOSTED_MS


def _tier(first: int, last: int) -> Callable[[Seen], bool]:
    return lambda seen: TIERS.index(tier_of(seen.tokens_per_day)) in range(first, last + 1)


RULES = (
    Rule(
        "edge", "runs_on = \"edge\"", "self_hosted", "binding", lambda seen: seen.needs.runs_on == "edge",
        "on a device the frontier cannot run, and what escalates may have nowhere to go",
        "", ("frontier", "hybrid"),
    ),
    Rule(
        "residency", "residency = \"no_egress\"", "self_hosted", "binding",
        lambda seen: seen.needs.residency == "no_egress",
        "no request may leave: not to a hosted model, and not when the small one is unsure (`egress = \"never\"`)",
        "", ("frontier", "hybrid"),
    ),
    Rule(
        "p99", "p99_ms of 200 or less", "self_hosted", "binding", _too_fast,
        "a hosted model's round trip takes 500 to 1,000 ms, and 99 of 100 answers must be there within {p99} ms",
        "", ("frontier",),
    ),
    Rule(
        "p99_escalated", "p99_ms of 200 or less, and more than 1% escalates", "self_hosted", "binding",
        lambda seen: _too_fast(seen) and seen.escalated_share.point > SLOWEST,
        "{escalated} of the requests would wait for the frontier, and the slowest 1% are what the p99 is made of",
        "", ("hybrid",),
    ),
    Rule(
        "reasoning", "reasoning = true", "frontier", "ability", lambda seen: seen.needs.reasoning is True,
        "long documents, several steps, new syntheses and broad knowledge are what small models are bad at",
        "the measured share that escalates already counts what the small model cannot do; divide the work, and let"
        " only its narrow part be learned",
    ),
    Rule(
        "unverifiable", "verifiable = false", "frontier", "ability", lambda seen: seen.needs.verifiable is False,
        "what nobody can check quickly can be neither trained for nor certified",
        "find a check first: a schema, a rule, a label that people give later",
    ),
    Rule(
        "wide_sparse", "work = \"wide\", data = \"sparse\"", "frontier", "ability",
        lambda seen: seen.needs.work == "wide" and seen.needs.data == "sparse",
        "on work that varies widely a small model fails on the rare cases, and there is little to learn them from; the"
        " frontier with retrieval does better",
        "collect records first: `suffice discover` says which parts of the work repeat",
    ),
    Rule(
        "volume", "under 10M tokens a day", "frontier", "soft", _tier(0, 0),
        "{volume} tokens/day are under 10M, where the price of an API is said to win",
        "volume alone decides nothing: the price of a token does as much",
    ),
    Rule(
        "volume", "10M to 50M tokens a day", "hybrid", "soft", _tier(1, 1),
        "{volume} tokens/day are 10M to 50M: small for what is common, the frontier for the rest",
        "volume alone decides nothing: the price of a token does as much",
    ),
    Rule(
        "volume", "over 50M tokens a day", "hybrid", "soft", _tier(2, 4),
        "{volume} tokens/day are over 50M: cost compounds, so as much as can be goes to the small model",
        "volume alone decides nothing: the price of a token does as much",
    ),
    Rule(
        "narrow", "work = \"narrow\"", "hybrid", "soft", lambda seen: seen.needs.work == "narrow",
        "on a narrow task with inputs alike, a fine-tuned small model is as good as a large one",
        "a small model would do the work; there is too little to be saved by it",
    ),
    Rule(
        "variable", "work = \"wide\", user_facing = true", "frontier", "soft",
        lambda seen: seen.needs.work == "wide" and seen.needs.user_facing is True,
        "work that varies and that users see is better left to the frontier until its patterns settle",
        "let it run in shadow until `suffice discover` finds the patterns steady",
    ),
    Rule(
        "sparse", "data = \"sparse\"", "frontier", "soft",
        lambda seen: seen.needs.data == "sparse" and seen.needs.work != "wide",
        "a small model generalises no further than its data is diverse, and there is little of it",
        "record first: `suffice show TASK` says how many more examples a promise takes",
    ),
    Rule(
        "cost", "cost_binds = true", "hybrid", "soft", lambda seen: seen.needs.cost_binds is True,
        "where cost binds, a fine-tuned small model is said to be 50 to 200 times cheaper a token",
        "the small model's own costs exceed what it saves at this volume; shorter prompts, a cheaper model, batches and"
        " the provider's cache come first",
    ),
    Rule(
        "early", "product = \"early\"", "frontier", "soft", lambda seen: seen.needs.product == "early",
        "an early product changes every week, and a prompt changes faster than a model",
        "begin with recording: a changed prompt sends its task back to the frontier until it is learned again",
    ),
    Rule(
        "mature", "product = \"mature\", load = \"steady\"", "hybrid", "soft",
        lambda seen: seen.needs.product == "mature" and seen.needs.load == "steady",
        "a mature product with a predictable load is worth the operations",
        "what is predictable here is a small bill",
    ),
    Rule(
        "compliance", "compliance = true", "self_hosted", "soft", lambda seen: seen.needs.compliance is True,
        "rules on data often ask for infrastructure of one's own",
        "ask what the rule demands; what still goes to the frontier can be redacted (`egress = \"redacted\"`) or go to"
        " an upstream under contract",
    ),
    Rule(
        "region", "residency = \"region\"", "self_hosted", "soft", lambda seen: seen.needs.residency == "region",
        "data that must stay in a region does so on machines of one's own there",
        "ask what the rule demands; the large clouds offer hosted models in a region",
    ),
    Rule(
        "hosted_p99", "p99_ms of over 200 and under 1,000", "self_hosted", "soft", _hosted_is_close,
        "a hosted model's round trip takes 500 to 1,000 ms, and {p99} ms are asked for",
        "measure the frontier's own p99 (`suffice costs` and `/metrics` have it) before anything rests on it",
    ),
    Rule(
        "no_ml_team", "ml_team = \"none\"", "frontier", "soft", lambda seen: seen.needs.ml_team == "none",
        "without people for it, careful prompts come before a model of one's own",
        "`suffice learn` fits, proves and watches a specialist without an ML team",
    ),
)  # fmt: skip


def fired(seen: Seen) -> tuple[Rule, ...]:
    """The rules that hold, binding ones first."""
    order = ("binding", "ability", "soft")
    return tuple(sorted((rule for rule in RULES if rule.holds(seen)), key=lambda rule: order.index(rule.kind)))


def told(rule: Rule, seen: Seen) -> Fired:
    """A rule that held, with its reason in the numbers of this plan."""
    why = rule.why.format(**seen.facts())
    return Fired(rule=rule.name, says=rule.says, binding=rule.kind == "binding", why=why)


def excluded(rules: Sequence[Rule], seen: Seen) -> dict[Architecture, str]:
    """The architectures that no price makes possible, each with the first reason."""
    found: dict[Architecture, str] = {}
    for rule in rules:
        for architecture in rule.excludes:
            found.setdefault(architecture, told(rule, seen).why)
    return found
