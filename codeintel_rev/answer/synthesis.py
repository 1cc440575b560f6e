"""A model writes the answer: the prompt it gets, its stream under the budgets, and how that ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from codeintel_rev.answer.budgets import State
from codeintel_rev.answer.course import Course
from codeintel_rev.answer.events import Event, Limited, TextContext, TextDelta, TextStarted, Usage
from codeintel_rev.answer.fence import Fenced, prompt
from codeintel_rev.answer.pack import Passage
from codeintel_rev.answer.parts import Chat
from codeintel_rev.answer.transcript import Told, Transcript
from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.indexing.token_estimate import estimate_tokens
from codeintel_rev.types import ChatDelta, ChatEnd, Message

Said = ChatDelta | ChatEnd

_ESTIMATE_MARGIN = 1.1  # An estimate is taken for so much more.
_GRACE = 0.9  # From this share of the time on, a stream ends with its sentence.
_SO_FAR = "What was checked so far is the answer, else the sources' own."
_SHRINK = 0.5  # What is left of a prompt that the server finds too long.


@dataclass(frozen=True, slots=True)
class Prompt:
    """Messages over the first `sources` of the passages, about `tokens` long."""

    messages: tuple[Message, ...]
    sources: int
    tokens: int


@dataclass(slots=True)
class Synthesis:
    """What a model wrote. `ended` is the model's `stop` or `length`, or `deadline`; "" when it failed."""

    question: str
    passages: Sequence[Passage]
    nonce: str
    model: str
    max_tokens: int
    trace_id: str
    transcript: Transcript
    ended: str = ""

    async def write(self, course: Course, chat: Chat) -> AsyncIterator[Event]:
        """Yield the events of the text, and a limit for whatever went wrong. Raises Stopped."""
        whole = self._fitting(None)
        length = await _known(course, chat.context_length())
        counted = await _known(course, chat.count(whole.messages))
        if counted is None:
            detail = "The model server did not count the prompt's tokens; they were estimated."
            yield course.tell(Limited("pack.estimated", "synthesis", "The prompt may hold less than fits.", detail))
        asked = self._fitting(_room(whole, length, counted or whole.tokens, self.max_tokens))
        try:
            async for event in self._stream(course, chat, asked):
                yield event
        except _TooLong:
            async for event in self._stream(course, chat, self._fitting(int(asked.tokens * _SHRINK))):
                yield event

    async def _stream(self, course: Course, chat: Chat, asked: Prompt) -> AsyncIterator[Event]:
        """Yield the events of one request. Raises _TooLong while there is no text, Stopped."""
        clock = _Clock(course.log.elapsed_ms)
        context = TextContext(asked.sources, asked.tokens, len(self.passages) - asked.sources)
        self.transcript.passages = self.passages[: asked.sources]
        try:
            said = chat.stream(asked.messages, max_tokens=self.max_tokens, trace_id=self.trace_id)
            course.resources.push_async_callback(said.aclose)
            async with aclosing(said):
                while not self.ended:
                    piece = await self._next(course, said, clock)
                    clock.hear(piece, course.log.elapsed_ms)
                    for event in self._taken(course, piece, clock, context):
                        yield event
        except TimeoutError:
            for body in self.transcript.cut():
                yield course.tell(body)
            yield course.tell(clock.late(course))
        except UpstreamFailed as error:
            if error.prompt_too_long and not self.transcript.text and asked.sources > 1:
                raise _TooLong from error
            for body in self.transcript.cut():
                yield course.tell(body)
            yield course.tell(Limited(error.code, "synthesis", _SO_FAR, error.detail))

    async def _next(self, course: Course, said: AsyncGenerator[Said, None], clock: _Clock) -> Said:
        """Return the next piece. Raises TimeoutError when it is late or the time is up, UpstreamFailed, Stopped."""
        own = course.profile.first_token_ms if clock.first_ms is None else course.profile.stall_ms
        left = course.within(own) - (course.profile.verify_ms if course.within(own) < own else 0)
        try:
            return await course.wait(anext(said), max(0.0, left))
        except StopAsyncIteration as error:
            raise UpstreamFailed("the model's stream ended without an end.", code="synthesis.truncated") from error

    def _taken(self, course: Course, piece: Said, clock: _Clock, context: TextContext) -> Iterator[Event]:
        if isinstance(piece, ChatDelta):
            yield from self._told(course, self.transcript.feed(piece.text), context)
            if clock.is_time(course) and self.transcript.ends_sentence:
                yield from self._told(course, self.transcript.cut(), context)
                yield course.tell(clock.late(course))
                self.ended = "deadline"
        else:
            yield from self._told(course, self.transcript.finish(), context)
            if not self.transcript.text.strip():
                raise UpstreamFailed("the model wrote nothing.", code="synthesis.empty")
            self.ended = piece.finish_reason
            yield course.tell(clock.usage(piece, course.log.elapsed_ms))
            if piece.finish_reason == "length":
                detail = f"The model was cut after {self.max_tokens} tokens."
                action = "Ask for less, or raise answer.max_tokens."
                yield course.tell(Limited("synthesis.max_tokens", "synthesis", action, detail))

    def _told(self, course: Course, told: Iterable[Told], context: TextContext) -> Iterator[Event]:
        for body in told:
            if course.state is State.AWAIT_FIRST_TOKEN and isinstance(body, TextDelta):
                course.to(State.STREAM)
                yield course.tell(TextStarted(self.model, context))
            yield course.tell(body)

    def _fitting(self, room: int | None) -> Prompt:
        """Return the prompt of as many passages, from the first, as fit into `room` tokens; of one at least."""
        asked = _prompt(self.question, self.passages, self.nonce)
        while room is not None and asked.tokens > room and asked.sources > 1:
            asked = _prompt(self.question, self.passages[: asked.sources - 1], self.nonce)
        return asked


