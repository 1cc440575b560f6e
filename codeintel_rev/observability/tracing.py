"""Spans: always made, so that every answer has a trace id; exported only where a collector is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from codeintel_rev.config.settings import ObservabilitySettings

EXPORT_TIMEOUT_S = 1.0
"""A collector that is down costs a stopping worker this long, not the exporter's default of seven seconds."""


def open_tracing(settings: ObservabilitySettings) -> TracerProvider:
    """Return the provider of this process's spans. The caller shuts it down.

    To be called inside each worker: exporter threads do not survive the start of a process.
    """
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "codeintel"}), shutdown_on_exit=False)
    if settings.otlp_endpoint:
        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, timeout=EXPORT_TIMEOUT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=EXPORT_TIMEOUT_S * 1000))
    return provider


def trace_id() -> str:
    """Return the current trace's id as 32 hex digits; all zeros outside of any span."""
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


def trace_headers() -> dict[str, str]:
    """Return the headers that make another server's spans part of the trace in progress; none outside of any."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


@contextmanager
def span(name: str) -> Iterator[None]:
    """Make the block a span of the trace in progress; outside of any it is none."""
    if not trace.get_current_span().is_recording():
        yield
        return
    # Without the exception: its message may quote what was asked.
    with trace.get_tracer("codeintel").start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ):
        yield
