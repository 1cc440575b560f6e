"""The vector half of a generation: what its parent has, then the cache, then what must be encoded, most useful chunks
first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.encoders.batched import Wanted, cached, encoded
from codeintel_rev.encoders.dense import DenseEncoder, embedding_text
from codeintel_rev.indexing.text_stage import Tell
from codeintel_rev.io.duckdb_catalog import Catalog, read_chunks
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.io.vector_update import VectorUpdate, update_vectors
from codeintel_rev.io.vectors import Joined, Rows, Subset
from codeintel_rev.types import Ids, Role

CHECKPOINT = 256  # Chunks: about two seconds of encoding are lost when a build is killed.
_FIRST = (Role.CODE, Role.DOCS, Role.CONFIG)  # While vectors are few, they had better be of what is asked for.
_NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one text half as they come in: `kept` (m, dim) are those of `kept_ids` (m,) for good, the first
    `settled` of them in the parent's primary; of `rows` (n, dim) float16, which are of `chunk_ids` (n,), those that are
    `made` (n,) are there."""

    kept_ids: Ids
    kept: Rows
    settled: int
    chunk_ids: Ids
    wanted: Wanted
    rows: NDArray[np.float16]
    made: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return len(self.kept_ids) + int(self.made.sum())

    @property
    def missing(self) -> int:
        return self._total - self.count

    @property
    def _total(self) -> int:
        return len(self.kept_ids) + len(self.made)

    def recall(self, cache: VectorCache) -> None:
        """Take what the cache has."""
        for where, vectors in cached(self.wanted, cache):
            self._take(where, vectors)

    def encode(self, encoder: DenseEncoder, cache: VectorCache, tell: Tell) -> Iterator[int]:
        """Encode the rest, cached as it is made; yield how many chunks each step encoded."""
        if self.missing:
            tell(self.count, self._total)
        for where, vectors in encoded(self.wanted, self.made, encoder, cache, CHECKPOINT):
            self._take(where, vectors)
            tell(self.count, self._total)
            yield len(where)

    def write(self, directory: Path, settings: IndexSettings) -> VectorUpdate:
        """Make `directory` hold the vectors made so far, over what of its parent's is linked there."""
        made = np.flatnonzero(self.made)
        ids = np.concatenate([self.kept_ids, self.chunk_ids[made]])
        vectors = Joined(self.kept, Subset(self.rows, made))
        return update_vectors(directory, ids, vectors, settings, settled=self.settled)

    def _take(self, where: Ids, vectors: NDArray[np.float32]) -> None:
        self.rows[where] = vectors
        self.made[where] = True


def vectors_of(directory: Path, dim: int, parent: Path | None, changed: Collection[str]) -> Vectors:
    """Return the vectors that the chunks in `directory` want.

    Those that generation `parent` has are kept, but for those of the files `changed` since: what is encoded holds more
    than the text that makes the id. REQUIRES: `parent` was made by the same rules and model. Raises as `StoredVectors`.
    """
    kept_ids, kept, settled = _NO_IDS, Subset(np.empty((0, dim), np.float16), _NO_IDS), 0
    if parent is None:
        chunks = list(read_chunks(directory))
    else:
        stored = StoredVectors.open(parent, dim)
        rows, ids = stored.idmap()
        with closing(Catalog.open(directory)) as catalog:
            wanted = catalog.ids()
            stays = np.isin(ids, np.setdiff1d(wanted, catalog.ids_of_files(changed), assume_unique=True))
            kept_ids, kept = ids[stays], Subset(stored, rows[stays])
            settled = int((kept.where < len(stored.primary)).sum())
            chunks, _ = catalog.hydrate(np.setdiff1d(wanted, kept_ids, assume_unique=True))
    chunks.sort(key=lambda chunk: (chunk.role not in _FIRST, chunk.path, chunk.start_line))
    return Vectors(
        kept_ids=kept_ids,
        kept=kept,
        settled=settled,
        chunk_ids=np.array([chunk.chunk_id for chunk in chunks], np.int64),
        wanted=Wanted.of([embedding_text(chunk) for chunk in chunks]),
        rows=np.zeros((len(chunks), dim), np.float16),
        made=np.zeros(len(chunks), np.bool_),
    )
