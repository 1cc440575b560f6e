"""Answers over HTTP: asked for as a stream of events or as one object, read again, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from codeintel_rev.answer.running import Answers
from codeintel_rev.app.frames import HEADERS, HEARTBEAT, RETRY, Dialect, encoder
from codeintel_rev.app.problems import MEDIA_TYPE
from codeintel_rev.mcp_server import operations
from codeintel_rev.mcp_server.answers import Answer, fold
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.mcp_server.requests import TracedAnswerRequest
from codeintel_rev.types import Line

EVENTS = "text/event-stream"
NOBODY_WAITS = 499
"""The status of a response that nobody reads any more."""
_EVERYTHING = -1

After = Annotated[int | None, Query(ge=0, description="The `seq` of the last event seen")]
LastEventId = Annotated[int | None, Header(ge=0, description="The same, as EventSource sends it")]


def answer_routes(served: Callable[[], Served]) -> APIRouter:
    """Return the routes. `served` is called per request: what is served is only opened when the process starts."""
    router = APIRouter()

    @router.post("/answer", response_model=Answer, responses={200: {"content": {EVENTS: {}}}})
    async def ask(http: Request, request: TracedAnswerRequest, dialect: Dialect = "native") -> Response:
        """An answer with checked citations: its events, or one object for `Accept: application/json`."""
        answers = served().answers
        answer_id = await operations.start_answer(served(), request, traced=request.trace)
        if _wants_json(http):
            return await _whole(http, answers, answer_id)
        return _stream(answers.lines(answer_id), answer_id, dialect, _EVERYTHING)

    @router.get("/answers/{answer_id}/events", responses={200: {"content": {EVENTS: {}}}, 204: {}})
    async def events(
        answer_id: str, after: After = None, last_event_id: LastEventId = None, dialect: Dialect = "native"
    ) -> Response:
        """The events of an answer behind the last one seen; 204 when that was the last one."""
        answers = served().answers
        seen = next((one for one in (after, last_event_id) if one is not None), _EVERYTHING)
        if await answers.is_told(answer_id, seen):
            return Response(status_code=204)
        first = seen if dialect == "native" else _EVERYTHING
        await answers.log.read(answer_id, first, 0.0)
        return _stream(answers.lines(answer_id, first), answer_id, dialect, seen)

    @router.get("/answers/{answer_id}", response_model=Answer)
    async def answer(answer_id: str) -> Response:
        """An answer as far as it got, as one object."""
        return _json(fold(await served().answers.log.read(answer_id, _EVERYTHING, 0.0)), _headers(answer_id))

    @router.post("/answers/{answer_id}/cancel", status_code=202)
    async def cancel(answer_id: str) -> Response:
        """Stop an answer; one that is over stays as it is."""
        await served().answers.cancel(answer_id)
        return Response(status_code=202)

    return router


def _wants_json(http: Request) -> bool:
    accepted = http.headers.get("accept", "")
    return "application/json" in accepted and EVENTS not in accepted


def _stream(lines: AsyncGenerator[Line | None, None], answer_id: str, dialect: Dialect, seen: int) -> StreamingResponse:
    headers = {**_headers(answer_id), **HEADERS[dialect]}
    return StreamingResponse(frames(lines, dialect, seen), media_type=EVENTS, headers=headers)


async def frames(lines: AsyncGenerator[Line | None, None], dialect: Dialect, seen: int) -> AsyncIterator[str]:
    """Yield the frames of the lines behind `seen`. A dialect needs all lines, from the first."""
    encode = encoder(dialect)
    yield RETRY
    async with aclosing(lines):
        async for line in lines:
            if line is None:
                yield HEARTBEAT
                continue
            frame = encode(line)
            if line.seq > seen:
                yield frame


async def _whole(http: Request, answers: Answers, answer_id: str) -> Response:
    """Return the answer once it is over; a caller who leaves meanwhile cancels it."""
    lines, gone = asyncio.ensure_future(answers.all_lines(answer_id)), asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait({lines, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not lines.done():
            return Response(status_code=NOBODY_WAITS)
        return _json(fold(lines.result()), _headers(answer_id))
    finally:
        lines.cancel()
        gone.cancel()


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _json(answer: Answer, headers: Mapping[str, str]) -> Response:
    if answer.problem:
        status: Any = answer.problem["status"]
        return JSONResponse(answer.problem, status, headers, MEDIA_TYPE)
    return JSONResponse(answer.payload(), headers=headers)


def _headers(answer_id: str) -> dict[str, str]:
    return {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Answer-Id": answer_id}
