"""Every offered chunk once, in an order that follows from scores and weights alone, every part accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.retrieval.fuse import Fused, fuse, merge
from codeintel_rev.types import Ranking

CHANNELS = ("lexical", "dense", "symbols")


def ranking(channel: str, scores: dict[int, float]) -> Ranking:
    ordered = sorted(scores.items(), key=lambda item: (-np.float32(item[1]), item[0]))
    ids = np.array([chunk_id for chunk_id, _ in ordered], np.int64)
    return Ranking(channel, ids, np.array([score for _, score in ordered], np.float32))


def order(fused: Fused) -> list[int]:
    return fused.chunk_ids.tolist()


OFFERS = st.dictionaries(st.integers(1, 30), st.floats(-1, 50, width=32), max_size=12)
RANKINGS = st.fixed_dictionaries(dict.fromkeys(CHANNELS, OFFERS)).map(
    lambda offers: [ranking(channel, scores) for channel, scores in offers.items()]
)
WEIGHTED = st.fixed_dictionaries(dict.fromkeys(CHANNELS, st.floats(0, 4, width=16)))


def taking_part(rankings: list[Ranking], weights: dict[str, float]) -> list[Ranking]:
    return [one for one in rankings if len(one) and weights[one.channel] > 0]


@given(RANKINGS, WEIGHTED)
def test_every_chunk_of_a_channel_with_weight_is_there_once(rankings: list[Ranking], weights: dict[str, float]) -> None:
    offered = {int(chunk_id) for one in taking_part(rankings, weights) for chunk_id in one.chunk_ids}
    assert sorted(order(fuse(rankings, weights))) == sorted(offered)


@given(RANKINGS, WEIGHTED)
def test_contributions_add_up_to_the_score(rankings: list[Ranking], weights: dict[str, float]) -> None:
    fused = fuse(rankings, weights)
    for row, score in enumerate(fused.scores):
        assert sum(part.contribution for part in fused.contributions(row).values()) == pytest.approx(score, abs=1e-5)
        assert -1e-6 <= score <= 1 + 1e-5


@given(RANKINGS, WEIGHTED)
def test_best_comes_first_and_ties_by_ascending_id(rankings: list[Ranking], weights: dict[str, float]) -> None:
    fused = fuse(rankings, weights)
    keys = list(zip((-fused.scores).tolist(), order(fused), strict=True))
    assert keys == sorted(keys)


@given(RANKINGS, WEIGHTED)
def test_a_contribution_tells_the_channel_s_own_rank_and_score(
    rankings: list[Ranking], weights: dict[str, float]
) -> None:
    fused = fuse(rankings, weights)
    told = {
        (name, chunk_id): (part.rank, part.score)
        for row, chunk_id in enumerate(order(fused))
        for name, part in fused.contributions(row).items()
    }
    expected = {
        (one.channel, int(chunk_id)): (place, float(score))
        for one in taking_part(rankings, weights)
        for place, (chunk_id, score) in enumerate(zip(one.chunk_ids, one.scores, strict=True), 1)
    }
    assert told == expected


@given(RANKINGS, WEIGHTED, st.randoms(use_true_random=False))
def test_the_order_of_the_channels_does_not_matter(rankings: list[Ranking], weights: dict[str, float], random) -> None:
    shuffled = random.sample(rankings, len(rankings))
    one, other = fuse(rankings, weights), fuse(shuffled, weights)
    scores = dict(zip(order(other), other.scores.tolist(), strict=True))
    assert [scores[chunk_id] for chunk_id in order(one)] == pytest.approx(one.scores.tolist(), abs=1e-6)


@given(RANKINGS, WEIGHTED)
def test_an_empty_channel_takes_no_part(rankings: list[Ranking], weights: dict[str, float]) -> None:
    """A late channel's empty ranking leaves the scores of the others as they are."""
    with_empty = fuse([*rankings, ranking("late", {})], weights | {"late": 3.0})
    without = fuse(rankings, weights)
    assert with_empty.channels == without.channels
    assert with_empty.scores.tobytes() == without.scores.tobytes()


def test_a_channel_without_weight_takes_no_part() -> None:
    fused = fuse([ranking("lexical", {1: 2.0}), ranking("symbols", {9: 2.0})], {"lexical": 1.0, "symbols": 0.0})
    assert (fused.channels, order(fused)) == (("lexical",), [1])


def test_nothing_offered_is_nothing_fused() -> None:
    fused = fuse([ranking("lexical", {})], {"lexical": 1.0})
    assert (len(fused.chunk_ids), fused.channels) == (0, ())


def test_the_channel_with_more_weight_decides() -> None:
    lexical, dense = ranking("lexical", {1: 9.0, 2: 1.0}), ranking("dense", {2: 0.9, 1: 0.1})
    assert order(fuse([lexical, dense], {"lexical": 2.0, "dense": 1.0})) == [1, 2]
    assert order(fuse([lexical, dense], {"lexical": 1.0, "dense": 2.0})) == [2, 1]


def test_scales_of_channels_do_not_matter() -> None:
    """BM25 reaches 40, cosine 1: neither drowns the other."""
    dense = ranking("dense", {1: 0.9, 2: 0.5, 3: 0.1})
    weights = {"lexical": 1.0, "dense": 1.0}
    small, large = ({3: 0.3, 2: 0.2, 1: 0.1}, {3: 300.0, 2: 200.0, 1: 100.0})
    assert order(fuse([ranking("lexical", small), dense], weights)) == order(
        fuse([ranking("lexical", large), dense], weights)
    )


def test_what_two_channels_agree_on_leads() -> None:
    fused = fuse(
        [ranking("lexical", {1: 3.0, 2: 2.9, 4: 0.0}), ranking("dense", {3: 0.8, 2: 0.79, 5: 0.0})],
        {"lexical": 1.0, "dense": 1.0},
    )
    assert order(fused)[0] == 2


def test_a_chunk_that_several_shards_have_stands_once_with_its_best_score() -> None:
    one = Ranking("lexical", np.array([7, 3]), np.array([2.0, 1.0], np.float32))
    other = Ranking("lexical", np.array([3, 5]), np.array([1.5, 1.0], np.float32))
    merged = merge("lexical", [one, other])
    assert list(zip(merged.chunk_ids.tolist(), merged.scores.tolist(), strict=True)) == [(7, 2.0), (3, 1.5), (5, 1.0)]
