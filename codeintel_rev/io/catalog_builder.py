"""The write side of the catalogue: a new one, or a copy of the parent's in which only changed files are exchanged.

A copy costs what copying its bytes costs, 20 ms for 100,000 chunks; the rows of changed files are deleted and appended,
which writes the blocks they touch. `place` numbers the chunks in path order, whatever their order in the file. Rows
deleted since are dead weight that DuckDB seldom drops, so a large catalogue with a third of it is written anew.

Everything here happens in a draft; a published catalogue is only ever read.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import pyarrow as pa

from codeintel_rev.errors import GenerationMismatch, IdCollision, IndexCorrupt
from codeintel_rev.io import catalog_sql as sql
from codeintel_rev.io.catalog_rows import (
    FileRow,
    Symbol,
    get_chunk_schema,
    get_file_schema,
    get_symbol_schema,
    table_of,
)
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.io.parquet_store import IDMAP, get_idmap_schema, reading, writing
from codeintel_rev.types import Chunk, Ids

CATALOG = "catalog.duckdb"
FORMAT = 2

Config = dict[str, str | bool | int | float | list[str]]

BUILDING: Config = {
    "memory_limit": "1GB",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}
BATCH_ROWS = 2048
MAX_DEAD = 1 / 3
LARGE_BYTES = 16 * 1024 * 1024
_OLD = "catalog.old"


def inherit_catalog(directory: Path, parent: Path) -> None:
    """Put a copy of the catalogue of generation `parent` into the draft `directory`, to be changed there.

    Raises IndexCorrupt, InsufficientStorage, StorageFailed.
    """
    with os_errors_mapped("copy", directory / CATALOG):
        shutil.copyfile(parent / CATALOG, directory / CATALOG)
    try:
        crowded = (directory / CATALOG).stat().st_size > LARGE_BYTES and _dead_share(directory / CATALOG) > MAX_DEAD
    except (OSError, duckdb.Error) as error:
        raise IndexCorrupt(f"the copy of {CATALOG} cannot be read.", "Check the disk, and build again.") from error
    if crowded:
        compact_catalog(directory)


def compact_catalog(directory: Path) -> None:
    """Write the catalogue of the draft anew, without what was deleted from it.

    Raises InsufficientStorage, StorageFailed.
    """
    with writing(directory / CATALOG, duckdb.Error):
        (directory / CATALOG).replace(directory / _OLD)
        _write_anew(directory / _OLD, directory / CATALOG)
        (directory / _OLD).unlink()


def name_chunks(directory: Path, repo: str) -> None:
    """Make every chunk of the draft's catalogue one of `repo`. Raises InsufficientStorage, StorageFailed."""
    with writing(directory / CATALOG, duckdb.Error), _connect(directory / CATALOG) as connection:
        connection.execute(sql.NAME_CHUNKS, {"repo": repo})


def fill_idmap(directory: Path) -> None:
    """Make the id map of the draft's catalogue that of `idmap.parquet`, empty where there is none.

    Raises GenerationMismatch when a vector is of no chunk, IndexCorrupt for a broken `idmap.parquet`,
    InsufficientStorage, StorageFailed.
    """
    with writing(directory / CATALOG, duckdb.Error), _connect(directory / CATALOG) as connection:
        connection.execute(sql.CLEAR_IDMAP)
        if (directory / IDMAP).exists():
            with reading(directory / IDMAP, get_idmap_schema()) as table:
                _load(connection, sql.FILL_IDMAP, table.read())
        _check(connection, sql.COUNT_BROKEN_VECTORS)


