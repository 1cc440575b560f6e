"""Inner products of int8 rows: the one matrix product everything in this package is made of.

VNNI instructions multiply 64 bytes at a time, but numba's loops do not reach them (13 times slower); `tile` names the
one there is for AVX-512. Where the CPU lacks it, the same numbers come from a float32 product, which is exact: |sum| <
2**24 up to 1,040 dimensions. The instruction multiplies bytes without a sign by bytes with one, so that rows are raised
by 128 and sums start at what that adds. Everything runs on the caller's thread; the float32 product on the BLAS's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from codeintel_rev.types import Floats
from codeintel_rev.xtr.compiled import compiled

Bytes = NDArray[np.int8]
UBytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Cells = NDArray[np.int32]
Sums = NDArray[np.int32]
Dots = NDArray[np.float32] | NDArray[np.int32]

ROWS, LANES = 8, 32
"""A tile: 16 sums of 16 numbers and what they are made of fill the 32 registers."""
SIGN = np.uint64(0x8080808080808080)
build: Any = cgutils


@cache
def has_int8() -> bool:
    """Return whether this CPU has the instructions of `tile`."""
    return bool(binding.get_host_cpu_features().get("avx512vnni", False))


@dataclass(frozen=True, slots=True)
class Packed:
    """`count` rows laid out for `tile`, 32 a block: `lanes` (blocks, width / 4, 32, 4), zero where rows are missing;
    `starts` (blocks, 32) int32: their sums times -128."""

    lanes: Bytes
    starts: Sums
    count: int


def pack(rows: Bytes) -> Packed:
    """Return `rows` (n, width) made ready to be the right side of products."""
    count, width = rows.shape
    blocks = -(-count // LANES)
    lanes = np.zeros((blocks, -(-width // 4), LANES, 4), np.int8)
    starts = np.zeros((blocks, LANES), np.int32)
    _pack(rows, lanes, starts)
    return Packed(lanes, starts, count)


@compiled
def _pack(rows: Bytes, lanes: Bytes, starts: Sums) -> None:
    for row in range(len(rows)):
        block, lane = row // LANES, row % LANES
        for k in range(rows.shape[1]):
            lanes[block, k // 4, lane, k % 4] = rows[row, k]
            starts[block, lane] -= np.int32(128) * rows[row, k]


def int8_dots(rows: Bytes, others: Bytes) -> Dots:
    """Return (n, m) products of `rows` (n, width) with `others` (m, width), width a multiple of 8.

    int32, or float32 holding whole numbers.
    """
    if not has_int8():
        return float_dots(rows, others)
    right = pack(others)
    dots = np.empty((len(rows), right.count), np.int32)
    _vnni_dots(rows.view(np.uint64), right.lanes, right.starts, dots)
    return dots


def float_dots(rows: Bytes, others: Bytes) -> NDArray[np.float32]:
    """Return what `int8_dots` returns, on any CPU."""
    return rows.astype(np.float32) @ others.astype(np.float32).T


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """Return a `vector` of LLVM that holds `value` in every place."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


class Arrays:
    """The arguments of a compiled call; `at` is the address of one's element, counted in elements of `kind`."""

    def __init__(self, context: Any, builder: Any, signature: Any, values: Any) -> None:
        self._builder = builder
        self.values = values
        self._made: dict[int, Any] = {
            number: context.make_array(kind)(context, builder, values[number])
            for number, kind in enumerate(signature.args)
            if isinstance(kind, types.Array)
        }

    def at(self, number: int, element: Any, kind: Any) -> Any:
        return self._builder.gep(self._builder.bitcast(self._made[number].data, kind.as_pointer()), [element])

    def length(self, number: int, axis: int) -> Any:
        return build.unpack_tuple(self._builder, self._made[number].shape)[axis]


