"""Who is asked in which order, when again, and when an upstream is left alone."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core import config
from suffice.core.errors import InputError
from suffice.serve.attempts import Health, Routes, bound, harmless, pause_s, retry_after_s
from suffice.serve.breakers import LEAST, SPAN_MOST_S, SPAN_S, STALE_S, Breaker
from suffice.wire import chat
from suffice.wire.renaming import with_members

CHAT = chat.DIALECT


def routes(**upstreams: dict[str, object]) -> Routes:
    """Routes over upstreams at addresses of no importance."""
    given = {name: {"base_url": "http://h/v1", **told} for name, told in upstreams.items()}
    return Routes(config.from_dict({"upstreams": given}, "f"))


def names(order: Routes, model: str = "m") -> list[tuple[str, str]]:
    """Everyone who may be asked, and for which model."""
    found = order.order(model, CHAT)
    assert found is not None
    return [(target.name, target.model) for target in (*found.sharing, *found.fallbacks)]


# ---------------------------------------------------------------------------------------------- the order


def test_without_weights_the_first_that_lists_the_model_is_asked_alone() -> None:
    assert names(routes(a={}, b={"models": ["m*"]}, c={"models": ["m"]})) == [("b", "m")]
    assert names(routes(a={}, b={"models": ["x"]}, c={})) == [("a", "m")]
    assert routes().order("m", CHAT) is None


def test_fallbacks_come_in_their_order_once_each_with_the_model_that_they_name() -> None:
    order = routes(
        a={"fallbacks": ["b", "c/other/model", "b", "a/m2"]}, b={"rename": {"m": "vendor/m"}, "fallbacks": ["c"]}, c={}
    )
    assert names(order) == [("a", "m"), ("b", "vendor/m"), ("c", "other/model"), ("a", "m2")]
    found = order.order("m", None)  # a request of no dialect asks for something that is in one place
    assert found is not None and not found.fallbacks and len(found.sharing) == 1


def test_calls_are_shared_by_weight_and_each_is_the_others_fallback() -> None:
    order = routes(a={"weight": 3}, b={"weight": 1, "fallbacks": ["d"]}, c={"models": ["x"], "weight": 9}, d={})
    found, coins = order.order("m", CHAT), random.Random(0)
    assert found is not None and names(order) == [("a", "m"), ("b", "m"), ("d", "m")]
    drawn = Counter(tuple(target.name for target in found.drawn(coins)) for _ in range(4_000))
    assert set(drawn) == {("a", "b"), ("b", "a")} and 2_900 < drawn["a", "b"] < 3_100


def test_an_upstream_is_asked_in_the_callers_dialect_where_it_speaks_it() -> None:
    order = routes(a={"dialects": ["responses", "chat"], "fallbacks": ["b"]}, b={"kind": "anthropic"})
    found = order.order("m", CHAT)
    assert found is not None
    assert [t.dialect.name for t in (*found.sharing, *found.fallbacks) if t.dialect] == ["chat", "messages"]


def test_models_are_the_callers_words_and_are_not_kept_without_end() -> None:
    order = routes(a={})
    for number in range(2_500):
        order.order(f"m{number}", CHAT)
    assert len(order._known) <= 1_000


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({"fallbacks": ["nobody/x"]}, "nobody/x"),
        ({"weight": 0}, "weight"),
        ({"attempts": 0}, "attempts"),
        ({"max_connections": -1}, "max_connections"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"kind": "aws"}, "bedrock"),
        ({"dialects": []}, "dialects"),
        ({"identity": True}, "identity"),
        ({"api_version": "x"}, "azure"),
        ({"region": "x"}, "bedrock"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(told: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        routes(a=told)


# ---------------------------------------------------------------------------------------------- again, and when


@pytest.mark.parametrize(
    ("body", "safe", "one"),
    [
        ({"messages": []}, True, False),
        ({"store": False, "background": None}, True, False),
        ({"store": True}, False, False),
        ({"background": True}, False, False),
        ({"previous_response_id": "resp_1"}, True, True),
        ({"conversation": {"id": "c"}}, False, True),
    ],
)
def test_what_leaves_something_behind_is_not_repeated(body: dict[str, object], safe: bool, one: bool) -> None:
    sent = json.dumps(body).encode()
    assert (harmless(CHAT, "POST", sent), bound(sent)) == (safe, one)


def test_without_a_dialect_only_reading_is_repeated() -> None:
    assert harmless(None, "GET", b"") and not harmless(None, "POST", b"{}") and not harmless(None, "DELETE", b"")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after-ms": "x"}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, datetime(2026, 11, 22, 12, tzinfo=UTC)) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_a_time_or_nothing(text: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        found = retry_after_s({name: text})
        assert found is None or found >= 0


def test_pauses_grow_have_an_end_and_are_drawn_from_nothing_up() -> None:
    coins = random.Random(1)
    most = [max(pause_s(tried, coins) for _ in range(500)) for tried in (1, 2, 3, 9)]
    assert 0.2 < most[0] <= 0.25 < most[1] <= 0.5 < most[2] <= 1.0 < most[3] <= 4.0
    assert min(pause_s(9, coins) for _ in range(500)) < 0.1


# ---------------------------------------------------------------------------------------------- breakers


def test_a_breaker_opens_at_half_and_lets_one_call_try_in_each_span() -> None:
    breaker = Breaker()
    for _ in range(LEAST - 1):
        breaker.failed(0.0)
    assert breaker.admits(0.0)
    breaker.failed(0.0)
    assert not breaker.admits(0.5) and breaker.wait_s(0.5) == SPAN_S - 0.5
    assert breaker.admits(1.0) and not breaker.admits(1.1)  # one tries, even if nothing ever comes of it
    assert breaker.admits(2.0)
    breaker.failed(2.0)
    assert not breaker.admits(3.9) and breaker.admits(4.0)
    breaker.succeeded(4.0)
    assert all(breaker.admits(4.0) for _ in range(5)) and not breaker.open


def test_a_breaker_never_stays_open_for_long_at_once() -> None:
    breaker, now = Breaker(), 0.0
    for _ in range(50):
        while not breaker.admits(now):
            now += breaker.wait_s(now)
        breaker.failed(now)
        assert breaker.wait_s(now) <= SPAN_MOST_S


def test_a_fifth_of_failures_opens_nothing_for_long_and_old_ones_are_forgotten() -> None:
    coins, breaker, admitted = random.Random(0), Breaker(), 0
    for step in range(10_000):
        if breaker.admits(step * 0.01):
            admitted += 1
            (breaker.failed if coins.random() < 0.2 else breaker.succeeded)(step * 0.01)
    assert admitted > 9_500
    breaker = Breaker()
    for _ in range(LEAST - 1):
        breaker.failed(0.0)
    breaker.failed(STALE_S + 1)
    assert not breaker.open


def test_a_limit_is_the_models_and_sends_others_first() -> None:
    order = config.from_dict(
        {"upstreams": {name: {"base_url": "http://h/v1", "api_key_env": "K", "weight": 1} for name in "ab"}}, "f"
    )
    health, found = Health(order), Routes(order).order("m", CHAT)
    other = Routes(order).order("n", CHAT)
    assert found is not None and other is not None
    health.limit(found.sharing[0], 10.0, 5.0)
    assert [target.name for target in health.best(found.sharing, 12.0)] == ["b", "a"]
    assert [target.name for target in health.best(other.sharing, 12.0)] == ["a", "b"]
    assert [target.name for target in health.best(found.sharing, 16.0)] == ["a", "b"]


def test_a_limit_of_a_callers_own_key_is_not_the_other_callers() -> None:
    order = config.from_dict({"upstreams": {"a": {"base_url": "http://h/v1"}}}, "f")
    health, found = Health(order), Routes(order).order("m", CHAT)
    assert found is not None
    health.limit(found.sharing[0], 0.0, 60.0)
    assert not health.limited(found.sharing[0], 1.0)


# ---------------------------------------------------------------------------------------------- another name


def test_a_renamed_body_keeps_every_other_byte_of_its_members() -> None:
    body = b'{ "x":1e400, "model" : "m", "messages":[ {"content":"\\u00e9"} ], "seed":123456789012345678901234567890}'
    assert with_members(body, model="vendor/m") == (
        b'{"x":1e400,"model":"vendor/m","messages":[ {"content":"\\u00e9"} ],"seed":123456789012345678901234567890}'
    )
    assert with_members(b'{"model":"m","stream":true}', "model", "stream", v="1") == b'{"v":"1"}'
    with pytest.raises(InputError):
        with_members(b"[]", model="x")
