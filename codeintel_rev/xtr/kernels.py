"""The compiled loops of search: decode, maximum per document, probe and merge, centroid interaction.

Plain numba on memory-mapped arrays, no instruction named: the products are left to `dots`. All release the GIL and run
on the caller's thread. Documents are numbered within a segment; `starts` and `ends` are rows of its token arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from codeintel_rev.types import Floats
from codeintel_rev.xtr.codec import LOW_BITS, SIGN, UBytes, Words
from codeintel_rev.xtr.dots import Dots

Rows = NDArray[np.int64]
Codes = NDArray[np.uint16]
Cells = NDArray[np.int32]

LANES = 4
LINE_WORDS = 8
AHEAD = 16
"""Tokens: corners lie anywhere in a table larger than the second-level cache, documents anywhere in the index. Waiting
for each when it is needed doubles the time."""
LOW_2, LOW_4 = LOW_BITS[2], LOW_BITS[4]


def _expand(
    context: Any,
    residuals: Any,
    at: Any,
    corners: Any,
    corner_at: Any,
    out: Any,
    out_at: Any,
    step: Any,
    shift: Any,
    mask: Any,
) -> Any:
    """Make `out[out_at:]` the corner + step · (residual >> shift & mask), byte by byte, LANES words.

    LLVM's vectors, lowered to whatever the CPU has: its vectorizer leaves loops as short as a token scalar, which takes
    twice as long. The product is one of 16-bit halves, which every CPU has; no byte of it carries.
    """
    arrays = residuals, types.intp, corners, types.intp, out, types.intp
    words, halves = ir.VectorType(ir.IntType(64), LANES), ir.VectorType(ir.IntType(16), 4 * LANES)
    sign = ir.Constant(words, [int(SIGN)] * LANES)

    def splat(builder: Any, value: Any, vector: Any) -> Any:
        first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
        return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        def pointer(array: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, values[array]).data
            return builder.bitcast(builder.gep(data, [values[array + 1]]), words.as_pointer())

        packed = builder.lshr(builder.load(pointer(0), align=1), splat(builder, values[7], words))
        buckets = builder.bitcast(builder.and_(packed, splat(builder, values[8], words)), halves)
        offsets = builder.bitcast(builder.mul(buckets, splat(builder, values[6], halves)), words)
        corner = builder.xor(builder.load(pointer(2), align=1), sign)
        builder.store(builder.xor(builder.add(offsets, corner), sign), pointer(4), align=1)
        return context.get_dummy_value()

    return types.void(*arrays, types.uint16, types.uint64, types.uint64), generate


def _prefetch(context: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of `array[at:]`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        ask = insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [builder.bitcast(builder.gep(data, [values[1]]), byte), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


insert_function: Any = cgutils.get_or_insert_function
expand: Any = intrinsic(_expand)
prefetch: Any = intrinsic(_prefetch)


@njit(cache=True, nogil=True, error_model="numpy")
def decode(
    residuals: Words, cells: Codes, corners: Words, starts: Rows, ends: Rows, step: np.uint16, bits: int, out: Words
) -> None:
    """Write the int8 rows of the tokens `starts[i]:ends[i]`, one document after the other, to `out` (8 a word)."""
    words = residuals.shape[1]
    width = corners.shape[1]
    last_token = len(cells) - 1
    mask = LOW_4 if bits == 4 else LOW_2
    row = 0
    for document in range(len(starts)):
        if document + 1 < len(starts):
            for token in range(starts[document + 1], min(starts[document + 1] + AHEAD, ends[document + 1])):
                prefetch(residuals, token * words)
        for token in range(starts[document], ends[document]):
            for line in range(0, width, LINE_WORDS):
                prefetch(corners, cells[min(token + AHEAD, last_token)] * width + line)
            for plane in range(8 // bits):
                shift = np.uint64(plane * bits)
                word = 0
                while word + LANES <= words:
                    at = plane * words + word
                    corner_at, out_at = cells[token] * width + at, row * width + at
                    expand(residuals, token * words + word, corners, corner_at, out, out_at, step, shift, mask)
                    word += LANES
                for last in range(word, words):
                    at = plane * words + last
                    buckets = (residuals[token, last] >> shift) & mask
                    out[row, at] = (buckets * np.uint64(step) + (corners[cells[token], at] ^ SIGN)) ^ SIGN
            row += 1


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def interact(dots: Dots, cells: Codes, starts: Rows, ends: Rows, weights: Floats, out: Floats) -> None:
    """Write Σ_q weights[q] · max_t dots[cells[t], q] of each document, which has tokens, to `out`.

    PLAID's centroid interaction (Santhanam et al. 2022, §4.2): MaxSim with every token at its centroid. `dots` is
    (cells, queries).
    """
    queries = dots.shape[1]
    best = np.empty(queries, dots.dtype)
    for document in range(len(starts)):
        best[:] = dots[cells[starts[document]]]
        for token in range(starts[document] + 1, ends[document]):
            cell = cells[token]
            for q in range(queries):
                score, highest = dots[cell, q], best[q]
                best[q] = score if score > highest else highest
        total = np.float32(0)
        for q in range(queries):
            total += np.float32(best[q]) * weights[q]
        out[document] = total
