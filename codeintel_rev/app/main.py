"""The web application: guards, then problems, then routes, with everything opened in its lifespan."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from codeintel_rev.app.answer_routes import answer_routes
from codeintel_rev.app.context import ApplicationContext, Open, open_context
from codeintel_rev.app.guards import OPS_PATHS, Guards
from codeintel_rev.app.probes import Readiness, probe_routes
from codeintel_rev.app.problems import install_problems
from codeintel_rev.app.routes import question_routes
from codeintel_rev.config.settings import Settings
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.mcp_server.server import http_routes, make_server
from codeintel_rev.observability.logs import configure_logs
from codeintel_rev.observability.metrics import retire_process
from codeintel_rev.observability.tracing import open_tracing


def create_app(settings: Settings, open_index: Open) -> FastAPI:
    """Return the application; `open_index` opens what it serves when it starts. One lifespan per application."""
    readiness = Readiness(interval_s=settings.server.poll_s)
    provider = open_tracing(settings.observability)
    opened: list[ApplicationContext] = []

    def served() -> Served:
        return opened[0].served

    server = make_server(served, settings.server)
    configure_logs(settings.observability)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _drain_on_sigterm(readiness)
        async with AsyncExitStack() as stack:
            stack.callback(retire_process)
            stack.callback(provider.shutdown)
            trace.set_tracer_provider(provider)
            opened.append(await stack.enter_async_context(open_context(settings, open_index, readiness)))
            await stack.enter_async_context(server.session_manager.run())
            stack.callback(readiness.drain)
            yield

    app = FastAPI(
        title="Code intelligence",
        version=version("codeintel-rev"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"auto_configure": False},
    )
    install_problems(app)
    app.include_router(probe_routes(readiness))
    app.include_router(question_routes(served))
    app.include_router(answer_routes(served))
    app.router.routes.extend(http_routes(server, settings))
    app.add_middleware(Guards, settings=settings)
    _trace(app, provider)
    return app


def _trace(app: FastAPI, provider: TracerProvider) -> None:
    """One span a request: without `exclude_spans` every chunk of a stream would be one too."""
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=",".join(path.lstrip("/") for path in OPS_PATHS),
        exclude_spans=["send", "receive"],
    )


def _drain_on_sigterm(readiness: Readiness) -> None:
    """In a worker process, SIGTERM drains and does not kill.

    Hypercorn's master sends it to every worker as soon as one of them is done, and would cut off the requests still
    running in the others. The end comes from the master's shutdown event, within the graceful timeout.
    """
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGTERM, lambda *_: readiness.drain())
