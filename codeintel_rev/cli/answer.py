"""`codeintel answer`: a question answered in the terminal, from the index on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pydantic import ValidationError

from codeintel_rev.answer.log import line, told
from codeintel_rev.answer.orchestrator import Question
from codeintel_rev.answer.orchestrator import answer as answered
from codeintel_rev.answer.parts import Parts
from codeintel_rev.app.context import Open, parts_of, with_models
from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.cli.verbs import EXIT_CODES
from codeintel_rev.config.settings import AnswerSettings, Settings, load_settings
from codeintel_rev.errors import CodeIntelError, InvalidArgument
from codeintel_rev.mcp_server.answers import Answer, fold, step
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.mcp_server.requests import AnswerRequest, faults
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.types import Line

Show = Callable[[Answer, str], None]
"""Told the answer so far and what is being done."""
EVERY_S = 0.1
"""Between two looks at an answer that grows: each folds all of it."""
_NAMELESS = "local"


def answer(
    question: str,
    filters: Mapping[str, Sequence[str]],
    profile: str | None,
    *,
    as_json: bool,
    open_index: Open = open_index,
) -> None:
    """Print the answer as it is made, or as one line of JSON. Raises what made it fail."""
    request, settings = _request(question, filters, profile), load_settings()
    opened = open_index(settings)
    try:
        with ThreadPoolExecutor(settings.limits.concurrent_calls) as executor:
            parts = parts_of(opened, Blocking(executor))
            if as_json:
                whole = asyncio.run(_ask(request, parts, settings, lambda so_far, doing: None))
            else:
                with render.live_answer() as show:
                    whole = asyncio.run(_ask(request, parts, settings, show))
    finally:
        opened.searcher.close()
    if whole.problem:
        raise _failure(whole.problem)
    if as_json:
        render.print_json(whole.payload())
    else:
        render.print_sources(whole)


async def _ask(request: AnswerRequest, parts: Parts, settings: Settings, show: Show) -> Answer:
    lines: list[Line] = []
    doing, shown, now = "", 0.0, asyncio.get_running_loop().time
    async with with_models(parts, settings) as whole:
        async for one in _lines(request, whole, settings.answer):
            lines.append(one)
            doing = step(one) or doing
            if one.is_last or now() - shown >= EVERY_S:
                show(fold(lines), doing)
                shown = now()
    return fold(lines)


async def _lines(request: AnswerRequest, parts: Parts, settings: AnswerSettings) -> AsyncIterator[Line]:
    question = Question(request.question, request.scope(), _NAMELESS, trace_id(), request.profile)
    async for event in answered(question, parts, settings, asyncio.get_running_loop().create_future()):
        yield line(told(event, _NAMELESS))


def _request(question: str, filters: Mapping[str, Sequence[str]], profile: str | None) -> AnswerRequest:
    try:
        return AnswerRequest.model_validate({"question": question, "profile": profile, **filters})
    except ValidationError as error:
        raise InvalidArgument(faults(error.errors()), "See `codeintel answer --help`.") from error


def _failure(problem: Mapping[str, object]) -> CodeIntelError:
    """Return what made an answer fail as the error it was, so that the exit code is its own."""
    slug = str(problem["type"]).rpartition(":")[2]
    kind = next((kind for kind, _ in EXIT_CODES if kind.slug == slug), CodeIntelError)
    return kind(str(problem["detail"]), str(problem["action"]))
