"""One vector a text from an embedding server, each checked before anything keeps it (answers §1.1, reliability F28)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.models import ModelCard, served_model
from codeintel_rev.io.vllm.refusals import failure
from codeintel_rev.io.vllm.rows import decoded, indexed_rows
from codeintel_rev.types import Floats


class EmbedClient:
    """An embedding model behind `upstream`, which reads the first `max_tokens` tokens of a text."""

    def __init__(self, upstream: Upstream, max_tokens: int) -> None:
        self._upstream = upstream
        self._max_tokens = max_tokens

    async def card(self, *, trace_id: str) -> ModelCard:
        """Return what the server serves. Raises UpstreamFailed."""
        return await served_model(self._upstream, trace_id=trace_id)

    async def embed(self, texts: Sequence[str], *, dim: int | None, trace_id: str, within_s: float | None) -> Floats:
        """Return the vectors of `texts`, n ≥ 1, as (n, dim) float32, in their order, of the server's length.

        `dim` is None for whoever asks which it is, `within_s` for who waits as long as the endpoint does. Raises
        UpstreamFailed; of a bad batch nothing is returned.
        """
        body = {
            "model": self._upstream.endpoint.model,
            "input": list(texts),
            "encoding_format": "base64",
            "endianness": "little",
            "truncate_prompt_tokens": self._max_tokens,
        }
        return await self._upstream.ask(
            "/v1/embeddings",
            body,
            lambda reply: embeddings(reply, len(texts), dim),
            trace_id=trace_id,
            hedged=True,
            within_s=within_s,
        )


def embeddings(reply: Reply, count: int, dim: int | None) -> Floats:
    """Return (count, dim) float32 from an answer in any order, as numbers or as base64 of little-endian float32.

    Raises UpstreamMalformed for another count, an index twice, another dimension, NaN, infinity, a vector of zeros.
    """
    rows = indexed_rows("embed", reply, count)
    vectors = [_vector(row.get("embedding")) for row in rows]
    found = {vector.shape for vector in vectors}
    if len(found) != 1 or found == {(0,)} or (dim is not None and found != {(dim,)}):
        widths = sorted(shape[0] for shape in found)
        raise failure("embed", "malformed", f"gave vectors of {widths} dimensions, expected {dim or 'one number'}")
    matrix = np.stack(vectors)
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
    if not np.isfinite(norms).all() or (norms == 0).any():
        raise failure("embed", "malformed", "gave a vector of zeros, or with NaN or infinity")
    return matrix


def _vector(value: object) -> Floats:
    """Return one vector as (dim,) float32."""
    if isinstance(value, str):
        return decoded("embed", value, "<f4")
    if not isinstance(value, list) or not all(type(number) in {int, float} for number in value):
        raise failure("embed", "malformed", "gave a vector that is no list of numbers")
    return np.array(value, np.float64).astype(np.float32)
