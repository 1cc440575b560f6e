"""k-means centroids and the two-level search that assigns tokens to them.

Flat search compares a token with all K centroids (16·√tokens of them, ColBERTv2 §3.3). Here centroids lie in √K groups
around coarse centres; a token is compared with the coarse centres, then with the centroids of the nearest groups only.
Training is the same in two levels (k-means of k-means), then Lloyd iterations over all centroids with that search,
which bring the energy left in the residuals back to that of flat k-means. Everything runs on int8 rows (`dots`); all
randomness comes from one seeded generator, so that the same rows and seed give the same centroids.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.types import Floats
from codeintel_rev.xtr.compiled import compiled
from codeintel_rev.xtr.dots import Bytes, Cells, Dots, Packed, Rows, float_dots, has_int8, int8_dots, pack, vnni_nearest

BLOCK_ROWS = 65_536
GROUPS_SEARCHED = 10
COARSE_ROUNDS, FINE_ROUNDS, JOINT_ROUNDS = 6, 4, 4
ROWS_PER_CENTRE = 200


@dataclass(frozen=True, slots=True)
class Centroids:
    """`fine` (k, dim) int8 rows in order of their group; group g is rows `bounds[g]:bounds[g + 1]` around `coarse[g]`.

    `halves` are half the squared lengths of the centroids: the nearest one has the largest product less its half.
    """

    fine: Bytes
    halves: Floats
    coarse: Bytes
    bounds: NDArray[np.int64]

    def assign(self, rows: Bytes) -> Cells:
        """Return the number of the nearest centroid of each of `rows` (n, dim), among those of the nearest groups."""
        cells = np.empty(len(rows), np.int32)
        groups = [_group(self.fine[low:high], self.halves[low:high]) for low, high in pairwise(self.bounds)]
        for start in range(0, len(rows), BLOCK_ROWS):
            cells[start : start + BLOCK_ROWS] = self._assign_block(rows[start : start + BLOCK_ROWS], groups)
        return cells

    def _assign_block(self, rows: Bytes, groups: list[_Group]) -> Cells:
        searched = min(GROUPS_SEARCHED, len(self.coarse))
        members, starts = _rows_by_group(int8_dots(rows, self.coarse), half_squares(self.coarse), searched)
        best = np.full(len(rows), -np.inf, np.float32)
        cells = np.zeros(len(rows), np.int32)
        for group, low, start, end in zip(groups, self.bounds, starts, starts[1:], strict=False):
            group.improve(rows, members[start:end], int(low), best, cells)
        return cells


@dataclass(frozen=True, slots=True)
class _Group:
    """Some centroids, `halves` half their squared lengths; `packed` for VNNI, None where there is none."""

    centres: Bytes
    halves: Floats
    packed: Packed | None

    def improve(self, rows: Bytes, members: Rows, base: int, best: Floats, cells: Cells) -> None:
        """Make `cells[i]` base + the number of the centre nearest to `rows[i]`, i in `members`, where it beats
        `best[i]`."""
        if not len(members) or not len(self.centres):
            return
        if self.packed:
            lanes, starts = self.packed.lanes, self.packed.starts
            vnni_nearest(rows.view(np.uint64), members, lanes, starts, self.halves, base, best, cells)
        else:
            _keep_best(float_dots(rows[members], self.centres), self.halves, members, base, best, cells)


def _group(centres: Bytes, halves: Floats) -> _Group:
    if not has_int8():
        return _Group(centres, halves, None)
    packed = pack(centres)
    padded = np.full(packed.starts.shape, np.inf, np.float32)
    padded.ravel()[: len(halves)] = halves
    return _Group(centres, padded, packed)


def nearest(rows: Bytes, centres: Bytes) -> Cells:
    """Return the number of the nearest of `centres` (k, dim) for each of `rows` (n, dim): the flat search."""
    cells = np.zeros(len(rows), np.int32)
    best = np.full(len(rows), -np.inf, np.float32)
    group = _group(centres, half_squares(centres))
    step = len(rows) if has_int8() else max(1, (1 << 24) // len(centres))
    for start in range(0, len(rows), max(1, step)):
        group.improve(rows, np.arange(start, min(start + step, len(rows))), 0, best, cells)
    return cells


def train(rows: Bytes, count: int, seed: int) -> Centroids:
    """Return `count` centroids of `rows` (n, dim), n >= count >= 1."""
    random = np.random.default_rng(seed)
    groups = 1 << int(np.ceil(np.log2(np.sqrt(count))))
    sample = rows[np.sort(random.choice(len(rows), min(len(rows), groups * ROWS_PER_CENTRE), replace=False))]
    coarse = _lloyd(sample, groups, COARSE_ROUNDS, random)
    centroids = _grouped(_fine(rows, coarse, count, random), coarse)
    for _ in range(JOINT_ROUNDS):
        means = _means(rows, centroids.assign(rows), centroids.fine, random)
        centroids = _grouped(means, _means(means, nearest(means, coarse), coarse, random))
    return centroids


def _fine(rows: Bytes, coarse: Bytes, count: int, random: np.random.Generator) -> Bytes:
    """Return `count` centroids, shared out among the coarse centres by how many of `rows` are nearest to each."""
    group_of = nearest(rows, coarse)
    sizes = np.bincount(group_of, minlength=len(coarse))
    shares = _shares(sizes, count)
    order = np.split(np.argsort(group_of, kind="stable"), np.cumsum(sizes)[:-1])
    return np.concatenate(
        [
            _lloyd(rows[members], share, FINE_ROUNDS, random)
            for members, share in zip(order, shares, strict=True)
            if share
        ]
    )


def _shares(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` split in proportion to `sizes`, no share above its size; the largest remainders are rounded up."""
    exact = sizes * (count / sizes.sum())
    shares = np.minimum(np.floor(exact).astype(np.int64), sizes)
    while missing := count - int(shares.sum()):
        wanting = np.argsort(shares - exact, kind="stable")
        shares[wanting[shares[wanting] < sizes[wanting]][:missing]] += 1
    return np.asarray(shares, np.int64)


