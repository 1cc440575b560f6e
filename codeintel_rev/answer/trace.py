"""The trace of an answer, folded from its events."""

from __future__ import annotations

from collections.abc import Sequence
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
    TextDelta,
    TextStarted,
    Usage,
    text_of,
)
from codeintel_rev.answer.orchestrator import Question
from codeintel_rev.observability.answer_trace import AnswerTrace

T = TypeVar("T")


def trace_of(question: Question, events: Sequence[Event], asked_at: str, *, with_text: bool) -> AnswerTrace:
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
        asked_at=asked_at,
        profile=created.profile,
        query_class=created.query_class,
        question_chars=len(question.text),
        repos=question.scope.repos,
        deadline_ms=created.deadline_ms,
        status=done.status if done else "failed" if isinstance(last, Failed) else "cancelled",
        finish_reason=_reason(last),
        confidence=done.confidence if done else 0.0,
        mode="none" if not started else "model" if started.model else "extractive",
        model=started.model if started else "",
        generations=tuple(f"{repo}={id_}" for repo, id_ in sorted(told.index.items())) if told else (),
        channels=tuple(sorted({channel for source in sources for channel in source.retrievers})),
        stages=tuple(f"{name}={stage.status}" for name, stage in stages.items()),
        limits=tuple(one.code for one in _all(events, Limited)),
        chunk_ids=tuple(source.chunk_id for source in sources),
        cited_chunk_ids=tuple(source.chunk_id for source in sources if source.n in cited),
        tainted_sources=sum(source.tainted for source in sources),
        hits=(stages["retrieve"].hits or 0) if "retrieve" in stages else 0,
        context_tokens=started.context.tokens if started else 0,
        dropped_sources=started.context.dropped if started else 0,
        retrieve_ms=took.get("retrieve"),
        hydrate_ms=took.get("hydrate"),
        rerank_ms=took.get("rerank"),
        verify_ms=took.get("verify"),
        extract_ms=next((event.t_ms for event in events if isinstance(event.body, Extract)), None),
        text_ms=next((event.t_ms for event in events if isinstance(event.body, TextDelta)), None),
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
        question=question.text if with_text else None,
        text=text_of(events) if with_text else None,
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
