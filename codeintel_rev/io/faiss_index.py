"""Which vectors are nearest? A FAISS index over one table of vectors, built once, then never changed.

    faiss/primary.faiss          IndexIDMap2 around the family `choose_family` picks; its map holds chunk ids, ascending
    faiss/secondary.faiss        the same around an exact family: what was added since the primary was built
    faiss/….meta.json            IndexMeta: the exact factory string, parameters and training facts, immutable

Searching asks the wrapped index and translates rows by the map here: a filter is then a bitmap over rows, which every
family takes (IndexRefine keeps its ids to itself, so IDMap2's own translation would not reach the selector below it).
Deletes are selectors too, never `remove_ids`: that corrupts an IVF inside an IDMap (requirements, decision 1).
`dual_index.py` makes one answer of the two indexes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from codeintel_rev.errors import (
    DimensionMismatch,
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    InvalidArgument,
)
from codeintel_rev.io.vectors import (
    PRIMARY,
    Bools,
    Part,
    VectorTable,
    check_ascending,
    checked_query,
    rows_of,
    written_anew,
)
from codeintel_rev.types import Floats, Ids

FORMAT = 2

EXACT_BELOW = 300_000
"""Below, a scan of float16 takes at most 8 ms and is exact; nothing faster is worth its recall and its training."""
TRAINING_ROWS_PER_LIST = 40
_GPU_MOST_K = 2048

_reading = Lock()


@dataclass(frozen=True, slots=True)
class Family:
    """How vectors are indexed. `nlist` is 0 for an exact scan; `nprobe` and `k_factor` are what a search uses."""

    factory: str
    nbits: int
    nlist: int = 0
    nprobe: int = 0
    k_factor: int = 1

    @property
    def parameter_space(self) -> dict[str, int]:
        return {"nprobe": self.nprobe, "k_factor": self.k_factor} if self.nlist else {}


EXACT = Family("SQfp16", nbits=16)
"""It holds the stored values exactly. 100k x 384: 2.4 ms; Flat 4.8 ms and twice the bytes, NumPy 67 ms."""


def choose_family(count: int) -> Family:
    """Return the family for `count` vectors: the one table keyed by corpus size (decision 11)."""
    return EXACT if count < EXACT_BELOW else inverted_family(count)


def inverted_family(count: int) -> Family:
    """Return an inverted file of about 4·√count lists, a power of two, probing one list in 32.

    Measured on 320k clustered vectors of 64 d: recall@10 .953 at 0.34 ms; a `k_factor` of 8 or 16 adds nothing to it.
    """
    nlist = 2 ** round(math.log2(4 * math.sqrt(max(count, 1))))
    nlist = max(1, min(nlist, count // TRAINING_ROWS_PER_LIST))
    return Family(f"IVF{nlist},RaBitQ,Refine(SQ8)", nbits=1, nlist=nlist, nprobe=max(1, nlist // 32), k_factor=4)


@dataclass(frozen=True, slots=True)
class IndexMeta:
    """What a `.meta.json` says. `ids_sha256` ties the file to the index it was written with."""

    format: int
    faiss_version: str
    faiss_compile: str
    factory: str
    ids: str
    ids_sha256: str
    vec_dim: int
    metric: str
    nlist: int
    nbits: int
    parameter_space: dict[str, int]
    gpu_enabled: bool
    gpu_disabled_reason: str
    built_at: str
    vector_count: int
    training_rows: int
    training_seconds: float


def build_index(
    directory: Path, table: VectorTable, part: Part = PRIMARY, *, family: Family | None = None
) -> IndexMeta:
    """Write the index of `table` and its meta into `directory` and return the meta.

    Files of these names are replaced, not written into. Beside the index itself only a training sample and one block of
    vectors are in memory. Raises InsufficientStorage, StorageFailed.
    """
    family = family or choose_family(len(table))
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    inner = faiss.index_factory(table.dim, family.factory, faiss.METRIC_INNER_PRODUCT)
    started = time.monotonic()
    sample = _training_rows(table, family)
    if len(sample):
        inner.train(sample)
    trained = time.monotonic() - started
    index = faiss.IndexIDMap2(inner)
    for ids, vectors in table.blocks():
        index.add_with_ids(vectors, ids)
    meta = _describe(table, family, len(sample), trained)
    with written_anew(directory / part.index, RuntimeError) as path:
        faiss.write_index(index, str(path))
    with written_anew(directory / part.meta) as path:
        path.write_text(json.dumps(asdict(meta), indent=2) + "\n", encoding="utf-8")
    return meta


def _training_rows(table: VectorTable, family: Family) -> Floats:
    """Return a seeded sample (rows, dim) of the vectors; none for a family that learns nothing."""
    count = min(len(table), family.nlist * TRAINING_ROWS_PER_LIST)
    if not count:
        return np.empty((0, table.dim), np.float32)
    rows = np.sort(np.random.default_rng(0).choice(len(table), count, replace=False))
    return table.vectors[rows].astype(np.float32)


def _describe(table: VectorTable, family: Family, training_rows: int, training_seconds: float) -> IndexMeta:
    reason = _gpu_missing()
    return IndexMeta(
        format=FORMAT,
        faiss_version=faiss.__version__,
        faiss_compile=faiss.get_compile_options().strip(),
        factory=family.factory,
        ids="IDMap2",
        ids_sha256=_digest(table.ids),
        vec_dim=table.dim,
        metric="inner_product",
        nlist=family.nlist,
        nbits=family.nbits,
        parameter_space=family.parameter_space,
        gpu_enabled=not reason,
        gpu_disabled_reason=reason,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        vector_count=len(table),
        training_rows=training_rows,
        training_seconds=round(training_seconds, 3),
    )


class FaissIndex:
    """An index open for searching, memory-mapped. Safe for many threads: parameters belong to the call.

    `ids` are the chunk ids it holds, ascending; those of them that are deleted are never found.
    """

    def __init__(self, index: Any, ids: Ids, meta: IndexMeta, live: Bools | None) -> None:
        self._owner = index  # frees the wrapped index when it goes
        self._index = faiss.downcast_index(index.index)
        self._gpu, self._gpu_disabled_reason = _gpu_clone(self._index)
        self._gpu_turn = Lock()  # one StandardGpuResources serves one search at a time
        self._live = live
        self._count = len(ids) if live is None else int(live.sum())
        self.ids = ids
        self.meta = meta

    @classmethod
    def open(cls, directory: Path, encoder_dim: int, part: Part = PRIMARY, *, deleted: Ids | None = None) -> FaissIndex:
        """Map one index of a generation, without the ids `deleted`.

        Raises DimensionMismatch when the encoder's vectors have another dimension, IndexCorrupt for a missing or broken
        file, IndexIncompatible for another format, GenerationMismatch when index, meta and `deleted` do not belong
        together.
        """
        meta = read_meta(directory, part)
        if meta.vec_dim != encoder_dim:
            raise DimensionMismatch(
                f"Dimension mismatch: FAISS={meta.vec_dim}, encoder={encoder_dim}.", "Build again with this encoder."
            )
        index = _read_index(directory, part)
        if not isinstance(index, faiss.IndexIDMap2):
            raise IndexIncompatible(f"{part.index} does not hold its own ids.", "Build again.")
        ids: Ids = faiss.vector_to_array(index.id_map)
        if (index.d, index.ntotal, _digest(ids)) != (meta.vec_dim, meta.vector_count, meta.ids_sha256):
            raise GenerationMismatch(
                f"{part.index} is not the index that {part.meta} describes.", "Roll back or build again."
            )
        check_ascending(part.index, ids)
        return cls(index, ids, meta, None if deleted is None else _live(ids, deleted))

    def __len__(self) -> int:
        """Return how many vectors can be found."""
        return self._count

    def describe(self) -> str:
        """Return the audit line of a start-up (B11)."""
        meta = self.meta
        params = ",".join(f"{name}={value}" for name, value in meta.parameter_space.items()) or "none"
        return (
            f"faiss {faiss.__version__} opts=[{faiss.get_compile_options().strip()}] factory={meta.factory} "
            f"params={params} gpu={self._gpu_disabled_reason or 'on'} dim={meta.vec_dim} count={len(self)}"
        )

    def search(
        self, query: ArrayLike, k: int, *, allowed: Ids | None = None, nprobe: int | None = None
    ) -> tuple[Ids, Floats]:
        """Return at most `k` chunk ids and their inner products with `query` (dim,), best first, ties by ascending id.

        `allowed` restricts the search to these chunk ids; those without a vector count for nothing. `nprobe` overrides
        how many inverted lists are read. Scores of an inverted family are approximate: compare them only after
        `StoredVectors.scores`. Raises InvalidArgument for a `k` or `nprobe` below 1, an `nprobe` the family does not
        have, or a query that is not finite; DimensionMismatch.
        """
        vector = checked_query(query, self.meta.vec_dim)
        if k < 1:
            raise InvalidArgument(f"k is {k}, it must be at least 1.")
        mask = self._mask(allowed)
        scores, found = self._nearest_and_ties(vector[None], k, mask, self._parameters(mask, nprobe))
        ids = self.ids[found[found >= 0]]
        scores = scores[found >= 0]
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def _nearest_and_ties(
        self, query: Floats, k: int, mask: Bools | None, parameters: Any
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return at least the best `k` rows, all that tie with the last of them among these; -1 stands for none.

        Of equal scores FAISS keeps the last rows rather than the first when its `k` cuts them.
        """
        most = len(self) if mask is None else int(mask.sum())
        asked = min(k + 1, most)
        while asked:
            scores, found = self._nearest(query, asked, parameters, filtered=mask is not None)
            if asked == most or found[-1] < 0 or scores[-1] < scores[k - 1]:
                return scores, found
            asked = min(4 * asked, most)
        return np.empty(0, np.float32), np.empty(0, np.int64)

    def _nearest(self, query: Floats, k: int, parameters: Any, *, filtered: bool) -> tuple[Floats, NDArray[np.int64]]:
        # A GPU index takes no selector. OpenMP keeps its thread count per calling thread (T23): every call says it.
        faiss.omp_set_num_threads(1)
        if self._gpu is not None and not filtered and k <= _GPU_MOST_K:
            with self._gpu_turn:
                scores, rows = self._gpu.search(query, k)
        else:
            scores, rows = self._index.search(query, k, params=parameters)
        return scores[0], rows[0]

    def _mask(self, allowed: Ids | None) -> Bools | None:
        """Return which rows may be found, None for all."""
        if allowed is None:
            return self._live
        rows, found = rows_of(self.ids, allowed)
        mask = np.zeros(len(self.ids), np.bool_)
        mask[rows[found]] = True
        return mask if self._live is None else mask & self._live

    def _parameters(self, mask: Bools | None, nprobe: int | None) -> Any:
        selector = {} if mask is None else {"sel": faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))}
        if not self.meta.nlist:
            if nprobe is not None:
                raise InvalidArgument(f"nprobe does not apply to {self.meta.factory}.", "Leave it out.")
            return faiss.SearchParameters(**selector)
        probes = self.meta.parameter_space["nprobe"] if nprobe is None else nprobe
        if probes < 1:
            raise InvalidArgument(f"nprobe is {probes}, it must be at least 1.")
        if mask is not None:  # few rows pass: read more lists, so that as many vectors are compared as without a filter
            probes = probes * len(self.ids) // max(1, int(mask.sum()))
        inner = faiss.SearchParametersIVF(nprobe=min(probes, self.meta.nlist), **selector)
        return faiss.IndexRefineSearchParameters(
            k_factor=self.meta.parameter_space["k_factor"], base_index_params=inner
        )


