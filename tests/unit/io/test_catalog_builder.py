"""What the builder may write, what it must refuse, and that a parent is only ever copied."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest

from codeintel_rev.errors import GenerationMismatch, IdCollision, IndexCorrupt, StorageFailed
from codeintel_rev.io import catalog_builder
from codeintel_rev.io.catalog_builder import CATALOG, CatalogWriter, fill_idmap, inherit_catalog
from codeintel_rev.io.catalog_rows import FileRow, Symbol
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.parquet_store import IDMAP, write_idmap
from codeintel_rev.types import Chunk, Role
from tests.catalogs import file_row, write_catalog


def chunk(chunk_id: int, path: str, start: int = 1) -> Chunk:
    return Chunk(
        chunk_id, "repo", path, "python", Role.CODE, start, start, "function", f"f{chunk_id}", "", f"x = {start}"
    )


def symbol(owner: Chunk) -> Symbol:
    return Symbol(owner.path, "python", owner.symbol, owner.symbol, "function", 1, 1, "", "", owner.chunk_id)


CHUNKS = [chunk(5, "a.py"), chunk(3, "b.py", 1), chunk(4, "b.py", 2), chunk(9, "c.py")]
SYMBOLS = [symbol(owner) for owner in CHUNKS]


def rows_of(directory: Path) -> tuple[list[Chunk], list[Symbol], list[FileRow]]:
    with closing(Catalog.open(directory)) as catalog:
        return list(catalog.chunks()), list(catalog.symbols()), [*catalog.paths(), *catalog.skipped()]


def child_of(parent: Path) -> Path:
    child = parent.with_name("child")
    child.mkdir()
    inherit_catalog(child, parent)
    return child


def test_a_changed_file_is_exchanged_and_the_parent_stays_as_it_is(tmp_path: Path) -> None:
    """Law 2: what others read is never written."""
    parent = write_catalog(tmp_path / "parent", CHUNKS, SYMBOLS)
    published = (parent / CATALOG).read_bytes()
    (parent / CATALOG).chmod(0o444)
    child = child_of(parent)
    fresh = [chunk(7, "b.py", 1), chunk(4, "b.py", 5)]
    with CatalogWriter(child) as writer:
        assert sorted(writer.forget(["b.py"]).tolist()) == [3, 4]
        writer.add(file_row("b.py", 2), fresh, [symbol(fresh[0])])
        counts, chunk_ids = writer.finish()
    assert rows_of(child) == (
        [CHUNKS[0], *fresh, CHUNKS[3]],
        [SYMBOLS[0], symbol(fresh[0]), SYMBOLS[3]],
        [file_row("a.py"), file_row("b.py", 2), file_row("c.py")],
    )
    assert (counts, chunk_ids.tolist()) == (
        {"files": 3, "skipped": 0, "chunks": 4, "symbols": 3, "vectors": 0},
        [4, 5, 7, 9],
    )
    assert (parent / CATALOG).read_bytes() == published


def test_text_is_found_in_path_order_wherever_its_rows_stand(tmp_path: Path) -> None:
    parent = write_catalog(tmp_path / "parent", CHUNKS)
    child = child_of(parent)
    with CatalogWriter(child) as writer:
        writer.forget(["a.py"])
        writer.add(file_row("a.py"), [chunk(6, "a.py", 2)])
        writer.finish()
    with closing(Catalog.open(child)) as catalog:
        for regex in (False, True):
            rows = catalog.chunk_text_rows("x =", regex=regex, limit=3)
            assert [(row.path, row.start_line) for row in rows] == [("a.py", 2), ("b.py", 1), ("b.py", 2)]
            behind = catalog.chunk_text_rows("x =", regex=regex, after=("a.py", 2), limit=9)
            assert [(row.path, row.start_line) for row in behind] == [("b.py", 1), ("b.py", 2), ("c.py", 1)]


def test_digests_are_of_the_files_that_were_read(tmp_path: Path) -> None:
    binary = FileRow("logo.png", "", "", 9, "b" * 64, "", 0, 0, "skipped", "binary")
    denied = replace(binary, path="secret", sha256="", reason="denied")
    write_catalog(tmp_path, CHUNKS[:1], files=[file_row("a.py"), binary, denied])
    with CatalogWriter(tmp_path) as writer:
        assert writer.digests() == {"a.py": "0" * 64, "logo.png": "b" * 64}
        writer.forget([])
    assert rows_of(tmp_path)[2] == [file_row("a.py"), binary]


def test_a_failed_block_keeps_what_was(tmp_path: Path) -> None:
    write_catalog(tmp_path, CHUNKS, SYMBOLS)
    before = rows_of(tmp_path)

    def fail() -> None:
        with CatalogWriter(tmp_path) as writer:
            writer.forget(["a.py"])
            writer.add(file_row("d.py"), [chunk(8, "d.py")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert rows_of(tmp_path) == before


def test_many_rows_are_all_there(tmp_path: Path) -> None:
    """More than are held in memory at a time."""
    chunks = [chunk(n, f"{n:05}.py") for n in range(1, 5000)]
    assert rows_of(write_catalog(tmp_path, chunks))[0] == chunks


def test_a_chunk_id_minted_twice_stops_the_build(tmp_path: Path) -> None:
    """Law 1, also against a chunk of a file that did not change."""
    parent = write_catalog(tmp_path / "parent", CHUNKS)
    child = child_of(parent)
    with CatalogWriter(child) as writer:
        writer.add(file_row("d.py"), [chunk(9, "d.py")])
        with pytest.raises(IdCollision, match=r"chunk id 9 .*in c\.py and d\.py.*source\.deny"):
            writer.finish()


@pytest.mark.parametrize(
    ("chunks", "symbols", "files", "complaint"),
    [
        (CHUNKS, [], [file_row("a.py"), file_row("b.py")], "1 chunks of no file"),
        (CHUNKS, [replace(SYMBOLS[0], chunk_id=77)], None, "1 symbols of no chunk"),
        (CHUNKS[:1], [], [file_row("a.py"), file_row("a.py")], "1 files that stand twice"),
    ],
)
def test_a_build_whose_tables_do_not_join_does_not_publish(
    tmp_path: Path, chunks: list[Chunk], symbols: list[Symbol], files: list[FileRow] | None, complaint: str
) -> None:
    """Law 1, F14."""
    with pytest.raises(GenerationMismatch, match=complaint):
        write_catalog(tmp_path, chunks, symbols, files)


@pytest.mark.parametrize(
    ("idmap", "complaint"), [([3, 3], "1 chunks with two vectors"), ([3, 77, 78], "2 vectors of no chunk")]
)
def test_vectors_that_do_not_join_are_refused(tmp_path: Path, idmap: list[int], complaint: str) -> None:
    """Law 1, F14."""
    write_catalog(tmp_path, CHUNKS)
    write_idmap(tmp_path / IDMAP, np.array(idmap))
    with pytest.raises(GenerationMismatch, match=complaint):
        fill_idmap(tmp_path)


def test_the_id_map_is_that_of_this_generation_and_not_the_parents(tmp_path: Path) -> None:
    parent = write_catalog(tmp_path / "parent", CHUNKS)
    write_idmap(parent / IDMAP, np.array([3, 4, 5]))
    fill_idmap(parent)
    child = child_of(parent)
    write_idmap(child / IDMAP, np.array([9]))
    fill_idmap(child)
    vectors = []
    for directory in (parent, child):
        with closing(Catalog.open(directory)) as catalog:
            vectors.append(catalog.counts()["vectors"])
    assert vectors == [3, 1]


def test_without_vectors_the_id_map_is_empty(tmp_path: Path) -> None:
    parent = write_catalog(tmp_path / "parent", CHUNKS)
    write_idmap(parent / IDMAP, np.array([3]))
    fill_idmap(parent)
    child = child_of(parent)
    fill_idmap(child)
    with closing(Catalog.open(child)) as catalog:
        assert catalog.counts()["vectors"] == 0


def test_a_broken_id_map_stops_the_build(tmp_path: Path) -> None:
    write_catalog(tmp_path, CHUNKS)
    (tmp_path / IDMAP).write_bytes(b"PAR1 no more")
    with pytest.raises(IndexCorrupt, match=r"idmap\.parquet cannot be read"):
        fill_idmap(tmp_path)


def test_a_catalogue_of_dead_rows_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its size and where its rows stand in the file changes."""
    monkeypatch.setattr(catalog_builder, "MAX_DEAD", -1)
    monkeypatch.setattr(catalog_builder, "LARGE_BYTES", 0)
    parent = write_catalog(tmp_path / "parent", CHUNKS, SYMBOLS)
    with CatalogWriter(parent) as writer:
        writer.forget(["a.py"])
        writer.add(file_row("a.py"), CHUNKS[:1], SYMBOLS[:1])
        writer.finish()
    write_idmap(parent / IDMAP, np.array([3, 4]))
    fill_idmap(parent)
    child = child_of(parent)
    assert rows_of(child) == rows_of(parent)
    assert [path.name for path in child.iterdir()] == [CATALOG]
    assert [ids_in_file_order(place) for place in (parent, child)] == [[9, 4, 3, 5], [5, 3, 4, 9]]
    with closing(Catalog.open(child)) as catalog:
        assert catalog.counts()["vectors"] == 2


def ids_in_file_order(directory: Path) -> list[int]:
    with duckdb.connect(directory / CATALOG, read_only=True) as connection:
        return [row[0] for row in connection.execute("SELECT chunk_id FROM chunks ORDER BY rowid").fetchall()]


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        CatalogWriter(tmp_path / "no-such-folder")
    with pytest.raises(StorageFailed):
        inherit_catalog(tmp_path, tmp_path / "no-such-folder")


def test_a_damaged_copy_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_builder, "LARGE_BYTES", 0)
    parent, child = tmp_path / "parent", tmp_path / "child"
    for folder in (parent, child):
        folder.mkdir()
    (parent / CATALOG).write_bytes(b"no database" * 1000)
    with pytest.raises(IndexCorrupt, match=CATALOG):
        inherit_catalog(child, parent)
