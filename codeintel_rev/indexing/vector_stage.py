"""The vector half of a generation: what the cache has, then what must be encoded, most useful chunks first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.encoders.batched import Wanted, cached, encoded
from codeintel_rev.encoders.dense import DenseEncoder, embedding_text
from codeintel_rev.indexing.text_stage import Tell
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.io.vector_update import VectorUpdate, update_vectors
from codeintel_rev.io.vectors import Subset
from codeintel_rev.types import Ids, Role

CHECKPOINT = 256  # Chunks: about two seconds of encoding are lost when a build is killed.
_FIRST = (Role.CODE, Role.DOCS, Role.CONFIG)  # While vectors are few, they had better be of what is asked for.


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one text half as they come in: `rows` (n, dim) float16, `made` (n,) which are there."""

    chunk_ids: Ids
    wanted: Wanted
    rows: NDArray[np.float16]
    made: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(self.made.sum())

    @property
    def missing(self) -> int:
        return len(self.made) - self.count

    def recall(self, cache: VectorCache) -> None:
        """Take what the cache has."""
        for where, vectors in cached(self.wanted, cache):
            self._take(where, vectors)

    def encode(self, encoder: DenseEncoder, cache: VectorCache, tell: Tell) -> Iterator[int]:
        """Encode the rest, cached as it is made; yield how many chunks each step encoded."""
        if self.missing:
            tell(self.count, len(self.made))
        for where, vectors in encoded(self.wanted, self.made, encoder, cache, CHECKPOINT):
            self._take(where, vectors)
            tell(self.count, len(self.made))
            yield len(where)

    def write(self, directory: Path, settings: IndexSettings) -> VectorUpdate:
        """Make `directory` hold the vectors made so far, over what of its parent's is linked there."""
        made = np.flatnonzero(self.made)
        return update_vectors(directory, self.chunk_ids[made], Subset(self.rows, made), settings)

    def _take(self, where: Ids, vectors: NDArray[np.float32]) -> None:
        self.rows[where] = vectors
        self.made[where] = True


def vectors_of(directory: Path, dim: int) -> Vectors:
    """Return the vectors that the chunks in `directory` want, none of them made yet."""
    chunks = sorted(read_chunks(directory), key=lambda chunk: chunk.role not in _FIRST)
    chunk_ids = np.array([chunk.chunk_id for chunk in chunks], np.int64)
    wanted = Wanted.of([embedding_text(chunk) for chunk in chunks])
    return Vectors(chunk_ids, wanted, np.zeros((len(chunks), dim), np.float16), np.zeros(len(chunks), np.bool_))
