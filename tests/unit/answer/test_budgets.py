"""Every stage has the less of its own time and what is left, and only what may follow does."""

from __future__ import annotations

import pytest

from codeintel_rev.answer.budgets import PROFILES, RESERVE_MS, TERMINAL, State, advance


def test_a_stage_has_its_own_time_or_what_is_left_without_the_reserve() -> None:
    fast = PROFILES["fast"]
    assert fast.within(300, 0) == 300
    assert fast.within(300, 1_700) == 2_000 - RESERVE_MS - 1_700
    assert fast.within(300, 5_000) == 0


def test_a_deeper_profile_never_gives_less_time() -> None:
    for shorter, longer in (("fast", "balanced"), ("balanced", "deep")):
        less, more = PROFILES[shorter], PROFILES[longer]
        assert all(getattr(less, name) < getattr(more, name) for name in less.__slots__)


@pytest.mark.parametrize("state", [state for state in State if state not in TERMINAL])
def test_whatever_is_not_over_may_be_cancelled_and_nothing_follows_the_end(state: State) -> None:
    assert advance(state, State.CANCELLED) is State.CANCELLED
    for end in TERMINAL:
        with pytest.raises(ValueError, match="cannot go"):
            advance(end, state)


@pytest.mark.parametrize("state", ["hydrate", "rerank", "pack", "await_first_token", "stream", "extract", "verify"])
def test_nothing_fails_once_there_is_something_to_show(state: str) -> None:
    with pytest.raises(ValueError, match="cannot go"):
        advance(State(state), State.FAILED)


def test_every_state_can_be_reached_and_left() -> None:
    reached, found = {State.RECEIVED}, [State.RECEIVED]
    while found:
        state = found.pop()
        follows = [to for to in State if _may(state, to)]
        assert follows or state in TERMINAL
        found += [to for to in follows if to not in reached]
        reached.update(follows)
    assert reached == set(State)


def _may(state: State, to: State) -> bool:
    try:
        return advance(state, to) is to
    except ValueError:
        return False
