"""A plan in the terminal: the verdict first, then what it rests on. Fits 100 columns; no colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from suffice.plan import steps, views, wording
from suffice.plan.result import Assumption, Plan

WIDTH = 100
MOST = 3
"""Inputs that are shown: the ones that matter most. The page and `--json` have all."""


def told(plan: Plan) -> str:
    """The plan as text, lines of at most `WIDTH` columns."""
    parts = (
        _verdict(plan),
        _costs(plan),
        _list("Next", steps.steps(plan)),
        _paragraph("Break-even", plan.break_even.told if "hybrid" not in plan.impossible else ""),
        _paragraph("Volume", f"the table of volumes says: {plan.tier}"),
        _turns(plan),
        _list("Rules that hold", [_rule(plan, i) for i in range(len(plan.rules))]),
        _list("Contradictions", [each.told for each in plan.contradictions]),
        _list("Warnings", [f"{wording.sentence(each.mistake)}: {each.told}" for each in plan.warnings]),
        _checks(plan),
        _tasks(plan),
        _assumptions(plan),
    )
    return "\n\n".join("\n".join(lines) for lines in (list(part) for part in parts) if lines)


def _verdict(plan: Plan) -> Iterator[str]:
    yield from textwrap.wrap(_printable(plan.name), WIDTH)
    yield ""
    yield from _wrapped(plan.told, "  ")


def _costs(plan: Plan) -> Iterator[str]:
    rows = [["", "a month", "", wording.months(views.period(plan)), "", "to build", "per Mtok"]]
    for row in views.costs(plan):
        mark = "x " if row.impossible is not None else "> " if row.chosen else "  "
        cells = [row.month, row.month_range, row.total, row.total_range, row.once, row.per_mtok]
        rows.append([mark + row.name, *cells])
    yield from _table(rows)
    for reason in views.reasons(plan):
        yield from _wrapped(f"x {reason}", "", "  ")
    for reason in views.alone(plan):
        yield from _wrapped(reason, "  ")


def _turns(plan: Plan) -> Iterator[str]:
    turns = views.turns(plan)[:MOST]
    if turns:
        turn = "money would turn at" if "frontier" in plan.impossible else "turns at"
        saves = "staying saves, low to high" if views.chosen(plan) == "frontier" else "saves, low to high"
        rows = [["What matters most", "in the plan", saves, turn]]
        rows += [["  " + each.name, each.now, each.saving, each.turns_at] for each in turns]
        yield from _table(rows)


def _rule(plan: Plan, i: int) -> str:
    rule = plan.rules[i]
    binding = ", and binds" if rule.binding else ""
    return f"{rule.rule.replace('_', ' ')} asks for {wording.NAMES[rule.says]}{binding}: {rule.why}."


def _checks(plan: Plan) -> Iterator[str]:
    lines = [f"{'Holds' if check.holds else 'Does not add up'}: {check.told}" for check in plan.checks]
    yield from _list("Claims checked", lines)


def _tasks(plan: Plan) -> Iterator[str]:
    if not plan.tasks:
        return
    rows = [["Tasks, $ a month", "requests", "now", "frontier", "certified", "next rung"]]
    rows += [
        ["  " + _short(row.task, 26), row.requests, row.now, row.frontier, row.certified, row.next_rung]
        for row in views.tasks(plan.tasks)
    ]
    yield from _table(rows)


def _assumptions(plan: Plan) -> Iterator[str]:
    if plan.assumptions:
        yield "What it rests on"
    for source, found in views.by_source(plan.assumptions):
        said = [f"{wording.called(each.input)} {views.value(each)}" for each in found if not _unasked(each)]
        notes = dict.fromkeys(each.note for each in found if each.note and each.source in ("table", "measured"))
        yield from _wrapped(f"{source}: {'; '.join([*said, *notes])}", "  ", "    ")


# -------------------------------------------------------------------------------------------------- layout


def _unasked(each: Assumption) -> bool:
    """A need that nobody has."""
    return each.source == "assumed" and each.input in ("needs.runs_on", "needs.residency")


def _paragraph(head: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(_printable(text), WIDTH, initial_indent=f"{head}: ", subsequent_indent="  ")


def _list(head: str, items: Sequence[str]) -> Iterator[str]:
    if items:
        yield head
    for item in items:
        mark, text = ("    ", item[2:]) if item.startswith("  ") else ("  - ", item)
        yield from _wrapped(text, mark, "    ")


def _wrapped(text: str, first: str, others: str | None = None) -> list[str]:
    return textwrap.wrap(_printable(text), WIDTH, initial_indent=first, subsequent_indent=others or first)


def _table(rows: list[list[str]]) -> Iterator[str]:
    """Aligned columns; where they would be too wide, each row's cells below its first."""
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sum(widths) + 2 * (len(widths) - 1) <= WIDTH:
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        return
    head, *body = rows
    yield head[0].rstrip() or "Costs"
    for row in body:
        cells = "; ".join(f"{name} {cell}" for name, cell in zip(head[1:], row[1:], strict=True) if cell != "-")
        yield from textwrap.wrap(f"{row[0]}: {cells}", WIDTH, subsequent_indent="      ", drop_whitespace=True)


def _printable(text: str) -> str:
    """Names come from anyone's traffic: no control characters reach the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
