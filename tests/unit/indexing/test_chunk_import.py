"""Chunks made elsewhere are imported when they fit in; what does not is refused and counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from projects import Project, ids_by_store, new_project

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.indexing.chunk_import import ImportSummary, import_chunks
from codeintel_rev.io.catalog_rows import get_chunk_schema, table_of
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.types import Chunk, Role

NEW = Chunk(77, "demo", "shop/cart.py", "python", Role.CODE, 4, 7, "summary", "cart", "", "puts zebras into the basket")


@pytest.fixture
def project(tmp_path: Path, models_dir: Path) -> Project:
    project = new_project(tmp_path, models_dir)
    project.build()
    return project


def imported(project: Project, *chunks: Chunk) -> ImportSummary:
    file = project.data_dir / "chunks.parquet"
    pq.write_table(table_of(chunks, get_chunk_schema()), file)
    return import_chunks("demo", file, project.settings())


def any_chunk(project: Project) -> Chunk:
    return next(iter(read_chunks(project.directory)))


def test_an_imported_chunk_is_found_and_gets_its_vector_by_the_next_build(project: Project) -> None:
    before = project.current
    summary = imported(project, NEW)
    assert (summary.added, summary.stage, summary.generation) == (1, "partial", project.current.generation)
    assert project.current.parent == before.generation
    result = project.search("zebras basket")
    assert result.hits[0].chunk_id == NEW.chunk_id
    assert "vectors-partial" in [limit.code for limit in result.limits]
    stores = ids_by_store(project.directory)
    assert stores["chunks"] == stores["lexical"] == sorted({*stores["idmap"], NEW.chunk_id})
    assert project.files["shop/cart.py"].chunks == 2
    built = project.build()
    assert (built.encoded, built.stage) == (1, "complete")
    assert {tuple(ids) for ids in ids_by_store(project.directory).values()} == {tuple(stores["chunks"])}


def test_what_does_not_fit_in_is_refused_and_counted(project: Project) -> None:
    there, before = any_chunk(project), project.current.generation
    summary = imported(
        project,
        there,
        replace(there, text="other"),
        replace(NEW, path="none.py"),
        replace(NEW, chunk_id=78, repo="other"),
    )
    assert (summary.rows, summary.added, summary.known, summary.collisions) == (4, 0, 1, 1)
    assert (summary.of_no_file, summary.of_other_repositories) == (1, 1)
    assert project.current.generation == summary.generation == before


def test_two_contents_of_one_id_in_the_file_are_a_collision(project: Project) -> None:
    summary = imported(project, NEW, NEW, replace(NEW, text="other"))
    assert (summary.added, summary.known, summary.collisions) == (1, 1, 1)
    assert [chunk for chunk in read_chunks(project.directory) if chunk.chunk_id == NEW.chunk_id] == [NEW]


@pytest.mark.parametrize("chunk", [replace(NEW, chunk_id=0), replace(NEW, start_line=9), replace(NEW, start_line=0)])
def test_a_chunk_that_cannot_be_is_refused_with_the_file(project: Project, chunk: Chunk) -> None:
    with pytest.raises(InvalidArgument, match="holds a chunk"):
        imported(project, chunk)


def test_a_file_of_another_form_is_refused(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "other.parquet"
    with pytest.raises(NotFound):
        import_chunks("demo", file, project.settings())
    file.write_bytes(b"no parquet")
    with pytest.raises(InvalidArgument, match="no file of chunks"):
        import_chunks("demo", file, project.settings())
    pq.write_table(pa.table({"chunk_id": [1]}), file)
    with pytest.raises(InvalidArgument, match="no file of chunks"):
        import_chunks("demo", file, project.settings())
