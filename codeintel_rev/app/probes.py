"""Is this worker of any use? Answers come from a checker's last look, never from work done in the probe.

    starting → ready ⇄ degraded → down,  and draining from any of them, for good

`degraded` still answers 200: it serves correct, reduced answers, and a fault that every replica shares must not take
all of them out of the load balancer at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import IntEnum

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from codeintel_rev.app.problems import Unready, problem_response
from codeintel_rev.errors import CodeIntelError
from codeintel_rev.io import disk_space, following
from codeintel_rev.mcp_server.blocking import Blocking
from codeintel_rev.observability.metrics import READINESS_CHANGES, exposition, observe_shards
from codeintel_rev.retrieval.searcher import Searcher
from codeintel_rev.retrieval.shard import XTR, XTR_PARTIAL
from codeintel_rev.types import ShardStatus

WORSE_AFTER = 3
BETTER_AFTER = 2
DWELL_S = 10.0
STALE_AFTER = 3
"""A checker that missed this many looks is itself a failure."""

log = structlog.get_logger(__name__)


class State(IntEnum):
    """How well this worker serves; a higher value serves less."""

    READY = 0
    DEGRADED = 1
    STARTING = 2
    DOWN = 3
    DRAINING = 4


@dataclass(frozen=True, slots=True)
class Check:
    """One part of a worker: whether it is well, and what there is of it or missing from it."""

    healthy: bool
    detail: str


@dataclass(slots=True)
class Readiness:
    """A worker's state with hysteresis: worse after three equal looks, better after two, at most once in ten seconds.

    The first look that is not `starting` counts at once. `interval_s` is the time between looks.
    """

    interval_s: float
    clock: Callable[[], float] = time.monotonic
    degraded: tuple[str, ...] = ()
    checks: Mapping[str, Check] = field(default_factory=dict)
    _state: State = State.STARTING
    _since: float = 0.0
    _looked: float = field(init=False)
    _streak: tuple[State, int] = (State.STARTING, 0)

    def __post_init__(self) -> None:
        self._looked = self.clock()

    @property
    def state(self) -> State:
        """The state now; `down` when the checker itself no longer looks."""
        stale = self.clock() - self._looked > STALE_AFTER * self.interval_s + DWELL_S
        return State.DOWN if stale and self._state is not State.DRAINING else self._state

    def look(self, seen: State) -> None:
        """Take one look's finding into account."""
        self._looked = self.clock()
        self._streak = (seen, self._streak[1] + 1 if self._streak[0] is seen else 1)
        if self._state is State.DRAINING or seen is self._state:
            return
        is_up = self._state is State.STARTING and seen < State.STARTING
        enough = WORSE_AFTER if seen > self._state else BETTER_AFTER
        if is_up or (self._streak[1] >= enough and self._has_dwelt()):
            self._become(seen)

    def drain(self) -> None:
        """Take no more work, whatever is seen from now on."""
        if self._state is not State.DRAINING:
            self._become(State.DRAINING)

    def _has_dwelt(self) -> bool:
        return self._state is State.STARTING or self._looked - self._since >= DWELL_S

    def _become(self, state: State) -> None:
        self._state, self._since = state, self.clock()
        READINESS_CHANGES.labels(state.name.lower()).inc()
        log.info("readiness", state=state.name.lower())


def judge(shards: tuple[ShardStatus, ...]) -> tuple[State, tuple[str, ...]]:
    """Return what the shards add up to, and the codes of what is missing. One that serves is enough to serve.

    One that was not verified yet counts neither way: nobody knows whether it can be served.
    """
    known = [shard for shard in shards if shard.verified]
    serving = [shard for shard in known if shard.generation and shard.state != "down"]
    codes = tuple(sorted({limit.code for shard in shards for limit in shard.limits}))
    if not serving:
        down = len(known) == len(shards) and any(shard.state == "down" for shard in known)
        return (State.DOWN if down else State.STARTING), codes
    whole = len(serving) == len(known) and all(shard.state != "degraded" for shard in known)
    return (State.READY if whole else State.DEGRADED), codes


def check_tokens(shards: tuple[ShardStatus, ...], *, is_on: bool) -> Check:
    """Return how late interaction is served: well when it is off, and while tokens are still being made."""
    if not is_on:
        return Check(True, "off")
    missing = [limit for shard in shards for limit in shard.limits if limit.stage == XTR and limit.code != XTR_PARTIAL]
    if missing:
        return Check(False, " ".join(limit.detail for limit in missing))
    indexes = [shard.tokens for shard in shards if shard.tokens]
    return Check(True, f"{len(indexes)} indexes, {sum(index.documents for index in indexes)} chunks")


def check_absent(shards: tuple[ShardStatus, ...], stage: str) -> Check:
    """Return whether no shard has a limit of `stage`, or else what they say."""
    details = dict.fromkeys(limit.detail for shard in shards for limit in shard.limits if limit.stage == stage)
    return Check(not details, " ".join(details))


async def keep_looking(searcher: Searcher, readiness: Readiness, *, xtr_is_on: bool) -> None:
    """Look at the shards every interval, for ever. Has a thread of its own: busy searches must not read as down."""
    with ThreadPoolExecutor(1, thread_name_prefix="readiness") as executor:
        blocking = Blocking(executor)
        while True:
            await look_once(searcher, blocking, readiness, xtr_is_on=xtr_is_on)
            await asyncio.sleep(readiness.interval_s)


async def look_once(searcher: Searcher, blocking: Blocking, readiness: Readiness, *, xtr_is_on: bool) -> None:
    """Take one look, and set the gauges by it."""
    try:
        shards = await blocking.run(lambda _: searcher.status(), readiness.interval_s * STALE_AFTER * 1000)
    except CodeIntelError as error:
        readiness.degraded = (error.slug,)
        readiness.look(State.DOWN)
        return
    state, readiness.degraded = judge(shards)
    readiness.checks = {
        "xtr_artifacts": check_tokens(shards, is_on=xtr_is_on),
        "disk": check_absent(shards, disk_space.STAGE),
        "watch": check_absent(shards, following.STAGE),
    }
    observe_shards(shards)
    readiness.look(state)


def probe_routes(readiness: Readiness) -> APIRouter:
    """Return `/livez /startupz /readyz /metrics`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> Response:
        return JSONResponse({"state": "alive"})

    @router.get("/startupz")
    async def startupz() -> Response:
        return _answer(readiness, ok=readiness.state is not State.STARTING)

    @router.get("/readyz")
    async def readyz() -> Response:
        return _answer(readiness, ok=readiness.state <= State.DEGRADED)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return router


def _answer(readiness: Readiness, *, ok: bool) -> Response:
    state = {
        "state": readiness.state.name.lower(),
        "degraded": readiness.degraded,
        "checks": {name: asdict(check) for name, check in readiness.checks.items()},
    }
    if ok:
        return JSONResponse(state)
    refusal = Unready(f"this worker is {state['state']}.", "index_status tells more; `codeintel index PATH` builds.")
    return problem_response(refusal, extensions=state)