class _TooLong(Exception):
    """The server takes no prompt of this length."""


@dataclass(slots=True)
class _Clock:
    """When a request was made and first answered, in the milliseconds of the answer."""

    asked_ms: float
    first_ms: float | None = None

    def hear(self, piece: Said, now_ms: float) -> None:
        if self.first_ms is None and isinstance(piece, ChatDelta):
            self.first_ms = now_ms

    def is_time(self, course: Course) -> bool:
        return course.log.elapsed_ms >= _GRACE * (course.profile.deadline_ms - course.profile.verify_ms)

    def late(self, course: Course) -> Limited:
        """Return what ran out: the whole time, that of the first token, or that between two."""
        now, profile = course.log.elapsed_ms, course.profile
        if self.is_time(course):
            return _late("synthesis.deadline", now - self.asked_ms, profile.deadline_ms)
        if self.first_ms is None:
            return _late("synthesis.ttft_timeout", now - self.asked_ms, profile.first_token_ms)
        return _late("synthesis.stall", now - self.asked_ms, profile.stall_ms)

    def usage(self, end: ChatEnd, now_ms: float) -> Usage:
        first = None if self.first_ms is None else self.first_ms - self.asked_ms
        spent = now_ms - (self.first_ms or now_ms)
        rate = (end.completion_tokens - 1) / spent * 1000 if end.completion_tokens and spent > 0 else None
        return Usage(end.prompt_tokens, end.completion_tokens, end.cached_tokens, first, rate)


async def _known(course: Course, asked: Awaitable[int | None]) -> int | None:
    """Return what the model server tells about itself, None when it does not, or not in time. Raises Stopped."""
    try:
        return await course.wait(asked, course.within(course.profile.pack_ms))
    except (TimeoutError, UpstreamFailed):
        return None


def _room(whole: Prompt, length: int | None, counted: int, max_tokens: int) -> int | None:
    """Return the estimated tokens to which a prompt of `counted` must shrink, None when the model takes it."""
    if length is None or counted + max_tokens <= length:
        return None
    return int((length - max_tokens) * whole.tokens / counted)


def _prompt(question: str, passages: Sequence[Passage], nonce: str) -> Prompt:
    sources = [Fenced(p.source.n, p.source.path, p.source.start_line, p.breadcrumb, p.text) for p in passages]
    messages = prompt(question, sources, nonce)
    tokens = round(_ESTIMATE_MARGIN * sum(estimate_tokens(message.content) for message in messages))
    return Prompt(messages, len(passages), tokens)


def _late(code: str, ms: float, budget_ms: float) -> Limited:
    action = f"{_SO_FAR} A deeper profile has more time."
    return Limited(code, "synthesis", action, "The model was not in time.", budget_ms, round(ms, 1))
