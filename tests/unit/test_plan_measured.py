"""From traffic to a scenario, a priced log and a bill by task: sums that anyone can do by hand."""

from __future__ import annotations

import msgspec
import pytest

from suffice.core.config import Price
from suffice.plan import measured, paid, planner, reading, tasks
from suffice.plan.measured import Known
from suffice.plan.paid import Checked, Log, Use
from suffice.plan.prices import Prices, Unit
from suffice.plan.result import TaskLine
from suffice.plan.scenario import Band, Scenario, sure

DAYS = 28
PRICES = Prices(
    {
        "dear": Price(input_usd_per_mtok=10, output_usd_per_mtok=50, cached_usd_per_mtok=1),
        "cheap": Price(input_usd_per_mtok=1, output_usd_per_mtok=5),
    }
)
COVERED = Band(0.6, 0.7, 0.8, 500)


def use(task: str | None = "triage", model: str = "dear", **more: object) -> list[Use]:
    """100 requests a day of 900 tokens in and 100 out: at the dear model's price, 1.4 dollars a day."""
    known = {"paid": True, "imported": False, "told": True, "requests": 100, "prompt": 90_000, "completion": 10_000}
    return [Use(**{**known, "day": day, "task": task, "model": model, **more}) for day in range(DAYS)]  # type: ignore[arg-type]


def log(*uses: list[Use], audits: tuple[Checked, ...] = ()) -> Log:
    hours = tuple(10 if hour % 24 == 12 else 1 for hour in range(24 * DAYS))
    return Log(
        start=0.0, end=86_400.0 * DAYS, uses=tuple(each for some in uses for each in some), audits=audits, hours=hours
    )


def scenario(found: Log, known: dict[str, Known] | None = None, **stated: object) -> Scenario:
    data: dict[str, dict[str, object]] = {}
    for name, value in stated.items():
        table, _, key = name.partition("__")
        data.setdefault(table, {})[key] = value
    inputs = measured.measure(found, paid.price(found, PRICES), known or {})
    return measured.merged(inputs, reading.from_dict(data, "test"))[0]


# ---------------------------------------------------------------------------------------------- prices


def test_what_was_recorded_is_what_was_paid_and_the_rest_is_priced() -> None:
    found = log(use(usd=1.4), use(paid=False), use(model="unheard of"))
    priced = paid.price(found, PRICES)
    assert sum(usd or 0 for usd in priced.now) == pytest.approx(DAYS * 1.4)
    assert sum(usd or 0 for usd in priced.frontier) == pytest.approx(2 * DAYS * 1.4)
    assert priced.unpriced == {"unheard of": 100 * DAYS}


def test_a_bill_below_the_list_prices_sets_the_price() -> None:
    priced = paid.price(log(use(usd=0.7)), PRICES)
    assert priced.paid_to_list == pytest.approx(0.5)
    found = scenario(log(use(usd=0.7))).frontier
    assert found.input_usd_per_mtok == sure(5.0) and found.output_usd_per_mtok == sure(25.0)


def test_a_model_that_no_table_knows_costs_what_was_paid_for_it() -> None:
    found = scenario(log(use(model="house", usd=2.0))).frontier
    assert found.input_usd_per_mtok == found.output_usd_per_mtok == sure(20.0)


def test_a_price_that_the_scenario_states_is_for_models_without_one() -> None:
    priced = paid.price(log(use(model="unheard of")), PRICES, Unit(1.0, 2.0, 1.0, 1.0, "the scenario"))
    assert priced.unpriced == {} and priced.guessed == {"unheard of": 100 * DAYS}
    assert sum(usd or 0 for usd in priced.now) == pytest.approx(DAYS * (90_000 + 20_000) / 1e6)


def test_cached_input_is_priced_as_such() -> None:
    priced = paid.price(log(use(cached=90_000)), PRICES)
    assert sum(usd or 0 for usd in priced.now) == pytest.approx(DAYS * (0.09 + 0.5))


# ---------------------------------------------------------------------------------------------- inputs


def test_a_steady_log_is_measured_as_it_is() -> None:
    found = scenario(log(use()))
    each = found.volume.requests_per_day
    assert each is not None and each.low <= 100 <= each.high and each.n == DAYS
    assert found.volume.input_tokens_per_request == Band(900, 900, 900, 100 * DAYS)
    assert found.volume.peak_to_mean.point == pytest.approx(10 * 24 / 33)
    assert found.volume.growth_per_month.low < 0 < found.volume.growth_per_month.high
    assert found.frontier.model == "dear"


def test_a_mix_of_models_is_priced_by_use() -> None:
    found = scenario(log(use(), use(model="cheap")))
    assert found.frontier.model is None
    assert found.frontier.input_usd_per_mtok == sure(5.5) and found.frontier.output_usd_per_mtok == sure(27.5)


def test_estimated_tokens_are_uncertain_and_said_to_be_estimated() -> None:
    inputs = measured.measure(log(use(told=False)), paid.price(log(use(told=False)), PRICES), {})
    band = inputs.values["volume.input_tokens_per_request"]
    assert isinstance(band, Band) and (band.low, band.point, band.high) == (675, 900, 1125)
    assert "estimated" in inputs.sources["volume.input_tokens_per_request"][1]


def test_what_records_say_of_a_short_request_is_no_claim() -> None:
    found = log(use(prompt=1_000, completion=100))
    inputs = measured.measure(found, paid.price(found, PRICES), {})
    merged, sources = measured.merged(inputs, reading.from_dict({}, "test"))
    made = planner.plan(merged, measured=sources, prices=PRICES)
    assert made.usd_per_mtok["frontier"].point > 0 and not made.checks


