"""Traces: spans of requests for OpenTelemetry, by the semantic conventions for generative AI. Never what was said.

A caller's trace is continued (W3C `traceparent`), and the upstream's goes on below ours. On the request path there are
two identifiers and a header; the spans are made from the row once it is on the disk, in the writer's thread, and sent
by the exporter's own. The library is an extra, and its settings are the environment's `OTEL_*`.

    the call (server) > the specialist's prediction (internal)
                      > each try at an upstream (client)
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from suffice.core.config import Config, Kind
from suffice.serve.capture import Attempt, Exchange
from suffice.store.records import Row

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger(__name__)

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
OPERATIONS = {"chat": "chat", "messages": "chat", "responses": "chat", "embeddings": "embeddings"}
PROVIDERS: dict[Kind, str] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
}
"""Kinds of upstreams by the names that the conventions have for them."""

_attempts = msgspec.json.Decoder(list[Attempt]).decode
Attributes = dict[str, str | int | float | bool]


class _Model(msgspec.Struct):
    """Of an answer, only whose it is."""

    model: str | None = None


_model = msgspec.json.Decoder(_Model).decode


@dataclass(frozen=True, slots=True)
class _Trace:
    """A request's place in its trace: the caller's span above it (None: it begins one), and its own."""

    parent: Context | None
    trace: int
    span: int


class Traces:
    """Spans for an exporter. `began` and `ended` belong to the event loop, `rows` to the writer's thread."""

    def __init__(self, exporter: SpanExporter) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from suffice import __version__
        from suffice.serve.spans import Ids, resource

        self._ids = Ids()
        self._provider = TracerProvider(id_generator=self._ids, resource=resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("suffice", __version__)
        self._begun: dict[str, _Trace] = {}
        self._ended: dict[str, tuple[_Trace, Exchange]] = {}
        self._upstreams: dict[str, Attributes] = {}

    def adopt(self, config: Config) -> None:
        """Know the upstreams of these settings."""
        self._upstreams = {}
        for name, upstream in config.upstreams.items():
            told: Attributes = {"gen_ai.provider.name": PROVIDERS[upstream.kind]}
            url = urlsplit(upstream.base_url)
            if url.hostname:
                told |= {"server.address": url.hostname, "server.port": url.port or _PORTS.get(url.scheme, 443)}
            self._upstreams[name] = told

    # -- the request path

    def began(self, exchange: Exchange, scope: dict[str, Any]) -> None:
        """Continue the caller's trace, or begin one; what goes upstream then continues ours."""
        from suffice.serve.spans import continued, is_sampled

        headers = scope["headers"]
        heard = next((value for key, value in headers if key == b"traceparent"), b"")
        state = next((value for key, value in headers if key == b"tracestate"), b"")
        found = _PARENT.fullmatch(heard)
        parent = continued(found, state) if found is not None else None
        trace = int(found[2], 16) if found is not None and parent is not None else self._ids.random_trace()
        span = self._ids.random_span()
        sampled = is_sampled(self._provider.sampler, parent, trace)
        dropped = (b"traceparent",) if parent is not None else (b"traceparent", b"tracestate")
        told = f"00-{trace:032x}-{span:016x}-{int(sampled):02x}".encode()
        scope["headers"] = [*((k, v) for k, v in headers if k not in dropped), (b"traceparent", told)]
        if sampled:
            self._begun[exchange.id] = _Trace(parent, trace, span)

    def ended(self, exchange: Exchange, recorded: bool) -> None:
        """It is over; before its record is handed over. What makes no record makes no span."""
        trace = self._begun.pop(exchange.id, None)
        if trace is not None and recorded:
            self._ended[exchange.id] = (trace, exchange)

    # -- from the disk

    def rows(self, written: Sequence[Row]) -> None:
        """Spans of rows that are on the disk."""
        for row in written:
            found = self._ended.pop(row.id, None)
            if found is not None:
                self._spans(row, *found)

    def stop(self) -> None:
        """Send what is left, within the exporter's own time limit."""
        self._provider.shutdown()

    def _spans(self, row: Row, trace: _Trace, exchange: Exchange) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        began = row.at
        operation = OPERATIONS.get(row.dialect, row.dialect)
        name = f"{operation} {row.model}" if row.model else operation
        common: Attributes = {"gen_ai.operation.name": operation, "gen_ai.request.model": row.model}
        self._ids.next(trace.trace, trace.span)
        call = self._tracer.start_span(
            name, trace.parent, SpanKind.SERVER, {**common, **_call(row)}, start_time=_ns(began)
        )
        within = set_span_in_context(call)
        if exchange.predict_at_ms is not None and exchange.predict_ms is not None:
            at = began + exchange.predict_at_ms / 1e3
            model = f"suffice/{row.release}"
            told: Attributes = {**common, "gen_ai.provider.name": "suffice", "gen_ai.response.model": model}
            if row.route == "specialist":
                told |= _usage(row)
            predicting = self._tracer.start_span("predict", within, SpanKind.INTERNAL, told, start_time=_ns(at))
            predicting.end(_ns(at + exchange.predict_ms / 1e3))
        for upstream, begin, end, came in self._tries(row, exchange):
            attributes = {**common, **self._upstreams.get(upstream, {}), "suffice.upstream": upstream, **came}
            trying = self._tracer.start_span(name, within, SpanKind.CLIENT, attributes, start_time=_ns(begin))
            if "error.type" in came:
                trying.set_status(Status(StatusCode.ERROR))
            trying.end(_ns(end))
        if row.status is None or row.status >= 500 or row.failure is not None:
            call.set_status(Status(StatusCode.ERROR))
        call.end(_ns(began + (row.latency_ms or 0.0) / 1e3))

    @staticmethod
    def _tries(row: Row, exchange: Exchange) -> list[tuple[str, float, float, Attributes]]:
        """Each try at an upstream: which, from when to when, and what came of it."""
        if exchange.asked_ms is None:
            return []
        begin, tries = row.at + exchange.asked_ms / 1e3, []
        attempts = _attempts(row.attempts) if row.attempts is not None else []
        for attempt in attempts:
            begin = attempt.at or begin
            told: Attributes = {"error.type": str(attempt.status or "unreachable")}
            if attempt.status is not None:
                told["http.response.status_code"] = attempt.status
            tries.append((attempt.upstream, begin, begin + attempt.ms / 1e3, told))
            begin += attempt.ms / 1e3
        if row.upstream is not None and (exchange.heard_ms is not None or not attempts):
            ended_ms = exchange.heard_ms if exchange.heard_ms is not None else row.latency_ms or 0.0
            tries.append((row.upstream, begin, max(begin, row.at + ended_ms / 1e3), _answered(row)))
        return tries


_PORTS = {"http": 80, "https": 443}


def opened(environ: Mapping[str, str] = os.environ) -> Traces | None:
    """Traces as the environment asks for them: OTLP over HTTP. None where it does not, or the extra is missing."""
    kind = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or kind == "none" or not (kind or endpoint):
        return None
    if kind not in ("", "otlp"):
        log.warning("OTEL_TRACES_EXPORTER is otlp or none, not %r: no traces are sent", kind)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        log.warning("traces are asked for by OTEL_*, and the extra `otel` is not installed: none are sent")
        return None
    return Traces(OTLPSpanExporter())


def _call(row: Row) -> Attributes:
    """What is told of the call: how it was decided, and what came of it."""
    told: dict[str, Any] = {
        "gen_ai.request.stream": row.streamed,
        "gen_ai.conversation.id": row.session,
        "http.response.status_code": row.status,
        "suffice.record": row.id,
        "suffice.route": row.route,
        "suffice.reason": row.reason,
        "suffice.task": row.task,
        "suffice.match": row.rule,
        "suffice.release": row.release,
        "suffice.score": row.score,
        "suffice.threshold": row.threshold,
        "suffice.key": row.key,
        "suffice.cost_usd": row.cost_usd,
    }
    if row.status is None or row.status >= 400 or row.failure is not None:
        told["error.type"] = str(row.status) if row.status is not None and row.status >= 400 else "cut_short"
    return {name: value for name, value in told.items() if value is not None}


def _answered(row: Row) -> Attributes:
    """What is told of the try that answered."""
    told = _usage(row)
    if row.status is not None:
        told["http.response.status_code"] = row.status
    if row.response_id is not None:
        told["gen_ai.response.id"] = row.response_id
    if row.streamed and row.first_chunk_ms is not None:
        told["gen_ai.response.time_to_first_chunk"] = row.first_chunk_ms / 1e3
    try:
        model = _model(row.answer).model if row.answer else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        model = None
    if model is not None:
        told["gen_ai.response.model"] = model
    if row.failure is not None or (row.status or 0) >= 400:
        told["error.type"] = str(row.status) if (row.status or 0) >= 400 else "cut_short"
    return told


def _usage(row: Row) -> Attributes:
    counts = {
        "gen_ai.usage.input_tokens": row.prompt_tokens,
        "gen_ai.usage.output_tokens": row.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": row.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": row.written_tokens,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _ns(at: float) -> int:
    return int(at * 1e9)
