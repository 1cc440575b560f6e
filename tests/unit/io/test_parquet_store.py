from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible, InsufficientStorage, StorageFailed
from codeintel_rev.io import parquet_store as store


def test_idmap_schema_is_two_non_null_bigints() -> None:
    """B06."""
    wanted = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("faiss_id", "chunk_id")])
    assert store.get_idmap_schema().equals(wanted)


def test_idmap_is_compressed_with_zstd(tmp_path: Path) -> None:
    """B02."""
    store.write_idmap(tmp_path / store.IDMAP, np.array([5, 9], np.int64))
    assert pq.ParquetFile(tmp_path / store.IDMAP).metadata.row_group(0).column(0).compression == "ZSTD"


def test_idmap_comes_back_in_the_order_of_the_vectors(tmp_path: Path) -> None:
    """B02, B04: as many rows as vectors, exactly."""
    ids = np.array([3, 2**62, 17], np.int64)
    assert store.write_idmap(tmp_path / store.IDMAP, ids) == 3
    rows, chunk_ids = store.read_idmap(tmp_path)
    assert (rows.tolist(), chunk_ids.tolist()) == ([0, 1, 2], ids.tolist())


def test_idmap_leaves_out_the_rows_of_deleted_vectors(tmp_path: Path) -> None:
    """B12, B13."""
    store.write_idmap(tmp_path / store.IDMAP, np.array([5, 6]), np.array([0, 2]))
    rows, chunk_ids = store.read_idmap(tmp_path)
    assert (rows.tolist(), chunk_ids.tolist()) == ([0, 2], [5, 6])


@pytest.mark.parametrize("rows", [[0, 0], [2, 0], [-1, 0]])
def test_idmap_with_rows_out_of_order_is_refused(tmp_path: Path, rows: list[int]) -> None:
    """Decision 3: no map is guessed."""
    table = pa.table({"faiss_id": rows, "chunk_id": [5, 6]}, schema=store.get_idmap_schema())
    pq.write_table(table, tmp_path / store.IDMAP)
    with pytest.raises(IndexCorrupt, match="ascending order"):
        store.read_idmap(tmp_path)


def test_a_missing_idmap_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt, match=r"idmap\.parquet is missing"):
        store.read_idmap(tmp_path)


@pytest.mark.parametrize("length", [0, 3, 11, 200, -1])
def test_a_truncated_idmap_is_corrupt(tmp_path: Path, length: int) -> None:
    """F12."""
    path = tmp_path / store.IDMAP
    store.write_idmap(path, np.arange(50))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(IndexCorrupt, match=r"idmap\.parquet cannot be read"):
        store.read_idmap(tmp_path)


def test_a_table_of_another_format_is_incompatible(tmp_path: Path) -> None:
    """F16."""
    other = store.get_idmap_schema().with_metadata({b"codeintel.format": b"999"})
    pq.write_table(pa.table({"faiss_id": [0], "chunk_id": [5]}, schema=other), tmp_path / store.IDMAP)
    with pytest.raises(IndexIncompatible, match="another format"):
        store.read_idmap(tmp_path)


def test_a_full_disk_is_told_from_a_broken_one(tmp_path: Path) -> None:
    """F06, F08: /dev/full refuses every write as a full disk does."""
    with pytest.raises(InsufficientStorage), store.writing(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"x")
    with pytest.raises(StorageFailed), store.writing(tmp_path / "x"):
        (tmp_path / "no-such-folder" / "x").write_bytes(b"x")
    with pytest.raises(InsufficientStorage), store.writing(tmp_path / "x", RuntimeError):
        raise RuntimeError("write error in x.faiss: 1 != 2 (No space left on device)")
