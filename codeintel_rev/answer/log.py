"""Where the events of answers are kept for whoever reads them, now or again: lines, numbered from 0 without a gap.

A line is JSON in ASCII, so that any text can be sent, and is made once: who reads an answer twice reads the same bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, get_args

import structlog

from codeintel_rev.answer.events import Event, Failed, Terminal, payload
from codeintel_rev.errors import PROBLEM_TYPE, EventsGone, NotFound, StoreUnavailable
from codeintel_rev.types import Line

log = structlog.get_logger(__name__)

Told = Mapping[str, Any]
"""An event as its line tells it: `type`, `seq`, `t_ms`, then its own members."""

TERMINAL = frozenset(kind.type for kind in get_args(Terminal))
MOST_ANSWERS = 1000
"""That a Ring keeps; an answer has about 50 kB of lines."""
POLL_S = 0.1
PAUSE_S = 5.0
"""Without the store, once it failed: a store that hangs must not slow down every line."""
_OF_A_PROBLEM = tuple("title status detail action code stage retryable retry_after_ms trace_id limits".split())


def line(told: Told) -> Line:
    """Return the line of an event."""
    return Line(told["seq"], told["type"], json.dumps(told, separators=(",", ":")), told["type"] in TERMINAL)


def told(event: Event, answer_id: str) -> Told:
    """Return what the line of `event` tells: its payload, a failure as a problem document (RFC 9457)."""
    members = payload(event)
    if not isinstance(event.body, Failed):
        return members
    problem = {name: members[name] for name in _OF_A_PROBLEM if name in members}
    address = {"type": PROBLEM_TYPE + event.body.slug, "instance": f"/answers/{answer_id}"}
    return {**{name: members[name] for name in ("type", "seq", "t_ms")}, "problem": {**address, **problem}}


class AnswerLog(Protocol):
    """`resumable`: every worker reads what any of them wrote."""

    @property
    def resumable(self) -> bool: ...

    async def append(self, answer_id: str, line: Line) -> None:
        """Keep the next line of an answer, its first one with `seq` 0."""
        ...

    async def read(self, answer_id: str, after: int, wait_s: float) -> tuple[Line, ...]:
        """Return the lines behind `after`, waiting so long for one; none then, or where the last one was told.

        Raises NotFound for an answer that is not kept, EventsGone where lines behind `after` are not.
        """
        ...

    async def end(self, answer_id: str) -> int | None:
        """Return the number of the last line, None while the answer is under way. Raises NotFound."""
        ...


class Store(Protocol):
    """What all workers reach. Every method raises StoreUnavailable, soon."""

    async def append(self, answer_id: str, line: Line) -> None:
        """Keep a line of an answer."""
        ...

    async def lines(self, answer_id: str, after: int) -> tuple[Line, ...]:
        """Return the kept lines behind `after`."""
        ...

    async def last(self, answer_id: str) -> Line | None:
        """Return the latest line, None for an answer that is not kept."""
        ...

    async def attend(self, answer_id: str, seconds: float) -> None:
        """Let it be known for so long that an answer has a reader."""
        ...

    async def is_attended(self, answer_id: str) -> bool: ...

    async def send_cancel(self, answer_id: str) -> None:
        """Tell every worker that an answer is cancelled."""
        ...

    def cancels(self) -> AsyncGenerator[str, None]:
        """Yield the answers that are cancelled from now on."""
        ...


@dataclass(slots=True)
class _Kept:
    lines: deque[Line]
    at: float
    more: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        return bool(self.lines) and self.lines[-1].is_last


@dataclass(slots=True)
class Ring:
    """The log of one process: the last `most_lines` of each answer, for `ttl_s` seconds behind its latest line.

    `clock` gives monotonic seconds.
    """

    most_lines: int
    ttl_s: float
    clock: Callable[[], float]
    most_answers: int = MOST_ANSWERS
    _answers: dict[str, _Kept] = field(default_factory=dict)

    @property
    def resumable(self) -> bool:
        return False

    async def append(self, answer_id: str, line: Line) -> None:
        kept = self._answers.pop(answer_id, None) or _Kept(deque(maxlen=self.most_lines), 0.0)
        kept.lines.append(line)
        kept.at = self.clock()
        self._answers[answer_id] = kept  # Behind all others: they are in the order of their latest lines.
        kept.more.set()
        kept.more = asyncio.Event()
        self._forget()

    async def read(self, answer_id: str, after: int, wait_s: float) -> tuple[Line, ...]:
        kept = self._kept(answer_id)
        if kept.lines[-1].seq <= after and not kept.is_over:
            try:
                async with asyncio.timeout(wait_s):
                    await kept.more.wait()
            except TimeoutError:
                return ()
        if kept.lines[0].seq > after + 1:
            raise EventsGone(f"events {after + 1} to {kept.lines[0].seq - 1} are gone.", "Ask again.")
        return tuple(islice(kept.lines, max(0, after + 1 - kept.lines[0].seq), None))

    async def end(self, answer_id: str) -> int | None:
        kept = self._kept(answer_id)
        return kept.lines[-1].seq if kept.is_over else None

    def holds(self, answer_id: str) -> bool:
        self._forget()
        return answer_id in self._answers

    def _kept(self, answer_id: str) -> _Kept:
        self._forget()
        if answer_id not in self._answers:
            raise NotFound("no such answer is kept by this worker.", "Ask again.")
        return self._answers[answer_id]

    def _forget(self) -> None:
        """Drop what nobody wrote to for too long, and the oldest beyond `most_answers`."""
        oldest = self.clock() - self.ttl_s
        while self._answers and (
            len(self._answers) > self.most_answers or next(iter(self._answers.values())).at <= oldest
        ):
            del self._answers[next(iter(self._answers))]


@dataclass(slots=True)
class Shared:
    """A ring whose lines every worker finds in a store. Without the store it is the ring, and tells so in the log.

    Who reads where the answer was made reads the ring; elsewhere the store is looked at every `POLL_S` seconds.
    """

    ring: Ring
    store: Store
    clock: Callable[[], float]
    _again: float = 0.0

    @property
    def resumable(self) -> bool:
        return True

    async def append(self, answer_id: str, line: Line) -> None:
        await self.ring.append(answer_id, line)
        if self.clock() < self._again:
            return
        try:
            await self.store.append(answer_id, line)
        except StoreUnavailable as error:
            self._again = self.clock() + PAUSE_S
            log.warning("answers_not_shared", reason=str(error), seconds=PAUSE_S)

    async def read(self, answer_id: str, after: int, wait_s: float) -> tuple[Line, ...]:
        if self.ring.holds(answer_id):
            return await self.ring.read(answer_id, after, wait_s)
        until = self.clock() + wait_s
        while not (found := await self.store.lines(answer_id, after)):
            if await self.end(answer_id) is not None or self.clock() >= until:
                return ()
            await asyncio.sleep(POLL_S)
        if [one.seq for one in found] != list(range(after + 1, after + 1 + len(found))):
            raise EventsGone(f"not all events behind {after} are kept.", "Ask again.")
        return found

    async def end(self, answer_id: str) -> int | None:
        if self.ring.holds(answer_id):
            return await self.ring.end(answer_id)
        last = await self.store.last(answer_id)
        if last is None:
            raise NotFound("no such answer is kept.", "Ask again.")
        return last.seq if last.is_last else None
