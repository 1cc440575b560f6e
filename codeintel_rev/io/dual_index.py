"""Which vectors of a generation are nearest? Two FAISS indexes asked as one: what it shares, and what is new.

Both are searched under the selectors of the call, deleted rows left out; the merged pool is scored exactly, so that
codes of the one and vectors of the other compare (decisions 51, 52).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.io.faiss_index import FaissIndex
from codeintel_rev.io.parquet_store import write_idmap
from codeintel_rev.io.stored_vectors import StoredVectors, read_deleted
from codeintel_rev.io.vectors import PRIMARY, SECONDARY, Part
from codeintel_rev.types import Floats, Ids


class DualIndex:
    """The vectors of a generation open for searching, memory-mapped. Safe for many threads."""

    def __init__(self, primary: FaissIndex, secondary: FaissIndex, vectors: StoredVectors) -> None:
        self._primary = primary
        self._secondary = secondary
        self._vectors = vectors

    @classmethod
    def open(cls, directory: Path, encoder_dim: int) -> DualIndex:
        """Map both indexes and both tables.

        Raises as `FaissIndex.open` and `StoredVectors.open`, and GenerationMismatch when an index is not of its table.
        """
        primary = FaissIndex.open(directory, encoder_dim, deleted=read_deleted(directory))
        secondary = FaissIndex.open(directory, encoder_dim, SECONDARY)
        vectors = StoredVectors.open(directory, encoder_dim)
        _check_same(PRIMARY, primary.ids, vectors.primary.ids)
        _check_same(SECONDARY, secondary.ids, vectors.secondary.ids)
        return cls(primary, secondary, vectors)

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return len(self._primary) + len(self._secondary)

    def idmap(self) -> tuple[Ids, Ids]:
        """Return the rows (n,) that can be found, ascending, and the chunk id (n,) of each: `StoredVectors.idmap`."""
        return self._vectors.idmap()

    def describe(self) -> str:
        """Return the audit line of a start-up (B11)."""
        return f"{self._primary.describe()} deleted={len(self._vectors.deleted)} secondary={len(self._secondary)}"

    def search(
        self, query: ArrayLike, k: int, *, allowed: Ids | None = None, nprobe: int | None = None
    ) -> tuple[Ids, Floats]:
        """Return at most `k` chunk ids and their exact inner products with `query` (dim,), best first, ties by id.

        `allowed` restricts the search to these chunk ids; those without a vector count for nothing. `nprobe` overrides
        how many inverted lists of the primary are read. Raises as `FaissIndex.search`.
        """
        shared, _ = self._primary.search(query, k, allowed=allowed, nprobe=nprobe)
        added, _ = self._secondary.search(query, k, allowed=allowed)
        pool = np.concatenate([shared, added])
        scores, _ = self._vectors.scores(query, pool)
        order = np.lexsort((pool, -scores))[:k]
        return pool[order], scores[order]


def export_idmap(index: DualIndex, path: Path) -> int:
    """Write which chunk each row is of, as Parquet (faiss_id, chunk_id), and return how many there are (B04)."""
    rows, chunk_ids = index.idmap()
    return write_idmap(path, chunk_ids, rows)


def _check_same(part: Part, indexed: Ids, stored: Ids) -> None:
    if not np.array_equal(indexed, stored):
        raise GenerationMismatch(f"{part.index} is not the index of {part.vector_ids}.", "Roll back or build again.")
