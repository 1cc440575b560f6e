"""Exact MaxSim of given documents, from the tokens as they are stored: decode, multiply, take the maxima.

With VNNI that is one loop over eight tokens at a time; without, and in layout flat, tiles of a few thousand tokens keep
decoded rows and products in the second-level cache. In layout warp both sides are int8: the document's rows are exactly
what the codec stored, the query's are rounded to 1/127 of their largest component (an error of 0.008 of a token's
length, a tenth of what 4-bit residuals leave).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import DimensionMismatch, InvalidArgument
from codeintel_rev.types import Floats
from codeintel_rev.xtr.codec import Codec
from codeintel_rev.xtr.dots import SIGN, Bytes, Packed, Rows, float_dots, has_int8, pack
from codeintel_rev.xtr.kernels import best_sums, decode, decoded_sums
from codeintel_rev.xtr.storage import Segment

TILE_TOKENS = 4096
ONE = np.ones(1, np.float32)


@dataclass(frozen=True, slots=True)
class Query:
    """`tokens` (n, dim) float32, n >= 1; token q is about `weights[q]` · `rows[q]`, int8 and `width` wide; `packed` are
    the rows for VNNI, None where there is none."""

    tokens: Floats
    rows: Bytes
    packed: Packed | None
    weights: Floats


def query_of(tokens: Floats, dim: int, width: int) -> Query:
    """Return `tokens` (n, dim) made ready. Raises DimensionMismatch, InvalidArgument when empty or not finite."""
    if tokens.ndim != 2 or tokens.shape[1] != dim:
        raise DimensionMismatch(f"Dimension mismatch: index={dim}, query={'x'.join(map(str, tokens.shape))}.")
    if not len(tokens) or not np.isfinite(tokens).all():
        raise InvalidArgument("the query has no token vector, or one that is not finite.")
    weights = np.maximum(np.abs(tokens).max(axis=1), 1e-9).astype(np.float32) / np.float32(127)
    rows = np.zeros((len(tokens), width), np.int8)
    rows[:, :dim] = np.rint(tokens / weights[:, None])
    return Query(np.ascontiguousarray(tokens, np.float32), rows, pack(rows) if has_int8() else None, weights)


def maxsim(segment: Segment, codec: Codec | None, query: Query, documents: NDArray[np.int64]) -> Floats:
    """Return the score of each of `documents` (numbers in `segment`); 0 for one without tokens."""
    starts, ends = segment.offsets[documents], segment.offsets[documents + 1]
    scores = np.zeros(len(documents), np.float32)
    if not segment.entry.tokens:
        return scores
    if codec and query.packed:
        return _vnni_maxsim(segment, codec, query.packed, query.weights, (starts, ends))
    for tile in _tiles(ends - starts):
        low, high = starts[tile], ends[tile]
        of_tile = (
            _codes_maxsim(segment, codec, query, low, high) if codec else _halves_maxsim(segment, query, low, high)
        )
        scores[tile] = of_tile
    return scores


def decoded(segment: Segment, codec: Codec | None, dim: int, document: int) -> Floats:
    """Return the tokens (n, dim) of `document` (its number in `segment`) as they are stored."""
    low, high = int(segment.offsets[document]), int(segment.offsets[document + 1])
    if low == high:
        return np.empty((0, dim), np.float32)
    if codec is None:
        tokens: Floats = segment.arrays["tokens"][low:high].astype(np.float32)
        return tokens
    rows = _decoded_rows(segment, codec, np.array([low]), np.array([high]))
    return rows[:, : codec.dim] * codec.scales[segment.arrays["lengths"][low:high], None]


def _tiles(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Yield consecutive documents whose tokens, but for those of the last, fit in a tile."""
    tile_of = (np.cumsum(counts) - counts) // TILE_TOKENS
    edges = [0, *(np.flatnonzero(np.diff(tile_of)) + 1).tolist(), len(counts)]
    yield from (slice(low, high) for low, high in pairwise(edges) if high > low)


def _vnni_maxsim(segment: Segment, codec: Codec, query: Packed, weights: Floats, span: tuple[Rows, Rows]) -> Floats:
    scores = np.empty(len(span[0]), np.float32)
    arrays = segment.arrays
    decoded_sums(
        arrays["residuals"],
        arrays["cells"],
        arrays["lengths"],
        codec.centroids.fine.view(np.uint64),
        codec.scales,
        *span,
        np.uint16(codec.step),
        codec.bits,
        query.lanes,
        query.starts,
        weights,
        scores,
    )
    return scores


def _codes_maxsim(segment: Segment, codec: Codec, query: Query, starts: Rows, ends: Rows) -> Floats:
    scores = np.empty(len(starts), np.float32)
    dots = float_dots(_decoded_rows(segment, codec, starts, ends), query.rows)
    best_sums(dots, segment.arrays["lengths"], codec.scales, starts, ends, query.weights, scores)
    return scores


def _decoded_rows(segment: Segment, codec: Codec, starts: Rows, ends: Rows) -> Bytes:
    raised = np.empty((int((ends - starts).sum()), codec.width // 8), np.uint64)
    corners = codec.centroids.fine.view(np.uint64)
    residuals, cells = segment.arrays["residuals"], segment.arrays["cells"]
    decode(residuals, cells, corners, starts, ends, np.uint16(codec.step), codec.bits, raised)
    rows: Bytes = (raised ^ SIGN).view(np.int8)
    return rows


def _halves_maxsim(segment: Segment, query: Query, starts: Rows, ends: Rows) -> Floats:
    scores = np.empty(len(starts), np.float32)
    tokens = segment.arrays["tokens"]
    gathered = np.concatenate([tokens[low:high] for low, high in zip(starts, ends, strict=True)])
    dots = gathered.astype(np.float32) @ query.tokens.T
    stops = np.cumsum(ends - starts)
    ones = np.ones(len(query.tokens), np.float32)
    best_sums(dots, np.zeros(len(dots), np.uint8), ONE, stops - (ends - starts), stops, ones, scores)
    return scores
