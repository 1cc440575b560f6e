"""The parts of a running process, put together once from Settings and closed in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from codeintel_rev.answer.library import Library
from codeintel_rev.answer.log import Ring
from codeintel_rev.answer.parts import Parts
from codeintel_rev.answer.running import Answers
from codeintel_rev.app.probes import Readiness, keep_looking
from codeintel_rev.config.settings import Settings
from codeintel_rev.io.trace_store import TRACES, TraceStore
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.navigation.navigator import Navigator
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.observability.metrics import observe_answer
from codeintel_rev.retrieval.searcher import Searcher


@dataclass(frozen=True, slots=True)
class Opened:
    """The published generations, opened. Closing the searcher closes what navigator and library read."""

    searcher: Searcher
    navigator: Navigator
    library: Library


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
        blocking = Blocking(executor)
        traces = TraceStore(settings.paths.data_dir / TRACES)
        ring = Ring(settings.answer.log_lines, settings.answer.log_ttl_s, time.monotonic)
        answers = Answers(parts_of(opened, blocking), settings.answer, ring, recorder(traces))
        served = Served(
            searcher=opened.searcher,
            navigator=opened.navigator,
            blocking=blocking,
            limits=limits,
            deadline_ms=settings.retrieval.request_deadline_ms,
            answers=answers,
        )
        looking = asyncio.create_task(keep_looking(opened.searcher, readiness, xtr_is_on=settings.xtr.on))
        try:
            yield ApplicationContext(settings, served, readiness)
        finally:
            await answers.close()
            await asyncio.to_thread(traces.close)
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            await asyncio.to_thread(opened.searcher.close)


def parts_of(opened: Opened, blocking: Blocking) -> Parts:
    """Return what answers are made with."""
    return Parts(opened.searcher, opened.library, blocking.run)


def recorder(traces: TraceStore) -> Callable[[AnswerTrace], None]:
    """Return what counts an answer that ended and keeps its trace."""

    def record(trace: AnswerTrace) -> None:
        observe_answer(trace)
        traces.add(trace)

    return record
