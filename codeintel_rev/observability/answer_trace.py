"""What is kept of an answer to learn from: one flat row, whatever it ended as."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnswerTrace:
    """One answer (requirement C34). Times are milliseconds, None for what did not happen.

    `asked_at` is ISO 8601 in UTC. `status` is that of a completed answer, else `failed` or `cancelled`, and
    `finish_reason` why it ended. `mode` is `model`, `extractive`, or `none` where there is no text. `generations` are
    `repo=generation`, `stages` `stage=status`. `chunk_ids` are the sources by number, `cited_chunk_ids` those the text
    names. `question` and `text` are None unless `answer.trace_text` is on: nothing else holds words of either.
    """

    answer_id: str
    trace_id: str
    asked_at: str
    profile: str
    query_class: str
    question_chars: int
    repos: tuple[str, ...]
    deadline_ms: float
    status: str
    finish_reason: str
    confidence: float
    mode: str
    model: str
    generations: tuple[str, ...]
    channels: tuple[str, ...]
    stages: tuple[str, ...]
    limits: tuple[str, ...]
    chunk_ids: tuple[int, ...]
    cited_chunk_ids: tuple[int, ...]
    tainted_sources: int
    hits: int
    context_tokens: int
    dropped_sources: int
    retrieve_ms: float | None
    hydrate_ms: float | None
    rerank_ms: float | None
    verify_ms: float | None
    extract_ms: float | None
    text_ms: float | None
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
    question: str | None
    text: str | None
