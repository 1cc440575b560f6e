"""A dense encoder that is another server's: texts go there, vectors come back (`embedding.provider = "vllm"`)."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import numpy as np

from codeintel_rev.config.settings import EmbeddingSettings, EndpointSettings
from codeintel_rev.encoders.dense import readable, unit_rows
from codeintel_rev.errors import EncoderFailed, SettingsError, UpstreamFailed
from codeintel_rev.io.durable import Storage
from codeintel_rev.io.vllm.blocking import wait_for
from codeintel_rev.io.vllm.embed import EmbedClient
from codeintel_rev.io.vllm.http import open_upstream
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.types import Floats, ModelFingerprint

CODE_PATH = "served-1"  # Raise it with every change here that changes vectors.
BATCHES_AT_ONCE = 4
"""Requests in flight: the server batches what waits."""
PROBE = "def probe(): ..."
T = TypeVar("T")


class ServedEncoder:
    """A DenseEncoder over a model server. A query's vector that takes longer than `query_s` is EncoderFailed."""

    def __init__(self, client: EmbedClient, fingerprint: ModelFingerprint, batch_size: int, query_s: float) -> None:
        self.fingerprint = fingerprint
        self._client = client
        self._batch_size = batch_size
        self._query_s = query_s

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        return self._encoded(texts, None)

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        return self._encoded(texts, self._query_s)

    def _encoded(self, texts: Sequence[str], within_s: float | None) -> Floats:
        vectors = answered(self._gathered(texts, within_s, trace_id()))
        return unit_rows(vectors, len(texts), self.fingerprint)

    async def _gathered(self, texts: Sequence[str], within_s: float | None, trace: str) -> Floats:
        """Return the vectors of all batches; the first that fails stops the others."""
        vectors = np.empty((len(texts), self.fingerprint.dim), np.float32)
        limiter = anyio.CapacityLimiter(BATCHES_AT_ONCE)

        async def encode(batch: slice) -> None:
            read = [readable(text, self.fingerprint) for text in texts[batch]]
            async with limiter:
                vectors[batch] = await self._client.embed(
                    read, dim=self.fingerprint.dim, trace_id=trace, within_s=within_s
                )

        try:
            async with anyio.create_task_group() as group:
                for start in range(0, len(texts), self._batch_size):
                    group.start_soon(encode, slice(start, start + self._batch_size))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return vectors


def open_encoder(settings: EmbeddingSettings, models_dir: Path, endpoint: EndpointSettings) -> ServedEncoder:
    """Return the encoder that `endpoint` serves. Raises SettingsError, EncoderFailed.

    The server is asked for its dimension once and the answer kept in `models_dir`: a process that starts while the
    server is down still knows which index is its own, and searches without vectors until it is back.
    """
    client = EmbedClient(open_upstream("embed", endpoint), settings.max_tokens)
    named = f"{endpoint.model}\0{settings.revision}\0{settings.max_tokens}"
    kept = models_dir / "served" / f"{hashlib.sha256(named.encode()).hexdigest()[:16]}.dim"
    if not kept.is_file():
        dim = answered(_probed(client, settings.max_tokens))
        storage = Storage()
        storage.make_directory(kept.parent)
        storage.write(kept, str(dim).encode())
    fingerprint = served_fingerprint(endpoint.model, settings, int(kept.read_text()))
    return ServedEncoder(client, fingerprint, settings.batch_size, settings.query_timeout_ms / 1000)


def served_fingerprint(model: str, settings: EmbeddingSettings, dim: int) -> ModelFingerprint:
    """Return what names the model: its id and `embedding.revision`, as nobody sees a server's weights from outside."""
    parts = (CODE_PATH, model, settings.revision, str(dim), str(settings.max_tokens))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return ModelFingerprint(model, settings.revision, dim, "served", "float32", settings.max_tokens, digest)


async def _probed(client: EmbedClient, max_tokens: int) -> int:
    """Return the dimension of the server's vectors. Raises SettingsError when it reads less than it is asked to."""
    card = await client.card(trace_id=trace_id())
    if card.max_model_len is not None and max_tokens > card.max_model_len:
        raise SettingsError(
            f"setting embedding.max_tokens is {max_tokens}, {card.id} reads at most {card.max_model_len}.", "Lower it."
        )
    vectors = await client.embed([PROBE], dim=None, trace_id=trace_id(), within_s=None)
    return int(vectors.shape[1])


def answered(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what `coroutine` returns. Raises EncoderFailed where it raises UpstreamFailed."""
    try:
        return wait_for(coroutine)
    except UpstreamFailed as error:
        raise EncoderFailed(error.detail, error.hint) from error
