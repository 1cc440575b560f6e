"""What is kept of an answer tells how it went, and nothing of what was asked or said."""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from codeintel_rev.answer.events import Event
from codeintel_rev.answer.trace import trace_of
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.types import ChatEnd
from tests.answers import ADD, ASKED, STOP, FakeChat, FakeScore, Index, asked, hit

GOOD = "`Cart.add` puts an item into the cart ⟦1⟧. "


def row_of(events: list[Event]) -> AnswerTrace:
    return trace_of(ASKED, events, "2026-01-02T03:04:05.678+00:00", with_text=False)


def test_a_row_tells_how_an_answer_went() -> None:
    other = hit(1, 1, 0.9, path="b.py", text="how does cart add an item")
    script = [0.5, GOOD, 1.0, "It is ⟦9⟧.", ChatEnd("length", 90, 11, 30)]
    row = row_of(asked(Index((ADD, other)), FakeChat(script), FakeScore((1.0, 0.0), delay=0.1)))
    assert (row.answer_id, row.trace_id, row.profile, row.status) == ("a1", "t1", "balanced", "partial")
    assert (row.finish_reason, row.model, row.limits) == ("length", "tiny", ("synthesis.max_tokens",))
    assert (row.hits, row.chunk_ids, row.cited_chunk_ids) == (2, (ADD.chunk_id, other.chunk_id), (ADD.chunk_id,))
    assert (row.retrieve_ms, row.rerank_ms, row.extract_ms, row.ttft_ms) == (0.0, 100.0, 100.0, 500.0)
    assert (row.total_ms, row.tps, row.prompt_tokens, row.cached_tokens) == (1600.0, 10.0, 90, 30)
    assert (row.citations, row.supported_citations, row.invalid_citations) == (2, 1, 1)
    assert row.generations == ("shop=01",)


def test_every_end_has_its_row() -> None:
    extractive = row_of(asked(Index()))
    assert (extractive.status, extractive.model, extractive.ttft_ms) == ("extractive", "", None)
    failed = row_of(asked(Index(failure=IndexUnavailable("none"))))
    assert (failed.status, failed.finish_reason, failed.chunk_ids) == ("failed", "retrieval.index-unavailable", ())
    cancelled = row_of(asked(Index(), FakeChat([60, STOP]), cancel_after=1))
    assert (cancelled.status, cancelled.finish_reason, cancelled.total_ms) == ("cancelled", "client", 1000.0)
    assert row_of(asked(Index(hits=()))).status == "empty"


def test_a_row_holds_neither_question_nor_text() -> None:
    row = json.dumps(asdict(row_of(asked(Index(), FakeChat([GOOD, STOP])))))
    assert ASKED.text not in row
    assert "puts an item" not in row
    assert len(fields(AnswerTrace)) >= 25
