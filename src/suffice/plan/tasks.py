"""The bill task by task: now, as if the frontier answered all, with the certified release, with the next rung.

All are US dollars a month at the rate of the log. A specialist beside the gateway costs nothing a request; what it runs
on is the plan's to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from suffice.plan.measured import Known
from suffice.plan.paid import Log, Priced
from suffice.plan.result import TaskLine
from suffice.plan.scenario import DAYS_PER_MONTH, Band, sure

NO_TASK = "(no task)"
"""What belongs to none."""


@dataclass
class _Sums:
    """Of one task, over the whole log."""

    requests: int = 0
    tokens: int = 0
    now: float = 0.0
    frontier: float = 0.0
    unpriced: int = 0


def lines(
    log: Log, priced: Priced, known: Mapping[str, Known], days_per_month: float = DAYS_PER_MONTH
) -> tuple[TaskLine, ...]:
    """One line a task, dearest first, what belongs to none last. What they cost now adds up to the bill.

    Answers whose price nobody knows are not in it; the task's note counts them.
    """
    sums: defaultdict[str | None, _Sums] = defaultdict(_Sums)
    for use, now, frontier in zip(log.uses, priced.now, priced.frontier, strict=True):
        each = sums[use.task]
        each.requests += use.requests
        each.tokens += use.tokens
        each.now += now or 0.0
        each.frontier += frontier or 0.0
        each.unpriced += use.requests if frontier is None else 0
    for audit, usd in zip(log.audits, priced.audits, strict=True):
        sums[audit.task].now += usd or 0.0
    times = days_per_month / log.days
    order = sorted(sums, key=lambda task: (task is None, -sums[task].now, -sums[task].frontier, task or ""))
    return tuple(_line(task, sums[task], known.get(task) if task is not None else None, times) for task in order)


def bill(shown: tuple[TaskLine, ...]) -> float:
    """US dollars a month now: the sum of the lines, to the last digit."""
    return sum(line.usd_now.point for line in shown)


def _line(task: str | None, sums: _Sums, known: Known | None, times: float) -> TaskLine:
    frontier = times * sums.frontier
    released = known is not None and known.release is not None and known.covered is not None
    certified = _with(frontier, known.covered, known.audit) if known is not None and released else None
    after = known.next_covered if known is not None else None
    return TaskLine(
        task=task or NO_TASK,
        requests_per_month=times * sums.requests,
        tokens_per_month=times * sums.tokens,
        usd_now=sure(times * sums.now),
        usd_frontier=sure(frontier),
        usd_certified=certified,
        usd_next=_with(frontier, after, known.audit) if known is not None and after is not None else None,
        release=known.release if known is not None else None,
        escalated_share=_rest(known.covered) if known is not None and released else None,
        next_rung=known.next_rung if known is not None else None,
        note=_note(task, sums, known),
    )


def _with(frontier: float, covered: Band | None, audit: float) -> Band | None:
    """What is left to pay where so much is covered, and so much of that is asked again as an audit."""
    if covered is None:
        return None
    low, point, high = (frontier * (1 - share + share * audit) for share in (covered.high, covered.point, covered.low))
    return Band(low, point, high, covered.n)


def _rest(covered: Band | None) -> Band | None:
    return Band(1 - covered.high, 1 - covered.point, 1 - covered.low, covered.n) if covered is not None else None


def _note(task: str | None, sums: _Sums, known: Known | None) -> str:
    said = [known.note] if known is not None and known.note else []
    if task is None:
        said.append("`suffice discover` finds tasks in it")
    elif known is None:
        said.append(f"nothing is known of it yet: `suffice learn {task}`")
    if sums.unpriced:
        said.append(f"{sums.unpriced:,} requests have no known price and are not in it")
    return "; ".join(said)
