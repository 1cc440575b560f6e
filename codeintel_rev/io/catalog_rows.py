"""The rows of the catalogue's tables: their columns, and how values become Arrow.

    chunks    Chunk     what search answers with
    symbols   Symbol    definitions, each with the chunk that holds its first line
    files     FileRow   every file met: indexed, or skipped with the reason

Column names are the field names of the values, in their order; no column is nullable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter

import pyarrow as pa

from codeintel_rev.types import Chunk, Definition


@dataclass(frozen=True, slots=True)
class Symbol(Definition):
    """A definition as it is stored: joined to the chunk that holds its first line."""

    chunk_id: int


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file met while indexing. `status` is indexed or skipped; a skipped file has a `reason` and no contents.

    `sha256` is of the raw bytes; "" when the file was not read.
    """

    path: str
    language: str
    role: str
    size: int
    sha256: str
    encoding: str
    lines: int
    chunks: int
    status: str
    reason: str


def get_chunk_schema() -> pa.Schema:
    return schema_of(
        chunk_id=pa.int64(),
        repo=pa.string(),
        path=pa.string(),
        language=pa.string(),
        role=pa.string(),
        start_line=pa.int32(),
        end_line=pa.int32(),
        kind=pa.string(),
        symbol=pa.string(),
        header=pa.string(),
        text=pa.string(),
    )


def get_symbol_schema() -> pa.Schema:
    return schema_of(
        path=pa.string(),
        language=pa.string(),
        name=pa.string(),
        qualified_name=pa.string(),
        kind=pa.string(),
        start_line=pa.int32(),
        end_line=pa.int32(),
        signature=pa.string(),
        doc=pa.string(),
        chunk_id=pa.int64(),
    )


def get_file_schema() -> pa.Schema:
    return schema_of(
        path=pa.string(),
        language=pa.string(),
        role=pa.string(),
        size=pa.int64(),
        sha256=pa.string(),
        encoding=pa.string(),
        lines=pa.int32(),
        chunks=pa.int32(),
        status=pa.string(),
        reason=pa.string(),
    )


def schema_of(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def table_of(rows: Iterable[object], schema: pa.Schema) -> pa.Table:
    """Return `rows`, values with a field for each column of `schema`, as a table."""
    values = attrgetter(*schema.names)
    columns = list(zip(*map(values, rows), strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def symbols_of(definitions: Iterable[Definition], chunks: Sequence[Chunk]) -> list[Symbol]:
    """Return one file's definitions, each joined to the smallest of the file's `chunks` that holds its first line.

    Raises ValueError when no chunk does: every non-blank line lies in a chunk.
    """
    return [Symbol(**asdict(definition), chunk_id=_holder(definition, chunks)) for definition in definitions]


def _holder(definition: Definition, chunks: Sequence[Chunk]) -> int:
    line = definition.start_line
    holders = [chunk for chunk in chunks if chunk.start_line <= line <= chunk.end_line]
    if not holders:
        raise ValueError(f"{definition.path}:{line} defines {definition.qualified_name} outside every chunk")
    return min(holders, key=lambda chunk: (chunk.end_line - chunk.start_line, chunk.chunk_id)).chunk_id
