"""Turns what a build counts into what people wait for: rate and time left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from codeintel_rev.types import BuildProgress

Report = Callable[[BuildProgress], None]
_INTERVAL_S = 0.2  # A report replaces a file and redraws a bar; batches can end every few milliseconds.


class Stopwatch:
    """Reports (stage, done, total) with the stage's rate and time left; the first and last of a stage always."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._started_at = time.time()
        self._stage = ""
        self._stage_start = 0.0
        self._first_done = 0
        self._told = 0.0

    def tell(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` items of `stage` are finished; total 0 means not known yet."""
        now = self._clock()
        if stage != self._stage:
            self._stage, self._stage_start, self._first_done = stage, now, done
        elif now - self._told < _INTERVAL_S and done != total:
            return
        self._told = now
        rate = _rate(done - self._first_done, now - self._stage_start)
        eta_s = (total - done) / rate if rate and total >= done else None
        self._report(BuildProgress(stage, done, total, rate, eta_s, self._started_at, os.getpid()))


def _rate(done: int, elapsed: float) -> float | None:
    return done / elapsed if elapsed > 0 and done > 0 else None
