"""`codeintel search`: ask the index from a terminal, once or for a whole file of queries."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from codeintel_rev.app.context import Open
from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import CodeIntelError, InvalidArgument
from codeintel_rev.eval.queries import question_rows
from codeintel_rev.mcp_server.envelope import envelope
from codeintel_rev.mcp_server.requests import ProSearchRequest, faults
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.types import SearchResult

Asked = Mapping[str, object]
"""Arguments of `semantic_search_pro` by name: filters and knobs."""


class Limited(CodeIntelError):
    """A measurement that did not get everything measures something else."""


def one(
    query: str,
    filters: Asked,
    limit: int,
    knobs: Asked,
    *,
    as_json: bool,
    explain: bool,
    open_index: Open = open_index,
) -> None:
    """Print the answer to one query."""
    request, settings = _request({**filters, **knobs}), load_settings()
    searcher = open_index(settings).searcher
    try:
        result = searcher.search(
            query,
            request.scope(),
            limit,
            deadline_ms=settings.retrieval.request_deadline_ms,
            explained=range(limit) if explain else NONE,
            options=request.options(),
        )
    finally:
        searcher.close()
    answer = envelope(result, trace_id(), explain=explain, next_cursor=None)
    if as_json:
        render.print_json(answer.payload())
    else:
        render.print_hits(answer, explain=explain)


def batch(queries: Path, out: Path, filters: Asked, limit: int, knobs: Asked, *, open_index: Open = open_index) -> None:
    """Write one line {qid, hits, ms} for each line {qid, query, repo} of `queries`, in the same order.

    Raises Limited, after the last line is written, when any answer was limited.
    """
    request, settings = _request({**filters, **knobs}), load_settings()
    asked = list(question_rows(queries))
    limited: list[str] = []
    searcher = open_index(settings).searcher
    try:
        with out.open("w", encoding="utf-8") as file:
            for question in asked:
                scope = replace(request.scope(), repos=(question["repo"],) if question.get("repo") else ())
                started = time.perf_counter()
                result = searcher.search(
                    question["query"],
                    scope,
                    limit,
                    deadline_ms=settings.retrieval.request_deadline_ms,
                    options=request.options(),
                )
                ms = (time.perf_counter() - started) * 1000
                file.write(json.dumps(_line(question["qid"], result, ms)) + "\n")
                limited += [one.code for one in result.limits]
    finally:
        searcher.close()
    if limited:
        codes = ", ".join(sorted(set(limited)))
        raise Limited(f"{len(limited)} limits met in {len(asked)} queries: {codes}.", "See `codeintel status`.")


def _request(asked: Asked) -> ProSearchRequest:
    """Return what `semantic_search_pro` makes of the same arguments. Raises InvalidArgument naming the wrong one."""
    try:
        return ProSearchRequest.model_validate({"query": "", **asked})
    except ValidationError as error:
        raise InvalidArgument(faults(error.errors()), "See `codeintel search --help`.") from error


def _line(qid: str, result: SearchResult, ms: float) -> dict[str, object]:
    hits: Iterable[dict[str, object]] = (
        {"path": hit.path, "start_line": hit.start_line, "end_line": hit.end_line, "score": hit.score}
        for hit in result.hits
    )
    return {"qid": qid, "hits": list(hits), "ms": round(ms, 2)}
