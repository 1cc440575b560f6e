"""What is kept of an answer to learn from: one flat row, folded from its events; no prompt, no question, no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from codeintel_rev.answer.events import (
    Cancelled,
    Citation,
    CitationCounts,
    Completed,
    Created,
    Event,
    Extract,
    Failed,
    Limited,
    Sources,
    StageEvent,
    TextStarted,
    Usage,
    text_of,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AnswerTrace:
    """One answer (requirement C34). Times are milliseconds, None for what did not happen.

    `status` is that of a completed answer, else `failed` or `cancelled`. `chunk_ids` are the sources by number,
    `cited_chunk_ids` those the text names; `generations` are `repo=generation`.
    """

    answer_id: str
    trace_id: str
    profile: str
    query_class: str
    deadline_ms: float
    status: str
    finish_reason: str
    confidence: float
    model: str
    generations: tuple[str, ...]
    chunk_ids: tuple[int, ...]
    cited_chunk_ids: tuple[int, ...]
    hits: int
    context_tokens: int
    dropped_sources: int
    limits: tuple[str, ...]
    retrieve_ms: float | None
    hydrate_ms: float | None
    rerank_ms: float | None
    verify_ms: float | None
    extract_ms: float | None
    ttft_ms: float | None
    total_ms: float
    tps: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    citations: int
    supported_citations: int
    weak_citations: int
    invalid_citations: int
    text_chars: int
    text_sha256: str


def trace_of(events: Sequence[Event]) -> AnswerTrace:
    """Return the row of a finished answer. REQUIRES: `events` are all of it, from `answer.created` to the last."""
    created, last = _only(events, Created), events[-1].body
    done = last if isinstance(last, Completed) else None
    told = _last(events, Sources)
    sources = told.sources if told else ()
    started = _last(events, TextStarted)
    usage = _last(events, Usage)
    stages = {one.stage: one for one in _all(events, StageEvent) if one.status != "started"}
    took = {name: stage.ms for name, stage in stages.items()}
    cited = {one.n for one in _all(events, Citation) if one.status == "exists"}
    counts = done.citations if done else CitationCounts()
    return AnswerTrace(
        answer_id=created.answer_id,
        trace_id=created.trace_id,
        profile=created.profile,
        query_class=created.query_class,
        deadline_ms=created.deadline_ms,
        status=done.status if done else "failed" if isinstance(last, Failed) else "cancelled",
        finish_reason=_reason(last),
        confidence=done.confidence if done else 0.0,
        model=started.model if started else "",
        generations=tuple(f"{repo}={id_}" for repo, id_ in sorted(told.index.items())) if told else (),
        chunk_ids=tuple(source.chunk_id for source in sources),
        cited_chunk_ids=tuple(source.chunk_id for source in sources if source.n in cited),
        hits=(stages["retrieve"].hits or 0) if "retrieve" in stages else 0,
        context_tokens=started.context.tokens if started else 0,
        dropped_sources=started.context.dropped if started else 0,
        limits=tuple(one.code for one in _all(events, Limited)),
        retrieve_ms=took.get("retrieve"),
        hydrate_ms=took.get("hydrate"),
        rerank_ms=took.get("rerank"),
        verify_ms=took.get("verify"),
        extract_ms=next((event.t_ms for event in events if isinstance(event.body, Extract)), None),
        ttft_ms=usage.ttft_ms if usage else None,
        total_ms=events[-1].t_ms,
        tps=usage.tps if usage else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=usage.cached_tokens if usage else None,
        citations=counts.total,
        supported_citations=counts.supported,
        weak_citations=counts.weak,
        invalid_citations=counts.invalid,
        text_chars=len(text_of(events)),
        text_sha256=done.text_sha256 if done else "",
    )


def _reason(last: object) -> str:
    if isinstance(last, Completed):
        return last.finish_reason
    if isinstance(last, Failed):
        return last.code
    return last.by if isinstance(last, Cancelled) else ""


def _all(events: Sequence[Event], kind: type[T]) -> list[T]:
    return [event.body for event in events if isinstance(event.body, kind)]


def _last(events: Sequence[Event], kind: type[T]) -> T | None:
    found = _all(events, kind)
    return found[-1] if found else None


def _only(events: Sequence[Event], kind: type[T]) -> T:
    (found,) = _all(events, kind)
    return found
