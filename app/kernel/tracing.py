"""Traces by option: spans of a message, its verb and its commit; of a command, a request, a job (OpenTelemetry).

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set: then `span` is one comparison, and what makes traces is not loaded.
On, whatever is logged inside a span carries its trace's id, and a job goes on in the trace of what enqueued it. Spans
name tenants and stations by id; never a person, a card or what a message says. Everything else (headers, sampling, the
service's name) is OpenTelemetry's own environment.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

_OFF: AbstractContextManager[Any] = nullcontext()
_tracer: Any = None


def set_up(service: str, *, endpoint: str | None, exporter: Any = None) -> None:
    """Once in a process, before its first span. `exporter` instead of OTLP over HTTP, for tests; it is told at once."""
    global _tracer
    if endpoint is None and exporter is None:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("livery")
    logging.setLogRecordFactory(TracedRecord)


def shut_down() -> None:
    """Off again: what follows is not traced."""
    global _tracer
    _tracer = None
    logging.setLogRecordFactory(logging.LogRecord)


def span(name: str, *, parent: str | None = None, **attributes: Any) -> AbstractContextManager[Any]:
    """Around a piece of work: the span, or None where traces are off. What is raised inside marks it as failed.

    `parent` is a W3C traceparent (`carried`). Never around the `yield` of a generator: its context is another's.
    """
    if _tracer is None:
        return _OFF
    told = {
        f"livery.{key}": value if isinstance(value, int) else str(value) for key, value in attributes.items()
    }
    return _tracer.start_as_current_span(name, context=_context(parent), attributes=told)


def carried() -> dict[str, str]:
    """What takes the trace along into a job's arguments; empty where there is none."""
    if _tracer is None:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if name == "traceparent"}


def trace_id() -> str | None:
    """Of the span that is open here: 32 hexadecimal digits."""
    if _tracer is None:
        return None
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def _context(parent: str | None) -> Any:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


class TracedRecord(logging.LogRecord):
    """A line of the log that ends with its trace's id, whatever formats it."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.trace_id = trace_id()

    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        message = super().getMessage()
        return f"{message} trace={self.trace_id}" if self.trace_id else message
