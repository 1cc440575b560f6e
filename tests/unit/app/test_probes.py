"""Readiness: what is seen, what is told, and how slowly one follows the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import httpx
import pytest
from fakes import NOT_ENCODED, FakeSearcher
from fastapi import FastAPI

from codeintel_rev.app.probes import Check, Readiness, State, check_tokens, judge, look_once, probe_routes
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.types import Limit, TokenFigures

SHARD = FakeSearcher().status()[0]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def readiness(clock: Clock) -> Readiness:
    return Readiness(interval_s=1.0, clock=clock)


def see(readiness: Readiness, clock: Clock, *states: State) -> list[State]:
    """Take one look a second and return the state after each."""
    told = []
    for state in states:
        clock.now += 1
        readiness.look(state)
        told.append(readiness.state)
    return told


def settle(readiness: Readiness, clock: Clock, state: State) -> None:
    see(readiness, clock, *[state] * 15)
    assert readiness.state is state


def test_the_first_usable_look_ends_starting(readiness: Readiness, clock: Clock) -> None:
    assert see(readiness, clock, State.STARTING, State.READY) == [State.STARTING, State.READY]


def test_three_looks_make_it_down(readiness: Readiness, clock: Clock) -> None:
    settle(readiness, clock, State.READY)
    assert see(readiness, clock, *[State.DOWN] * 3) == [State.READY, State.READY, State.DOWN]


def test_two_looks_bring_it_back_after_ten_seconds(readiness: Readiness, clock: Clock) -> None:
    settle(readiness, clock, State.READY)
    settle(readiness, clock, State.DOWN)
    clock.now += 10
    assert see(readiness, clock, State.READY, State.READY) == [State.DOWN, State.READY]


def test_a_new_state_is_kept_for_ten_seconds(readiness: Readiness, clock: Clock) -> None:
    settle(readiness, clock, State.READY)
    see(readiness, clock, *[State.DOWN] * 3)
    assert see(readiness, clock, *[State.READY] * 9) == [State.DOWN] * 9


@pytest.mark.parametrize("period", [1, 2])
def test_a_flapping_component_makes_at_most_four_transitions_a_minute(
    readiness: Readiness, clock: Clock, period: int
) -> None:
    """§5: toggling for 60 s."""
    settle(readiness, clock, State.READY)
    seen = [State.DOWN if second // period % 2 else State.READY for second in range(60)]
    told = see(readiness, clock, *seen)
    assert sum(one is not other for one, other in pairwise(told)) <= 4


def test_draining_is_for_good(readiness: Readiness, clock: Clock) -> None:
    settle(readiness, clock, State.READY)
    readiness.drain()
    assert see(readiness, clock, *[State.READY] * 20)[-1] is State.DRAINING


def test_a_checker_that_stopped_looking_is_a_failure(readiness: Readiness, clock: Clock) -> None:
    settle(readiness, clock, State.READY)
    clock.now += 60
    assert readiness.state is State.DOWN


@pytest.mark.parametrize(
    ("shards", "state"),
    [
        ((), State.STARTING),
        ((replace(SHARD, generation="", state="empty"),), State.STARTING),
        ((replace(SHARD, generation="", state="building"),), State.STARTING),
        ((replace(SHARD, state="building"),), State.READY),
        ((SHARD, SHARD), State.READY),
        ((SHARD, replace(SHARD, state="degraded")), State.DEGRADED),
        ((SHARD, replace(SHARD, generation="", state="down")), State.DEGRADED),
        ((replace(SHARD, generation="", state="down"),), State.DOWN),
        ((replace(SHARD, verified=False),), State.STARTING),
        ((SHARD, replace(SHARD, verified=False, state="degraded")), State.READY),
        ((replace(SHARD, generation="", state="down"), replace(SHARD, verified=False)), State.STARTING),
    ],
)
def test_one_shard_that_serves_is_enough_to_serve(shards: tuple, state: State) -> None:
    assert judge(shards)[0] is state


async def test_a_searcher_that_fails_is_seen_as_down(readiness: Readiness, clock: Clock) -> None:
    searcher = FakeSearcher()
    searcher.failure = IndexUnavailable("nothing can be served.", "Rebuild.")
    with ThreadPoolExecutor(1) as executor:
        for _ in range(3):
            await look_once(searcher, Blocking(executor), readiness, xtr_is_on=False)
    assert (readiness.state, readiness.degraded) == (State.DOWN, ("index-unavailable",))


@pytest.mark.parametrize(
    ("state", "statuses"),
    [
        (State.STARTING, {"/livez": 200, "/startupz": 503, "/readyz": 503}),
        (State.READY, {"/livez": 200, "/startupz": 200, "/readyz": 200}),
        (State.DEGRADED, {"/livez": 200, "/startupz": 200, "/readyz": 200}),
        (State.DOWN, {"/livez": 200, "/startupz": 200, "/readyz": 503}),
        (State.DRAINING, {"/livez": 200, "/startupz": 200, "/readyz": 503}),
    ],
)
async def test_probes_answer_by_state(
    readiness: Readiness, clock: Clock, state: State, statuses: dict[str, int]
) -> None:
    """§5, C26: degraded stays 200, or a shared fault would take every replica out at once."""
    if state is State.DRAINING:
        readiness.drain()
    else:
        settle(readiness, clock, state)
    async with probing(readiness) as client:
        answers = {path: (await client.get(path)).status_code for path in statuses}
    assert answers == statuses


async def test_a_refusing_probe_is_a_problem_that_names_its_state(readiness: Readiness, clock: Clock) -> None:
    readiness.degraded = (NOT_ENCODED.code,)
    settle(readiness, clock, State.DOWN)
    async with probing(readiness) as client:
        answer = await client.get("/readyz")
    assert (answer.headers["content-type"], answer.headers["retry-after"]) == ("application/problem+json", "5")
    assert (answer.json()["state"], answer.json()["degraded"]) == ("down", ["vectors-partial"])


async def test_metrics_are_exposed_by_name(readiness: Readiness) -> None:
    """C48."""
    async with probing(readiness) as client:
        answer = await client.get("/metrics")
    assert "# TYPE codeintel_requests_total counter" in answer.text
    assert "# TYPE codeintel_search_stage_seconds histogram" in answer.text


def probing(readiness: Readiness) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(probe_routes(readiness))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


# Late interaction

MISSING = Limit("xtr-missing", "xtr", "WARP index missing: shop has no tokens of its 3 chunks.", "Run `xtr build`.")
PARTIAL = Limit("xtr-partial", "xtr", "2 of 3 chunks of shop have tokens so far.", "")
TOKENS = TokenFigures(documents=3, tokens=30, segments=1, bytes=4000, train_ms=1.0, write_ms=1.0)


@pytest.mark.parametrize(
    ("shards", "is_on", "check"),
    [
        ((SHARD,), False, Check(True, "off")),
        ((replace(SHARD, limits=(MISSING,)),), True, Check(False, MISSING.detail)),
        ((replace(SHARD, tokens=TOKENS), replace(SHARD, limits=(MISSING,))), True, Check(False, MISSING.detail)),
        ((replace(SHARD, tokens=TOKENS, limits=(PARTIAL,)),), True, Check(True, "1 indexes, 3 chunks")),
        ((replace(SHARD, tokens=TOKENS, limits=(NOT_ENCODED,)),) * 2, True, Check(True, "2 indexes, 6 chunks")),
    ],
)
def test_token_indexes_are_well_when_they_are_there_or_not_wanted(shards: tuple, is_on: bool, check: Check) -> None:
    """A06, A07."""
    assert check_tokens(shards, is_on=is_on) == check


@pytest.mark.parametrize(("is_on", "state"), [(False, State.READY), (True, State.DEGRADED)])
async def test_readiness_tells_of_token_indexes(readiness: Readiness, clock: Clock, is_on: bool, state: State) -> None:
    """A06, A07: degraded while one is missing, and still 200."""
    searcher = FakeSearcher(limits=(MISSING,) if is_on else ())
    searcher.state = "degraded" if is_on else "ready"
    with ThreadPoolExecutor(1) as executor:
        await look_once(searcher, Blocking(executor), readiness, xtr_is_on=is_on)
    async with probing(readiness) as client:
        answer = await client.get("/readyz")
    told = answer.json()
    assert (answer.status_code, told["state"]) == (200, state.name.lower())
    assert told["checks"]["xtr_artifacts"]["healthy"] is not is_on
    assert told["checks"]["xtr_artifacts"]["detail"].startswith("WARP index missing: " if is_on else "off")