def test_what_escalates_is_weighed_by_requests_and_tokens() -> None:
    known = {"triage": Known(covered=COVERED, evidence="certificate", release="triage@1")}
    found = scenario(log(use(), use(task=None, prompt=290_000)), known)
    escalated = found.small.escalated_share
    assert (escalated.low, escalated.point, escalated.high) == pytest.approx((0.6, 0.65, 0.7))
    # Half of the requests have three times the tokens, and all of those escalate.
    assert found.small.escalated_to_mean_tokens.point == pytest.approx((0.3 * 1 + 3) / 4 / 0.65)
    inputs = measured.measure(log(use()), paid.price(log(use()), PRICES), known)
    assert inputs.sources["small.escalated_share"][0] == "certificate"


def test_without_evidence_the_share_that_escalates_stays_assumed() -> None:
    inputs = measured.measure(log(use()), paid.price(log(use()), PRICES), {"triage": Known()})
    assert "small.escalated_share" not in inputs.values


@pytest.mark.parametrize(("verdict", "work"), [("small model", "narrow"), ("keep on the frontier", "wide")])
def test_the_shape_of_the_work_is_discoverys(verdict: str, work: str) -> None:
    assert scenario(log(use()), {"triage": Known(verdict=verdict, verifiable=True)}).needs.work == work


def test_a_log_of_minutes_is_said_to_be_short() -> None:
    short = Log(start=0.0, end=600.0, uses=tuple(use()[:1]), hours=(100,))
    inputs = measured.measure(short, paid.price(short, PRICES), {})
    assert "10 minutes" in inputs.notes[0]
    band = inputs.values["volume.requests_per_day"]
    assert isinstance(band, Band) and band.high > 3 * band.point


# ---------------------------------------------------------------------------------------------- beside a file


def test_what_the_file_states_wins_key_by_key() -> None:
    found = scenario(log(use()), volume__requests_per_day=5, frontier__usd_per_mtok=3)
    assert found.volume.requests_per_day == sure(5) and found.volume.input_tokens_per_request is not None
    assert found.frontier.usd_per_mtok == sure(3) and found.frontier.model is None
    inputs = measured.measure(log(use()), paid.price(log(use()), PRICES), {})
    _, sources = measured.merged(inputs, reading.from_dict({"volume": {"requests_per_day": 5}}, "test"))
    assert "volume.requests_per_day" not in sources and sources["volume.peak_to_mean"][0] == "measured"


@pytest.mark.parametrize(
    "stated",
    [
        {"volume__tokens_per_day": 5e6},
        {"volume__tokens_per_day": 5e6, "volume__requests_per_day": 100},
        {"volume__input_tokens_per_request": 5},
        {"frontier__model": "gpt-4o"},
        {"frontier__input_usd_per_mtok": 7},
        {"frontier__usd_per_month": 700},
        {"small__escalated_share": 0.9},
    ],
)
def test_records_beside_any_statement_can_be_planned(stated: dict[str, object]) -> None:
    known = {"triage": Known(covered=COVERED, evidence="certificate", release="triage@1")}
    found = reading.whole(scenario(log(use(), use(task=None, prompt=900_000)), known, **stated), "test")
    plan = planner.plan(found, prices=PRICES)
    if "volume__tokens_per_day" in stated:
        assert plan.months["frontier"][0].tokens_per_day.point == pytest.approx(5e6)


# ---------------------------------------------------------------------------------------------- by task


def lines(found: Log, known: dict[str, Known]) -> dict[str, TaskLine]:
    return {line.task: line for line in tasks.lines(found, paid.price(found, PRICES), known, 28.0)}


def test_a_task_costs_what_escalates_and_what_is_audited() -> None:
    known = {"triage": Known(covered=COVERED, release="triage@1", next_rung="big", next_covered=sure(0.9), audit=0.1)}
    line = lines(log(use(usd=1.4)), known)["triage"]
    month = 1.4 * DAYS
    assert line.usd_now.point == pytest.approx(month)
    assert line.usd_certified is not None and line.usd_next is not None and line.escalated_share is not None
    assert line.usd_certified.point == pytest.approx(month * (0.3 + 0.07))
    assert line.usd_certified.low == pytest.approx(month * (0.2 + 0.08))
    assert line.usd_next.point == pytest.approx(month * (0.1 + 0.09))
    assert (line.escalated_share.low, line.escalated_share.high) == pytest.approx((0.2, 0.4))


def test_lines_are_sorted_by_money_and_add_up_with_audits_and_what_has_no_task() -> None:
    audits = (Checked(day=0, task="triage", model="dear", audits=3, prompt=1, completion=1, usd=0.123),)
    found = log(use("small", "cheap"), use(usd=1.4), use(None), use("lost", "unheard of"), audits=audits)
    shown = tasks.lines(found, paid.price(found, PRICES), {}, 28.0)
    assert [line.task for line in shown] == ["triage", "small", "lost", tasks.NO_TASK]
    assert tasks.bill(shown) == pytest.approx(DAYS * (1.4 + 0.14 + 1.4) + 0.123, rel=1e-12)
    assert "2,800 requests have no known price" in shown[2].note
    assert "suffice learn triage" in shown[0].note


def test_before_a_release_there_is_no_certified_cost() -> None:
    line = lines(log(use()), {"triage": Known(covered=COVERED, evidence="tune")})["triage"]
    assert (line.usd_certified, line.usd_next, line.escalated_share) == (None, None, None)


def test_the_plan_of_a_log_starts_at_its_bill() -> None:
    found = log(use(usd=1.4))
    planned = scenario(found)
    plan = planner.plan(msgspec.structs.replace(planned, days_per_month=28.0), prices=PRICES)
    first = plan.months["frontier"][0].usd
    assert first.low <= 1.4 * 28 <= first.high
