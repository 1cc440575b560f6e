"""The figures this library tells whoever listens; it knows no metrics system.

`Figure` values are the names under which they are exposed; the unit of those in `_ms` is the millisecond. The caller,
who encodes the query, reports SEARCH_ENCODE_MS with `timed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Figure(StrEnum):
    BUILD_TRAIN_MS = "xtr_build_train_ms"
    BUILD_WRITE_MS = "xtr_build_write_ms"
    SEARCH_ENCODE_MS = "xtr_search_encode_ms"
    SEARCH_IVF_MS = "xtr_search_ivf_ms"
    SEARCH_REDUCE_MS = "xtr_search_reduce_ms"
    RESCORE_MS = "xtr_rescore_ms"
    INDEX_BYTES = "xtr_index_bytes"
    DOC_COUNT = "xtr_doc_count"
    AVG_DOCLEN = "xtr_avg_doclen"
    SHARDS = "xtr_shards"


Observe = Callable[[Figure, float], None]


def ignore(figure: Figure, value: float) -> None:
    """Listen to nothing."""


@contextmanager
def timed(observe: Observe, figure: Figure) -> Iterator[None]:
    """Report how long the block took, also when it raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        observe(figure, (time.perf_counter() - start) * 1000)
