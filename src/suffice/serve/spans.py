"""What `traces` needs of OpenTelemetry's library: to be imported only where that is installed."""

from __future__ import annotations

import random
import re

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

SERVICE = "suffice"


class Ids(IdGenerator):
    """Identifiers that were drawn before their span is made: an upstream knows them by then. `next` belongs to the
    thread that makes the spans."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._next: tuple[int, int] | None = None

    def next(self, trace: int, span: int) -> None:
        """The next span made has these."""
        self._next = (trace, span)

    def random_trace(self) -> int:
        """128 bits, not all 0."""
        return self._random.getrandbits(128) or 1

    def random_span(self) -> int:
        """64 bits, not all 0."""
        return self._random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        """As the library asks for it, before the span's."""
        return self._next[0] if self._next is not None else self.random_trace()

    def generate_span_id(self) -> int:
        """As the library asks for it."""
        span = self._next[1] if self._next is not None else self.random_span()
        self._next = None
        return span


def is_sampled(sampler: Sampler, parent: Context | None, trace: int) -> bool:
    """Whether the settings want this trace: asked ahead, since the upstream is told by then."""
    return sampler.should_sample(parent, trace, "").decision is Decision.RECORD_AND_SAMPLE


def resource() -> Resource:
    """Who sends the spans: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else this."""
    made = Resource.create({})
    unnamed = str(made.attributes.get("service.name", "")).startswith("unknown_service")
    return made.merge(Resource({"service.name": SERVICE})) if unnamed else made


def continued(found: re.Match[bytes], state: bytes) -> Context | None:
    """The caller's span as a parent; None where its header is one that the standard forbids."""
    trace, span = int(found[2], 16), int(found[3], 16)
    if found[1] == b"ff" or not trace or not span:
        return None
    context = SpanContext(
        trace,
        span,
        is_remote=True,
        trace_flags=TraceFlags(int(found[4], 16) & TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state.decode("latin-1")]) if state else None,
    )
    return set_span_in_context(NonRecordingSpan(context), Context())
