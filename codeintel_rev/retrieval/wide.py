"""One repository asked by its late-interaction index alone: every token of every chunk, no other channel.

The index is of one generation; the chunks shown are that generation's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.token_encoder import TokenEncoders, shared_dense_encoder
from codeintel_rev.errors import GenerationMismatch, IndexUnavailable, InvalidArgument
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.io.token_index import token_directory
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.late import QueryTokens, TokenIndex
from codeintel_rev.retrieval.options import WIDE
from codeintel_rev.retrieval.token_matches import HITS, phrase, token_matches
from codeintel_rev.types import Chunk, Contribution, Floats, Hit, Scope, SearchResult, Stage, TokenMatch

BUILD = "Run `xtr build` for it."


@dataclass(frozen=True, slots=True)
class Wide:
    """An open index and what shows its hits."""

    repo: str
    generation: Generation
    catalog: Catalog
    worktree: Worktree
    index: TokenIndex

    def search(self, query: str, limit: int) -> SearchResult:
        """Return at most `limit` hits, best first, the first few with token matches.

        Raises InvalidArgument for an empty query, EncoderFailed, and GenerationMismatch when the index is of another
        generation.
        """
        started = time.monotonic()
        scores = self.index.engine.search(self.tokens(query), limit)
        chunks, missing = self.catalog.hydrate(scores.doc_ids)
        if missing:
            raise GenerationMismatch(f"{len(missing)} chunks of the index are not in the generation of it.", BUILD)
        matches = token_matches(query, chunks[:HITS], self.index.encoder)
        rows = enumerate(zip(chunks, scores.scores.tolist(), strict=True))
        hits = [self._hit(chunk, place + 1, score, matches[place : place + 1]) for place, (chunk, score) in rows]
        return SearchResult(
            hits=tuple(hits),
            plan="wide",
            channels=(WIDE,),
            stages=(Stage(WIDE, (time.monotonic() - started) * 1000, "ok"),),
            limits=(),
            scope=Scope(repos=(self.repo,)),
            generations={self.repo: self.generation.manifest.generation},
        )

    def tokens(self, query: str) -> Floats:
        """Return the query's tokens (n, dim). Raises InvalidArgument when it is empty, EncoderFailed."""
        if not query.strip():
            raise InvalidArgument("query is empty.", "Ask something.")
        return QueryTokens(query).of(self.index.encoder)

    def _hit(self, chunk: Chunk, rank: int, score: float, matches: Sequence[tuple[TokenMatch, ...]]) -> Hit:
        met = matches[0] if matches else ()
        return Hit(
            chunk_id=chunk.chunk_id,
            repo=chunk.repo,
            path=chunk.path,
            start_line=chunk.start_line,
            end_line=chunk.end_line,
            language=chunk.language,
            symbol=chunk.symbol,
            kind=chunk.kind,
            snippet=chunk.text,
            score=score,
            freshness=self.worktree.freshness(chunk.path, chunk.start_line, chunk.text),
            commit=self.generation.manifest.revision.commit,
            why=(f"all tokens (xtr #{rank})", *((phrase(met),) if met else ())),
            contributions={WIDE: Contribution(rank, score, 1.0, score)},
            token_matches=met,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds of wall time a query, one after the other; the first one, which compiles, is not counted."""

    queries: int
    documents: int
    tokens: int
    encode_p50_ms: float
    encode_p95_ms: float
    search_p50_ms: float
    search_p95_ms: float
    queries_per_s: float


def index_directory(repo: str, settings: Settings, directory: Path | None) -> Path:
    """Return `directory`, or where the index of the current generation is. Raises NotFound, IndexUnavailable."""
    shard = repository_directory(settings.paths.data_dir, repo)
    source_of(shard)
    reader = GenerationReader(shard)
    current = reader.published_id()
    found = directory or token_directory(reader.path_of(current))
    if not found.is_dir():
        raise IndexUnavailable(f"generation {current} of {repo} has no late-interaction index.", BUILD)
    return found


@contextmanager
def opened_wide(repo: str, settings: Settings, directory: Path | None) -> Iterator[Wide]:
    """Hold the index of the current generation of `repo` for the block.

    Raises NotFound, IndexUnavailable, IndexCorrupt, and IndexIncompatible when its tokens are of another model.
    """
    found = index_directory(repo, settings, directory)
    shard = repository_directory(settings.paths.data_dir, repo)
    with GenerationReader(shard).open_current() as generation:
        models = settings.paths.data_dir / "models"
        index = TokenIndex.open(found, TokenEncoders(settings, shared_dense_encoder(settings, models), models))
        with closing(Catalog.open(generation.path, settings.duckdb)) as catalog:
            yield Wide(repo, generation, catalog, Worktree(source_of(shard).root), index)


def measure(wide: Wide, queries: Sequence[str], limit: int) -> Measured:
    """Ask all of `queries`, at least one, and return how long it took. Raises as `Wide.search`."""
    wide.index.engine.search(wide.tokens(queries[0]), limit)
    encode, search = zip(*(_timed(wide, query, limit) for query in queries), strict=True)
    return Measured(
        queries=len(queries),
        documents=len(wide.index.engine),
        tokens=wide.index.engine.manifest.tokens,
        encode_p50_ms=float(np.percentile(encode, 50)),
        encode_p95_ms=float(np.percentile(encode, 95)),
        search_p50_ms=float(np.percentile(search, 50)),
        search_p95_ms=float(np.percentile(search, 95)),
        queries_per_s=len(queries) * 1000 / (sum(encode) + sum(search)),
    )


def _timed(wide: Wide, query: str, limit: int) -> tuple[float, float]:
    started = time.perf_counter()
    tokens = wide.tokens(query)
    encoded = time.perf_counter()
    wide.index.engine.search(tokens, limit)
    return (encoded - started) * 1000, (time.perf_counter() - encoded) * 1000
