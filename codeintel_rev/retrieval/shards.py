"""Every repository served here, as one Searcher: opened when asked for, swapped under load, searched together."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import structlog

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.sparse import SparseEncoders
from codeintel_rev.encoders.token_encoder import TokenEncoders
from codeintel_rev.errors import CodeIntelError, DeadlineExceeded, IndexCorrupt, IndexUnavailable, NotFound
from codeintel_rev.io.catalogs import Catalogs
from codeintel_rev.io.disk_space import shortage
from codeintel_rev.io.following import unfollowed
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.live import LiveGeneration
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.progress import read_progress
from codeintel_rev.io.registry import repositories, repository_directory, source_of
from codeintel_rev.io.vector_update import compaction_due
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.channels import Dense
from codeintel_rev.retrieval.options import AS_SET, Options, late
from codeintel_rev.retrieval.past import NOW, Past, older, past_of
from codeintel_rev.retrieval.search import Budget, search
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.retrieval.shard import XTR, Shard, open_shard, unencoded
from codeintel_rev.retrieval.token_matches import Explaining
from codeintel_rev.retrieval.token_matches import explained as with_token_matches
from codeintel_rev.types import LateMode, Limit, Revision, Scope, SearchResult, ShardStatus, TokenFigures
from codeintel_rev.xtr.metrics import Figure

CHANNELS_A_SHARD = 5
_OPENING_SHARE = 0.5  # Of a search's time: what was opened in it must still be asked.

log = structlog.get_logger(__name__)


class Shards:
    """The shards below `data_dir`. `refresh` finds new repositories and new generations; everything else only reads.

    A repository is opened, verified, when a request first names it or `refresh` comes to it. At most
    `index.open_shards` stay open, or as many as the running requests hold: whoever was not asked for the longest time
    sleeps first, and is opened again when asked.
    """

    def __init__(self, data_dir: Path, encoder: DenseEncoder | None, settings: Settings) -> None:
        self._data_dir = data_dir
        self._encoder = encoder
        self._settings = settings
        self._catalogs = Catalogs(data_dir / "repos", settings.duckdb)
        self._told: dict[str, ShardStatus] = {}
        self._used: dict[str, int] = {}
        self._turns = count(1)
        self._unfollowed: dict[str, tuple[Limit, ...]] = {}
        self._live: dict[str, LiveGeneration[Shard]] = {}
        retrieval = settings.retrieval
        self._budget = Budget(retrieval.channel_deadline_ms, retrieval.request_deadline_ms, retrieval.candidates)
        threads = CHANNELS_A_SHARD * settings.limits.concurrent_calls
        self._token_encoders = TokenEncoders(settings, encoder, data_dir / "models")
        self._sparse_encoders = SparseEncoders(settings.splade, data_dir / "models") if settings.splade.on else None
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="channel")
        self._discover()

    def refresh(self) -> None:
        """Open what was newly published, and verify what was never looked at. Hashes files, so it is called off the
        request path."""
        self._discover()
        for live in self._live.values():
            if live.has_news:
                live.refresh()
                self._make_room()

    def _discover(self) -> None:
        found = repositories(self._data_dir)
        told = {repo: unfollowed(repository_directory(self._data_dir, repo)) for repo in found}
        self._unfollowed = {repo: (limit,) for repo, limit in told.items() if limit}
        new = {repo: self._sleeping(repo) for repo in found if repo not in self._live}
        if new:
            self._live = {**self._live, **new}  # replaced, not changed: other threads walk through it

    def _sleeping(self, repo: str) -> LiveGeneration[Shard]:
        return LiveGeneration(GenerationReader(repository_directory(self._data_dir, repo)), self._open)

    def _make_room(self) -> None:
        """Put the least recently used shards to sleep that are too many and that nobody holds."""
        awake = [repo for repo, live in self._live.items() if live.is_open]
        excess = len(awake) - self._settings.index.open_shards
        for repo in sorted(awake, key=lambda repo: self._used.get(repo, 0)) if excess > 0 else ():
            excess -= self._live[repo].sleep()
            if not excess:
                return

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
        opening = started + _OPENING_SHARE * budget.total_ms / 1000
        past = self._past(scope)
        repos = tuple(past.generations) or scope.repos
        with self.lease(repos, deadline=opening, past=past) as shards:
            left = replace(budget, total_ms=budget.total_ms - 1000 * (time.monotonic() - started))
            found = search(
                query,
                scope,
                limit,
                shards=shards,
                encoder=self._encoder,
                executor=self._executor,
                budget=left,
                options=options,
                late=late(options, self._settings.xtr),
            )
            if explained:
                by = Explaining(self._token_encoders.plain, self._executor, started + budget.total_ms / 1000)
                found = with_token_matches(found, query, explained, shards, by)
        missing = (*past.limits, *(() if past.generations else self._limits(repos, found.generations.keys())))
        return replace(found, limits=tuple(dict.fromkeys((*found.limits, *missing))))

    @contextmanager
    def lease(self, repos: Sequence[str], *, deadline: float = math.inf, past: Past = NOW) -> Iterator[list[Shard]]:
        """Hold the shards of `repos` (empty: all that can be served), by name, for the block: as they are in `past`.

        What is not open at `deadline` (monotonic seconds) is left out unless it was named. Raises NotFound for a
        repository that is not served, IndexUnavailable when one that was named, or every one, has no usable generation,
        DeadlineExceeded when one that was named, or every one, was not opened in time; GenerationGone, IndexCorrupt and
        IndexIncompatible of a generation of the past.
        """
        self._check_served(repos)
        try:
            with ExitStack() as held:
                yield self._held(sorted(set(repos) or self._live), bool(repos), deadline, past, held)
        finally:
            self._make_room()

    def _check_served(self, repos: Sequence[str]) -> None:
        unknown = sorted(set(repos) - self._live.keys())
        if unknown:
            raise NotFound(f"repository {unknown[0]} is not served here.", "index_status names those that are.")

    def _past(self, scope: Scope) -> Past:
        if not (scope.generation or scope.as_of):
            return NOW
        self._check_served(scope.repos)
        stores = {repo: self._live[repo].store for repo in scope.repos or self._live}
        return past_of(scope, stores, datetime.now(UTC))

    def _held(self, repos: Sequence[str], named: bool, deadline: float, past: Past, held: ExitStack) -> list[Shard]:
        shards = []
        failure: CodeIntelError | None = None
        for repo in sorted(repos, key=lambda repo: not self._live[repo].is_open):
            try:
                shards.append(held.enter_context(self._awake(repo, deadline, past.generations.get(repo))))
            except (IndexUnavailable, DeadlineExceeded) as error:
                failure = error
                if named:
                    raise
        if not shards:
            raise failure or IndexUnavailable("no repository is indexed here yet.", "Run `codeintel index PATH`.")
        return sorted(shards, key=lambda shard: shard.repo)

    @contextmanager
    def _awake(self, repo: str, deadline: float, wanted: str | None) -> Iterator[Shard]:
        """Hold the shard of `repo`, opened now if it sleeps; if its generation `wanted` is not the newest, opened for
        the block alone. Raises IndexUnavailable, DeadlineExceeded, and what `GenerationReader.open` does."""
        live = self._live[repo]
        is_past = wanted is not None and wanted != live.store.current_id()
        if (live.is_asleep or is_past) and time.monotonic() >= deadline:
            raise DeadlineExceeded(f"{repo} was not opened in time.", "Ask again, or name fewer repositories.")
        if wanted is not None and is_past:
            shard = live.store.open(wanted, self._shard, (older(live.store.manifest(wanted)),))
            with shard.generation, closing(shard):
                yield shard
            return
        self._used[repo] = next(self._turns)
        was_open = live.is_open
        with live.acquire() as shard:
            if not was_open:
                self._make_room()
            yield shard

    def _limits(self, repos: Sequence[str], answering: Collection[str]) -> Iterator[Limit]:
        """Yield what is not served of `repos`: the newest generation, or all of one."""
        for repo, live in sorted(self._live.items()):
            if not repos or repo in repos:
                limits = live.limits
                yield from (*limits, *self._unfollowed.get(repo, ()))
                if repo not in answering and not limits:
                    yield Limit("shard-late", "open", f"{repo} was not opened in time.", "Ask again, or name it.")

    def status(self) -> tuple[ShardStatus, ...]:
        """What keeps builds from beginning limits every repository's status, and no search."""
        low = shortage(self._data_dir, self._settings.index)
        limits = (low,) if low else ()
        return tuple(self._status(repo, live, limits) for repo, live in sorted(self._live.items()))

    def close(self) -> None:
        for live in self._live.values():
            live.close()
        self._executor.shutdown()

    def _shard(self, generation: Generation) -> Shard:
        source = source_of(repository_directory(self._data_dir, generation.manifest.repo))
        model = self._encoder.fingerprint if self._encoder else None
        encoders = self._token_encoders if self._settings.xtr.on else None
        return open_shard(
            generation, Worktree(source.root), model, encoders, self._catalogs, sparse_encoders=self._sparse_encoders
        )

    def _open(self, generation: Generation) -> Shard:
        shard = self._shard(generation)
        audit = next((channel.index.describe() for channel in shard.channels if isinstance(channel, Dense)), "none")
        log.info("generation opened", repo=shard.repo, generation=generation.manifest.generation, vectors=audit)
        _log_tokens(shard, self._settings.xtr.mode)
        self._told[shard.repo] = self._served(shard)
        return shard

    def _status(self, repo: str, live: LiveGeneration[Shard], common: tuple[Limit, ...]) -> ShardStatus:
        directory = repository_directory(self._data_dir, repo)
        building = read_progress(directory)
        lacking = (*live.limits, *self._unfollowed.get(repo, ()), *common)
        if live.is_open or live.is_asleep:
            told = self._told.get(repo) or self._published(GenerationReader(directory))
            if told:
                limits = tuple(dict.fromkeys((*told.limits, *lacking)))
                state = "building" if building else "degraded" if limits else "ready"
                return replace(told, state=state, building=building, limits=limits)
        published = (directory / "CURRENT").exists()
        state = "building" if building else "down" if published and not live.is_asleep else "empty"
        return ShardStatus(repo, state, "", "", "", Revision("", "", False), {}, 0.0, None, building, lacking)

    def _published(self, reader: GenerationReader) -> ShardStatus | None:
        """Return what the manifest of a generation tells that was never opened, None when there is none to read."""
        try:
            current = reader.current_id()
            manifest = reader.manifest(current) if current else None
        except CodeIntelError:
            return None
        if manifest is None:
            return None
        limits = tuple(unencoded(manifest)) if self._encoder else ()
        due = self._compaction_due(reader.path_of(manifest.generation))
        return replace(_of_manifest(manifest), limits=limits, verified=False, compaction_due=due)

    def _served(self, shard: Shard) -> ShardStatus:
        due = self._compaction_due(shard.generation.path)
        told = _of_manifest(shard.generation.manifest)
        return replace(told, limits=shard.limits, tokens=_token_figures(shard), compaction_due=due)

    def _compaction_due(self, generation: Path) -> str:
        """Files that are not sound are told by whoever opens them."""
        with suppress(IndexCorrupt):
            return compaction_due(generation, self._settings.index)
        return ""


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


def _of_manifest(manifest: Manifest) -> ShardStatus:
    chunks = manifest.counts["chunks"]
    return ShardStatus(
        repo=manifest.repo,
        state="ready",
        generation=manifest.generation,
        parent=manifest.parent or "",
        published_at=manifest.created_at,
        revision=manifest.revision,
        counts=manifest.counts,
        vector_coverage=manifest.counts["vectors"] / chunks if chunks else 1.0,
        model=manifest.model,
        building=None,
        limits=(),
    )
