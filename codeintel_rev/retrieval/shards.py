"""Every repository served here, as one Searcher: opened lazily verified, swapped under load, searched together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.token_encoder import TokenEncoders
from codeintel_rev.errors import IndexUnavailable, NotFound
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.live import LiveGeneration
from codeintel_rev.io.progress import read_progress
from codeintel_rev.io.registry import repositories, repository_directory, source_of
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.channels import Dense
from codeintel_rev.retrieval.options import AS_SET, Options, late
from codeintel_rev.retrieval.search import Budget, search
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.retrieval.shard import XTR, Shard, open_shard
from codeintel_rev.retrieval.token_matches import Explaining
from codeintel_rev.retrieval.token_matches import explained as with_token_matches
from codeintel_rev.types import BuildProgress, LateMode, Limit, Revision, Scope, SearchResult, ShardStatus, TokenFigures
from codeintel_rev.xtr.metrics import Figure

CHANNELS_A_SHARD = 4

log = structlog.get_logger(__name__)


class Shards:
    """The shards below `data_dir`. `refresh` finds new repositories and new generations; everything else only reads."""

    def __init__(self, data_dir: Path, encoder: DenseEncoder | None, settings: Settings) -> None:
        self._data_dir = data_dir
        self._encoder = encoder
        self._settings = settings
        self._live: dict[str, LiveGeneration[Shard]] = {}
        retrieval = settings.retrieval
        self._budget = Budget(retrieval.channel_deadline_ms, retrieval.request_deadline_ms, retrieval.candidates)
        threads = CHANNELS_A_SHARD * settings.limits.concurrent_calls
        self._token_encoders = TokenEncoders(settings, encoder, data_dir / "models")
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="channel")

    def refresh(self) -> None:
        """Open what was newly published. Hashes files, so it is called off the request path."""
        for repo in repositories(self._data_dir):
            if repo not in self._live:
                live = LiveGeneration(GenerationReader(repository_directory(self._data_dir, repo)), self._open)
                self._live = {**self._live, repo: live}  # replaced, not changed: other threads walk through it
            self._live[repo].refresh()

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
        started = time.monotonic()
        budget = Budget(self._budget.channels_ms, min(deadline_ms, self._budget.total_ms), self._budget.candidates)
        with self.lease(scope.repos) as shards:
            found = search(
                query,
                scope,
                limit,
                shards=shards,
                encoder=self._encoder,
                executor=self._executor,
                budget=budget,
                options=options,
                late=late(options, self._settings.xtr),
            )
            if explained:
                by = Explaining(self._token_encoders.plain, self._executor, started + budget.total_ms / 1000)
                found = with_token_matches(found, query, explained, shards, by)
        return replace(found, limits=tuple(dict.fromkeys((*found.limits, *self._limits(scope.repos)))))

    @contextmanager
    def lease(self, repos: Sequence[str]) -> Iterator[list[Shard]]:
        """Hold the shards of `repos` (empty: all that can be served), by name, for the block.

        Raises NotFound for a repository that is not served, IndexUnavailable when one that was named, or every one,
        has no usable generation.
        """
        unknown = sorted(set(repos) - self._live.keys())
        if unknown:
            raise NotFound(f"repository {unknown[0]} is not served here.", "index_status names those that are.")
        with ExitStack() as held:
            yield self._held(sorted(set(repos) or self._live), bool(repos), held)

    def _held(self, repos: Sequence[str], named: bool, held: ExitStack) -> list[Shard]:
        shards = []
        failure: IndexUnavailable | None = None
        for repo in repos:
            try:
                shards.append(held.enter_context(self._live[repo].acquire()))
            except IndexUnavailable as error:
                failure = error
                if named:
                    raise
        if not shards:
            raise failure or IndexUnavailable("no repository is indexed here yet.", "Run `codeintel index PATH`.")
        return shards

    def _limits(self, repos: Sequence[str]) -> Iterator[Limit]:
        """Yield what is not served of `repos`: the newest generation, or all of one."""
        for repo, live in sorted(self._live.items()):
            if not repos or repo in repos:
                yield from live.limits

    def status(self) -> tuple[ShardStatus, ...]:
        return tuple(self._status(repo, live) for repo, live in sorted(self._live.items()))

    def close(self) -> None:
        for live in self._live.values():
            live.close()
        self._executor.shutdown()

    def _open(self, generation: Generation) -> Shard:
        source = source_of(repository_directory(self._data_dir, generation.manifest.repo))
        model = self._encoder.fingerprint if self._encoder else None
        encoders = self._token_encoders if self._settings.xtr.on else None
        shard = open_shard(generation, Worktree(source.root), model, encoders, self._settings.duckdb)
        audit = next((channel.index.describe() for channel in shard.channels if isinstance(channel, Dense)), "none")
        log.info("generation opened", repo=shard.repo, generation=generation.manifest.generation, vectors=audit)
        _log_tokens(shard, self._settings.xtr.mode)
        return shard

    def _status(self, repo: str, live: LiveGeneration[Shard]) -> ShardStatus:
        directory = repository_directory(self._data_dir, repo)
        building = read_progress(directory)
        try:
            with live.acquire() as shard:
                return _served(shard, live.limits, building)
        except IndexUnavailable:
            published = (directory / "CURRENT").exists()
            state = "building" if building else "down" if published else "empty"
            return ShardStatus(repo, state, "", "", "", Revision("", "", False), {}, 0.0, None, building, live.limits)


def _log_tokens(shard: Shard, mode: LateMode) -> None:
    generation = shard.generation.manifest.generation
    if shard.tokens:
        model, chunks = shard.tokens.encoder.fingerprint.model, len(shard.tokens.engine)
        log.info(
            "late interaction active", repo=shard.repo, generation=generation, model=model, chunks=chunks, mode=mode
        )
    for limit in shard.limits:
        if limit.stage == XTR:
            log.warning("late interaction limited", repo=shard.repo, code=limit.code, detail=limit.detail)


def _token_figures(shard: Shard) -> TokenFigures | None:
    if not shard.tokens:
        return None
    manifest, build = shard.tokens.engine.manifest, shard.tokens.built
    return TokenFigures(
        documents=manifest.documents,
        tokens=manifest.tokens,
        segments=len(manifest.segments),
        bytes=manifest.bytes,
        train_ms=build.get(Figure.BUILD_TRAIN_MS, 0.0),
        write_ms=build.get(Figure.BUILD_WRITE_MS, 0.0),
    )


def _served(shard: Shard, live_limits: tuple[Limit, ...], building: BuildProgress | None) -> ShardStatus:
    manifest = shard.generation.manifest
    chunks = manifest.counts["chunks"]
    limits = tuple(dict.fromkeys((*shard.limits, *live_limits)))
    return ShardStatus(
        repo=shard.repo,
        state="building" if building else "degraded" if limits else "ready",
        generation=manifest.generation,
        parent=manifest.parent or "",
        published_at=manifest.created_at,
        revision=manifest.revision,
        counts=manifest.counts,
        vector_coverage=manifest.counts["vectors"] / chunks if chunks else 1.0,
        model=manifest.model,
        building=building,
        limits=limits,
        tokens=_token_figures(shard),
    )
