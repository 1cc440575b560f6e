"""What a scrape shows after something was observed."""

from __future__ import annotations

from dataclasses import replace

from fakes import NOT_ENCODED, FakeSearcher
from prometheus_client import REGISTRY

from codeintel_rev.observability.metrics import observe_request, observe_search, observe_shards
from codeintel_rev.types import Scope


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
