"""The page of a plan: self-contained HTML that can be forwarded, readable with no network and no script.

Its parts (`parts`) are made apart from the page around them, for other pages to show.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from suffice.plan import charts, steps, views, wording
from suffice.plan.result import Plan, Verdict

WIDE, NARROW = 800, 290
"""Widths of the drawing in pixels: each chart is drawn twice, and the page shows the one that fits."""

HEADS: dict[Verdict, str] = {
    "hybrid": "Go hybrid",
    "self_hosted": "Go self-hosted",
    "frontier": "Don't",
    "not_yet": "Not yet",
}
"""The verdict in a word."""


def write_report(page: Path, plan: Plan, made: str = "", bill: str = "") -> None:
    """Write the page of a plan. `made`: when and from what, for the last line; `bill`: what records say was paid."""
    page.write_text(html(plan, made, bill), "utf-8")


def html(plan: Plan, made: str = "", bill: str = "") -> str:
    """The page of a plan."""
    return (
        environment()
        .get_template("plan.html")
        .render(**parts(plan), made=made, bill=bill.removeprefix("The bill: "), dark=charts.dark_css())
    )


def parts(plan: Plan) -> dict[str, Any]:
    """What the templates show: charts as SVG, tables as rows of texts."""
    return {
        "plan": plan,
        "head": HEADS[plan.verdict],
        "why": wording.sentence(plan.told.removeprefix(f"{HEADS[plan.verdict]}: ")),
        "steps": steps.steps(plan),
        "reasons": [*views.reasons(plan), *views.alone(plan)],
        "costs": views.costs(plan),
        "figures": views.figures(plan),
        "pays": views.saving(plan) > 0,
        "turns": views.turns(plan),
        "tasks": views.tasks(plan.tasks),
        "made_of": views.made_of(plan),
        "sources": views.by_source(plan.assumptions),
        "months": views.by_month(plan),
        "colours": charts.COLOURS,
        "period": wording.months(views.period(plan)),
        "chosen": wording.NAMES[views.chosen(plan)],
        "cumulative": [Markup(charts.cumulative(plan, WIDE - 40, 300)), Markup(charts.cumulative(plan, NARROW, 230))],
        "tornado": _tornado(plan),
    }


def _tornado(plan: Plan) -> list[Markup]:
    if not plan.sensitivity:
        return []
    return [Markup(charts.tornado(plan, WIDE - 270)), Markup(charts.tornado(plan, NARROW + 20, beside=False))]


def environment() -> jinja2.Environment:
    """Templates of this room; everything shown is escaped, for names come from anyone's traffic and files."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("suffice.plan", "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {
        "code": code, "sentence": wording.sentence, "called": wording.called, "value": views.value,
        "architecture": lambda name: wording.NAMES[name], "words": lambda name: name.replace("_", " "),
        "usd": wording.usd, "money": wording.money,
    }  # fmt: skip
    return made


def code(text: str) -> Markup:
    """What stands between back-quotes as code, all of it escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