def read_meta(directory: Path, part: Part = PRIMARY) -> IndexMeta:
    """Return what is told of one index. Raises IndexCorrupt when it cannot be read, IndexIncompatible."""
    try:
        fields = json.loads((directory / part.meta).read_bytes())
        if fields["format"] != FORMAT:
            raise IndexIncompatible(
                f"{part.meta} has format {fields['format']}, this version reads {FORMAT}.", "Build again."
            )
        return IndexMeta(**fields)
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{part.meta} is missing.", "Build the index again.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IndexCorrupt(f"{part.meta} cannot be read.", "Build the index again.") from error


def _read_index(directory: Path, part: Part) -> Any:
    """Map the file; no vector or loop in it may be longer than the file itself (S22). The limits are process-wide."""
    path = directory / part.index
    try:
        size = path.stat().st_size
        with _reading:
            faiss.set_deserialization_vector_byte_limit(size)
            faiss.set_deserialization_loop_limit(size)
            return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{part.index} is missing.", "Build the index again.") from error
    except (OSError, RuntimeError, MemoryError) as error:
        raise IndexCorrupt(f"{part.index} cannot be read.", "Roll back or build again.") from error


def _live(ids: Ids, deleted: Ids) -> Bools | None:
    """Return which of `ids` are not `deleted`, None when all are live."""
    rows, found = rows_of(ids, deleted)
    if not found.all():
        raise GenerationMismatch(
            f"{int((~found).sum())} deleted ids were never in the index.", "Roll back or build again."
        )
    if not len(deleted):
        return None
    live = np.ones(len(ids), np.bool_)
    live[rows] = False
    return live


def _digest(ids: Ids) -> str:
    return hashlib.sha256(np.ascontiguousarray(ids, "<i8").tobytes()).hexdigest()


def _gpu_missing() -> str:
    """Return why no GPU can be used, "" when one can."""
    if not hasattr(faiss, "StandardGpuResources"):
        return "faiss is built without GPU support"
    return "" if faiss.get_num_gpus() else "no GPU device"


def _gpu_clone(index: Any) -> tuple[Any | None, str]:
    """Return `index` on the first GPU, or None and the reason."""
    reason = _gpu_missing()
    if reason:
        return None, reason
    try:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index), ""
    except RuntimeError as error:
        return None, str(error).partition("\n")[0]
