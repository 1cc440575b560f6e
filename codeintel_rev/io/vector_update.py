"""How a generation's vectors are written: what its parent has is shared, what is new stands beside it.

The primary is linked and never changed. Vectors it does not have, or has otherwise, make the secondary; what it has
and nobody wants any more, or has otherwise, is deleted by name (stored_vectors.py). The result follows from the linked
primary and the wanted vectors alone, whatever updates lay between. When too much has changed, all is written as one
new primary: from vectors, never from what an index made of them (decision 50). For a large one that is work for the
background (`compaction_due`), and an update does it only when that was put off for too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.errors import IndexIncompatible
from codeintel_rev.io.faiss_index import EXACT, build_index, choose_family, read_meta
from codeintel_rev.io.parquet_store import IDMAP, write_idmap
from codeintel_rev.io.stored_vectors import DELETED, StoredVectors, write_deleted
from codeintel_rev.io.vectors import (
    BLOCK_ROWS,
    PRIMARY,
    SECONDARY,
    Bools,
    Rows,
    Subset,
    VectorTable,
    check_distinct,
    halves,
    load,
    rows_of,
    write_vectors,
)
from codeintel_rev.types import Ids

NO_PRIMARY = "no primary of this format, dimension and family"
SMALL = 20_000
"""A primary of fewer vectors is written anew by the update itself: half a second, less than a process of its own."""
HARD = 2
"""So many times the settings' shares an update lets pile up beside a larger one before it compacts by itself."""

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class VectorUpdate:
    """What `update_vectors` did: vectors shared, written beside them, and deleted from them. `rebuilt` is the reason
    why all were written as one instead, "" when they were not."""

    kept: int
    added: int
    deleted: int
    rebuilt: str


def linkable(generation: Path) -> tuple[str, ...]:
    """Return the names of the files that a child of `generation` shares, before `update_vectors`; none without
    vectors."""
    return PRIMARY.files if (generation / PRIMARY.vectors).exists() else ()


def update_vectors(
    directory: Path, ids: Ids, vectors: Rows, settings: IndexSettings, *, settled: int = 0
) -> VectorUpdate:
    """Make `directory` hold `vectors` (row i belongs to `ids[i]`, any order), their indexes and their map.

    The first `settled` of them are, where a linked primary has their ids, known to be what it has: they are not read.

    Files `linkable` of the parent that are there already stay what they are, or give way to new ones: whatever the
    parent's model or dimension was, what is found afterwards is `vectors`. Beside the indexes a block of vectors and
    what is new are in memory. Raises ValueError when an id stands twice, EncoderFailed for a vector that is not finite,
    IndexCorrupt for a linked file that cannot be read, InsufficientStorage, StorageFailed.
    """
    check_distinct(ids)
    primary = _shared(directory, vectors.shape[1])
    if primary is None:
        return _rebuild(directory, ids, vectors, NO_PRIMARY)
    kept = _unchanged(primary, ids, vectors, settled)
    deleted = primary.ids[~_has(primary.ids, ids[kept])]
    bound = 1 if len(primary) < SMALL else HARD
    reason = _compaction_reason(len(primary), int((~kept).sum()), len(deleted), settings, bound)
    if reason:
        return _rebuild(directory, ids, vectors, reason)
    _write_changes(directory, ids[~kept], Subset(vectors, np.flatnonzero(~kept)), deleted)
    return VectorUpdate(int(kept.sum()), int((~kept).sum()), len(deleted), "")


def compaction_due(generation: Path, settings: IndexSettings) -> str:
    """Return why the vectors of `generation` are to be indexed again as one; "" when they are not, or there are none.

    Only lengths are read. Raises IndexCorrupt.
    """
    if not linkable(generation):
        return ""
    names = PRIMARY.vector_ids, SECONDARY.vector_ids, DELETED
    primary, added, deleted = (len(load(generation / name, np.int64, 1)) for name in names)
    return _compaction_reason(primary, added, deleted, settings)


def compact_vectors(directory: Path, generation: Path, dim: int) -> VectorUpdate:
    """Write the vectors of `generation` into `directory` as one primary, whatever the settings say.

    Raises as `StoredVectors.open` and `update_vectors`.
    """
    stored = StoredVectors.open(generation, dim)
    rows, ids = stored.idmap()
    return _rebuild(directory, ids, Subset(stored, rows), "asked for")


def _shared(directory: Path, dim: int) -> VectorTable | None:
    """Return the primary in `directory`, None when there is none that vectors of `dim` can be added to."""
    if not (directory / PRIMARY.vectors).exists():
        return None
    try:
        meta = read_meta(directory)
        primary = VectorTable.open(directory, dim)
    except IndexIncompatible:
        return None
    return primary if meta.factory == choose_family(len(primary)).factory else None


def _unchanged(primary: VectorTable, ids: Ids, vectors: Rows, settled: int) -> Bools:
    """Return for which of `ids` (n,) the primary has this vector, bit for bit.

    A vector may change under its id: what is encoded holds the chunk's path and header too.
    """
    rows, unchanged = rows_of(primary.ids, ids)
    known = settled + np.flatnonzero(unchanged[settled:])
    known = known[np.argsort(rows[known])]
    for start in range(0, len(known), BLOCK_ROWS):
        block = known[start : start + BLOCK_ROWS]
        stored, wanted = primary.vectors[rows[block]], halves(vectors[block])
        unchanged[block] = (stored.view(np.uint16) == wanted.view(np.uint16)).all(axis=1)
    return unchanged


def _has(ordered: Ids, ids: Ids) -> Bools:
    """Return which of `ordered` (n,) are among `ids`, all of which it holds."""
    has = np.zeros(len(ordered), np.bool_)
    has[rows_of(ordered, ids)[0]] = True
    return has


def _compaction_reason(primary: int, added: int, deleted: int, settings: IndexSettings, bound: int = 1) -> str:
    if added > bound * settings.compact_secondary * primary:
        return f"{added} new vectors beside {primary}"
    if deleted > bound * settings.compact_deleted * primary:
        return f"{deleted} of {primary} vectors deleted"
    return ""


def _rebuild(directory: Path, ids: Ids, vectors: Rows, reason: str) -> VectorUpdate:
    write_vectors(directory, ids, vectors)
    table = VectorTable.open(directory, vectors.shape[1])
    build_index(directory, table)
    _write_changes(directory, _NONE, Subset(vectors, _NONE), _NONE)
    return VectorUpdate(0, len(ids), 0, reason)


def _write_changes(directory: Path, ids: Ids, vectors: Rows, deleted: Ids) -> None:
    """Write everything beside the primary, and the map over both."""
    write_vectors(directory, ids, vectors, SECONDARY)
    build_index(directory, VectorTable.open(directory, vectors.shape[1], SECONDARY), SECONDARY, family=EXACT)
    write_deleted(directory, deleted)
    rows, chunk_ids = StoredVectors.open(directory, vectors.shape[1]).idmap()
    write_idmap(directory / IDMAP, chunk_ids, rows)
