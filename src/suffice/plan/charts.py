"""A plan's charts as SVG, drawn here by Vega-Lite: no script and no network is left in what is shown.

Every colour is one of `PALETTE`, light; a page gives each its dark partner by CSS (`dark_css`), for an attribute like
fill="#2a6fb0" gives way to a rule. Chart-making is apart from the page, so that other pages may show the same charts.
"""

from __future__ import annotations

import re
from typing import Any

from suffice.plan import views, wording
from suffice.plan.result import Architecture, Flip, Plan

Spec = dict[str, Any]

FRONTIER, HYBRID, SELF_HOSTED = "#c2571a", "#2a6fb0", "#1d7a46"
INK, AXIS, GRID, LESS, MORE = "#3c444d", "#aeb6bf", "#e6e9ec", "#93a9c1", "#47698f"
PALETTE = {
    FRONTIER: "#f0965a",
    HYBRID: "#79b4f2",
    SELF_HOSTED: "#5fc48d",
    INK: "#c9d1d9",
    AXIS: "#6b7680",
    GRID: "#2d333b",
    LESS: "#55708d",
    MORE: "#a3c3e6",
}
"""Each colour, and what it is on a dark page."""

COLOURS: dict[Architecture, str] = {"frontier": FRONTIER, "hybrid": HYBRID, "self_hosted": SELF_HOSTED}
DASHES: dict[Architecture, list[int]] = {"frontier": [1, 0], "hybrid": [8, 3], "self_hosted": [2, 3]}
"""Told apart in black and white, too."""

BARS = 8
"""Inputs in the chart of what matters; what follows moves the saving too little to see."""

USD = "replace(replace(format(datum.value, '$~s'), 'G', 'B'), 'k', 'K')"
"""Dollars on an axis: $200K, $1.5M."""


def dark_css(scope: str = "svg") -> str:
    """Rules that give each colour of the charts its dark partner, for a page's own media query."""
    return "".join(
        f'{scope} [fill="{light}"]{{fill:{dark}}}{scope} [stroke="{light}"]{{stroke:{dark}}}'
        for light, dark in PALETTE.items()
    )


def cumulative(plan: Plan, width: int, height: int) -> str:
    """What is paid since the start, month by month, for each architecture, with its band; where it is paid back."""
    layers: list[Spec] = []
    months = views.period(plan)
    x = _axis("month", "month", tickCount=min(months, 12 if width > 500 else 6), format="d", grid=False)
    y = _axis("usd", "paid since the start", labelExpr=USD, tickCount=5)
    for name in views.ORDER:
        rows = _since_start(plan, name)
        faint = name in plan.impossible
        area = {"type": "area", "color": COLOURS[name], "opacity": 0.06 if faint else 0.14}
        line = {"type": "line", "color": COLOURS[name], "strokeDash": DASHES[name], "strokeWidth": 1 if faint else 2.5}
        layers.append(_layer(rows, area, x=x, y={**y, "field": "low"}, y2={"field": "high"}))
        layers.append(_layer(rows, line, x=x, y=y))
    if marked := _marked(plan):
        at, told = marked
        end = at > (0.6 if width > 500 else 0.45) * months
        told = told if width > 500 else told.removeprefix("the hybrid is ")
        text = {"type": "text", "align": "right" if end else "left", "dx": -6 if end else 6, "dy": 8, "baseline": "top"}
        row = [{"month": at, "told": told}]
        layers.append(_layer(row, {"type": "rule", "color": INK, "strokeDash": [4, 3]}, x=x))
        layers.append(_layer(row, {**text, "color": INK, "fontSize": 12}, x=x, y={"value": 0}, text={"field": "told"}))
    return _svg({"width": width, "height": height, "layer": layers})


def _since_start(plan: Plan, name: Architecture) -> list[dict[str, float]]:
    """What is built is paid before the first month."""
    once = plan.once_usd[name]
    rows: list[dict[str, float]] = [{"month": 0, "usd": once.point, "low": once.low, "high": once.high}]
    for month in plan.months[name]:
        total = month.cumulative_usd
        rows.append({"month": month.month, "usd": total.point, "low": total.low, "high": total.high})
    return rows


