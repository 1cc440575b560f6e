"""The vectors of a generation, as they were encoded, for exact scores.

`vector_ids.npy` holds the chunk ids (n,) int64, ascending; row i of `vectors.npy` (n, dim) float16 belongs to id i.
Both are NumPy files: the header carries shape and type, so a truncated file or another dimension shows at open. The
FAISS index is built from these and may lie about scores (codes); what is compared or merged is scored from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeintel_rev.errors import (
    DimensionMismatch,
    EncoderFailed,
    GenerationMismatch,
    IndexCorrupt,
    InvalidArgument,
)
from codeintel_rev.io.parquet_store import writing
from codeintel_rev.types import Floats, Ids

VECTORS, VECTOR_IDS = "vectors.npy", "vector_ids.npy"
BLOCK_ROWS = 8192

Bools = NDArray[np.bool_]
Number = TypeVar("Number", np.int64, np.float16)


class Rows(Protocol):
    """(n, dim) vectors read by row number: an array, a memory map, or a view of a cache."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.floating]: ...


def write_vectors(directory: Path, ids: Ids, vectors: Rows) -> None:
    """Write `vectors` (row i belongs to `ids[i]`, any order) as float16 by ascending id, a block in memory at a time.

    Raises ValueError when an id stands twice or has no vector, EncoderFailed for a vector that is not finite in
    float16, InsufficientStorage, StorageFailed.
    """
    rows, dim = vectors.shape
    if rows != len(ids):
        raise ValueError(f"{len(ids)} ids, {rows} vectors")
    order = np.argsort(ids, kind="stable")
    ordered = np.ascontiguousarray(ids[order], np.int64)
    if np.any(ordered[1:] == ordered[:-1]):
        raise ValueError("a chunk id stands twice among the vectors")
    # Ordinary writes, not a memory map: on a full disk a map kills the process with SIGBUS (reliability F06).
    with writing(directory / VECTORS), (directory / VECTORS).open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK_ROWS):
            file.write(_halves(vectors[order[start : start + BLOCK_ROWS]]).tobytes())
    with writing(directory / VECTOR_IDS):
        np.save(directory / VECTOR_IDS, ordered, allow_pickle=False)


def _halves(block: NDArray[np.floating]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = block.astype("<f2")
    if not np.isfinite(halves).all():
        raise EncoderFailed("encoder gave a vector that is not finite in float16.")
    return halves


def checked_query(query: ArrayLike, dim: int) -> Floats:
    """Return `query` as contiguous float32 (dim,).

    Raises DimensionMismatch for another dimension, InvalidArgument when a component is not finite.
    """
    vector = np.ascontiguousarray(query, np.float32)
    if vector.shape != (dim,):
        raise DimensionMismatch(f"Dimension mismatch: index={dim}, query={'x'.join(map(str, vector.shape))}.")
    if not np.isfinite(vector).all():
        raise InvalidArgument("the query vector has a component that is not finite.")
    return vector


def rows_of(ordered: Ids, ids: Ids) -> tuple[NDArray[np.int64], Bools]:
    """Return where each of `ids` stands in the ascending `ordered`, and whether it does: only then is its row good."""
    rows = np.searchsorted(ordered, ids).astype(np.int64)
    inside = rows < len(ordered)
    found = np.zeros(len(ids), np.bool_)
    found[inside] = ordered[rows[inside]] == ids[inside]
    return rows, found


@dataclass(frozen=True, slots=True)
class VectorTable:
    """Memory-mapped vectors by chunk id. Safe for many threads; the maps close with the last reference."""

    ids: Ids
    vectors: NDArray[np.float16]

    @classmethod
    def open(cls, directory: Path, dim: int) -> VectorTable:
        """Map the vectors of a generation.

        Raises IndexCorrupt for a missing or truncated file, GenerationMismatch when the two files do not belong
        together, DimensionMismatch when they are not `dim` wide.
        """
        ids: Ids = _load(directory / VECTOR_IDS, np.int64, 1)
        vectors: NDArray[np.float16] = _load(directory / VECTORS, np.float16, 2)
        if vectors.shape[1] != dim:
            raise DimensionMismatch(f"Dimension mismatch: vectors={vectors.shape[1]}, encoder={dim}.", "Build again.")
        if len(ids) != len(vectors):
            raise GenerationMismatch(f"{VECTOR_IDS} has {len(ids)} rows, {VECTORS} {len(vectors)}.", "Build again.")
        return cls(ids, vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def gather(self, ids: Ids) -> tuple[Floats, Bools]:
        """Return the vectors of `ids` (n, dim), in their order, and which were found; a missing one is all zero."""
        rows, found = rows_of(self.ids, ids)
        gathered = np.zeros((len(ids), self.dim), np.float32)
        gathered[found] = self.vectors[rows[found]]
        return gathered, found

    def scores(self, query: Floats, ids: Ids) -> tuple[Floats, Bools]:
        """Return the inner product of `query` (dim,) with each of `ids`, and which were found; a missing one is -inf.

        Raises as `checked_query`.
        """
        vector = checked_query(query, self.dim)
        rows, found = rows_of(self.ids, ids)
        scores = np.full(len(ids), -np.inf, np.float32)
        scores[found] = self.vectors[rows[found]].astype(np.float32) @ vector
        return scores, found

    def blocks(self) -> Iterator[tuple[Ids, Floats]]:
        """Yield (ids, vectors) from the first row to the last, `BLOCK_ROWS` at a time."""
        for start in range(0, len(self), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield self.ids[rows], self.vectors[rows].astype(np.float32)


def _load(path: Path, dtype: type[Number], ndim: int) -> NDArray[Number]:
    try:
        array: NDArray[Number] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{path.name} is missing.", "Build the index again.") from error
    except (ValueError, EOFError, OSError) as error:
        raise IndexCorrupt(f"{path.name} cannot be mapped: truncated or not a NumPy file.", "Build again.") from error
    if array.dtype != dtype or array.ndim != ndim:
        raise IndexCorrupt(f"{path.name} is {array.ndim}-d {array.dtype}, expected {ndim}-d {dtype.__name__}.")
    return array
