"""What is shown of a ranked chunk, and that nothing is shown of what the catalogue does not know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.io.outlines import Outlines
from codeintel_rev.retrieval.fuse import Fused, fuse
from codeintel_rev.retrieval.hydrate import candidates, hits
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.retrieval.rank import Ranked
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Ids, Ranking
from tests.indexed import chunks_of

PLAN = make_plan("add_item", 10)


def fused_from(chunk_ids: Ids, channel: str = "lexical") -> Fused:
    scores = np.arange(len(chunk_ids), 0, -1).astype(np.float32)
    return fuse([Ranking(channel, chunk_ids, scores)], {channel: 1.0})


def some_ids(served: Shards) -> Ids:
    """Return chunks of both repositories, in an order of their own."""
    ids = np.array([chunk.chunk_id for chunk in chunks_of(served)], np.int64)
    return ids[np.random.default_rng(0).permutation(len(ids))]


def test_candidates_and_hits_come_in_the_order_given_whatever_shard_they_are_of(served: Shards) -> None:
    fused = fused_from(some_ids(served))
    with served.lease(()) as shards:
        found = candidates(fused, shards)
        shown = hits(
            PLAN, [Ranked(row, 1.0, ()) for row in range(len(found))][::-1], fused, shards, QueryTokens(PLAN.query)
        )
    assert [one.chunk_id for one in found] == fused.chunk_ids.tolist()
    assert [hit.chunk_id for hit in shown] == fused.chunk_ids.tolist()[::-1]
    assert {(one.chunk_id, one.repo, one.path) for one in found} == {(h.chunk_id, h.repo, h.path) for h in shown}
    assert {hit.repo for hit in shown} == {"shop", "org/ledger"}


def test_a_chunk_the_catalogue_does_not_know_is_a_mismatch(served: Shards) -> None:
    """F14: an outline of another generation never becomes a hit."""
    with served.lease(()) as shards:
        first, *_ = shards
        unknown = np.append(first.outlines.chunk_ids, np.int64(2**63 - 1))
        columns = first.outlines.columns.take([*range(len(unknown) - 1), 0])
        torn = replace(first, outlines=Outlines(unknown, columns))
        with pytest.raises(GenerationMismatch, match="1 ranked chunks"):
            hits(PLAN, [Ranked(0, 1.0, ())], fused_from(unknown[-1:]), [torn], QueryTokens(PLAN.query))


@pytest.mark.parametrize(
    ("query", "channel", "reason"),
    [
        ("add_item", "lexical", "words add_item (lexical #1)"),
        ("how is that", "lexical", "common words (lexical #1)"),
        ("add_item", "dense", "similar meaning, cosine 1.00 (dense #1)"),
        ("add_item", "symbols", "symbols #1"),
    ],
)
def test_a_channel_s_part_is_put_in_words(served: Shards, query: str, channel: str, reason: str) -> None:
    (chunk,) = [chunk for chunk in chunks_of(served) if chunk.symbol == "Cart.add_item"]
    fused = fused_from(np.array([chunk.chunk_id], np.int64), channel)
    with served.lease(()) as shards:
        (hit,) = hits(make_plan(query, 10), [Ranked(0, 1.0, ("and more",))], fused, shards, QueryTokens(query))
    assert hit.why == (reason, "and more")


def test_nothing_ranked_is_nothing_shown(served: Shards) -> None:
    with served.lease(()) as shards:
        assert hits(PLAN, [], fused_from(np.empty(0, np.int64)), shards, QueryTokens(PLAN.query)) == ()
