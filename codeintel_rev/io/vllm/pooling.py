"""One vector a token, for late interaction, from a server's `/pooling` (answers §1.1, §1.5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.refusals import failure
from codeintel_rev.io.vllm.rows import decoded, floats, in_order, indexed_rows
from codeintel_rev.types import Floats

_DTYPES = {"float32": "f4", "float16": "f2"}
_ORDERS = {"little": "<", "big": ">"}


class PoolingClient:
    """A late-interaction model behind `upstream`. Prefixes of its training are the caller's to write."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def tokens(
        self,
        texts: Sequence[str] | Sequence[list[int]],
        *,
        dim: int | None,
        trace_id: str,
        within_s: float | None,
    ) -> tuple[Floats, ...]:
        """Return (n tokens, dim) float32 for each of `texts`, one at least, in their order; token ids will do, too.

        `dim` is None for whoever asks which it is, `within_s` for who waits as long as the endpoint does. The server
        sends float16 in one piece: 1,024 bytes for 8 tokens of 64, where JSON is ten times that. Raises
        UpstreamFailed; of a bad batch nothing is returned.
        """
        body = {
            "model": self._upstream.endpoint.model,
            "input": list(texts),
            "task": "token_embed",
            "encoding_format": "bytes",
            "embed_dtype": "float16",
            "endianness": "little",
            "truncate_prompt_tokens": -1,
        }
        return await self._upstream.ask(
            "/pooling", body, lambda reply: token_vectors(reply, len(texts), dim), trace_id=trace_id, within_s=within_s
        )


def token_vectors(reply: Reply, count: int, dim: int | None) -> tuple[Floats, ...]:
    """Return `count` arrays (n tokens, dim) float32 from an answer of numbers, of base64, or of bytes with `metadata`.

    Raises UpstreamMalformed for another count or dimension, and for NaN or infinity.
    """
    if "metadata" in reply.headers:
        arrays = [_cut(row, reply.body) for row in _described(reply.headers["metadata"], count)]
    else:
        arrays = [_numbers(row.get("data"), dim) for row in indexed_rows("tokens", reply, count)]
    dim = dim or (arrays[0].shape[-1] if arrays[0].ndim else 0)
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != dim:
            raise failure("tokens", "malformed", f"gave token vectors of shape {array.shape}, expected (n, {dim})")
        if not np.isfinite(array).all():
            raise failure("tokens", "malformed", "gave a token vector with NaN or infinity")
    return tuple(arrays)


def _described(metadata: str, count: int) -> list[dict[str, Any]]:
    try:
        described = json.loads(metadata)
    except (ValueError, RecursionError) as error:
        raise failure("tokens", "malformed", "sent bytes with metadata that is no JSON") from error
    return in_order("tokens", described.get("data") if isinstance(described, dict) else None, count)


def _cut(row: dict[str, Any], body: bytes) -> Floats:
    """Return the array that `row` describes: `start`, `end`, `shape`, `embed_dtype`, `endianness`."""
    dtype, order = _DTYPES.get(str(row.get("embed_dtype"))), _ORDERS.get(str(row.get("endianness")))
    start, end, shape = row.get("start"), row.get("end"), row.get("shape")
    places = (start, end, *shape) if isinstance(shape, list) else ()
    if not dtype or not order or not places or any(type(place) is not int or place < 0 for place in places):
        raise failure("tokens", "malformed", "sent bytes with metadata of an unknown kind")
    values = floats("tokens", body[start:end], order + dtype)
    return _shaped(values, tuple(places[2:]))


def _numbers(value: object, dim: int | None) -> Floats:
    """Return the (n, dim) array of a list of lists, or of base64 of little-endian float32, which has no shape."""
    if isinstance(value, str):
        return _shaped(decoded("tokens", value, "<f4"), (-1, dim or 0))
    try:
        array = np.array(value, np.float64)
    except (ValueError, TypeError) as error:
        raise failure("tokens", "malformed", "gave token vectors that are no numbers, or not equally long") from error
    return array.astype(np.float32)


def _shaped(values: Floats, shape: tuple[int, ...]) -> Floats:
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise failure("tokens", "malformed", f"gave {values.size} numbers for token vectors of {shape}") from error
