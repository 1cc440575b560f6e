"""The first of the fused chunks looked at again, token by token: exact MaxSim, blended with the order they came in.

Ranks alone decide by default (reciprocal rank fusion, Cormack et al. 2009): MaxSim grows with the number of the query's
tokens, and no scale fits it to the fused score. Whatever decides the order, the fused scores are dealt out again in it,
so that the code-aware ranking finds them on the scale it is tuned for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import CodeIntelError
from codeintel_rev.observability.tracing import span
from codeintel_rev.retrieval.fanout import in_context
from codeintel_rev.retrieval.fuse import Fused, merge, normalise
from codeintel_rev.retrieval.late import QueryTokens, TokenIndex
from codeintel_rev.retrieval.options import RESCORE, Late
from codeintel_rev.retrieval.shard import Shard
from codeintel_rev.types import Floats, Ids, Limit, Ranking, ScoreNorm, Stage

RRF_K = 60


@dataclass(frozen=True, slots=True)
class Rescored:
    """What became of a fused ranking; as it was when a limit says why."""

    fused: Fused
    stage: Stage
    limits: tuple[Limit, ...] = ()
    notes: tuple[str, ...] = ()


def rescored(
    fused: Fused,
    shards: Sequence[Shard],
    tokens: QueryTokens,
    how: Late,
    executor: Executor,
    *,
    deadline: float,
    budget_ms: float,
) -> Rescored:
    """Return `fused` with its first `how.head` chunks in their new order, when all is there at `deadline` (monotonic).

    Those of all shards are scored at once. Whatever fails or is late is a Limit, and the order stays.
    """
    started = time.monotonic()
    head = fused.chunk_ids[: how.head]
    limit = None
    with span(f"search.{RESCORE}"):
        try:
            found = _scored(head, shards, tokens, executor, deadline)
        except NotInTime:
            limit = Limit(
                "channel-late", RESCORE, "late interaction was not in time.", "The fused order stands; retry."
            )
        except CodeIntelError as error:
            limit = Limit(error.slug, RESCORE, f"late interaction: {error.detail}", error.hint)
    ms = (time.monotonic() - started) * 1000
    if limit:
        status = "late" if limit.code == "channel-late" else "failed"
        return Rescored(fused, Stage(RESCORE, ms, status, budget_ms, limit.detail), (limit,))
    missing = len(head) - len(found)
    notes = (f"{RESCORE}:{len(found)}", *((f"xtr_missing:{missing}",) if missing else ()))
    return Rescored(blended(fused, found, how), Stage(RESCORE, ms, "ok", budget_ms), notes=notes)


def _scored(head: Ids, shards: Sequence[Shard], tokens: QueryTokens, executor: Executor, deadline: float) -> Ranking:
    """Return those of `head` that have tokens, by MaxSim, ties by chunk_id.

    Raises TimeoutError, and the CodeIntelError that stopped the first shard that failed.
    """
    running = [
        executor.submit(in_context(_of_shard), shard.tokens, tokens, shard.outlines.known(head))
        for shard in shards
        if shard.tokens
    ]
    try:
        found = [future.result(timeout=max(0.0, deadline - time.monotonic())) for future in running]
    finally:
        _give_up(running)
    return merge(RESCORE, found)


def _of_shard(index: TokenIndex, tokens: QueryTokens, ids: Ids) -> Ranking:
    found = index.engine.rescore(tokens.of(index.encoder), ids)
    return Ranking(RESCORE, found.doc_ids, found.scores)


def _give_up(running: Sequence[Future[Ranking]]) -> None:
    for future in running:
        future.cancel()


def blended(fused: Fused, found: Ranking, how: Late) -> Fused:
    """Return `fused` with its first `how.head` rows reordered by `found` and with one more column that says how.

    The column holds MaxSim, its rank among `found`, and what the new place added to the score or took from it. A chunk
    without tokens is neither lifted nor lowered for that, except by `replace`, which puts it behind. REQUIRES: `found`
    within the first `how.head` rows, best first.
    """
    count = min(how.head, len(fused.chunk_ids))
    rows = _rows(fused.chunk_ids[:count], found.chunk_ids)
    raw = np.full(len(fused.chunk_ids), np.nan, np.float32)
    ranks = np.zeros(len(fused.chunk_ids), np.int32)
    raw[rows], ranks[rows] = found.scores, np.arange(1, len(found) + 1)
    order = np.arange(len(fused.chunk_ids))
    order[:count] = np.lexsort((order[:count], -_worth(fused.scores[:count], raw[:count], ranks[:count], how)))
    return replace(
        fused,
        channels=(*fused.channels, RESCORE),
        weights=np.append(fused.weights, np.float32(how.weight)),
        chunk_ids=fused.chunk_ids[order],
        raw=np.column_stack((fused.raw, raw))[order],
        ranks=np.column_stack((fused.ranks, ranks))[order],
        parts=np.column_stack((fused.parts[order], fused.scores - fused.scores[order])),
    )


def _rows(chunk_ids: Ids, wanted: Ids) -> Ids:
    """Return at which row of `chunk_ids` each of `wanted` stands."""
    order = np.argsort(chunk_ids)
    rows: Ids = order[np.searchsorted(chunk_ids, wanted, sorter=order)]
    return rows


def _worth(scores: Floats, raw: Floats, ranks: NDArray[np.int32], how: Late) -> NDArray[np.float64]:
    """Return what the new order is by, descending; `scores`, `raw` and `ranks` are (n,), in fused order."""
    has = ranks > 0
    if how.blend == "replace":
        return np.where(has, -ranks.astype(np.float64), -np.inf)
    if how.blend == "sum":
        worth = scores.astype(np.float64)
        worth[has] += how.weight * _scaled(raw[has], how.score_norm)
        return worth
    places = np.arange(1, len(scores) + 1)
    return 1 / (RRF_K + places) + how.weight / (RRF_K + np.where(has, ranks, places))


def _scaled(scores: Floats, norm: ScoreNorm) -> Floats:
    if norm == "none" or not len(scores):
        return scores
    if norm == "minmax":
        return normalise(scores)
    width = float(scores.std())
    return np.asarray((scores - scores.mean()) / (width if width > 0 else 1), np.float32)
