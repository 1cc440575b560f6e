"""One answer under way: its events, its state, its time, and who may stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from codeintel_rev.answer.budgets import Profile, State, advance
from codeintel_rev.answer.events import (
    Body,
    CancelledBy,
    Citation,
    CitationChecked,
    CitationCounts,
    Event,
    Limited,
    Log,
    TextDelta,
)
from codeintel_rev.types import Limit

T = TypeVar("T")

_CLOSING_S = 0.03
"""What is cancelled may take so long to let go of its connection."""

Cancel = asyncio.Future[CancelledBy]
"""Resolved by whoever stops an answer, with who it is."""


class Stopped(Exception):
    """Somebody stopped the answer; never leaves this package."""

    def __init__(self, by: CancelledBy) -> None:
        super().__init__(by)
        self.by = by


@dataclass(slots=True)
class Course:
    """Made when the answer is asked for: the time runs from then on.

    `resources` are closed with the answer: an iterator that is left half way closes none of those within it.
    """

    profile: Profile
    cancel: Cancel
    log: Log
    state: State = State.RECEIVED
    text: str = ""
    limits: list[Limit] = field(default_factory=list)
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    def to(self, state: State) -> None:
        """Go on to `state`. Raises ValueError where that may not follow."""
        self.state = advance(self.state, state)

    def tell(self, body: Body) -> Event:
        """Return `body` as the next event; text and limits are kept for the last one."""
        if isinstance(body, TextDelta):
            self.text += body.text
        elif isinstance(body, Limited):
            self.limits.append(Limit(body.code, body.stage, body.detail, body.action))
        return self.log.add(body)

    def citations(self, first_cid: int = 0) -> CitationCounts:
        """Return how the citations from `first_cid` on stand now."""
        cited = [citation for citation in self.log.of(Citation) if citation.cid >= first_cid]
        now = {checked.cid: checked.status for checked in self.log.of(CitationChecked) if checked.cid >= first_cid}
        statuses = list(now.values())
        invalid = sum(citation.status == "invalid" for citation in cited)
        return CitationCounts(len(cited), statuses.count("supported"), statuses.count("weak"), invalid)

    def within(self, own_ms: float) -> float:
        """Return the milliseconds a stage has from now on."""
        return self.profile.within(own_ms, self.log.elapsed_ms)

    async def wait(self, work: Awaitable[T], ms: float) -> T:
        """Return what `work` gives within `ms`; else it is cancelled. Raises TimeoutError, Stopped, what it raises."""
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, self.cancel}
        try:
            await asyncio.wait(either, timeout=ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            if self.cancel.done():
                raise Stopped(self.cancel.result())
            if not task.done():
                raise TimeoutError
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_CLOSING_S)
