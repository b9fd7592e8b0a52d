"""A plan's tables as texts, shared by the terminal and the page: what stands in each row, not how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from suffice.plan import wording
from suffice.plan.result import Architecture, Assumption, Check, Flip, Plan, TaskLine
from suffice.plan.scenario import Band, Source

ORDER: tuple[Architecture, ...] = ("frontier", "hybrid", "self_hosted")

SOURCES: dict[Source, str] = {
    "measured": "measured, from records",
    "certificate": "from a certificate",
    "scenario": "said in the scenario",
    "table": "from the table of prices",
    "derived": "follows from the others",
    "assumed": "assumed: nobody has said or measured it",
}
"""Where inputs came from, the best known first."""


@dataclass(frozen=True)
class CostRow:
    """One architecture: US dollars a month now, in all months, once, per million tokens, each range as "$1K to $2K" or
    empty; why not, where it cannot be."""

    architecture: Architecture
    name: str
    chosen: bool
    month: str
    month_range: str
    total: str
    total_range: str
    once: str
    once_range: str
    per_mtok: str
    impossible: str | None


@dataclass(frozen=True)
class Turn:
    """One input that matters: its value, the saving at its low and its high, where the verdict turns and to what, and
    whether that lies between its own low and high."""

    name: str
    now: str
    saving: str
    turns_at: str
    turns_to: str
    within: bool


@dataclass(frozen=True)
class TaskRow:
    """One task, in US dollars a month."""

    task: str
    requests: str
    now: str
    frontier: str
    certified: str
    next_rung: str
    note: str


def chosen(plan: Plan) -> Architecture:
    """The architecture that the plan speaks for: of "not yet", the later one."""
    if plan.verdict == "not_yet":
        return plan.then or "hybrid"
    return plan.verdict


def period(plan: Plan) -> int:
    """How many months were planned."""
    return len(plan.months["frontier"])


def costs(plan: Plan) -> list[CostRow]:
    """The three architectures."""
    now: Architecture = "frontier" if plan.verdict == "not_yet" else chosen(plan)
    return [
        CostRow(
            architecture=name,
            name=wording.NAMES[name],
            chosen=name == now,
            month=wording.usd(plan.monthly_usd[name].point),
            month_range=_range(plan.monthly_usd[name]),
            total=wording.usd(plan.year_usd[name].point),
            total_range=_range(plan.year_usd[name]),
            once=wording.usd(plan.once_usd[name].point) if plan.once_usd[name].high else "-",
            once_range=_range(plan.once_usd[name]),
            per_mtok=wording.usd(plan.usd_per_mtok[name].point),
            impossible=plan.impossible.get(name),
        )
        for name in ORDER
    ]


def _range(band: Band) -> str:
    low, high = wording.usd(band.low), wording.usd(band.high)
    return "" if low == high else f"{low} to {high}"


@dataclass(frozen=True)
class Figure:
    """One large figure: what it is, the figure, and what it lies between or goes with."""

    name: str
    value: str
    note: str


def reasons(plan: Plan) -> list[str]:
    """Why architectures cannot be, those with the same reason together."""
    found = []
    for why in dict.fromkeys(plan.impossible.values()):
        names = " and ".join(wording.NAMES[name] for name in ORDER if plan.impossible.get(name) == why)
        found.append(f"{names} cannot be: {why}.")
    return found


def alone(plan: Plan) -> list[str]:
    """Why the plan is the hybrid, where the small model alone looks cheaper: anybody asks."""
    if chosen(plan) != "hybrid" or plan.year_usd["self_hosted"].point >= plan.year_usd["hybrid"].point:
        return []
    return ["self-hosted only is cheaper on paper: it answers what the small model is unsure of, too, right or wrong."]


def figures(plan: Plan) -> list[Figure]:
    """The figures that decide, for the top of a page."""
    found, mine = [], chosen(plan)
    for name in dict.fromkeys(("frontier", "hybrid" if mine == "frontier" else mine)):
        band, why = plan.monthly_usd[name], plan.impossible.get(name)
        note = "cannot be" if why is not None else _range(band)
        found.append(Figure(f"{wording.NAMES[name]}, a month", wording.usd(band.point), note))
    small: Architecture = "hybrid" if mine == "frontier" else mine
    if "frontier" not in plan.impossible:
        saved = plan.year_usd["frontier"].point - plan.year_usd[small].point
        word = "saved" if saved >= 0 else "lost"
        note = f"{wording.NAMES[small]} from now on, building included"
        found.append(Figure(f"{word} in {wording.months(period(plan))}", wording.usd(abs(saved)), note))
    found.append(_pays(plan, small))
    return found


def _pays(plan: Plan, small: Architecture) -> Figure:
    """When it pays, or from which volume on."""
    even = plan.break_even
    if plan.verdict == "not_yet":
        volume = plan.months["frontier"][(plan.from_month or 1) - 1].tokens_per_day
        return Figure("worth it from", f"month {plan.from_month}", f"at {wording.count(volume.point)} tokens/day")
    if plan.verdict == "frontier" and even.tokens_per_day is not None:
        return Figure("it would pay from", f"{wording.count(even.tokens_per_day)}", "tokens/day on")
    if small == "hybrid" and even.month is not None:
        soon, late = wording.months(even.month.point), wording.months(even.month.high)
        return Figure("paid back after", soon, f"at most {late}" if late != soon else "")
    once = plan.once_usd[small]
    return Figure("to build it", wording.usd(once.point), _range(once))


@dataclass(frozen=True)
class Parts:
    """What the first month of one architecture is made of: US dollars by part, in the order of `heads`."""

    name: str
    cells: list[str]


def made_of(plan: Plan) -> tuple[list[str], list[Parts]]:
    """The first month, part by part, building included; parts that nobody pays are left out."""
    first = {name: plan.months[name][0].parts for name in ORDER}
    heads = list(dict.fromkeys(part for parts in first.values() for part in parts))
    heads = [part for part in heads if any(part in each and each[part].high > 0 for each in first.values())]
    rows = [
        Parts(wording.NAMES[name], [wording.usd(parts[head].point) if head in parts else "-" for head in heads])
        for name, parts in first.items()
    ]
    return heads, rows


def by_month(plan: Plan) -> list[tuple[str, str, list[str]]]:
    """Each month: its number, its tokens a day, and what is paid since the start, for the three architectures."""
    months = zip(*(plan.months[name] for name in ORDER), strict=True)
    return [
        (f"{row[0].month}", wording.count(row[0].tokens_per_day.point), [wording.money(m.cumulative_usd) for m in row])
        for row in months
    ]


def turns(plan: Plan) -> list[Turn]:
    """The inputs that the saving depends on: first those whose own band holds the turn, then the widest."""
    flips = sorted(plan.sensitivity, key=lambda flip: (not _within(flip), -_span(flip)))
    pays = saving(plan) > 0
    return [
        Turn(
            name=wording.called(flip.input),
            now=wording.band_of(flip.input, flip.band),
            saving=_saving(flip),
            turns_at=_turns_at(flip),
            turns_to=_turns_to(plan, flip, pays),
            within=_within(flip),
        )
        for flip in flips
    ]


def saving(plan: Plan) -> float:
    """What the chosen architecture saves over all months, building included, at the points, in US dollars: against the
    frontier; of the frontier, against a hybrid. Below 0 for one that does not pay yet."""
    mine = chosen(plan)
    other: Architecture = "hybrid" if mine == "frontier" else "frontier"
    return plan.year_usd[other].point - plan.year_usd[mine].point


def _turns_to(plan: Plan, flip: Flip, pays: bool) -> str:
    """Where the chosen one does not pay yet, it is what the turn leads to."""
    if flip.flips_to is None or flip.flips_to in plan.impossible:
        return ""
    return wording.NAMES[flip.flips_to if pays else chosen(plan)]


def _saving(flip: Flip) -> str:
    low, high = wording.usd(flip.saving_usd_at_low), wording.usd(flip.saving_usd_at_high)
    return low if low == high else f"{low} to {high}"


def _turns_at(flip: Flip) -> str:
    if flip.flips_at is None:
        return "nowhere"
    return wording.value_of(flip.input, flip.flips_at)


def _within(flip: Flip) -> bool:
    return flip.flips_at is not None and flip.band.low <= flip.flips_at <= flip.band.high


def _span(flip: Flip) -> float:
    return abs(flip.saving_usd_at_high - flip.saving_usd_at_low)


def tasks(lines: Sequence[TaskLine]) -> list[TaskRow]:
    """The tasks as they come: by money."""
    return [
        TaskRow(
            task=f"{line.task} ({line.release})" if line.release else line.task,
            requests=wording.count(line.requests_per_month),
            now=wording.money(line.usd_now),
            frontier=wording.money(line.usd_frontier),
            certified=_or_dash(line.usd_certified),
            next_rung=_or_dash(line.usd_next) + (f" ({line.next_rung})" if line.next_rung else ""),
            note=line.note,
        )
        for line in lines
    ]


def _or_dash(band: Band | None) -> str:
    return wording.money(band) if band is not None else "-"


def by_source(assumptions: Sequence[Assumption]) -> list[tuple[str, list[Assumption]]]:
    """The inputs by where they came from, the best known first."""
    groups = ((told, [each for each in assumptions if each.source == source]) for source, told in SOURCES.items())
    return [(told, found) for told, found in groups if found]


def value(assumption: Assumption) -> str:
    """What an input was set to."""
    if assumption.band is None:
        return (assumption.value or "-").removesuffix(".0")
    return wording.band_of(assumption.input, assumption.band)


def true_if(check: Check) -> list[str]:
    """For each input the value that would make a claim true: "share that asks the frontier: 0.8%"."""
    return [f"{wording.called(key)}: {wording.value_of(key, at)}" for key, at in check.would_make_it_true.items()]
