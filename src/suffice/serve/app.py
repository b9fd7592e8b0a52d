"""The request path, from top to bottom: what happens to a call between its first byte and its record.

    bytes -> who asks -> what routing needs -> task -> specialist -> decision -> its answer, or the original bytes go
    the way out (`outbound`) and what comes back is relayed as it arrives -> record

Every dialect takes the same path. Hot routes are plain ASGI; the rest is Starlette (`cold`). Not known here: which
model families exist, how a release came to be, how rows are written, how an upstream is reached.
"""

from __future__ import annotations

import asyncio
import logging
import random

import msgspec

from suffice.core.config import Config
from suffice.core.contracts import refusal
from suffice.core.errors import InputError, StoreError
from suffice.core.protocols import Remote
from suffice.core.style import Rendered, estimated_tokens
from suffice.core.types import Accepted, Decision, Escalated, Policy, Prediction, Reason, Request, Route, Stage
from suffice.serve import admin, models
from suffice.serve.access import Access, Caller
from suffice.serve.admin import Admin
from suffice.serve.audits import Audits
from suffice.serve.batches import Batches
from suffice.serve.cache import Cache, Kept
from suffice.serve.capture import Capture, Exchange
from suffice.serve.cascade import audit_chance, closed, decide
from suffice.serve.cold import Cold
from suffice.serve.earlier import Earlier, about
from suffice.serve.edges import (
    EVENTS,
    JSON,
    AfterRecord,
    CutShort,
    Gone,
    OurHeaders,
    Receive,
    Refused,
    Scope,
    Send,
    UntilGone,
    error_response,
    ours,
    send_whole,
    whole_body,
)
from suffice.serve.egress import Denied, strictest
from suffice.serve.elsewhere import Elsewhere
from suffice.serve.metrics import Metrics, Sample
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.passing import Upload, no_socket, path_below, upload_of, wants_socket
from suffice.serve.roster import Elsewhere as AskElsewhere
from suffice.serve.roster import Roster, Routed
from suffice.serve.ticks import Ticks
from suffice.serve.traces import Traces
from suffice.serve.upstream import UpstreamError, Upstreams
from suffice.store.releases import Stored
from suffice.wire import dialects, other
from suffice.wire.dialect import Asked, Dialect, Told
from suffice.wire.responses_document import OURS

log = logging.getLogger(__name__)


