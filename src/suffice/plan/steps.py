"""What to do next, by the verdict: in Suffice's commands, with the values at which to think again."""

from __future__ import annotations

from suffice.plan import rules, views, wording
from suffice.plan.result import Plan

SHARE = "small.escalated_share"
NO_TASK = "(no task)"

RECORD = (
    "Record: point the application's base URL at `suffice serve`, or `suffice import` a log. Nothing changes for users."
)


def steps(plan: Plan) -> list[str]:
    """Two to four steps, in order; those on records alone where there are some."""
    if plan.verdict == "frontier":
        return _stay(plan)
    if plan.verdict == "not_yet":
        return _wait(plan)
    first = [] if _recorded(plan) else [RECORD]
    if "hybrid" in plan.impossible:
        return [*first, *_alone(plan)]
    task = _task(plan)
    return [
        *first,
        f"`suffice learn {task}`: {_measure(plan)}",
        f"`suffice stage {task} shadow`, then canary, then live. Audits watch it, and a promise that no longer holds"
        " sends the task back to the frontier within a second.",
    ]


def _alone(plan: Plan) -> list[str]:
    """Nothing may be asked, or nothing in time."""
    task = _task(plan)
    learn = (
        f"`suffice learn {task}`: it says how often the small model is sure, and how wrong it is then. Decide what the"
        " application does with the rest: nobody is asked."
    )
    if any(rule.rule == "edge" for rule in plan.rules):
        return [learn, f"`suffice export {task} --to DIR`: a folder that runs on the device, with its threshold."]
    never = ' `egress = "never"` keeps them in.' if any(rule.rule == "residency" for rule in plan.rules) else ""
    return [
        f"{learn}{never}",
        f"`suffice stage {task} shadow`, then canary, then live. No frontier audits it: people's answers do, by"
        " `POST /v1/feedback`.",
    ]


def _measure(plan: Plan) -> str:
    """The share that the plan rests on, and up to where it holds."""
    flip = next((each for each in plan.sensitivity if each.input == SHARE), None)
    if flip is None:
        return "it fits the smallest model that suffices and proves on held-out answers what it may answer."
    known = any(each.input == SHARE and each.source in ("measured", "certificate") for each in plan.assumptions)
    took = wording.percent(flip.band.point)
    text = f"it proves on held-out answers how much must ask the frontier; the plan has {took}"
    text += ", measured" if known else ", assumed"
    most = [rules.SLOWEST] if "p99" in {rule.rule for rule in plan.rules} else []  # beyond it the hybrid is too slow
    most += [flip.flips_at] if flip.flips_at is not None else []
    return f"{text}, and holds up to {wording.value_of(SHARE, min(most))}." if most else f"{text}."


def _stay(plan: Plan) -> list[str]:
    even = plan.break_even
    found = ["Change nothing now. Shorter prompts, the provider's cache and batches save without a model."]
    if not _recorded(plan):
        found.append("Record meanwhile: what repeats, and what it costs, is then known instead of assumed.")
    if any(each.followed not in (None, "money") for each in plan.contradictions):
        found.append(
            f"`suffice learn {_task(plan)}` on what is recorded says whether a small model can do the work; with a"
            " measured share the plan decides anew."
        )
    if even.tokens_per_day is not None and even.tokens_per_day > plan.months["frontier"][0].tokens_per_day.point:
        bill = f", a bill of {wording.usd(even.usd_per_month)} a month" if even.usd_per_month is not None else ""
        found.append(f"Ask again at about {wording.count(even.tokens_per_day)} tokens/day{bill}.")
    else:
        found.append("Ask again when prices, or the work, have changed.")
    return found


def _wait(plan: Plan) -> list[str]:
    name = wording.NAMES[views.chosen(plan)]
    record = "keep recording" if _recorded(plan) else "record from now on: growth and prices are then measured"
    return [
        f"Stay with the frontier, and {record}.",
        f"Before month {plan.from_month}: `suffice learn {_task(plan)}`; {_measure(plan)}",
        f"`suffice plan` every month: it moves the start of the {name} as the records say.",
    ]


def _recorded(plan: Plan) -> bool:
    """Whether records are behind the plan."""
    return any(each.source == "measured" for each in plan.assumptions)


def _task(plan: Plan) -> str:
    """The dearest task that has no release yet."""
    return next((line.task for line in plan.tasks if line.release is None and line.task != NO_TASK), "TASK")
