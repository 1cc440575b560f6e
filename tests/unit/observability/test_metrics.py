"""What a scrape shows after something was observed."""

from __future__ import annotations

from dataclasses import replace

from fakes import NOT_ENCODED, FakeSearcher
from prometheus_client import REGISTRY

from codeintel_rev.observability.metrics import observe_request, observe_search, observe_shards, observe_xtr
from codeintel_rev.types import Scope, TokenFigures


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_limit_is_counted_by_its_code() -> None:
    result = FakeSearcher(limits=(NOT_ENCODED,)).search("charge", Scope(), 8, deadline_ms=100)
    before = value("codeintel_limits_total", code="vectors-partial")
    observe_search(result)
    assert value("codeintel_limits_total", code="vectors-partial") == before + 1


def test_a_stage_is_timed_in_seconds() -> None:
    before = value("codeintel_search_stage_seconds_sum", stage="lexical")
    observe_search(FakeSearcher().search("charge", Scope(), 8, deadline_ms=100))
    assert round(value("codeintel_search_stage_seconds_sum", stage="lexical") - before, 6) == 0.0015


def test_a_request_is_counted_by_face_operation_and_outcome() -> None:
    observe_request("mcp", "open_file", "not-found", 0.01)
    assert value("codeintel_requests_total", face="mcp", operation="open_file", outcome="not-found") >= 1


def test_shards_are_counted_by_state_and_their_rows_summed() -> None:
    one = FakeSearcher().status()[0]
    observe_shards([one, replace(one, state="degraded", vector_coverage=0.4, counts={"chunks": 7})])
    assert (value("codeintel_shards", state="ready"), value("codeintel_shards", state="degraded")) == (1, 1)
    assert value("codeintel_index_rows", component="chunks") == one.counts["chunks"] + 7
    assert value("codeintel_vector_coverage") == 0.4


def test_a_step_of_late_interaction_is_timed_in_both_units() -> None:
    """A41, decision 25: the names asked for in milliseconds, and seconds as everywhere."""
    for figure, step in (
        ("xtr_search_encode_ms", "encode"),
        ("xtr_search_ivf_ms", "ivf"),
        ("xtr_search_reduce_ms", "reduce"),
        ("xtr_rescore_ms", "rescore"),
    ):
        ms, seconds = value(f"{figure}_sum"), value("codeintel_xtr_seconds_sum", step=step)
        observe_xtr(figure, 2.5)
        assert round(value(f"{figure}_sum") - ms, 6) == 2.5
        assert round(value("codeintel_xtr_seconds_sum", step=step) - seconds, 9) == 0.0025


def test_token_indexes_are_summed_over_what_is_served() -> None:
    """A41."""
    one = replace(FakeSearcher().status()[0], tokens=TokenFigures(3, 30, 1, 4000, 5.0, 6.0))
    two = replace(one, tokens=TokenFigures(1, 50, 2, 1000, 0.5, 0.5))
    observe_shards([one, two, replace(one, tokens=None)])
    told = {name: value(f"xtr_{name}") for name in ("index_bytes", "doc_count", "avg_doclen", "shards")}
    assert told == {"index_bytes": 5000, "doc_count": 4, "avg_doclen": 20, "shards": 3}
    assert (value("xtr_build_train_ms"), value("xtr_build_write_ms")) == (5.5, 6.5)
    observe_shards([replace(one, tokens=None)])
    assert (value("xtr_doc_count"), value("xtr_avg_doclen")) == (0, 0)
