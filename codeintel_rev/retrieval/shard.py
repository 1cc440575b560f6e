"""One repository's published generation, opened for questions: its catalogue, its channels and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.errors import DimensionMismatch, IndexIncompatible
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.faiss_index import FaissIndex
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.lexical import LexicalIndex
from codeintel_rev.io.outlines import Outlines
from codeintel_rev.io.vectors import VectorTable
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.channels import Channel, Dense, Lexical, Symbols
from codeintel_rev.types import Limit, ModelFingerprint

LEXICAL_DIRECTORY = "lexical"


@dataclass(frozen=True, slots=True)
class Shard:
    """Immutable and safe for many threads while its generation is leased."""

    repo: str
    generation: Generation
    catalog: Catalog
    outlines: Outlines
    channels: tuple[Channel, ...]
    worktree: Worktree
    limits: tuple[Limit, ...]

    def close(self) -> None:
        self.catalog.close()


def open_shard(
    generation: Generation, worktree: Worktree, model: ModelFingerprint | None, duckdb: DuckDBSettings
) -> Shard:
    """Return the shard of a verified generation. `model` is the serving encoder's, None when there is none.

    Vectors of another model leave the dense channel out, with a Limit that says so: they are never searched. Raises
    IndexCorrupt, GenerationMismatch, IndexIncompatible.
    """
    lexical = LexicalIndex.open(generation.path / LEXICAL_DIRECTORY)
    dense, limits = _open_dense(generation, model)
    catalog = Catalog.open(generation.path, duckdb)
    return Shard(
        generation.manifest.repo,
        generation,
        catalog,
        Outlines.open(catalog),
        (Lexical(lexical), Symbols(lexical), *dense),
        worktree,
        (*generation.limits, *limits),
    )


def _open_dense(generation: Generation, model: ModelFingerprint | None) -> tuple[list[Dense], list[Limit]]:
    manifest = generation.manifest
    if model is None:
        return [], []
    vectors, chunks = manifest.counts["vectors"], manifest.counts["chunks"]
    limits = [_not_encoded(manifest.repo, vectors, chunks)] if vectors < chunks else []
    if manifest.model is None or not vectors:
        return [], limits
    try:
        _check_model(manifest.model, model)
    except IndexIncompatible as error:
        return [], [Limit(error.slug, "dense", f"{manifest.repo}: {error.detail}", error.hint)]
    return [Dense(FaissIndex.open(generation.path, model.dim), VectorTable.open(generation.path, model.dim))], limits


def _check_model(indexed: ModelFingerprint, serving: ModelFingerprint) -> None:
    if indexed.dim != serving.dim:
        raise DimensionMismatch(f"Dimension mismatch: FAISS={indexed.dim}, encoder={serving.dim}.", "Index again.")
    if indexed != serving:
        raise IndexIncompatible(
            f"vectors are of {indexed.model} ({indexed.sha256[:8]}), the encoder is {serving.model}"
            f" ({serving.sha256[:8]}).",
            "Index again, or configure the model it was indexed with.",
        )


def _not_encoded(repo: str, vectors: int, chunks: int) -> Limit:
    return Limit(
        "vectors-partial",
        "dense",
        f"{vectors} of {chunks} chunks of {repo} have a vector so far.",
        "Lexical and symbol search cover every chunk; ask again when index_status says ready.",
    )
