"""How many extra requests a server may be sent: a share of what it was sent anyway."""

from __future__ import annotations


class Budget:
    """A token bucket that each request fills by `share` and each extra one takes one from.

    Over any number n of requests there are at most 1 + share · n extra ones, and at most `most` at once: a server that
    fails is not buried under second attempts.
    """

    def __init__(self, share: float, most: float) -> None:
        self._share = share
        self._most = most
        self._tokens = 1.0

    def earn(self) -> None:
        self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Return whether one more request may be sent, and count it."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
