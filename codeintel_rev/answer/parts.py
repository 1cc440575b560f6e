"""What an answer is made with: the index, and the model servers where there are any."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from codeintel_rev.answer.library import Library
from codeintel_rev.retrieval.searcher import Searcher
from codeintel_rev.types import ChatDelta, ChatEnd, Message

T = TypeVar("T")


class Run(Protocol):
    """Runs a plain function in a thread."""

    async def __call__(self, work: Callable[[float], T], deadline_ms: float) -> T:
        """Return `work(milliseconds left)`. Raises DeadlineExceeded; cancelling the caller ends the wait at once."""
        ...


class Chat(Protocol):
    """A model that writes."""

    def stream(
        self, messages: Sequence[Message], *, max_tokens: int, trace_id: str
    ) -> AsyncGenerator[ChatDelta | ChatEnd, None]:
        """Yield pieces of text and then one ChatEnd. Closing it stops the model. Raises UpstreamFailed."""
        ...

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Return the tokens of `messages` as the server counts them, None when it cannot. Raises UpstreamFailed."""
        ...

    async def context_length(self) -> int | None:
        """Return the tokens of prompt and answer together that the model takes, None when unknown."""
        ...


class Score(Protocol):
    """A model that tells how well each of some texts answers a query."""

    async def score(self, query: str, documents: Sequence[str], *, trace_id: str) -> tuple[float, ...]:
        """Return a score a document, in their order. Raises UpstreamFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Without `chat`, whose `model` is named in answers, they are extractive; without `score` hits keep their order."""

    searcher: Searcher
    library: Library
    run: Run
    chat: Chat | None = None
    model: str = ""
    score: Score | None = None
