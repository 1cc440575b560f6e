from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import (
    DimensionMismatch,
    EncoderFailed,
    GenerationMismatch,
    IndexCorrupt,
    InvalidArgument,
)
from codeintel_rev.io import vectors as store
from codeintel_rev.io.vectors import VectorTable, write_vectors

IDS = np.array([50, 2**62, 7], np.int64)
ROWS = np.array([[1, 0, 0.5, 0], [0, 1, 0, 0.25], [0.5, 0.5, 0.5, 0.5]], np.float32)


@pytest.fixture
def table(tmp_path: Path) -> VectorTable:
    write_vectors(tmp_path, IDS, ROWS)
    return VectorTable.open(tmp_path, 4)


def test_rows_stand_by_ascending_id(table: VectorTable) -> None:
    assert table.ids.tolist() == [7, 50, 2**62]
    assert np.array_equal(table.vectors, ROWS[[2, 0, 1]].astype(np.float16))


def test_gather_keeps_the_asked_order_and_tells_what_is_missing(table: VectorTable) -> None:
    vectors, found = table.gather(np.array([2**62, 8, 7, 7, 2**63 - 1, -1]))
    assert found.tolist() == [True, False, True, True, False, False]
    assert np.array_equal(vectors, [ROWS[1], [0] * 4, ROWS[2], ROWS[2], [0] * 4, [0] * 4])


def test_scores_are_inner_products_and_a_missing_id_scores_least(table: VectorTable) -> None:
    scores, found = table.scores(np.array([1, 2, 0, 0], np.float32), np.array([7, 8, 50]))
    assert (scores.tolist(), found.tolist()) == ([1.5, -np.inf, 1.0], [True, False, True])


def test_blocks_give_every_row_once(tmp_path: Path) -> None:
    rows = store.BLOCK_ROWS * 2 + 3
    vectors = np.random.default_rng(0).standard_normal((rows, 2), np.float32)
    write_vectors(tmp_path, np.arange(rows)[::-1].astype(np.int64), vectors)
    blocks = list(VectorTable.open(tmp_path, 2).blocks())
    assert np.array_equal(np.concatenate([ids for ids, _ in blocks]), np.arange(rows))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors[::-1].astype(np.float16))


def test_no_vectors_are_a_table_too(tmp_path: Path) -> None:
    write_vectors(tmp_path, np.empty(0, np.int64), np.empty((0, 4), np.float32))
    table = VectorTable.open(tmp_path, 4)
    assert (len(table), table.gather(IDS)[1].any()) == (0, False)


def test_rows_are_asked_for_a_block_at_a_time(tmp_path: Path) -> None:
    """The build's memory does not grow with the corpus: vectors may live in a cache on disk."""
    asked: list[int] = []

    class Cache:
        shape = (store.BLOCK_ROWS + 1, 2)

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            asked.append(len(rows))
            return np.ones((len(rows), 2), np.float32)

    write_vectors(tmp_path, np.arange(store.BLOCK_ROWS + 1), Cache())
    assert asked == [store.BLOCK_ROWS, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_a_vector_that_is_not_finite_in_float16_is_refused(tmp_path: Path, bad: float) -> None:
    """F28: NaN must not reach FAISS."""
    rows = ROWS.copy()
    rows[1, 1] = bad
    with pytest.raises(EncoderFailed, match="not finite"):
        write_vectors(tmp_path, IDS, rows)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="twice"):
        write_vectors(tmp_path, np.array([7, 8, 7]), ROWS)


def test_ids_without_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 ids, 2 vectors"):
        write_vectors(tmp_path, IDS, ROWS[:2])


def test_another_dimension_is_told_at_open(tmp_path: Path, table: VectorTable) -> None:
    """C25, law 7."""
    with pytest.raises(DimensionMismatch, match="Dimension mismatch: vectors=4, encoder=384"):
        VectorTable.open(tmp_path, 384)


@pytest.mark.parametrize("query", [np.ones(3), np.ones((1, 4)), np.float32(1), np.ones(0)])
def test_a_query_of_another_shape_is_refused(table: VectorTable, query: np.ndarray) -> None:
    with pytest.raises(DimensionMismatch, match="index=4"):
        table.scores(query, IDS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_refused(table: VectorTable, bad: float) -> None:
    with pytest.raises(InvalidArgument, match="not finite"):
        table.scores(np.array([0, bad, 0, 0]), IDS)


@pytest.mark.parametrize("name", [store.VECTORS, store.VECTOR_IDS])
@pytest.mark.parametrize("length", [0, 5, 60, -1])
def test_a_truncated_file_is_corrupt(tmp_path: Path, table: VectorTable, name: str, length: int) -> None:
    """F12."""
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(IndexCorrupt, match=f"{name} cannot be mapped"):
        VectorTable.open(tmp_path, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt, match=r"vector_ids\.npy is missing"):
        VectorTable.open(tmp_path, 4)


def test_a_file_of_another_type_is_corrupt(tmp_path: Path, table: VectorTable) -> None:
    np.save(tmp_path / store.VECTORS, ROWS)
    with pytest.raises(IndexCorrupt, match="2-d float32, expected 2-d float16"):
        VectorTable.open(tmp_path, 4)


def test_a_pickle_is_never_loaded(tmp_path: Path, table: VectorTable) -> None:
    """S21."""
    np.save(tmp_path / store.VECTOR_IDS, np.array([{}], object), allow_pickle=True)
    with pytest.raises(IndexCorrupt):
        VectorTable.open(tmp_path, 4)


def test_files_of_two_generations_do_not_open_together(tmp_path: Path, table: VectorTable) -> None:
    """F14."""
    np.save(tmp_path / store.VECTOR_IDS, np.array([1, 2], np.int64))
    with pytest.raises(GenerationMismatch, match="has 2 rows"):
        VectorTable.open(tmp_path, 4)
