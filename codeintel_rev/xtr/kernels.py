"""The compiled loops of search: decode, maximum per document, probe and merge, centroid interaction.

Plain numba on memory-mapped arrays; the products are left to `dots`. All release the GIL and run on the caller's
thread. Documents are numbered within a segment; `starts` and `ends` are rows of its token arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from codeintel_rev.types import Floats
from codeintel_rev.xtr.codec import LOW_BITS
from codeintel_rev.xtr.compiled import compiled
from codeintel_rev.xtr.dots import (
    INDEX,
    LANES,
    ROWS,
    SIGN,
    Arrays,
    Bytes,
    Cells,
    Dots,
    Rows,
    Sums,
    UBytes,
    Words,
    build,
    splat,
    tile_best,
)

Codes = NDArray[np.uint16]

WORDS = 8
LINE_WORDS = 8
AHEAD = 16
"""Tokens: corners lie anywhere in a table larger than the second-level cache, documents anywhere in the index. Waiting
for each when it is needed doubles the time."""
LEVELS = ir.VectorType(ir.IntType(8), LANES)
LOW_2, LOW_4 = LOW_BITS[2], LOW_BITS[4]


def _expand(
    context: Any,
    residuals: Any,
    at: Any,
    corners: Any,
    corner_at: Any,
    out: Any,
    out_at: Any,
    left: Any,
    step: Any,
    shift: Any,
    mask: Any,
) -> Any:
    """Make `out[out_at:]` the corner + step · (residual >> shift & mask) + 128, byte by byte, min(left, WORDS) words.

    LLVM's vectors, lowered to whatever the CPU has: its vectorizer leaves loops as short as a token scalar, which takes
    twice as long. The product is one of 16-bit halves, which every CPU has; no byte of it carries.
    """
    arrays = residuals, types.intp, corners, types.intp, out, types.intp
    index, flags = ir.IntType(64), ir.VectorType(ir.IntType(1), WORDS)
    words, halves = ir.VectorType(index, WORDS), ir.VectorType(ir.IntType(16), 4 * WORDS)
    align, none = ir.IntType(32)(1), ir.Constant(words, [0] * WORDS)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def pointer(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.bitcast(builder.gep(data, [values[array + 1]]), words.as_pointer())

        def load(array: int) -> Any:
            kind = ir.FunctionType(words, [words.as_pointer(), align.type, flags, words])
            masked = build.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{WORDS}i64.p0")
            return builder.call(masked, [pointer(array), align, here, none])

        here = builder.icmp_signed("<", ir.Constant(words, list(range(WORDS))), splat(builder, values[6], words))
        packed = builder.lshr(load(0), splat(builder, values[8], words))
        buckets = builder.bitcast(builder.and_(packed, splat(builder, values[9], words)), halves)
        offsets = builder.bitcast(builder.mul(buckets, splat(builder, values[7], halves)), words)
        raised = builder.add(offsets, builder.xor(load(2), ir.Constant(words, [int(SIGN)] * WORDS)))
        kind = ir.FunctionType(ir.VoidType(), [words, words.as_pointer(), align.type, flags])
        masked = build.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{WORDS}i64.p0")
        builder.call(masked, [raised, pointer(4), align, here])
        return context.get_dummy_value()

    return types.void(*arrays, types.intp, types.uint16, types.uint64, types.uint64), generate


def _highest_levels(context: Any, table: Any, cells: Any, start: Any, end: Any, block: Any, best: Any) -> Any:
    """Make `best[block]` the highest, place by place, of `table[block]` (cells, 32) over `cells[start:end]`.

    They stay in a register; a loop of numba's would store and load them for every token.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        arrays = Arrays(context, builder, signature, values)
        slot = build.alloca_once_value(builder, ir.Constant(LEVELS, [0] * LANES))
        first = builder.mul(values[4], arrays.length(0, 1))
        count = builder.sub(values[3], values[2])
        with build.for_range(builder, count, intp=INDEX) as loop:
            cell = builder.load(arrays.at(1, builder.add(values[2], loop.index), ir.IntType(16)))
            row = arrays.at(0, builder.add(first, builder.zext(cell, INDEX)), LEVELS)
            levels, highest = builder.load(row, align=1), builder.load(slot)
            builder.store(builder.select(builder.icmp_unsigned(">", levels, highest), levels, highest), slot)
        builder.store(builder.load(slot), arrays.at(5, values[4], LEVELS), align=1)
        return context.get_dummy_value()

    return types.void(table, cells, types.intp, types.intp, types.intp, best), generate


