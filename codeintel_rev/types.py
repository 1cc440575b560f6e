"""The values that flow along the arrow: repository → chunks → rankings → hits.

Start reading here, then `retrieval/search.py`. Everything is frozen; nothing here does work. Lines are 1-based and
inclusive, paths are relative to the repository and `/`-separated, and one name means one thing in SQL, Parquet, JSON
and Python alike.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

LateMode = Literal["off", "rescore", "wide", "both"]
"""Late interaction: none, over what the channels found, as a channel over every token, or both."""
Blend = Literal["rrf", "replace", "sum"]
"""How MaxSim meets the fused order: by ranks alone, instead of it, or by scores."""
ScoreNorm = Literal["none", "minmax", "z"]


class Role(StrEnum):
    """What a file is for; ranking demotes some roles unless the query asks for them."""

    CODE = "code"
    TEST = "test"
    DOCS = "docs"
    CONFIG = "config"
    EXAMPLE = "example"
    GENERATED = "generated"
    VENDORED = "vendored"


class Freshness(StrEnum):
    """Whether the lines shown still stand in the work tree as they were indexed."""

    FRESH = "fresh"
    EDITED = "edited"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that is indexed. `sha256` is of the raw bytes; `text` is decoded with newlines normalised to `\\n`."""

    path: str
    language: str
    role: Role
    size: int
    sha256: str
    encoding: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """One file that is not indexed, and why: it is reported, never silently dropped.

    `sha256` is of the raw bytes when they are the reason; "" when the file was not read.
    """

    path: str
    reason: str
    size: int
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """What the work tree was when it was read. A plain folder has empty `commit` and `branch`."""

    commit: str
    branch: str
    dirty: bool


@dataclass(frozen=True, slots=True)
class Definition:
    """One defined name: function, class, method, type, constant, heading …"""

    path: str
    language: str
    name: str
    qualified_name: str
    kind: str
    start_line: int
    end_line: int
    signature: str
    doc: str


CALLABLES = frozenset({"function", "method", "macro"})
"""The kinds of definitions that do something when they are called."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of whole lines of one file. `text` is exactly those lines joined by `\\n`, without a trailing newline.

    `symbol` is the qualified name of the definition the chunk belongs to ("" when none), `kind` that definition's kind
    (or "module", "text", "window"), `header` the enclosing signature a split-off part would otherwise have lost.
    """

    chunk_id: int
    repo: str
    path: str
    language: str
    role: Role
    start_line: int
    end_line: int
    kind: str
    symbol: str
    header: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a query may look; what is empty does not restrict. `paths` are gitignore-style globs, `!` negates.

    `generation`, an id, or `as_of`, a time, asks what was published then instead of what is now.
    """

    repos: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    generation: str = ""
    as_of: str = ""

    @property
    def restricts_chunks(self) -> bool:
        return bool(self.paths or self.languages or self.kinds)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a restricting Scope means in one generation: `chunk_ids` (n,) int64 ascending, and the `paths` they lie in.

    It is pushed down into every channel. Both are empty when nothing is in scope.
    """

    chunk_ids: Ids
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """One channel's answer, best first: `chunk_ids` (n,) int64 and `scores` (n,) float32, higher is better.

    Equal scores are ordered by ascending chunk_id, so that the same generation and query give the same bytes.
    """

    channel: str
    chunk_ids: Ids
    scores: Floats

    def __len__(self) -> int:
        return len(self.chunk_ids)


@dataclass(frozen=True, slots=True)
class Limit:
    """Something the caller did not get, and why. Degrading is data: every caught failure becomes one of these."""

    code: str
    stage: str
    detail: str
    action: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """One channel's part in a hit's score: rank is 1-based in the channel, `score` is the channel's own."""

    rank: int | None
    score: float
    weight: float
    contribution: float


@dataclass(frozen=True, slots=True)
class TokenMatch:
    """A token of the query met one of the hit: cosine, part of the hit's MaxSim, and where, in 1-based characters."""

    query_token: str
    document_token: str
    similarity: float
    share: float
    path: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer to a query: exact lines and the reasons why they were chosen."""

    chunk_id: int
    repo: str
    path: str
    start_line: int
    end_line: int
    language: str
    symbol: str
    kind: str
    snippet: str
    score: float
    freshness: Freshness
    commit: str
    why: tuple[str, ...]
    contributions: dict[str, Contribution]
    token_matches: tuple[TokenMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One arrow of a query, timed. `status` is ok, late, failed or skipped."""

    name: str
    ms: float
    status: str
    budget_ms: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits best first, how they were found, what was limited, and the generation of every repository asked.

    `notes` count what late interaction did: `xtr_rescore:180`, `xtr_missing:20`.
    """

    hits: tuple[Hit, ...]
    plan: str
    channels: tuple[str, ...]
    stages: tuple[Stage, ...]
    limits: tuple[Limit, ...]
    scope: Scope
    generations: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of what a model writes."""

    text: str


@dataclass(frozen=True, slots=True)
class ChatEnd:
    """A model ended by itself (`stop`) or was cut (`length`); tokens as its server counted them, None if it did not."""

    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """Which model made the vectors: vectors of two fingerprints are never compared.

    `sha256` covers the weights, the tokenizer and the code path that turns one into vectors (architecture.md law 7).
    """

    model: str
    revision: str
    dim: int
    pooling: str
    dtype: str
    max_tokens: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """What a running build is doing. `rate` is items per second, `eta_s` seconds left; both None when unknown."""

    stage: str
    done: int
    total: int
    rate: float | None
    eta_s: float | None
    started_at: float
    pid: int


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """An open token index: `bytes` on disk, and how many milliseconds its builder trained and wrote."""

    documents: int
    tokens: int
    segments: int
    bytes: int
    train_ms: float
    write_ms: float


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """The truth about one repository's index. `state` is empty, building, ready, degraded or down.

    Until this process has `verified` a generation by opening it, what is told is what its manifest says.
    `compaction_due` is why its vectors are to be indexed again as one, "" when they are not.
    """

    repo: str
    state: str
    generation: str
    parent: str
    published_at: str
    revision: Revision
    counts: dict[str, int]
    vector_coverage: float
    model: ModelFingerprint | None
    building: BuildProgress | None
    limits: tuple[Limit, ...]
    tokens: TokenFigures | None = None
    verified: bool = True
    compaction_due: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One event of an answer as it is kept and sent: `data` is its JSON object, in ASCII, on one line."""

    seq: int
    type: str
    data: str
    is_last: bool

    def told(self) -> dict[str, Any]:
        """Return the object."""
        return dict(json.loads(self.data))
