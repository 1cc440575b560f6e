"""From documents to an index: spill, train, encode, publish; then append, delete, compact.

Documents stream: their tokens go to a draft file as they come, the codec is trained on a sample of it, and segments are
encoded from it a block at a time, so that memory does not grow with the corpus but for 16 bytes a document. The same
documents, configuration and seed give the same bytes. Segments hold documents in ascending order of id.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import DimensionMismatch, InvalidArgument
from codeintel_rev.types import Floats, Ids
from codeintel_rev.xtr.codec import Codec, train_codec
from codeintel_rev.xtr.config import BuildConfig
from codeintel_rev.xtr.metrics import Figure, Observe, ignore, timed
from codeintel_rev.xtr.segments import Spilled, spilled_source, stored_source, write_segments
from codeintel_rev.xtr.storage import (
    MANIFEST,
    Manifest,
    Segment,
    SegmentEntry,
    read_codec,
    read_manifest,
    remove_unreferenced,
    write_codec,
    write_deleted,
    write_manifest,
    writing,
)

Document = tuple[int, Floats]
"""(doc_id, tokens): an int64 and (n_tokens, dim) float32 rows of unit length; n_tokens may be 0."""

TOKENS_PER_CENTROID, FEWEST_CENTROIDS = 64, 64
"""Small corpora are searched without probing, where more centroids would weigh more than they save; with fewer, buckets
do not reach tokens of few dimensions."""
SAMPLE_PER_CENTROID, SAMPLE_ROWS = 32, 1 << 20
MOST_CENTROIDS = 1 << 16
UNIT_TOLERANCE = 0.02
DRAFT = "tokens.draft"


def build_index(config: BuildConfig, docs: Iterable[Document], observe: Observe = ignore) -> Manifest:
    """Make `config.index_dir` an index of `docs` and return what it holds.

    Raises InvalidArgument when an index is already there, when an id stands twice, when a document is longer than
    `max_doclen` or its rows are not finite and of unit length; DimensionMismatch; InsufficientStorage, StorageFailed.
    """
    if (config.index_dir / MANIFEST).exists():
        raise InvalidArgument("the folder already holds an xtr index.", "Append to it, or build into an empty one.")
    with writing(MANIFEST):
        config.index_dir.mkdir(parents=True, exist_ok=True)
    empty = Manifest(
        config.layout, config.model_id, config.dim, config.quant_bits, config.nlist, config.max_doclen, config.seed,
        change=0, codec=None, segments=(),
    )  # fmt: skip
    return _published(config.index_dir, _added(config.index_dir, empty, docs, observe), observe)


def append(index_dir: Path, docs: Iterable[Document], observe: Observe = ignore) -> Manifest:
    """Add `docs` as new segments; a document whose id is there already replaces it. Raises as `build_index`."""
    return _published(index_dir, _added(index_dir, read_manifest(index_dir), docs, observe), observe)


def delete(index_dir: Path, ids: Ids, observe: Observe = ignore) -> Manifest:
    """Mark the documents `ids` deleted; ids that are not there are left out of account. Raises StorageFailed."""
    manifest = _next(read_manifest(index_dir))
    return _published(index_dir, _without(index_dir, manifest, ids), observe)


def compact(index_dir: Path, observe: Observe = ignore) -> Manifest:
    """Merge all segments, leave the deleted documents out and remove the old files.

    Codes are copied, not encoded again: scores stay the same. Raises IndexCorrupt, InsufficientStorage, StorageFailed.
    """
    manifest = _next(read_manifest(index_dir))
    source = stored_source([Segment(index_dir, entry) for entry in manifest.segments])
    with timed(observe, Figure.BUILD_WRITE_MS):
        written = write_segments(index_dir, manifest, source)
    published = _published(index_dir, replace(manifest, segments=written), observe)
    remove_unreferenced(index_dir, published)
    return published


def _added(index_dir: Path, manifest: Manifest, docs: Iterable[Document], observe: Observe) -> Manifest:
    manifest = _next(manifest)
    with _spilled(index_dir, manifest, docs) as spilled:
        with timed(observe, Figure.BUILD_TRAIN_MS):
            codec, manifest = _codec(index_dir, manifest, spilled)
        with timed(observe, Figure.BUILD_WRITE_MS):
            manifest = _without(index_dir, manifest, spilled.ids)
            added = write_segments(index_dir, manifest, spilled_source(spilled, codec, manifest.layout))
    return replace(manifest, segments=manifest.segments + added)


def _next(manifest: Manifest) -> Manifest:
    return replace(manifest, change=manifest.change + 1)


def _published(index_dir: Path, manifest: Manifest, observe: Observe) -> Manifest:
    write_manifest(index_dir, manifest)
    observe(Figure.INDEX_BYTES, manifest.bytes)
    observe(Figure.DOC_COUNT, manifest.documents)
    observe(Figure.AVG_DOCLEN, manifest.tokens / max(1, sum(segment.documents for segment in manifest.segments)))
    observe(Figure.SHARDS, len(manifest.segments))
    return manifest


@contextmanager
def _spilled(index_dir: Path, manifest: Manifest, docs: Iterable[Document]) -> Iterator[Spilled]:
    """Write the tokens of `docs` to a draft file as they come and hold it while they are read."""
    path = index_dir / DRAFT
    ids, ends = array("q"), array("q", [0])
    try:
        with writing(DRAFT), path.open("wb") as file:
            for doc_id, tokens in docs:
                file.write(_checked(doc_id, tokens, manifest).tobytes())
                ids.append(doc_id)
                ends.append(ends[-1] + len(tokens))
        shape = (ends[-1], manifest.dim)
        mapped = np.memmap(path, np.float16, "r", shape=shape) if ends[-1] else np.empty(shape, np.float16)
        yield Spilled(_distinct(np.array(ids, np.int64)), np.array(ends, np.int64), mapped)
    finally:
        path.unlink(missing_ok=True)


def _checked(doc_id: int, tokens: Floats, manifest: Manifest) -> NDArray[np.float16]:
    if tokens.ndim != 2 or tokens.shape[1] != manifest.dim:
        found = "x".join(map(str, tokens.shape))
        raise DimensionMismatch(f"Dimension mismatch: index={manifest.dim}, tokens of document {doc_id}={found}.")
    if len(tokens) > manifest.max_doclen:
        raise InvalidArgument(
            f"document {doc_id} has {len(tokens)} tokens, max_doclen is {manifest.max_doclen}.", "Split it."
        )
    squares = np.einsum("ij,ij->i", tokens, tokens)
    if not np.all(np.abs(squares - 1) <= UNIT_TOLERANCE):
        raise InvalidArgument(f"document {doc_id} has a token vector that is not of unit length.")
    return tokens.astype(np.float16)


def _distinct(ids: Ids) -> Ids:
    ordered = np.sort(ids)
    if np.any(ordered[1:] == ordered[:-1]):
        raise InvalidArgument("a document id stands twice.")
    return ids


def _codec(index_dir: Path, manifest: Manifest, spilled: Spilled) -> tuple[Codec | None, Manifest]:
    """Return the index's codec, trained on `spilled` when this is the first time that there are tokens."""
    if manifest.layout == "flat" or manifest.codec or not len(spilled.tokens):
        return read_codec(index_dir, manifest), manifest
    count = centroid_count(len(spilled.tokens), manifest.nlist)
    rows = min(len(spilled.tokens), SAMPLE_PER_CENTROID * count, SAMPLE_ROWS)
    chosen = np.random.default_rng(manifest.seed).choice(len(spilled.tokens), rows, replace=False)
    codec = train_codec(spilled.tokens[np.sort(chosen)], manifest.quant_bits, count, manifest.seed)
    return codec, replace(manifest, codec=write_codec(index_dir, codec))


def centroid_count(tokens: int, nlist: int = 0) -> int:
    """Return how many centroids an index of `tokens` tokens gets when `nlist` are asked for, 0: as many as suit it."""
    most = max(FEWEST_CENTROIDS, tokens / TOKENS_PER_CENTROID)
    wanted = nlist or 1 << int(np.log2(min(16 * np.sqrt(tokens), most)))
    return min(wanted, tokens, MOST_CENTROIDS)


def _without(index_dir: Path, manifest: Manifest, ids: Ids) -> Manifest:
    """Return `manifest` with the documents `ids` deleted."""
    return replace(
        manifest, segments=tuple(_masked(index_dir, entry, manifest.change, ids) for entry in manifest.segments)
    )


def _masked(index_dir: Path, entry: SegmentEntry, change: int, ids: Ids) -> SegmentEntry:
    segment = Segment(index_dir, entry)
    places, present = segment.find(ids)
    if not present.any():
        return entry
    live = segment.live.copy()
    live[places[present]] = False
    deleted = write_deleted(index_dir, entry.name, change, live)
    return replace(entry, deleted=deleted, deleted_documents=int(len(live) - live.sum()))
