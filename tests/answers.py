"""What the tests of answers are made of: hits, facts and passages small enough to read."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from codeintel_rev.answer.events import CancelledBy, Event
from codeintel_rev.answer.library import Facts, FileFacts
from codeintel_rev.answer.orchestrator import Question, answer
from codeintel_rev.answer.pack import Pack, pack
from codeintel_rev.answer.parts import Parts
from codeintel_rev.config.settings import AnswerSettings
from codeintel_rev.errors import StoreUnavailable
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.types import (
    ChatDelta,
    ChatEnd,
    Contribution,
    Definition,
    Freshness,
    Hit,
    Limit,
    Line,
    Message,
    Revision,
    Scope,
    SearchResult,
    Stage,
)

T = TypeVar("T")

COMMIT = "c0ffee" + "0" * 34
CART = '''\
"""The cart of a shopper."""

class Cart:
    """Items somebody means to buy."""

    def __init__(self, limit):
        self.limit = limit
        self.items = []

    def add(self, item):
        """Put an item into the cart.

        Raises CartFull when there are too many.
        """
        if len(self.items) >= self.limit:
            raise CartFull(self.limit)
        self.items.append(item)

    def total(self, rates):
        return sum(item.price * rates[item.currency] for item in self.items)
'''.rstrip("\n")
LINES = tuple(CART.split("\n"))
DEFINITIONS = (
    Definition("shop/cart.py", "python", "Cart", "Cart", "class", 3, 20, "class Cart:", "Items somebody means to buy."),
    Definition("shop/cart.py", "python", "add", "Cart.add", "method", 10, 17, "def add(self, item):",
               "Put an item into the cart.\n\nRaises CartFull when there are too many."),
    Definition("shop/cart.py", "python", "total", "Cart.total", "method", 19, 20, "def total(self, rates):", ""),
)  # fmt: skip
FACTS = {("shop", "shop/cart.py"): FileFacts(Revision(COMMIT, "main", dirty=False), LINES, DEFINITIONS)}


def hit(
    start: int,
    end: int,
    score: float = 1.0,
    *,
    path: str = "shop/cart.py",
    text: str | None = None,
    symbol: str = "",
    channel: str = "lexical",
    freshness: Freshness = Freshness.FRESH,
) -> Hit:
    """Return a hit on lines of the cart, or of `text` as all of another file."""
    snippet = "\n".join(LINES[start - 1 : end]) if text is None else text
    return Hit(
        chunk_id=start * 1000 + sum(map(ord, path)),
        repo="shop",
        path=path,
        start_line=start,
        end_line=start + snippet.count("\n"),
        language="python",
        symbol=symbol,
        kind="function",
        snippet=snippet,
        score=score,
        freshness=freshness,
        commit=COMMIT,
        why=(),
        contributions={channel: Contribution(1, score, 1.0, score)},
    )


ADD = hit(10, 17, 1.0, symbol="Cart.add")


def words(text: str) -> int:
    return len(text.split())


def packed(*hits: Hit, facts: dict = FACTS, budget: int = 1000, max_sources: int = 12, permalink: str = "") -> Pack:
    return pack(hits, facts, count=words, budget=budget, max_sources=max_sources, permalink=permalink)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer: hours pass in no time, and nothing depends on the machine."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.now += timeout or 0.0
        return super().select(0)


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives in a loop with a clock of its own."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def at_once(work: Callable[[float], T], deadline_ms: float) -> T:
    return work(deadline_ms)


@dataclass(slots=True)
class Index:
    """A searcher and a library over fixed hits. `failure` is raised by the search, `facts_failure` by the library."""

    hits: tuple[Hit, ...] = (ADD,)
    limits: tuple[Limit, ...] = ()
    status: str = "ok"
    failure: Exception | None = None
    facts_failure: Exception | None = None
    now: tuple[str, ...] | None = LINES

    def search(
        self,
        query: str,
        scope: Scope,
        limit: int,
        *,
        deadline_ms: float,
        explained: range = NONE,
        options: Options = AS_SET,
    ) -> SearchResult:
        if self.failure:
            raise self.failure
        stages = (Stage("lexical", 1.0, self.status, 500.0),)
        return SearchResult(self.hits, "topic", ("lexical",), stages, self.limits, scope, {"shop": "01"})

    def facts(self, files: Iterable[tuple[str, str]], generations: Mapping[str, str]) -> Facts:
        if self.facts_failure:
            raise self.facts_failure
        return {file: FACTS[file] for file in files if file in FACTS}

    def standing(self, repo: str, path: str) -> tuple[str, ...] | None:
        return self.now

    def known_names(self, repos: Collection[str], names: Collection[str]) -> set[str]:
        return {definition.name for definition in DEFINITIONS} & set(names)


@dataclass(slots=True)
class FakeChat:
    """A model that says its script: texts, a number of seconds to wait, an error to raise, an end."""

    script: Sequence[str | float | Exception | ChatEnd]
    counted: int | None = 100
    length: int | None = 8000
    asked: list[Sequence[Message]] = field(default_factory=list)
    closed: int = 0

    async def stream(
        self, messages: Sequence[Message], *, max_tokens: int, trace_id: str
    ) -> AsyncGenerator[ChatDelta | ChatEnd, None]:
        self.asked.append(messages)
        try:
            for part in self.script:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, int | float):
                    await asyncio.sleep(part)
                else:
                    yield ChatDelta(part) if isinstance(part, str) else part
        finally:
            self.closed += 1

    async def count(self, messages: Sequence[Message]) -> int | None:
        return self.counted

    async def context_length(self) -> int | None:
        return self.length


@dataclass(slots=True)
class FakeScore:
    """Scores texts as it was told, after `delay` seconds."""

    scores: tuple[float, ...] | Exception
    delay: float = 0.0

    async def score(self, query: str, documents: Sequence[str], *, trace_id: str) -> tuple[float, ...]:
        await asyncio.sleep(self.delay)
        if isinstance(self.scores, Exception):
            raise self.scores
        return self.scores


STOP = ChatEnd("stop", 100, 20, 0)
ASKED = Question("How does `Cart.add` put an item into the cart?", Scope(), "a1", "t1")


def asked(
    index: Index,
    chat: FakeChat | None = None,
    score: FakeScore | None = None,
    *,
    question: Question = ASKED,
    settings: AnswerSettings | None = None,
    run: Any = at_once,
    cancel_after: float | None = None,
) -> list[Event]:
    """Return the events of an answer; cancelled by its client after so many seconds."""

    async def collect() -> list[Event]:
        loop = asyncio.get_running_loop()
        cancel: asyncio.Future[CancelledBy] = loop.create_future()
        if cancel_after is not None:
            loop.call_later(cancel_after, cancel.set_result, "client")
        parts = Parts(index, index, run, chat, "tiny", score)  # type: ignore[arg-type]
        events: AsyncIterator[Event] = answer(question, parts, settings or AnswerSettings(), cancel)
        return [event async for event in events]

    return run_virtually(collect())


@dataclass(slots=True)
class FakeStore:
    """What workers share, in memory. `is_down` makes every call fail; `now` is the time in seconds."""

    now: Callable[[], float]
    most_lines: int = 4096
    ttl_s: float = 600.0
    is_down: bool = False
    tried: int = 0
    _lines: dict[str, list[Line]] = field(default_factory=dict)
    _until: dict[str, float] = field(default_factory=dict)
    _hearers: list[asyncio.Queue[str]] = field(default_factory=list)

    async def append(self, answer_id: str, line: Line) -> None:
        self._reach()
        self._lines[answer_id] = [*self._kept(answer_id), line][-self.most_lines :]
        self._until[answer_id] = self.now() + self.ttl_s

    async def lines(self, answer_id: str, after: int) -> tuple[Line, ...]:
        self._reach()
        return tuple(line for line in self._kept(answer_id) if line.seq > after)

    async def last(self, answer_id: str) -> Line | None:
        self._reach()
        return next(reversed(self._kept(answer_id)), None)

    async def attend(self, answer_id: str, seconds: float) -> None:
        self._reach()
        self._until[f"{answer_id}:reader"] = self.now() + seconds

    async def is_attended(self, answer_id: str) -> bool:
        self._reach()
        return self.now() < self._until.get(f"{answer_id}:reader", 0.0)

    async def send_cancel(self, answer_id: str) -> None:
        self._reach()
        for hearer in self._hearers:
            hearer.put_nowait(answer_id)

    async def cancels(self) -> AsyncGenerator[str, None]:
        self._reach()
        self._hearers.append(asyncio.Queue())
        heard = self._hearers[-1]
        while True:
            yield await heard.get()

    def _kept(self, answer_id: str) -> list[Line]:
        return self._lines.get(answer_id, []) if self.now() < self._until.get(answer_id, 0.0) else []

    def _reach(self) -> None:
        self.tried += 1
        if self.is_down:
            raise StoreUnavailable("the fake is down.", "Wait.")
