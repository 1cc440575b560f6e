"""The one place where async meets the plain functions that search and read.

Own threads, as many as may run at once: a call that was given up keeps its thread until it ends, so abandoned work is
bounded too, and a call that had not started is never run.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from codeintel_rev.errors import DeadlineExceeded

T = TypeVar("T")

OVERTIME = 1.1
"""The work knows its deadline and answers with what it has; only work that overruns by a tenth is given up."""


@dataclass(frozen=True, slots=True)
class Blocking:
    executor: ThreadPoolExecutor

    async def run(self, work: Callable[[float], T], deadline_ms: float) -> T:
        """Return `work(milliseconds left)`, waiting for a free thread within the deadline.

        Raises DeadlineExceeded. Cancelling the caller cancels the wait at once.
        """
        started = time.monotonic()

        def timed() -> T:
            left = deadline_ms - (time.monotonic() - started) * 1000
            if left <= 0:
                raise DeadlineExceeded(f"no thread was free within {deadline_ms:.0f} ms.", "Retry, or allow more time.")
            return work(left)

        future = self.executor.submit(contextvars.copy_context().run, timed)
        try:
            async with asyncio.timeout(deadline_ms * OVERTIME / 1000):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer within {deadline_ms:.0f} ms.", "Narrow the scope or allow more time."
            ) from error
