"""The text half of a generation: files, chunks, symbols and the lexical index. Everything search needs but vectors.

It is made from nothing, or goes on from the parent's: then only files whose content is another are read, parsed and
exchanged in every store.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from itertools import count, groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import ChunkingSettings
from codeintel_rev.encoders import dense
from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.indexing import chunking, grammars
from codeintel_rev.indexing.chunking import ParsedFile
from codeintel_rev.indexing.parse_pool import BATCH_FILES, ParsePool
from codeintel_rev.indexing.source import PathEntry, SourceTree, read_file
from codeintel_rev.io import catalog_builder, faiss_index, lexical
from codeintel_rev.io.catalog_builder import CatalogWriter, compact_catalog, inherit_catalog
from codeintel_rev.io.catalog_rows import FileRow, symbols_of
from codeintel_rev.io.decode import lines_of
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.lexical import LexicalIndex, LexicalWriter
from codeintel_rev.types import Chunk, Definition, Ids, SkippedFile, SourceFile

LEXICAL_DIRECTORY = "lexical"
COMPONENTS = {
    "chunking": chunking.FORMAT,
    "catalog": catalog_builder.FORMAT,
    "lexical": lexical.FORMAT,
    "vectors": faiss_index.FORMAT,
    "embedded": dense.TEXT_FORMAT,
}
_STORES = ("duckdb", "tantivy")
MAX_DEAD = 1 / 3

Tell = Callable[[int, int], None]


def inputs_of(tree: SourceTree, chunking_settings: ChunkingSettings, contents: Mapping[str, str]) -> str:
    """Return `rules:contents`, digests of all the text half is made by and from: equal ones give an equal text half."""
    rules = [
        COMPONENTS,
        # Another version may cut or store otherwise, and must not go on from what this one left.
        {store: version(store) for store in _STORES},
        grammars.versions(),
        chunking_settings.model_dump(exclude={"workers"}),
        tree.settings.model_dump(mode="json"),
    ]
    return f"{_digest(rules)}:{_digest([[(skip.path, skip.reason) for skip in tree.skipped], contents])}"


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def same_rules(inputs: str, others: str) -> bool:
    """Say whether two text halves were made by the same rules, so that one may go on from the other."""
    return inputs.partition(":")[0] == others.partition(":")[0]


def inherit_text(directory: Path, parent: Path) -> None:
    """Complete the text half of the draft `directory`, which has the lexical files of generation `parent` linked.

    What holds more than `MAX_DEAD` of deleted chunks is written anew. Raises InsufficientStorage, StorageFailed.
    """
    inherit_catalog(directory, parent)
    place = directory / LEXICAL_DIRECTORY
    if lexical.dead_share(place) <= MAX_DEAD:
        return
    shutil.rmtree(place)
    _write_lexical(directory)


def compact_text(directory: Path, parent: Path) -> None:
    """Make the text half of the draft `directory` that of generation `parent`, without what was deleted from it.

    Raises InsufficientStorage, StorageFailed.
    """
    inherit_catalog(directory, parent)
    compact_catalog(directory)
    _write_lexical(directory)


def _write_lexical(directory: Path) -> None:
    """Write the lexical index of the draft's catalogue."""
    with closing(Catalog.open(directory)) as catalog, LexicalWriter(directory / LEXICAL_DIRECTORY) as writer:
        for chunk, defined in _documents(catalog):
            writer.add(chunk, defined)
        writer.commit()


