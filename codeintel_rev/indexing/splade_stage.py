"""The sparse half of a generation: the impacts its parent has, then those of the chunks that must be encoded.

Generations that follow a complete one share all of its files and add a segment to `splade/`. What was encoded of a
chunk may change under one id, so chunks are told apart by their texts' hashes too, as token vectors are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.sparse import SparseEncoder, open_sparse_encoder
from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.indexing.progress import Stopwatch
from codeintel_rev.indexing.token_stage import MOST_DELETED, MOST_SEGMENTS, texts_of
from codeintel_rev.io.drafts import Draft
from codeintel_rev.io.duckdb_catalog import Catalog, read_chunks
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.impacts import (
    CONTENTS,
    SPLADE,
    ImpactIndex,
    Impacts,
    Segment,
    impact_directory,
    write_contents,
    write_live,
    write_merged,
    write_segment,
)
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.types import Ids

AT_ONCE = 256


def held_impacts(generation: Path) -> ImpactIndex | None:
    """Return the index of the generation at `generation`; None when there is none to go on from."""
    directory = impact_directory(generation)
    if not directory.is_dir():
        return None
    try:
        return ImpactIndex.open(directory)
    except (IndexCorrupt, IndexIncompatible):
        return None  # Its chunks are encoded anew.


def impact_counts(manifest: Manifest) -> dict[str, int]:
    """Return what a generation says of the impacts it has; nothing where it has none."""
    return {SPLADE: manifest.counts[SPLADE]} if SPLADE in manifest.counts else {}


def carry_impacts(draft: Draft, index: ImpactIndex) -> dict[str, int]:
    """Leave in `draft`, of other chunks than `index`, the impacts of those that read as they did; return their count.

    REQUIRES: `index.links` are linked, and the chunks of the draft are written.
    """
    wanted = texts_of(read_chunks(draft.path))
    live = wanted[index.holds(wanted)]
    write_live(impact_directory(draft.path), live)
    return {SPLADE: len(live)}


def compact_impacts(draft: Draft, index: ImpactIndex) -> None:
    """Leave in `draft`, of the chunks of `index` and with none of its files, one segment without deleted documents."""
    directory = impact_directory(draft.path)
    name = _next_name(index.segments)
    write_merged(directory, name, index)
    _finish(directory, index.live, index.model, index.vocabulary, [name])


def publish_impacts(
    store: GenerationStore, current: Manifest, settings: Settings, watch: Stopwatch
) -> tuple[Manifest, int]:
    """Publish generations that follow `current` until one has the impacts of every chunk.

    Return the manifest that is current then, and how many chunks were encoded. Nothing is published where nothing is
    missing. REQUIRES: the builder's lock. Raises SettingsError, EncoderFailed, and what writing raises.
    """
    if not current.counts["chunks"]:
        return current, 0
    encoder = open_sparse_encoder(settings.splade, settings.paths.data_dir / "models")
    index = held_impacts(store.path_of(current.generation))
    if index and index.model != encoder.model_id:
        index = None
    if index and len(index) == current.counts["chunks"] and not _crowded(index):
        return current, 0
    with closing(Catalog.open(store.path_of(current.generation), settings.duckdb)) as catalog:
        job = _Job(store, encoder, catalog, watch, settings.index.publish_every_s)
        while index is None or len(index) < len(job.wanted):
            current, index = job.publish_more(current, index)
    return (_publish_compacted(store, current, index) if _crowded(index) else current), job.encoded


class _Job:
    """One index being brought up to date, from one published part to the next."""

    def __init__(
        self, store: GenerationStore, encoder: SparseEncoder, catalog: Catalog, watch: Stopwatch, publish_every_s: float
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._catalog = catalog
        self._watch = watch
        self._publish_every_s = publish_every_s
        self.wanted = texts_of(catalog.chunks())
        self.encoded = 0

    def publish_more(self, current: Manifest, index: ImpactIndex | None) -> tuple[Manifest, ImpactIndex]:
        """Publish what follows `current`, whose impacts are `index`, with a segment of chunks that are missing."""
        held = index.holds(self.wanted) if index else np.zeros(len(self.wanted), np.bool_)
        missing, segments = self.wanted[~held], index.segments if index else ()
        with self._store.drafting(current.generation, (*_others(current), *(index.links if index else ()))) as draft:
            made = self._encode(missing, int(held.sum()))
            name, directory = _next_name(segments), impact_directory(draft.path)
            write_segment(directory, name, self._encoder.vocabulary, missing[: len(made)], made)
            live = np.concatenate([self.wanted[held], missing[: len(made)]])
            names = [*(segment.name for segment in segments), name]
            _finish(directory, live[np.argsort(live[:, 0])], self._encoder.model_id, self._encoder.vocabulary, names)
            described = replace(current, counts=current.counts | {SPLADE: len(live)})
            current = self._store.publish_like(draft, described)
        return current, ImpactIndex.open(impact_directory(self._store.path_of(current.generation)))

    def _encode(self, missing: Ids, done: int) -> list[Impacts]:
        """Return the impacts of the first of the chunks `missing`: of those that were encoded in the time there is."""
        started, total, made = time.monotonic(), len(self.wanted), list[Impacts]()
        self._watch.tell(SPLADE, done, total)
        for at in range(0, len(missing), AT_ONCE):
            chunks, _ = self._catalog.hydrate(missing[at : at + AT_ONCE, 0])
            made.extend(self._encoder.encode_documents([embedding_text(chunk) for chunk in chunks]))
            self._watch.tell(SPLADE, done + len(made), total)
            if time.monotonic() - started >= self._publish_every_s:
                break
        self.encoded += len(made)
        return made


def _publish_compacted(store: GenerationStore, current: Manifest, index: ImpactIndex) -> Manifest:
    with store.drafting(current.generation, _others(current)) as draft:
        compact_impacts(draft, index)
        return store.publish_like(draft, current)


def _others(current: Manifest) -> tuple[str, ...]:
    """Return the names to link of all that is not impacts."""
    return tuple(sorted({path.partition("/")[0] for path in current.files} - {SPLADE}))


def _next_name(segments: Sequence[Segment]) -> str:
    return str(1 + max((int(segment.name) for segment in segments), default=0))


def _crowded(index: ImpactIndex) -> bool:
    deleted = index.deleted
    return len(index.segments) > MOST_SEGMENTS or deleted > MOST_DELETED * (len(index) + deleted)


def _finish(directory: Path, live: Ids, model: str, vocabulary: int, names: Sequence[str]) -> None:
    """Write what stands beside the segments, in the place of a linked file where there is one."""
    DISK.unlink(directory / CONTENTS)
    write_live(directory, live)
    write_contents(directory, model, vocabulary, names)
