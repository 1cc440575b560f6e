"""The same tools over standard input and output, for an agent that starts its own server."""

from __future__ import annotations

import asyncio

from opentelemetry import trace

from codeintel_rev.app.context import Open, open_context
from codeintel_rev.app.probes import Readiness
from codeintel_rev.config.settings import Settings
from codeintel_rev.mcp_server.server import make_server
from codeintel_rev.observability.logs import configure_logs
from codeintel_rev.observability.tracing import open_tracing


def serve_stdio(settings: Settings, open_index: Open) -> None:
    """Answer until standard input closes. Logs go to standard error."""
    asyncio.run(_serve(settings, open_index))


async def _serve(settings: Settings, open_index: Open) -> None:
    readiness = Readiness(interval_s=settings.server.poll_s)
    provider = open_tracing(settings.observability)
    trace.set_tracer_provider(provider)
    async with open_context(settings, open_index, readiness) as context:
        server = make_server(lambda: context.served, settings.server)
        configure_logs(settings.observability)
        try:
            await server.run_stdio_async()
        finally:
            provider.shutdown()
