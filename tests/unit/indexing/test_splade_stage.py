"""Impacts as a part of each generation, from a build to an answer: incremental, filtered, left out when unsound."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from projects import Project, new_project

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.encoders import splade
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.sparse import open_sparse_encoder
from codeintel_rev.indexing import splade_stage
from codeintel_rev.indexing.compaction import compact
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.impacts import SPLADE, STEPS, ImpactIndex, Impacts, impact_directory
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Chunk, Scope, SearchResult
from tests.tiny_models import WORDS, save_splade

DEEDS = ("open", "close", "read", "write", "query", "return")
FILES = {
    f"{'lib' if n % 2 else 'app'}/m{n:02}.py": f"def {DEEDS[n % 6]}_{n}(a):\n    {DEEDS[n % 5]}({'abc'[n % 3]}, {n})\n"
    for n in range(24)
}
QUERY = "open the file, then close"
ALONE = Options(channels=(SPLADE,))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_splade(tmp_path_factory.mktemp("splade"))


@pytest.fixture
def project(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """FILES, built with impacts; chunks are encoded five at a time."""
    monkeypatch.setattr(splade_stage, "AT_ONCE", 5)
    project = new_project(tmp_path, tmp_path / "models", FILES).having(**on(model))
    project.build()
    return project


def on(model: Path, **splade: object) -> dict[str, dict[str, object]]:
    kept: dict[str, object] = {"keep_generations": 9}
    told: dict[str, object] = {"model": str(model), "max_tokens": 32}
    return {"splade": told | splade, "embedding": {"provider": "none"}, "index": kept}


@contextmanager
def opened(project: Project) -> Iterator[Shards]:
    shards = Shards(project.data_dir, None, project.settings())
    shards.refresh()
    try:
        yield shards
    finally:
        shards.close()


def ask(project: Project, options: Options = AS_SET, **scope: tuple[str, ...]) -> SearchResult:
    with opened(project) as shards:
        return shards.search(QUERY, Scope(**scope), 50, deadline_ms=60_000, options=options)


def chunks(project: Project) -> list[Chunk]:
    return list(read_chunks(project.directory, DuckDBSettings()))


def index_of(project: Project) -> ImpactIndex:
    return ImpactIndex.open(impact_directory(project.directory))


def dense(impacts: Impacts) -> np.ndarray:
    weights = np.zeros(len(WORDS), np.int64)
    weights[impacts.terms] = impacts.weights
    return weights


def by_hand(project: Project) -> dict[str, float]:
    """Return by path what each chunk scores: the dot product of its weights and the query's, encoded anew."""
    settings = project.settings()
    encoder = open_sparse_encoder(settings.splade, settings.paths.data_dir)
    asked, found = dense(encoder.encode_query(QUERY)), chunks(project)
    made = encoder.encode_documents([embedding_text(chunk) for chunk in found])
    return {chunk.path: int(asked @ dense(one)) / STEPS**2 for chunk, one in zip(found, made, strict=True)}


def found(answer: SearchResult) -> dict[str, float]:
    return {hit.path: hit.contributions[SPLADE].score for hit in answer.hits}


def assert_whole(project: Project) -> None:
    """Every chunk scores what it does when it is encoded anew, and every byte is what was published."""
    assert found(ask(project, ALONE)) == pytest.approx(by_hand(project))
    assert project.current.counts[SPLADE] == project.current.counts["chunks"]
    assert project.store.verify(project.current.generation) == []


def test_a_build_indexes_every_chunk_and_a_search_finds_it(project: Project) -> None:
    answer = ask(project)
    assert answer.limits == ()
    assert SPLADE in answer.channels
    assert_whole(project)


def test_impacts_follow_a_generation_that_is_complete_without_them(project: Project) -> None:
    before, after = project.store.ls()[::-1]
    assert after.counts == before.counts | {SPLADE: 24}
    assert before.files.items() <= after.files.items()


def test_a_hit_names_the_terms_that_met(project: Project) -> None:
    settings = project.settings()
    encoder = open_sparse_encoder(settings.splade, settings.paths.data_dir)
    (hit, *_) = ask(project, ALONE).hits
    (chunk,) = [chunk for chunk in chunks(project) if chunk.chunk_id == hit.chunk_id]
    parts = dense(encoder.encode_query(QUERY)) * dense(next(encoder.encode_documents([embedding_text(chunk)])))
    strongest = encoder.words(np.argsort(-parts, kind="stable")[:6].tolist())
    assert hit.why[0] == f"terms {', '.join(strongest)} (splade #{hit.contributions[SPLADE].rank})"


def test_scope_is_pushed_down(project: Project) -> None:
    answer = ask(project, ALONE, paths=("lib/**",))
    wanted = {path: score for path, score in by_hand(project).items() if path.startswith("lib/")}
    assert len(wanted) == 12
    assert found(answer) == pytest.approx(wanted)


def test_nothing_is_published_where_nothing_changed(project: Project) -> None:
    summary = project.build()
    assert (summary.changed, summary.impacts_encoded) == (False, 0)


