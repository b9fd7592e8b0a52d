"""The page of a learning run: self-contained HTML, readable with no network and no script."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from suffice.learn.pipeline import Outcome

POINTS = 400
"""Points of the curve that are drawn; more cannot be told apart."""


def write_report(page: Path, outcome: Outcome) -> None:
    """Write the page of a run."""
    document = outcome.document
    if document["certificate"] is not None:
        made = datetime.fromtimestamp(document["certificate"]["at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
        document = {**document, "certificate": {**document["certificate"], "at": made}}
    template = environment().get_template("report.html")
    page.write_text(template.render(run=document, chart=_chart(outcome), share=told), "utf-8")


def environment() -> jinja2.Environment:
    """Templates of this room; everything shown is escaped, for it may come from anyone's traffic."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("suffice.learn", "templates"), autoescape=True, trim_blocks=True
    )


def told(estimate: dict[str, Any] | None) -> str:
    """An estimate with its interval and n."""
    if not estimate or estimate["value"] is None:
        return "not measured"
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f}% ({low:.1f} to {high:.1f}%, n = {estimate['n']:,})"


def _chart(outcome: Outcome) -> str | None:
    """Coverage against error as SVG, drawn here by Vega-Lite."""
    if not outcome.curve:
        return None
    import vl_convert

    step = max(1, len(outcome.curve) // POINTS)
    curve = [{"coverage": c, "error": e} for c, e in (*outcome.curve[::step], outcome.curve[-1])]
    coverage = {
        "field": "coverage",
        "type": "quantitative",
        "axis": {"format": "%", "title": "coverage: share answered by the specialist"},
        "scale": {"domain": [0, 1]},
    }
    error = {
        "field": "error",
        "type": "quantitative",
        "axis": {"format": ".1%", "title": "accepted and wrong, share of all requests"},
    }
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": curve},
            "mark": {"type": "line", "color": "#2a6fb0", "strokeWidth": 2},
            "encoding": {"x": coverage, "y": error},
        }
    ]
    certificate = outcome.document["certificate"]
    if certificate is not None:
        limit = [{"error": certificate["max_error"]}]
        point = [
            {"coverage": outcome.document["coverage"]["value"], "error": outcome.document["accepted_error"]["value"]}
        ]
        layers += [
            {
                "data": {"values": limit},
                "mark": {"type": "rule", "color": "#b03a2a", "strokeDash": [6, 4]},
                "encoding": {"y": error},
            },
            {
                "data": {"values": point},
                "mark": {"type": "point", "color": "#1d7a46", "filled": True, "size": 120},
                "encoding": {"x": coverage, "y": error},
            },
        ]
    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v5.json", "width": 620, "height": 300, "layer": layers}
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg
