"""The Parquet tables of a generation: one schema, one writer and one reader each.

    chunks.parquet    Chunk, in path order      what the lexical index, the vectors and the catalogue are made from
    symbols.parquet   Symbol                    definitions, each with the chunk that holds its first line
    files.parquet     FileRow                   every file met: indexed, or skipped with the reason
    idmap.parquet     faiss_id, chunk_id        which vectors this generation has: row of the vector → chunk;
                                                rows of the secondary count on from those of the primary

Column names are the field names of the values; no column is nullable; compression is zstd. `FORMAT` stands in each
schema's metadata and rises when a column changes. Parquet does not notice a flipped bit: the manifest's hash does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from errno import EIO, ENOSPC
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.durable import storage_error
from codeintel_rev.types import Chunk, Definition, Ids, Role

FORMAT = b"1"
CHUNKS, SYMBOLS, FILES, IDMAP = "chunks.parquet", "symbols.parquet", "files.parquet", "idmap.parquet"
BATCH_ROWS = 8192

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Symbol(Definition):
    """A definition as it is stored: joined to the chunk that holds its first line."""

    chunk_id: int


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file met while indexing. `status` is indexed or skipped; a skipped file has a `reason` and no contents."""

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


def _schema(**columns: pa.DataType) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    return pa.schema(fields, metadata={b"codeintel.format": FORMAT})


def get_chunk_schema() -> pa.Schema:
    return _schema(
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
    return _schema(
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
    return _schema(
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


def get_idmap_schema() -> pa.Schema:
    return _schema(faiss_id=pa.int64(), chunk_id=pa.int64())


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


@contextmanager
def writing(path: Path, foreign: type[Exception] = OSError) -> Iterator[None]:
    """Turn an OSError, or an engine's `foreign` error, of a write into InsufficientStorage or StorageFailed."""
    try:
        yield
    except OSError as error:
        raise storage_error("write", path, error) from error
    except foreign as error:
        code = ENOSPC if os.strerror(ENOSPC) in str(error) else EIO
        raise storage_error("write", path, OSError(code, os.strerror(code))) from error


class _RowWriter(Generic[T]):
    """Appends rows to a new Parquet file, `BATCH_ROWS` in memory at a time; the file is complete after `close`.

    As a context manager it removes the file when the block fails: half a table never looks like a whole one.
    """

    name: str
    schema: Callable[[], pa.Schema]

    def __init__(self, directory: Path) -> None:
        self._path = directory / self.name
        self._schema = type(self).schema()
        self._values = attrgetter(*self._schema.names)
        self._rows: list[tuple[Any, ...]] = []
        with writing(self._path):
            self._file = pq.ParquetWriter(self._path, self._schema, compression="zstd")

    def write(self, rows: Iterable[T]) -> None:
        for row in rows:
            self._rows.append(self._values(row))
            if len(self._rows) >= BATCH_ROWS:
                self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        with writing(self._path):
            self._file.close()

    def _flush(self) -> None:
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._rows = []
        with writing(self._path):
            self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        with suppress(OSError):  # A full disk is why it failed, and is told already; closing would write once more.
            self._file.close()
        self._path.unlink(missing_ok=True)


class ChunkWriter(_RowWriter[Chunk]):
    name, schema = CHUNKS, staticmethod(get_chunk_schema)


class SymbolWriter(_RowWriter[Symbol]):
    name, schema = SYMBOLS, staticmethod(get_symbol_schema)


class FileWriter(_RowWriter[FileRow]):
    name, schema = FILES, staticmethod(get_file_schema)


def write_idmap(path: Path, chunk_ids: Ids, faiss_ids: Ids | None = None) -> int:
    """Write `chunk_ids` (n,) by their rows `faiss_ids` (n,), from 0 when not given, and return how many there are.

    Raises InsufficientStorage, StorageFailed.
    """
    rows = np.arange(len(chunk_ids), dtype=np.int64) if faiss_ids is None else faiss_ids
    columns = [pa.array(rows, pa.int64()), pa.array(chunk_ids, pa.int64())]
    with writing(path):
        pq.write_table(pa.Table.from_arrays(columns, schema=get_idmap_schema()), path, compression="zstd")
    return len(chunk_ids)


def read_idmap(directory: Path) -> tuple[Ids, Ids]:
    """Return the rows of the vectors (n,), ascending, and the chunk id (n,) of each.

    Raises as `read_chunks`, and IndexCorrupt for rows out of order.
    """
    with reading(directory / IDMAP, get_idmap_schema()) as table:
        columns = table.read()
    rows, chunk_ids = (np.asarray(columns[name], np.int64) for name in ("faiss_id", "chunk_id"))
    if len(rows) and (rows[0] < 0 or np.any(rows[1:] <= rows[:-1])):
        raise IndexCorrupt(f"{IDMAP} does not hold distinct rows in ascending order.", "Build the index again.")
    return rows, chunk_ids


def read_chunks(directory: Path) -> Iterator[Chunk]:
    """Yield the chunks as written, a batch in memory at a time.

    Raises IndexCorrupt for a missing or broken file, IndexIncompatible for one of another format.
    """
    for row in _rows(directory / CHUNKS, get_chunk_schema()):
        yield Chunk(**{**row, "role": Role(row["role"])})


def read_files(directory: Path) -> Iterator[FileRow]:
    """Yield the files as written; raises as `read_chunks`."""
    return (FileRow(**row) for row in _rows(directory / FILES, get_file_schema()))


def _rows(path: Path, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    with reading(path, schema) as table:
        for batch in table.iter_batches(BATCH_ROWS):
            yield from batch.to_pylist()


@contextmanager
def reading(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Open one table. Raises IndexCorrupt, also for a page that is read later, and IndexIncompatible."""
    try:
        with pq.ParquetFile(path) as table:
            if not table.schema_arrow.equals(schema, check_metadata=True):
                raise IndexIncompatible(f"{path.name} has another format than this version writes.", "Build again.")
            yield table
    except FileNotFoundError as error:
        raise IndexCorrupt(f"{path.name} is missing.", "Build the index again.") from error
    except (pa.ArrowException, OSError) as error:
        raise IndexCorrupt(f"{path.name} cannot be read.", "Build the index again.") from error
