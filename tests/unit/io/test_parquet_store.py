from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible, InsufficientStorage, StorageFailed
from codeintel_rev.io import parquet_store as store
from codeintel_rev.types import Chunk, Definition, Role

CHUNK = Chunk(7, "repo", "a/b.py", "python", Role.CODE, 3, 9, "function", "b.f", "class B:", "def f():\n    return 'é'")
DEFINITION = Definition("a/b.py", "python", "f", "b.f", "function", 4, 5, "def f()", "Return é.")
FILE = store.FileRow("a/b.py", "python", "code", 40, "0" * 64, "utf-8", 9, 1, "indexed", "")
SCHEMAS = {
    Chunk: store.get_chunk_schema,
    store.Symbol: store.get_symbol_schema,
    store.FileRow: store.get_file_schema,
}


@pytest.mark.parametrize("value", SCHEMAS)
def test_columns_are_the_fields_of_the_value_in_their_order(value: type) -> None:
    """B06: the catalogue and the readers rely on it."""
    assert SCHEMAS[value]().names == [field.name for field in fields(value)]


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), store.get_idmap_schema])
def test_no_column_is_nullable(schema) -> None:
    assert not any(field.nullable for field in schema())


def test_idmap_schema_is_two_non_null_bigints() -> None:
    """B06."""
    wanted = pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("faiss_id", "chunk_id")])
    assert store.get_idmap_schema().equals(wanted)


def test_rows_come_back_as_written_over_many_batches(tmp_path: Path) -> None:
    chunks = [replace(CHUNK, chunk_id=2**62 + i, text=f"line {i}") for i in range(store.BATCH_ROWS + 5)]
    with store.ChunkWriter(tmp_path) as writer:
        writer.write(chunks[:3])
        writer.write(iter(chunks[3:]))
    assert list(store.read_chunks(tmp_path)) == chunks


def test_symbols_and_files_come_back_as_written(tmp_path: Path) -> None:
    symbols = store.symbols_of([DEFINITION], [CHUNK])
    with store.SymbolWriter(tmp_path) as symbol_writer, store.FileWriter(tmp_path) as file_writer:
        symbol_writer.write(symbols)
        file_writer.write([FILE])
    assert pq.read_table(tmp_path / store.SYMBOLS).to_pylist() == [asdict(symbol) for symbol in symbols]
    assert list(store.read_files(tmp_path)) == [FILE]


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    store.ChunkWriter(tmp_path).close()
    assert list(store.read_chunks(tmp_path)) == []


def test_tables_are_compressed_with_zstd(tmp_path: Path) -> None:
    """B02."""
    store.write_idmap(tmp_path / store.IDMAP, np.array([5, 9], np.int64))
    assert pq.ParquetFile(tmp_path / store.IDMAP).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_failed_block_leaves_no_table(tmp_path: Path) -> None:
    with pytest.raises(AttributeError), store.ChunkWriter(tmp_path) as writer:
        writer.write([CHUNK, "no chunk"])  # type: ignore[list-item]
    assert not any(tmp_path.iterdir())


def test_a_symbol_joins_the_smallest_chunk_that_holds_its_first_line() -> None:
    inner = replace(CHUNK, chunk_id=8, start_line=4, end_line=5)
    assert store.symbols_of([DEFINITION], [CHUNK, inner])[0].chunk_id == 8


def test_a_symbol_outside_every_chunk_stops_the_build() -> None:
    with pytest.raises(ValueError, match=r"b\.py:40 defines b\.f outside every chunk"):
        store.symbols_of([replace(DEFINITION, start_line=40)], [CHUNK])


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


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt, match=r"chunks\.parquet is missing"):
        next(store.read_chunks(tmp_path))


@pytest.mark.parametrize("length", [0, 3, 11, 200, -1])
def test_a_truncated_table_is_corrupt(tmp_path: Path, length: int) -> None:
    """F12."""
    with store.ChunkWriter(tmp_path) as writer:
        writer.write([CHUNK] * 50)
    path = tmp_path / store.CHUNKS
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(IndexCorrupt, match=r"chunks\.parquet cannot be read"):
        list(store.read_chunks(tmp_path))


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
