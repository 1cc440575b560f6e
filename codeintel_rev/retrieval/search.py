"""One query, from text to hits: plan → scope → channels → fuse → rescore → rank → hydrate. Start reading here.

Every shard given is one leased generation, so nothing an answer holds is mixed. A channel that fails or is late becomes
a Limit and the others answer; nothing else is caught.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.tokens import TokenEncoder
from codeintel_rev.errors import DeadlineExceeded, EncoderFailed
from codeintel_rev.io.impacts import SPLADE
from codeintel_rev.observability.tracing import span
from codeintel_rev.retrieval.channels import Question
from codeintel_rev.retrieval.fanout import Task, gather
from codeintel_rev.retrieval.fuse import Fused, fuse
from codeintel_rev.retrieval.hydrate import candidates, hits
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.options import WIDE, Late, Options, planned
from codeintel_rev.retrieval.plan import Plan, make_plan
from codeintel_rev.retrieval.rank import rank
from codeintel_rev.retrieval.rescore import rescored
from codeintel_rev.retrieval.shard import XTR, Shard
from codeintel_rev.types import Floats, Limit, Ranking, Scope, SearchResult, Stage

_CHANNELS_SHARE = 0.8  # Of the time left: what is found in time must still be ranked and read.
_RESCORE_SHARE = 0.5  # So must what is rescored.


@dataclass(frozen=True, slots=True)
class Budget:
    """Milliseconds the channels together and the whole query may take, and how many chunks each channel offers."""

    channels_ms: float
    total_ms: float
    candidates: int


def search(
    query: str,
    scope: Scope,
    limit: int,
    *,
    shards: Sequence[Shard],
    encoder: DenseEncoder | None,
    executor: Executor,
    budget: Budget,
    options: Options,
    late: Late,
) -> SearchResult:
    """Return at most `limit` hits, best first. Same generations, query and options: same hits in the same order.

    Raises InvalidArgument for a query without a word, DeadlineExceeded.
    """
    journal = _Journal(time.monotonic() + budget.total_ms / 1000)
    with journal.stage("plan"):
        plan = planned(make_plan(query, max(budget.candidates, limit)), options, late)
    with journal.stage("scope"):
        tasks = _tasks(shards, scope, plan)
    tokens = QueryTokens(plan.query)
    vector = _query_vector(tasks, _dense_encoding(plan, tokens, shards, encoder, late), journal)
    rankings = _rankings(Question(plan, vector, tokens), tasks, executor=executor, budget=budget, journal=journal)
    with journal.stage("fuse"):
        fused = fuse(rankings, _weights(plan, shards))
    if late.head and len(fused.chunk_ids) and any(shard.tokens for shard in shards):
        fused = _rescored(fused, shards, tokens, late, executor=executor, budget=budget, journal=journal)
    with journal.stage("rank"):
        ranked = rank(plan, candidates(fused, shards))[:limit]
    with journal.stage("hydrate"):
        found = hits(plan, ranked, fused, shards, tokens)
    return SearchResult(
        hits=found,
        plan=plan.query_class.value,
        channels=fused.channels,
        stages=tuple(journal.stages),
        limits=(*_limits(shards, late), *journal.limits),
        scope=scope,
        generations={shard.repo: shard.generation.manifest.generation for shard in shards},
        notes=tuple(journal.notes),
    )


@dataclass(slots=True)
class _Journal:
    """What happened on the way: stages as they end, limits and notes as they are met."""

    deadline: float
    stages: list[Stage] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage. Raises DeadlineExceeded when it would start too late."""
        started = time.monotonic()
        if started >= self.deadline:
            raise DeadlineExceeded(f"no time was left for {name}.", "Narrow the scope or allow more time.")
        with span(f"search.{name}"):
            yield
        self.stages.append(Stage(name, (time.monotonic() - started) * 1000, "ok"))


