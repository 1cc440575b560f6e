"""An answer as one object: its events folded, the same for every face."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from codeintel_rev.answer.log import TERMINAL, Told
from codeintel_rev.mcp_server.envelope import Limit, Wire
from codeintel_rev.types import Line

RUNNING = "running"
DOUBTFUL = ("weak", "unsupported", "stale")
"""What a citation may turn out to be that a reader should look at."""


class AnswerSource(Wire):
    n: int
    chunk_id: int
    repo: str
    commit: str
    path: str
    start_line: int
    end_line: int
    symbol: str
    language: str
    content_sha256: str
    permalink: str
    retrievers: dict[str, int]
    score: float
    tainted: bool


class AnswerCitation(Wire):
    """A marker in `text`; `status` is what is known of it now."""

    cid: int
    n: int
    offset: int
    claim: tuple[int, int]
    status: str
    lines: tuple[int, int] | None = None
    overlap: float | None = None
    evidence: tuple[dict[str, Any], ...] = ()


class Extracted(Wire):
    n: int
    lines: tuple[int, int]
    text: str


class Answer(Wire):
    """`status` is `running`, that of `answer.completed`, `failed` (see `problem`) or `cancelled`.

    `text` is every delta together, which is what `text_sha256` is of and offsets count in; `answer` is what of it
    stands: all, unless a model's text was given up.
    """

    answer_id: str
    trace_id: str
    status: str
    profile: str
    query_class: str
    answer: str
    text: str
    model: str
    sources: tuple[AnswerSource, ...]
    citations: tuple[AnswerCitation, ...]
    extract: tuple[Extracted, ...]
    limits: tuple[Limit, ...]
    generation: dict[str, str]
    confidence: float | None = None
    finish_reason: str | None = None
    text_sha256: str | None = None
    counts: dict[str, int] | None = None
    usage: dict[str, float] | None = None
    trace: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


def fold(lines: Iterable[Line]) -> Answer:
    """Return the answer that `lines`, from the first on, tell of so far."""
    told: dict[str, list[Told]] = defaultdict(list)
    for one in lines:
        told[one.type].append(one.told())
    created = told["answer.created"][0]
    started = (told["text.started"] or [{"model": "", "offset": 0}])[-1]
    end = next((told[kind][0] for kind in TERMINAL if told[kind]), {})
    sources = (told["sources"] or [{"sources": (), "index": {}}])[-1]
    text = "".join(delta["text"] for delta in told["text.delta"])
    return Answer(
        answer_id=created["answer_id"],
        trace_id=created["trace_id"],
        status=_status(end),
        profile=created["profile"],
        query_class=created["query_class"],
        answer=text[started["offset"] :],
        text=text,
        model=started["model"],
        sources=tuple(AnswerSource.model_validate(source) for source in sources["sources"]),
        citations=_citations(told),
        extract=tuple(Extracted.model_validate(item) for one in told["answer.extract"] for item in one["items"]),
        limits=tuple(Limit.model_validate(limit) for limit in told["limit"]),
        generation=sources["index"],
        confidence=end.get("confidence"),
        finish_reason=end.get("finish_reason"),
        text_sha256=end.get("text_sha256"),
        counts=end.get("citations"),
        usage=_members(told["usage"][0]) if told["usage"] else None,
        trace=told["trace"][0]["trace"] if told["trace"] else None,
        problem=end.get("problem"),
    )


def standing(answer: Answer) -> list[AnswerCitation]:
    """Return the citations of what stands of the text."""
    return [one for one in answer.citations if one.offset >= len(answer.text) - len(answer.answer)]


def cited(answer: Answer) -> list[tuple[AnswerSource, str]]:
    """Return the sources that those name, each with the place from the first to the last line cited."""
    spans: dict[int, list[int]] = defaultdict(list)
    for one in standing(answer):
        spans[one.n] += one.lines or ()
    return [
        (source, f"{source.path}:{min(lines, default=source.start_line)}-{max(lines, default=source.end_line)}")
        for source in answer.sources
        if (lines := spans.get(source.n)) is not None
    ]


def step(line: Line | None) -> str:
    """Return in a few words what a line says of how an answer goes, "" when nothing; None is a silence."""
    told = line.told() if line else {"type": ""}
    match told["type"]:
        case "":
            return "still working"
        case "stage":
            return f"{told['stage']}: {told['status']}"
        case "sources":
            return f"{len(told['sources'])} sources"
        case "text.started":
            return f"writing with {told['model']}" if told["model"] else "writing from the sources"
        case _:
            return ""


def _status(end: Told) -> str:
    if not end:
        return RUNNING
    return str(end.get("status") or end["type"].removeprefix("answer."))


def _citations(told: dict[str, list[Told]]) -> tuple[AnswerCitation, ...]:
    checked = {one["cid"]: one for one in told["citation.status"]}
    return tuple(
        AnswerCitation.model_validate({**_members(one), **_members(checked.get(one["cid"], {}))})
        for one in told["citation"]
    )


def _members(told: Told) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in ("type", "seq", "t_ms")}
