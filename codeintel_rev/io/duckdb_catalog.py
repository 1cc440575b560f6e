"""The catalogue of a generation: what stands where, asked in SQL.

    chunks, symbols, files         the rows of `catalog_rows`; `chunks` also has `place`, its number in path order
    faiss_idmap                    which vectors there are, empty until there are some
    v_faiss_join                   every chunk with the row of its vector or NULL, so that coverage can be below 1
    meta                           the format of all this

`catalog.duckdb` is the one home of these rows: DuckDB's blocks carry checksums, Parquet's do not. A catalogue written
in one go has its rows in path order (DuckDB skips blocks by their minimum and maximum); what was changed since stands
behind. There is no index: 20 ids out of 1M rows join in 3.6 ms, and an index would double the file.

The builder writes it in a draft (`catalog_builder`); everyone else opens the published one read-only (`Catalog`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
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
    IndexCorrupt,
    IndexIncompatible,
    IndexUnavailable,
    InvalidArgument,
    QueryTooComplex,
)
from codeintel_rev.io import catalog_sql as sql
from codeintel_rev.io.catalog_builder import BUILDING, CATALOG, FORMAT, Config
from codeintel_rev.io.catalog_rows import FileRow, Symbol
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.types import Chunk, Ids, Role, Scope, Selection

SERVING: Config = {
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
    "temp_directory": "",
}
_PAGE_ROWS = 4096
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
    def open(cls, directory: Path, settings: DuckDBSettings | None = None) -> Catalog:
        """Open the catalogue of one generation, by default with a builder's limits.

        REQUIRES: who opens a published one, which others may have open in this process, gives the same settings as
        they: DuckDB has one instance a file. Raises IndexCorrupt, IndexIncompatible for another format.
        """
        config: Config = {**SERVING, **(_limits(settings) if settings else BUILDING)}
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

    def ids_of_files(self, paths: Iterable[str]) -> Ids:
        """Return the ids (n,) of the chunks of the files at exactly `paths`, ascending."""
        return self._columns(sql.SELECT_IDS_OF_FILES, {"paths": list(paths)})["chunk_id"]

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

    def symbols_of_file(self, path: str) -> list[Symbol]:
        """Return the definitions of the file at exactly `path`, in file order."""
        return [Symbol(*row) for row in self._rows(sql.SELECT_SYMBOLS_OF_FILE, {"path": path})]

    def known_names(self, names: Collection[str]) -> set[str]:
        """Return those of `names` that something here is defined by."""
        return {name for (name,) in self._rows(sql.SELECT_KNOWN_NAMES, {"names": list(names)})}

    def chunks(self) -> Iterator[Chunk]:
        """Yield every chunk by path and line, a page in memory at a time."""
        for first in count(0, _PAGE_ROWS):
            rows = self._rows(sql.SELECT_CHUNKS, {"first": first, "last": first + _PAGE_ROWS - 1})
            yield from map(_chunk, rows)
            if len(rows) < _PAGE_ROWS:
                return

    def symbols(self) -> Iterator[Symbol]:
        """Yield every definition by path, and of one file in file order."""
        with self._cursor() as cursor:
            cursor.execute(sql.EVERY_SYMBOL)
            while rows := cursor.fetchmany(_PAGE_ROWS):
                yield from (Symbol(*row) for row in rows)

    def reasons(self) -> dict[str, int]:
        """Return how many files there are by the reason why they were left out or cut by lines."""
        return dict(self._rows(sql.SELECT_REASONS))

    def outlines(self) -> pa.Table:
        """Return chunk_id, path, role and kind of every chunk, by ascending id."""
        return self._table(sql.SELECT_OUTLINES)

    def defines(self) -> pa.Table:
        """Return the chunk_id in which each definition starts and its qualified_name, by ascending id and in order."""
        return self._table(sql.SELECT_DEFINES)

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

    def _table(self, statement: str) -> pa.Table:
        with self._cursor() as cursor:
            return cursor.sql(statement).to_arrow_table()

    @contextmanager
    def _cursor(self, tables: Mapping[str, pa.Table] | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with errors_mapped(), self._root.cursor() as cursor:
            if self._attached:
                cursor.execute(f"USE {self._attached}")
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            yield cursor


def _limits(settings: DuckDBSettings) -> Config:
    return {"threads": settings.threads, "memory_limit": f"{settings.memory_limit_mb}MB"}


def read_chunks(directory: Path, settings: DuckDBSettings | None = None) -> Iterator[Chunk]:
    """Yield the chunks of a generation or draft by path and line; `settings` and raises as `Catalog.open`."""
    with closing(Catalog.open(directory, settings)) as catalog:
        yield from catalog.chunks()


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
    first, end = cursor.execute(sql.SELECT_PLACES_BEHIND, place).fetchall()[0]
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
