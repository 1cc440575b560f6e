"""Late interaction finds and scores what plain sums of maxima say it should."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codeintel_rev.errors import DimensionMismatch, InvalidArgument, NotFound
from codeintel_rev.xtr import dots, kernels, rescore
from codeintel_rev.xtr.build import build_index
from codeintel_rev.xtr.config import BuildConfig, SearchConfig
from codeintel_rev.xtr.explain import explain
from codeintel_rev.xtr.metrics import Figure, timed
from codeintel_rev.xtr.search import XTRSearch, normalised
from tests.unit.xtr.token_corpora import clustered, exact, maxsim, opened, unit, vectors

LOOPS = [kernels.decoded_sums, kernels.best_cells, kernels.probe, kernels.levels, kernels.interact]
WIDE = {"brute_force": 0}
"""Every search goes through probing and interaction, however few the documents."""


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 12), max_size=12),
    queries=st.integers(1, 20),
    dim=st.integers(1, 70),
    bits=st.sampled_from([2, 4]),
    brute_force=st.sampled_from([0, 100]),
)
def test_compressed_scores_are_near_exact_ones(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    lengths: list[int],
    queries: int,
    dim: int,
    bits: int,
    brute_force: int,
) -> None:
    """A36: whatever the dimension, the lengths and the way taken; 0-document indexes and empty documents included."""
    random = np.random.default_rng(seed)
    corpus = clustered(random, lengths, dim, centres=5)
    query = vectors(random, queries, dim)
    index = opened(tmp_path_factory.mktemp("xtr"), corpus, dim, quant_bits=bits, brute_force=brute_force, nprobe=200)
    found = index.search(query)
    true = exact(query, corpus)
    assert set(found.doc_ids.tolist()) == {i for i, tokens in corpus.items() if len(tokens)}
    wrong = [abs(score - true[i]) for i, score in zip(found.doc_ids.tolist(), found.scores.tolist(), strict=True)]
    assert max(wrong, default=0.0) <= (0.06 if bits == 4 else 0.25) * queries


@pytest.mark.parametrize("dim", [8, 24, 64, 96, 128])
@pytest.mark.parametrize("queries", [1, 32, 512])
def test_the_flat_layout_is_plain_maxsim(tmp_path: Path, random: np.random.Generator, dim: int, queries: int) -> None:
    corpus = clustered(random, [0, 1, 7, 300, 5000], dim)
    query = vectors(random, queries, dim)
    found = opened(tmp_path, corpus, dim, layout="flat").rescore(query, np.array(list(corpus), np.int64))
    halves = {i: maxsim(query, tokens.astype(np.float16).astype(np.float32)) for i, tokens in corpus.items()}
    np.testing.assert_allclose(found.scores, [halves[i] for i in found.doc_ids.tolist()], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dim", [8, 32, 48, 128])
@pytest.mark.parametrize("queries", [1, 33, 512])
def test_any_query_length_finds_one_of_the_best(
    tmp_path: Path, random: np.random.Generator, dim: int, queries: int
) -> None:
    corpus = clustered(random, [20] * 400, dim)
    index = opened(tmp_path, corpus, dim, nlist=500, nprobe=16, candidates=200, rescored=100, **WIDE)
    for wanted in (1, 399, 799):
        query = unit(corpus[wanted][random.integers(0, 20, queries)] + 0.1 * vectors(random, queries, dim))
        true = exact(query, corpus)
        assert true[int(index.search(query, 1).doc_ids[0])] >= max(true.values()) - 0.03 * queries


def test_probing_finds_what_looking_at_all_finds(tmp_path: Path, random: np.random.Generator) -> None:
    """Narrowing to a twentieth of the documents loses next to nothing of the ten best."""
    corpus = clustered(random, random.integers(10, 40, 2000).tolist(), 32, centres=400)
    narrow = opened(tmp_path, corpus, 32, nprobe=16, candidates=600, rescored=100, **WIDE)
    everything = XTRSearch.open(SearchConfig(tmp_path, brute_force=2000))
    kept = []
    for wanted in range(1, 4000, 200):
        query = unit(corpus[wanted][random.integers(0, 10, 16)] + 0.4 * vectors(random, 16, 32))
        a, b = narrow.search(query, 10), everything.search(query, 10)
        kept.append(len(set(a.doc_ids.tolist()) & set(b.doc_ids.tolist())) / 10)
    assert np.mean(kept) >= 0.95


def test_two_ways_to_one_document_give_one_score(tmp_path: Path, random: np.random.Generator) -> None:
    corpus = clustered(random, [30] * 100, 64)
    index = opened(tmp_path, corpus, 64, **WIDE)
    query = vectors(random, 9, 64)
    found = index.search(query, 5)
    again = index.rescore(query, found.doc_ids[::-1].copy())
    np.testing.assert_array_equal(found.doc_ids, again.doc_ids)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_order_of_twenty_documents_and_three_queries(tmp_path: Path) -> None:
    """A47, the engine's part: document i has the axes 0 … i of 20, so the axes j … 19 rank the longest first."""
    axes = np.eye(20, dtype=np.float32)
    corpus = {i: axes[: i + 1] for i in range(20)}
    index = opened(tmp_path, corpus, 20)
    for first in (0, 10, 19):
        found = index.search(axes[first:], 20 - first)
        assert found.doc_ids.tolist() == list(range(19, first - 1, -1))


