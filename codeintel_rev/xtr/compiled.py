"""How this package's loops are compiled: by numba, without the GIL, kept on disk between processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function`, compiled when it is first called or loaded as an earlier process left it.

    numba refuses to cache where neither the package's folder nor the user's can be written, as in a read-only
    container without NUMBA_CACHE_DIR: there every process compiles for itself.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)  # type: ignore[return-value]
    except RuntimeError:
        return njit(nogil=True, error_model="numpy")(function)  # type: ignore[return-value]
