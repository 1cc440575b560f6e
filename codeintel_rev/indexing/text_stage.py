"""The text half of a generation: files, chunks, symbols and the lexical index. Everything search needs but vectors."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import ChunkingSettings
from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.indexing import chunking
from codeintel_rev.indexing.chunking import ParsedFile
from codeintel_rev.indexing.identity import check_unique
from codeintel_rev.indexing.parse_pool import ParsePool
from codeintel_rev.indexing.source import SourceTree, read_files
from codeintel_rev.io import duckdb_catalog, faiss_index, lexical, parquet_store
from codeintel_rev.io.decode import lines_of
from codeintel_rev.io.lexical import LexicalIndex, LexicalWriter
from codeintel_rev.io.parquet_store import ChunkWriter, FileRow, FileWriter, SymbolWriter, symbols_of
from codeintel_rev.types import Chunk, Definition, SkippedFile, SourceFile

LEXICAL_DIRECTORY = "lexical"
COMPONENTS = {
    "chunking": chunking.FORMAT,
    "catalog": duckdb_catalog.FORMAT,
    "lexical": lexical.FORMAT,
    "tables": int(parquet_store.FORMAT),
    "vectors": faiss_index.FORMAT,
}

Tell = Callable[[int, int], None]


def inputs_of(tree: SourceTree, chunking_settings: ChunkingSettings) -> str:
    """Return the digest of everything the text half is made from: equal inputs give an equal text half."""
    digest = hashlib.sha256()
    facts = [COMPONENTS, chunking_settings.model_dump(exclude={"workers"}), tree.settings.model_dump(mode="json")]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for skip in tree.skipped:
        digest.update(f"{skip.path}\0{skip.reason}\0".encode())
    for entry in tree.files:
        digest.update(f"{entry.path}\0{_content_digest(tree.root / entry.path)}\0".encode())
    return digest.hexdigest()


def _content_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""  # read_files reports it as unreadable


def write_text(directory: Path, repo: str, tree: SourceTree, settings: ChunkingSettings, tell: Tell) -> dict[str, int]:
    """Fill `directory` with the tables and lexical index of `tree`, and return how many rows there are of what.

    `tell(files done, files)` is called as it goes.

    Raises IdCollision, GenerationMismatch when a store does not hold every chunk, InsufficientStorage, StorageFailed.
    """
    with ExitStack() as opened:
        tables = _Tables(directory, opened)
        pool = opened.enter_context(
            ParsePool(repo, settings.max_tokens, settings.workers, settings.parse_timeout_s, settings.parse_memory_mb)
        )
        for skip in tree.skipped:
            tables.skip(skip)
        for source, parsed in _parsed(tree, pool, tables.skip):
            tables.add(source, parsed)
            tell(tables.seen() - len(tree.skipped), len(tree.files))
        tables.index.commit()
    _check_joins(directory, tables.chunk_ids)
    return tables.counts()


class _Tables:
    """The stores of the text half, filled file by file in step with each other."""

    def __init__(self, directory: Path, opened: ExitStack) -> None:
        self._chunks = opened.enter_context(ChunkWriter(directory))
        self._symbols = opened.enter_context(SymbolWriter(directory))
        self._files = opened.enter_context(FileWriter(directory))
        self.index = opened.enter_context(LexicalWriter(directory / LEXICAL_DIRECTORY))
        self.chunk_ids: list[int] = []
        self._counts = Counter(files=0, skipped=0, chunks=0, symbols=0)

    def skip(self, skip: SkippedFile) -> None:
        self._counts["skipped"] += 1
        self._files.write([_skipped_row(skip)])

    def add(self, source: SourceFile, parsed: ParsedFile) -> None:
        self._files.write([_indexed_row(source, parsed)])
        self._chunks.write(parsed.chunks)
        self._symbols.write(symbols_of(parsed.definitions, parsed.chunks))
        for chunk, defined in _with_definitions(parsed):
            self.index.add(chunk, defined)
        self.chunk_ids.extend(chunk.chunk_id for chunk in parsed.chunks)
        self._counts.update(files=1, chunks=len(parsed.chunks), symbols=len(parsed.definitions))

    def seen(self) -> int:
        return self._counts["files"] + self._counts["skipped"]

    def counts(self) -> dict[str, int]:
        return dict(self._counts)


def _parsed(
    tree: SourceTree, pool: ParsePool, skip: Callable[[SkippedFile], None]
) -> Iterator[tuple[SourceFile, ParsedFile]]:
    """Yield every readable file with what the pool made of it, in path order; the others go to `skip`."""
    sent: deque[SourceFile] = deque()

    def readable() -> Iterator[SourceFile]:
        for file in read_files(tree):
            if isinstance(file, SkippedFile):
                skip(file)
            else:
                sent.append(file)
                yield file

    for parsed in pool.parse(readable()):
        yield sent.popleft(), parsed


def _with_definitions(parsed: ParsedFile) -> Iterator[tuple[Chunk, Sequence[Definition]]]:
    """Yield each chunk with the definitions whose first line it holds."""
    for chunk in parsed.chunks:
        lines = range(chunk.start_line, chunk.end_line + 1)
        yield chunk, [definition for definition in parsed.definitions if definition.start_line in lines]


def _indexed_row(source: SourceFile, parsed: ParsedFile) -> FileRow:
    return FileRow(
        path=source.path,
        language=source.language,
        role=source.role,
        size=source.size,
        sha256=source.sha256,
        encoding=source.encoding,
        lines=len(lines_of(source.text)),
        chunks=len(parsed.chunks),
        status="indexed",
        reason=parsed.note,
    )


def _skipped_row(skip: SkippedFile) -> FileRow:
    return FileRow(skip.path, "", "", skip.size, "", "", 0, 0, "skipped", skip.reason)


def _check_joins(directory: Path, chunk_ids: Sequence[int]) -> None:
    """Raise unless ids are unique and the lexical index holds exactly them (law 1); the catalogue checks its own."""
    check_unique(chunk_ids)
    indexed = LexicalIndex.open(directory / LEXICAL_DIRECTORY).chunk_ids()
    if not np.array_equal(indexed, np.sort(np.asarray(chunk_ids, np.int64))):
        raise GenerationMismatch(
            f"lexical index holds {len(indexed)} chunks, the tables {len(chunk_ids)}.", "Build again."
        )
