"""The impact index of a generation: which terms of a sparse model's vocabulary each chunk is about, and how strongly.

    generations/<ulid>/splade/contents.json        format, model, vocabulary's size, the segments' names
                              live.npy             (m, 2) int64: chunk_id, ascending, and a hash of the text encoded
                              <n>/documents.npy    (d, 2) int64: the same of the segment's documents
                                  starts.npy       (v + 1,) int64: where each term's postings begin
                                  rows.npy         (p,) uint32: documents, ascending for each term
                                  impacts.npy      (p,) uint8

Segments are never changed: a document that is not among the live ones is deleted, one that comes back is not encoded
again. Impacts are integers, so that sums do not depend on their order. Term by term rather than document by document: a
query reads the postings of its own terms only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.token_index import among
from codeintel_rev.types import Floats, Ids

SPLADE, CONTENTS, LIVE = "splade", "contents.json", "live.npy"
FORMAT = 1  # Raise it also when what is encoded of a chunk changes (`embedding_text`).
STEPS = 64
"""Of one unit of weight. log(1 + x) of a term's logit seldom exceeds 3; 255 steps are 3.98."""
REBUILD = "Run `codeintel index`."
_TYPES: dict[str, type[np.generic]] = {
    "documents": np.int64,
    "starts": np.int64,
    "rows": np.uint32,
    "impacts": np.uint8,
}

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Impacts:
    """One text: `terms` (t,) int64, ascending ids of a vocabulary, and `weights` (t,) uint8 above zero."""

    terms: Ids
    weights: NDArray[np.uint8]

    @classmethod
    def of(cls, weights: Floats) -> Self:
        """Return those of `weights` (v,), at least 0, that are not next to nothing."""
        steps = np.minimum(np.rint(weights * STEPS), 255).astype(np.uint8)
        terms = np.flatnonzero(steps)
        return cls(terms, steps[terms])


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Documents that were written together, mapped; `live` (d,) says which of them count."""

    name: str
    documents: Ids
    starts: Ids
    rows: Array
    impacts: Array
    live: NDArray[np.bool_]

    def scores(self, query: Impacts) -> Ids:
        """Return the sum of products (d,) of the query's weights and the impacts of its terms."""
        scores = np.zeros(len(self.documents), np.int64)
        for term, weight in zip(query.terms.tolist(), query.weights.tolist(), strict=True):
            postings = slice(self.starts[term], self.starts[term + 1])
            scores[self.rows[postings]] += self.impacts[postings].astype(np.int64) * weight
        return scores

    def impact(self, term: int, row: int) -> int:
        """Return how strongly the document of `row` is about `term`, 0 for not at all."""
        start, end = self.starts[term], self.starts[term + 1]
        at = start + int(np.searchsorted(self.rows[start:end], row))
        return int(self.impacts[at]) if at < end and self.rows[at] == row else 0


