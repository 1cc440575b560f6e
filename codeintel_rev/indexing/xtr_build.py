"""From a published generation to its late-interaction index: chunks → token vectors → engine.

A folder of its own beside the generation, published by one rename: a build that stops leaves nothing to be read. One
builder a shard, of generations or of this.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.token_encoder import fitted_projection, open_token_encoder, shared_dense_encoder
from codeintel_rev.encoders.tokens import Projection, TokenEncoder
from codeintel_rev.errors import InvalidArgument
from codeintel_rev.indexing.progress import Report, Stopwatch
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.durable import DISK
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.io.token_index import TOKENS, token_index_directory, token_model_id, write_projection
from codeintel_rev.types import Chunk
from codeintel_rev.xtr.build import Document, build_index
from codeintel_rev.xtr.config import BuildConfig
from codeintel_rev.xtr.storage import MANIFEST, Manifest, read_manifest

AT_ONCE = 256
SAMPLED = 128
LONGEST = 8192
"""Characters, and tokens, of one chunk: twenty times the usual. The summary counts the chunks that are longer."""


@dataclass(frozen=True, slots=True)
class TokenIndexSummary:
    """What a build did: `changed` unless the index was there; `cut` chunks were longer than LONGEST."""

    repo: str
    generation: str
    model: str
    changed: bool
    documents: int
    tokens: int
    bytes: int
    cut: int
    seconds: float


@dataclass(slots=True)
class _Cut:
    chunks: int = 0


def build_token_index(
    repo: str, settings: Settings, directory: Path | None, *, on_progress: Report
) -> TokenIndexSummary:
    """Index the tokens of the current generation of `repo` in `directory`, by default its place below `data/xtr`.

    Nothing is done where the same model's index of it is. Raises NotFound, IndexUnavailable, BuildInProgress,
    InvalidArgument when the folder holds something else, and what encoding and writing raise.
    """
    started = time.monotonic()
    shard = repository_directory(settings.paths.data_dir, repo)
    source_of(shard)
    store = GenerationStore(shard)
    with store.builder_lock(), store.open_current() as generation:
        identity = generation.manifest.generation
        target = directory or token_index_directory(settings.paths.data_dir, repo, identity)
        encoder, projection = _encoder(generation, settings)
        manifest, cut = _there(target, token_model_id(encoder.fingerprint)), _Cut()
        changed = manifest is None
        if manifest is None:
            chunks = _counted(generation, settings, Stopwatch(on_progress))
            manifest = _built(target, projection, encoder, _documents(chunks, encoder, cut))
    return TokenIndexSummary(
        repo=repo,
        generation=identity,
        model=encoder.fingerprint.model,
        changed=changed,
        documents=manifest.documents,
        tokens=manifest.tokens,
        bytes=manifest.bytes,
        cut=cut.chunks,
        seconds=time.monotonic() - started,
    )


def _encoder(generation: Generation, settings: Settings) -> tuple[TokenEncoder, Projection | None]:
    """Return the encoder, and the projection to store where it was fitted to the chunks of `generation`."""
    models = settings.paths.data_dir / "models"
    dense = shared_dense_encoder(settings, models)
    projection = fitted_projection(settings, dense, _sample(generation, settings)) if dense else None
    return open_token_encoder(settings, dense, models, projection), projection


def _sample(generation: Generation, settings: Settings) -> list[str]:
    step = max(1, generation.manifest.counts["chunks"] // SAMPLED)
    return [embedding_text(chunk) for chunk in islice(read_chunks(generation.path, settings.duckdb), 0, None, step)]


def _there(target: Path, model_id: str) -> Manifest | None:
    """Return what is in `target`; None when it does not exist. Raises InvalidArgument when it is not what is wanted."""
    if not target.exists():
        return None
    found = read_manifest(target / TOKENS) if (target / TOKENS / MANIFEST).is_file() else None
    if found is None or found.model_id != model_id:
        held = f"an index of {found.model_id.partition(' ')[0]}, made otherwise" if found else "something else"
        raise InvalidArgument(f"{target} holds {held}.", "Remove it, or give another --index-dir.")
    return found


def _built(
    target: Path, projection: Projection | None, encoder: TokenEncoder, documents: Iterable[Document]
) -> Manifest:
    draft = target.with_name(f".{target.name}.draft")
    DISK.remove_tree(draft)
    DISK.make_directory(draft)
    fingerprint = encoder.fingerprint
    config = BuildConfig(draft / TOKENS, fingerprint.dim, token_model_id(fingerprint), max_doclen=LONGEST)
    try:
        manifest = build_index(config, documents)
        if projection:
            write_projection(draft, projection.to_bytes())
        DISK.sync_directory(draft)
        DISK.replace(draft, target)
    finally:
        DISK.remove_tree(draft)
    DISK.sync_directory(target.parent)
    return manifest


def _counted(generation: Generation, settings: Settings, watch: Stopwatch) -> Iterator[Sequence[Chunk]]:
    """Yield the chunks, some at a time, telling how many are done."""
    total, done = generation.manifest.counts["chunks"], 0
    chunks = read_chunks(generation.path, settings.duckdb)
    watch.tell("tokens", 0, total)
    while some := list(islice(chunks, AT_ONCE)):
        yield some
        done += len(some)
        watch.tell("tokens", done, total)
    watch.tell("token index", 0, 0)


def _documents(chunks: Iterable[Sequence[Chunk]], encoder: TokenEncoder, cut: _Cut) -> Iterator[Document]:
    for some in chunks:
        texts = [embedding_text(chunk) for chunk in some]
        encoded = encoder.encode_documents([text[:LONGEST] for text in texts])
        for chunk, text, document in zip(some, texts, encoded, strict=True):
            cut.chunks += max(len(text), len(document.tokens)) > LONGEST
            yield chunk.chunk_id, document.tokens[:LONGEST]
