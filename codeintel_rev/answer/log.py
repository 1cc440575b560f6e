"""Where the events of answers are kept for whoever reads them, now or again: lines, numbered from 0 without a gap.

A line is JSON in ASCII, so that any text can be sent, and is made once: who reads an answer twice reads the same bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, get_args

from codeintel_rev.answer.events import Event, Failed, Terminal, payload
from codeintel_rev.errors import PROBLEM_TYPE, EventsGone, NotFound

Told = Mapping[str, Any]
"""An event as its line tells it: `type`, `seq`, `t_ms`, then its own members."""

TERMINAL = frozenset(kind.type for kind in get_args(Terminal))
MOST_ANSWERS = 1000
"""That a Ring keeps; an answer has about 50 kB of lines."""
_OF_A_PROBLEM = tuple("title status detail action code stage retryable retry_after_ms trace_id limits".split())


@dataclass(frozen=True, slots=True)
class Line:
    """One event. `data` is its JSON object on one line."""

    seq: int
    type: str
    data: str

    @property
    def is_last(self) -> bool:
        return self.type in TERMINAL

    def told(self) -> dict[str, Any]:
        """Return the object."""
        return dict(json.loads(self.data))


def line(told: Told) -> Line:
    """Return the line of an event."""
    return Line(told["seq"], told["type"], json.dumps(told, separators=(",", ":")))


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
        return tuple(one for one in kept.lines if one.seq > after)

    async def end(self, answer_id: str) -> int | None:
        kept = self._kept(answer_id)
        return kept.lines[-1].seq if kept.is_over else None

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
