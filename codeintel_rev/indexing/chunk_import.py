"""Chunks made elsewhere become part of a generation that goes on from the published one: what fits in, and no more.

What is refused is counted, never written: an id stands for one content (law 1), and a chunk is of an indexed file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.indexing.text_stage import LEXICAL_DIRECTORY, check_lexical, inherit_text
from codeintel_rev.io.catalog_builder import CATALOG, CatalogWriter, fill_idmap
from codeintel_rev.io.catalog_rows import get_chunk_schema
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.lexical import LexicalWriter
from codeintel_rev.io.manifest import Manifest, Stage
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.types import Chunk, Role

_HINT = "It has the columns of the table `chunks`, none of them null: see docs/operations.md."


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What became of `rows`: `added`, `known` already, or refused for one of the three reasons after these."""

    repo: str
    generation: str
    stage: Stage
    rows: int
    added: int
    known: int
    collisions: int
    of_no_file: int
    of_other_repositories: int


def import_chunks(repo: str, path: Path, settings: Settings) -> ImportSummary:
    """Publish what is current of `repo` with those chunks of the Parquet file at `path` that fit in; nothing when none
    does.

    Raises NotFound, InvalidArgument for a file of another form, IndexUnavailable, BuildInProgress, InsufficientStorage,
    StorageFailed.
    """
    chunks = _read(path)
    directory = repository_directory(settings.paths.data_dir, repo)
    source_of(directory)
    store = GenerationStore(directory)
    with store.builder_lock():
        manifest = store.manifest(store.published_id())
        with closing(Catalog.open(store.path_of(manifest.generation), settings.duckdb)) as catalog:
            added, counted = _fitting(chunks, repo, catalog)
        if added:
            manifest = _publish(store, manifest, added)
            store.gc(settings.index.keep_generations)
    return ImportSummary(
        repo=repo,
        generation=manifest.generation,
        stage=manifest.stage,
        rows=len(chunks),
        added=len(added),
        known=counted["known"],
        collisions=counted["collisions"],
        of_no_file=counted["of_no_file"],
        of_other_repositories=counted["of_other_repositories"],
    )


def _read(path: Path) -> list[Chunk]:
    """Return the rows of the file. Raises NotFound, InvalidArgument."""
    if not path.is_file():
        raise NotFound(f"{path.name} is not a file.", "Give a Parquet file of chunks.")
    try:
        table = pq.read_table(path)
        rows = table.select(get_chunk_schema().names).cast(get_chunk_schema()).to_pylist()
        chunks = [Chunk(**{**row, "role": Role(row["role"])}) for row in rows]
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise InvalidArgument(f"{path.name} is no file of chunks: {error}.", _HINT) from error
    for chunk in chunks:
        if chunk.chunk_id <= 0 or not 1 <= chunk.start_line <= chunk.end_line:
            raise InvalidArgument(
                f"{path.name} holds a chunk with id {chunk.chunk_id} at lines {chunk.start_line}-{chunk.end_line}.",
                "Ids are positive, lines 1-based and inclusive.",
            )
    return chunks


def _fitting(chunks: Iterable[Chunk], repo: str, catalog: Catalog) -> tuple[list[Chunk], Counter[str]]:
    """Return the chunks that can be added, and how many of the others there are, by the reason."""
    chunks = list(chunks)
    asked = np.array([chunk.chunk_id for chunk in chunks], np.int64)
    known = {chunk.chunk_id: chunk for chunk in catalog.hydrate(np.intersect1d(asked, catalog.ids()))[0]}
    files = {row.path for row in catalog.paths()}
    added: dict[int, Chunk] = {}
    counted: Counter[str] = Counter()
    for chunk in chunks:
        before = known.get(chunk.chunk_id) or added.get(chunk.chunk_id)
        if chunk.repo != repo:
            counted["of_other_repositories"] += 1
        elif chunk.path not in files:
            counted["of_no_file"] += 1
        elif before is None:
            added[chunk.chunk_id] = chunk
        elif (before.path, before.text) == (chunk.path, chunk.text):
            counted["known"] += 1
        else:
            counted["collisions"] += 1
    return list(added.values()), counted


def _publish(store: GenerationStore, current: Manifest, added: list[Chunk]) -> Manifest:
    """Publish `current` and the chunks `added`. Vectors and tokens are those of `current`: a build makes the others."""
    with store.drafting(current.generation, [path for path in current.files if path != CATALOG]) as draft:
        inherit_text(draft.path, draft.origin)
        with CatalogWriter(draft.path) as catalog, LexicalWriter(draft.path / LEXICAL_DIRECTORY) as index:
            catalog.add_to_files(added)
            for chunk in added:
                index.add(chunk, ())
            index.commit()
            counts, chunk_ids = catalog.finish()
        check_lexical(draft.path, chunk_ids)
        if current.counts["vectors"]:
            fill_idmap(draft.path)
        counted = {**current.counts, "chunks": counts["chunks"]}
        return store.publish_like(draft, replace(current, counts=counted, stage=_stage(current)))


def _stage(current: Manifest) -> Stage:
    if current.model is None:
        return current.stage
    return "partial" if current.counts["vectors"] else "lexical"
