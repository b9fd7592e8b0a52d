"""The request path, from top to bottom: what happens to a call between its first byte and its record.

    bytes -> what routing needs -> task -> specialist -> decision -> its answer, or the original bytes go upstream
    and what comes back is relayed as it arrives -> record

Hot routes are plain ASGI; the rest is Starlette. Not known here: which model families exist, how a release came to
be, how rows are written.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as HttpRoute

from suffice.core.config import Config
from suffice.core.contracts import refusal
from suffice.core.errors import InputError, StoreError, SufficeError
from suffice.core.style import Rendered, estimated_tokens
from suffice.core.types import TASK_NAME, Accepted, Decision, Escalated, Reason, Request, Route, Stage
from suffice.serve.audits import Audits
from suffice.serve.capture import Capture, Exchange
from suffice.serve.cascade import audit_chance, closed, decide
from suffice.serve.feedback import feedback
from suffice.serve.roster import Roster, Routed
from suffice.serve.upstream import UpstreamError, Upstreams, returned
from suffice.store.releases import Stored
from suffice.wire import chat
from suffice.wire.chat import ChatRequest

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
GONE_S = 0.05
"""A caller that hangs up is noticed after this long at the latest."""
AUDITS_END_S = 5.0
"""How long a server that stops waits for audits under way."""
DRAINED = 4
"""How many times the limit a body that is too large is read on."""
_LABEL = re.compile(r"[\x20-\x7e]{1,200}")


class Refused(SufficeError):
    """A request that goes nowhere: HTTP status and code beside the sentence."""

    def __init__(self, message: str, status: int, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Gone(Exception):
    """The caller hung up."""


class CutShort(Exception):
    """An answer broke off after it had begun: the server is to break the caller's connection."""


