"""Every text's vector, from the cache or the encoder, in pieces a build can publish and resume from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.encoders.dense import DenseEncoder, unit_rows
from codeintel_rev.errors import IndexIncompatible
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import Floats, Ids

_LOOKUP = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """Texts that want a vector. `positions` tells where each stands in `texts`, by the SHA-256 of its UTF-8."""

    texts: Sequence[str]
    positions: dict[bytes, list[int]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        positions: dict[bytes, list[int]] = {}
        for position, text in enumerate(texts):
            positions.setdefault(hashlib.sha256(text.encode(errors="surrogatepass")).digest(), []).append(position)
        return cls(texts, positions)


def cached(wanted: Wanted, cache: VectorCache) -> Iterator[tuple[Ids, Floats]]:
    """Yield (positions (n,), vectors (n, dim)) of the texts whose vector the cache has."""
    for keys in _slices(list(wanted.positions), _LOOKUP):
        vectors, found = cache.get_many(keys)
        yield _spread(wanted, [key for key, hit in zip(keys, found, strict=True) if hit], vectors[found])


def encoded(
    wanted: Wanted, made: NDArray[np.bool_], encoder: DenseEncoder, cache: VectorCache, checkpoint_every: int
) -> Iterator[tuple[Ids, Floats]]:
    """Yield (positions (n,), vectors (n, dim)) of the texts not `made` (len(texts),) yet, in their order.

    The caller's order decides what is searchable soonest; equal texts are encoded once. Every `checkpoint_every` texts
    are cached before they are yielded: a build that stops, however it stops, encodes at most that many again. Vectors
    are the same bits whether cached or not. Raises EncoderFailed for unusable vectors, none of whose batch is kept,
    and IndexIncompatible if `cache` belongs to another model.
    """
    if cache.fingerprint != encoder.fingerprint:
        raise IndexIncompatible(f"the vector cache holds {cache.fingerprint.model}, not {encoder.fingerprint.model}.")
    missing = [key for key, positions in wanted.positions.items() if not made[positions[0]]]
    for keys in _slices(missing, checkpoint_every):
        vectors = encoder.encode_documents([wanted.texts[wanted.positions[key][0]] for key in keys])
        yield _spread(wanted, keys, cache.put_many(keys, unit_rows(vectors, len(keys), encoder.fingerprint)))


def _slices(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _spread(wanted: Wanted, keys: Sequence[bytes], vectors: Floats) -> tuple[Ids, Floats]:
    """Return every position of every key, and the key's vector for each of them."""
    positions = [wanted.positions[key] for key in keys]
    where = np.array([position for places in positions for position in places], np.int64)
    return where, np.repeat(vectors, [len(places) for places in positions], axis=0)
