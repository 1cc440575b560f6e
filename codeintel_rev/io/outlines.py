"""What ranking asks of hundreds of candidates a query: held in memory as Arrow columns, a few bytes a chunk.

DuckDB would need milliseconds for such a join; here it is one binary search and one `take`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from codeintel_rev.io.parquet_store import CHUNKS, SYMBOLS, get_chunk_schema, get_symbol_schema, reading
from codeintel_rev.types import Ids, Role

_CODED = ("path", "role", "kind")


@dataclass(frozen=True, slots=True)
class Outline:
    """A chunk without its text. `defines` are the qualified names whose definition starts in it."""

    chunk_id: int
    path: str
    role: Role
    kind: str
    defines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of one generation by chunk id. `chunk_ids` (n,) ascending, `columns` in the same order."""

    chunk_ids: Ids
    columns: pa.Table

    @classmethod
    def open(cls, directory: Path) -> Outlines:
        """Raises IndexCorrupt, IndexIncompatible."""
        chunks = _columns(directory / CHUNKS, get_chunk_schema(), ["chunk_id", *_CODED])
        symbols = _columns(directory / SYMBOLS, get_symbol_schema(), ["chunk_id", "qualified_name"])
        defines = symbols.group_by("chunk_id", use_threads=False).aggregate([("qualified_name", "list")])
        # Arrow cannot carry a list through a join, so its rows are taken by number.
        order = pc.sort_indices(chunks["chunk_id"])
        chunks = chunks.take(order).combine_chunks()
        rows = pc.index_in(chunks["chunk_id"], value_set=defines["chunk_id"].combine_chunks())
        taken = defines["qualified_name_list"].combine_chunks().take(rows.combine_chunks())
        coded = [chunks[name].dictionary_encode() for name in _CODED]
        return cls(
            chunks["chunk_id"].to_numpy().astype(np.int64),
            pa.Table.from_arrays([*coded, taken], names=[*_CODED, "defines"]),
        )

    def known(self, chunk_ids: Ids) -> Ids:
        """Return those of `chunk_ids` that this generation has, in their order."""
        if not len(self.chunk_ids):
            return chunk_ids[:0]
        rows = np.searchsorted(self.chunk_ids, chunk_ids).clip(max=len(self.chunk_ids) - 1)
        known: Ids = chunk_ids[self.chunk_ids[rows] == chunk_ids]
        return known

    def of(self, chunk_ids: Ids) -> list[Outline]:
        """Return the outlines of `chunk_ids` in their order. REQUIRES: this generation has every one of them."""
        rows = self.columns.take(np.searchsorted(self.chunk_ids, chunk_ids))
        columns = (rows[name].to_pylist() for name in (*_CODED, "defines"))
        return [
            Outline(chunk_id, path, Role(role), kind, tuple(defines or ()))
            for chunk_id, path, role, kind, defines in zip(chunk_ids.tolist(), *columns, strict=True)
        ]


def _columns(path: Path, schema: pa.Schema, names: list[str]) -> pa.Table:
    with reading(path, schema) as table:
        return table.read(columns=names)
