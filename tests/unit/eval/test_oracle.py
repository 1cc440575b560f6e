"""What the index finds, against every stored vector."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.eval.oracle import index_recall, nearest
from codeintel_rev.eval.tune import probe_grid
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.faiss_index import build_index, inverted_family, read_meta
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.io.vector_update import update_vectors
from codeintel_rev.io.vectors import VectorTable
from tests.indexed import Place

QUESTIONS = ["how is a cart paid", "apply a discount", "format money"]


def test_the_oracle_sees_every_vector(corpus: Place, minilm: DenseEncoder) -> None:
    stored = StoredVectors.open(corpus.current("shop"), 384)
    ids, scores = nearest(stored, minilm.encode_queries(QUESTIONS)[0], len(stored) + 1)
    assert sorted(ids.tolist()) == sorted(stored.idmap()[1].tolist())
    assert (np.diff(scores) <= 0).all()


def test_an_exact_index_has_full_recall_and_a_poor_one_has_not(corpus: Place, minilm: DenseEncoder) -> None:
    index = DualIndex.open(corpus.current("shop"), 384)
    stored = StoredVectors.open(corpus.current("shop"), 384)
    vectors = minilm.encode_queries(QUESTIONS)

    class Half(DualIndex):
        def search(self, *args, **kwargs):  # type: ignore[no-untyped-def]
            ids, scores = index.search(*args, **kwargs)
            return ids[::2], scores[::2]

    assert index_recall(index, stored, vectors, 4).recall == 1.0
    assert index_recall(Half.open(corpus.current("shop"), 384), stored, vectors, 4).recall == 0.5


def test_more_lists_find_more(tmp_path: Path) -> None:
    """B31: the sweep over nprobe, from too few lists to a quarter of them."""
    vectors = np.random.default_rng(1).standard_normal((2000, 16), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (tmp_path / "faiss").mkdir()
    update_vectors(tmp_path, np.arange(1, 2001), vectors, IndexSettings())
    build_index(tmp_path, VectorTable.open(tmp_path, 16), family=inverted_family(2000))
    index, stored = DualIndex.open(tmp_path, 16), StoredVectors.open(tmp_path, 16)
    grid = probe_grid(read_meta(tmp_path).nlist)
    recalls = [index_recall(index, stored, vectors[:40], 10, nprobe).recall for nprobe in grid]
    assert grid == [1, 3, 6, 12]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.7 < recalls[-1]


def test_an_exact_index_has_no_lists_to_sweep(corpus: Place) -> None:
    assert probe_grid(read_meta(corpus.current("shop")).nlist) == []
