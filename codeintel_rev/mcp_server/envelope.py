"""The shapes on the wire, one for MCP and HTTP. Field names are those of types.py; conversion is by hand.

Compact is the default: `contributions`, `token_matches`, `explainability` and stage times are only there when the
caller asked to have them explained, `notes` only where late interaction took part.
"""

from __future__ import annotations

from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from codeintel_rev import types as values
from codeintel_rev.errors import PROBLEM_TYPE, CodeIntelError
from codeintel_rev.navigation.navigator import FoundText, ListedPaths, ReadLines
from codeintel_rev.observability.logs import request_id
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.retrieval.options import RESCORE, WIDE

RETRY_AFTER_S = 5


class Wire(BaseModel):
    model_config = ConfigDict(frozen=True)

    def payload(self) -> dict[str, object]:
        """Return the JSON object, without the fields that say nothing."""
        return self.model_dump(mode="json", exclude_none=True)


class Contribution(Wire):
    rank: int | None
    score: float
    weight: float
    contribution: float


class TokenMatch(Wire):
    query_token: str
    document_token: str
    similarity: float
    share: float
    path: str
    line: int
    column: int


class Hit(Wire):
    repo: str
    path: str
    start_line: int
    end_line: int
    language: str
    symbol: str
    kind: str
    snippet: str
    score: float
    freshness: values.Freshness
    why: tuple[str, ...]
    chunk_id: int
    commit: str
    uri: str
    contributions: dict[str, Contribution] | None = None
    token_matches: tuple[TokenMatch, ...] | None = None


class Stage(Wire):
    name: str
    ms: float
    status: str
    budget_ms: float | None = None
    reason: str | None = None


class ExplainedHit(Wire):
    chunk_id: int
    path: str
    matches: tuple[TokenMatch, ...]


class Explainability(Wire):
    xtr: tuple[ExplainedHit, ...]


class Method(Wire):
    plan: str
    channels: tuple[str, ...]
    stages: tuple[Stage, ...] | None = None
    notes: tuple[str, ...] | None = None
    explainability: Explainability | None = None


class Limit(Wire):
    code: str
    stage: str
    detail: str
    action: str


class Scope(Wire):
    repos: tuple[str, ...]
    paths: tuple[str, ...]
    languages: tuple[str, ...]
    kinds: tuple[str, ...]
    generation: str | None = None
    as_of: str | None = None


class Envelope(Wire):
    """The answer to a search. `generation` names the generation of every repository asked."""

    hits: tuple[Hit, ...]
    method: Method
    limits: tuple[Limit, ...]
    scope: Scope
    generation: dict[str, str]
    trace_id: str
    next_cursor: str | None = None


class Match(Wire):
    repo: str
    path: str
    line: int
    column: int
    text: str
    before: tuple[str, ...] | None = None
    after: tuple[str, ...] | None = None


class Matches(Wire):
    matches: tuple[Match, ...]
    generation: dict[str, str]
    trace_id: str
    next_cursor: str | None = None


class FileLines(Wire):
    """`truncated` when more lines were asked for than one answer holds; `freshness` is of the whole file."""

    repo: str
    path: str
    start_line: int
    end_line: int
    total_lines: int
    freshness: values.Freshness
    truncated: bool
    text: str
    uri: str
    generation: str
    trace_id: str


class Folder(Wire):
    path: str
    files: int


class Paths(Wire):
    """`folders` and `total` count all pages."""

    repo: str
    paths: tuple[str, ...]
    folders: tuple[Folder, ...]
    total: int
    generation: str
    trace_id: str
    next_cursor: str | None = None


class Progress(Wire):
    stage: str
    done: int
    total: int
    rate: float | None = None
    eta_s: float | None = None


class RepoStatus(Wire):
    repo: str
    state: str
    generation: str
    published_at: str
    commit: str
    branch: str
    dirty: bool
    counts: dict[str, int]
    vector_coverage: float
    model: str | None = None
    building: Progress | None = None
    compaction_due: str | None = None
    limits: tuple[Limit, ...] = ()


class Status(Wire):
    repos: tuple[RepoStatus, ...]
    trace_id: str