def write_text(
    directory: Path, family: str, tree: SourceTree, contents: dict[str, str], settings: ChunkingSettings, *, tell: Tell
) -> tuple[dict[str, int], frozenset[str]]:
    """Make the text half in `directory`, new or inherited, that of `tree`; return how many rows there are of what, and
    the paths of the files that were read for it, all others being as they were inherited.

    Chunks and their ids are made in the name of `family`. `contents` are the digests of the tree's files; those of
    files that changed meanwhile are set right. `tell(files done, files)` is called as it goes. Raises IdCollision,
    GenerationMismatch when a store does not hold every chunk, InsufficientStorage, StorageFailed.
    """
    with ExitStack() as opened:
        catalog = opened.enter_context(CatalogWriter(directory))
        known = catalog.digests()
        changed = _changed(tree.files, known, contents)
        pool = opened.enter_context(_pool(family, settings, len(changed)))
        unchanged = contents.keys() - {entry.path for entry in changed}
        gone = catalog.forget(known.keys() - unchanged)
        index = opened.enter_context(LexicalWriter(directory / LEXICAL_DIRECTORY))
        index.delete(gone)
        for skip in tree.skipped:
            catalog.add(_skipped_row(skip))

        finished = count(1)

        def leave_out(skip: SkippedFile) -> None:
            contents[skip.path] = skip.sha256
            catalog.add(_skipped_row(skip))
            tell(next(finished), len(changed))

        for source, parsed in _parsed(tree, changed, pool, leave_out):
            contents[source.path] = source.sha256
            catalog.add(_indexed_row(source, parsed), parsed.chunks, symbols_of(parsed.definitions, parsed.chunks))
            for chunk, defined in _with_definitions(parsed.chunks, parsed.definitions):
                index.add(chunk, defined)
            tell(next(finished), len(changed))
        index.commit()
        counts, chunk_ids = catalog.finish()
    check_lexical(directory, chunk_ids)
    return counts, frozenset(entry.path for entry in changed)


def _changed(files: Sequence[PathEntry], known: Mapping[str, str], contents: Mapping[str, str]) -> list[PathEntry]:
    """Return the files whose content is not the known one; one that could not be read may be readable by now."""
    return [entry for entry in files if not contents[entry.path] or known.get(entry.path) != contents[entry.path]]


def _pool(family: str, settings: ChunkingSettings, files: int) -> ParsePool:
    """Return a pool of no more workers than have something to do: each costs 0.3 s of CPU to start."""
    workers = min(settings.workers, -(-files // BATCH_FILES))
    return ParsePool(family, settings.max_tokens, workers, settings.parse_timeout_s, settings.parse_memory_mb)


def _parsed(
    tree: SourceTree, changed: Iterable[PathEntry], pool: ParsePool, leave_out: Callable[[SkippedFile], None]
) -> Iterator[tuple[SourceFile, ParsedFile]]:
    """Yield every readable file with what the pool made of it, in path order; the others go to `leave_out`."""
    sent: deque[SourceFile] = deque()

    def readable() -> Iterator[SourceFile]:
        for entry in changed:
            file = read_file(tree.root, entry, tree.settings)
            if isinstance(file, SkippedFile):
                leave_out(file)
            else:
                sent.append(file)
                yield file

    for parsed in pool.parse(readable()):
        yield sent.popleft(), parsed


def _documents(catalog: Catalog) -> Iterator[tuple[Chunk, list[Definition]]]:
    """Yield each chunk of a catalogue with the definitions whose first line it holds."""
    by_path = attrgetter("path")
    symbols = groupby(catalog.symbols(), by_path)
    path, definitions = next(symbols, ("", iter(())))
    for at, chunks in groupby(catalog.chunks(), by_path):
        if path != at:
            yield from _with_definitions(chunks, ())
            continue
        yield from _with_definitions(chunks, list(definitions))
        path, definitions = next(symbols, ("", iter(())))


def _with_definitions(
    chunks: Iterable[Chunk], definitions: Sequence[Definition]
) -> Iterator[tuple[Chunk, list[Definition]]]:
    """Yield each chunk of a file with those of the file's definitions whose first line it holds."""
    for chunk in chunks:
        lines = range(chunk.start_line, chunk.end_line + 1)
        yield chunk, [definition for definition in definitions if definition.start_line in lines]


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
    return FileRow(skip.path, "", "", skip.size, skip.sha256, "", 0, 0, "skipped", skip.reason)


def check_lexical(directory: Path, chunk_ids: Ids) -> None:
    """Raise unless the lexical index holds exactly the chunks of the catalogue (law 1), which checks its own tables."""
    indexed = LexicalIndex.open(directory / LEXICAL_DIRECTORY).chunk_ids()
    if not np.array_equal(indexed, chunk_ids):
        raise GenerationMismatch(
            f"lexical index holds {len(indexed)} chunks, the catalogue {len(chunk_ids)}.", "Build again."
        )