def _weights(plan: Plan, shards: Sequence[Shard]) -> dict[str, float]:
    """Return the plan's weights, those of vectors, impacts and tokens lowered to the share of chunks they can find.

    While vectors are still being made, the right chunk may have none: the few that do must not outrank it for that.
    """
    counts = [shard.generation.manifest.counts for shard in shards]
    chunks = sum(count["chunks"] for count in counts)
    found = {
        "dense": sum(count["vectors"] for count in counts),
        SPLADE: sum(len(shard.sparse.impacts) for shard in shards if shard.sparse),
        WIDE: sum(len(shard.tokens.engine) for shard in shards if shard.tokens),
    }
    coverage = {name: count / chunks for name, count in found.items()} if chunks else {}
    return {name: weight * coverage.get(name, 1.0) for name, weight in plan.weights.items()}


def _limits(shards: Sequence[Shard], late: Late) -> Iterator[Limit]:
    """Yield what the shards lack, but of late interaction only what was to take part."""
    for shard in shards:
        yield from (limit for limit in shard.limits if late.takes_part or limit.stage != XTR)
        told = shard.tokens or any(limit.stage == XTR for limit in shard.limits)
        if late.takes_part and not told and shard.generation.manifest.counts["chunks"]:
            yield Limit("xtr-off", XTR, f"{shard.repo} is served without late interaction.", "Set xtr.enable.")


def _rescored(
    fused: Fused,
    shards: Sequence[Shard],
    tokens: QueryTokens,
    late: Late,
    *,
    executor: Executor,
    budget: Budget,
    journal: _Journal,
) -> Fused:
    now = time.monotonic()
    deadline = now + min(budget.channels_ms / 1000, _RESCORE_SHARE * (journal.deadline - now))
    done = rescored(fused, shards, tokens, late, executor, deadline=deadline, budget_ms=budget.channels_ms)
    journal.stages.append(done.stage)
    journal.limits.extend(done.limits)
    journal.notes.extend(done.notes)
    return done.fused


def _tasks(shards: Sequence[Shard], scope: Scope, plan: Plan) -> list[Task]:
    """Return the channels that count for this plan, each with the scope of its shard pushed down."""
    return [
        Task(shard.repo, channel, selection)
        for shard, selection in ((shard, shard.catalog.select(scope)) for shard in shards)
        for channel in shard.channels
        if plan.weights.get(channel.name, 0.0) > 0
    ]


def _rankings(
    question: Question, tasks: Sequence[Task], *, executor: Executor, budget: Budget, journal: _Journal
) -> tuple[Ranking, ...]:
    if question.vector is None:
        tasks = [task for task in tasks if task.channel.name != "dense"]
    now = time.monotonic()
    deadline = now + min(budget.channels_ms / 1000, _CHANNELS_SHARE * (journal.deadline - now))
    gathered = gather(question, tasks, executor, deadline=deadline, budget_ms=budget.channels_ms)
    journal.stages.extend(gathered.stages)
    journal.limits.extend(gathered.limits)
    return gathered.rankings


def _dense_encoding(
    plan: Plan, tokens: QueryTokens, shards: Sequence[Shard], encoder: DenseEncoder | None, late: Late
) -> Callable[[], Floats] | None:
    """Return what makes the query's vector: the pass that makes its tokens, where they are wanted and it gives both."""
    if encoder is None:
        return None
    for shard in shards if late.takes_part else ():
        if shard.tokens and shard.tokens.encoder.dense_fingerprint == encoder.fingerprint:
            return partial(_dense_of, tokens, shard.tokens.encoder)
    return lambda: encoder.encode_queries([plan.query])[0]


def _dense_of(tokens: QueryTokens, encoder: TokenEncoder) -> Floats:
    return tokens.encoded(encoder).dense


def _query_vector(tasks: Sequence[Task], encode: Callable[[], Floats] | None, journal: _Journal) -> Floats | None:
    """Return the query's vector (dim,), None when nothing asks for one or the encoder fails (then a Limit says so)."""
    if encode is None or not any(task.channel.name == "dense" for task in tasks):
        return None
    with journal.stage("encode"):
        try:
            return encode()
        except EncoderFailed as error:
            journal.limits.append(Limit(error.slug, "encode", error.detail, "Lexical and symbol channels answered."))
    return None