class Problem(Wire):
    """RFC 9457. `detail` says what is wrong, `action` what to do next; neither holds a path on disk or a host."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    retryable: bool
    trace_id: str
    retry_after_s: int | None = None
    action: str | None = None


def uri(repo: str, path: str) -> str:
    """Return the address of a file as an MCP resource."""
    return f"codeintel://{quote(repo, safe='')}/{quote(path)}"


def problem(error: CodeIntelError) -> Problem:
    """Return `error` as the one problem object that every face sends, naming the request in progress."""
    return Problem(
        type=PROBLEM_TYPE + error.slug,
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=f"urn:codeintel:request:{request_id()}",
        retryable=error.retryable,
        trace_id=trace_id(),
        retry_after_s=RETRY_AFTER_S if error.retryable else None,
        action=error.hint or None,
    )


def envelope(result: values.SearchResult, trace: str, *, explain: bool, next_cursor: str | None) -> Envelope:
    """Return `result` as it goes over the wire."""
    return Envelope(
        hits=tuple(_hit(hit, explain) for hit in result.hits),
        method=Method(
            plan=result.plan,
            channels=result.channels,
            stages=tuple(_stage(stage) for stage in result.stages) if explain else None,
            notes=result.notes or None,
            explainability=_explainability(result) if explain else None,
        ),
        limits=tuple(limit(one) for one in result.limits),
        scope=Scope(
            repos=result.scope.repos,
            paths=result.scope.paths,
            languages=result.scope.languages,
            kinds=result.scope.kinds,
            generation=result.scope.generation or None,
            as_of=result.scope.as_of or None,
        ),
        generation=result.generations,
        trace_id=trace,
        next_cursor=next_cursor,
    )


def matches(found: FoundText, trace: str) -> Matches:
    """Return matching lines as they go over the wire."""
    return Matches(
        matches=tuple(
            Match(
                repo=repo,
                path=match.path,
                line=match.line,
                column=match.column,
                text=match.text,
                before=match.before or None,
                after=match.after or None,
            )
            for repo, match in found.matches
        ),
        generation=found.generations,
        trace_id=trace,
        next_cursor=found.next_cursor,
    )


def file_lines(read: ReadLines, repo: str, trace: str) -> FileLines:
    """Return lines of a file as they go over the wire."""
    lines = read.lines
    return FileLines(
        repo=repo,
        path=lines.path,
        start_line=lines.start_line,
        end_line=lines.end_line,
        total_lines=lines.total_lines,
        freshness=lines.freshness,
        truncated=lines.truncated,
        text=lines.text,
        uri=uri(repo, lines.path),
        generation=read.generation,
        trace_id=trace,
    )


def paths(listed: ListedPaths, repo: str, trace: str) -> Paths:
    """Return a page of paths as it goes over the wire."""
    return Paths(
        repo=repo,
        paths=listed.page.paths,
        folders=tuple(Folder(path=folder.path, files=folder.files) for folder in listed.page.folders),
        total=listed.page.total,
        generation=listed.generation,
        trace_id=trace,
        next_cursor=listed.next_cursor,
    )


def limit(value: values.Limit) -> Limit:
    return Limit(code=value.code, stage=value.stage, detail=value.detail, action=value.action)


def repo_status(shard: values.ShardStatus) -> RepoStatus:
    """Return one repository's truth as it goes over the wire."""
    return RepoStatus(
        repo=shard.repo,
        state=shard.state,
        generation=shard.generation,
        published_at=shard.published_at,
        commit=shard.revision.commit,
        branch=shard.revision.branch,
        dirty=shard.revision.dirty,
        counts=shard.counts,
        vector_coverage=shard.vector_coverage,
        model=shard.model.model if shard.model else None,
        building=_progress(shard.building) if shard.building else None,
        compaction_due=shard.compaction_due or None,
        limits=tuple(limit(one) for one in shard.limits),
    )


def _hit(hit: values.Hit, explain: bool) -> Hit:
    return Hit(
        repo=hit.repo,
        path=hit.path,
        start_line=hit.start_line,
        end_line=hit.end_line,
        language=hit.language,
        symbol=hit.symbol,
        kind=hit.kind,
        snippet=hit.snippet,
        score=hit.score,
        freshness=hit.freshness,
        why=hit.why,
        chunk_id=hit.chunk_id,
        commit=hit.commit,
        uri=uri(hit.repo, hit.path),
        contributions={name: _contribution(part) for name, part in hit.contributions.items()} if explain else None,
        token_matches=tuple(_token_match(match) for match in hit.token_matches) or None,
    )


def _contribution(part: values.Contribution) -> Contribution:
    return Contribution(rank=part.rank, score=part.score, weight=part.weight, contribution=part.contribution)


def _explainability(result: values.SearchResult) -> Explainability | None:
    """Return the token matches once more, as those who ask for late interaction look for them; None without it."""
    if not {WIDE, RESCORE} & set(result.channels):
        return None
    explained = (
        ExplainedHit(
            chunk_id=hit.chunk_id, path=hit.path, matches=tuple(_token_match(match) for match in hit.token_matches)
        )
        for hit in result.hits
        if hit.token_matches
    )
    return Explainability(xtr=tuple(explained))


def _token_match(match: values.TokenMatch) -> TokenMatch:
    return TokenMatch(
        query_token=match.query_token,
        document_token=match.document_token,
        similarity=match.similarity,
        share=match.share,
        path=match.path,
        line=match.line,
        column=match.column,
    )


def _stage(stage: values.Stage) -> Stage:
    return Stage(
        name=stage.name, ms=stage.ms, status=stage.status, budget_ms=stage.budget_ms, reason=stage.reason or None
    )


def _progress(progress: values.BuildProgress) -> Progress:
    return Progress(
        stage=progress.stage,
        done=progress.done,
        total=progress.total,
        rate=progress.rate,
        eta_s=progress.eta_s,
    )