def _prefetch(context: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of `array[at:]`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        ask = build.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [builder.bitcast(builder.gep(data, [values[1]]), byte), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


expand: Any = intrinsic(_expand)
highest_levels: Any = intrinsic(_highest_levels)
prefetch: Any = intrinsic(_prefetch)


@compiled
def _prefetch_next(residuals: Words, starts: Rows, ends: Rows, document: int) -> None:
    if document + 1 < len(starts):
        for token in range(starts[document + 1], min(starts[document + 1] + AHEAD, ends[document + 1])):
            prefetch(residuals, token * residuals.shape[1])


@compiled
def _decode_rows(
    residuals: Words,
    cells: Codes,
    corners: Words,
    first: int,
    count: int,
    last: int,
    step: np.uint16,
    bits: int,
    out: Words,
    row: int,
) -> None:
    """Write `count` tokens from `first` on, raised, to `out[row:]`; those beyond `last` are `last` again.

    A call of its own for several tokens: inlined it is not, and a call costs as much as a token.
    """
    words, width = residuals.shape[1], corners.shape[1]
    mask = LOW_4 if bits == 4 else LOW_2
    last_token = len(cells) - 1
    for token in range(first, first + count):
        ahead = cells[min(token + AHEAD, last_token)] * width
        prefetch(corners, ahead)
        prefetch(corners, ahead + LINE_WORDS)
        source = min(token, last) * words
        corner = cells[min(token, last)] * width
        target = (row + token - first) * width
        for plane in range(width // words):
            shift = np.uint64(plane * bits)
            for word in range(0, words, WORDS):
                at = plane * words + word
                expand(
                    residuals, source + word, corners, corner + at, out, target + at, words - word, step, shift, mask
                )


@compiled
def decode(
    residuals: Words, cells: Codes, corners: Words, starts: Rows, ends: Rows, step: np.uint16, bits: int, out: Words
) -> None:
    """Write the rows, raised by 128, of the tokens `starts[i]:ends[i]`, one document after the other, to `out`."""
    row = 0
    for document in range(len(starts)):
        _prefetch_next(residuals, starts, ends, document)
        count = ends[document] - starts[document]
        _decode_rows(residuals, cells, corners, starts[document], count, ends[document] - 1, step, bits, out, row)
        row += count


@compiled
def decoded_sums(
    residuals: Words,
    cells: Codes,
    lengths: UBytes,
    corners: Words,
    scales: Floats,
    starts: Rows,
    ends: Rows,
    step: np.uint16,
    bits: int,
    lanes: Bytes,
    firsts: Sums,
    weights: Floats,
    out: Floats,
) -> None:
    """Write what `decode`, a product and `best_sums` would to `out`, eight tokens at a time, none of it through memory.

    `lanes` and `firsts` are the Packed query. Tokens beyond a document's last are its last again.
    """
    rows = np.empty((ROWS, corners.shape[1]), np.uint64)
    scale = np.empty(ROWS, np.float32)
    best = np.empty((len(lanes), LANES), np.float32)
    for document in range(len(starts)):
        _prefetch_next(residuals, starts, ends, document)
        best[:] = -np.inf
        for first in range(starts[document], ends[document], ROWS):
            _decode_rows(residuals, cells, corners, first, ROWS, ends[document] - 1, step, bits, rows, 0)
            for row in range(ROWS):
                scale[row] = scales[lengths[min(first + row, ends[document] - 1)]]
            for block in range(len(lanes)):
                tile_best(rows, lanes, firsts, block, scale, best)
        total = np.float32(0)
        if ends[document] > starts[document]:
            for q in range(len(weights)):
                total += best[q // LANES, q % LANES] * weights[q]
        out[document] = total


@compiled
def best_sums(
    dots: Dots, lengths: UBytes, scales: Floats, starts: Rows, ends: Rows, weights: Floats, out: Floats
) -> None:
    """Write Σ_q weights[q] · max_t scales[lengths[t]] · dots[t, q] of each document, 0 without tokens, to `out`."""
    queries = dots.shape[1]
    best = np.empty(queries, np.float32)
    row = 0
    for document in range(len(starts)):
        best[:] = -np.inf
        for token in range(starts[document], ends[document]):
            scale = scales[lengths[token]]
            for q in range(queries):
                best[q] = max(best[q], np.float32(dots[row, q]) * scale)
            row += 1
        total = np.float32(0)
        if ends[document] > starts[document]:
            for q in range(queries):
                total += best[q] * weights[q]
        out[document] = total


@compiled
def best_cells(dots: Dots, numbers: Cells, scores: Floats) -> None:
    """Write the cells (queries, probes) with the largest `dots` (cells, queries), best first, and those products.

    Of equal ones the lower number. Few cells of many are among the best so far: a row is first looked at as a whole.
    """
    queries, probes = numbers.shape
    scores[:] = -np.inf
    least = np.full(queries, -np.inf, np.float32)
    for cell in range(len(dots)):
        better = 0
        for q in range(queries):
            better += np.float32(dots[cell, q]) > least[q]
        if not better:
            continue
        for q in range(queries):
            score = np.float32(dots[cell, q])
            if score > least[q]:
                at = probes - 1
                while at > 0 and scores[q, at - 1] < score:
                    numbers[q, at], scores[q, at] = numbers[q, at - 1], scores[q, at - 1]
                    at -= 1
                numbers[q, at], scores[q, at] = cell, score
                least[q] = scores[q, probes - 1]


@compiled
def probe(
    chosen: Cells,
    scores: Floats,
    missing: Floats,
    bounds: NDArray[np.uint32],
    postings: Codes,
    allowed: NDArray[np.bool_],
    stamps: NDArray[np.int32],
    totals: Floats,
    found: NDArray[np.int32],
) -> int:
    """Sum the best score of each document over the cells `chosen` (queries, probes); return how many are `found`.

    WARP's two-stage reduction (Scheerer et al. 2025, §4.4) without sorting or merging: the cells of a query token come
    best first, so the first posting of a document is its maximum, and `stamps`, all zero at the start, tell whether it
    was seen for this token. A document with no token in the cells of query token q counts `missing[q]` for it (XTR, Lee
    et al. 2023, §3.2). Only `totals[found[:count]]` mean anything.
    """
    count = 0
    start = np.float32(missing.sum())
    for q in range(chosen.shape[0]):
        for p in range(chosen.shape[1]):
            cell = chosen[q, p]
            gain = scores[q, p] - missing[q]
            for at in range(bounds[cell], bounds[cell + 1]):
                document = postings[at]
                if stamps[document] == q + 1 or not allowed[document]:
                    continue
                if stamps[document] == 0:
                    totals[document] = start
                    found[count] = document
                    count += 1
                stamps[document] = q + 1
                totals[document] += gain
    return count


@compiled
def levels(dots: Dots, highest: Floats, out: UBytes) -> None:
    """Write `dots` (cells, queries) to `out` (blocks, cells, 32): 0 where negative, 255 the `highest` of its query."""
    queries = dots.shape[1]
    factors = np.zeros(queries, np.float32)
    for q in range(queries):
        if highest[q] > 0:
            factors[q] = np.float32(255) / highest[q]
    for cell in range(len(dots)):
        for q in range(queries):
            level = np.float32(dots[cell, q]) * factors[q]
            out[q // LANES, cell, q % LANES] = np.uint8(level if level > 0 else np.float32(0))


@compiled
def interact(table: UBytes, cells: Codes, starts: Rows, ends: Rows, weights: Floats, out: Floats) -> None:
    """Write Σ_q weights[q] · max_t table[q // 32, cells[t], q % 32] of each document, which has tokens, to `out`.

    PLAID's centroid interaction (Santhanam et al. 2022, §4.2): MaxSim with every token at its centroid.
    """
    best = np.empty((len(table), LANES), np.uint8)
    last = len(starts) - 1
    for document in range(len(starts)):
        following = min(document + 1, last)
        for token in range(starts[following], ends[following], LANES):
            prefetch(cells, token)
        for block in range(len(table)):
            highest_levels(table, cells, starts[document], ends[document], block, best)
        total = np.float32(0)
        for q in range(len(weights)):
            total += np.float32(best[q // LANES, q % LANES]) * weights[q]
        out[document] = total
