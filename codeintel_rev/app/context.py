"""The parts of a running process, put together once from Settings and closed in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from codeintel_rev.app.probes import Readiness, keep_looking
from codeintel_rev.config.settings import Settings
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.navigation.navigator import Navigator
from codeintel_rev.retrieval.searcher import Searcher


@dataclass(frozen=True, slots=True)
class Opened:
    """The published generations, opened. Closing the searcher closes what the navigator reads."""

    searcher: Searcher
    navigator: Navigator


Open = Callable[[Settings], Opened]


@dataclass(frozen=True, slots=True)
class ApplicationContext:
    settings: Settings
    served: Served
    readiness: Readiness


@asynccontextmanager
async def open_context(settings: Settings, open_index: Open, readiness: Readiness) -> AsyncIterator[ApplicationContext]:
    """Open everything a process needs and look after it until the end."""
    limits = settings.limits
    with ThreadPoolExecutor(limits.concurrent_calls, thread_name_prefix="ask") as executor:
        opened = await asyncio.to_thread(open_index, settings)
        served = Served(
            searcher=opened.searcher,
            navigator=opened.navigator,
            blocking=Blocking(executor),
            limits=limits,
            deadline_ms=settings.retrieval.request_deadline_ms,
        )
        looking = asyncio.create_task(keep_looking(opened.searcher, readiness, xtr_is_on=settings.xtr.on))
        try:
            yield ApplicationContext(settings, served, readiness)
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            await asyncio.to_thread(opened.searcher.close)