def _lloyd(rows: Bytes, count: int, rounds: int, random: np.random.Generator) -> Bytes:
    centres = rows[np.sort(random.choice(len(rows), count, replace=len(rows) < count))]
    for _ in range(rounds):
        centres = _means(rows, nearest(rows, centres), centres, random)
    return centres


def _means(rows: Bytes, cells: Cells, centres: Bytes, random: np.random.Generator) -> Bytes:
    """Return the mean of each cell's rows; an empty cell starts again at a random row."""
    sums, sizes = _sums(rows, cells, len(centres))
    means: Bytes = np.rint(sums / np.maximum(sizes, 1)[:, None]).astype(np.int8)
    empty = np.flatnonzero(sizes == 0)
    means[empty] = rows[random.choice(len(rows), len(empty))]
    return means


def _grouped(fine: Bytes, coarse: Bytes) -> Centroids:
    group_of = nearest(fine, coarse)
    bounds = np.searchsorted(np.sort(group_of), np.arange(len(coarse) + 1)).astype(np.int64)
    fine = fine[np.argsort(group_of, kind="stable")]
    return Centroids(fine, half_squares(fine), coarse, bounds)


def half_squares(centres: Bytes | Floats) -> Floats:
    wide = centres.astype(np.float32)
    halves: Floats = np.float32(0.5) * np.einsum("ij,ij->i", wide, wide)
    return halves


@compiled
def _rows_by_group(dots: Dots, half: Floats, searched: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row numbers by group, each row in its `searched` nearest groups, and where each group's rows start."""
    count, groups = dots.shape
    chosen = np.empty((count, searched), np.int32)
    starts = np.zeros(groups + 1, np.int64)
    scores = np.empty(searched, np.float32)
    for row in range(count):
        scores[:] = -np.inf
        for group in range(groups):
            score = np.float32(dots[row, group]) - half[group]
            if score > scores[-1]:
                at = searched - 1
                while at > 0 and scores[at - 1] < score:
                    scores[at], chosen[row, at] = scores[at - 1], chosen[row, at - 1]
                    at -= 1
                scores[at], chosen[row, at] = score, group
        for group in chosen[row]:
            starts[group + 1] += 1
    starts = np.cumsum(starts)
    members = np.empty(count * searched, np.int64)
    end = starts[:-1].copy()
    for row in range(count):
        for group in chosen[row]:
            members[end[group]] = row
            end[group] += 1
    return members, starts


@compiled
def _keep_best(  # noqa: PLR0917 (numba calls by position)
    dots: Dots, half: Floats, rows: NDArray[np.int64], base: int, best: Floats, cells: Cells
) -> None:
    """Make `cells[rows[i]]` the centroid nearest to row i of `dots`, counted from `base`, where it beats `best`."""
    for i in range(len(rows)):
        high, at = np.float32(-np.inf), 0
        for j in range(dots.shape[1]):
            score = np.float32(dots[i, j]) - half[j]
            if score > high:
                high, at = score, j
        if high > best[rows[i]]:
            best[rows[i]] = high
            cells[rows[i]] = base + at


@compiled
def _sums(rows: Bytes, cells: Cells, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    sums = np.zeros((count, rows.shape[1]), np.int32)
    sizes = np.zeros(count, np.int64)
    for i in range(len(rows)):
        sizes[cells[i]] += 1
        for k in range(rows.shape[1]):
            sums[cells[i], k] += rows[i, k]
    return sums, sizes
