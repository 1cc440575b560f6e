"""How a token vector becomes 64 bytes and comes back: centroid, residual of 4 or 2 bits a dimension, length.

ColBERTv2 (Santhanam et al. 2022, §3.3) keeps the centroid nearest to a token and puts each dimension of the residual in
a bucket. Here the buckets are equally wide, a whole number of the steps of an int8 row:

    token ≈ scales[length] · (corner[cell] + step · bucket)          component by component, bucket in 0 … 2**bits - 1

where `corner` (int8) is the centroid moved to the lowest bucket. The residual is taken from that rounded corner, so
that rounding costs nothing; decoding is a shift, a mask, a multiplication and an addition of whole words (no carry
passes between bytes), and what comes out is the int8 row that `dots` multiplies. Quantile buckets, the paper's, take a
look-up per component and leave more error. `scales` gives each token its length back, to 1/256 of the range seen in
training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.types import Floats
from codeintel_rev.xtr.centroids import Centroids, half_squares, train
from codeintel_rev.xtr.compiled import compiled
from codeintel_rev.xtr.dots import Bytes, UBytes

Vectors = NDArray[np.float16] | NDArray[np.float32]

BEST_WIDTH = {2: 0.996, 4: 0.335}
"""Bucket width that leaves the least error, in standard deviations of a Gaussian (Max 1960, table II)."""
LOW_BITS = {2: np.uint64(0x0303030303030303), 4: np.uint64(0x0F0F0F0F0F0F0F0F)}
PEAK_QUANTILE = 0.999
"""Components beyond the peak of all but a thousandth of the tokens saturate: one outlier must not coarsen all."""
BLOCK_ROWS = CALIBRATION_ROWS = 65_536
NO_SCALES = np.ones(256, np.float32)


@dataclass(frozen=True, slots=True)
class Codec:
    """Trained on a sample; the same for all segments of an index. `scales` is (256,).

    The rows of `centroids.fine` are the corners, (k, width) with `width` as `dim` rounded up to whole 64-bit words of
    residual; the components added are zero in every query. A product with a corner is that with its centroid less one
    number per query token: their order is the same. `centroids.halves` are of the centroids themselves.
    """

    dim: int
    bits: int
    unit: float
    step: int
    centroids: Centroids
    scales: Floats

    @property
    def width(self) -> int:
        return int(self.centroids.fine.shape[1])

    @property
    def middle(self) -> float:
        """How far a centroid lies from its corner in every component, in units."""
        return ((1 << self.bits) - 1) / 2 * self.step

    def encode(self, tokens: Floats) -> tuple[NDArray[np.uint16], UBytes, UBytes]:
        """Return cells (n,), lengths (n,) and residuals (n, width · bits / 8) of `tokens` (n, dim)."""
        cells = self.centroids.assign(to_bytes(tokens, self.unit, self.width)).astype(np.uint16)
        residuals, squares = _residuals(
            tokens * np.float32(1 / self.unit), cells, self.centroids.fine, self.step, self.bits
        )
        return cells, _nearest_scale(squares, self.scales), residuals

    def with_scales(self, sample: Floats) -> Codec:
        """Return this codec with the lengths of `sample`'s tokens, once encoded, as the range of `scales`."""
        cells = self.centroids.assign(to_bytes(sample, self.unit, self.width)).astype(np.uint16)
        _, squares = _residuals(sample * np.float32(1 / self.unit), cells, self.centroids.fine, self.step, self.bits)
        inverse = _inverse_lengths(squares)
        return replace(self, scales=np.linspace(inverse.min(), inverse.max(), 256, dtype=np.float32))


