"""When a failing server is left alone: five failures in ten seconds open the breaker for five seconds."""

from __future__ import annotations

from collections import deque
from typing import Literal

FAILURES = 5
WINDOW_S = 10.0
OPEN_S = 5.0


class Breaker:
    """Closed until FAILURES within WINDOW_S, then open for OPEN_S, then one caller may ask whether the server is well.

    Times are of one monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def admit(self, now: float) -> Literal["closed", "open", "probe"]:
        """Return whether a call may be made; `probe` tells exactly one caller to ask for the server's health first."""
        if self._open_until is None:
            return "closed"
        if now < self._open_until:
            return "open"
        # Whoever comes while the probe runs is refused, and probes himself if its caller went away.
        self._open_until = now + OPEN_S
        return "probe"

    def remaining_s(self, now: float) -> float:
        return max(0.0, (self._open_until or now) - now)

    def failed(self, now: float) -> None:
        if self.is_open:
            return
        self._failures.append(now)
        if len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW_S:
            self._open_until = now + OPEN_S

    def healed(self) -> None:
        self._failures.clear()
        self._open_until = None
