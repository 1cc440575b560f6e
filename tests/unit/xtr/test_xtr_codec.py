"""What the codec keeps of a token, and that every way to multiply gives the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from codeintel_rev.xtr import centroids, dots
from codeintel_rev.xtr.centroids import nearest, train
from codeintel_rev.xtr.codec import to_bytes, train_codec, width
from codeintel_rev.xtr.segments import token_rows
from tests.unit.xtr.token_corpora import clustered, vectors


def tokens_of(dim: int, count: int = 4000) -> np.ndarray:
    return np.concatenate(list(clustered(np.random.default_rng(5), [count // 10] * 10, dim, centres=300).values()))


def test_int8_products_are_whole_numbers() -> None:
    """Also at the ends of the range, where instructions that add pairs in 16 bits saturate."""
    random = np.random.default_rng(0)
    rows = random.integers(-128, 128, (70, 256)).astype(np.int8)
    others = np.concatenate([random.integers(-127, 128, (5, 256)), np.full((1, 256), 127), np.full((1, 256), -127)])
    rows[0], rows[1] = 127, -128
    expected = rows.astype(np.int64) @ others.T
    np.testing.assert_array_equal(dots.int8_dots(rows, others.astype(np.int8)), expected)
    np.testing.assert_array_equal(dots.float_dots(rows, others.astype(np.int8)), expected)


def test_a_cpu_without_int8_products_chooses_the_same_centroids(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = to_bytes(tokens_of(48), 1 / 127, 48)
    fast = train(rows, 100, 0)
    found = fast.assign(rows), nearest(rows, fast.fine)
    for module in (dots, centroids):
        monkeypatch.setattr(module, "has_int8", lambda: False)
    slow = train(rows, 100, 0)
    np.testing.assert_array_equal(slow.fine, fast.fine)
    np.testing.assert_array_equal((slow.assign(rows), nearest(rows, slow.fine)), found)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.03), (2, 0.2)])
@pytest.mark.parametrize("dim", [8, 33, 128])
def test_the_residual_keeps_most_of_what_the_centroid_lost(bits: int, most: float, dim: int) -> None:
    tokens = tokens_of(dim)
    codec = train_codec(tokens, bits, 256, 0)
    cells, lengths, residuals = codec.encode(tokens)
    assert residuals.shape == (len(tokens), width(dim, bits) * bits // 8)
    planes = [(residuals >> (bits * plane)) & ((1 << bits) - 1) for plane in range(8 // bits)]
    rows = codec.centroids.fine[cells] + codec.step * np.concatenate(planes, axis=1).astype(np.int64)
    assert np.abs(rows).max() <= 128
    kept = rows[:, :dim] * codec.scales[lengths, None]
    centroid = (codec.centroids.fine[cells][:, :dim] + codec.middle) * codec.unit
    assert ((kept - tokens) ** 2).sum() <= most * ((centroid - tokens) ** 2).sum()
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1, atol=0.02)


def test_two_levels_lose_little_to_one() -> None:
    """Within 5 % of the energy that flat search leaves with the same centroids."""
    tokens = tokens_of(32, 20_000)
    rows = to_bytes(tokens, 1 / 127, 32)
    trained = train(rows, 512, 0)
    energies = [
        float(((rows.astype(np.float32) - trained.fine[cells]) ** 2).sum())
        for cells in (trained.assign(rows), nearest(rows, trained.fine))
    ]
    assert energies[1] <= energies[0] <= 1.05 * energies[1]


def test_as_many_centroids_as_tokens_are_the_tokens() -> None:
    rows = to_bytes(vectors(np.random.default_rng(0), 20, 16), 1 / 127, 16)
    trained = train(rows, 20, 0)
    assert {bytes(row) for row in trained.fine} == {bytes(row) for row in rows}


def test_tokens_that_are_all_the_same_survive() -> None:
    tokens = np.tile(vectors(np.random.default_rng(0), 1, 16), (50, 1))
    codec = train_codec(tokens, 4, 8, 0)
    cells, lengths, residuals = codec.encode(tokens)
    assert len(set(zip(cells.tolist(), lengths.tolist(), map(bytes, residuals), strict=True))) == 1


def test_rows_of_ranges() -> None:
    assert token_rows(np.array([5, 9, 0]), np.array([7, 9, 3])).tolist() == [5, 6, 0, 1, 2]
    assert token_rows(np.array([], np.int64), np.array([], np.int64)).tolist() == []
