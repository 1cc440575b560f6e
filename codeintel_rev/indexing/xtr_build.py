"""`xtr build`: the token vectors of the current generation, whatever `xtr.enable` says."""

from __future__ import annotations

import time
from dataclasses import dataclass

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.token_encoder import shared_dense_encoder
from codeintel_rev.indexing.progress import Report, Stopwatch
from codeintel_rev.indexing.token_stage import publish_tokens
from codeintel_rev.io.disk_space import check_space
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.io.token_index import TOKENS, token_directory
from codeintel_rev.xtr.storage import read_manifest


@dataclass(frozen=True, slots=True)
class TokenIndexSummary:
    """What a build did: `changed` when it published; `cut` chunks were longer than `token_stage.LONGEST`."""

    repo: str
    generation: str
    model: str
    changed: bool
    encoded: int
    documents: int
    tokens: int
    bytes: int
    cut: int
    seconds: float


def build_token_index(repo: str, settings: Settings, *, on_progress: Report) -> TokenIndexSummary:
    """Publish a generation of what is current of `repo` that has the token vectors of all its chunks.

    Nothing is done where it has. Raises NotFound, IndexUnavailable, BuildInProgress, InsufficientStorage, and as
    `publish_tokens`.
    """
    started = time.monotonic()
    shard = repository_directory(settings.paths.data_dir, repo)
    source_of(shard)
    store = GenerationStore(shard)
    with store.builder_lock():
        check_space(settings.paths.data_dir, settings.index)
        identity = store.published_id()
        dense = shared_dense_encoder(settings, settings.paths.data_dir / "models")
        before = store.manifest(identity)
        manifest, encoded = publish_tokens(store, before, settings, dense, Stopwatch(on_progress))
        store.gc(settings.index.keep_generations)
        index = read_manifest(token_directory(store.path_of(manifest.generation)) / TOKENS)
    return TokenIndexSummary(
        repo=repo,
        generation=manifest.generation,
        model=manifest.token_model.partition(" ")[0],
        changed=manifest.generation != identity,
        encoded=encoded,
        documents=index.documents,
        tokens=index.tokens,
        bytes=index.bytes,
        cut=manifest.counts["tokens_cut"],
        seconds=time.monotonic() - started,
    )
