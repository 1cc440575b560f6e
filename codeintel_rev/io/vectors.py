"""Tables of vectors by chunk id, as they were encoded. A generation has two: what it shares, and what is new.

    vectors.npy             vector_ids.npy              the primary's, linked from generation to generation
    vectors-secondary.npy   vector_ids-secondary.npy    what was added or changed since

`vector_ids` holds the chunk ids (n,) int64, ascending; row i of `vectors` (n, dim) float16 belongs to id i. Both are
NumPy files: the header carries shape and type, so a truncated file or another dimension shows at open. Which rows of
the primary still count, `stored_vectors.py` knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
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

BLOCK_ROWS = 8192

_UNREADABLE = (ValueError, TypeError, ArithmeticError, EOFError, OSError, MemoryError, SyntaxError, TokenError)
"""What NumPy raises for a damaged header, which it reads as a Python literal."""

Bools = NDArray[np.bool_]
Number = TypeVar("Number", np.int64, np.float16)


class Rows(Protocol):
    """(n, dim) vectors read by row number: an array, a memory map, or a view of a cache."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.floating]: ...


@dataclass(frozen=True, slots=True)
class Subset:
    """The rows `where` (n,) of `vectors`, read when asked for."""

    vectors: Rows
    where: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.where), *self.vectors.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.floating]:
        return self.vectors[self.where[rows]]


@dataclass(frozen=True, slots=True)
class Joined:
    """The rows of `first`, then those of `second`, read when asked for."""

    first: Rows
    second: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.first.shape[0] + self.second.shape[0], *self.first.shape[1:])

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.floating]:
        early = rows < self.first.shape[0]
        read = np.empty((len(rows), *self.shape[1:]), np.float32)
        read[early] = self.first[rows[early]]
        read[~early] = self.second[rows[~early] - self.first.shape[0]]
        return read


@dataclass(frozen=True, slots=True)
class Part:
    """The files of one half of a generation's vectors and of their FAISS index."""

    vectors: str
    vector_ids: str
    index: str
    meta: str

    @property
    def files(self) -> tuple[str, ...]:
        return self.vectors, self.vector_ids, self.index, self.meta


PRIMARY = Part("vectors.npy", "vector_ids.npy", "faiss/primary.faiss", "faiss/primary.meta.json")
SECONDARY = Part(
    "vectors-secondary.npy", "vector_ids-secondary.npy", "faiss/secondary.faiss", "faiss/secondary.meta.json"
)


@contextmanager
def written_anew(path: Path, foreign: type[Exception] = OSError) -> Iterator[Path]:
    """Yield `path` with nothing there: it may be a link to a published file, which must not be written into.

    Raises as `writing`.
    """
    with writing(path, foreign):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        yield path


def write_vectors(directory: Path, ids: Ids, vectors: Rows, part: Part = PRIMARY) -> None:
    """Write `vectors` (row i belongs to `ids[i]`, any order) as float16 by ascending id, a block in memory at a time.

    Files of these names are replaced, not written into. Raises ValueError when an id stands twice or has no vector,
    EncoderFailed for a vector that is not finite in float16, InsufficientStorage, StorageFailed.
    """
    rows, dim = vectors.shape
    if rows != len(ids):
        raise ValueError(f"{len(ids)} ids, {rows} vectors")
    check_distinct(ids)
    order = np.argsort(ids)
    # Ordinary writes, not a memory map: on a full disk a map kills the process with SIGBUS (reliability F06).
    with written_anew(directory / part.vectors) as path, path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, BLOCK_ROWS):
            file.write(halves(vectors[order[start : start + BLOCK_ROWS]]).tobytes())
    with written_anew(directory / part.vector_ids) as path:
        np.save(path, np.ascontiguousarray(ids[order], np.int64), allow_pickle=False)


def check_distinct(ids: Ids) -> None:
    """Raise ValueError when an id stands twice."""
    ordered = np.sort(ids)  # np.unique takes ten times as long
    if np.any(ordered[1:] == ordered[:-1]):
        raise ValueError("a chunk id stands twice among the vectors")


_EXPONENT = np.uint16(0x7C00)
"""All of its bits are set in a half that is infinite or no number; np.isfinite takes five times as long to find one."""


def halves(block: NDArray[np.floating]) -> NDArray[np.float16]:
    """Return `block` as it is stored. Raises EncoderFailed for a vector that is not finite in float16."""
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(block, "<f2")
    if np.any(stored.view(np.uint16) & _EXPONENT == _EXPONENT):
        raise EncoderFailed("encoder gave a vector that is not finite in float16.")
    return stored


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
    def open(cls, directory: Path, dim: int, part: Part = PRIMARY) -> VectorTable:
        """Map one table of a generation.

        Raises IndexCorrupt for a missing or truncated file, or ids out of order, GenerationMismatch when the two files
        do not belong together, DimensionMismatch when the vectors are not `dim` wide.
        """
        ids = load(directory / part.vector_ids, np.int64, 1)
        vectors = load(directory / part.vectors, np.float16, 2)
        if vectors.shape[1] != dim:
            raise DimensionMismatch(f"Dimension mismatch: vectors={vectors.shape[1]}, encoder={dim}.", "Build again.")
        if len(ids) != len(vectors):
            raise GenerationMismatch(
                f"{part.vector_ids} has {len(ids)} rows, {part.vectors} {len(vectors)}.", "Build again."
            )
        check_ascending(part.vector_ids, ids)
        return cls(ids, vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.ids)

    def blocks(self) -> Iterator[tuple[Ids, Floats]]:
        """Yield (ids, vectors) from the first row to the last, `BLOCK_ROWS` at a time."""
        for start in range(0, len(self), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            yield self.ids[rows], self.vectors[rows].astype(np.float32)


def check_ascending(name: str, ids: Ids) -> None:
    """Raise IndexCorrupt unless `ids` (n,) are positive, distinct and in order: they are looked up by bisection."""
    if len(ids) and (ids[0] < 1 or np.any(ids[1:] <= ids[:-1])):
        raise IndexCorrupt(f"{name} does not hold distinct ids in ascending order.", "Roll back or build again.")


def load(path: Path, dtype: type[Number], ndim: int) -> NDArray[Number]:
    """Map a NumPy file of numbers. Raises IndexCorrupt when it is missing, truncated or of another type or shape."""
    try:
        array: NDArray[Number] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{path.name} is missing.", "Build the index again.") from error
    except _UNREADABLE as error:
        raise IndexCorrupt(f"{path.name} cannot be mapped: truncated or not a NumPy file.", "Build again.") from error
    if array.dtype != dtype or array.ndim != ndim:
        raise IndexCorrupt(f"{path.name} is {array.ndim}-d {array.dtype}, expected {ndim}-d {dtype.__name__}.")
    return array
