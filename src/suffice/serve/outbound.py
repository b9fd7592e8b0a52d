"""The way out, from top to bottom: what happens to a request that an upstream is to answer.

    what is asked -> the upstreams in their order -> each one's own dialect and model -> what may leave -> the call
    and what comes back: into the caller's dialect -> what was held back is put back -> the caller

The request path, audits and probes all go this way; there is no other. Which upstreams are tried, and when again, is
`attempts`; what may leave is `egress`; how an upstream is reached is `upstream`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.types import Egress
from suffice.serve.attempts import (
    AGAIN,
    DOWN,
    PATIENCE_S,
    PATIENCE_WITH_OTHERS_S,
    UNBEGUN,
    Health,
    Routes,
    Target,
    bound,
    harmless,
    pause_s,
    retry_after_s,
)
from suffice.serve.capture import Attempt
from suffice.serve.client import Answer
from suffice.serve.edges import Gone, Headers, Refused
from suffice.serve.egress import Clearance, Cleared, ClearedUpload, Denied, Gate, may_leave
from suffice.serve.passing import Upload
from suffice.serve.upstream import BUSY, TIMEOUT, UpstreamError, Upstreams, returned
from suffice.wire.dialect import Dialect, Turning
from suffice.wire.renaming import with_members
from suffice.wire.translate import Translated, WithoutUsage, translated
from suffice.wire.translate import headers as translated_headers

EVENTS_TYPE = b"text/event-stream; charset=utf-8"
JSON_TYPE = b"application/json"


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, in the caller's dialect. `path` is below `base_url`, with its query; `egress` what may leave.

    `repeatable`: asking again does no harm. Without a dialect the body is relayed as it is (pass-through).
    """

    dialect: Dialect | None
    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    model: str
    body: bytes
    egress: Egress = "allowed"
    repeatable: bool = True
    only: str | None = None
    """The upstream that has what is asked for; None: any that answers."""
    upload: Upload | None = None
    """A body to pass on while it arrives, in place of `body`."""


class Heard(msgspec.Struct):
    """An upstream's answer, in the caller's dialect: status and headers are there, the body is read by `read`."""

    target: Target
    response: Answer
    turnings: Sequence[Turning]
    upstreams: Upstreams
    egress: str | None = None
    events: bool = False
    """The turnings make an event stream of what is none."""
    translated: Translated | None = None
    ahead: deque[bytes] | None = None
    """The body where it was read before the answer begins: what cannot be turned is an error then, not a broken one."""
    _ready: deque[bytes] = msgspec.field(default_factory=deque)
    _over: bool = False

    @property
    def status(self) -> int:
        """HTTP."""
        return self.response.status

    @property
    def headers(self) -> Headers:
        """Those that go to the caller; a length only where the body passes as it is."""
        headers = returned(self.response)
        if self.events:
            headers = [(key, EVENTS_TYPE if key == b"content-type" else value) for key, value in headers]
        elif self.translated is not None and not self.streamed:
            headers = [(key, JSON_TYPE if key == b"content-type" else value) for key, value in headers]
        return [(key, value) for key, value in headers if key != b"content-length"] if self.turnings else headers

    @property
    def length(self) -> int | None:
        """Of the body, where it is known."""
        return None if self.turnings else self.response.length

    @property
    def encoding(self) -> str:
        """Of the body: empty, gzip, ..."""
        return self.response.header(b"content-encoding").decode("latin-1")

    @property
    def readable(self) -> bool:
        """Whether the body is JSON or events: what a record can keep."""
        return self.streamed or self.response.content_type.endswith("json")

    @property
    def streamed(self) -> bool:
        """Whether it is an event stream, or becomes one."""
        return self.events or self.response.streamed

    @property
    def unsaid(self) -> list[bytes]:
        """Events left out so far, for the caller did not ask: the usage, which the record tells all the same."""
        return [event for turning in self.turnings if isinstance(turning, WithoutUsage) for event in turning.kept]

    async def read(self) -> bytes:
        """The next piece of the body as it arrives; b"" at the end. Raises UpstreamError if it breaks off, or cannot be
        turned."""
        if self.ahead is None and not self.turnings:
            return await self.upstreams.read(self.target.name, self.response)
        ready = self._ready if self.ahead is None else self.ahead
        while not ready and not self._over:
            data = await self.upstreams.read(self.target.name, self.response)
            self._over = not data
            try:
                ready.extend(_through(self.turnings, [data] if data else [], ended=not data))
            except InputError as error:
                raise UpstreamError(
                    self.target.name, f"sent what cannot be read: {error}", "upstream_broken", 502
                ) from error
        return ready.popleft() if ready else b""

    async def whole(self) -> bytes:
        """All of the body. Raises UpstreamError like `read`."""
        pieces = []
        while data := await self.read():
            pieces.append(data)
        return b"".join(pieces)


