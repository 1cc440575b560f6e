"""The catalogue of a generation: what stands where, asked in SQL.

`catalog.duckdb` holds its own copy of the Parquet tables, because DuckDB's blocks carry checksums and Parquet's do not:
it is the one engine here that notices a flipped bit. Row order is chosen for the readers (DuckDB skips blocks by their
minimum and maximum): `chunks` by path and line, `symbols` by their lower-case name. There is no index: 20 ids out of 1M
rows join in 3.6 ms, and an index would double the file. `faiss_idmap` is empty until there are vectors; `v_faiss_join`
is every chunk with the row of its vector or NULL, so that coverage can be below 1.

The builder writes a new file (`build_catalog`); everyone else opens the published one read-only (`Catalog`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.errors import (
    DeadlineExceeded,
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    IndexUnavailable,
    InvalidArgument,
    QueryTooComplex,
)
from codeintel_rev.io import catalog_sql as sql
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.io.parquet_store import (
    CHUNKS,
    FILES,
    IDMAP,
    SYMBOLS,
    FileRow,
    get_chunk_schema,
    get_file_schema,
    get_idmap_schema,
    get_symbol_schema,
    reading,
    writing,
)
from codeintel_rev.types import Chunk, Ids, Role, Scope, Selection

CATALOG = "catalog.duckdb"
FORMAT = 1

Config = dict[str, str | bool | int | float | list[str]]

BUILDING: Config = {
    "memory_limit": "1GB",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
}
SERVING: Config = {
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
    "temp_directory": "",
}
_INTERRUPT_AGAIN_S = 0.01
_FAST_PAGE_S = 0.05


@dataclass(frozen=True, slots=True)
class TextRow:
    """A chunk that may hold matching lines; `text` is its lines from `start_line` on."""

    path: str
    start_line: int
    end_line: int
    text: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the chunks of one language, below one module (at most two folders), have a vector."""

    module: str
    language: str
    chunks: int
    vectors: int


def build_catalog(directory: Path, *, parent: Path | None = None) -> None:
    """Write `catalog.duckdb` from the Parquet tables in `directory`; without `idmap.parquet` no chunk has a vector.

    The tables are copied from the catalogue of the generation `parent` when its Parquet files are the same files (hard
    links), so that a generation which only adds vectors is cheap. Raises GenerationMismatch when the tables do not
    join, IndexCorrupt for a missing or broken table, InsufficientStorage, StorageFailed.
    """
    path = directory / CATALOG
    if path.exists():
        raise ValueError(f"{path} exists; a published file is never written again")
    with writing(path, duckdb.Error):
        if parent and _same_tables(directory, parent):
            shutil.copyfile(parent / CATALOG, path)
            with duckdb.connect(path.absolute(), config=BUILDING) as connection:
                connection.execute(sql.CLEAR_IDMAP)
                _fill_idmap(connection, directory)
            return
        with duckdb.connect(path.absolute(), config=BUILDING) as connection:
            _create_tables(connection, directory)
            _fill_idmap(connection, directory)


def _same_tables(directory: Path, parent: Path) -> bool:
    pairs = [(directory / name, parent / name) for name in (CHUNKS, SYMBOLS, FILES)]
    return all(own.is_file() and other.is_file() and own.samefile(other) for own, other in pairs)


def _create_tables(connection: duckdb.DuckDBPyConnection, directory: Path) -> None:
    connection.execute(sql.CREATE_META, {"format": FORMAT})
    _load(connection, sql.CREATE_CHUNKS, directory / CHUNKS, get_chunk_schema())
    _load(connection, sql.CREATE_SYMBOLS, directory / SYMBOLS, get_symbol_schema())
    _load(connection, sql.CREATE_FILES, directory / FILES, get_file_schema())
    connection.execute(sql.CREATE_IDMAP)
    connection.execute(sql.CREATE_JOIN)


def _fill_idmap(connection: duckdb.DuckDBPyConnection, directory: Path) -> None:
    if (directory / IDMAP).exists():
        _load(connection, sql.FILL_IDMAP, directory / IDMAP, get_idmap_schema())
    broken = connection.execute(sql.COUNT_BROKEN_JOINS)
    names = [column[0] for column in broken.description]
    for name, count in zip(names, broken.fetchall()[0], strict=True):
        if count:
            raise GenerationMismatch(f"the tables of this build do not join: {count} {name}.", "Build again.")


def _load(connection: duckdb.DuckDBPyConnection, statement: str, path: Path, schema: pa.Schema) -> None:
    """Run `statement` over the rows of one Parquet table as `source`: a path in SQL would be read as a glob."""
    with reading(path, schema) as table:
        connection.register("source", pa.RecordBatchReader.from_batches(schema, table.iter_batches()))
        connection.execute(statement)
        connection.unregister("source")


