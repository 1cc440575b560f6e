"""Inner products of int8 rows: the one matrix product everything in this package is made of.

VNNI instructions multiply 64 bytes at a time but numba's loops do not reach them; oneDNN does, behind `torch._int_mm`
(390 G multiply-adds/s on one core against 40 G for float32). Where the CPU has no such instructions, or torch is not
installed, the same numbers come from a float32 product, which is exact: |sum| < 2**24 up to 1,040 dimensions.
Threads: whatever `torch.set_num_threads` and the BLAS say; every other kernel of this package runs on the caller's one.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import binding
from numpy.typing import NDArray

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]

Bytes = NDArray[np.int8]
Dots = NDArray[np.float32] | NDArray[np.int32]

INT8_FEATURES = ("avx512vnni", "avxvnni", "amx-int8", "i8mm", "dotprod")
"""Without one of these oneDNN adds pairs in 16 bits, which saturates: wrong sums, not only slow ones."""


@cache
def has_int8() -> bool:
    """Return whether this process multiplies int8 rows in hardware."""
    features = binding.get_host_cpu_features()
    return torch is not None and any(features.get(name, False) for name in INT8_FEATURES)


def int8_dots(rows: Bytes, others: Bytes) -> Dots:
    """Return (n, m) products of `rows` (n, dim) with `others` (m, dim): int32, or float32 holding whole numbers."""
    if has_int8():
        product: NDArray[np.int32] = torch._int_mm(torch.from_numpy(rows), torch.from_numpy(others).T).numpy()  # noqa: SLF001
        return product
    return float_dots(rows, others)


def float_dots(rows: Bytes, others: Bytes) -> NDArray[np.float32]:
    """Return what `int8_dots` returns, on any CPU."""
    return rows.astype(np.float32) @ others.astype(np.float32).T
