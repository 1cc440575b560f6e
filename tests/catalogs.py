"""Catalogues of a few rows, written as the builder writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from codeintel_rev.io.catalog_builder import CatalogWriter
from codeintel_rev.io.catalog_rows import FileRow, Symbol
from codeintel_rev.types import Chunk


def file_row(path: str, chunks: int = 1, sha256: str = "0" * 64) -> FileRow:
    return FileRow(path, "python", "code", 9, sha256, "utf-8", 9, chunks, "indexed", "")


def write_catalog(
    directory: Path, chunks: Sequence[Chunk], symbols: Iterable[Symbol] = (), files: Iterable[FileRow] | None = None
) -> Path:
    """Add `files`, by default one for each path of `chunks`, with the chunks back to front, and return `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    first, *others = (
        [file_row(path) for path in dict.fromkeys(chunk.path for chunk in chunks)] if files is None else files
    )
    with CatalogWriter(directory) as writer:
        writer.add(first, reversed(chunks), symbols)
        for other in others:
            writer.add(other)
        writer.finish()
    return directory