class _Trial(msgspec.Struct):
    """What has come of one request so far. `held`: an upstream's error, relayed if nothing better comes."""

    sending: Sending
    clearance: Clearance
    attempts: list[Attempt]
    deadline: float
    failed: UpstreamError | None = None
    held: Heard | None = None

    @property
    def harmless(self) -> bool:
        """Whether it can be made again although it may have been carried out."""
        sending = self.sending
        return sending.repeatable and harmless(sending.dialect, sending.method, sending.body)

    @property
    def bound(self) -> bool:
        """Whether only one upstream knows what it speaks of."""
        return self.sending.dialect is None or bound(self.sending.body)

    def note(self, target: Target, began_s: float, now: float, said: int | UpstreamError) -> None:
        """An attempt that gave the caller no answer: the status it came to, or why there was none."""
        status, failure = (said, None) if isinstance(said, int) else (None, str(said))
        ms, at = round((now - began_s) * 1e3, 3), round(time.time() - (now - began_s), 6)
        self.attempts.append(Attempt(upstream=target.name, ms=ms, status=status, failure=failure, at=at))


class Outbound:
    """Asks upstreams. Use within the life of `upstreams`. `coins` draw who is asked by weight, and the pauses."""

    def __init__(
        self,
        config: Config,
        upstreams: Upstreams,
        coins: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._upstreams, self._clock = config, upstreams, clock
        self._coins = coins or random.Random()
        self._routes, self._health = Routes(config), Health(config)
        self.gate = Gate(config.privacy)

    def breakers(self) -> dict[str, bool]:
        """Of each upstream, whether it is left alone for now."""
        return {name: breaker.open for name, breaker in self._health.breakers.items()}

    def call(self, sending: Sending, attempts: list[Attempt], *, fallbacks: bool = True) -> Called:
        """The first answer that can be had, for `async with`; what was tried before it is added to `attempts`.

        Where there is none, the last error of an upstream is the answer, as it came. `fallbacks`: whether those may
        answer, who may know another model. Raises UpstreamError if no upstream says anything, Refused where none may be
        asked, InputError where the request cannot be put into a dialect that is spoken.
        """
        return Called(self, self._upstreams, sending, attempts, fallbacks)

    async def first(self, sending: Sending, attempts: list[Attempt], fallbacks: bool) -> Heard:
        """Ask one upstream after the other until one answers."""
        now = self._clock()
        targets = self._targets(sending, fallbacks, now)
        trial = _Trial(sending, self.gate.clearance(sending.egress), attempts, now + self._config.server.total_s)
        refused: InputError | Denied | None = None
        try:
            for position, target in enumerate(targets):
                if position and trial.bound:
                    break
                try:
                    heard = await self._at(target, targets[position + 1 :], trial)
                except (InputError, Denied) as error:
                    refused = refused or error
                    continue  # it cannot be asked this; what the others say stands
                if heard is not None:
                    return heard
            if trial.held is None:
                raise trial.failed or refused or self._nobody(targets)
            attempts.pop(max(n for n, tried in enumerate(attempts) if tried.status is not None))
            heard, trial.held = trial.held, None
            return heard
        finally:
            if trial.held is not None:
                self._upstreams.leave(trial.held.target.name, trial.held.response)

    async def _at(self, target: Target, rest: Sequence[Target], trial: _Trial) -> Heard | None:
        """Ask one upstream as often as it may be; None if the next one is to be asked."""
        clock, breaker, tried = self._clock, self._health.breakers[target.name], 0
        while (began := clock()) < trial.deadline and breaker.admits(began):
            tried += 1
            try:
                heard = await self._ask(target, trial, trial.deadline - began)
            except UpstreamError as error:
                trial.failed = error
                trial.note(target, began, clock(), error)
                if error.code != BUSY:
                    breaker.failed(clock())
                if not (error.unsent or trial.harmless):
                    raise
                pause = None if error.code in (BUSY, TIMEOUT) else pause_s(tried, self._coins)
                if self._over(target, tried, pause, trial):
                    return None
            else:
                if heard.status not in AGAIN:
                    breaker.succeeded(began)
                    return heard
                others = self._others(rest, trial)
                pause = self._heard_of(heard, tried, others)
                if not (heard.status in UNBEGUN or trial.harmless):
                    return heard
                over = self._over(target, tried, pause, trial)
                if over and not others:
                    return heard
                trial.note(target, began, clock(), heard.status)
                before, trial.held = (trial.held, heard) if over else (heard, trial.held)
                if before is not None:
                    self._upstreams.leave(before.target.name, before.response)
                if over:
                    return None
            await asyncio.sleep(pause or 0.0)
        return None

    async def _ask(self, target: Target, trial: _Trial, left_s: float) -> Heard:
        """One attempt: the request as this upstream takes it, cleared to leave; its answer as it will come back."""
        sending, path, body = trial.sending, trial.sending.path, trial.sending.body
        headers, told = sending.headers, None
        if sending.dialect is not None and target.dialect is not None and target.dialect is not sending.dialect:
            told = translated(sending.dialect, target.dialect, body)
            path, body = target.dialect.path, told.body
            headers = translated_headers(sending.dialect, target.dialect, headers)
        if target.renamed and sending.dialect is not None:
            body = with_members(body, model=target.model)
        vendor = self._upstreams.vendor(target.name)
        if vendor is not None:
            spoken = target.dialect.name if target.dialect is not None else None
            path, body = vendor.shaped(spoken, path, target.model, body, headers)
        cleared: Cleared | ClearedUpload
        if sending.upload is not None:
            cleared = trial.clearance.passing(target.name, target.upstream, sending.upload)
        else:
            cleared = await trial.clearance.leaving(target.name, target.upstream, body, path)
        headers = trial.clearance.headers(headers)
        within_s = min(target.upstream.attempt_s or self._config.server.first_byte_s, left_s)
        try:
            response = await self._upstreams.ask(target.name, sending.method, path, headers, cleared, within_s)
        except UpstreamError:
            if sending.upload is not None and sending.upload.gone:  # what the upstream lacked was the rest of the body
                raise Gone from None
            raise
        framed = vendor.turning(response.content_type) if vendor is not None else None
        streamed = framed is not None or response.streamed
        back = trial.clearance.back(events=streamed)
        turned = told.answer(response.status, streamed) if told is not None else []
        turnings = [turning for turning in (framed, *turned, back) if turning is not None]
        return Heard(target, response, turnings, self._upstreams, trial.clearance.egress, framed is not None, told)

    def _targets(self, sending: Sending, fallbacks: bool, now: float) -> Sequence[Target]:
        """Who may be asked, in order."""
        if sending.only is not None and (only := self._routes.only(sending.only, sending.model, sending.dialect)):
            return [only]
        order = self._routes.order(sending.model, sending.dialect)
        if order is None:
            raise Refused(
                "no upstream is configured: add [upstreams.NAME] with a base_url to suffice.toml", 503, "no_upstream"
            )
        targets = order.drawn(self._coins)
        if fallbacks and order.fallbacks:
            targets = [*targets, *order.fallbacks]
        if sending.egress == "never":  # where nobody is inside, the first one's clearance says so
            targets = [target for target in targets if may_leave(sending.egress, target.upstream)] or targets[:1]
        return self._health.best(targets, now)

    def _others(self, rest: Sequence[Target], trial: _Trial) -> bool:
        """Whether someone else is worth asking."""
        now = self._clock()
        return any(self._health.can(target, now) for target in rest) and not trial.bound

    def _heard_of(self, heard: Heard, tried: int, others: bool) -> float | None:
        """Note an error that may pass; how long to wait before asking there again, None for not now."""
        target, now = heard.target, self._clock()
        breaker = self._health.breakers[target.name]
        breaker.failed(now) if heard.status in DOWN else breaker.succeeded(now)
        after_s = retry_after_s(heard.response.fields)
        if after_s is None:
            return pause_s(tried, self._coins)
        self._health.limit(target, now, after_s)
        patience_s = PATIENCE_WITH_OTHERS_S if others else PATIENCE_S
        return after_s + self._coins.uniform(0.0, 0.1) * after_s if after_s <= patience_s else None

    def _over(self, target: Target, tried: int, pause: float | None, trial: _Trial) -> bool:
        """Whether this upstream is not to be asked again."""
        if trial.sending.upload is not None:  # it was there once
            return True
        return tried >= target.upstream.attempts or pause is None or self._clock() + pause >= trial.deadline

    def _nobody(self, targets: Sequence[Target]) -> UpstreamError:
        """All are left alone for now."""
        now = self._clock()
        wait_s = max(1, math.ceil(min(self._health.breakers[target.name].wait_s(now) for target in targets)))
        return UpstreamError(
            targets[0].name,
            f"has failed too often and is left alone; it is tried again within {wait_s} s",
            "upstream_unavailable",
            503,
            unsent=True,
            headers=((b"retry-after", str(wait_s).encode()),),
        )


class Called:
    """A call under way, as an async context manager: a class, for a generator costs each call a tenth of its time."""

    __slots__ = ("_asked", "_heard", "_outbound", "_upstreams")

    def __init__(
        self, outbound: Outbound, upstreams: Upstreams, sending: Sending, attempts: list[Attempt], fallbacks: bool
    ) -> None:
        self._outbound, self._upstreams, self._asked = outbound, upstreams, (sending, attempts, fallbacks)
        self._heard: Heard | None = None

    async def __aenter__(self) -> Heard:
        heard = self._heard = await self._outbound.first(*self._asked)
        if heard.translated is not None and not heard.streamed:
            try:
                heard.ahead = deque([await heard.whole()])
            except BaseException:
                self._leave()
                raise
        return heard

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._heard is not None:
            self._upstreams.leave(self._heard.target.name, self._heard.response)


def _through(turnings: Sequence[Turning], pieces: list[bytes], *, ended: bool) -> list[bytes]:
    """What comes out at the end of these turnings, one after the other."""
    for turning in turnings:
        pieces = [out for piece in pieces for out in turning.feed(piece)]
        if ended:
            pieces += turning.end()
    return [piece for piece in pieces if piece]
