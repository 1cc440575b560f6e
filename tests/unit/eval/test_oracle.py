"""What the index finds, against every stored vector."""

from __future__ import annotations

import numpy as np

from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.eval.oracle import index_recall, nearest
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.stored_vectors import StoredVectors
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
