"""One repository's published generation, opened for questions: its catalogue, its channels and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass

from codeintel_rev.encoders.sparse import SparseEncoders
from codeintel_rev.encoders.token_encoder import TokenEncoders
from codeintel_rev.errors import (
    CodeIntelError,
    DimensionMismatch,
    GenerationMismatch,
    IndexIncompatible,
    IndexUnavailable,
)
from codeintel_rev.io.catalogs import Catalogs
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.impacts import REBUILD, SPLADE, impact_directory
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.lexical import LexicalIndex
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.outlines import Outlines
from codeintel_rev.io.token_index import token_directory
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.retrieval.channels import Channel, Dense, Lexical, Sparse, Symbols, Wide
from codeintel_rev.retrieval.late import BUILD, TokenIndex
from codeintel_rev.retrieval.sparse import SparseIndex
from codeintel_rev.types import Limit, ModelFingerprint

LEXICAL_DIRECTORY = "lexical"
XTR, XTR_MISSING, XTR_PARTIAL = "xtr", "xtr-missing", "xtr-partial"
"""The stage that a generation's limits of late interaction are of, and two of their codes."""
SPLADE_MISSING, SPLADE_PARTIAL = "splade-missing", "splade-partial"


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
    tokens: TokenIndex | None
    sparse: SparseIndex | None

    def close(self) -> None:
        self.catalog.close()


def open_shard(
    generation: Generation,
    worktree: Worktree,
    model: ModelFingerprint | None,
    encoders: TokenEncoders | None,
    catalogs: Catalogs,
    *,
    sparse_encoders: SparseEncoders | None = None,
) -> Shard:
    """Return the shard of a verified generation. `model` is the serving encoder's, None when there is none; without
    `encoders` tokens are left alone, without `sparse_encoders` impacts.

    Vectors of another model leave the dense channel out, with a Limit that says so: they are never searched. So do
    tokens and impacts that are missing, damaged or of another model. Raises IndexCorrupt, GenerationMismatch,
    IndexIncompatible.
    """
    lexical = LexicalIndex.open(generation.path / LEXICAL_DIRECTORY)
    dense, limits = _open_dense(generation, model)
    sound = not any(limit.stage == XTR for limit in generation.limits)
    tokens, token_limits = _open_tokens(generation, encoders) if encoders and sound else (None, [])
    sparse, sparse_limits = _open_sparse(generation, sparse_encoders) if sparse_encoders else (None, [])
    catalog = catalogs.open(generation.path)
    return Shard(
        generation.manifest.repo,
        generation,
        catalog,
        Outlines.open(catalog),
        (
            Lexical(lexical),
            Symbols(lexical),
            *dense,
            *((Sparse(sparse),) if sparse else ()),
            *((Wide(tokens),) if tokens else ()),
        ),
        worktree,
        (*generation.limits, *limits, *token_limits, *sparse_limits),
        tokens,
        sparse,
    )


def _open_dense(generation: Generation, model: ModelFingerprint | None) -> tuple[list[Dense], list[Limit]]:
    manifest = generation.manifest
    if model is None:
        return [], []
    vectors, limits = manifest.counts["vectors"], unencoded(manifest)
    if manifest.model is None or not vectors:
        return [], limits
    try:
        check_model(manifest.model, model)
    except IndexIncompatible as error:
        return [], [Limit(error.slug, "dense", f"{manifest.repo}: {error.detail}", error.hint)]
    index = DualIndex.open(generation.path, model.dim)
    if len(index) != vectors:
        raise GenerationMismatch(f"{len(index)} vectors of {manifest.repo}, {vectors} were published.", "Build again.")
    return [Dense(index)], limits


def check_model(indexed: ModelFingerprint, serving: ModelFingerprint) -> None:
    """Raise unless vectors of the two compare: DimensionMismatch, IndexIncompatible."""
    if indexed.dim != serving.dim:
        raise DimensionMismatch(f"Dimension mismatch: FAISS={indexed.dim}, encoder={serving.dim}.", "Index again.")
    if indexed != serving:
        raise IndexIncompatible(
            f"vectors are of {indexed.model} ({indexed.sha256[:8]}), the encoder is {serving.model}"
            f" ({serving.sha256[:8]}).",
            "Index again, or configure the model it was indexed with.",
        )


def unencoded(manifest: Manifest) -> list[Limit]:
    """Return what a server with an encoder lacks of this generation: the vectors that are still to be made."""
    vectors, chunks = manifest.counts["vectors"], manifest.counts["chunks"]
    if vectors >= chunks:
        return []
    detail = f"{vectors} of {chunks} chunks of {manifest.repo} have a vector so far."
    action = "Lexical and symbol search cover every chunk; ask again when index_status says ready."
    return [Limit("vectors-partial", "dense", detail, action)]


def _open_tokens(generation: Generation, encoders: TokenEncoders) -> tuple[TokenIndex | None, list[Limit]]:
    """Return the token index and what of it is not there; nothing of a generation without chunks."""
    repo, chunks = generation.manifest.repo, generation.manifest.counts["chunks"]
    if not chunks:
        return None, []
    try:
        index = TokenIndex.open(token_directory(generation.path), encoders)
    except IndexUnavailable:
        missing = f"WARP index missing: {repo} has no tokens of its {chunks} chunks."
        return None, [Limit(XTR_MISSING, XTR, missing, BUILD)]
    except CodeIntelError as error:
        return None, [Limit(error.slug, XTR, f"{repo}: {error.detail}", error.hint)]
    found = len(index.engine)
    if found < chunks:
        partial = f"{found} of {chunks} chunks of {repo} have tokens so far."
        return index, [Limit(XTR_PARTIAL, XTR, partial, "The others keep the rank they have without them.")]
    return index, []


def _open_sparse(generation: Generation, encoders: SparseEncoders) -> tuple[SparseIndex | None, list[Limit]]:
    """Return the impact index and what of it is not there; nothing of a generation without chunks, or of one whose
    limits tell already that it is damaged."""
    repo, chunks = generation.manifest.repo, generation.manifest.counts["chunks"]
    if not chunks or any(limit.stage == SPLADE for limit in generation.limits):
        return None, []
    try:
        index = SparseIndex.open(impact_directory(generation.path), encoders)
    except IndexUnavailable:
        missing = f"{repo} has no impacts of its {chunks} chunks."
        return None, [Limit(SPLADE_MISSING, SPLADE, missing, REBUILD)]
    except CodeIntelError as error:
        return None, [Limit(error.slug, SPLADE, f"{repo}: {error.detail}", error.hint)]
    found = len(index.impacts)
    if found < chunks:
        partial = f"{found} of {chunks} chunks of {repo} have impacts so far."
        return index, [Limit(SPLADE_PARTIAL, SPLADE, partial, "The other channels find the others.")]
    return index, []
