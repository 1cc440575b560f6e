"""Is a difference between two runs over the same questions more than chance? The paired bootstrap, seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
_SEED = 0
_DRAWN_AT_ONCE = 1 << 22  # Indices in memory: 32 MB.


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of the paired differences, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the interval, for `±`."""
        return (self.high - self.low) / 2

    @property
    def is_loss(self) -> bool:
        """Whether all of the interval is below nothing."""
        return self.high < 0


def paired(differences: Sequence[float] | NDArray[np.float64]) -> Difference:
    """Return what `differences` (n,), one a question, tell; the same for the same.

    REQUIRES: there is at least one.
    """
    values = np.asarray(differences, np.float64)
    rng = np.random.default_rng(_SEED)
    rows = max(1, _DRAWN_AT_ONCE // len(values))
    draws = [
        values[rng.integers(0, len(values), (min(rows, DRAWS - first), len(values)))].mean(axis=1)
        for first in range(0, DRAWS, rows)
    ]
    low, high = np.quantile(np.concatenate(draws), (0.025, 0.975))
    return Difference(float(values.mean()), float(low), float(high))
