"""Spans: how many, where they go, and what a dead collector costs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from fakes import open_fakes
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from codeintel_rev.app.main import create_app
from codeintel_rev.config.settings import ObservabilitySettings, Settings
from codeintel_rev.observability.tracing import open_tracing, trace_id
from codeintel_rev.retrieval.options import Options
from codeintel_rev.types import Scope
from tests.indexed import LONG_MS
from tests.token_indexed import WordTokens, bank, opened, with_tokens


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    """An OTLP/HTTP collector: its endpoint, and the names of the spans it got."""
    names: list[str] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            names.extend(
                span.name for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/traces", names
    server.shutdown()
    server.server_close()


async def test_a_request_is_one_span_and_a_probe_none(collector: tuple[str, list[str]]) -> None:
    """Trap T8: without exclude_spans every chunk of a response is a span too."""
    endpoint, names = collector
    app = create_app(Settings(observability=ObservabilitySettings(otlp_endpoint=endpoint)), open_fakes)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    async with app.router.lifespan_context(app), client:
        await client.post("/search", json={"query": "charge"})
        await client.get("/livez")
    assert names == ["POST /search"]


def test_a_dead_collector_does_not_hold_up_the_end() -> None:
    """F44, trap T10: the exporter's defaults cost seven seconds."""
    provider = open_tracing(ObservabilitySettings(otlp_endpoint="http://127.0.0.1:9/v1/traces"))
    provider.get_tracer("test").start_span("one").end()
    started = time.monotonic()
    provider.shutdown()
    assert time.monotonic() - started < 4


def test_without_a_span_the_trace_is_all_zeros() -> None:
    assert trace_id() == "0" * 32


def test_a_search_is_one_trace_with_a_span_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A42, C38: channels and rescoring run in other threads and stay in the request's trace."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    place = bank(tmp_path)
    with opened(place, with_tokens(place), WordTokens()) as shards:
        options = Options(mode="both")
        with trace.get_tracer("test").start_as_current_span("request") as request:
            told = shards.search("refund a card", Scope(), 3, deadline_ms=LONG_MS, explained=range(3), options=options)
            identity = request.get_span_context()
    spans = {span.name: span for span in exporter.get_finished_spans() if span.name != "request"}
    assert set(spans) == {f"search.{stage.name}" for stage in told.stages}
    assert {"search.lexical", "search.xtr", "search.fuse", "search.xtr_rescore", "search.hydrate"} < set(spans)
    assert {span.context.trace_id for span in spans.values()} == {identity.trace_id}
    assert {span.parent.span_id for span in spans.values()} == {identity.span_id}
    assert not any("refund" in str(span.attributes) or span.events for span in spans.values())
