"""How long may each part of an answer take, and what may follow what? (answers §4)

Every stage has the less of its own budget and what is left until the deadline without `RESERVE_MS`, which belongs to
the extractive answer and the terminal event. From HYDRATE on nothing fails: there is always the extractive answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Literal

RESERVE_MS = 150.0
ProfileName = Literal["fast", "balanced", "deep"]


@dataclass(frozen=True, slots=True)
class Profile:
    """Milliseconds of the whole answer and of its stages; retrieval takes what it needs when no model waits for it."""

    deadline_ms: float
    retrieve_ms: float
    hydrate_ms: float
    rerank_ms: float
    pack_ms: float
    first_token_ms: float
    stall_ms: float
    verify_ms: float

    def within(self, own_ms: float, elapsed_ms: float) -> float:
        """Return the milliseconds a stage has: its own, or what is left without the reserve; 0 when nothing is."""
        return max(0.0, min(own_ms, self.deadline_ms - RESERVE_MS - elapsed_ms))


PROFILES: dict[ProfileName, Profile] = {
    "fast": Profile(2_000, 300, 100, 250, 40, 700, 400, 60),
    "balanced": Profile(8_000, 700, 250, 800, 80, 2_500, 1_500, 200),
    "deep": Profile(30_000, 2_000, 500, 2_000, 160, 8_000, 4_000, 500),
}


class State(StrEnum):
    RECEIVED = auto()
    CLASSIFY = auto()
    RETRIEVE = auto()
    FUSE = auto()
    HYDRATE = auto()
    RERANK = auto()
    PACK = auto()
    AWAIT_FIRST_TOKEN = auto()
    STREAM = auto()
    VERIFY = auto()
    EXTRACT = auto()
    COMPLETED = auto()
    FAILED = auto()
    CANCELLED = auto()


TERMINAL = frozenset((State.COMPLETED, State.FAILED, State.CANCELLED))
_FOLLOWS: dict[State, frozenset[State]] = {
    State.RECEIVED: frozenset((State.CLASSIFY, State.FAILED)),
    State.CLASSIFY: frozenset((State.RETRIEVE, State.FAILED)),
    State.RETRIEVE: frozenset((State.FUSE, State.FAILED)),
    State.FUSE: frozenset((State.HYDRATE, State.COMPLETED)),
    State.HYDRATE: frozenset((State.RERANK, State.PACK)),
    State.RERANK: frozenset((State.PACK,)),
    State.PACK: frozenset((State.AWAIT_FIRST_TOKEN, State.EXTRACT)),
    State.AWAIT_FIRST_TOKEN: frozenset((State.STREAM, State.EXTRACT)),
    State.STREAM: frozenset((State.VERIFY, State.EXTRACT)),
    State.EXTRACT: frozenset((State.VERIFY,)),
    State.VERIFY: frozenset((State.COMPLETED,)),
}


def advance(state: State, to: State) -> State:
    """Return `to`. Raises ValueError unless it may follow `state`; whatever is not over may be cancelled."""
    allowed = _FOLLOWS.get(state, frozenset()) | ({State.CANCELLED} if state not in TERMINAL else frozenset())
    if to not in allowed:
        raise ValueError(f"an answer cannot go from {state} to {to}")
    return to