class Gateway:
    """The ASGI application. `coins` draws the coins of canaries and audits."""

    def __init__(
        self,
        config: Config,
        roster: Roster,
        capture: Capture,
        upstreams: Upstreams,
        audits: Audits,
        coins: random.Random,
    ) -> None:
        self._config, self._roster, self._capture, self._upstreams = config, roster, capture, upstreams
        self._audits, self._coins = audits, coins
        self._max_body = int(config.server.max_body_mb * 2**20)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._rest = Starlette(
            routes=[
                HttpRoute("/healthz", self._healthz),
                HttpRoute("/readyz", self._readyz),
                HttpRoute("/metrics", self._metrics),
                HttpRoute("/v1/models", self._models),
                HttpRoute("/v1/feedback", feedback(roster.home), methods=["POST"]),
            ],
            exception_handlers={404: _not_found, 405: _not_found},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route by path; everything but chat completions is cold."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and scope["path"] == "/v1/chat/completions" and scope["method"] == "POST":
            await self._chat(scope, receive, send)
        else:
            await self._rest(scope, receive, send)  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------ the path

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One chat completion, from admission to its record."""
        exchange = Exchange()
        recorded, reply, late = False, send, None
        try:
            exchange.request = await _body(receive, self._max_body)
            recorded = await self._capture.reserve()
            if recorded and self._config.records.synchronous:
                send = late = _AfterRecord(self._capture, exchange, send)
            asked, headers = ChatRequest(exchange.request), _Headers(scope["headers"])
            exchange.model, exchange.streamed = asked.model, asked.stream
            exchange.session, exchange.group, exchange.slices = headers.session, headers.group, headers.slices

            task, exchange.rule = self._task(asked, headers.task)
            decision, rendered = await self._decide(task, asked, headers.route, exchange)
            if task is not None and headers.route is Route.AUTO:
                self._draw(task, exchange)
            if isinstance(decision, Accepted) and rendered is not None:
                await self._answer(decision, rendered, asked, exchange, send)
                if exchange.audited:
                    self._audit(scope, asked, exchange)
            elif headers.route is Route.SPECIALIST:
                raise Refused(_kept_here(exchange.reason), 424, exchange.reason)
            else:
                await self._relay(scope, asked, exchange, receive, send)
        except Gone:
            exchange.failure = "the caller hung up"
        except Refused as error:
            await self._refuse(exchange, reply, error)
        except InputError as error:
            await self._refuse(exchange, reply, Refused(str(error), 400, "invalid_request"))
        except StoreError as error:
            if late is not None and not late.begun:
                exchange.status = exchange.first_chunk_ms = None
            await self._refuse(exchange, reply, Refused(str(error), 503, "records_unavailable"))
        except UpstreamError as error:
            await self._refuse(exchange, reply, Refused(str(error), error.status, error.code))
        except asyncio.CancelledError:
            exchange.failure = exchange.failure or "the server stopped before the answer was whole"
            raise
        except Exception:
            exchange.failure = "an error of the gateway's own"
            raise
        finally:
            self._counts[exchange.route, exchange.reason] += 1
            if recorded and exchange.latency_ms is None:
                exchange.latency_ms = exchange.elapsed_ms()
                self._capture.put(exchange)

    def _task(self, asked: ChatRequest, declared: str | None) -> tuple[Routed | None, str | None]:
        """The task that a header declares, else the one whose rule the request meets; and which rule that was."""
        if declared is not None:
            return self._roster.declared(declared), "header"
        return self._roster.matched(asked.request) if self._roster.has_rules else (None, None)

    async def _decide(
        self, task: Routed | None, asked: ChatRequest, route: Route, exchange: Exchange
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
            decision, rendered = await self._ask(task, task.stored, asked.request, exchange)
            if stage is Stage.REVOKED and isinstance(decision, Escalated):
                decision = msgspec.structs.replace(decision, reason=Reason.REVOKED)
        exchange.reason = Reason.ACCEPTED if isinstance(decision, Accepted) else decision.reason
        if decision.prediction is not None:
            exchange.score, exchange.predicted = decision.prediction.score, decision.prediction.value
        return decision, rendered

    async def _ask(
        self, task: Routed, stored: Stored, request: Request, exchange: Exchange
    ) -> tuple[Decision, Rendered | None]:
        """Read the view, predict, decide."""
        text = await self._roster.read(task, request)
        if isinstance(text, Reason):
            return Escalated(reason=text, release=stored.name), None
        threshold = stored.release.draft.threshold.score
        exchange.input, exchange.threshold = text, threshold
        predicted = await self._roster.predict(task, text)
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

    def _audit(self, scope: Scope, asked: ChatRequest, exchange: Exchange) -> None:
        """The caller has his answer; ask the frontier for its own."""
        chosen = self._config.upstream_for(asked.model)
        if chosen is not None:
            self._audits.ask(exchange, chosen, _path(scope), scope["headers"])

    async def _answer(
        self, decision: Accepted, rendered: Rendered, asked: ChatRequest, exchange: Exchange, send: Send
    ) -> None:
        """The specialist's answer, in the shape that the frontier gives, streamed if asked."""
        told: dict[str, Any] = {
            "record": exchange.id,
            "model": f"suffice/{decision.release}",
            "created": int(exchange.at),
            "prompt_tokens": estimated_tokens("".join(message.text for message in asked.request.messages)),
        }
        exchange.route, exchange.status = "specialist", 200
        if not asked.stream:
            body = chat.completion(rendered, **told)
            exchange.chunk(body)
            await self._written_lately()
            await _send_whole(send, 200, [*JSON, *_ours(exchange)], body)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *_ours(exchange)]})
        for event in chat.stream(rendered, **told, include_usage=asked.include_usage):
            exchange.chunk(event)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await self._written_lately()
        await send({"type": "http.response.body", "body": b""})

    async def _relay(self, scope: Scope, asked: ChatRequest, exchange: Exchange, receive: Receive, send: Send) -> None:
        """The original bytes go upstream; status, headers and bytes come back as they arrive.

        A caller that hangs up cancels the upstream call. An upstream that breaks off after its first byte breaks the
        caller's connection too: an answer cut short must not look whole.
        """
        chosen = self._config.upstream_for(asked.model)
        if chosen is None:
            raise Refused(
                "no upstream is configured: add [upstreams.NAME] with a base_url to suffice.toml", 503, "no_upstream"
            )
        exchange.upstream = chosen
        exchange.route = "frontier" if chosen == self._config.frontier else chosen
        async with (
            _UntilGone(receive),
            self._upstreams.call(chosen, "POST", _path(scope), scope["headers"], asked.body) as response,
        ):
            headers = returned(response)
            exchange.status = response.status
            exchange.encoding = response.headers.get("content-encoding", "")
            exchange.streamed = response.content_type == "text/event-stream"
            length = response.content_length
            await send(
                {"type": "http.response.start", "status": response.status, "headers": [*headers, *_ours(exchange)]}
            )
            async for data in self._upstreams.chunks(chosen, response):
                exchange.chunk(data)
                last = length is not None and exchange.kept >= length
                if last:
                    await self._written_lately()
                await send({"type": "http.response.body", "body": data, "more_body": not last})
                if last:
                    return
            await self._written_lately()
            await send({"type": "http.response.body", "body": b""})

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
        kind = "invalid_request_error" if error.status < 500 else "api_error"
        body = chat.error(str(error), error.code, kind, error.param)
        exchange.chunk(body)
        await _send_whole(send, error.status, [*JSON, *_ours(exchange)], body)

    # ------------------------------------------------------------------------------------------ cold routes

    async def _healthz(self, request: HttpRequest) -> Response:
        """The process is alive."""
        return _json({"status": "ok"})

    async def _readyz(self, request: HttpRequest) -> Response:
        """It can serve: records can be written and the routing state is fresh."""
        problems = [self._capture.failure] if self._capture.failure else []
        if not self._roster.fresh:
            problems.append("the routing state is older than a second")
        document = {"status": "ready" if not problems else "not ready", "problems": problems}
        return _json({**document, "specialists": len(self._roster.shelf)}, 503 if problems else 200)

    async def _metrics(self, request: HttpRequest) -> Response:
        """Counters in Prometheus' text format; every label value is out of a closed list or the configuration."""
        lines = ["# TYPE suffice_requests_total counter"]
        for (route, reason), count in sorted(self._counts.items()):
            lines.append(f'suffice_requests_total{{route="{route}",reason="{reason}"}} {count}')
        lines.append("# TYPE suffice_audits_total counter")
        lines += [f'suffice_audits_total{{outcome="{name}"}} {n}' for name, n in sorted(self._audits.counts.items())]
        for name, value in (("faults", self._roster.faults), ("unrecorded", self._capture.unrecorded)):
            lines += [f"# TYPE suffice_{name}_total counter", f"suffice_{name}_total {value}"]
        lines += self._roster.metrics()
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    async def _models(self, request: HttpRequest) -> Response:
        """The default upstream's list as it came, with the releases that are served added to it."""
        ours = [
            {
                "id": f"suffice/{task.stored.name}",
                "object": "model",
                "created": int(task.stored.created_at),
                "owned_by": "suffice",
            }
            for task in self._roster.tasks.values()
            if task.stored is not None and task.stage in (Stage.CANARY, Stage.LIVE)
        ]
        chosen = self._config.frontier
        if chosen is None:
            return _json({"object": "list", "data": ours})
        try:
            async with self._upstreams.call(chosen, "GET", "/models", request.scope["headers"]) as response:
                body = b"".join([data async for data in self._upstreams.chunks(chosen, response)])
                kind = response.headers.get("content-type", "application/json")
                listed = msgspec.json.decode(body) if response.status == 200 else None
        except UpstreamError as error:
            return Response(
                chat.error(str(error), error.code, "api_error"), error.status, media_type="application/json"
            )
        except msgspec.DecodeError:
            listed = None
        if isinstance(listed, dict) and isinstance(listed.get("data"), list):
            return _json({**listed, "data": [*listed["data"], *ours]})
        return Response(body, response.status, headers={"content-type": kind})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start and stop what lives as long as the server."""
        await receive()
        try:
            await asyncio.to_thread(self._roster.open)
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await self._capture.start()
        async with self._upstreams:
            polling = asyncio.ensure_future(self._roster.run())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            polling.cancel()
            await self._audits.stop(AUDITS_END_S)
            await self._capture.stop()
            self._roster.close()
        await send({"type": "lifespan.shutdown.complete"})


class _Headers:
    """Our own request headers, checked. Raises Refused naming the header."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        found = {key[10:]: value.decode("latin-1").strip() for key, value in raw if key[:10] == b"x-suffice-"}
        self.task: str | None = None
        self.session: str | None = None
        self.group: str | None = None
        self.slices, self.route = "", Route.AUTO
        if not found:
            return
        self.task, self.session, self.group = (self._label(found, name) for name in (b"task", b"session", b"group"))
        if self.task is not None and not TASK_NAME.fullmatch(self.task):
            raise Refused(
                "X-Suffice-Task: a task's name is 1 to 64 letters, digits, dots, dashes or underscores",
                400,
                "bad_header",
            )
        slices = [name.strip() for name in (self._label(found, b"slices") or "").split(",")]
        if any(name and not TASK_NAME.fullmatch(name) for name in slices):
            raise Refused("X-Suffice-Slices: names separated by commas", 400, "bad_header")
        self.slices = ",".join(name for name in slices if name)
        try:
            self.route = Route(found.get(b"route", "auto"))
        except ValueError as error:
            raise Refused(
                f"X-Suffice-Route: auto, frontier or specialist, not {found[b'route']!r}", 400, "bad_header"
            ) from error

    @staticmethod
    def _label(found: dict[bytes, str], name: bytes) -> str | None:
        value = found.get(name)
        if value is not None and not _LABEL.fullmatch(value):
            raise Refused(f"X-Suffice-{name.decode().title()}: 1 to 200 printable characters", 400, "bad_header")
        return value


