from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import (
    DimensionMismatch,
    EncoderFailed,
    GenerationMismatch,
    IndexCorrupt,
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


def test_blocks_give_every_row_once(tmp_path: Path) -> None:
    rows = store.BLOCK_ROWS * 2 + 3
    vectors = np.random.default_rng(0).standard_normal((rows, 2), np.float32)
    write_vectors(tmp_path, np.arange(1, rows + 1)[::-1], vectors)
    blocks = list(VectorTable.open(tmp_path, 2).blocks())
    assert np.array_equal(np.concatenate([ids for ids, _ in blocks]), np.arange(1, rows + 1))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors[::-1].astype(np.float16))


def test_no_vectors_are_a_table_too(tmp_path: Path) -> None:
    write_vectors(tmp_path, np.empty(0, np.int64), np.empty((0, 4), np.float32))
    table = VectorTable.open(tmp_path, 4)
    assert (len(table), table.dim) == (0, 4)


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


@pytest.mark.parametrize("name", [store.PRIMARY.vectors, store.PRIMARY.vector_ids])
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
    np.save(tmp_path / store.PRIMARY.vectors, ROWS)
    with pytest.raises(IndexCorrupt, match="2-d float32, expected 2-d float16"):
        VectorTable.open(tmp_path, 4)


def test_a_pickle_is_never_loaded(tmp_path: Path, table: VectorTable) -> None:
    """S21."""
    np.save(tmp_path / store.PRIMARY.vector_ids, np.array([{}], object), allow_pickle=True)
    with pytest.raises(IndexCorrupt):
        VectorTable.open(tmp_path, 4)


def test_files_of_two_generations_do_not_open_together(tmp_path: Path, table: VectorTable) -> None:
    """F14."""
    np.save(tmp_path / store.PRIMARY.vector_ids, np.array([1, 2], np.int64))
    with pytest.raises(GenerationMismatch, match="has 2 rows"):
        VectorTable.open(tmp_path, 4)


@pytest.mark.parametrize("ids", [[5, 7, 7], [7, 5, 9], [0, 5, 7], [-3, 5, 7]])
def test_ids_that_are_not_in_order_are_corrupt(tmp_path: Path, table: VectorTable, ids: list[int]) -> None:
    """Rows are looked up by bisection."""
    np.save(tmp_path / store.PRIMARY.vector_ids, np.array(ids, np.int64))
    with pytest.raises(IndexCorrupt, match="ascending"):
        VectorTable.open(tmp_path, 4)


def test_a_linked_table_is_replaced_and_not_written_into(tmp_path: Path, table: VectorTable) -> None:
    """The other name of the file is a published generation's."""
    (tmp_path / "child").mkdir()
    for name in (store.PRIMARY.vectors, store.PRIMARY.vector_ids):
        (tmp_path / "child" / name).hardlink_to(tmp_path / name)
    write_vectors(tmp_path / "child", IDS[:1], ROWS[:1])
    assert VectorTable.open(tmp_path, 4).ids.tolist() == [7, 50, 2**62]
    assert VectorTable.open(tmp_path / "child", 4).ids.tolist() == [50]


def test_a_subset_reads_the_rows_it_is_asked_for() -> None:
    subset = store.Subset(ROWS, np.array([2, 0]))
    assert subset.shape == (2, 4)
    assert np.array_equal(subset[np.array([1, 0, 1])], ROWS[[0, 2, 0]])
