"""A second request beside a slow first one, for calls that may be made twice (The Tail at Scale, CACM 2013)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from codeintel_rev.io.vllm.budget import Budget
from codeintel_rev.io.vllm.endpoint import EndpointName
from codeintel_rev.observability.metrics import VLLM_HEDGES

WINDOW = 200
LEAST = 20
"""Times known before their 95th percentile is believed."""
SHARE = 0.05
T = TypeVar("T")


class Hedge:
    """Sends a call again once it takes longer than 95 % of the last WINDOW did; the first to succeed wins.

    At most one call in twenty is sent again. The loser is cancelled, which closes its connection and stops the server.
    """

    def __init__(self, name: EndpointName) -> None:
        self._name = name
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._budget = Budget(SHARE, most=2)

    @property
    def after_s(self) -> float | None:
        """Return the rolling 95th percentile, None while too few times are known."""
        if len(self._seconds) < LEAST:
            return None
        return sorted(self._seconds)[int(0.95 * (len(self._seconds) - 1))]

    async def run(self, call: Callable[[int], Awaitable[T]]) -> T:
        """Return what `call(0)`, or a `call(1)` beside it, returns first. Raises what the last of them raised."""
        self._budget.earn()
        first = asyncio.ensure_future(self._timed(call, 0))
        running: set[asyncio.Future[T]] = {first}
        hedged = False
        try:
            done, _ = await asyncio.wait(running, timeout=self.after_s)
            if not done and self._budget.take():
                hedged = True
                running.add(asyncio.ensure_future(self._timed(call, 1)))
            won = await _first_success(running)
            if hedged:
                VLLM_HEDGES.labels(self._name, "first" if won is first else "second").inc()
            return won.result()
        except Exception:
            if hedged:
                VLLM_HEDGES.labels(self._name, "none").inc()
            raise
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _timed(self, call: Callable[[int], Awaitable[T]], number: int) -> T:
        began = time.monotonic()
        result = await call(number)
        self._seconds.append(time.monotonic() - began)
        return result


async def _first_success(tasks: set[asyncio.Future[T]]) -> asyncio.Future[T]:
    """Return the first of `tasks` to succeed, or the last to fail."""
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        # Two may end at once.
        best = next((task for task in done if task.exception() is None), None)
        if best or not pending:
            return best or done.pop()
