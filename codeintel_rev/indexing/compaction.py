"""`indexctl compact`: what updates left behind in a generation is left out of the next, which answers alike.

Every store is written anew from what it holds: the catalogue and the lexical index without deleted rows, all vectors as
one primary, the token index and the impact index as one. Nothing is read of the work tree, parsed or encoded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from codeintel_rev.config.settings import Settings
from codeintel_rev.indexing.splade_stage import compact_impacts, held_impacts, impact_counts
from codeintel_rev.indexing.text_stage import compact_text
from codeintel_rev.indexing.token_stage import Carried, compact_tokens, held_by, linked
from codeintel_rev.io.catalog_builder import fill_idmap
from codeintel_rev.io.disk_space import check_space
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.io.vector_update import compact_vectors


@dataclass(frozen=True, slots=True)
class CompactionSummary:
    """What a compaction did: the bytes of the generation before it, and of its own."""

    repo: str
    generation: str
    bytes_before: int
    bytes_after: int
    seconds: float


def compact(repo: str, settings: Settings) -> CompactionSummary:
    """Publish what is current of `repo` without what was deleted from it, and say what that saved.

    Raises NotFound, IndexUnavailable, BuildInProgress, IndexIncompatible for a generation that only a build can mend,
    IndexCorrupt, InsufficientStorage, StorageFailed.
    """
    started = time.monotonic()
    shard = repository_directory(settings.paths.data_dir, repo)
    source_of(shard)
    store = GenerationStore(shard)
    with store.builder_lock():
        check_space(settings.paths.data_dir, settings.index)
        before = store.manifest(store.published_id())
        after = publish_compacted(store, before)
        store.gc(settings.index.keep_generations)
    return CompactionSummary(
        repo=repo,
        generation=after.generation,
        bytes_before=_bytes(before),
        bytes_after=_bytes(after),
        seconds=time.monotonic() - started,
    )


def publish_compacted(store: GenerationStore, current: Manifest) -> Manifest:
    """Publish a generation that holds what `current` does and nothing else, and return its manifest.

    A token or impact index that is not sound is shared as it is. REQUIRES: the builder's lock. Raises as `compact`.
    """
    held = held_by(store.path_of(current.generation))
    impacts = held_impacts(store.path_of(current.generation))
    tokens = Carried.by(current)
    shared = (*(linked(current) if held else tokens.files), *(() if impacts else impact_counts(current)))
    with store.drafting(current.generation, shared) as draft:
        compact_text(draft.path, draft.origin)
        if current.model and current.counts["vectors"]:
            compact_vectors(draft.path, draft.origin, current.model.dim)
            fill_idmap(draft.path)
        if held:
            tokens = compact_tokens(draft, current, held)
        if impacts:
            compact_impacts(draft, impacts)
        described = replace(current, counts=current.counts | tokens.counts, token_model=tokens.model)
        return store.publish_like(draft, described)


def _bytes(manifest: Manifest) -> int:
    return sum(length for length, _ in manifest.files.values())