def _marked(plan: Plan) -> tuple[float, str] | None:
    """The month that matters, and its label."""
    if plan.verdict == "not_yet" and plan.from_month is not None:
        return plan.from_month - 1, f"from month {plan.from_month}: {wording.NAMES[views.chosen(plan)]}"
    paid = plan.break_even.month
    if "hybrid" in plan.impossible or paid is None or not 0 < paid.point <= views.period(plan):
        return None
    return paid.point, f"the hybrid is paid back after {wording.months(paid.point)}"


def tornado(plan: Plan, width: int, beside: bool = True) -> str:
    """For each input that matters, the saving at its low and at its high, from the saving that is planned; at 0 the
    verdict turns. `beside`: names beside the bars, else above them, for a narrow page."""
    flips = [flip for flip in plan.sensitivity if flip.band.low != flip.band.high][:BARS]
    base, rows = views.saving(plan), []
    for flip in flips:
        rows += [_end(flip, flip.band.low, flip.saving_usd_at_low, base, LESS)]
        rows += [_end(flip, flip.band.high, flip.saving_usd_at_high, base, MORE)]
    names = [wording.called(flip.input) for flip in flips]
    step = 26 if beside else 40
    names_axis = {"title": None, "labelLimit": 260, "domain": False, "ticks": False, "labelPadding": 8}
    y: Spec = {"field": "input", "type": "nominal", "sort": names, "axis": names_axis if beside else None}
    x = _axis("saving", _saved(plan), labelExpr=USD, tickCount=5 if beside else 4, titleAlign="center")
    x["scale"] = {"padding": 34 if beside else 4}
    bar: Spec = {"type": "bar", "size": 13, "yOffset": 0 if beside else 8}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    layers = [
        _layer(rows, bar, x=x, x2={"field": "base"}, y=y, color=colour),
        _layer([{"saving": 0}], {"type": "rule", "color": INK, "strokeWidth": 1.5}, x=x),
        _layer([{"saving": base}], {"type": "rule", "color": INK, "strokeDash": [2, 2]}, x=x),
    ]
    if not beside:
        name = {"type": "text", "align": "left", "dy": -9, "color": INK, "fontSize": 12}
        layers.append(_layer([{"input": each} for each in names], name, x={"value": 0}, y=y, text={"field": "input"}))
    else:
        layers += [_ends(rows, x, y, low=True), _ends(rows, x, y, low=False)]
    return _svg({"width": width, "height": {"step": step}, "layer": layers})


def _saved(plan: Plan) -> str:
    """What the axis shows."""
    period = wording.months(views.period(plan))
    chosen = views.chosen(plan)
    if chosen == "frontier":
        return f"saved in {period} by staying with the frontier, against a hybrid"
    return f"saved in {period} by going {wording.NAMES[chosen]}"


def _end(flip: Flip, value: float, saving: float, base: float, colour: str) -> Spec:
    said = wording.value_of(flip.input, value) if flip.band.low != flip.band.high else ""
    name = wording.called(flip.input)
    return {"input": name, "saving": saving, "base": base, "colour": colour, "said": said, "left": saving < base}


def _ends(rows: list[Spec], x: Spec, y: Spec, low: bool) -> Spec:
    """What the input is at the end of its bar."""
    shown = [row for row in rows if row["left"] == low and row["said"]]
    text = {"type": "text", "align": "right" if low else "left", "dx": -5 if low else 5, "color": INK, "fontSize": 11}
    return _layer(shown, text, x=x, y=y, text={"field": "said"})


# -------------------------------------------------------------------------------------------------- drawing


def _axis(field: str, title: str, **axis: Any) -> Spec:
    return {"field": field, "type": "quantitative", "axis": {"title": title, "titlePadding": 10, **axis}}


def _layer(data: list[Any], mark: Spec, **encoding: Spec) -> Spec:
    return {"data": {"values": data}, "mark": mark, "encoding": encoding}


def _svg(spec: Spec) -> str:
    """Drawn; without the names of namespaces, which HTML does not need."""
    import vl_convert

    font = "system-ui, sans-serif"
    axis = {
        "labelFont": font, "titleFont": font, "titleFontWeight": 400, "labelFontSize": 12, "titleFontSize": 12,
        "labelColor": INK, "titleColor": INK, "gridColor": GRID, "domainColor": AXIS, "tickColor": AXIS,
    }  # fmt: skip
    config = {"view": {"stroke": None}, "axis": axis, "text": {"font": font}, "background": None}
    schema = "https://vega.github.io/schema/vega-lite/v5.json"
    svg: str = vl_convert.vegalite_to_svg({"$schema": schema, "config": config, **spec})
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
