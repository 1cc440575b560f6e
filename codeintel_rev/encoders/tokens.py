"""What every token encoder promises, how wide token vectors become narrow, and where a token stands in its file.

Late interaction (ColBERT, arXiv 2004.12832) keeps one vector per token. A forward pass that makes them has also made
everything a dense vector is pooled from, so a token encoder gives both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.types import Chunk, Floats, Ids, ModelFingerprint

MAX_QUERY_TOKENS = 256
TOKEN_DIM = 128
_QUERY_CHARACTERS = 64 * MAX_QUERY_TOKENS


@dataclass(frozen=True, slots=True, eq=False)
class EncodedDocument:
    """A whole text: `dense` (dim,), `tokens` (n, token_dim) float32 of unit length, `offsets` (n, 2) int64.

    `offsets` are the characters [start, end) of the text that a token stands for; special tokens stand for none:
    (0, 0). n is 0 when the mask leaves no token.
    """

    dense: Floats
    tokens: Floats
    offsets: Ids


@dataclass(frozen=True, slots=True, eq=False)
class EncodedQuery:
    """As EncodedDocument, of the first MAX_QUERY_TOKENS tokens. Mask tokens that expand a query stand for (0, 0)."""

    dense: Floats
    tokens: Floats
    offsets: Ids


class TokenEncoder(Protocol):
    """Turns texts into a dense vector and token vectors in one pass. Safe to call from many threads at once.

    Raises EncoderFailed rather than return an unusable vector.
    """

    @property
    def fingerprint(self) -> ModelFingerprint:
        """Which model, projection, mask and limits make the token vectors; `dim` is theirs, `max_tokens` a window's."""
        ...

    @property
    def dense_fingerprint(self) -> ModelFingerprint:
        """Which DenseEncoder gives the same dense vectors, so that a cache of its vectors may keep these."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Iterable[EncodedDocument]:
        """Yield every text in order, none of it cut: one longer than a window is read in several.

        The dense vector is that of the first window, which is all that a DenseEncoder reads. Memory does not grow
        with the number of texts.
        """
        ...

    def encode_query(self, text: str) -> EncodedQuery: ...


@dataclass(frozen=True, slots=True)
class Masked:
    """Which tokens of a document get no vector: special ones, and those whose id is in `ids`. Queries keep `ids`."""

    special: bool
    ids: frozenset[int]

    def kept(self, ids: Ids, special: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the tokens `ids` (n,), `special` (n,) get a vector: (n,)."""
        return ~(np.isin(ids, sorted(self.ids)) | (special & self.special))


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """An affine map from hidden states to token vectors: `matrix` (dim, token_dim), `bias` (token_dim,), float32.

    It belongs to an index as its codec does: query and document tokens meet only through the same one.
    """

    matrix: Floats
    bias: Floats

    @classmethod
    def linear(cls, matrix: NDArray[np.floating]) -> Self:
        return cls(np.ascontiguousarray(matrix, np.float32), np.zeros(matrix.shape[1], np.float32))

    @classmethod
    def orthonormal(cls, dim: int, token_dim: int = TOKEN_DIM, seed: int = 42) -> Self:
        """Return a random one that keeps the inner product on average; needs no data."""
        basis, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, token_dim)))
        return cls.linear(basis * np.sign(np.diag(triangle)))

    @classmethod
    def pca(cls, rows: Floats, token_dim: int = TOKEN_DIM) -> Self:
        """Return the orthonormal one that keeps most of the inner products among `rows` (n, dim), n ≥ 1.

        Not centred: MaxSim compares the vectors as they are.
        """
        unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
        directions = np.linalg.eigh(unit.T @ unit)[1][:, ::-1][:, :token_dim]
        largest = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
        return cls.linear(directions * np.sign(largest))

    def __call__(self, hidden: Floats) -> Floats:
        """Return the (n, token_dim) projections of `hidden` (n, dim), not yet of unit length.

        Row by row: BLAS would wake its threads for the whole, which spin afterwards and halve the rate of an encoder
        that is busy on every core (66 against 158 chunks of 128 tokens per CPU second). A row's bits are its own, too.
        """
        projected: Floats = (hidden[:, None, :] @ self.matrix)[:, 0] + self.bias
        return projected

    @property
    def token_dim(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return a safetensors file with `matrix` and `bias`."""
        return bytes(save({"matrix": self.matrix, "bias": self.bias}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the projection `to_bytes` wrote. Raises IndexCorrupt."""
        try:
            arrays = load(data)
            projection = cls(arrays["matrix"], arrays["bias"])
        except (SafetensorError, KeyError) as error:
            raise _corrupt(f"{type(error).__name__}: {error}") from error
        shapes = (projection.matrix.shape, projection.bias.shape)
        if projection.matrix.ndim != 2 or projection.bias.shape != projection.matrix.shape[1:]:
            raise _corrupt(f"shapes {shapes}")
        if not (np.isfinite(projection.matrix).all() and np.isfinite(projection.bias).all()):
            raise _corrupt("NaN or infinity")
        return projection


def _corrupt(found: str) -> IndexCorrupt:
    return IndexCorrupt(f"the token projection cannot be used: {found}.", "Rebuild the late-interaction index.")


def query_text(text: str) -> str:
    """Return the part of a query that can hold the tokens read, as valid Unicode."""
    return valid(text[:_QUERY_CHARACTERS])


def valid(text: str) -> str:
    """Return `text` with every lone surrogate, which tokenizers refuse, as `?`: offsets stay."""
    return text.encode(errors="replace").decode()


def slices(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def positions(text: str, offsets: Ids) -> Ids:
    """Return the 1-based (line, column) in characters at which each of `offsets` (n, 2) starts in `text`: (n, 2)."""
    starts = np.array([0, *(at + 1 for at, character in enumerate(text) if character == "\n")], np.int64)
    lines = np.searchsorted(starts, offsets[:, 0], side="right")
    return np.stack([lines, offsets[:, 0] - starts[lines - 1] + 1], axis=1)


def file_positions(chunk: Chunk, offsets: Ids) -> Ids:
    """Return the 1-based (line, column) in the file of `offsets` (n, 2) into `embedding_text(chunk)`: (n, 2).

    (0, 0) for special tokens and for those of the header, which stand nowhere in the file.
    """
    header = len(embedding_text(chunk)) - len(chunk.text)
    within = np.maximum(offsets - header, 0)
    found: Ids = positions(chunk.text, within) + np.array([chunk.start_line - 1, 0])
    found[(offsets[:, 0] < header) | (offsets[:, 1] == 0)] = 0
    return found
