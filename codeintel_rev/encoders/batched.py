"""Every text's vector, from the cache or the encoder, in pieces a build can publish and resume from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from codeintel_rev.encoders.dense import DenseEncoder, unit_rows
from codeintel_rev.errors import IndexIncompatible
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import Floats, Ids

_LOOKUP = 4096


def encode_chunks(
    texts: Sequence[str],
    encoder: DenseEncoder,
    cache: VectorCache,
    *,
    on_progress: Callable[[int, int], None],
    checkpoint_every: int,
) -> Iterator[tuple[Ids, Floats]]:
    """Yield (positions (n,), vectors (n, dim)) until each position in `texts` came once.

    What is cached comes first, then what must be encoded, in the order of `texts`, so that the caller decides what is
    searchable soonest. Equal texts are encoded once. Every `checkpoint_every` texts are cached before they are yielded:
    a build that stops, however it stops, encodes at most that many again. Vectors are the same bits whether cached or
    not: rounded to float16, so of unit length to 1e-4. `on_progress(done, total)` counts positions and is first called
    when the cache has been asked.

    Raises EncoderFailed for unusable vectors, none of whose batch is kept, and IndexIncompatible if `cache` belongs to
    another model.
    """
    if cache.fingerprint != encoder.fingerprint:
        raise IndexIncompatible(f"the vector cache holds {cache.fingerprint.model}, not {encoder.fingerprint.model}.")
    positions = _positions(texts)
    missing: list[bytes] = []
    done = 0
    for keys in _slices(list(positions), _LOOKUP):
        vectors, found = cache.get_many(keys)
        missing += [key for key, hit in zip(keys, found, strict=True) if not hit]
        where, rows = _spread(positions, [key for key, hit in zip(keys, found, strict=True) if hit], vectors[found])
        if len(where):
            done += len(where)
            yield where, rows
    on_progress(done, len(texts))
    for keys in _slices(missing, checkpoint_every):
        made = encoder.encode_documents([texts[positions[key][0]] for key in keys])
        where, rows = _spread(positions, keys, cache.put_many(keys, unit_rows(made, len(keys), encoder.fingerprint)))
        done += len(where)
        on_progress(done, len(texts))
        yield where, rows


def _positions(texts: Sequence[str]) -> dict[bytes, list[int]]:
    """Return where each text stands, by the SHA-256 of its UTF-8."""
    positions: dict[bytes, list[int]] = {}
    for position, text in enumerate(texts):
        positions.setdefault(hashlib.sha256(text.encode(errors="surrogatepass")).digest(), []).append(position)
    return positions


def _slices(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + size] for start in range(0, len(keys), size))


def _spread(positions: dict[bytes, list[int]], keys: Sequence[bytes], vectors: Floats) -> tuple[Ids, Floats]:
    """Return every position of every key, and the key's vector for each of them."""
    where = np.array([position for key in keys for position in positions[key]], np.int64)
    return where, np.repeat(vectors, [len(positions[key]) for key in keys], axis=0)