def test_only_what_changed_is_encoded_and_what_is_gone_is_not_found(project: Project) -> None:
    """A changed file and a deleted one: the segment of the others is the parent's, file for file."""
    rows = impact_directory(project.directory) / "1" / "rows.npy"
    project.write({"app/m00.py": "def query_all(b):\n    return b\n"})
    (project.root / "lib/m01.py").unlink()
    summary = project.build()
    assert summary.impacts_encoded == 1
    assert (impact_directory(project.directory) / "1" / "rows.npy").samefile(rows)
    assert [segment.name for segment in index_of(project).segments] == ["1", "2"]
    assert "lib/m01.py" not in found(ask(project, ALONE))
    assert_whole(project)


def test_a_text_that_comes_back_is_not_encoded_again(project: Project) -> None:
    project.write({"app/m00.py": "def query_all(b):\n    return b\n"})
    project.build()
    project.write({"app/m00.py": FILES["app/m00.py"]})
    assert project.build().impacts_encoded == 0
    assert_whole(project)


def test_many_deleted_documents_are_merged_away(project: Project) -> None:
    for path in list(FILES)[:6]:
        (project.root / path).unlink()
    assert project.build().impacts_encoded == 0
    assert (index_of(project).deleted, len(index_of(project).segments)) == (0, 1)
    assert_whole(project)


def test_compacting_keeps_every_answer(project: Project) -> None:
    (project.root / "lib/m01.py").unlink()
    project.build()
    before, deleted = found(ask(project, ALONE)), index_of(project).deleted
    compact("demo", project.settings())
    assert (deleted, index_of(project).deleted) == (1, 0)
    assert found(ask(project, ALONE)) == before
    assert project.build().changed is False


def test_parts_are_published_and_gone_on_from(
    tmp_path: Path, model: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build that fails keeps what it published; meanwhile a search says what is still to come."""
    other = new_project(tmp_path / "two", tmp_path / "models", FILES)
    slow = other.having(**on(model) | {"index": {"keep_generations": 9, "publish_every_s": 1e-9}})
    encode, calls = splade.Splade.encode_documents, iter(range(2))

    def twice(encoder: splade.Splade, texts: list[str]) -> Iterator[Impacts]:
        if next(calls, None) is None:
            raise MemoryError
        return encode(encoder, texts)

    with monkeypatch.context() as patched:
        patched.setattr(splade.Splade, "encode_documents", twice)
        with pytest.raises(MemoryError):
            slow.build()
    (limit,) = ask(slow, ALONE).limits
    assert (limit.code, limit.stage, limit.detail[:8]) == ("splade-partial", SPLADE, "10 of 24")
    assert slow.build().impacts_encoded == 14
    assert found(ask(slow, ALONE)) == found(ask(project, ALONE))


def test_it_is_off_unless_configured(project: Project) -> None:
    off = project.having(**{name: section for name, section in project.sections.items() if name != SPLADE})
    answer = ask(off)
    assert (answer.limits, SPLADE in answer.channels) == ((), False)
    off.write({"new.py": "def read_new(a):\n    return a\n"})
    off.build()
    assert (SPLADE in off.current.counts, impact_directory(off.directory).exists()) == (False, False)


def test_a_server_that_is_told_so_before_the_index_says_what_is_missing(tmp_path: Path, model: Path) -> None:
    plain = new_project(tmp_path, tmp_path / "models", FILES).having(embedding={"provider": "none"})
    plain.build()
    answer = ask(plain.having(**on(model)))
    assert [(limit.code, limit.stage) for limit in answer.limits] == [("splade-missing", SPLADE)]
    assert answer.hits


def test_impacts_of_another_model_are_never_asked_and_are_made_anew(project: Project, model: Path) -> None:
    other = project.having(**on(model, max_tokens=16))
    answer = ask(other)
    assert [(limit.code, limit.stage) for limit in answer.limits] == [("index-incompatible", SPLADE)]
    assert SPLADE not in answer.channels
    assert other.build().impacts_encoded == 24
    assert_whole(other)


def test_a_flipped_bit_leaves_the_channel_out_and_nothing_else(project: Project) -> None:
    file = impact_directory(project.directory) / "1" / "impacts.npy"
    content = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    answer = ask(project)
    assert [(limit.code, limit.stage) for limit in answer.limits] == [("index-corrupt", SPLADE)]
    assert answer.hits
    assert SPLADE not in answer.channels
    project.build()
    assert_whole(project)


def test_a_model_that_fails_is_a_limit_of_the_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(project) as shards:
        monkeypatch.setattr(splade.Impacts, "of", broken)
        answer = shards.search(QUERY, Scope(), 50, deadline_ms=60_000, options=AS_SET)
    assert [(limit.code, limit.stage) for limit in answer.limits] == [("encoder-failed", SPLADE)]
    assert answer.hits


def broken(_: np.ndarray) -> Impacts:
    raise splade.EncoderFailed("no weight is a number.")