class Gateway:
    """The ASGI application. `coins` draws the coins of canaries and audits."""

    def __init__(
        self,
        config: Config,
        roster: Roster,
        access: Access,
        capture: Capture,
        upstreams: Upstreams,
        outbound: Outbound,
        audits: Audits,
        coins: random.Random,
        metrics: Metrics,
        admin: Admin,
        traces: Traces | None = None,
    ) -> None:
        self._config, self._roster, self._access, self._capture = config, roster, access, capture
        self._upstreams, self._outbound, self._audits, self._coins = upstreams, outbound, audits, coins
        self._elsewhere = Elsewhere(config, outbound)
        self._frontier, self._ticks = config.frontier, Ticks()
        self._max_body = int(config.server.max_body_mb * 2**20)
        self._metrics, self._admin, self._traces = metrics, admin, traces
        self._cache = Cache(config.cache.max_mb * 2**20)
        self._batches = Batches(roster.home, config.batches, access)
        self._hot = {f"/v1{dialect.path}": dialect for dialect in dialects.DIALECTS.values()}
        self._earlier = Earlier(roster.home, config)
        self._rest = Cold(config, roster, capture, audits, outbound, metrics, access, self._pass).app  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route by path; everything but the dialects' calls is cold. Use between `open` and `close`."""
        if scope["type"] == "http" and scope["method"] == "POST" and (dialect := self._hot.get(scope["path"])):
            await self._call(dialect, scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(admin.ROOT + "/"):
            await self._admin(scope, receive, send)
        else:
            await self._rest(scope, receive, send)  # type: ignore[arg-type]

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A path that is no dialect's, relayed unread; what is asked of a response of our own is answered here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        left = await self._batches(scope, receive, send)
        if left is None:
            return
        receive = left
        name = about(scope["path"])
        if name is None or not name.startswith(OURS):
            await self._call(other.DIALECT, scope, receive, send)
            return
        try:
            await self._earlier.tell(name, scope, send, self._access.admit(scope["headers"]).name)
        except Refused as error:
            await error_response(error)(scope, receive, send)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------ the path

    async def _call(self, dialect: Dialect, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, from admission to its record."""
        exchange = Exchange(dialect=dialect.name)
        recorded, reply, late = False, send, None
        self._metrics.began()
        if self._traces is not None:
            self._traces.began(exchange, scope)
        try:
            self._access.look_at(scope)
            caller = scope.get("suffice.caller") or self._access.admit(scope["headers"])
            exchange.key = caller.name
            upload = self._passed(scope, receive, exchange) if not dialect.path else None
            exchange.request = await whole_body(receive, self._max_body) if upload is None else b""
            self._access.weigh(caller, exchange)
            recorded = await self._capture.reserve()
            if recorded and self._config.records.synchronous:
                send = late = AfterRecord(self._capture, exchange, send)
            asked, headers = dialect.read(exchange.request), OurHeaders(scope["headers"])
            if asked.model.startswith(models.OURS) and dialect.decides:
                headers.task, headers.route = models.task_of(asked.model, self._roster.tasks), Route.SPECIALIST
            only = None
            if dialect.earlier is not None and (name := dialect.earlier(asked)):
                asked, only = await self._earlier.followed(asked, name, caller.name)
                exchange.request = asked.body
            elif not dialect.path:
                only = await self._earlier.holder(about(scope["path"]))
            exchange.model, exchange.streamed = asked.model, asked.stream
            exchange.session, exchange.group, exchange.slices = headers.session, headers.group, headers.slices

            task, exchange.rule = self._task(dialect, asked, headers.task, caller)
            self._access.allow(caller, exchange.model, task.name if task is not None else None)
            policy = task.policy if task is not None else self._config.policy
            decision, rendered = await self._decide(task, asked, headers.route, exchange, caller)
            if task is not None and headers.route is Route.AUTO:
                self._draw(task, exchange)
            if isinstance(decision, Accepted) and rendered is not None:
                await self._answer(dialect, decision, rendered, asked, exchange, send)
                if exchange.audited:
                    self._audits.ask(exchange, self._sending(dialect, scope, asked, policy, caller))
            elif headers.route is Route.SPECIALIST:
                raise Refused(_kept_here(exchange.reason), 424, exchange.reason)
            else:
                sending = self._sending(dialect, scope, asked, policy, caller, only, upload)
                key = self._cache.key(policy, caller, sending) if headers.route is Route.AUTO else None
                kept = self._cache.get(key) if key is not None else None
                if kept is not None:
                    await self._again(kept, exchange, send)
                else:
                    self._access.reserve(caller, exchange)
                    await self._relay(sending, exchange, receive if upload is None else upload.receive, send)
                    if key is not None:
                        self._cache.put(key, exchange, policy)
        except Gone:
            exchange.failure = "the caller hung up"
        except Denied as error:
            exchange.reason, exchange.egress = Reason.EGRESS_DENIED, "denied"
            await self._refuse(exchange, reply, error)
        except Refused as error:
            await self._refuse(exchange, reply, error)
        except InputError as error:
            param = getattr(error, "param", None)
            await self._refuse(exchange, reply, Refused(str(error), 400, "invalid_request", param))
        except StoreError as error:
            if late is not None and not late.begun:
                exchange.status = exchange.first_chunk_ms = None
            await self._refuse(exchange, reply, Refused(str(error), 503, "records_unavailable"))
        except UpstreamError as error:
            self._asked_of(exchange, error.upstream)
            await self._refuse(exchange, reply, Refused(str(error), error.status, error.code, None, error.headers))
        except asyncio.CancelledError:
            exchange.failure = exchange.failure or "the server stopped before the answer was whole"
            raise
        except Exception:
            exchange.failure = "an error of the gateway's own"
            raise
        finally:
            self._metrics.ended(exchange)
            if self._traces is not None:
                self._traces.ended(exchange, recorded)
            if recorded and exchange.latency_ms is None:
                exchange.latency_ms = exchange.elapsed_ms()
                self._capture.put(exchange)
            if not recorded:
                self._access.unrecorded(exchange)

    def _task(
        self, dialect: Dialect, asked: Asked, declared: str | None, caller: Caller
    ) -> tuple[Routed | None, str | None]:
        """The task that a header declares, else the one whose rule the request meets; and which rule that was."""
        if not dialect.decides:
            return None, None
        if declared is not None:
            return self._roster.declared(declared, self._access.may_start(caller, declared)), "header"
        return self._roster.matched(asked.request) if self._roster.has_rules else (None, None)

    async def _decide(
        self, task: Routed | None, asked: Asked, route: Route, exchange: Exchange, caller: Caller
    ) -> tuple[Decision, Rendered | None]:
        """Ask the specialist if it may be asked, and decide; note on the exchange what was decided and from what."""
        decision: Decision
        rendered = None
        stage = task.stage if task else None
        reason = closed(route, stage, bool(task and task.stored), self._roster.fresh, self._roster.broken(task))
        if task is not None:
            exchange.task, exchange.stage = task.name, task.stage
        if reason is not None or task is None or task.stored is None:
            decision = Escalated(reason=reason or Reason.NO_TASK)
        else:
            exchange.release = task.stored.name

            async def elsewhere(remote: Remote, text: str) -> Prediction:
                return await self._asked_elsewhere(remote, text, task.policy, route, exchange, caller)

            decision, rendered = await self._ask(task, task.stored, asked.request, exchange, elsewhere)
            if stage is Stage.REVOKED and isinstance(decision, Escalated):
                decision = msgspec.structs.replace(decision, reason=Reason.REVOKED)
        exchange.reason = Reason.ACCEPTED if isinstance(decision, Accepted) else decision.reason
        if decision.prediction is not None:
            exchange.score, exchange.predicted = decision.prediction.score, decision.prediction.value
        return decision, rendered

    async def _ask(
        self, task: Routed, stored: Stored, request: Request, exchange: Exchange, elsewhere: AskElsewhere
    ) -> tuple[Decision, Rendered | None]:
        """Read the view, predict, decide."""
        text = await self._roster.read(task, request)
        if isinstance(text, Reason):
            return Escalated(reason=text, release=stored.name), None
        threshold = stored.release.draft.threshold.score
        exchange.input, exchange.threshold = text, threshold
        exchange.predict_at_ms = exchange.elapsed_ms()
        predicted = await self._roster.predict(task, text, elsewhere)
        exchange.predict_ms = exchange.elapsed_ms() - exchange.predict_at_ms
        if isinstance(predicted, Reason):
            return Escalated(reason=predicted, release=stored.name), None
        prediction, rendered = predicted
        draft = stored.release.draft
        refused = refusal(prediction, draft.contract, threshold, exchange.slices.split(","), draft.closed_slices)
        fits = request.max_tokens is None or rendered.tokens <= request.max_tokens
        exchange.acceptable = fits and refused in (None, Reason.BELOW_THRESHOLD)
        decision = decide(
            prediction,
            refused,
            release=stored.name,
            stage=task.stage,
            fits=fits,
            coin=self._coins.random() if task.stage is Stage.CANARY else 0.0,
            canary_share=task.policy.canary_share,
        )
        return decision, rendered

    async def _asked_elsewhere(
        self, remote: Remote, text: str, policy: Policy, route: Route, exchange: Exchange, caller: Caller
    ) -> Prediction:
        """Ask a specialist that is an upstream's model, under the strictest rule that holds for the request; the record
        tells what that took. Raises as `Elsewhere.predict`, and Refused where the caller's budget is used up."""
        egress = strictest(policy.egress, caller.egress)
        self._elsewhere.may(remote.upstream, egress, inside=route is Route.SPECIALIST)
        self._access.reserve(caller, exchange)
        prediction, usage = await self._elsewhere.predict(remote, text, egress, exchange.attempts)
        exchange.consulted = (remote.upstream, remote.model, usage)
        return prediction

    def _draw(self, task: Routed, exchange: Exchange) -> None:
        """Make the request a step of its task's watch, and draw the coin of its audit."""
        watch = task.watch
        if watch is None or task.stage not in (Stage.CANARY, Stage.LIVE):
            return
        exchange.watch, exchange.stakes = watch.n, watch.stakes
        if exchange.score is None:
            return
        chance = watch.audits.probability(exchange.score)
        exchange.coin = audit_chance(task.stage, Reason(exchange.reason), chance, task.policy.canary_share)
        if exchange.coin is not None:
            exchange.audited = exchange.reason == Reason.CANARY or self._coins.random() < chance

    def _passed(self, scope: Scope, receive: Receive, exchange: Exchange) -> Upload | None:
        """Note what is passed through, and take its body as one to pass on in pieces; None for one to take in whole."""
        if wants_socket(scope):
            raise no_socket()
        exchange.path = f"{scope['method']} {path_below(scope).partition('?')[0]}"
        return upload_of(scope, receive, self._max_body)

    def _sending(
        self,
        dialect: Dialect,
        scope: Scope,
        asked: Asked,
        policy: Policy,
        caller: Caller,
        only: str | None = None,
        upload: Upload | None = None,
    ) -> Sending:
        """The call as an upstream may get it, under the strictest rule that holds for it."""
        query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        return Sending(
            dialect=dialect if dialect.path else None,
            method=scope["method"],
            path=dialect.path + query if dialect.path else path_below(scope),
            headers=scope["headers"],
            model=asked.model,
            body=asked.body,
            egress=strictest(policy.egress, caller.egress),
            only=only,
            upload=upload,
        )

    async def _answer(
        self,
        dialect: Dialect,
        decision: Accepted,
        rendered: Rendered,
        asked: Asked,
        exchange: Exchange,
        send: Send,
    ) -> None:
        """The specialist's answer, in the shape that the frontier gives, streamed if asked."""
        told = Told(
            record=exchange.id,
            model=f"suffice/{decision.release}",
            created=int(exchange.at),
            prompt_tokens=estimated_tokens("".join(message.text for message in asked.request.messages)),
        )
        exchange.route, exchange.status = "specialist", 200
        if exchange.consulted is not None:
            exchange.upstream = exchange.consulted[0]
        if not asked.stream:
            body = dialect.whole(rendered, told, asked)
            exchange.chunk(body)
            await self._written_lately()
            await send_whole(send, 200, [*JSON, *ours(exchange)], body)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *ours(exchange)]})
        for event in dialect.events(rendered, told, asked):
            exchange.chunk(event)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await self._written_lately()
        await send({"type": "http.response.body", "body": b""})

    async def _relay(self, sending: Sending, exchange: Exchange, receive: Receive, send: Send) -> None:
        """The original bytes go upstream; status, headers and bytes come back as they arrive.

        A caller that hangs up cancels the upstream call. An upstream that breaks off after its first byte breaks the
        caller's connection too: an answer cut short must not look whole.
        """
        exchange.asked_ms = exchange.elapsed_ms()
        async with UntilGone(receive, self._ticks), self._outbound.call(sending, exchange.attempts) as heard:
            self._asked_of(exchange, heard.target.name)
            exchange.status, exchange.egress = heard.status, heard.egress
            exchange.encoding = heard.encoding
            exchange.streamed = heard.streamed
            exchange.keeps = sending.dialect is not None or heard.readable
            length = heard.length
            await send(
                {"type": "http.response.start", "status": heard.status, "headers": [*heard.headers, *ours(exchange)]}
            )
            while data := await heard.read():
                exchange.chunk(data)
                last = length is not None and exchange.kept >= length
                if last:
                    exchange.heard_ms = exchange.elapsed_ms()
                    await self._written_lately()
                await send({"type": "http.response.body", "body": data, "more_body": not last})
                if last:
                    return
            exchange.heard_ms = exchange.elapsed_ms()
            exchange.unsaid = heard.unsaid
            await self._written_lately()
            await send({"type": "http.response.body", "body": b""})

    async def _again(self, kept: Kept, exchange: Exchange, send: Send) -> None:
        """An upstream's answer to the same request, once more; the record tells whose it was."""
        exchange.route, exchange.upstream, exchange.status = "cache", kept.upstream, 200
        exchange.streamed, exchange.encoding = kept.streamed, kept.encoding
        await send({"type": "http.response.start", "status": 200, "headers": [*kept.headers, *ours(exchange)]})
        for data in kept.chunks:
            exchange.chunk(data)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await self._written_lately()
        await send({"type": "http.response.body", "body": b""})

    def _asked_of(self, exchange: Exchange, upstream: str) -> None:
        exchange.upstream = upstream
        exchange.route = "frontier" if upstream == self._frontier else upstream

    def _counted(self) -> list[Sample]:
        """What other parts have counted by now."""
        unwritten, lag_s, free = self._capture.waiting()
        return [
            ("suffice_faults_total", (), float(self._roster.faults)),
            ("suffice_unrecorded_total", (), float(self._capture.unrecorded)),
            ("suffice_records_unwritten", (), float(unwritten)),
            ("suffice_records_lag_seconds", (), lag_s),
            ("suffice_records_slots_free", (), float(free)),
            *(("suffice_breaker_open", (name,), float(on)) for name, on in self._outbound.breakers().items()),
            *self._roster.metrics(),
        ]

    async def _written_lately(self) -> None:
        """Before an answer's last byte: no answer is finished while the records of earlier ones lag behind."""
        if self._capture.lagging:
            await self._capture.caught_up()

    async def _refuse(self, exchange: Exchange, send: Send, error: Refused) -> None:
        """An error in the vendor's shape; if the answer has begun, all that is left is to break the connection."""
        exchange.failure = str(error)
        if exchange.first_chunk_ms is not None or exchange.status is not None:
            raise CutShort(str(error))
        exchange.status = error.status
        body = dialects.of(exchange.dialect).error(str(error), error.code, error.kind, error.param)
        exchange.chunk(body)
        await send_whole(send, error.status, [*JSON, *ours(exchange), *error.headers], body)

    # ------------------------------------------------------------------------------------------ its life

    async def open(self) -> None:
        """Start what lives as long as these settings; roster and capture live as long as the process (`reload`)."""
        await asyncio.to_thread(self._outbound.gate.open)
        await self._upstreams.__aenter__()
        self._counting = self._metrics.watch(self._config, self._counted)
        if self._traces is not None:
            self._traces.adopt(self._config)

    async def close(self, within_s: float) -> None:
        """When no request is under way: give audits some time, then let go of the upstreams."""
        try:
            await self._audits.stop(within_s)
        finally:
            self._counting.cancel()
            await self._upstreams.__aexit__()


def _kept_here(reason: str) -> str:
    return f"the specialist does not answer ({reason}), and `X-Suffice-Route: specialist` keeps the request here"
