"""Scenarios: read from TOML, changed by --what-if, written to start from; each mistake in one sentence."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.core.config import Price
from suffice.core.errors import InputError
from suffice.plan import cases, reading
from suffice.plan.planner import plan
from suffice.plan.prices import Prices, table_date, table_version
from suffice.plan.scenario import Band, Scenario, Volume, sure

FRONTIER = '[frontier]\nmodel = "gpt-5.5"\n'


def read(text: str) -> Scenario:
    return reading.from_dict(tomllib.loads(text), "s.toml")


def unstated(scenario: Scenario) -> Scenario:
    return msgspec.structs.replace(scenario, stated=frozenset())


def test_numbers_ranges_and_numbers_as_people_write_them() -> None:
    told = read(
        'name = "x"\n[volume]\ntokens_per_day = "50M"\noutput_share = "25%"\nrequests_per_day = [10e3, "20k", 40000]\n'
        "peak_to_mean = [2, 8]\ngrowth_per_month = {low = 0, high = 0.1}\n"
        '[small]\nescalated_share = {low = 0.1, point = 0.2, high = 0.3, n = 400}\n[work]\nusd_per_label = "$0.20"\n'
    )
    assert told.volume.tokens_per_day == sure(50e6)
    assert told.volume.output_share == sure(0.25)
    assert told.volume.requests_per_day == Band(10e3, 20e3, 40e3)
    assert told.volume.peak_to_mean.point == pytest.approx(4)  # amounts are uncertain by factors
    assert told.volume.growth_per_month == Band(0.0, 0.05, 0.1)
    assert told.small.escalated_share == Band(0.1, 0.2, 0.3, 400)
    assert told.work.usd_per_label == sure(0.2)
    assert "volume.tokens_per_day" in told.stated
    assert "volume.input_tokens_per_request" not in told.stated


def test_a_share_may_be_told_as_counted() -> None:
    share = read("[small]\nescalated_share = {point = 0.2, n = 500}\n").small.escalated_share
    assert (share.point, share.n) == (0.2, 500)
    assert (share.low, share.high) == pytest.approx((0.172, 0.231), abs=1e-3)


def test_other_units_are_turned() -> None:
    told = read(
        "days_per_month = 30\n[volume]\ntokens_per_month = [90e6, 120e6]\nrequests_per_month = 3000\n"
        "growth_per_year = 1.0\n[frontier]\nusd_per_1k_tokens = 0.045\n"
    )
    assert told.volume.tokens_per_day is not None
    assert told.frontier.usd_per_mtok is not None
    assert (told.volume.tokens_per_day.low, told.volume.tokens_per_day.high) == (3e6, 4e6)
    assert told.volume.requests_per_day == sure(100)
    assert (1 + told.volume.growth_per_month.point) ** 12 == pytest.approx(2)
    assert told.frontier.usd_per_mtok.point == pytest.approx(45)


def test_the_hardwares_kind_follows_from_what_is_told_of_it() -> None:
    for keys, kind in (
        ("tokens_per_s = 900\nusd_per_hour = 1", "rented"),
        ("purchase_usd = 9000\ntokens_per_s = 900", "owned"),
        ("usd_per_mtok = 0.1", "serverless"),
        ("operations_usd_per_month = 100", "cpu"),
    ):
        assert read(f"[hardware]\n{keys}\n").hardware.kind == kind


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[volum]\n", "s.toml: unknown key `volum`; did you mean `volume`?"),
        (
            "[volume]\ntokens_a_day = 1\n",
            "s.toml: [volume]: unknown key `tokens_a_day`; did you mean `tokens_per_day`?",
        ),
        ("volume = 3\n", "s.toml: `volume` must be a table, [volume]"),
        ("[volume]\ntokens_per_day = -5\n", "s.toml: [volume]: `tokens_per_day`"),
        ("[volume]\nrequests_per_day = nan\n", "`requests_per_day` must be a number, not nan"),
        ("[volume]\nrequests_per_day = inf\n", "`requests_per_day` must be a number, not inf"),
        ('[volume]\nrequests_per_day = "many"\n', "`requests_per_day`: 'many' is no number (50e6, 50M and 25% are)"),
        ("[volume]\nrequests_per_day = true\n", "`requests_per_day` must be a number, not True"),
        ("[volume]\nrequests_per_day = [3, 2]\n", "low, point and high must rise, not 3"),
        ("[volume]\nrequests_per_day = [1, 5, 3]\n", "low, point and high must rise, not 1, 5, 3"),
        ("[volume]\nrequests_per_day = []\n", "a range is [low, high] or [low, point, high]"),
        ("[volume]\nrequests_per_day = {low = 3}\n", "a range has `low` and `high`"),
        ("[volume]\nrequests_per_day = {low = 3, hihg = 4}\n", "did you mean `high`?"),
        ("[volume]\ntokens_per_day = 1\ntokens_per_month = 30\n", "say the same in two units: leave one out"),
        ("[volume]\ngrowth_per_year = 1\ngrowth_per_month = 0.1\n", "say the same in two units"),
        ("[volume]\ntokens_per_day = 1e6\ngrowth_per_month = 9\n", "makes 1e+17 tokens a day in month 12"),
        ("[small]\nescalated_share = 25\n", "`escalated_share` is a share from 0 to 1, not 25; 25% is 0.25"),
        ("[small]\nescalated_share = 1.1\n", "is a share from 0 to 1, not 1.1"),
        ("[small]\nescalated_share = 0.5\nescalated_to_mean_tokens = 3\n", "is more than 100% of all tokens"),
        ("[frontier]\nprice_change_per_year = -1.5\n", "lies between -0.999 and 100, and is -1.5"),
        ('[needs]\nresidency = "eu"\n', "`residency` is one of 'none', 'region', 'no_egress', not 'eu'"),
        ('[needs]\nruns_on = "egde"\n', "did you mean 'edge'?"),
        ('[volume]\nrequests_per_day = "50%"\n', "`requests_per_day` is an amount, and '50%' a share"),
        ('[volume]\ntokens_per_month = ["5%", 3]\n', "`tokens_per_month` is an amount, and '5%' a share"),
        ("[frontier]\nescalated_share = 0.3\n", "[frontier]: `escalated_share` belongs to [small]"),
        ('[needs]\ncompliance = "maybe"\n', "`compliance` is true or false, not 'maybe'"),
        ("[hardware]\nleast_replicas = 1.5\n", "must be a whole number, not 1.5"),
        ("months = 0\n", "`months` lies between 1 and 120, and is 0"),
        ("months = 2.5\n", "`months` must be a whole number"),
        ("[[claims]]\nusd_per_month = 1\n", "[[claims]] 1: `of` is missing"),
        ('[[claims]]\nof = "hybrid"\n', "[[claims]] 1 claims nothing"),
        ('[[claims]]\nof = "hybrd"\nusd_per_month = 1\n', "did you mean 'hybrid'?"),
        ("claims = 3\n", "`claims` must be tables, [[claims]]"),
        ("name = 3\n", "`name` must be a text, not 3"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_its_place(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        read(text)
    assert says in str(error.value)
    assert str(error.value).startswith("s.toml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "[volume]: `tokens_per_day` is missing"),
        (
            "[volume]\nrequests_per_day = 10\n",
            "[volume]: `input_tokens_per_request` and `output_tokens_per_request` are",
        ),
        ("[volume]\nrequests_per_day = 10\ninput_tokens_per_request = 5\n", "`output_tokens_per_request` is missing"),
        ("[volume]\ninput_tokens_per_request = 5\noutput_tokens_per_request = 5\n", "`requests_per_day` is missing"),
        (
            "[volume]\nrequests_per_day = 10\ninput_tokens_per_request = 90\noutput_tokens_per_request = 10\n"
            "tokens_per_day = 2000\n",
            "`tokens_per_day` says 2,000, but requests a day times tokens a request is 1,000: leave one out",
        ),
        ("[volume]\ntokens_per_day = 1e6\n[frontier]\n", "[frontier] says no price: name its `model`"),
        ('[volume]\ntokens_per_day = 1e6\n[frontier]\nmodel = "gpt-55"\n', "did you mean gpt-5"),
        ("[volume]\ntokens_per_day = 1e6\n[frontier]\ninput_usd_per_mtok = 1\n", "`output_usd_per_mtok` is missing"),
        (
            "[volume]\ntokens_per_day = 1e6\n[frontier]\nusd_per_mtok = 1\nusd_per_month = 100\n",
            "`usd_per_mtok` and `usd_per_month` both say what it costs: leave one out",
        ),
        ("[hardware]\ntokens_per_s = 900\n", "[hardware]: `usd_per_hour` is missing: what one costs an hour"),
        ('[hardware]\nkind = "rented"\nusd_per_hour = 1\n', "`tokens_per_s` is missing: how many tokens a second"),
        ('[hardware]\nkind = "owned"\ntokens_per_s = 9\n', "`purchase_usd` is missing"),
        ('[hardware]\nkind = "rented"\nusd_per_mtok = 1\n', "`usd_per_mtok` is for kind serverless"),
        ("[hardware]\ntokens_per_s = 9\nusd_per_hour = 1\nusd_per_month = 1\n", "both say what one costs"),
        ("[hardware]\ntokens_per_s = 9\nrequests_per_s = 1\nusd_per_hour = 1\n", "both say what one can do"),
    ],
)
def test_what_is_missing_is_asked_for_in_words(text: str, says: str) -> None:
    whole = text if "[volume]" in text or not text else f"[volume]\ntokens_per_day = 1e6\n{text}"
    whole = whole if "[frontier]" in whole else whole + FRONTIER
    with pytest.raises(InputError) as error:
        plan(read(whole))
    assert says in str(error.value)


def test_a_file_that_is_not_there_or_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.toml: cannot be read"):
        reading.read(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"[volume\n")
    with pytest.raises(InputError, match=r"bad.toml: not TOML"):
        reading.read(bad)


@settings(max_examples=150, deadline=None)
@given(
    table=st.sampled_from(["volume", "frontier", "small", "hardware", "work", "needs", "claims", "months", "x"]),
    key=st.sampled_from(
        ["tokens_per_day", "model", "escalated_share", "kind", "labels", "p99_ms", "of", "usd_per_month"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda each: st.lists(each, max_size=4) | st.dictionaries(st.sampled_from(["low", "high", "n", "x"]), each),
        max_leaves=5,
    ),
)
def test_nothing_but_an_input_error_comes_of_any_input(table: str, key: str, value: object) -> None:
    for data in ({table: {key: value}}, {table: value}, {"claims": [{"of": "hybrid", key: value}]}):
        try:
            found = reading.from_dict(data, "s.toml")
        except InputError as error:
            assert str(error).startswith("s.toml")
        else:
            assert isinstance(found, Scenario)


# ---------------------------------------------------------------------------------------------- to start from


def test_the_file_to_start_from_is_planned_as_it_stands_and_reads_back() -> None:
    text = reading.template()
    told = read(text)
    assert reading.template(told) == text
    assert plan(told).verdict in ("frontier", "hybrid", "self_hosted", "not_yet")


@pytest.mark.parametrize("name", cases.names())
def test_any_scenario_reads_back_unchanged(name: str) -> None:
    told = cases.read(name)
    assert unstated(read(reading.template(told))) == unstated(told)


# ---------------------------------------------------------------------------------------------- what if

START = read(reading.template())


def test_another_volume_keeps_the_tokens_of_a_request() -> None:
    more = plan(reading.override(START, "tokens_per_day=9e6"))
    assert more.months["frontier"][0].tokens_per_day.point == 9e6
    assert more.monthly_usd["frontier"].point == pytest.approx(10 * plan(START).monthly_usd["frontier"].point)
    moderation = reading.override(cases.read("moderation"), "requests_per_day=100M")
    assert moderation.volume.tokens_per_day == sure(5e8)


def test_values_of_any_kind_are_changed_and_one_price_replaces_another() -> None:
    told = reading.override(START, "p99_ms=150", "residency=no_egress", "small.escalated_share=[0, 0.1]", "months=6")
    assert (told.needs.p99_ms, told.needs.residency, told.months) == (150, "no_egress", 6)
    assert told.small.escalated_share == Band(0.0, 0.05, 0.1)
    assert plan(reading.override(START, "frontier.usd_per_month=4500")).monthly_usd["frontier"].point == pytest.approx(
        4500
    )
    assert plan(reading.override(cases.read("triage"), "model=gpt-5.5")).monthly_usd["frontier"].point < 1_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("tokens_per_day", "say KEY=VALUE, such as tokens_per_day=50e6"),
        ("tokens_per_day=", "say KEY=VALUE"),
        ("tokens_per_dya=1", "unknown key `tokens_per_dya`; did you mean `tokens_per_day`?"),
        ("volumes.tokens_per_day=1", "did you mean `volume.tokens_per_day`?"),
        ("usd_per_month=1", "`usd_per_month` could be frontier.usd_per_month or hardware.usd_per_month: say which"),
        ("escalated_share=2", "is a share from 0 to 1, not 2"),
        ("escalated_to_mean_tokens=9", "is more than 100% of all tokens"),
        ("growth_per_month=9", "more than all models read"),
    ],
)
def test_a_change_that_cannot_be_is_told(change: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        reading.override(START, change)
    assert str(error.value).startswith(f"--what-if {change}")
    assert says in str(error.value)


# ---------------------------------------------------------------------------------------------- prices


def test_a_models_unit_prices_come_from_the_override_or_the_table_which_says_so() -> None:
    own = Prices({"m": Price(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)})
    unit = own.unit("m")
    assert (unit.input_usd_per_mtok, unit.output_usd_per_mtok, unit.said_by) == (1.0, 2.0, "[prices] of suffice.toml")
    assert own.unit("gpt-5.5").said_by == table_version()
    with pytest.raises(InputError, match=r"no price is known for model 'my-model'.*\[prices\.\"my-model\"\]"):
        own.unit("my-model")


def test_long_prompts_are_priced_as_long_ones() -> None:
    short, long = Prices({}).unit("gpt-5.5"), Prices({}).unit("gpt-5.5", 400_000)
    assert long.input_usd_per_mtok == pytest.approx(2 * short.input_usd_per_mtok)
    assert long.output_usd_per_mtok == pytest.approx(1.5 * short.output_usd_per_mtok)
    agent = reading.override(START, "input_tokens_per_request=400e3", "output_tokens_per_request=0", "cached_share=0")
    assert plan(agent).usd_per_mtok["frontier"].point == pytest.approx(long.input_usd_per_mtok)


def test_the_tables_date_is_not_after_today() -> None:
    today = date(2026, 11, 1)
    found = table_date(today)
    assert found is None or date.fromisoformat(found) <= today


def test_a_scenario_of_numbers_alone_needs_no_file() -> None:
    told = Scenario(
        volume=Volume(tokens_per_day=sure(1e6)), frontier=reading.override(START, "frontier.usd_per_mtok=10").frontier
    )
    assert plan(told).monthly_usd["frontier"].point == pytest.approx(1e6 * 10 / 1e6 * 365 / 12)


def test_a_stated_bill_is_of_the_stated_volume() -> None:
    told = {
        "volume": {"tokens_per_month": "100M"},
        "frontier": {"usd_per_month": 4_500},
        "hardware": {"kind": "serverless", "usd_per_mtok": 1.0},
    }
    found = reading.override(reading.from_dict(told, "plan.toml"), "tokens_per_month=1M")
    assert found.frontier.usd_per_month is not None
    assert found.frontier.usd_per_month.point == pytest.approx(45.0)


def test_a_tiny_volume_is_looked_beyond() -> None:
    told = {
        "volume": {"tokens_per_day": 0.0009},
        "frontier": {"usd_per_mtok": 10.0},
        "hardware": {"kind": "serverless", "usd_per_mtok": 1.0},
    }
    found = plan(reading.from_dict(told, "plan.toml")).break_even
    assert found.tokens_per_day is not None
    assert "No volume" not in found.told


def test_a_price_by_the_token_is_serverless_in_a_file_and_in_a_change() -> None:
    told = {"volume": {"tokens_per_day": 1e6}, "frontier": {"usd_per_mtok": 10.0}}
    changed = reading.override(reading.from_dict(told, "plan.toml"), "hardware.usd_per_mtok=1")
    assert changed == reading.from_dict({**told, "hardware": {"usd_per_mtok": 1}}, "plan.toml")


@pytest.mark.parametrize(
    ("hardware", "unused"),
    [
        ({"kind": "rented", "usd_per_hour": 1, "tokens_per_s": 100, "purchase_usd": 9e3}, "hardware.purchase_usd"),
        ({"kind": "serverless", "usd_per_mtok": 1, "tokens_per_s": 100}, "hardware.tokens_per_s"),
    ],
)
def test_a_key_that_is_not_used_is_told(hardware: dict[str, object], unused: str) -> None:
    told = {"volume": {"tokens_per_day": 1e6}, "frontier": {"usd_per_mtok": 10.0}, "hardware": hardware}
    found = plan(reading.from_dict(told, "plan.toml"))
    assert unused in {each.between[0] for each in found.contradictions}
