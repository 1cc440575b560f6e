"""The events of one answer, in the order they happen (answers §2.2).

    answer.created  stage*  sources  answer.extract  text.started  (text.delta | citation | citation.status)*
    limit*  usage?  then exactly one of answer.completed, answer.failed, answer.cancelled

`Log` numbers them: `seq` from 0 without a gap, `t_ms` milliseconds since the answer was asked for. Offsets count code
points of the text that all `text.delta` make together. A reader ignores types it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Literal, TypeVar

from codeintel_rev.types import Limit

T = TypeVar("T")

SCHEMA = "answer/1"

StageStatus = Literal["started", "ok", "timeout", "error", "skipped", "late"]
CitationStatus = Literal["supported", "weak", "unsupported", "stale"]
AnswerStatus = Literal["complete", "partial", "extractive", "abstained", "empty"]
CancelledBy = Literal["client", "disconnect", "shutdown"]


@dataclass(frozen=True, slots=True)
class Source:
    """Lines the answer may cite as `n`, counted from 1. `retrievers` is the rank in every channel that found them.

    `content_sha256` is of exactly these lines joined by `\\n`, in UTF-8; `permalink` is "" where there is no commit to
    link to. `tainted`: the lines hold what looks like instructions to a model.
    """

    n: int
    chunk_id: int
    repo: str
    commit: str
    path: str
    start_line: int
    end_line: int
    symbol: str
    language: str
    content_sha256: str
    permalink: str
    retrievers: Mapping[str, int]
    score: float
    tainted: bool


@dataclass(frozen=True, slots=True)
class ExtractItem:
    """One sentence of the extractive answer and the lines of source `n` it stands on."""

    n: int
    lines: tuple[int, int]
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """A cited line and the terms of the claim that stand on it."""

    line: int
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CitationCounts:
    total: int = 0
    supported: int = 0
    weak: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Created:
    """First, before any work."""

    type: ClassVar[str] = "answer.created"
    answer_id: str
    trace_id: str
    resumable: bool
    deadline_ms: float
    profile: str
    query_class: str
    schema: str = SCHEMA


@dataclass(frozen=True, slots=True)
class StageEvent:
    """One stage, when it starts or ends. `hits` is how many things it left, None where that says nothing."""

    type: ClassVar[str] = "stage"
    stage: str
    status: StageStatus
    ms: float | None = None
    budget_ms: float | None = None
    hits: int | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """What may be cited; before any text, and no number ever changes. `index` is the generation of every repository."""

    type: ClassVar[str] = "sources"
    sources: tuple[Source, ...]
    index: Mapping[str, str]
    final: bool = True


@dataclass(frozen=True, slots=True)
class Extract:
    """The answer that needs no model, as soon as the sources are there."""

    type: ClassVar[str] = "answer.extract"
    items: tuple[ExtractItem, ...]


@dataclass(frozen=True, slots=True)
class TextContext:
    """What stood in the prompt: how many sources, about how many tokens, how many sources did not fit."""

    sources: int
    tokens: int
    dropped: int


@dataclass(frozen=True, slots=True)
class TextStarted:
    """The text starts at `offset`: written by `model`, or the extractive answer where that is "".

    It starts a second time where a model's text was given up: what is before `offset` is then no part of the answer.
    """

    type: ClassVar[str] = "text.started"
    model: str
    context: TextContext
    offset: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    type: ClassVar[str] = "text.delta"
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker in the text, right after the delta that holds it. `offset` is the marker's, `claim` its sentence's span.

    An invalid one names no source and was removed from the text.
    """

    type: ClassVar[str] = "citation"
    cid: int
    n: int
    offset: int
    claim: tuple[int, int]
    status: Literal["exists", "invalid"]
    lines: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class CitationChecked:
    """What the cited lines say of the claim: `overlap` is the weighted share of its terms they hold."""

    type: ClassVar[str] = "citation.status"
    cid: int
    status: CitationStatus
    overlap: float
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Limited:
    """The live twin of one entry of `limits`."""

    type: ClassVar[str] = "limit"
    code: str
    stage: str
    action: str
    detail: str
    budget_ms: float | None = None
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the model server counted them, `ttft_ms` from the request to the first text, `tps` tokens a second."""

    type: ClassVar[str] = "usage"
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    ttft_ms: float | None
    tps: float | None


@dataclass(frozen=True, slots=True)
class Completed:
    """`text_sha256` is of the whole text in UTF-8."""

    type: ClassVar[str] = "answer.completed"
    status: AnswerStatus
    finish_reason: str
    confidence: float
    limits: tuple[Limit, ...]
    text_sha256: str
    citations: CitationCounts


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer; the members of an RFC 9457 problem, which the wire completes by `type` and `instance`."""

    type: ClassVar[str] = "answer.failed"
    slug: str
    title: str
    status: int
    detail: str
    action: str
    code: str
    stage: str
    retryable: bool
    trace_id: str
    limits: tuple[Limit, ...]
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody stopped it after `text_len` code points."""

    type: ClassVar[str] = "answer.cancelled"
    by: CancelledBy
    text_len: int


Terminal = Completed | Failed | Cancelled
Body = (
    Created
    | StageEvent
    | Sources
    | Extract
    | TextStarted
    | TextDelta
    | Citation
    | CitationChecked
    | Limited
    | Usage
    | Terminal
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one answer, numbered and timed."""

    seq: int
    t_ms: float
    body: Body

    @property
    def is_terminal(self) -> bool:
        return isinstance(self.body, Terminal)


def payload(event: Event) -> dict[str, object]:
    """Return the JSON object of an event: `type`, `seq`, `t_ms`, then its own members, those that are None left out."""
    members = {key: value for key, value in asdict(event.body).items() if value is not None}
    return {"type": event.body.type, "seq": event.seq, "t_ms": round(event.t_ms, 1), **members}


@dataclass(slots=True)
class Log:
    """Numbers the events of one answer. `clock` gives monotonic seconds."""

    clock: Callable[[], float]
    events: list[Event] = field(default_factory=list)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def elapsed_ms(self) -> float:
        return (self.clock() - self._started) * 1000

    def add(self, body: Body) -> Event:
        """Return `body` as the next event. Raises ValueError behind the terminal event: nothing follows it."""
        if self.events and self.events[-1].is_terminal:
            raise ValueError(f"{body.type} after {self.events[-1].body.type}")
        event = Event(len(self.events), self.elapsed_ms, body)
        self.events.append(event)
        return event

    def of(self, kind: type[T]) -> list[T]:
        """Return the bodies of one type so far."""
        return [event.body for event in self.events if isinstance(event.body, kind)]


def text_of(events: Iterable[Event]) -> str:
    """Return the text that all deltas make together."""
    return "".join(event.body.text for event in events if isinstance(event.body, TextDelta))
