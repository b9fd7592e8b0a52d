"""The page of a learning run: self-contained HTML, readable with no network and no script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from suffice.learn.pipeline import Outcome

POINTS = 400
"""Points of the curve that are drawn; more cannot be told apart."""

BLUE, RED, GREEN, GREY = "#2a6fb0", "#b03a2a", "#1d7a46", "#9aa4af"


def write_report(page: Path, outcome: Outcome) -> None:
    """Write the page of a run. Documents of older versions, which know less, give a shorter page."""
    document = outcome.document
    if document["certificate"] is not None:
        document = {**document, "certificate": _dated(document["certificate"])}
    text = (
        environment()
        .get_template("report.html")
        .render(
            run=document,
            curve=_curve(outcome),
            reliability=_reliability(document.get("reliability") or []),
            share=told,
            short=short,
            percent=percent,
        )
    )
    page.write_text(text, "utf-8")


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


def short(estimate: dict[str, Any] | None) -> str:
    """An estimate with its interval, for tables that have n in a column of its own."""
    if not estimate or estimate["value"] is None:
        return "-"
    value, low, high = (100 * estimate[key] for key in ("value", "low", "high"))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def percent(share: float | None) -> str:
    """A share without its interval: a limit, or the large figure above its interval."""
    return "-" if share is None else f"{100 * share:.3g}%"


def _dated(certificate: dict[str, Any]) -> dict[str, Any]:
    """A certificate with its moments as people read them; what does not apply is left out."""
    moments = {key: _moment(certificate[key]) for key in ("at",)}
    if window := certificate.get("window"):
        moments["window"] = " to ".join(_moment(at) for at in window)
    return {key: value for key, value in {**certificate, **moments}.items() if value is not None}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


# ---------------------------------------------------------------------------------------------- charts


def _curve(outcome: Outcome) -> str | None:
    """Coverage against the loss that the certificate limits, with the limit and what test showed."""
    if not outcome.curve:
        return None
    step = max(1, len(outcome.curve) // POINTS)
    curve = [{"coverage": c, "error": e} for c, e in (*outcome.curve[::step], outcome.curve[-1])]
    x = _axis("coverage", "coverage: share answered by the specialist", "%", domain=[0, 1])
    document = outcome.document
    certificate, signed = document["certificate"], document.get("kind") == "signed"
    graded = "mean loss of all requests" if document.get("kind") == "graded" else "accepted and wrong, of all requests"
    y = _axis("error", "errors beyond the frontier's own" if signed else graded, ".1%")
    layers = [_layer(curve, {"type": "line", "color": BLUE, "strokeWidth": 2}, x=x, y=y)]
    if certificate is not None:
        found = document["net_loss"] if signed else document["accepted_error"]
        limit = [{"error": certificate["max_error"]}]
        shown = [{"coverage": document["coverage"]["value"], **_ends(found, "error")}]
        layers += [
            _layer(limit, {"type": "rule", "color": RED, "strokeDash": [6, 4]}, y=y),
            _layer(shown, {"type": "rule", "color": GREEN}, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            _layer(shown, {"type": "point", "color": GREEN, "filled": True, "size": 110, "opacity": 1}, x=x, y=y),
        ]
    return _svg(layers)


def _reliability(bins: Sequence[dict[str, Any]]) -> str | None:
    """How sure answers were against how many of them were right."""
    if not bins:
        return None
    points = [{"score": each["score"], **_ends(each["right"], "right")} for each in bins]
    # Most scores of a good specialist are near 1: the picture starts where the scores do.
    least = min(min(point["score"], point["low"]) for point in points)
    domain = [max(0.0, round(least - 0.05, 1)), 1.0]
    x = _axis("score", "mean score", "%", domain)
    y = _axis("right", "share that was right", "%", domain)
    even = [{"score": at, "right": at} for at in domain]
    return _svg(
        [
            _layer(even, {"type": "line", "color": GREY, "strokeDash": [4, 4]}, x=x, y=y),
            _layer(points, {"type": "rule", "color": BLUE}, x=x, y={**y, "field": "low"}, y2={"field": "high"}),
            _layer(points, {"type": "point", "color": BLUE, "filled": True, "size": 70, "opacity": 1}, x=x, y=y),
        ]
    )


def _ends(estimate: dict[str, Any], name: str) -> dict[str, float]:
    return {name: estimate["value"], "low": estimate["low"], "high": estimate["high"]}


def _axis(field: str, title: str, form: str, domain: list[float] | None = None) -> dict[str, Any]:
    scale = {"domain": domain, "clamp": True} if domain else {}
    lines = {"gridColor": "#edf0f2", "domainColor": "#c5ccd3", "tickColor": "#c5ccd3"}
    axis: dict[str, Any] = {"format": form, "title": title, "tickCount": 6, "titlePadding": 10, **lines}
    return {"field": field, "type": "quantitative", "axis": axis, "scale": scale}


def _layer(data: list[dict[str, Any]], mark: dict[str, Any], **encoding: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"values": data}, "mark": mark, "encoding": encoding}


def _svg(layers: list[dict[str, Any]]) -> str:
    """Drawn here by Vega-Lite: no script is left in the page."""
    import vl_convert

    font = "system-ui, sans-serif"
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": 400,
        "height": 270,
        "layer": layers,
        "config": {"view": {"stroke": None}, "axis": {"labelFont": font, "titleFont": font, "titleFontWeight": 400}},
    }
    svg: str = vl_convert.vegalite_to_svg(spec)
    return svg
