"""The exact cache: what counts as the same request, what is kept, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from suffice.core.types import Policy
from suffice.serve.access import Caller
from suffice.serve.cache import Cache
from suffice.serve.capture import Exchange
from suffice.serve.outbound import Sending
from suffice.wire import chat

POLICY = Policy(cache_s=60.0)
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


def sending(path: str = "/chat/completions", key: bytes = b"Bearer a", **body: Any) -> Sending:
    told = {name: value for name, value in {**ASKED, **body}.items() if value is not ...}
    headers = [(b"host", b"h"), (b"authorization", key), (b"x-request-id", repr(body).encode())]
    return Sending(
        dialect=chat.DIALECT, method="POST", path=path, headers=headers, model="m", body=json.dumps(told).encode()
    )


def answered(content: bytes = b"{}", **more: Any) -> Exchange:
    exchange = Exchange(upstream="u", status=200)
    exchange.chunk(content)
    for name, value in more.items():
        setattr(exchange, name, value)
    return exchange


def key(cache: Cache, policy: Policy = POLICY, caller: str | None = None, **asked: Any) -> bytes | None:
    return cache.key(policy, Caller(name=caller), sending(**asked))


def test_what_says_who_asks_makes_no_difference_and_what_says_what_is_asked_does() -> None:
    cache = Cache(1e6)
    same = key(cache)
    assert same is not None
    assert same == key(cache, user="someone", metadata={"a": "b"})
    different = [
        key(cache, messages=[{"role": "user", "content": "ho"}]), key(cache, stream=True), key(cache, model="n"),
        key(cache, path="/chat/completions?a=b"), key(cache, key=b"Bearer b"), key(cache, caller="team"),
        key(cache, temperature=0.0), key(cache, seed=1),
    ]  # fmt: skip
    assert len({same, *different}) == len(different) + 1
    assert None not in different


@pytest.mark.parametrize(
    "body", [{"temperature": 0.7}, {"temperature": ...}, {"temperature": None}, {"store": True}, {"background": True}]
)
def test_what_is_left_to_chance_or_kept_at_the_vendor_is_never_answered_from_here(body: dict[str, Any]) -> None:
    assert key(Cache(1e6), **body) is None


def test_any_temperature_only_where_the_policy_says_so() -> None:
    policy = Policy(cache_s=60.0, cache_any_temperature=True)
    assert key(Cache(1e6), policy, temperature=1.3) is not None
    assert key(Cache(1e6), policy, store=True) is None
    assert key(Cache(1e6), Policy(cache_any_temperature=True), temperature=0) is None, "off unless asked for"


def test_an_answer_is_given_again_until_it_is_too_old() -> None:
    now = [0.0]
    cache = Cache(1e6, lambda: now[0])
    cache.put(b"k", exchange := answered(b"hello"), POLICY)
    now[0] = 59.9
    kept = cache.get(b"k")
    assert kept is not None
    assert (b"".join(kept.chunks), kept.record, kept.upstream) == (b"hello", exchange.id, "u")
    now[0] = 60.1
    assert cache.get(b"k") is None
    assert (len(cache), cache.bytes, cache.hits, cache.misses) == (0, 0, 1, 1)


@pytest.mark.parametrize("more", [{"status": 500}, {"failure": "broke off"}, {"cut": True}, {"kept": 2_000}])
def test_only_a_whole_good_answer_is_kept(more: dict[str, Any]) -> None:
    cache = Cache(1_000)
    cache.put(b"k", answered(b"x", **more), POLICY)
    assert len(cache) == 0


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = Cache(250)
    for name in (b"a", b"b"):
        cache.put(name, answered(bytes(100)), POLICY)
    assert cache.get(b"a") is not None
    cache.put(b"c", answered(bytes(100)), POLICY)
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]
    cache.put(b"a", answered(bytes(10)), POLICY)
    assert cache.bytes == 110
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
