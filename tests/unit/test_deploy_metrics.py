"""The dashboard and the alert rules are what their readers read, and speak only of metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from suffice.serve.families import FAMILIES

ROOT = Path(__file__).parents[2]
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


def _dashboard() -> list[str]:
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def _rules() -> list[str]:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text("utf-8"))["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_only_what_there_is_is_asked_for() -> None:
    labels_of = {
        name + suffix: {*family.labels, *(("le",) if suffix else ())}
        for name, family in FAMILIES.items()
        for suffix in SUFFIXES.get(family.kind, ("",))
    }
    expressions = [*_dashboard(), *_rules()]
    assert len(expressions) > 20
    for expression in expressions:
        used = re.findall(r"suffice_\w+", expression)
        assert set(used) <= set(labels_of), expression
        labels = {
            name.strip() for inner in re.findall(r"by \(([^)]*)\)", expression) for name in inner.split(",")
        } | set(re.findall(r"[{,]\s*(\w+)(?:=|!=)", expression))
        known = set().union(*(labels_of[name] for name in used)) | {"job"}
        assert labels <= known, expression


def test_each_alert_says_what_is_wrong() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text("utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in rules)
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_the_panels_do_not_overlap() -> None:
    panels = json.loads((ROOT / "deploy" / "grafana.json").read_text("utf-8"))["panels"]
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}
    assert len(places) == len({p["id"] for p in panels}) == len(panels)


def test_every_metric_is_told() -> None:
    page = (ROOT / "docs" / "observability.md").read_text("utf-8")
    assert not [name for name in FAMILIES if f"`{name}`" not in page]