class CatalogWriter:
    """The tables of the catalogue in a draft, being filled: a new one, or what `inherit_catalog` put there.

    Its id map is empty until `fill_idmap`. As a context manager it commits at the end of the block, and after an error
    leaves the file as it was. Rows come back in the order they were added within a file. Methods raise
    InsufficientStorage and StorageFailed.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / CATALOG
        self._chunks: list[Chunk] = []
        self._symbols: list[Symbol] = []
        self._files: list[FileRow] = []
        inherited = self._path.exists()
        with writing(self._path, duckdb.Error):
            self._connection = _connect(self._path)
            self._connection.execute("BEGIN")
            if inherited:
                self._connection.execute(sql.CLEAR_IDMAP)
            else:
                _create(self._connection)

    def digests(self) -> dict[str, str]:
        """Return path → SHA-256 of every file that was read, indexed or not."""
        with writing(self._path, duckdb.Error):
            return dict(self._connection.execute(sql.SELECT_DIGESTS).fetchall())

    def forget(self, paths: Iterable[str]) -> Ids:
        """Delete all that is known of the files at `paths`, and the files never read; return their chunk ids."""
        gone = pa.table({"path": pa.array(paths, pa.string())})
        with writing(self._path, duckdb.Error):
            self._connection.execute(sql.DELETE_UNREAD)
            self._connection.register("gone", gone)
            self._connection.execute(sql.DELETE_FILES)
            self._connection.execute(sql.DELETE_SYMBOLS)
            deleted = self._connection.execute(sql.DELETE_CHUNKS).fetchnumpy()["chunk_id"]
            self._connection.unregister("gone")
        return np.asarray(deleted, np.int64)

    def add(self, file: FileRow, chunks: Iterable[Chunk] = (), symbols: Iterable[Symbol] = ()) -> None:
        """Add a file and all that is in it. REQUIRES: nothing is known of it."""
        self._files.append(file)
        self._chunks += chunks
        self._symbols += symbols
        if max(len(self._files), len(self._chunks), len(self._symbols)) >= BATCH_ROWS:
            self._flush()

    def add_to_files(self, chunks: Iterable[Chunk]) -> None:
        """Add chunks to files that are known. REQUIRES: none of them is known."""
        self._chunks += chunks
        self._flush()
        with writing(self._path, duckdb.Error):
            self._connection.execute(sql.COUNT_CHUNKS)

    def finish(self) -> tuple[dict[str, int], Ids]:
        """Number the chunks, check that the tables join, and return how many rows there are of what, and all chunk ids
        (n,) ascending. Raises IdCollision, GenerationMismatch."""
        self._flush()
        with writing(self._path, duckdb.Error):
            self._connection.execute(sql.NUMBER_CHUNKS)
            collision = self._connection.execute(sql.SELECT_COLLISION).fetchall()
            if collision:
                raise _collision(*collision[0])
            _check(self._connection, sql.COUNT_BROKEN_TABLES)
            counted = self._connection.execute(sql.SELECT_COUNTS)
            counts = {column[0]: n for column, n in zip(counted.description, counted.fetchall()[0], strict=True)}
            return counts, self._connection.execute(sql.SELECT_IDS).fetchnumpy()["chunk_id"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self._path, duckdb.Error), self._connection:
            if kind is None:
                self._flush()
                self._connection.execute("COMMIT")

    def _flush(self) -> None:
        with writing(self._path, duckdb.Error):
            _insert(self._connection, sql.INSERT_CHUNKS, self._chunks, get_chunk_schema())
            _insert(self._connection, sql.INSERT_SYMBOLS, self._symbols, get_symbol_schema())
            _insert(self._connection, sql.INSERT_FILES, self._files, get_file_schema())


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(path.absolute(), config=BUILDING)


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(sql.CREATE_META, {"format": FORMAT})
    _load(connection, sql.CREATE_CHUNKS, get_chunk_schema().empty_table())
    _load(connection, sql.CREATE_SYMBOLS, get_symbol_schema().empty_table())
    _load(connection, sql.CREATE_FILES, get_file_schema().empty_table())
    connection.execute(sql.CREATE_IDMAP)
    connection.execute(sql.CREATE_JOIN)


def _load(connection: duckdb.DuckDBPyConnection, statement: str, rows: pa.Table | pa.RecordBatchReader) -> None:
    connection.register("source", rows)
    connection.execute(statement)
    connection.unregister("source")


def _insert(connection: duckdb.DuckDBPyConnection, statement: str, rows: list[Any], schema: pa.Schema) -> None:
    """Insert `rows` and empty the list."""
    if rows:
        _load(connection, statement, table_of(rows, schema))
        rows.clear()


def _dead_share(path: Path) -> float:
    """Return how much of the file is of no use any more: rows deleted, or blocks that are free."""
    with _connect(path) as connection:
        chunks, rows, blocks, free = connection.execute(sql.SELECT_USE).fetchall()[0]
    return float(max(1 - chunks / max(rows, 1), free / max(blocks, 1)))


def _write_anew(source: Path, target: Path) -> None:
    with _connect(source) as old, _connect(target) as new:
        new.execute("BEGIN")
        _create(new)
        for select, insert in (
            (sql.EVERY_CHUNK, sql.INSERT_CHUNKS),
            (sql.EVERY_SYMBOL, sql.INSERT_SYMBOLS),
            (sql.EVERY_FILE, sql.INSERT_FILES),
            (sql.EVERY_VECTOR, sql.FILL_IDMAP),
        ):
            _load(new, insert, old.sql(select).to_arrow_reader(BATCH_ROWS))
        new.execute(sql.NUMBER_CHUNKS)
        new.execute("COMMIT")


def _check(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    broken = connection.execute(statement)
    names = [column[0] for column in broken.description]
    for name, count in zip(names, broken.fetchall()[0], strict=True):
        if count:
            raise GenerationMismatch(f"the tables of this build do not join: {count} {name}.", "Build again.")


def _collision(chunk_id: int, first: str, second: str) -> IdCollision:
    return IdCollision(
        f"chunk id {chunk_id} was minted for two chunks of this build, in {first} and {second}.",
        "Exclude one of the two files with source.deny and build again.",
    )