def width(dim: int, bits: int) -> int:
    return -(-dim * bits // 64) * 64 // bits


def to_bytes(tokens: Vectors, unit: float, columns: int) -> Bytes:
    """Return `tokens` (n, dim) in whole `unit`s, saturated, with zeros added up to `columns`."""
    rows = np.zeros((len(tokens), columns), np.int8)
    for start in range(0, len(tokens), BLOCK_ROWS):
        _to_bytes(tokens[start : start + BLOCK_ROWS].astype(np.float32), np.float32(1 / unit), rows[start:])
    return rows


@compiled
def _to_bytes(tokens: Floats, factor: np.float32, out: Bytes) -> None:
    for i in range(tokens.shape[0]):
        for k in range(tokens.shape[1]):
            value = np.rint(tokens[i, k] * factor)
            out[i, k] = np.int8(min(max(value, np.float32(-127)), np.float32(127)))


def train_codec(sample: Vectors, bits: int, count: int, seed: int) -> Codec:
    """Return the codec with `count` centroids fitted to `sample` (n, dim), n >= count >= 1.

    Buckets reach as far as random unit vectors need, however well the sample fits: others may be encoded later.
    """
    part = sample[:: -(-len(sample) // CALIBRATION_ROWS)].astype(np.float32)
    least_peak, least_spread = min(1.0, 3 / sample.shape[1] ** 0.5), 0.5 / sample.shape[1] ** 0.5
    peak = max(float(np.quantile(np.abs(part).max(axis=1), PEAK_QUANTILE)), least_peak)
    trained = train(to_bytes(sample, peak / 127, width(sample.shape[1], bits)), count, seed)
    nearest = trained.fine[trained.assign(to_bytes(part, peak / 127, trained.fine.shape[1]))]
    spread = max(float((part - nearest[:, : part.shape[1]] * np.float32(peak / 127)).std()), least_spread)
    unit, step = _unit_and_step(peak, BEST_WIDTH[bits] * spread, (1 << bits) - 1)
    codec = Codec(sample.shape[1], bits, unit, step, _at_corners(trained, peak / 127 / unit, step, bits), NO_SCALES)
    return codec.with_scales(part)


def _unit_and_step(peak: float, bucket: float, top: int) -> tuple[float, int]:
    """Return the finest unit in which a bucket is a whole number of units and `peak` beside `top` buckets fits int8."""
    least = (peak + top / 2 * bucket) / 127
    step = max(1, int(bucket / least))
    return max(least, bucket / step), step


def _at_corners(trained: Centroids, factor: float, step: int, bits: int) -> Centroids:
    """Return `trained` in units `factor` times as many, its fine centroids moved to their corners."""
    top = (1 << bits) - 1
    fine = np.clip(np.rint(trained.fine * np.float32(factor) - top / 2 * step), -128, 127 - top * step)
    halves = half_squares(fine + np.float32(top / 2 * step))
    coarse = np.rint(trained.coarse * np.float32(factor)).astype(np.int8)
    return Centroids(fine.astype(np.int8), halves, coarse, trained.bounds)


def _inverse_lengths(squares: NDArray[np.int32]) -> Floats:
    return (1 / np.sqrt(np.maximum(squares, 1))).astype(np.float32)


def _nearest_scale(squares: NDArray[np.int32], scales: Floats) -> UBytes:
    range_ = max(float(scales[-1] - scales[0]), 1e-12)
    numbers: UBytes = np.clip(np.rint((_inverse_lengths(squares) - scales[0]) * (255 / range_)), 0, 255).astype(
        np.uint8
    )
    return numbers


@compiled
def _residuals(
    tokens: Floats, cells: NDArray[np.uint16], corners: Bytes, step: int, bits: int
) -> tuple[UBytes, NDArray[np.int32]]:
    """Return the packed buckets of `tokens` (in units) and the squared lengths of what they decode to.

    Byte i of a row holds components i, i + bytes, …: one plane of `bits` for each, so that a shift and a mask of the
    whole row give consecutive components.
    """
    count, dim = tokens.shape
    row_bytes = corners.shape[1] * bits // 8
    residuals = np.zeros((count, row_bytes), np.uint8)
    squares = np.zeros(count, np.int32)
    top = np.float32((1 << bits) - 1)
    for i in range(count):
        for k in range(dim):
            corner = np.float32(corners[cells[i], k])
            bucket = min(max(np.rint((tokens[i, k] - corner) / np.float32(step)), np.float32(0)), top)
            residuals[i, k % row_bytes] |= np.uint8(bucket) << (bits * (k // row_bytes))
            value = np.int32(corner + bucket * step)
            squares[i] += value * value
    return residuals, squares
