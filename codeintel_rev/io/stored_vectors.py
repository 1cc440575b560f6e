"""The vectors of a generation, for exact scores: two tables, less what is deleted.

    vectors.npy …               primary: shared with the parent while little has changed (vectors.py)
    vectors-secondary.npy …     added or changed since: an id that stands in both is the secondary's (decision 51)
    deleted.npy                 ids of the primary that are gone or replaced, (n,) int64, ascending

A FAISS index may hold codes and lie about scores; what is compared or merged is scored from here (decision 52).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.io.vectors import (
    PRIMARY,
    SECONDARY,
    Bools,
    VectorTable,
    check_ascending,
    checked_query,
    load,
    rows_of,
    written_anew,
)
from codeintel_rev.types import Floats, Ids

DELETED = "deleted.npy"


def write_deleted(directory: Path, ids: Ids) -> None:
    """Write the tombstones, ascending. Raises InsufficientStorage, StorageFailed."""
    with written_anew(directory / DELETED) as path:
        np.save(path, ids, allow_pickle=False)


def read_deleted(directory: Path) -> Ids:
    """Return the tombstones, ascending. Raises IndexCorrupt for a missing or broken file, or ids out of order."""
    deleted = load(directory / DELETED, np.int64, 1)
    check_ascending(DELETED, deleted)
    return deleted


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """Memory-mapped vectors by chunk id, each id once. Safe for many threads; the maps close with the last reference.

    `rows` name a vector across both tables: a row of the primary, or the primary's length plus a row of the secondary.
    """

    primary: VectorTable
    secondary: VectorTable
    deleted: Ids

    @classmethod
    def open(cls, directory: Path, dim: int) -> StoredVectors:
        """Map the vectors of a generation. Raises as `VectorTable.open`, and GenerationMismatch when an id is deleted
        that the primary does not have, or stands in both tables."""
        stored = cls(
            VectorTable.open(directory, dim), VectorTable.open(directory, dim, SECONDARY), read_deleted(directory)
        )
        _, known = rows_of(stored.primary.ids, stored.deleted)
        if not known.all():
            raise GenerationMismatch(
                f"{DELETED} names {int((~known).sum())} ids that {PRIMARY.vector_ids} does not have.", "Build again."
            )
        _, replaced = rows_of(stored.primary.ids, stored.secondary.ids)
        _, deleted = rows_of(stored.deleted, stored.secondary.ids)
        if np.any(replaced & ~deleted):
            raise GenerationMismatch(
                f"{int((replaced & ~deleted).sum())} chunks have a vector in both tables.", "Build again."
            )
        return stored

    @property
    def dim(self) -> int:
        return self.primary.dim

    def __len__(self) -> int:
        return len(self.primary) - len(self.deleted) + len(self.secondary)

    def idmap(self) -> tuple[Ids, Ids]:
        """Return rows (n,), ascending, and the chunk id (n,) of each."""
        live = np.ones(len(self.primary), np.bool_)
        live[rows_of(self.primary.ids, self.deleted)[0]] = False
        rows = np.flatnonzero(live).astype(np.int64)
        added = np.arange(len(self.primary), len(self.primary) + len(self.secondary), dtype=np.int64)
        return np.concatenate([rows, added]), np.concatenate([self.primary.ids[rows], self.secondary.ids])

    def gather(self, ids: Ids) -> tuple[Floats, Bools]:
        """Return the vectors of `ids` (n, dim), in their order, and which were found; a missing one is all zero."""
        old, found_old = rows_of(self.primary.ids, ids)
        new, found_new = rows_of(self.secondary.ids, ids)
        found_old &= ~rows_of(self.deleted, ids)[1]
        gathered = np.zeros((len(ids), self.dim), np.float32)
        gathered[found_old] = self.primary.vectors[old[found_old]]
        gathered[found_new] = self.secondary.vectors[new[found_new]]
        return gathered, found_old | found_new

    def scores(self, query: ArrayLike, ids: Ids) -> tuple[Floats, Bools]:
        """Return the inner product of `query` (dim,) with each of `ids`, and which were found; a missing one is -inf.

        Equal vectors score equal bits, whatever stands beside them. Raises as `checked_query`.
        """
        vector = checked_query(query, self.dim)
        gathered, found = self.gather(ids)
        # Not `@`: BLAS adds a row up in another order near the end of a matrix, so that twins would not tie.
        scores = np.vecdot(gathered, vector).astype(np.float32)
        scores[~found] = -np.inf
        return scores, found

    def __getitem__(self, rows: Ids, /) -> Floats:
        """Return the vectors (n, dim) of `rows`."""
        new = rows >= len(self.primary)
        vectors = np.empty((len(rows), self.dim), np.float32)
        vectors[~new] = self.primary.vectors[rows[~new]]
        vectors[new] = self.secondary.vectors[rows[new] - len(self.primary)]
        return vectors

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.primary) + len(self.secondary), self.dim
