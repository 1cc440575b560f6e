"""Does the vector index find what is nearest? Its answers against a scan of every stored vector."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.types import Floats, Ids

_BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class IndexRecall:
    """How much of the exact nearest `k` an index found, on average, and its median time for one question."""

    vectors: int
    k: int
    recall: float
    p50_ms: float


def index_recall(
    index: DualIndex, stored: StoredVectors, vectors: Iterable[Floats], k: int, nprobe: int | None = None
) -> IndexRecall:
    """Return how `index` answers the questions' `vectors`, each (dim,); `nprobe` as `DualIndex.search`.

    What scores as much as the last of the exact ones counts as one of them. REQUIRES: there is a question and a vector.
    """
    recalls, times = [], []
    for vector in vectors:
        started = time.perf_counter()
        _, scores = index.search(vector, k, nprobe=nprobe)
        times.append((time.perf_counter() - started) * 1000)
        _, exact = nearest(stored, vector, k)
        recalls.append(float((scores >= exact[-1]).sum()) / len(exact))
    return IndexRecall(len(index), k, float(np.mean(recalls)), float(np.median(times)))


def nearest(stored: StoredVectors, vector: Floats, k: int) -> tuple[Ids, Floats]:
    """Return the `k` chunk ids with the largest inner products, best first, ties by id: every vector is looked at."""
    _, ids = stored.idmap()
    ids = np.sort(ids)
    scores: NDArray[np.float32] = np.concatenate(
        [stored.scores(vector, ids[first : first + _BLOCK_ROWS])[0] for first in range(0, len(ids), _BLOCK_ROWS)]
    )
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]
