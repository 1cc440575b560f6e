"""Two tables and the names of what is deleted, read as one table."""

from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import DimensionMismatch, GenerationMismatch, IndexCorrupt, InvalidArgument
from codeintel_rev.io.stored_vectors import DELETED, StoredVectors, write_deleted
from codeintel_rev.io.vectors import SECONDARY, write_vectors

OLD = np.array([[1, 0, 0.5, 0], [0, 1, 0, 0.25], [0.5, 0.5, 0.5, 0.5]], np.float32)
NEW = np.array([[0, 0, 0, 1], [0.25, 0, 0, 0]], np.float32)


def write(directory: Path, old: list[int], new: list[int], deleted: list[int]) -> None:
    write_vectors(directory, np.array(old), OLD)
    write_vectors(directory, np.array(new), NEW, SECONDARY)
    write_deleted(directory, np.array(deleted, np.int64))


@pytest.fixture
def stored(tmp_path: Path) -> StoredVectors:
    """7 is replaced, 50 gone, 2**62 as it was, 9 new."""
    write(tmp_path, [7, 50, 2**62], [7, 9], [7, 50])
    return StoredVectors.open(tmp_path, 4)


def test_each_id_stands_once_and_the_new_vector_wins(stored: StoredVectors) -> None:
    """Decision 51."""
    vectors, found = stored.gather(np.array([7, 9, 50, 2**62, 8, 2**63 - 1, -1, 7]))
    assert found.tolist() == [True, True, False, True, False, False, False, True]
    assert np.array_equal(vectors, [NEW[0], NEW[1], [0] * 4, OLD[2], [0] * 4, [0] * 4, [0] * 4, NEW[0]])
    assert len(stored) == 3


def test_the_map_numbers_both_tables(stored: StoredVectors) -> None:
    rows, ids = stored.idmap()
    assert (rows.tolist(), ids.tolist()) == ([2, 3, 4], [2**62, 7, 9])
    assert np.array_equal(stored[rows], [OLD[2], NEW[0], NEW[1]])
    assert stored.shape == (5, 4)


def test_scores_are_inner_products_and_a_missing_id_scores_least(stored: StoredVectors) -> None:
    scores, found = stored.scores(np.array([1, 2, 0, 4]), np.array([2**62, 8, 9, 50]))
    assert (scores.tolist(), found.tolist()) == ([3.5, -np.inf, 0.25, -np.inf], [True, False, True, False])


def test_equal_vectors_score_equal_bits(tmp_path: Path) -> None:
    """BLAS adds up the last rows of a matrix in another order; ties are broken by id, so twins must tie."""
    vectors = np.tile(np.random.default_rng(0).standard_normal((1, 384), np.float32), (203, 1))
    write_vectors(tmp_path, np.arange(1, 204), vectors)
    write_vectors(tmp_path, np.arange(204, 207), vectors[:3], SECONDARY)
    write_deleted(tmp_path, np.empty(0, np.int64))
    stored = StoredVectors.open(tmp_path, 384)
    for query in np.random.default_rng(1).standard_normal((20, 384)):
        assert len(set(stored.scores(query, np.arange(1, 207))[0].tolist())) == 1


@pytest.mark.parametrize("query", [np.ones(3), np.ones((1, 4)), np.float32(1), np.ones(0)])
def test_a_query_of_another_shape_is_refused(stored: StoredVectors, query: np.ndarray) -> None:
    with pytest.raises(DimensionMismatch, match="index=4"):
        stored.scores(query, np.array([7]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_refused(stored: StoredVectors, bad: float) -> None:
    with pytest.raises(InvalidArgument, match="not finite"):
        stored.scores(np.array([0, bad, 0, 0]), np.array([7]))


@pytest.mark.parametrize("name", [SECONDARY.vectors, SECONDARY.vector_ids, DELETED])
@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_truncated_file_is_corrupt(tmp_path: Path, stored: StoredVectors, name: str, length: int) -> None:
    """F12."""
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(IndexCorrupt, match=f"{name} cannot be mapped"):
        StoredVectors.open(tmp_path, 4)


@pytest.mark.parametrize("name", [SECONDARY.vectors, SECONDARY.vector_ids, DELETED])
def test_a_missing_file_is_named(tmp_path: Path, stored: StoredVectors, name: str) -> None:
    """Decision 3: no file is taken for empty."""
    (tmp_path / name).unlink()
    with pytest.raises(IndexCorrupt, match=f"{name} is missing"):
        StoredVectors.open(tmp_path, 4)


@pytest.mark.parametrize("deleted", [[50, 7], [7, 7], [0, 7]])
def test_deleted_ids_out_of_order_are_corrupt(tmp_path: Path, deleted: list[int]) -> None:
    write(tmp_path, [7, 50, 2**62], [8, 9], deleted)
    with pytest.raises(IndexCorrupt, match="ascending"):
        StoredVectors.open(tmp_path, 4)


def test_a_deleted_id_that_was_never_there_is_a_mismatch(tmp_path: Path) -> None:
    """F14: tombstones of another generation."""
    write(tmp_path, [7, 50, 2**62], [8, 9], [7, 11])
    with pytest.raises(GenerationMismatch, match="names 1 ids"):
        StoredVectors.open(tmp_path, 4)


def test_an_id_with_two_live_vectors_is_a_mismatch(tmp_path: Path) -> None:
    """Decision 51: the new one wins because the old one is deleted, never by luck."""
    write(tmp_path, [7, 50, 2**62], [7, 50], [50])
    with pytest.raises(GenerationMismatch, match="1 chunks have a vector in both"):
        StoredVectors.open(tmp_path, 4)


@pytest.mark.parametrize("dim", [3, 384])
def test_another_dimension_is_told_at_open(tmp_path: Path, stored: StoredVectors, dim: int) -> None:
    with pytest.raises(DimensionMismatch, match=f"encoder={dim}"):
        StoredVectors.open(tmp_path, dim)


def test_a_secondary_of_another_dimension_is_refused(tmp_path: Path, stored: StoredVectors) -> None:
    """F16."""
    write_vectors(tmp_path, np.array([7, 9]), NEW[:, :3], SECONDARY)
    with pytest.raises(DimensionMismatch, match="vectors=3, encoder=4"):
        StoredVectors.open(tmp_path, 4)
