from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from codeintel_rev.encoders.batched import Wanted, cached, encoded
from codeintel_rev.errors import EncoderFailed, IndexIncompatible
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import ModelFingerprint

FINGERPRINT = ModelFingerprint("fake", "", 4, "mean", "float32", 128, "0")
TEXTS = [f"text {number}" for number in range(100)]


@dataclass
class CountingEncoder:
    """Encodes a text as the code points of its last four characters; breaks at the batch it is told to."""

    fails_at: int | None = None
    gives: object = None
    fingerprint: ModelFingerprint = FINGERPRINT
    batches: list[list[str]] = field(default_factory=list)

    def encode_documents(self, texts):
        if len(self.batches) == self.fails_at:
            raise EncoderFailed("the backend said 500.")
        self.batches.append(list(texts))
        if self.gives is not None:
            return self.gives(len(texts))
        return np.array([[ord(character) for character in text[-4:].rjust(4)] for text in texts], np.float32)

    def encode_queries(self, texts):
        return self.encode_documents(texts)

    @property
    def encoded(self):
        return [text for batch in self.batches for text in batch]


@pytest.fixture
def cache(tmp_path):
    return VectorCache.open(tmp_path / "vectors.sqlite", FINGERPRINT)


def missing_pieces(texts, encoder, cache, every=10):
    """Return the pieces of `texts` that the cache does not have, encoded as they are taken."""
    wanted = Wanted.of(texts)
    made = np.zeros(len(texts), np.bool_)
    for where, _ in cached(wanted, cache):
        made[where] = True
    return encoded(wanted, made, encoder, cache, every)


def collect(texts, encoder, cache, every=10):
    """Return all positions in the order yielded, and the vectors in the order of `texts`."""
    pieces = [*cached(Wanted.of(texts), cache), *missing_pieces(texts, encoder, cache, every)]
    positions = np.concatenate([positions for positions, _ in pieces]) if pieces else np.empty(0, np.int64)
    vectors = np.zeros((len(texts), encoder.fingerprint.dim), np.float32)
    for where, rows in pieces:
        vectors[where] = rows
    return positions, vectors


def test_every_position_comes_once_with_its_own_vector(cache):
    encoder = CountingEncoder()
    positions, vectors = collect(TEXTS, encoder, cache)
    expected = encoder.encode_documents(TEXTS)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert sorted(positions) == list(range(100))
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


def test_equal_texts_are_encoded_once_and_each_gets_the_vector(cache):
    encoder = CountingEncoder()
    positions, vectors = collect(["same", "other", "same", "same"], encoder, cache)
    assert encoder.encoded == ["same", "other"]
    assert sorted(positions) == [0, 1, 2, 3]
    np.testing.assert_array_equal(vectors[[2, 3]], vectors[[0, 0]])


def test_second_build_encodes_only_what_is_new(cache):
    collect(TEXTS, CountingEncoder(), cache)
    encoder = CountingEncoder()
    collect([*TEXTS, "new"], encoder, cache)
    assert encoder.encoded == ["new"]


def test_cached_vectors_have_the_same_bits_as_fresh_ones(cache):
    fresh = collect(TEXTS, CountingEncoder(), cache)[1]
    np.testing.assert_array_equal(collect(TEXTS, CountingEncoder(), cache)[1], fresh)


def test_cached_texts_are_known_before_any_is_encoded(cache):
    collect(TEXTS[50:], CountingEncoder(), cache)
    positions = np.concatenate([where for where, _ in cached(Wanted.of(TEXTS), cache)])
    assert positions.tolist() == list(range(50, 100))


def test_failed_build_resumes_with_what_is_left(cache):
    """F10"""
    broken, fixed = CountingEncoder(fails_at=6), CountingEncoder()
    with pytest.raises(EncoderFailed):
        collect(TEXTS, broken, cache)
    collect(TEXTS, fixed, cache)
    assert fixed.encoded == TEXTS[60:]


def test_abandoned_build_resumes_with_what_is_left(cache):
    """F10: the consumer stops after the third piece, as a cancelled build does."""
    pieces = missing_pieces(TEXTS, CountingEncoder(), cache)
    for _ in range(3):
        next(pieces)
    pieces.close()
    encoder = CountingEncoder()
    collect(TEXTS, encoder, cache)
    assert encoder.encoded == TEXTS[30:]


@pytest.mark.parametrize(
    "gives",
    [
        lambda count: np.ones((count - 1, 4), np.float32),
        lambda count: np.ones((count, 5), np.float32),
        lambda count: np.full((count, 4), np.nan, np.float32),
        lambda count: np.zeros((count, 4), np.float32),
    ],
)
def test_unusable_vectors_never_enter_the_cache(cache, gives):
    """F28"""
    with pytest.raises(EncoderFailed):
        collect(TEXTS, CountingEncoder(gives=gives), cache)
    encoder = CountingEncoder()
    collect(TEXTS, encoder, cache)
    assert encoder.encoded == TEXTS


def test_no_texts_yield_nothing(cache):
    assert collect([], CountingEncoder(), cache)[0].tolist() == []


def test_cache_of_another_model_is_refused(cache):
    """F16"""
    with pytest.raises(IndexIncompatible):
        collect(TEXTS, CountingEncoder(fingerprint=replace(FINGERPRINT, max_tokens=64)), cache)


def test_real_encoder_and_cache_agree(minilm, tmp_path):
    texts = ["def add(a, b): return a + b", "class Cache: ...", ""]
    cache = VectorCache.open(tmp_path / "vectors.sqlite", minilm.fingerprint)
    vectors = collect(texts, minilm, cache, every=2)[1]
    assert (vectors * minilm.encode_documents(texts)).sum(axis=1).min() > 0.9999
