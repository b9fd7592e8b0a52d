"""What to do next, by the verdict: in Suffice's commands, with the values at which to think again."""

from __future__ import annotations

from suffice.plan import views, wording
from suffice.plan.result import Flip, Plan

SHARE = "small.escalated_share"

RECORD = (
    "Record: point the application's base URL at `suffice serve`, or `suffice import` a log. Nothing changes for users."
)
STAGES = (
    "`suffice stage TASK shadow`, then canary, then live. Audits watch it, and a promise that no longer holds sends the"
    " task back to the frontier within a second."
)

ALONE = (
    "`suffice stage TASK shadow`, then canary, then live. Nothing behind it audits it: people's answers do, by"
    " `POST /v1/feedback`."
)


def steps(plan: Plan) -> list[str]:
    """Two to four steps, in order."""
    if plan.verdict == "frontier":
        return _stay(plan)
    if plan.verdict == "not_yet":
        return _wait(plan)
    if "hybrid" in plan.impossible:
        return [
            RECORD,
            '`suffice learn TASK` with `egress = "never"`: what the small model is unsure of is refused, never sent.'
            " Decide what the application does then.",
            ALONE,
        ]
    return [RECORD, f"`suffice learn TASK`: {_measure(plan)}", STAGES]


def _measure(plan: Plan) -> str:
    """The share that the plan rests on, and up to where it holds."""
    flip = _flip(plan)
    if flip is None:
        return "it fits the smallest model that suffices and proves on held-out answers what it may answer."
    known = any(each.input == SHARE and each.source in ("measured", "certificate") for each in plan.assumptions)
    took = wording.percent(flip.band.point)
    text = f"it proves on held-out answers how much must ask the frontier; the plan has {took}"
    text += ", measured" if known else ", assumed"
    if flip.flips_at is None:
        return f"{text}."
    return f"{text}, and holds up to {wording.value_of(SHARE, flip.flips_at)}."


def _stay(plan: Plan) -> list[str]:
    even = plan.break_even
    later = ["Record meanwhile: what repeats, and what it costs, is then known instead of assumed."]
    if plan.contradictions and any(each.followed not in (None, "money") for each in plan.contradictions):
        later.append(
            "`suffice learn TASK` on what is recorded says within minutes whether a small model can do the work; with a"
            " measured share the plan decides anew."
        )
    if even.tokens_per_day is not None:
        bill = f", a bill of {wording.usd(even.usd_per_month)} a month" if even.usd_per_month is not None else ""
        later.append(f"Ask again at about {wording.count(even.tokens_per_day)} tokens/day{bill}.")
    return ["Change nothing now. Shorter prompts, the provider's cache and batches save without a model.", *later]


def _wait(plan: Plan) -> list[str]:
    name = wording.NAMES[views.chosen(plan)]
    return [
        "Stay with the frontier, and record from now on: growth and prices are then measured.",
        f"Before month {plan.from_month}: `suffice learn TASK`; {_measure(plan)}",
        f"`suffice plan` every month: it moves the start of the {name} as the records say.",
    ]


def _flip(plan: Plan) -> Flip | None:
    return next((flip for flip in plan.sensitivity if flip.input == SHARE), None)
