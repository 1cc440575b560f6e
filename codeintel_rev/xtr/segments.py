"""How documents become segments: where their rows come from, what is written, in which order.

Rows are encoded or copied a block of documents at a time and written as they come; postings are made from the cells,
two bytes a token, once all are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.types import Ids
from codeintel_rev.xtr.codec import Codec
from codeintel_rev.xtr.config import Layout
from codeintel_rev.xtr.storage import (
    SEGMENT_DOCUMENTS,
    Array,
    ArrayFile,
    File,
    Manifest,
    Segment,
    SegmentEntry,
    sync_folder,
    write_array,
    writing,
)

Fetch = Callable[[NDArray[np.int64]], dict[str, Array]]
"""From places of documents to the rows of their tokens, one document after the other, by file name."""

BLOCK_TOKENS = 65_536
TOKEN_FILES = ("tokens.f16", "cells.u16", "lengths.u8", "residuals.u64")


@dataclass(frozen=True, slots=True)
class Source:
    """Documents to be written: `ids` ascending, the tokens of each in `counts`, and `fetch`, which takes `places`."""

    ids: Ids
    places: NDArray[np.int64]
    counts: NDArray[np.int64]
    fetch: Fetch

    def part(self, part: slice) -> Source:
        return Source(self.ids[part], self.places[part], self.counts[part], self.fetch)


@dataclass(frozen=True, slots=True)
class Spilled:
    """Documents as they came: document i is `tokens[offsets[i]:offsets[i + 1]]`, float16."""

    ids: Ids
    offsets: NDArray[np.int64]
    tokens: NDArray[np.float16]


def spilled_source(spilled: Spilled, codec: Codec | None, layout: Layout) -> Source:
    """Return `spilled` by ascending id; encoded when there is a codec. Layout warp has none while it has no tokens."""

    def fetch(places: NDArray[np.int64]) -> dict[str, Array]:
        rows = spilled.tokens[token_rows(spilled.offsets[places], spilled.offsets[places + 1])]
        if codec is None:
            return {"tokens.f16": rows} if layout == "flat" else {}
        cells, lengths, residuals = codec.encode(rows.astype(np.float32))
        return {"cells.u16": cells, "lengths.u8": lengths, "residuals.u64": residuals.view(np.uint64)}

    order = np.argsort(spilled.ids, kind="stable")
    return Source(spilled.ids[order], order, np.diff(spilled.offsets)[order], fetch)


def stored_source(segments: list[Segment]) -> Source:
    """Return the documents of `segments` that are not deleted, their rows as they are stored, by ascending id."""
    starts = np.cumsum([0, *(segment.entry.documents for segment in segments)])
    arrays = {name: _by_segment(segments, name.partition(".")[0]) for name in TOKEN_FILES}

    def fetch(places: NDArray[np.int64]) -> dict[str, Array]:
        owners = np.searchsorted(starts, places, "right") - 1
        spans = [_span(segments, int(o), int(place - starts[o])) for o, place in zip(owners, places, strict=True)]
        return {name: _rows(of, spans) for name, of in arrays.items() if of}

    ids = _joined([segment.doc_ids for segment in segments])
    counts = _joined([np.diff(segment.offsets) for segment in segments])
    places = np.flatnonzero(_joined([segment.live for segment in segments]))
    places = places[np.argsort(ids[places], kind="stable")]
    return Source(ids[places], places, counts[places], fetch)


def _rows(arrays: dict[int, Array], spans: list[tuple[int, int, int]]) -> Array:
    none = next(iter(arrays.values()))[:0]
    return np.concatenate([none, *(arrays[owner][low:high] for owner, low, high in spans if high > low)])


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _by_segment(segments: list[Segment], stem: str) -> dict[int, Array]:
    """Return the arrays called `stem` by number of segment; one without tokens may have none."""
    return {number: segment.arrays[stem] for number, segment in enumerate(segments) if stem in segment.arrays}


def _span(segments: list[Segment], owner: int, document: int) -> tuple[int, int, int]:
    offsets = segments[owner].offsets
    return owner, int(offsets[document]), int(offsets[document + 1])


def token_rows(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from `starts[i]` to `ends[i]`, for one i after the other."""
    counts = ends - starts
    return np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())


def write_segments(index_dir: Path, manifest: Manifest, source: Source) -> tuple[SegmentEntry, ...]:
    """Write `source` as segments of `manifest`'s change. Raises InsufficientStorage, StorageFailed."""
    starts = range(0, len(source.ids), SEGMENT_DOCUMENTS)
    names = (f"segment-{manifest.change:06}-{number:03}" for number in range(len(starts)))
    return tuple(
        _write_segment(index_dir, name, source.part(slice(start, start + SEGMENT_DOCUMENTS)), manifest)
        for name, start in zip(names, starts, strict=True)
    )


def _write_segment(index_dir: Path, name: str, source: Source, manifest: Manifest) -> SegmentEntry:
    with writing(name):
        (index_dir / name).mkdir()
    offsets = np.concatenate([[0], np.cumsum(source.counts)]).astype(np.int64)
    arrays: dict[str, Array] = {"doc_ids.i64": source.ids, "offsets.i64": offsets}
    rows, cells = _write_rows(index_dir, name, source)
    if manifest.codec:
        arrays["bounds.u32"], arrays["postings.u16"] = postings(cells, source.counts, manifest.codec.cells)
    files = [write_array(index_dir, f"{name}/{file}", array) for file, array in arrays.items()]
    with writing(name):
        sync_folder(index_dir / name)
    return SegmentEntry(name, len(source.ids), int(offsets[-1]), (*files, *rows), None, 0)


def _write_rows(index_dir: Path, name: str, source: Source) -> tuple[list[File], NDArray[np.uint16]]:
    """Write the rows of `source` and return their files and cells."""
    streams: dict[str, ArrayFile] = {}
    cells: list[NDArray[np.uint16]] = [np.empty(0, np.uint16)]
    with ExitStack() as opened:
        for part in _blocks(source.counts):
            for file, rows in source.fetch(source.places[part]).items():
                if file not in streams:
                    streams[file] = ArrayFile(index_dir, f"{name}/{file}", rows.shape[1:])
                    opened.callback(streams[file].close)
                streams[file].append(rows)
                if file == "cells.u16":
                    cells.append(rows)
        return [stream.entry() for stream in streams.values()], np.concatenate(cells)


def _blocks(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Yield consecutive documents of about BLOCK_TOKENS tokens together."""
    block_of = np.cumsum(counts) // BLOCK_TOKENS
    edges = [0, *(np.flatnonzero(np.diff(block_of)) + 1).tolist(), len(counts)]
    yield from (slice(low, high) for low, high in pairwise(edges))


def postings(
    cells: NDArray[np.uint16], counts: NDArray[np.int64], count: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint16]]:
    """Return where each of `count` cells starts in the postings, and the documents of each cell, ascending, once."""
    documents = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    pairs = np.unique((cells.astype(np.uint32) << np.uint32(16)) | documents)
    bounds = np.searchsorted(pairs, np.arange(count + 1, dtype=np.uint64) << np.uint64(16))
    return bounds.astype(np.uint32), (pairs & np.uint32(0xFFFF)).astype(np.uint16)
