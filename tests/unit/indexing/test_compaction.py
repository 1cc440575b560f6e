"""What a compaction leaves out, and that no answer shows it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from fakes import FakeTokens
from projects import Project, ids_by_store, new_project

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.indexing import compaction, token_stage
from codeintel_rev.indexing.compaction import compact
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.lexical import dead_share
from codeintel_rev.io.registry import Source, register
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.io.token_index import TOKENS, read_texts, token_directory
from codeintel_rev.xtr.storage import read_manifest

FILES = {
    f"m{n:02}.py": f'def step_{n}(value):\n    """Do step {n} of the work."""\n    return value + {n}\n'
    for n in range(12)
}


@pytest.fixture
def updated(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """FILES with vectors and tokens, of which one was deleted and one changed since."""
    monkeypatch.setattr(token_stage, "open_token_encoder", lambda *_: FakeTokens())
    sections = {"xtr": {"enable": True}, "index": {"compact_secondary": 0.5, "compact_deleted": 0.5}}
    project = new_project(tmp_path, models_dir, FILES).having(**sections)
    project.build()
    (project.root / "m03.py").unlink()
    project.write({"m00.py": "def changed_step():\n    return 1\n"})
    project.build()
    return project


def answers(project: Project) -> dict[str, object]:
    with closing(Catalog.open(project.directory, DuckDBSettings())) as catalog:
        tables = list(catalog.chunks()), list(catalog.symbols()), catalog.paths(), catalog.coverage()
    texts = read_texts(token_directory(project.directory)).tolist()
    return {"tables": tables, "ids": ids_by_store(project.directory), "texts": texts, "counts": project.current.counts}


def test_nothing_deleted_is_left_and_every_answer_is_the_same(updated: Project) -> None:
    """C24: all vectors stand in one primary, all tokens in one segment."""
    before, former = answers(updated), updated.directory
    assert dead_share(former / "lexical") > 0
    summary = compact("demo", updated.settings())
    vectors = StoredVectors.open(updated.directory, 384)
    tokens = read_manifest(token_directory(updated.directory) / TOKENS)
    assert answers(updated) == before
    assert dead_share(updated.directory / "lexical") == 0
    assert (len(vectors.primary), len(vectors.secondary), len(vectors.deleted)) == (11, 0, 0)
    assert (len(tokens.segments), tokens.segments[0].deleted_documents) == (1, 0)
    assert updated.store.verify(summary.generation) == []
    assert summary.bytes_after == sum(length for length, _ in updated.current.files.values())


def test_the_next_build_goes_on_from_it(updated: Project) -> None:
    compact("demo", updated.settings())
    assert not updated.build().changed
    updated.write({"m01.py": "def changed_too():\n    return 1\n"})
    summary = updated.build()
    assert (summary.encoded, summary.tokens_encoded) == (1, 1)


def test_one_that_fails_leaves_the_last_generation(updated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = updated.current.generation

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compaction, "compact_vectors", fail)
    with pytest.raises(MemoryError):
        compact("demo", updated.settings())
    assert updated.current.generation == before
    assert all((path / "MANIFEST.json").exists() for path in (updated.store.directory / "generations").iterdir())


def test_nothing_published_is_nothing_to_compact(tmp_path: Path) -> None:
    project = Project(tmp_path / "tree", tmp_path / "data")
    register(project.data_dir, Source("demo", project.root))
    with pytest.raises(IndexUnavailable):
        compact("demo", project.settings())
