"""Answers under way: each in a task of its own that writes to a log, whoever reads it, and as long as anybody does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import structlog

from codeintel_rev.answer.budgets import ProfileName
from codeintel_rev.answer.course import Cancel
from codeintel_rev.answer.events import CancelledBy, Event, Failed
from codeintel_rev.answer.log import PAUSE_S, AnswerLog, Store, line, told
from codeintel_rev.answer.orchestrator import Question, answer
from codeintel_rev.answer.parts import Parts
from codeintel_rev.answer.trace import trace_of
from codeintel_rev.config.settings import AnswerSettings
from codeintel_rev.errors import CodeIntelError, StoreUnavailable
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.types import Line, Scope

SILENCE_S = 10.0
"""After which a reader is told that there is nothing new."""
GRACE_S = 15.0
"""That an answer waits for its first reader, and for one to come back where any worker could let it read on."""
_CLOSING_S = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a caller puts it; `traced` asks for the `trace` event."""

    text: str
    scope: Scope
    profile: ProfileName | None = None
    traced: bool = False


@dataclass(slots=True)
class _Running:
    cancel: Cancel
    task: asyncio.Task[None] | None = None
    readers: int = 0
    grace: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Answers:
    """All answers of this process. `record` takes the trace of each; it must not block.

    With a `store`, which `log` shares, other workers' callers read and cancel them too.
    """

    parts: Parts
    settings: AnswerSettings
    log: AnswerLog
    record: Callable[[AnswerTrace], None]
    store: Store | None = None
    _running: dict[str, _Running] = field(default_factory=dict)

    async def ask(self, asked: Asked, trace_id: str) -> str:
        """Start an answer and return its id, which nobody can guess: who has it may read and cancel the answer.

        Raises InvalidArgument.
        """
        cancel: Cancel = asyncio.get_running_loop().create_future()
        answer_id = secrets.token_hex(16)
        question = Question(asked.text, asked.scope, answer_id, trace_id, asked.profile, self.log.resumable)
        events = answer(question, self.parts, self.settings, cancel)
        created = await anext(events)
        await self.log.append(answer_id, line(told(created, answer_id)))
        running = self._running[answer_id] = _Running(cancel)
        running.task = asyncio.create_task(self._write(question, [created], events, traced=asked.traced))
        running.task.add_done_callback(lambda task: self._over(answer_id, task))
        running.grace = asyncio.create_task(self._wait_for_readers(answer_id))
        return answer_id

    async def lines(
        self, answer_id: str, after: int = -1, leaving: CancelledBy = "disconnect"
    ) -> AsyncGenerator[Line | None, None]:
        """Yield the lines behind `after`, the last one included, and None after each SILENCE_S without one.

        Raises NotFound and EventsGone, before the first line. To be closed: an answer that nobody reads is cancelled,
        later where a reader whose connection broke may come back, at once by a `leaving` client.
        """
        self._come(answer_id)
        try:
            while True:
                await self._attend(answer_id)
                found = await self.log.read(answer_id, after, SILENCE_S)
                if not found:
                    if await self.is_told(answer_id, after):
                        return
                    yield None
                for one in found:
                    yield one
                    after = one.seq
                    if one.is_last:
                        return
        finally:
            self._leave(answer_id, leaving)

    async def all_lines(self, answer_id: str) -> list[Line]:
        """Return every line once the answer is over. Raises NotFound, EventsGone."""
        async with aclosing(self.lines(answer_id)) as lines:
            return [one async for one in lines if one]

    async def cancel(self, answer_id: str, by: CancelledBy = "client") -> None:
        """Stop an answer, at once; one that is over stays as it is. Raises NotFound."""
        if answer_id not in self._running:
            if await self.log.end(answer_id) is None and self.store:
                await self.store.send_cancel(answer_id)
            return
        self._stop(answer_id, by)

    async def is_told(self, answer_id: str, after: int) -> bool:
        """Return whether nothing comes behind line `after`. Raises NotFound."""
        end = await self.log.end(answer_id)
        return end is not None and end <= after

    async def listen(self) -> None:
        """Stop what callers of other workers cancel, for ever. REQUIRES a store."""
        while self.store:
            try:
                async with aclosing(self.store.cancels()) as cancels:
                    async for answer_id in cancels:
                        self._stop(answer_id, "client")
            except StoreUnavailable as error:
                log.warning("cancels_not_heard", reason=str(error), seconds=PAUSE_S)
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Stop every answer and wait until each has told so."""
        for answer_id in list(self._running):
            self._stop(answer_id, "shutdown")
        tasks = [running.task for running in self._running.values() if running.task]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSING_S)

    async def _write(
        self, question: Question, events: list[Event], coming: AsyncIterator[Event], *, traced: bool
    ) -> None:
        """Write what comes to the log; the terminal event whatever happens, and its trace."""
        asked_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            async for event in coming:
                events.append(event)
                if not event.is_terminal:
                    await self.log.append(question.answer_id, line(told(event, question.answer_id)))
        finally:
            if not events[-1].is_terminal:
                events.append(_broken(events, question))
            trace = trace_of(question, events, asked_at, with_text=self.settings.trace_text)
            end = events[-1]
            if traced:
                row = {"type": "trace", "seq": end.seq, "t_ms": round(end.t_ms, 1), "trace": _shown(trace)}
                await self.log.append(question.answer_id, line(row))
                end = replace(end, seq=end.seq + 1)
            await self.log.append(question.answer_id, line(told(end, question.answer_id)))
            self.record(trace)

    def _over(self, answer_id: str, task: asyncio.Task[None]) -> None:
        if grace := self._running.pop(answer_id).grace:
            grace.cancel()
        if not task.cancelled() and (error := task.exception()):
            log.error("answer_failed", exc_info=error)

    def _stop(self, answer_id: str, by: CancelledBy) -> None:
        running = self._running.get(answer_id)
        if running and not running.cancel.done():
            running.cancel.set_result(by)

    def _come(self, answer_id: str) -> None:
        if running := self._running.get(answer_id):
            running.readers += 1
            if running.grace:
                running.grace.cancel()
                running.grace = None

    def _leave(self, answer_id: str, by: CancelledBy) -> None:
        """Stop an answer without readers: a log that other workers read gives them time to come back."""
        running = self._running.get(answer_id)
        if not running:
            return
        running.readers -= 1
        if running.readers:
            return
        if self.log.resumable and by == "disconnect":
            running.grace = asyncio.create_task(self._wait_for_readers(answer_id))
        else:
            self._stop(answer_id, by)

    async def _wait_for_readers(self, answer_id: str) -> None:
        """Stop the answer unless somebody comes back, to whichever worker."""
        attended = True
        while attended:
            await asyncio.sleep(GRACE_S)
            attended = await self._is_attended(answer_id)
        self._stop(answer_id, "disconnect")

    async def _is_attended(self, answer_id: str) -> bool:
        try:
            return await self.store.is_attended(answer_id) if self.store else False
        except StoreUnavailable:
            return False

    async def _attend(self, answer_id: str) -> None:
        """Tell the worker that makes the answer, where it is another one, that it is read here."""
        if self.store and answer_id not in self._running:
            # Reading tells of a store that is needed and away; an answer that ended here needs none.
            with suppress(StoreUnavailable):
                await self.store.attend(answer_id, SILENCE_S + GRACE_S)


def _broken(events: list[Event], question: Question) -> Event:
    """Return the end of an answer that a bug cut off."""
    error = CodeIntelError("the server failed on this question.", "Report the trace_id if it persists.")
    failed = Failed(
        slug=error.slug,
        title=error.title,
        status=error.status,
        detail=error.detail,
        action=error.hint,
        code="answer.internal",
        stage="answer",
        retryable=False,
        trace_id=question.trace_id,
        limits=(),
    )
    return Event(len(events), events[-1].t_ms, failed)


def _shown(trace: AnswerTrace) -> dict[str, object]:
    """Return the row without what says nothing, and never with text: a trace may be shown to others."""
    row = asdict(trace)
    return {name: value for name, value in row.items() if value is not None and name not in ("question", "text")}