def test_equal_scores_are_ordered_by_id(tmp_path: Path, random: np.random.Generator) -> None:
    same = vectors(random, 3, 16)
    index = opened(tmp_path, {9: same, 4: same, 7: same}, 16)
    assert index.search(same).doc_ids.tolist() == [4, 7, 9]


@pytest.mark.parametrize("brute_force", [0, 1000])
def test_only_allowed_documents_are_found(tmp_path: Path, random: np.random.Generator, brute_force: int) -> None:
    """The filter is pushed down: the best of the allowed are found, however many others are better."""
    corpus = clustered(random, [15] * 500, 32)
    index = opened(tmp_path, corpus, 32, nprobe=64, rescored=50, brute_force=brute_force)
    query = vectors(random, 6, 32)
    allowed = np.array([1, 5, 77, 501, 999, 2**40, -3], np.int64)
    found = index.search(query, 10, allowed)
    true = exact(query, {i: corpus[i] for i in (1, 5, 77, 501, 999)})
    assert set(found.doc_ids.tolist()) <= set(true)
    assert found.doc_ids[0] == max(true, key=lambda i: true[i])


def test_nothing_allowed_finds_nothing(tmp_path: Path, random: np.random.Generator) -> None:
    index = opened(tmp_path, clustered(random, [5] * 10, 16), 16, **WIDE)
    assert len(index.search(vectors(random, 3, 16), 5, np.array([], np.int64)).doc_ids) == 0


def test_missing_ids_are_counted(tmp_path: Path, random: np.random.Generator) -> None:
    """Decision 21: one missing chunk does not lose the others."""
    corpus = clustered(random, [4, 4, 0], 16)
    found = opened(tmp_path, corpus, 16).rescore(vectors(random, 3, 16), np.array([1, 3, 5, 8, -1], np.int64))
    assert (sorted(found.doc_ids.tolist()), found.missing) == ([1, 3, 5], 2)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        (np.zeros((3, 15), np.float32), DimensionMismatch),
        (np.zeros(16, np.float32), DimensionMismatch),
        (np.zeros((0, 16), np.float32), InvalidArgument),
        (np.full((2, 16), np.nan, np.float32), InvalidArgument),
        (np.full((2, 16), np.inf, np.float32), InvalidArgument),
    ],
)
def test_an_impossible_query_is_refused(
    tmp_path: Path, random: np.random.Generator, query: np.ndarray, error: type[Exception]
) -> None:
    index = opened(tmp_path, clustered(random, [4] * 5, 16), 16)
    with pytest.raises(error):
        index.search(query)


def test_a_query_of_zeros_scores_nothing(tmp_path: Path, random: np.random.Generator) -> None:
    index = opened(tmp_path, clustered(random, [4] * 5, 16), 16)
    np.testing.assert_array_equal(index.search(np.zeros((2, 16), np.float32)).scores, np.zeros(5))


def test_two_indexes_side_by_side_do_not_meet(tmp_path: Path, random: np.random.Generator) -> None:
    """A34: nothing is global; dimensions, bits and layouts differ."""
    first, second = clustered(random, [6] * 30, 16), clustered(random, [6] * 30, 48)
    one = opened(tmp_path / "one", first, 16, quant_bits=2)
    two = opened(tmp_path / "two", second, 48, layout="flat")
    query_one, query_two = first[7], second[9]
    assert [one.search(query_one, 1).doc_ids[0], two.search(query_two, 1).doc_ids[0]] == [7, 9]
    assert one.search(query_one, 1).doc_ids[0] == 7


