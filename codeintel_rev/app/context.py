"""The parts of a running process, put together once from Settings and closed in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace

from codeintel_rev.answer.library import Library
from codeintel_rev.answer.log import Ring, Shared
from codeintel_rev.answer.parts import Parts
from codeintel_rev.answer.running import Answers
from codeintel_rev.app.probes import Readiness, keep_looking
from codeintel_rev.config.settings import Settings
from codeintel_rev.io.redis_store import open_store
from codeintel_rev.io.trace_store import TRACES, TraceStore
from codeintel_rev.io.vllm.chat import ChatClient
from codeintel_rev.io.vllm.http import open_upstream
from codeintel_rev.io.vllm.score import ScoreClient
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
        async with (
            with_models(parts_of(opened, blocking), settings) as parts,
            open_answers(settings, parts) as answers,
        ):
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
                await _ended(looking)
        await asyncio.to_thread(opened.searcher.close)


@asynccontextmanager
async def open_answers(settings: Settings, parts: Parts) -> AsyncIterator[Answers]:
    """Yield the answers of this process, and end with each of them told and traced."""
    kept, url = settings.answer, settings.redis.url.get_secret_value()
    traces = TraceStore(settings.paths.data_dir / TRACES)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, traces.close)
        ring = Ring(kept.log_lines, kept.log_ttl_s, time.monotonic)
        store = await stack.enter_async_context(open_store(url, kept.log_lines, kept.log_ttl_s)) if url else None
        log = Shared(ring, store, time.monotonic) if store else ring
        answers = Answers(parts, kept, log, recorder(traces), store)
        stack.push_async_callback(_ended, asyncio.create_task(answers.listen()))
        stack.push_async_callback(answers.close)
        yield answers


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def parts_of(opened: Opened, blocking: Blocking) -> Parts:
    """Return what answers are made with."""
    return Parts(opened.searcher, opened.library, blocking.run)


@asynccontextmanager
async def with_models(parts: Parts, settings: Settings) -> AsyncIterator[Parts]:
    """Yield `parts` with the model servers that are configured, nothing asked yet. Raises SettingsError."""
    servers = settings.vllm
    async with AsyncExitStack() as stack:
        if servers.chat.url:
            upstream = open_upstream("chat", servers.chat)
            stack.push_async_callback(upstream.aclose)
            parts = replace(parts, chat=ChatClient(upstream), model=servers.chat.model)
        if servers.score.url and settings.answer.rerank:
            upstream = open_upstream("score", servers.score)
            stack.push_async_callback(upstream.aclose)
            parts = replace(parts, score=ScoreClient(upstream))
        yield parts


def recorder(traces: TraceStore) -> Callable[[AnswerTrace], None]:
    """Return what counts an answer that ended and keeps its trace."""

    def record(trace: AnswerTrace) -> None:
        observe_answer(trace)
        traces.add(trace)

    return record
