"""What can be asked of the served repositories, whichever face asks: a request in, a wire shape out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

from codeintel_rev.answer.running import Answers, Asked
from codeintel_rev.config.settings import LimitsSettings
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.mcp_server import envelope as wire
from codeintel_rev.mcp_server.answers import Answer, fold, step
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.mcp_server.requests import (
    AnswerRequest,
    FileRequest,
    PathsRequest,
    SearchRequest,
    StatusRequest,
    TextRequest,
)
from codeintel_rev.navigation.cursor import Cursor, check_served, decode, digest, encode
from codeintel_rev.navigation.navigator import Navigator
from codeintel_rev.observability.metrics import observe_search
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.retrieval.options import AS_SET
from codeintel_rev.retrieval.searcher import NONE, Searcher
from codeintel_rev.types import Line, SearchResult, ShardStatus

STATUS_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Served:
    """Everything a question needs. `deadline_ms` is the longest any one may take."""

    searcher: Searcher
    navigator: Navigator
    blocking: Blocking
    limits: LimitsSettings
    deadline_ms: float
    answers: Answers


Progress = Callable[[str], Awaitable[None]]
"""Told in a few words what a long call is doing."""


async def semantic_search(served: Served, request: SearchRequest) -> wire.Envelope:
    """Return the hits best first. A cursor goes on where the answer before ended, in the same generations only."""
    _check_size("query", request.query, served.limits.query_bytes)
    cursor = decode(request.cursor, question=_question(request)) if request.cursor else None
    start = _offset(cursor)
    end = start + request.limit
    _check_most("limit", end, served.limits.max_results)
    deadline_ms = min(request.time_budget_ms or served.deadline_ms, served.deadline_ms)
    explained, options = range(start, end) if request.explain else NONE, request.options()
    result = await served.blocking.run(
        lambda left: served.searcher.search(
            request.query, request.scope(), end, deadline_ms=left, explained=explained, options=options
        ),
        deadline_ms,
    )
    if cursor:
        check_served(cursor, result.generations)
    observe_search(result)
    page = replace(result, hits=result.hits[start:end])
    next_cursor = _next_cursor(request, result, end, served)
    return wire.envelope(page, trace_id(), explain=request.explain, next_cursor=next_cursor)


async def search_text(served: Served, request: TextRequest) -> wire.Matches:
    """Return matching lines in repository, path and line order."""
    _check_size("pattern", request.pattern, served.limits.query_bytes)
    _check_most("limit", request.limit, served.limits.max_results)
    found = await served.blocking.run(
        lambda _: served.navigator.search_text(
            request.pattern,
            regex=request.regex,
            case_sensitive=request.case_sensitive,
            scope=request.scope(),
            limit=request.limit,
            context_lines=request.context_lines,
            cursor=request.cursor,
        ),
        served.deadline_ms,
    )
    return wire.matches(found, trace_id())


async def open_file(served: Served, request: FileRequest) -> wire.FileLines:
    """Return lines of one file."""
    read = await served.blocking.run(
        lambda _: served.navigator.open_file(request.repo, request.path, request.start_line, request.end_line),
        served.deadline_ms,
    )
    return wire.file_lines(read, request.repo, trace_id())


async def list_paths(served: Served, request: PathsRequest) -> wire.Paths:
    """Return indexed paths in order."""
    listed = await served.blocking.run(
        lambda _: served.navigator.list_paths(
            request.repo, request.path, request.scope(), request.limit, request.cursor
        ),
        served.deadline_ms,
    )
    return wire.paths(listed, request.repo, trace_id())


async def index_status(served: Served, request: StatusRequest) -> wire.Status:
    """Return what is served and what is being built, after waiting for a running build when asked to."""
    shards = await _shards(served, request.repo)
    for _ in range(round(request.wait_s / STATUS_POLL_S)):
        if not any(shard.building for shard in shards):
            break
        await asyncio.sleep(STATUS_POLL_S)
        shards = await _shards(served, request.repo)
    return wire.Status(repos=tuple(wire.repo_status(shard) for shard in shards), trace_id=trace_id())


async def start_answer(served: Served, request: AnswerRequest, *, traced: bool = False) -> str:
    """Start an answer and return its id. Raises InvalidArgument."""
    _check_size("question", request.question, served.limits.query_bytes)
    return await served.answers.ask(Asked(request.question, request.scope(), request.profile, traced), trace_id())


async def answer(served: Served, request: AnswerRequest, progress: Progress) -> Answer:
    """Return an answer when it is over, telling how it goes. Cancelling the caller cancels the answer."""
    answer_id = await start_answer(served, request)
    lines: list[Line] = []
    async with aclosing(served.answers.lines(answer_id, leaving="client")) as coming:
        async for line in coming:
            lines += [line] if line else []
            if doing := step(line):
                await progress(doing)
    return fold(lines)


async def _shards(served: Served, repo: str) -> tuple[ShardStatus, ...]:
    shards = await served.blocking.run(lambda _: served.searcher.status(), served.deadline_ms)
    chosen = tuple(shard for shard in shards if not repo or shard.repo == repo)
    if repo and not chosen:
        raise NotFound("no such repository is served.", "index_status without arguments lists those that are.")
    return chosen


def _question(request: SearchRequest) -> str:
    options = request.options()
    asked = () if options == AS_SET else (asdict(options),)
    return digest(request.query, asdict(request.scope()), *asked)


def _offset(cursor: Cursor | None) -> int:
    if cursor is None:
        return 0
    if not cursor.position.isdecimal():
        raise InvalidArgument("cursor was not made by this server.", "Ask again without a cursor.")
    return int(cursor.position)


def _next_cursor(request: SearchRequest, result: SearchResult, end: int, served: Served) -> str | None:
    if len(result.hits) < end or end >= served.limits.max_results:
        return None
    return encode(Cursor(position=str(end), question=_question(request), generations=result.generations))


def _check_size(name: str, text: str, most: int) -> None:
    if (size := len(text.encode())) > most:
        raise InvalidArgument(f"{name} is {size} bytes, the most is {most}.", "Ask in fewer words.")


def _check_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise InvalidArgument(f"{name} reaches {value}, the most is {most}.", f"Use a {name} of at most {most}.")
