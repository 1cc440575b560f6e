"""How MaxSim meets the fused order, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.retrieval.fuse import Fused, fuse
from codeintel_rev.retrieval.options import Late
from codeintel_rev.retrieval.rescore import blended
from codeintel_rev.types import Blend, Ranking, ScoreNorm

FUSED = [1.0, 0.5, 0.25, 0.0]


def fused(scores: list[float]) -> Fused:
    """Return the ranking of one channel whose normalised scores these are; chunk ids are 10, 20, …"""
    ids = np.arange(1, len(scores) + 1) * 10
    return fuse([Ranking("lexical", ids, np.array(scores, np.float32))], {"lexical": 1.0})


def maxsim(scores: dict[int, float]) -> Ranking:
    best = sorted(scores, key=lambda chunk_id: (-scores[chunk_id], chunk_id))
    return Ranking("xtr_rescore", np.array(best, np.int64), np.array([scores[i] for i in best], np.float32))


def how(blend: Blend = "rrf", head: int = 4, weight: float = 1.0, norm: ScoreNorm = "minmax") -> Late:
    return Late(wide=False, head=head, blend=blend, score_norm=norm, weight=weight)


def order(found: dict[int, float], late: Late, scores: list[float] = FUSED) -> list[int]:
    return blended(fused(scores), maxsim(found), late).chunk_ids.tolist()


def test_ranks_alone_decide_by_default() -> None:
    """A39, decision 23: 1/62 + 1/61 is more than 1/61 + 1/64, and that than 1/63 + 1/62; scores do not matter."""
    found = {10: 1.0, 20: 9.0, 30: 2.0, 40: 1.5}
    assert order(found, how()) == order({i: s * s for i, s in found.items()}, how()) == [20, 10, 30, 40]


def test_a_weight_says_how_much_rescoring_counts() -> None:
    found = {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}
    assert order(found, how(weight=0.01)) == [10, 20, 30, 40]
    assert order(found, how(weight=100.0)) == [40, 30, 20, 10]


def test_a_replacement_is_maxsim_alone_with_what_has_no_tokens_behind() -> None:
    """Decision 23: only when it is asked for."""
    assert order({20: 1.0, 30: 2.0, 40: 3.0}, how("replace")) == [40, 30, 20, 10]


@pytest.mark.parametrize(
    ("norm", "expected"),
    # 1.0 + 0, 0.5 + 1, 0.25 + 0.5, 0 + 0.75 · and with z −1.34, 1.34, 0, 0.45 · and as they are 5, 9, 7, 8
    [("minmax", [20, 10, 30, 40]), ("z", [20, 40, 30, 10]), ("none", [20, 40, 30, 10])],
)
def test_a_sum_adds_scaled_scores(norm: ScoreNorm, expected: list[int]) -> None:
    """A35, A46: each scale gives an order of its own."""
    found = {10: 5.0, 20: 9.0, 30: 7.0, 40: 8.0}
    assert order(found, how("sum", norm=norm)) == expected


def test_scales_differ_where_scores_crowd() -> None:
    """A46: as they are, small differences never move what is far apart; minmax and z spread them."""
    found = {10: 7.0, 20: 7.01, 30: 7.02, 40: 7.05}
    orders = {norm: order(found, how("sum", norm=norm)) for norm in ("none", "minmax", "z")}  # type: ignore[arg-type]
    assert orders == {"none": [10, 20, 30, 40], "minmax": [10, 40, 20, 30], "z": [40, 30, 20, 10]}


def test_what_lies_beyond_the_head_keeps_its_order_behind_it() -> None:
    """Decision 21."""
    assert order({10: 1.0, 20: 2.0}, how("replace", head=2)) == [20, 10, 30, 40]


def test_a_chunk_without_tokens_is_neither_lifted_nor_lowered() -> None:
    """Decision 21: skipped; rescoring the others in their own order moves nothing."""
    assert order({10: 3.0, 20: 2.0, 40: 1.0}, how()) == [10, 20, 30, 40]


def test_the_column_says_what_rescoring_did() -> None:
    """The fused scores are dealt out in the new order, so that the parts of a row still add up to its score."""
    told = blended(fused(FUSED), maxsim({10: 1.0, 20: 2.0}), how("replace"))
    assert told.channels == ("lexical", "xtr_rescore")
    assert told.scores.tolist() == FUSED
    assert np.allclose(told.parts.sum(axis=1), told.scores)
    first, last = told.contributions(0), told.contributions(3)
    assert (first["xtr_rescore"].rank, first["xtr_rescore"].score, first["xtr_rescore"].contribution) == (1, 2.0, 0.5)
    assert last.keys() == {"lexical"}
    assert told.offered("xtr_rescore") == 2


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12, unique=True),
    st.sampled_from(["rrf", "replace", "sum"]),
    st.sampled_from(["none", "minmax", "z"]),
    st.integers(1, 15),
    st.data(),
)
def test_nothing_is_lost_whatever_is_asked(
    scores: list[float], blend: Blend, norm: ScoreNorm, head: int, data: st.DataObject
) -> None:
    before = fused(scores)
    within = before.chunk_ids[:head].tolist()
    found = {i: data.draw(st.floats(-5, 50, width=32)) for i in within if data.draw(st.booleans())}
    after = blended(before, maxsim(found), how(blend, head=head, norm=norm))
    assert sorted(after.chunk_ids.tolist()) == sorted(before.chunk_ids.tolist())
    assert after.chunk_ids[head:].tolist() == before.chunk_ids[head:].tolist()
    assert after.scores.tolist() == before.scores.tolist()
    assert np.allclose(after.parts.sum(axis=1), after.scores, atol=1e-6)