HALVES = 2
WORD, SUMS = ir.IntType(32), ir.VectorType(ir.IntType(32), LANES // HALVES)
SCORES = ir.VectorType(ir.FloatType(), LANES // HALVES)
INDEX = ir.IntType(64)


def _products(builder: Any, arrays: Arrays, block: Any) -> list[list[Any]]:
    """Return (8, 2) vectors of sums: `rows` (8, width), raised, times `block` of a Packed.

    Each vector of `lanes` that is loaded serves eight instructions. The slots are on the stack only for LLVM to make
    registers of them.
    """
    length = arrays.length(1, 1)
    multiply = build.get_or_insert_function(
        builder.module, ir.FunctionType(SUMS, [SUMS] * 3), "llvm.x86.avx512.vpdpbusd.512"
    )
    slots = [[build.alloca_once(builder, SUMS) for _ in range(HALVES)] for _ in range(ROWS)]
    for half in range(HALVES):
        first = arrays.at(2, builder.add(builder.mul(block, INDEX(HALVES)), INDEX(half)), SUMS)
        for row in slots:
            builder.store(builder.load(first, align=1), row[half])
    with build.for_range(builder, length, intp=INDEX) as loop:
        at = builder.mul(builder.add(builder.mul(block, length), loop.index), INDEX(HALVES))
        others = [builder.load(arrays.at(1, builder.add(at, INDEX(half)), SUMS), align=1) for half in range(HALVES)]
        for number, row in enumerate(slots):
            word = arrays.at(0, builder.add(builder.mul(INDEX(number), length), loop.index), WORD)
            spread = splat(builder, builder.load(word, align=1), SUMS)
            for slot, other in zip(row, others, strict=True):
                builder.store(builder.call(multiply, [builder.load(slot), spread, other]), slot)
    return [[builder.load(slot) for slot in row] for row in slots]


def _tile(context: Any, rows: Any, lanes: Any, starts: Any, block: Any, out: Any) -> Any:
    """Make `out` (8, 32) the products of `rows` (8, width), raised, with block `block` of a Packed."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = Arrays(context, builder, signature, values)
        for number, sums in enumerate(sums for row in _products(builder, arrays, values[3]) for sums in row):
            builder.store(sums, arrays.at(4, INDEX(number), SUMS), align=1)
        return context.get_dummy_value()

    return types.void(rows, lanes, starts, types.intp, out), generate


def _tile_best(context: Any, rows: Any, lanes: Any, starts: Any, block: Any, scales: Any, best: Any) -> Any:
    """Raise `best[block]` to the largest of `scales` (8,) times the products that `tile` makes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = Arrays(context, builder, signature, values)
        products = _products(builder, arrays, values[3])
        factors = [builder.load(arrays.at(4, INDEX(row), ir.FloatType())) for row in range(ROWS)]
        for half in range(HALVES):
            place = arrays.at(5, builder.add(builder.mul(values[3], INDEX(HALVES)), INDEX(half)), SCORES)
            highest = builder.load(place, align=1)
            for factor, sums in zip(factors, products, strict=True):
                score = builder.fmul(builder.sitofp(sums[half], SCORES), splat(builder, factor, SCORES))
                highest = builder.select(builder.fcmp_ordered(">", score, highest), score, highest)
            builder.store(highest, place, align=1)
        return context.get_dummy_value()

    return types.void(rows, lanes, starts, types.intp, scales, best), generate


def _tile_nearest(context: Any, rows: Any, lanes: Any, starts: Any, halves: Any, numbers: Any, scores: Any) -> Any:
    """Write which row of a Packed has the largest product less its `halves` to `numbers` (8,), and it to `scores` (8,).

    Of equal ones the lower. `halves` (blocks, 32) are infinite where rows are missing.
    """
    far = ir.Constant(SUMS, [int(np.iinfo(np.int32).max)] * SUMS.count)
    lane_of = [ir.Constant(SUMS, list(range(low, low + SUMS.count))) for low in (0, SUMS.count)]
    pairs = [(row, half) for row in range(ROWS) for half in range(HALVES)]

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def reduced(kind: str, vector: Any) -> Any:
            function = ir.FunctionType(vector.type.element, [vector.type])
            return builder.call(build.get_or_insert_function(builder.module, function, kind), [vector])

        arrays = Arrays(context, builder, signature, values)
        best = {pair: build.alloca_once_value(builder, ir.Constant(SCORES, [-np.inf] * SCORES.count)) for pair in pairs}
        where = {pair: build.alloca_once_value(builder, far) for pair in pairs}
        with build.for_range(builder, arrays.length(1, 0), intp=INDEX) as loop:
            products = _products(builder, arrays, loop.index)
            base = splat(builder, builder.mul(builder.trunc(loop.index, WORD), WORD(LANES)), SUMS)
            for row, half in pairs:
                place = builder.add(builder.mul(loop.index, INDEX(HALVES)), INDEX(half))
                less = builder.load(arrays.at(3, place, SCORES), align=1)
                score = builder.fsub(builder.sitofp(products[row][half], SCORES), less)
                highest, number = builder.load(best[row, half]), builder.load(where[row, half])
                higher = builder.fcmp_ordered(">", score, highest)
                builder.store(builder.select(higher, score, highest), best[row, half])
                builder.store(builder.select(higher, builder.add(base, lane_of[half]), number), where[row, half])
        for row in range(ROWS):
            left, right = (builder.load(best[row, half]) for half in range(HALVES))
            highest = builder.select(builder.fcmp_ordered(">", left, right), left, right)
            score = reduced("llvm.vector.reduce.fmax.v16f32", highest)
            found = [
                builder.select(builder.fcmp_ordered("==", side, splat(builder, score, SCORES)), number, far)
                for side, number in ((left, builder.load(where[row, 0])), (right, builder.load(where[row, 1])))
            ]
            lowest = builder.select(builder.icmp_signed("<", *found), *found)
            builder.store(reduced("llvm.vector.reduce.smin.v16i32", lowest), arrays.at(4, INDEX(row), WORD))
            builder.store(score, arrays.at(5, INDEX(row), ir.FloatType()))
        return context.get_dummy_value()

    return types.void(rows, lanes, starts, halves, numbers, scores), generate


tile: Any = intrinsic(_tile)
tile_best: Any = intrinsic(_tile_best)
tile_nearest: Any = intrinsic(_tile_nearest)


@compiled
def _raise(rows: Words, row: int, raised: Words, at: int) -> None:
    for word in range(rows.shape[1]):
        raised[at, word] = rows[row, word] ^ SIGN


@compiled
def _vnni_dots(rows: Words, lanes: Bytes, starts: Sums, out: Sums) -> None:
    raised = np.empty((ROWS, rows.shape[1]), np.uint64)
    sums = np.empty((ROWS, LANES), np.int32)
    count, others = out.shape
    for first in range(0, count, ROWS):
        height = min(ROWS, count - first)
        for row in range(height):
            _raise(rows, first + row, raised, row)
        for block in range(len(lanes)):
            tile(raised, lanes, starts, block, sums)
            low = block * LANES
            for row in range(height):
                for lane in range(min(LANES, others - low)):
                    out[first + row, low + lane] = sums[row, lane]


@compiled
def vnni_nearest(
    rows: Words,
    members: Rows,
    lanes: Bytes,
    starts: Sums,
    halves: Floats,
    base: int,
    best: Floats,
    cells: Cells,
) -> None:
    """Make `cells[i]` base + the number of the row of a Packed nearest to `rows[i]`, i in `members`, where it beats
    `best[i]`. `halves` are half the squared lengths."""
    raised = np.empty((ROWS, rows.shape[1]), np.uint64)
    numbers, scores = np.empty(ROWS, np.int32), np.empty(ROWS, np.float32)
    for first in range(0, len(members), ROWS):
        height = min(ROWS, len(members) - first)
        for row in range(height):
            _raise(rows, members[first + row], raised, row)
        tile_nearest(raised, lanes, starts, halves, numbers, scores)
        for row in range(height):
            member = members[first + row]
            if scores[row] > best[member]:
                best[member] = scores[row]
                cells[member] = base + numbers[row]