class Catalog:
    """A published catalogue, read-only. Safe for many threads: each call takes a cursor of its own.

    One connection is not shareable, and a second `connect` while this one is open is the same database (T14, T15).
    Every method raises IndexCorrupt for a block that fails its checksum and InvalidArgument for text it cannot hold.
    """

    def __init__(self, root: duckdb.DuckDBPyConnection, attached: str = "") -> None:
        """`attached` is the name of the catalogue where `root` is no instance of its own."""
        self._root = root
        self._attached = attached

    @classmethod
    def open(cls, directory: Path, settings: DuckDBSettings) -> Catalog:
        """Open the catalogue of one generation. Raises IndexCorrupt, or IndexIncompatible for another format."""
        config: Config = {**SERVING, "threads": settings.threads, "memory_limit": f"{settings.memory_limit_mb}MB"}
        with errors_mapped():
            catalog = cls(duckdb.connect((directory / CATALOG).absolute(), read_only=True, config=config))
        catalog.check_format()
        return catalog

    def check_format(self) -> None:
        """Close this catalogue and raise unless this version can read it: IndexIncompatible, IndexCorrupt."""
        with ExitStack() as undo:
            undo.callback(self.close)
            found = self._rows(sql.SELECT_FORMAT)
            if found != [(FORMAT,)]:
                raise IndexIncompatible(f"{CATALOG} has format {found}, this version reads {FORMAT}.", "Build again.")
            undo.pop_all()

    def close(self) -> None:
        """Close the root connection, and the file. Further calls fail."""
        if self._attached:
            self._root.execute(f"DETACH {self._attached}")
        self._root.close()

    def counts(self) -> dict[str, int]:
        """Return how many files (indexed), skipped (files), chunks, symbols and vectors there are."""
        with self._cursor() as cursor:
            row = cursor.execute(sql.SELECT_COUNTS).fetchall()[0]
            return {column[0]: count for column, count in zip(cursor.description, row, strict=True)}

    def coverage(self) -> list[Coverage]:
        """Return the coverage of every module and language, in that order."""
        return [Coverage(*row) for row in self._rows(sql.SELECT_COVERAGE)]

    def ids(self) -> Ids:
        """Return every chunk id (n,), ascending."""
        return self._columns(sql.SELECT_IDS)["chunk_id"]

    def hydrate(self, ids: ArrayLike) -> tuple[list[Chunk], list[int]]:
        """Return the chunks with these `ids` in the order asked, and the ids that no chunk has."""
        rows = self._rows(sql.SELECT_HYDRATED, {"ids": np.asarray(ids, np.int64).tolist()})
        return [_chunk(row[1:]) for row in rows if row[1] is not None], [row[0] for row in rows if row[1] is None]

    def select(self, scope: Scope) -> Selection | None:
        """Return what `scope` restricts to, None when it restricts nothing. Raises InvalidArgument for a bad glob."""
        if not scope.restricts_chunks:
            return None
        matched = self._matched(scope.paths) if scope.paths else []
        columns = self._columns(
            sql.SELECT_SCOPE,
            {"every_path": not scope.paths, "languages": list(scope.languages), "kinds": list(scope.kinds)},
            matched=pa.table({"path": pa.array(matched, pa.string())}),
        )
        return Selection(columns["chunk_id"], tuple(np.unique(columns["path"].astype(str)).tolist()))

    def file(self, path: str) -> FileRow | None:
        """Return what is known of the file at exactly `path`, None when it was never met."""
        rows = self._rows(sql.SELECT_FILE, {"path": path})
        return FileRow(*rows[0]) if rows else None

    def paths(self) -> list[FileRow]:
        """Return the indexed files, by path."""
        return [FileRow(*row) for row in self._rows(sql.SELECT_FILES, {"status": "indexed"})]

    def skipped(self) -> list[FileRow]:
        """Return the files that were not indexed, with their reasons, by path."""
        return [FileRow(*row) for row in self._rows(sql.SELECT_FILES, {"status": "skipped"})]

    def chunks_of_file(self, path: str) -> list[Chunk]:
        """Return the chunks of the file at exactly `path` by line; none when it is not indexed."""
        return [_chunk(row) for row in self._rows(sql.SELECT_CHUNKS_OF_FILE, {"path": path})]

    def chunk_text_rows(
        self,
        pattern: str,
        *,
        regex: bool = False,
        selection: Selection | None = None,
        after: tuple[str, int] = ("", 0),
        limit: int,
        deadline_s: float | None = None,
    ) -> list[TextRow]:
        """Return at most `limit` chunks whose text contains `pattern`, or as a `regex` matches, by path and line.

        A regex is RE2 over the whole text of a chunk: its flags, and the cap on its size, are the caller's. Chunks that
        end at or before `after` (path, line) are left out. Raises InvalidArgument for a malformed pattern,
        DeadlineExceeded.
        """
        parameters = {"pattern": pattern, "path": after[0], "line": after[1], "everything": selection is None}
        with self._cursor({"selected": _ids(selection)}) as cursor, _interrupted_after(cursor, deadline_s) as expired:
            if regex:
                return _regex_rows(cursor, parameters, limit, expired)
            rows = cursor.execute(sql.SELECT_TEXT_WITH_LITERAL, {**parameters, "limit": limit}).fetchall()
            return [TextRow(*row) for row in rows]

    def _matched(self, globs: tuple[str, ...]) -> list[str]:
        matcher = PathMatcher(globs)
        return [path for (path,) in self._rows(sql.SELECT_INDEXED_PATHS) if matcher.matches(path)]

    def _rows(
        self,
        statement: str,
        parameters: Mapping[str, object] | None = None,
        **tables: pa.Table,
    ) -> list[tuple[Any, ...]]:
        with self._cursor(tables) as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(statement, parameters).fetchall()
            return rows

    def _columns(
        self, statement: str, parameters: Mapping[str, object] | None = None, **tables: pa.Table
    ) -> dict[str, NDArray[Any]]:
        with self._cursor(tables) as cursor:
            columns: dict[str, NDArray[Any]] = cursor.execute(statement, parameters).fetchnumpy()
            return columns

    @contextmanager
    def _cursor(self, tables: Mapping[str, pa.Table] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with errors_mapped(), self._root.cursor() as cursor:
            if self._attached:
                cursor.execute(f"USE {self._attached}")
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            yield cursor


def _chunk(row: tuple[Any, ...]) -> Chunk:
    chunk_id, repo, path, language, role, *rest = row
    return Chunk(chunk_id, repo, path, language, Role(role), *rest)


def _ids(selection: Selection | None) -> pa.Table:
    """Many ids travel as an Arrow table: 50k of them cost 5 ms so, 36 ms as a bound list."""
    return pa.table({"chunk_id": pa.array([] if selection is None else selection.chunk_ids, pa.int64())})


def _regex_rows(
    cursor: duckdb.DuckDBPyConnection, parameters: Mapping[str, object], limit: int, expired: Event
) -> list[TextRow]:
    """Match a page of chunks at a time, four times as many while that is fast.

    DuckDB stops between vectors of 2048 rows only, and RE2 falls back to an automaton that took 45 s over 2 MB for a
    pattern of 2045 instructions. A page that starts with one chunk bounds what a hostile pattern can hold up.
    """
    place = {name: parameters[name] for name in ("path", "line")}
    first, end = cursor.execute(sql.SELECT_ROWS_BEHIND, place).fetchall()[0]
    rows: list[TextRow] = []
    size = 1
    while first is not None and first <= end and len(rows) < limit:
        if expired.is_set():
            raise duckdb.InterruptException
        started = time.monotonic()
        page = {"first": first, "last": first + size - 1, "limit": limit - len(rows)}
        rows += (TextRow(*row) for row in cursor.execute(sql.SELECT_TEXT_WITH_REGEX, {**parameters, **page}).fetchall())
        first += size
        if time.monotonic() - started < _FAST_PAGE_S:
            size *= 4
    return rows


@contextmanager
def _interrupted_after(cursor: duckdb.DuckDBPyConnection, deadline_s: float | None) -> Iterator[Event]:
    """Interrupt what `cursor` runs after `deadline_s`, again and again: one that comes before the start is lost."""
    done, expired = Event(), Event()

    def interrupt() -> None:
        pause = deadline_s
        while not done.wait(pause):
            expired.set()
            cursor.interrupt()
            pause = _INTERRUPT_AGAIN_S

    watch = Thread(target=interrupt, name="catalog-deadline", daemon=True)
    if deadline_s is not None:
        watch.start()
    try:
        yield expired
    finally:
        done.set()
        if deadline_s is not None:
            watch.join()


@contextmanager
def errors_mapped() -> Iterator[None]:
    """Raise DuckDB's errors as this project's."""
    try:
        yield
    except duckdb.InterruptException as error:
        raise DeadlineExceeded("the catalogue query took too long.", "Narrow the pattern or the scope.") from error
    except duckdb.OutOfMemoryException as error:
        raise QueryTooComplex("the catalogue query needs too much memory.", "Narrow the scope.") from error
    except (duckdb.InvalidInputException, duckdb.ConversionException, RuntimeError) as error:
        # RuntimeError is how DuckDB 1.5 refuses a lone surrogate.
        raise InvalidArgument(f"the catalogue cannot take this argument: {_first_line(error)}.") from error
    except duckdb.ConnectionException as error:
        raise IndexUnavailable("the catalogue is closed.", "Ask again.") from error
    except duckdb.Error as error:
        raise IndexCorrupt(f"{CATALOG} cannot be read.", "Roll back or build again.") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Invalid Input Error: ")
