"""From chunk ids to what is shown: outlines for ranking, then text, freshness and reasons of the few that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codeintel_rev.errors import GenerationMismatch
from codeintel_rev.io.code_tokens import matched_terms
from codeintel_rev.io.impacts import SPLADE
from codeintel_rev.retrieval.fuse import Fused
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.options import RESCORE, WIDE
from codeintel_rev.retrieval.plan import Plan
from codeintel_rev.retrieval.rank import Candidate, Ranked
from codeintel_rev.retrieval.shard import Shard
from codeintel_rev.retrieval.sparse import SparseIndex
from codeintel_rev.types import Chunk, Contribution, Hit

_MATCHED_TERMS_SHOWN = 6


def candidates(fused: Fused, shards: Sequence[Shard]) -> list[Candidate]:
    """Return the fused chunks as ranking sees them, in fused order; one that a family shares is its founder's."""
    found: dict[int, Candidate] = {}
    scores = dict(zip(fused.chunk_ids.tolist(), fused.scores.tolist(), strict=True))
    for shard in _founders_last(shards):
        for outline in shard.outlines.of(shard.outlines.known(fused.chunk_ids)):
            found[outline.chunk_id] = Candidate(
                outline.chunk_id,
                shard.repo,
                outline.path,
                outline.role,
                outline.kind,
                outline.defines,
                scores[outline.chunk_id],
            )
    return [found[chunk_id] for chunk_id in scores]


def hits(
    plan: Plan, ranked: Sequence[Ranked], fused: Fused, shards: Sequence[Shard], tokens: QueryTokens
) -> tuple[Hit, ...]:
    """Return the ranked chunks as hits, in ranking order. Raises GenerationMismatch when a chunk is not catalogued."""
    chunks = texts([int(fused.chunk_ids[place.row]) for place in ranked], shards)
    by_repo = {shard.repo: shard for shard in shards}
    sparse = [shard.sparse for shard in shards if shard.sparse]
    reasons = Reasons(plan, fused.offered(RESCORE), tokens, sparse)
    return tuple(
        _hit(reasons, chunks[int(fused.chunk_ids[place.row])], place, fused.contributions(place.row), by_repo)
        for place in ranked
    )


def texts(chunk_ids: Sequence[int], shards: Sequence[Shard]) -> dict[int, Chunk]:
    """Return these chunks by id, one that a family shares as its founder's. Raises GenerationMismatch when one is not
    catalogued."""
    found: dict[int, Chunk] = {}
    for shard in _founders_last(shards):
        own = shard.outlines.known(np.asarray(chunk_ids, np.int64))
        chunks, missing = shard.catalog.hydrate(own) if len(own) else ([], [])
        if missing:
            raise GenerationMismatch(f"{len(missing)} ranked chunks of {shard.repo} are not in its catalogue.")
        found.update((chunk.chunk_id, chunk) for chunk in chunks)
    return found


def _founders_last(shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards so that of those that share a chunk the founder's, then the first by name, comes last."""
    return sorted(shards, key=lambda shard: (bool(shard.generation.manifest.family), shard.repo), reverse=True)


def _hit(
    reasons: Reasons, chunk: Chunk, place: Ranked, contributions: dict[str, Contribution], shards: dict[str, Shard]
) -> Hit:
    shard = shards[chunk.repo]
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
        score=place.score,
        freshness=shard.worktree.freshness(chunk.path, chunk.start_line, chunk.text),
        commit=shard.generation.manifest.revision.commit,
        why=(*reasons.of(chunk, contributions), *place.why),
        contributions=contributions,
    )


@dataclass(frozen=True, slots=True)
class Reasons:
    """Tells why a chunk was found, in phrases. `rescored` is how many chunks of the answer were."""

    plan: Plan
    rescored: int
    tokens: QueryTokens
    sparse: Sequence[SparseIndex]

    def of(self, chunk: Chunk, contributions: dict[str, Contribution]) -> list[str]:
        """Return one phrase a channel, strongest contribution first; rescoring that moved nothing is no reason."""
        strongest = sorted(contributions.items(), key=lambda item: (-item[1].contribution, item[0]))
        return [self._reason(name, part, chunk) for name, part in strongest if name != RESCORE or part.contribution]

    def _reason(self, name: str, part: Contribution, chunk: Chunk) -> str:
        if name == "lexical":
            terms = matched_terms(self.plan.query, f"{chunk.path} {chunk.symbol} {chunk.header} {chunk.text}")
            words = f"words {', '.join(terms[:_MATCHED_TERMS_SHOWN])}" if terms else "common words"
            return f"{words} (lexical #{part.rank})"
        if name == "dense":
            return f"similar meaning, cosine {part.score:.2f} (dense #{part.rank})"
        if name == SPLADE:
            return f"{self._terms(chunk)} (splade #{part.rank})"
        if name == WIDE:
            return f"all tokens, MaxSim {part.score:.2f} (xtr #{part.rank})"
        if name == RESCORE:
            return f"late interaction {part.score:.2f}, #{part.rank} of {self.rescored}"
        return f"{name} #{part.rank}"

    def _terms(self, chunk: Chunk) -> str:
        """Name the terms of the model's vocabulary that query and chunk share, the strongest first."""
        for index in self.sparse:
            terms = index.impacts.matched(self.tokens.impacts(index.encoder), chunk.chunk_id)
            if terms:
                return f"terms {', '.join(index.encoder.words(terms[:_MATCHED_TERMS_SHOWN]))}"
        return "shared terms"
