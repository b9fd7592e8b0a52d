"""A plan as people see it: numbers, the terminal, the charts and the page."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from suffice.plan import cases, charts, report, steps, views, wording
from suffice.plan.inputs import UNITS
from suffice.plan.planner import plan
from suffice.plan.result import Plan, TaskLine
from suffice.plan.scenario import Band, Claim, Frontier, Needs, Scenario, Small, Volume, sure
from suffice.plan.told import WIDTH, told

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}`\x1b[2J"


@cache
def planned(name: str) -> Plan:
    """A case, or a plan of each other verdict."""
    if name in cases.names():
        return plan(cases.read(name))
    volume = {"don't": 50e3, "not yet": 4e6, "hostile": 100e6}[name]
    growth = Band(0.1, 0.25, 0.4) if name == "not yet" else sure(0.0)
    scenario = Scenario(
        name=HOSTILE if name == "hostile" else name,
        volume=Volume(tokens_per_day=sure(volume), growth_per_month=growth),
        frontier=Frontier(usd_per_mtok=sure(2.5)),
        needs=Needs(ml_team="none"),
        claims=(Claim(of="hybrid", usd_per_month=1.0, said=HOSTILE),) if name == "hostile" else (),
    )
    return plan(scenario, tasks=(task(HOSTILE), task("triage")) if name == "hostile" else ())


def task(name: str) -> TaskLine:
    return TaskLine(
        task=name, requests_per_month=3e4, tokens_per_month=3e7, usd_now=sure(90), usd_frontier=sure(120),
        usd_certified=Band(20, 25, 40), usd_next=None, release="triage@3", escalated_share=Band(0.1, 0.2, 0.3),
        next_rung=None, note=name,
    )  # fmt: skip


EVERY = (*cases.names(), "don't", "not yet", "hostile")


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "$0"), (2e-7, "under $0.0001"), (0.0004, "$0.0004"),
        (0.27, "$0.27"), (4.5, "$4.50"), (3, "$3"), (9.999, "$10"), (45, "$45"),
        (640, "$640"), (999.6, "$1K"), (4500, "$4.5K"), (35e3, "$35K"), (999_999, "$1M"), (2.5e6, "$2.5M"),
        (1e9, "$1B"), (-4500, "-$4.5K"),
    ],
)  # fmt: skip
def test_dollars_as_people_write_them(value: float, text: str) -> None:
    assert wording.usd(value) == text


def test_volumes_shares_and_bands_as_people_write_them() -> None:
    assert wording.count(3.3e6) == "3.3M"
    assert wording.percent(0.025) == "2.5%"
    assert wording.money(Band(3900, 4500, 5200)) == "$4.5K ($3.9K to $5.2K)"
    assert wording.band_of("small.escalated_share", Band(0.1, 0.25, 0.5)) == "25% (10% to 50%)"
    assert wording.band_of("work.labels", sure(1200)) == "1.2K"
    assert (wording.months(0.2), wording.months(2.1)) == ("1 month", "3 months")


def test_every_input_has_a_name() -> None:
    assert UNITS.keys() <= wording.INPUTS.keys()


# ------------------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize("name", EVERY)
def test_the_terminal_fits_and_says_the_verdict_first(name: str) -> None:
    lines = told(planned(name)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    first = " ".join(line.strip() for line in lines[2:4])
    assert re.match(r"(Go hybrid:|Go self-hosted:|Don't:|Not yet:) ", first)
    assert all(line.isprintable() for line in lines)


def test_the_terminal_has_what_a_plan_rests_on() -> None:
    text = told(planned("moderation"))
    for part in ("12 months", "to build", "Break-even:", "What matters most", "Rules that hold", "Contradictions",
                 "Warnings", "Claims checked", "said in the scenario", "assumed: nobody has said"):  # fmt: skip
        assert part in text
    assert "> hybrid" in text
    assert "x frontier only and hybrid cannot be" in told(planned("vehicle"))
    assert "genai-prices" in told(planned("sums"))
    assert "triage" in told(planned("hostile"))


def test_what_matters_most_are_three_inputs_with_the_value_that_turns() -> None:
    turns = views.turns(planned("rule-of-thumb"))
    assert turns[0].within
    block = told(planned("rule-of-thumb")).split("What matters most")[1].split("\n\n")[0]
    assert len(block.splitlines()) == 1 + 3


# ------------------------------------------------------------------------------------------------------ steps


@pytest.mark.parametrize(
    "name, command",
    [("triage", "suffice learn"), ("vehicle", "suffice export"), ("don't", "Change nothing"), ("not yet", "Before")],
)
def test_every_verdict_says_what_to_do(name: str, command: str) -> None:
    found = steps.steps(planned(name))
    assert 2 <= len(found) <= 4
    assert any(command in step for step in found)


def test_where_records_are_behind_it_the_steps_name_the_dearest_task() -> None:
    found = planned("triage")
    measured = tuple(msgspec.structs.replace(each, source="measured") for each in found.assumptions)
    lines = tuple(msgspec.structs.replace(task(name), release=None) for name in ("(no task)", "routing", "triage"))
    told_of = steps.steps(msgspec.structs.replace(found, assumptions=measured, tasks=lines))
    assert told_of[0].startswith("`suffice learn routing`")
    assert told_of[1].startswith("`suffice stage routing shadow`")


def test_a_volume_that_was_passed_long_ago_is_not_waited_for() -> None:
    scenario = Scenario(
        volume=Volume(tokens_per_day=sure(900e6)), frontier=Frontier(model="gpt-5.5"), needs=Needs(reasoning=True)
    )
    found = plan(scenario)
    assert found.verdict == "frontier" and found.break_even.tokens_per_day is not None
    assert not any("Ask again at" in step for step in steps.steps(found))
    assert not any("turns at" in each.told for each in found.warnings)


def test_why_not_the_small_model_alone_is_said_where_it_looks_cheaper() -> None:
    assert "self-hosted only is cheaper on paper" in " ".join(told(planned("triage")).split())
    assert "Self-hosted only is cheaper on paper" in report.html(planned("triage"))
    assert not views.alone(planned("vehicle")) and not views.alone(planned("don't"))


def test_a_share_beyond_which_the_hybrid_is_too_slow_is_not_said_to_hold() -> None:
    scenario = Scenario(
        volume=Volume(tokens_per_day=sure(90e6)), frontier=Frontier(model="gpt-5.5"), needs=Needs(p99_ms=100),
        small=Small(escalated_share=sure(0.005)),
    )  # fmt: skip
    found = plan(scenario)
    assert found.verdict == "hybrid" and any("holds up to 1%." in step for step in steps.steps(found))


def test_the_bill_is_on_the_page() -> None:
    text = report.html(planned("triage"), bill="The bill: $5 <b>now</b>.")
    assert "<h2>The bill</h2>" in text and "<p>$5 &lt;b&gt;now" in text


def test_the_step_that_measures_names_the_share_up_to_which_the_plan_holds() -> None:
    flip = next(each for each in planned("triage").sensitivity if each.input == "small.escalated_share")
    assert flip.flips_at is not None
    assert (
        f"the plan has 10%, assumed, and holds up to {wording.percent(flip.flips_at)}"
        in steps.steps(planned("triage"))[1]
    )


# ------------------------------------------------------------------------------------------------------ page


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(f"{tag}.{name}", value or "") for name, value in attrs]
        if tag not in ("meta", "br", "path", "line", "rect", "circle", "link", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "line", "rect", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style",):
            self.text += data


@cache
def page(name: str) -> tuple[str, Page]:
    text = report.html(planned(name), made="2026-11-22")
    return text, Page(text)


@pytest.mark.parametrize("name", EVERY)
def test_the_page_is_whole_and_asks_nothing_of_the_network(name: str) -> None:
    text, parsed = page(name)
    assert parsed.open == []
    assert "://" not in text
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    assert not [each for each in parsed.attributes if re.search(r"\.(on\w+|href|src|action)$", each[0])]
    assert "@import" not in text and "url(" not in text


@pytest.mark.parametrize("name", EVERY)
def test_the_page_has_its_parts_in_order(name: str) -> None:
    text, parsed = page(name)
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads[:3] == ["What to do", "What it costs", "What would change it"]
    assert heads[-1] == "What it rests on"
    assert text.index('class="verdict') < text.index("<h2>")
    assert parsed.tags.count("h1") == 1
    assert 'lang="en"' in text and 'name="viewport"' in text


@pytest.mark.parametrize("name", EVERY)
def test_the_page_can_be_read_aloud_printed_and_in_the_dark(name: str) -> None:
    text, _ = page(name)
    drawn = re.findall(r'<div class="(?:large|small)-screen" role="img" aria-label="([^"]+)">', text)
    assert len(drawn) == text.count("<figure>") * 2
    assert all(each.startswith("Chart: ") for each in drawn)
    heads = re.findall(r"<th[ >][^>]*", text)
    assert all('scope="' in each for each in heads)
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_hostile_names_are_shown_as_they_are() -> None:
    text, parsed = page("hostile")
    assert "<script" not in text.lower()
    assert parsed.text.count("<script>alert(1)</script>") >= 3  # the plan, a claim, a task
    assert "49" not in re.findall(r"<h1>(.*?)</h1>", text)[0]


def test_the_verdict_is_said_once() -> None:
    assert page("triage")[1].text.count("Go hybrid") == 1


def test_the_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    report.write_report(tmp_path / "plan.html", planned("triage"))
    assert (tmp_path / "plan.html").read_text("utf-8").startswith("<!doctype html>")


def test_the_parts_of_the_page_are_to_be_had_alone() -> None:
    parts = report.parts(planned("triage"))
    text = report.environment().get_template("plan_parts.html").render(**parts)
    assert "<html" not in text and "What it costs" in text


# ---------------------------------------------------------------------------------------------------- charts


@pytest.mark.parametrize("name", ["moderation", "vehicle", "not yet", "don't"])
def test_charts_use_no_colour_that_is_not_light_and_dark(name: str) -> None:
    found = planned(name)
    for svg in (
        charts.cumulative(found, 700, 300),
        charts.tornado(found, 500),
        charts.tornado(found, 300, beside=False),
    ):
        used = set(re.findall(r'(?:fill|stroke)="(#\w+|\w+)"', svg))
        assert used <= {*charts.PALETTE, "none", "transparent"}
        assert "xmlns" not in svg
    for light, dark in charts.PALETTE.items():
        assert f'[fill="{light}"]{{fill:{dark}}}' in charts.dark_css()


def test_the_chart_marks_the_month_that_matters() -> None:
    assert "the hybrid is paid back after 6 months" in charts.cumulative(planned("triage"), 700, 300)
    found = planned("not yet")
    assert f"from month {found.from_month}: hybrid" in charts.cumulative(found, 700, 300)
    assert "paid back" not in charts.cumulative(planned("vehicle"), 700, 300)


def test_a_plan_survives_json() -> None:
    found = planned("hostile")
    assert report.html(msgspec.json.decode(msgspec.json.encode(found), type=Plan)) == report.html(found)