class _AfterRecord:
    """`send` whose last byte waits until the record is on the disk (`records.synchronous`).

    The status waits for the first byte of the body, so that a whole answer whose record fails can still be a 503.
    """

    def __init__(self, capture: Capture, exchange: Exchange, send: Send) -> None:
        self._capture, self._exchange, self._send = capture, exchange, send
        self._start: dict[str, Any] | None = None
        self.begun = False

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if not message.get("more_body"):
            self._exchange.latency_ms = self._exchange.elapsed_ms()
            await self._capture.written(self._exchange)
        if self._start is not None and not self.begun:
            self.begun = True
            await self._send(self._start)
        await self._send(message)


class _UntilGone:
    """Cancels the block when the caller hangs up, and raises Gone in its place.

    It looks only after a moment: most answers are there by then, and a task for each would cost a tenth of the relay.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(GONE_S, self._start)

    def _start(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError:
            self._task.uncancel()
            raise Gone


async def _body(receive: Receive, limit: int) -> bytes:
    """The whole request body. Raises Refused (413) beyond the limit, Gone if the caller leaves.

    A body that is too large is read on, to a point, and thrown away: most clients read no answer while they write.
    """
    chunks: list[bytes] = []
    size = 0
    more = True
    while more and size <= DRAINED * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        size += len(message.get("body", b""))
        if size <= limit:
            chunks.append(message.get("body", b""))
        else:
            chunks.clear()
        more = message.get("more_body", False)
    if size > limit:
        raise Refused(
            f"the request body is larger than {limit / 2**20:g} MB (server.max_body_mb)", 413, "body_too_large"
        )
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _ours(exchange: Exchange) -> Headers:
    """What every answer carries: its record, its route and why."""
    headers = [
        (b"x-suffice-record", exchange.id.encode()),
        (b"x-suffice-route", exchange.route.encode()),
        (b"x-suffice-reason", exchange.reason.encode()),
    ]
    if exchange.task is not None:
        headers.append((b"x-suffice-task", exchange.task.encode()))
        headers.append((b"x-suffice-match", (exchange.rule or "").encode()))
    if exchange.release is not None:
        headers.append((b"x-suffice-release", exchange.release.encode()))
    if exchange.score is not None:
        headers.append((b"x-suffice-score", b"%.6f" % exchange.score))
    if exchange.threshold is not None:
        headers.append((b"x-suffice-threshold", b"%.6f" % exchange.threshold))
    return headers


def _path(scope: Scope) -> str:
    """Where a chat completion is asked of an upstream: its path below `base_url`, with the caller's query."""
    return "/chat/completions" + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")


def _kept_here(reason: str) -> str:
    return f"the specialist does not answer ({reason}), and `X-Suffice-Route: specialist` keeps the request here"


async def _send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def _not_found(request: HttpRequest, error: Exception) -> Response:
    body = chat.error(f"{request.method} {request.url.path} is not served here", "not_found")
    return Response(body, getattr(error, "status_code", 404), media_type="application/json")
