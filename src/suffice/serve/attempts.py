"""Attempts: which upstreams are asked, in which order, and whether and when one is asked again. Nothing is sent here.

A request is tried up to `attempts` times at an upstream, with pauses, then at the next: those that share the model by
weight, in an order drawn by their weights, then the fallbacks. It is tried again only before the first byte of an
answer, so that no answer is paid for twice, and only where that does no harm.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from suffice.core.config import Config, Upstream
from suffice.serve.breakers import Breaker
from suffice.wire import dialects
from suffice.wire.dialect import Dialect

OVERLOADED = 529
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504, OVERLOADED})
"""Statuses after which the same request may fare better, of this upstream or another."""
DOWN = frozenset({500, 502, 503, 504, OVERLOADED})
"""Those that speak of the upstream, not of the request: its breaker counts them."""
LIMITED = 429
UNBEGUN = frozenset({425, LIMITED})
"""Those that say that nothing was done: safe to ask again whatever the request does."""
PAUSE_S = 0.25
PAUSE_MOST_S = 4.0
"""The most that the first pause lasts, doubled for each further one up to the second; drawn evenly from 0."""
PATIENCE_S = 10.0
PATIENCE_WITH_OTHERS_S = 0.5
"""A `Retry-After` up to this is waited for: the first where nobody else can be asked, the second where someone can."""
LIMITED_MOST_S = 300.0
MODELS_KEPT = 1_000
_NO_STATE: tuple[object, ...] = (None, False, "", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One upstream that may answer: the dialect it is asked in and the name by which it knows the model.

    `renamed`: that name is another than the caller's.
    """

    name: str
    upstream: Upstream
    model: str
    dialect: Dialect | None
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """Those that share a model (each with its weight), then the fallbacks."""

    sharing: Sequence[Target]
    weights: Sequence[float]
    fallbacks: Sequence[Target]

    def drawn(self, coins: random.Random) -> Sequence[Target]:
        """Everyone once; who shares by weight in an order drawn by weight."""
        if len(self.sharing) == 1:
            return self.sharing
        left, weights, drawn = list(self.sharing), list(self.weights), []
        while left:
            position = coins.choices(range(len(left)), weights)[0]
            drawn.append(left.pop(position))
            weights.pop(position)
        return drawn


class Routes:
    """The order of upstreams for each model and dialect, by the configuration; kept once it is known."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[tuple[str, str | None], Order] = {}

    def order(self, model: str, dialect: Dialect | None) -> Order | None:
        """None without any upstream. A request without a dialect has no fallbacks: what it asks for is in one place."""
        key = (model, dialect.name if dialect is not None else None)
        found = self._known.get(key)
        if found is None:
            names = self._config.upstreams_for(model)
            if not names:
                return None
            found = self._made(names if dialect is not None else names[:1], model, dialect)
            if len(self._known) >= MODELS_KEPT:  # models are the callers' words: there is no end of them
                self._known.clear()
            self._known[key] = found
        return found

    def only(self, name: str, model: str, dialect: Dialect | None) -> Target | None:
        """This upstream and no other; None where it is not configured any more."""
        return self._target(name, model, dialect) if name in self._config.upstreams else None

    def _made(self, names: Sequence[str], model: str, dialect: Dialect | None) -> Order:
        sharing = [self._target(name, model, dialect) for name in names]
        fallbacks: list[Target] = []
        told = [fallback for name in names for fallback in self._config.upstreams[name].fallbacks]
        for name, _, asked in (fallback.partition("/") for fallback in told if dialect is not None):
            target = self._target(name, model, dialect, asked)
            if target not in fallbacks and target not in sharing:
                fallbacks.append(target)
        weights = [self._config.upstreams[name].weight or 1.0 for name in names]
        return Order(sharing, weights, fallbacks)

    def _target(self, name: str, model: str, dialect: Dialect | None, asked: str = "") -> Target:
        upstream = self._config.upstreams[name]
        spoken = asked or upstream.rename.get(model, model)
        if dialect is not None and dialect.name not in upstream.speaks:
            dialect = next((dialects.DIALECTS[own] for own in upstream.speaks if own in dialects.DIALECTS), dialect)
        return Target(name=name, upstream=upstream, model=spoken, dialect=dialect, renamed=spoken != model)


class Health:
    """What this worker knows of each upstream: its breaker, and how long it has asked to be left alone for a model."""

    def __init__(self, config: Config) -> None:
        self.breakers = {name: Breaker() for name in config.upstreams}
        # A limit of a caller's own key says nothing about the other callers.
        self._own = {name for name, upstream in config.upstreams.items() if upstream.api_key_env or upstream.identity}
        self._limited: dict[tuple[str, str], float] = {}

    def limit(self, target: Target, now: float, for_s: float) -> None:
        """The upstream wants to be left alone for this long, as far as this model goes."""
        if target.name in self._own:
            if len(self._limited) >= MODELS_KEPT:
                self._limited.clear()
            self._limited[target.name, target.model] = now + min(for_s, LIMITED_MOST_S)

    def limited(self, target: Target, now: float) -> bool:
        """Whether it has said so, and the time is not over."""
        return bool(self._limited) and self._limited.get((target.name, target.model), 0.0) > now

    def best(self, targets: Sequence[Target], now: float) -> Sequence[Target]:
        """The same, who wants to be left alone last: when nobody else is there, their own answer is the honest one."""
        if not self._limited or len(targets) < 2:
            return targets
        return sorted(targets, key=lambda target: self.limited(target, now))

    def can(self, target: Target, now: float) -> bool:
        """Whether it would be worth asking, without taking the breaker's try."""
        return self.breakers[target.name].wait_s(now) == 0.0 and not self.limited(target, now)


def pause_s(tried: int, coins: random.Random) -> float:
    """Before the next attempt at the same upstream, after `tried` failed ones."""
    return coins.uniform(0.0, min(PAUSE_S * 2 ** (tried - 1), PAUSE_MOST_S))


def retry_after_s(headers: Mapping[str, str], at: datetime | None = None) -> float | None:
    """What an answer says of when to ask again, in seconds from `at` (now); None where it says nothing readable."""
    try:
        if told := headers.get("retry-after-ms"):
            return max(0.0, float(told) / 1e3)
        told = headers.get("retry-after", "").strip()
        if not told:
            return None
        if told.replace(".", "", 1).isdigit():
            return float(told)
        when = parsedate_to_datetime(told)
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - (at or datetime.now(UTC))).total_seconds())
    except (ValueError, OverflowError):
        return None


def harmless(dialect: Dialect | None, method: str, body: bytes) -> bool:
    """Whether a request that may have been carried out can be made again: it only reads, or leaves nothing behind."""
    if dialect is None:
        return method in ("GET", "HEAD")
    return not any(_members(body).get(name) not in _NO_STATE for name in ("store", "background", "conversation"))


def bound(body: bytes) -> bool:
    """Whether the request speaks of what only one upstream has: an earlier answer, a conversation."""
    return any(_members(body).get(name) not in _NO_STATE for name in ("previous_response_id", "conversation"))


def _members(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