@dataclass(frozen=True, slots=True, eq=False)
class ImpactIndex:
    """The chunks `live` (m, 2) of one generation, in `segments`. Immutable, safe for many threads."""

    model: str
    vocabulary: int
    live: Ids
    segments: tuple[Segment, ...]

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Map what `directory` holds. Raises IndexCorrupt, IndexIncompatible for another format."""
        model, vocabulary, names = _read_contents(directory)
        live = _mapped(directory / LIVE, np.int64)
        index = cls(model, vocabulary, live, tuple(_segment(directory, name, vocabulary, live) for name in names))
        if sum(int(segment.live.sum()) for segment in index.segments) != len(live):
            raise IndexCorrupt(f"{LIVE} names chunks that no segment of {SPLADE} holds, or two hold.", REBUILD)
        return index

    def __len__(self) -> int:
        return len(self.live)

    @property
    def deleted(self) -> int:
        return sum(len(segment.documents) for segment in self.segments) - len(self)

    @property
    def links(self) -> tuple[str, ...]:
        """The names to link, in a generation, for another of other chunks: all but who is live."""
        return (f"{SPLADE}/{CONTENTS}", *(f"{SPLADE}/{segment.name}" for segment in self.segments))

    def holds(self, texts: Ids) -> NDArray[np.bool_]:
        """Return which of `texts` (n, 2), chunk_id and hash, were encoded, live or not: (n,)."""
        found = np.zeros(len(texts), np.bool_)
        for segment in self.segments:
            found |= among(texts, segment.documents)
        return found

    def search(self, query: Impacts, k: int, allowed: Ids | None) -> tuple[Ids, Floats]:
        """Return (chunk_ids, scores) of at most `k` chunks that share a term with `query`, best first, ties by id.

        `allowed` (n,), ascending, restricts them. The score is the dot product of the weights. Raises IndexIncompatible
        for a term beyond the vocabulary.
        """
        if len(query.terms) and query.terms[-1] >= self.vocabulary:
            raise IndexIncompatible(f"term {query.terms[-1]} is none of the {self.vocabulary} indexed.", REBUILD)
        found = [_offered(segment, query, allowed) for segment in self.segments]
        ids = np.concatenate([np.empty(0, np.int64), *(ids for ids, _ in found)])
        scores = np.concatenate([np.empty(0, np.int64), *(scores for _, scores in found)])
        if len(scores) > k:
            best = scores >= np.partition(scores, -k)[-k]
            ids, scores = ids[best], scores[best]
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], (scores[order] / STEPS**2).astype(np.float32)

    def matched(self, query: Impacts, chunk_id: int) -> list[int]:
        """Return the terms of `query` that the chunk has too, what adds most to its score first."""
        for segment in self.segments:
            row = int(np.searchsorted(segment.documents[:, 0], chunk_id))
            if row < len(segment.live) and segment.live[row] and segment.documents[row, 0] == chunk_id:
                return _strongest(segment, query, row)
        return []


def impact_directory(generation_path: Path) -> Path:
    """Return where the index of the generation at `generation_path` lies or would lie."""
    return generation_path / SPLADE


def write_segment(directory: Path, name: str, vocabulary: int, documents: Ids, impacts: Sequence[Impacts]) -> None:
    """Write `documents` (d, 2), chunk_id ascending, with the `impacts` of each, as the new segment `name`."""
    postings = _Postings(
        np.concatenate([np.empty(0, np.int64), *(each.terms for each in impacts)]),
        np.repeat(np.arange(len(impacts)), [len(each.terms) for each in impacts]),
        np.concatenate([np.empty(0, np.uint8), *(each.weights for each in impacts)]),
    )
    _write_segment(directory / name, vocabulary, documents, postings)


def write_merged(directory: Path, name: str, index: ImpactIndex) -> None:
    """Write the live documents of `index` as the one new segment `name`."""
    parts = [_live_postings(segment, index) for segment in index.segments]
    postings = _Postings(
        np.concatenate([np.empty(0, np.int64), *(part.terms for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.rows for part in parts)]),
        np.concatenate([np.empty(0, np.uint8), *(part.impacts for part in parts)]),
    )
    _write_segment(directory / name, index.vocabulary, index.live, postings)


def write_live(directory: Path, live: Ids) -> None:
    _write(directory / LIVE, live)


def write_contents(directory: Path, model: str, vocabulary: int, names: Sequence[str]) -> None:
    fields = {"format": FORMAT, "model": model, "vocabulary": vocabulary, "segments": list(names)}
    DISK.write(directory / CONTENTS, json.dumps(fields, indent=1, sort_keys=True).encode())


@dataclass(frozen=True, slots=True, eq=False)
class _Postings:
    """(p,) each: term, row of the document, impact."""

    terms: Ids
    rows: Ids
    impacts: NDArray[np.uint8]


def _live_postings(segment: Segment, index: ImpactIndex) -> _Postings:
    """Return the postings of the live documents, whose rows are those of `index.live`."""
    kept = segment.live[segment.rows]
    terms = np.repeat(np.arange(index.vocabulary), np.diff(segment.starts))
    places = np.searchsorted(index.live[:, 0], segment.documents[:, 0])
    return _Postings(terms[kept], places[segment.rows[kept]], segment.impacts[kept])


def _write_segment(path: Path, vocabulary: int, documents: Ids, postings: _Postings) -> None:
    order = np.lexsort((postings.rows, postings.terms))
    DISK.make_directory(path)
    _write(path / "documents.npy", documents)
    _write(path / "starts.npy", np.searchsorted(postings.terms[order], np.arange(vocabulary + 1)))
    _write(path / "rows.npy", postings.rows[order].astype(np.uint32))
    _write(path / "impacts.npy", postings.impacts[order])


def _write(path: Path, array: Array) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    DISK.write(path, buffer.getvalue())


def _read_contents(directory: Path) -> tuple[str, int, list[str]]:
    try:
        fields = json.loads((directory / CONTENTS).read_bytes())
        if fields["format"] != FORMAT:
            raise IndexIncompatible(f"{SPLADE} has format {fields['format']}, this version reads {FORMAT}.", REBUILD)
        return str(fields["model"]), int(fields["vocabulary"]), [str(name) for name in fields["segments"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IndexCorrupt(f"{CONTENTS} of {SPLADE} cannot be read.", REBUILD) from error


def _segment(directory: Path, name: str, vocabulary: int, live: Ids) -> Segment:
    columns = {column: _mapped(directory / name / f"{column}.npy", dtype) for column, dtype in _TYPES.items()}
    starts, rows = columns["starts"], columns["rows"]
    if len(starts) != vocabulary + 1 or starts[-1] != len(rows) or len(rows) != len(columns["impacts"]):
        raise IndexCorrupt(f"the arrays of segment {name} of {SPLADE} do not fit together.", REBUILD)
    return Segment(name, **columns, live=among(columns["documents"], live))


def _mapped(path: Path, dtype: type[np.generic]) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise IndexCorrupt(f"{path.name} of {SPLADE} cannot be read.", REBUILD) from error
    if array.dtype != dtype:
        raise IndexCorrupt(f"{path.name} of {SPLADE} holds {array.dtype}, not {np.dtype(dtype)}.", REBUILD)
    return array


def _offered(segment: Segment, query: Impacts, allowed: Ids | None) -> tuple[Ids, Ids]:
    """Return (chunk_ids, scores) of the live and allowed documents that share a term with `query`."""
    scores = segment.scores(query)
    rows = np.flatnonzero((scores > 0) & segment.live)
    ids = segment.documents[rows, 0]
    if allowed is not None:
        kept = np.isin(ids, allowed)
        rows, ids = rows[kept], ids[kept]
    return ids, scores[rows]


def _strongest(segment: Segment, query: Impacts, row: int) -> list[int]:
    parts = [
        (-weight * segment.impact(term, row), term)
        for term, weight in zip(query.terms.tolist(), query.weights.tolist(), strict=True)
    ]
    return [term for part, term in sorted(parts) if part]
