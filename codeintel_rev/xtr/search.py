"""Which documents does a query match best? Start reading here.

Up to a few thousand documents all are rescored. Beyond that, each stage sees fewer documents and looks closer:

1. probe       the `nprobe` centroids nearest to each query token; a document's sum over query tokens of its best probed
               centroid, and of the last probed one where it has none (WARP-select and imputation: Scheerer et al. 2025,
               §4.2; Lee et al. 2023, §3.2), keeps `candidates`
2. interact    MaxSim with each token at its centroid (PLAID, Santhanam et al. 2022, §4.2) keeps `rescored`
3. rescore     MaxSim over the decoded tokens (`rescore`) orders the answer

WARP decodes residuals while it probes; here postings hold documents only, so that residuals are stored once, in the
order in which the third stage reads them. The second stage makes up for it. An open index is immutable and safe for
many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import SettingsError
from codeintel_rev.types import Floats, Ids
from codeintel_rev.xtr.codec import Codec
from codeintel_rev.xtr.config import Device, ScoreNorm, SearchConfig
from codeintel_rev.xtr.dots import LANES, Dots, int8_dots
from codeintel_rev.xtr.kernels import best_cells, interact, levels, probe
from codeintel_rev.xtr.metrics import Figure, Observe, ignore, timed
from codeintel_rev.xtr.rescore import Query, decoded, maxsim, query_of
from codeintel_rev.xtr.storage import Manifest, Segment, read_codec, read_manifest

Places = NDArray[np.int64]
"""Numbers of documents counted over all segments."""

Score = Callable[[Segment, Query, Places], Floats]
"""From documents, by their numbers in a segment, to their MaxSim with a query."""


@dataclass(frozen=True, slots=True)
class Scores:
    """`doc_ids` (n,) and `scores` (n,), best first, equal ones by ascending id; `missing` of the ids asked for are not
    there."""

    doc_ids: Ids
    scores: Floats
    missing: int = 0


class XTRSearch:
    """An open index."""

    def __init__(
        self,
        config: SearchConfig,
        manifest: Manifest,
        segments: tuple[Segment, ...],
        codec: Codec | None,
        observe: Observe,
    ) -> None:
        """Raises SettingsError when `config.device` is not there."""
        self.manifest = manifest
        self.segments = segments
        self.codec = codec
        self._config = config
        self._observe = observe
        self._maxsim = _maxsim(config.device, segments, codec)
        self._starts = np.cumsum([0, *(segment.entry.documents for segment in segments)])

    @classmethod
    def open(cls, config: SearchConfig, observe: Observe = ignore) -> XTRSearch:
        """Map the index at `config.index_dir`; sizes are checked, contents are not (`validate.audit` does).

        Raises IndexCorrupt, IndexIncompatible; SettingsError when `device` is not there.
        """
        manifest = read_manifest(config.index_dir)
        segments = tuple(Segment(config.index_dir, entry) for entry in manifest.segments)
        return cls(config, manifest, segments, read_codec(config.index_dir, manifest), observe)

    def __len__(self) -> int:
        return self.manifest.documents

    def warm(self) -> None:
        """Load the compiled loops of every stage, or compile them where no process has yet, before a request has to."""
        query = np.ones((1, self.manifest.dim), np.float32)
        if self.segments:
            self.rescore(query, self.segments[0].doc_ids[:1])
        if self.segments and self.codec:
            self._promising(self.ready(query), self.codec, self._masks(None), 1)

    def search(self, query: Floats, k: int | None = None, allowed: Ids | None = None) -> Scores:
        """Return the `k` (default `top_k`) best documents for `query` (n, dim), among `allowed` ids when given.

        Documents without tokens are never found. Raises DimensionMismatch, InvalidArgument.
        """
        ready = self.ready(query)
        wanted = self._config.top_k if k is None else k
        places = self._narrowed(ready, self._masks(allowed), max(wanted, self._config.rescored))
        with timed(self._observe, Figure.RESCORE_MS):
            scores = self._by_segment(places, lambda segment, documents: self._maxsim(segment, ready, documents))
        return self._best(self._ids(places), scores, wanted)

    def rescore(self, query: Floats, ids: Ids) -> Scores:
        """Return all of `ids` that are here with their exact scores; one without tokens scores 0.

        Raises DimensionMismatch, InvalidArgument.
        """
        ready = self.ready(query)
        with timed(self._observe, Figure.RESCORE_MS):
            distinct = np.unique(ids)
            places = self._places(distinct)
            present = places[places >= 0]
            scores = self._by_segment(present, lambda segment, documents: self._maxsim(segment, ready, documents))
        found = distinct[places >= 0]
        return self._best(found, scores, len(found), missing=len(distinct) - len(found))

    def tokens(self, doc_id: int) -> Floats | None:
        """Return the tokens (n, dim) of a document as they are stored; None when it is not here."""
        place = int(self._places(np.array([doc_id], np.int64))[0])
        if place < 0:
            return None
        owner = int(np.searchsorted(self._starts, place, "right")) - 1
        return decoded(self.segments[owner], self.codec, self.manifest.dim, place - int(self._starts[owner]))

    def ready(self, query: Floats) -> Query:
        """Return `query` checked. Raises DimensionMismatch, InvalidArgument."""
        return query_of(query, self.manifest.dim, self.codec.width if self.codec else self.manifest.dim)

    def _places(self, ids: Ids) -> Places:
        """Return where each of `ids` stands; -1 where it does not."""
        places = np.full(len(ids), -1, np.int64)
        for segment, start in zip(self.segments, self._starts, strict=False):
            at, present = segment.find(ids)
            places[present] = at[present] + start
        return places

    def _masks(self, allowed: Ids | None) -> list[NDArray[np.bool_]]:
        """Return which documents of each segment may be found."""
        if allowed is None:
            return [segment.searchable for segment in self.segments]
        return [_mask(segment, allowed) for segment in self.segments]

    def _narrowed(self, query: Query, masks: list[NDArray[np.bool_]], keep: int) -> Places:
        """Return the documents worth rescoring: all of them when they are few, else about the `keep` most promising."""
        if self.codec is None or sum(int(mask.sum()) for mask in masks) <= self._config.brute_force:
            return np.flatnonzero(np.concatenate([np.empty(0, np.bool_), *masks]))
        return self._promising(query, self.codec, masks, keep)

    def _promising(self, query: Query, codec: Codec, masks: list[NDArray[np.bool_]], keep: int) -> Places:
        with timed(self._observe, Figure.SEARCH_IVF_MS):
            dots = int8_dots(codec.centroids.fine, query.rows)
            cells = _nearest_cells(dots, query.weights, self._config.nprobe)
            places, totals = self._probed(cells, masks)
            places = _top(places, totals, max(keep, self._config.candidates))
        with timed(self._observe, Figure.SEARCH_REDUCE_MS):
            table = level_table(dots, cells)
            sums = self._by_segment(places, lambda segment, documents: interaction(segment, table, documents))
        return _top(places, sums, keep)

    def _probed(self, cells: _Cells, masks: list[NDArray[np.bool_]]) -> tuple[Places, Floats]:
        """Return the documents with a token in one of `cells`, and their sums."""
        found = [_probe_segment(segment, cells, mask) for segment, mask in zip(self.segments, masks, strict=True)]
        places = [documents + start for (documents, _), start in zip(found, self._starts, strict=False)]
        return np.concatenate(places), np.concatenate([totals for _, totals in found])

    def _by_segment(self, places: Places, score: Callable[[Segment, Places], Floats]) -> Floats:
        """Return the score of each of `places`, each segment asked once for its own."""
        scores = np.zeros(len(places), np.float32)
        for segment, start, mine in self._owned(places):
            scores[mine] = score(segment, places[mine] - start)
        return scores

    def _ids(self, places: Places) -> Ids:
        ids = np.empty(len(places), np.int64)
        for segment, start, mine in self._owned(places):
            ids[mine] = segment.doc_ids[places[mine] - start]
        return ids

    def _owned(self, places: Places) -> Iterator[tuple[Segment, int, NDArray[np.bool_]]]:
        """Yield the segments that hold any of `places`, their first place, and which of `places` they hold."""
        owners = np.searchsorted(self._starts, places, "right") - 1
        for number, segment in enumerate(self.segments):
            mine = owners == number
            if mine.any():
                yield segment, int(self._starts[number]), mine

    def _best(self, ids: Ids, scores: Floats, k: int, missing: int = 0) -> Scores:
        order = np.lexsort((ids, -scores))[:k]
        return Scores(ids[order], normalised(scores[order], self._config.score_norm), missing)


def _maxsim(device: Device, segments: Sequence[Segment], codec: Codec | None) -> Score:
    if device == "cpu":
        return lambda segment, query, documents: maxsim(segment, codec, query, documents)
    try:
        module = import_module("codeintel_rev.xtr.cuda")
    except ImportError as error:
        raise SettingsError(f"xtr device is {device}, torch is not installed.", "Set device to cpu.") from error
    score: Score = module.DeviceTokens(segments, codec, device).maxsim
    return score


@dataclass(frozen=True, slots=True)
class _Cells:
    """The cells nearest to each query token, best first, (queries, nprobe), and their `scores`, products · weights."""

    numbers: NDArray[np.int32]
    products: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Levels:
    """How near each centroid is to each query token, in 256 levels: `table` (blocks, cells, 32), block after block of
    32 query tokens; a level of token q is worth `weights[q]`."""

    table: NDArray[np.uint8]
    weights: Floats


def _mask(segment: Segment, allowed: Ids) -> NDArray[np.bool_]:
    mask = np.zeros(segment.entry.documents, np.bool_)
    at, present = segment.find(allowed)
    mask[at[present]] = True
    return mask & segment.searchable


def _nearest_cells(dots: Dots, weights: Floats, nprobe: int) -> _Cells:
    numbers = np.zeros((dots.shape[1], min(nprobe, len(dots))), np.int32)
    products = np.empty(numbers.shape, np.float32)
    best_cells(dots, numbers, products)
    return _Cells(numbers, products, products * weights[:, None])


def _probe_segment(segment: Segment, cells: _Cells, mask: NDArray[np.bool_]) -> tuple[Places, Floats]:
    documents = segment.entry.documents
    totals, found = np.empty(documents, np.float32), np.empty(documents, np.int32)
    if not segment.entry.tokens:
        return np.empty(0, np.int64), totals[:0]
    arrays = segment.arrays
    stamps = np.zeros(documents, np.int32)
    missing = np.ascontiguousarray(cells.scores[:, -1])
    count = probe(
        cells.numbers, cells.scores, missing, arrays["bounds"], arrays["postings"], mask, stamps, totals, found
    )
    return found[:count].astype(np.int64), totals[found[:count]]


def level_table(dots: Dots, cells: _Cells) -> Levels:
    """Return the products `dots` (cells, queries) coarsened, those below zero at none.

    A row of 32 bytes is one load, and the table fits the second-level cache: 12 times as fast as int32 products.
    """
    highest = np.ascontiguousarray(cells.products[:, 0])
    table = np.zeros((-(-dots.shape[1] // LANES), len(dots), LANES), np.uint8)
    levels(dots, highest, table)
    return Levels(table, np.maximum(cells.scores[:, 0], 0))


def interaction(segment: Segment, levels: Levels, documents: Places) -> Floats:
    """Return MaxSim, but for a constant and a factor, of `documents` with every token at its centroid."""
    sums = np.empty(len(documents), np.float32)
    starts, ends = segment.offsets[documents], segment.offsets[documents + 1]
    interact(levels.table, segment.arrays["cells"], starts, ends, levels.weights, sums)
    return sums


def _top(places: Places, scores: Floats, count: int) -> Places:
    """Return the `count` of `places` with the highest scores, ascending."""
    if len(places) > count:
        places = places[np.argpartition(-scores, count)[:count]]
    return np.sort(places)


def normalised(scores: Floats, norm: ScoreNorm) -> Floats:
    """Return `scores` as they are, from 0 to 1, or with mean 0 and deviation 1; equal scores become 0 under both."""
    if norm == "none" or not len(scores):
        return scores
    origin, width = (scores.min(), np.ptp(scores)) if norm == "minmax" else (scores.mean(), scores.std())
    return np.asarray((scores - origin) / (width if width > 0 else 1), np.float32)
