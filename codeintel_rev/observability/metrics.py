"""Every metric this project exposes, by name. Label values come from closed sets: never a repository, path or query.

Gauges choose how the values of several worker processes are joined; counters and histograms are summed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from codeintel_rev.config.multiprocess import shares_metrics
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.types import SearchResult, ShardStatus, TokenFigures

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Counter("codeintel_requests", "Requests answered", ["face", "operation", "outcome"])
REQUEST_SECONDS = Histogram("codeintel_request_seconds", "Time to answer", ["face", "operation"], buckets=SECONDS)
STAGE_SECONDS = Histogram("codeintel_search_stage_seconds", "Time of one arrow of a search", ["stage"], buckets=SECONDS)
LIMITS = Counter("codeintel_limits", "Things callers did not get", ["code"])
SHED = Counter("codeintel_shed", "Requests refused because too many were in flight")
IN_FLIGHT = Gauge("codeintel_in_flight", "Requests being answered", multiprocess_mode="livesum")
SHARDS = Gauge("codeintel_shards", "Repositories served", ["state"], multiprocess_mode="mostrecent")
INDEX_ROWS = Gauge("codeintel_index_rows", "Rows over all shards", ["component"], multiprocess_mode="mostrecent")
VECTOR_COVERAGE = Gauge(
    "codeintel_vector_coverage", "Lowest share of chunks with a vector in any shard", multiprocess_mode="mostrecent"
)
UNFOLLOWED = Gauge("codeintel_unfollowed", "Repositories whose watcher died or fails", multiprocess_mode="mostrecent")
READINESS_CHANGES = Counter("codeintel_readiness_changes", "Readiness transitions of a worker", ["state"])
ANSWERS = Counter("codeintel_answers", "Answers that ended", ["status", "mode"])
ANSWER_SECONDS = Histogram("codeintel_answer_seconds", "Time from a question on", ["phase"], buckets=SECONDS)
TOKENS = Counter("codeintel_tokens_generated", "Tokens that models wrote into answers")
TRACES_DROPPED = Counter("codeintel_traces_dropped", "Traces of answers that could not be written")

VLLM_REQUESTS = Counter("codeintel_vllm_requests", "Calls to model servers", ["endpoint", "outcome"])
VLLM_SECONDS = Histogram("codeintel_vllm_seconds", "Time of one call to a model server", ["endpoint"], buckets=SECONDS)
VLLM_RETRIES = Counter("codeintel_vllm_retries", "Requests sent a second time", ["endpoint"])
VLLM_HEDGES = Counter("codeintel_vllm_hedges", "Second requests beside a slow first one", ["endpoint", "winner"])
VLLM_BREAKER_OPEN = Gauge(
    "codeintel_vllm_breaker_open", "Whether calls are refused", ["endpoint"], multiprocess_mode="livemax"
)

# Late interaction: the names that dashboards of its first design know, in milliseconds, beside one in seconds.
MILLISECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0)
XTR_SEARCH_ENCODE_MS = Histogram("xtr_search_encode_ms", "Making a query's tokens", buckets=MILLISECONDS)
XTR_SEARCH_IVF_MS = Histogram("xtr_search_ivf_ms", "Probing centroids for candidates", buckets=MILLISECONDS)
XTR_SEARCH_REDUCE_MS = Histogram("xtr_search_reduce_ms", "MaxSim over centroids", buckets=MILLISECONDS)
XTR_RESCORE_MS = Histogram("xtr_rescore_ms", "Exact MaxSim of candidates", buckets=MILLISECONDS)
XTR_SECONDS = Histogram("codeintel_xtr_seconds", "Time of one step of late interaction", ["step"], buckets=SECONDS)
XTR_INDEX_BYTES = Gauge("xtr_index_bytes", "Bytes of token indexes on disk", multiprocess_mode="mostrecent")
XTR_DOC_COUNT = Gauge("xtr_doc_count", "Chunks with tokens", multiprocess_mode="mostrecent")
XTR_AVG_DOCLEN = Gauge("xtr_avg_doclen", "Tokens a chunk", multiprocess_mode="mostrecent")
XTR_SHARDS = Gauge("xtr_shards", "Segments of token indexes", multiprocess_mode="mostrecent")
XTR_BUILD_TRAIN_MS = Gauge("xtr_build_train_ms", "Training of the codecs served", multiprocess_mode="mostrecent")
XTR_BUILD_WRITE_MS = Gauge("xtr_build_write_ms", "Writing of the token indexes served", multiprocess_mode="mostrecent")
_XTR_STEPS = {
    "xtr_search_encode_ms": (XTR_SEARCH_ENCODE_MS, XTR_SECONDS.labels("encode")),
    "xtr_search_ivf_ms": (XTR_SEARCH_IVF_MS, XTR_SECONDS.labels("ivf")),
    "xtr_search_reduce_ms": (XTR_SEARCH_REDUCE_MS, XTR_SECONDS.labels("reduce")),
    "xtr_rescore_ms": (XTR_RESCORE_MS, XTR_SECONDS.labels("rescore")),
}

SHARD_STATES = ("empty", "building", "ready", "degraded", "down")


def observe_request(face: str, operation: str, outcome: str, seconds: float) -> None:
    """Count one answered request. `face` is http or mcp, `operation` a route template or tool name."""
    REQUESTS.labels(face, operation, outcome).inc()
    REQUEST_SECONDS.labels(face, operation).observe(seconds)


def observe_search(result: SearchResult) -> None:
    """Record how long each stage took and what the caller did not get."""
    for stage in result.stages:
        STAGE_SECONDS.labels(stage.name).observe(stage.ms / 1000)
    for limit in result.limits:
        LIMITS.labels(limit.code).inc()


def observe_answer(trace: AnswerTrace) -> None:
    """Count one answer that ended, and when its sources, its text and its end came."""
    ANSWERS.labels(trace.status, trace.mode).inc()
    for phase, ms in (("sources", trace.extract_ms), ("text", trace.text_ms), ("end", trace.total_ms)):
        if ms is not None:
            ANSWER_SECONDS.labels(phase).observe(ms / 1000)
    TOKENS.inc(trace.completion_tokens or 0)
    for code in trace.limits:
        LIMITS.labels(code).inc()


def observe_shards(shards: Iterable[ShardStatus]) -> None:
    """Set the gauges that describe what is served now."""
    seen = tuple(shards)
    for state in SHARD_STATES:
        SHARDS.labels(state).set(sum(shard.state == state for shard in seen))
    for component in {name for shard in seen for name in shard.counts}:
        INDEX_ROWS.labels(component).set(sum(shard.counts.get(component, 0) for shard in seen))
    VECTOR_COVERAGE.set(min((shard.vector_coverage for shard in seen), default=0.0))
    UNFOLLOWED.set(sum(any(limit.stage == "watch" for limit in shard.limits) for shard in seen))
    _observe_tokens([shard.tokens for shard in seen if shard.tokens])


def observe_xtr(figure: str, milliseconds: float) -> None:
    """Record how long a step of late interaction took; `figure` is its name in milliseconds."""
    in_ms, in_seconds = _XTR_STEPS[figure]
    in_ms.observe(milliseconds)
    in_seconds.observe(milliseconds / 1000)


def _observe_tokens(indexes: list[TokenFigures]) -> None:
    documents = sum(index.documents for index in indexes)
    XTR_INDEX_BYTES.set(sum(index.bytes for index in indexes))
    XTR_DOC_COUNT.set(documents)
    XTR_AVG_DOCLEN.set(sum(index.tokens for index in indexes) / documents if documents else 0.0)
    XTR_SHARDS.set(sum(index.segments for index in indexes))
    XTR_BUILD_TRAIN_MS.set(sum(index.train_ms for index in indexes))
    XTR_BUILD_WRITE_MS.set(sum(index.write_ms for index in indexes))


def exposition() -> bytes:
    """Return every metric in Prometheus' text format, summed over the worker processes when there are several."""
    if not shares_metrics():
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def retire_process() -> None:
    """Take this worker's live gauges out of the sum. To be called once, when the worker stops."""
    if shares_metrics():
        mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]
