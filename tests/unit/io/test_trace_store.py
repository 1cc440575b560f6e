"""Traces on disk: parts of days, nothing waiting on the disk, nothing lost in silence."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from codeintel_rev.io import trace_store
from codeintel_rev.io.trace_store import TraceStore, get_trace_schema, read_traces, write_traces
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.observability.metrics import TRACES_DROPPED

TRACE = AnswerTrace(
    answer_id="a1",
    trace_id="t1",
    asked_at="2026-01-02T23:59:59.000+00:00",
    profile="fast",
    query_class="behaviour",
    question_chars=20,
    repos=("shop",),
    deadline_ms=2000.0,
    status="complete",
    finish_reason="stop",
    confidence=0.75,
    mode="model",
    model="tiny",
    generations=("shop=01",),
    channels=("dense", "lexical"),
    stages=("retrieve=ok",),
    limits=(),
    chunk_ids=(2**62 + 1, 7),
    cited_chunk_ids=(7,),
    tainted_sources=0,
    hits=30,
    context_tokens=120,
    dropped_sources=0,
    retrieve_ms=40.0,
    hydrate_ms=5.5,
    rerank_ms=None,
    verify_ms=1.0,
    extract_ms=50.0,
    text_ms=90.0,
    ttft_ms=35.0,
    total_ms=700.5,
    tps=None,
    prompt_tokens=None,
    completion_tokens=20,
    cached_tokens=None,
    citations=1,
    supported_citations=1,
    weak_citations=0,
    invalid_citations=0,
    text_chars=80,
    text_sha256="0f" * 32,
    question=None,
    text=None,
)
NEXT_DAY = replace(TRACE, answer_id="a2", asked_at="2026-01-03T00:00:00.000+00:00", question="Why?", text="So. [1]")


def test_the_schema_has_what_was_asked_for() -> None:
    """C34: at least 25 fields, by name with those that were named."""
    assert len(fields(AnswerTrace)) >= 25
    assert {"ttft_ms", "tps", "limits", "confidence"} <= set(get_trace_schema().names)


def test_traces_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_traces(tmp_path, [TRACE, NEXT_DAY])
    write_traces(tmp_path, [replace(TRACE, answer_id="a3")])
    assert [(path.parent.name, path.suffix) for path in sorted(tmp_path.glob("*/*"))] == [
        ("2026-01-02", ".parquet"),
        ("2026-01-02", ".parquet"),
        ("2026-01-03", ".parquet"),
    ]
    assert read_traces(tmp_path) == [TRACE, replace(TRACE, answer_id="a3"), NEXT_DAY]


def test_a_day_is_one_table_to_others(tmp_path: Path) -> None:
    write_traces(tmp_path, [TRACE])
    write_traces(tmp_path, [replace(TRACE, answer_id="a3")])
    assert pq.read_table(tmp_path / "2026-01-02").column("answer_id").to_pylist() == ["a1", "a3"]


def test_a_closing_store_writes_what_waits(tmp_path: Path) -> None:
    """C35: a row for each of 100 answers."""
    store = TraceStore(tmp_path, every_s=3600.0)
    for number in range(100):
        store.add(replace(TRACE, answer_id=str(number)))
    store.close()
    assert [trace.answer_id for trace in read_traces(tmp_path)] == [str(number) for number in range(100)]


def test_what_the_disk_refuses_is_counted_and_told(tmp_path: Path) -> None:
    before = TRACES_DROPPED._value.get()
    (tmp_path / "2026-01-02").write_text("no folder")
    with capture_logs() as logged:
        store = TraceStore(tmp_path, every_s=3600.0)
        store.add(TRACE)
        store.close()
    assert TRACES_DROPPED._value.get() == before + 1
    assert [(one["event"], one["count"]) for one in logged] == [("traces_dropped", 1)]


def test_a_full_queue_drops_and_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_store, "MOST_WAITING", 2)
    before = TRACES_DROPPED._value.get()
    store = TraceStore(tmp_path, every_s=3600.0)
    for _ in range(5):
        store.add(TRACE)
    store.close()
    assert (len(read_traces(tmp_path)), TRACES_DROPPED._value.get() - before) == (2, 3)