def test_scores_can_be_normalised() -> None:
    """A35, A46."""
    scores = np.array([3, 2, 1], np.float32)
    assert normalised(scores, "none").tolist() == [3, 2, 1]
    assert normalised(scores, "minmax").tolist() == [1, 0.5, 0]
    assert normalised(scores, "z").tolist() == pytest.approx([1.2247, 0, -1.2247], abs=1e-3)
    assert normalised(scores[:1], "minmax").tolist() == [0]
    assert normalised(scores[:0], "z").tolist() == []


@pytest.mark.parametrize("layout", ["flat", "warp"])
def test_an_explanation_adds_up_to_the_score(tmp_path: Path, random: np.random.Generator, layout: str) -> None:
    """A12: the alignments that weigh most come first, and all of them make the score."""
    corpus = clustered(random, [12] * 20, 32)
    index = opened(tmp_path, corpus, 32, layout=layout)
    query = unit(corpus[5][[3, 8, 1]] + 0.05 * vectors(random, 3, 32))
    alignments = explain(index, query, 5)
    assert {(a.q_index, a.doc_token_index) for a in alignments} == {(0, 3), (1, 8), (2, 1)}
    assert [a.similarity for a in alignments] == sorted((a.similarity for a in alignments), reverse=True)
    assert sum(a.share for a in alignments) == pytest.approx(1)
    score = float(index.rescore(query, np.array([5], np.int64)).scores[0])
    assert sum(a.similarity for a in alignments) == pytest.approx(score, abs=0.03)


def test_an_explanation_of_nothing_is_empty_and_of_nobody_an_error(tmp_path: Path, random: np.random.Generator) -> None:
    index = opened(tmp_path, {1: np.zeros((0, 16), np.float32), 2: vectors(random, 2, 16)}, 16)
    assert explain(index, vectors(random, 2, 16), 1) == ()
    with pytest.raises(NotFound):
        explain(index, vectors(random, 2, 16), 3)


def test_every_figure_is_told(tmp_path: Path, random: np.random.Generator) -> None:
    """A41."""
    told: dict[Figure, float] = {}
    corpus = clustered(random, [10, 20, 30], 16)
    build_index(BuildConfig(tmp_path, 16), corpus.items(), told.__setitem__)
    index = XTRSearch.open(SearchConfig(tmp_path, **WIDE), told.__setitem__)
    with timed(told.__setitem__, Figure.SEARCH_ENCODE_MS):
        query = vectors(random, 4, 16)
    index.search(query)
    assert set(told) == set(Figure)
    assert (told[Figure.DOC_COUNT], told[Figure.AVG_DOCLEN], told[Figure.SHARDS]) == (3, 20, 1)


@pytest.mark.parametrize("brute_force", [0, 1000])
def test_a_cpu_without_int8_products_gives_the_same_scores(
    tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, brute_force: int
) -> None:
    corpus = clustered(random, [9] * 50, 48)
    index = opened(tmp_path, corpus, 48, brute_force=brute_force)
    query = vectors(random, 5, 48)
    fast = index.search(query)
    for module in (dots, rescore):
        monkeypatch.setattr(module, "has_int8", lambda: False)
    slow = index.search(query)
    np.testing.assert_array_equal(slow.doc_ids, fast.doc_ids)
    np.testing.assert_array_equal(slow.scores, fast.scores)


@pytest.mark.parametrize("corpus_size", [0, 1, 50])
def test_warming_leaves_nothing_to_compile(tmp_path: Path, random: np.random.Generator, corpus_size: int) -> None:
    index = opened(tmp_path, clustered(random, [9] * corpus_size, 48), 48, **WIDE)
    index.warm()
    compiled_before = [len(loop.signatures) for loop in LOOPS]
    index.search(vectors(random, 40, 48), 10)
    index.rescore(vectors(random, 3, 48), np.array([1, 3], np.int64))
    assert [len(loop.signatures) for loop in LOOPS] == compiled_before


def test_the_engine_needs_no_torch() -> None:
    """Only the CUDA way does: two seconds and 200 MB that nobody else should pay."""
    code = "import sys, codeintel_rev.xtr.search, codeintel_rev.xtr.build; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_many_threads_share_an_index(tmp_path: Path, random: np.random.Generator) -> None:
    index = opened(tmp_path, clustered(random, [20] * 300, 32), 32, **WIDE)
    queries = [vectors(random, 8, 32) for _ in range(40)]
    alone = [index.search(query, 10).doc_ids.tolist() for query in queries]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: index.search(query, 10).doc_ids.tolist(), queries))
    assert together == alone
