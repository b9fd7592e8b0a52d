"""Traces: the caller's goes on, the spans tell what the record tells, by the conventions' own names."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes

from suffice.core.config import Config, Upstream
from suffice.serve import traces as module
from suffice.serve.capture import Attempt, Exchange
from suffice.serve.traces import Traces
from suffice.store.records import Row

CALLERS = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Traces:
    made = Traces(exporter)
    made.adopt(Config(upstreams={"openai": Upstream(base_url="http://gpt.example:8080/v1")}))
    return made


def _scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": [(b"host", b"here"), *headers]}


def _sent(scope: dict[str, Any], name: bytes = b"traceparent") -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _spans(traces: Traces, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    traces.stop()
    return list(exporter.get_finished_spans())


def _done(traces: Traces, exchange: Exchange, **fields: Any) -> None:
    traces.ended(exchange, recorded=True)
    base = Row(id=exchange.id, at=1000.0, source="live", model="gpt-4o", upstream="openai", route="frontier",
               status=200, latency_ms=50.0, prompt_tokens=9, completion_tokens=3)  # fmt: skip
    traces.rows([msgspec.structs.replace(base, **fields)])


def test_the_callers_trace_goes_on_through_us(traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange, scope = Exchange(asked_ms=5.0, heard_ms=45.0), _scope((b"traceparent", CALLERS), (b"tracestate", b"a=b"))
    traces.began(exchange, scope)
    _done(traces, exchange, answer=b'{"id": "x", "model": "gpt-4o-2024-08-06"}', response_id="x")
    trying, call = _spans(traces, exporter)
    assert call.parent is not None and call.parent.span_id == 0xB7AD6B7169203331
    assert call.context is not None and call.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert _sent(scope) == [f"00-0af7651916cd43dd8448eb211c80319c-{call.context.span_id:016x}-01".encode()]
    assert _sent(scope, b"tracestate") == [b"a=b"]
    assert trying.parent is not None and trying.parent.span_id == call.context.span_id
    assert (call.start_time, call.end_time) == (1_000_000_000_000, 1_000_050_000_000)
    assert (trying.start_time, trying.end_time) == (1_000_005_000_000, 1_000_045_000_000)
    told = dict(trying.attributes or {})
    assert told["gen_ai.response.model"] == "gpt-4o-2024-08-06"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (9, 3)
    assert (told["server.address"], told["server.port"]) == ("gpt.example", 8080)
    assert "gen_ai.usage.input_tokens" not in (call.attributes or {}), "tokens are told once in a trace"


@pytest.mark.parametrize("header", [b"", b"00-00-00-01", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
                                    b"ff" + CALLERS[2:], CALLERS[:-1] + b"g", CALLERS.upper()])  # fmt: skip
def test_without_a_good_header_a_trace_begins(header: bytes, traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange, scope = Exchange(), _scope((b"traceparent", header), (b"tracestate", b"a=b"))
    traces.began(exchange, scope)
    _done(traces, exchange, upstream=None, route="specialist")
    (call,) = _spans(traces, exporter)
    assert call.parent is None and call.context is not None
    assert _sent(scope) == [f"00-{call.context.trace_id:032x}-{call.context.span_id:016x}-01".encode()]
    assert _sent(scope, b"tracestate") == []


def test_what_the_caller_does_not_sample_is_relayed_and_not_sent(
    traces: Traces, exporter: InMemorySpanExporter
) -> None:
    exchange, scope = Exchange(), _scope((b"traceparent", CALLERS[:-1] + b"0"))
    traces.began(exchange, scope)
    _done(traces, exchange)
    assert _sent(scope)[0].endswith(b"-00")
    assert _spans(traces, exporter) == []


def test_each_try_is_a_span(traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange = Exchange(asked_ms=1.0, heard_ms=40.0)
    traces.began(exchange, _scope())
    tried = [Attempt(upstream="openai", ms=4.0, status=503, at=1000.001), Attempt(upstream="other", ms=2.0)]
    _done(traces, exchange, attempts=msgspec.json.encode(tried).decode())
    first, second, last, call = _spans(traces, exporter)
    assert [dict(span.attributes or {}).get("error.type") for span in (first, second, last, call)] == [
        "503", "unreachable", None, None,
    ]  # fmt: skip
    assert first.start_time == 1_000_001_000_000 and last.end_time == 1_000_040_000_000


def test_a_specialists_prediction_is_a_span(traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange = Exchange(predict_at_ms=1.0, predict_ms=2.5)
    traces.began(exchange, _scope())
    _done(traces, exchange, upstream=None, route="specialist", release="triage@1", task="triage", score=0.9,
          rule="template:3", input="a secret text", request=b"{}", answer=b"{}")  # fmt: skip
    predicting, call = _spans(traces, exporter)
    assert predicting.name == "predict" and predicting.start_time == 1_000_001_000_000
    told = dict(call.attributes or {})
    assert (told["suffice.match"], told["suffice.release"], told["suffice.score"]) == ("template:3", "triage@1", 0.9)
    assert "a secret text" not in predicting.to_json() + call.to_json()


def test_what_makes_no_record_makes_no_span_and_is_forgotten(traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange = Exchange()
    traces.began(exchange, _scope())
    traces.ended(exchange, recorded=False)
    assert not traces._begun and not traces._ended
    assert _spans(traces, exporter) == []


def test_the_names_are_the_conventions_own(traces: Traces, exporter: InMemorySpanExporter) -> None:
    exchange = Exchange(asked_ms=1.0, heard_ms=2.0, predict_at_ms=0.1, predict_ms=0.2)
    traces.began(exchange, _scope())
    _done(traces, exchange, session="s", streamed=True, first_chunk_ms=2.0, cached_tokens=1, written_tokens=1,
          response_id="x", answer=b'{"model": "m"}', failure="cut")  # fmt: skip
    used = {name for span in _spans(traces, exporter) for name in span.attributes or {}}
    known = {value for part in (gen_ai_attributes, error_attributes, http_attributes, server_attributes)
             for value in vars(part).values() if isinstance(value, str)}  # fmt: skip
    assert {name for name in used if not name.startswith("suffice.")} <= known
    assert len([name for name in used if name.startswith("gen_ai.")]) >= 12
    providers = {value.value for value in gen_ai_attributes.GenAiProviderNameValues}
    assert set(module.PROVIDERS.values()) <= providers


def test_off_unless_the_environment_asks() -> None:
    assert module.opened({}) is None
    assert module.opened({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) is None
    assert module.opened({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}) is None
    assert module.opened({"OTEL_TRACES_EXPORTER": "zipkin"}) is None
