"""Tracing with OpenTelemetry. Only imported if OUTBOX_TRACING asks for it."""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.tracing.spans import Kind, OpenSpan, Span, Tracing
from shared.version import VERSION

_HEADER: Final = "traceparent"
_KINDS: Final = {
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
}
_PROPAGATOR: Final = TraceContextTextMapPropagator()


def otlp_tracing(service: str) -> "OtelTracing":
    """Return tracing that sends spans over OTLP/HTTP from its own thread; OTEL_* variables set where and how."""
    name = os.environ.get("OTEL_SERVICE_NAME", service)
    resource = Resource.create({"service.name": name, "service.version": VERSION})
    # OpenTelemetry's own shutdown waits half a minute for a collector that does not answer.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracing = OtelTracing(provider)
    atexit.register(tracing.flush)
    return tracing


class OtelTracing(Tracing):
    """Records spans with its own provider; OpenTelemetry's global one stays free for other code."""

    is_on = True

    def __init__(self, provider: TracerProvider, *, flush_seconds: float = 1.0) -> None:
        self._flush_seconds = flush_seconds
        self.provider = provider
        self._tracer = provider.get_tracer("outbox-signup", VERSION)

    def traceparent(self) -> str | None:
        """Return the current span as a parent."""
        return _traceparent(None)

    @contextmanager
    def span(self, name: str, kind: Kind, *, parent: str | None = None) -> Iterator[Span]:
        """Record a span. An exception marks it as failed, without the exception's text."""
        with self._tracer.start_as_current_span(
            name,
            context=_context(parent),
            kind=_KINDS[kind],
            record_exception=False,
            set_status_on_exception=False,
        ) as recorded:
            span = _RecordedSpan(recorded)
            try:
                yield span
            except BaseException:
                span.failed()
                raise

    def begin(self, name: str, kind: Kind, *, parent: str | None) -> OpenSpan:
        """Start a span without making it the current one."""
        context = Context() if parent is None else _context(parent)
        return _RecordedOpenSpan(self._tracer.start_span(name, context=context, kind=_KINDS[kind]))

    def past_span(self, name: str, kind: Kind, parent: str, began: float, ended: float) -> str | None:
        """Record a span with the given times."""
        recorded = self._tracer.start_span(
            name, context=_context(parent), kind=_KINDS[kind], start_time=_nanoseconds(began)
        )
        recorded.end(_nanoseconds(max(began, ended)))
        return _traceparent(trace.set_span_in_context(recorded))

    def flush(self) -> None:
        """Send the recorded spans, for at most flush_seconds: a worker's next mail or its end waits for this.

        OpenTelemetry accepts a time limit and ignores it.
        """
        sending = threading.Thread(target=self.provider.force_flush, name="flush", daemon=True)
        sending.start()
        sending.join(self._flush_seconds)


class _RecordedSpan(Span):
    def __init__(self, recorded: trace.Span) -> None:
        self._recorded = recorded

    def note(self, name: str, value: str | int) -> None:
        self._recorded.set_attribute(name, value)

    def failed(self) -> None:
        self._recorded.set_status(StatusCode.ERROR)


class _RecordedOpenSpan(_RecordedSpan, OpenSpan):
    def __init__(self, recorded: trace.Span) -> None:
        super().__init__(recorded)
        self.traceparent = _traceparent(trace.set_span_in_context(recorded))

    def end(self) -> None:
        self._recorded.end()


def _context(parent: str | None) -> Context | None:
    """Return the context of a traceparent; a malformed one starts a new trace."""
    return None if parent is None else _PROPAGATOR.extract({_HEADER: parent}, Context())


def _traceparent(context: Context | None) -> str | None:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier.get(_HEADER)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
