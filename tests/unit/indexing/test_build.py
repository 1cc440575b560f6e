"""From a work tree to published generations: what is published when, and what every store of it holds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from projects import SHOP, Project, ids_by_store, new_project

from codeintel_rev.config.settings import DuckDBSettings, SourceSettings
from codeintel_rev.errors import BuildInProgress, InvalidArgument, NotFound
from codeintel_rev.indexing import build as build_module
from codeintel_rev.indexing import vector_stage
from codeintel_rev.io import builder_lock
from codeintel_rev.io.duckdb_catalog import Catalog, read_chunks
from codeintel_rev.io.leases import FileLock
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.progress import read_progress
from codeintel_rev.io.registry import Source, register
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.io.vectors import PRIMARY, VectorTable
from codeintel_rev.types import BuildProgress

MANY = {f"pkg/m{n:02}.py": f'def step_{n}(value):\n    """Do step {n}."""\n    return value + {n}\n' for n in range(24)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Project:
    """SHOP, built once; to be read only."""
    project = new_project(tmp_path_factory.mktemp("built"), models_dir)
    project.build()
    return project


@pytest.fixture
def project(tmp_path: Path, built: Project) -> Iterator[Project]:
    """A copy of `built`, with its history and cache, to be changed; no draft may be left behind."""
    copy = Project(tmp_path / "tree", tmp_path / "data")
    shutil.copytree(built.root, copy.root)
    shutil.copytree(built.data_dir, copy.data_dir, symlinks=True)
    register(copy.data_dir, Source("demo", copy.root))
    yield copy
    assert all((path / "MANIFEST.json").exists() for path in (copy.store.directory / "generations").iterdir())


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode eight chunks at a time, so that a small tree takes several steps."""
    monkeypatch.setattr(vector_stage, "CHECKPOINT", 8)
    monkeypatch.setattr(build_module, "CHECKPOINT", 8)


def line(project: Project) -> list[Manifest]:
    """Return the published generations, oldest first."""
    return project.store.ls()[::-1]


def chunk_ids(project: Project) -> dict[str, int]:
    return {chunk.symbol or chunk.path: chunk.chunk_id for chunk in read_chunks(project.directory)}


def test_the_text_is_published_before_any_vector(tmp_path: Path, models_dir: Path) -> None:
    """Search answers while indexing goes on: when the first chunk is encoded, words can be searched already."""
    project = new_project(tmp_path, models_dir)
    seen: list[tuple[str, int | None]] = []

    def told(progress: BuildProgress) -> None:
        if progress.stage == "encode":
            first = project.current
            seen.append((first.stage, first.counts["vectors"]))

    project.build(told)
    assert seen[0] == ("lexical", 0)
    assert [manifest.stage for manifest in line(project)] == ["lexical", "complete"]


def test_partial_vectors_are_published_as_they_grow(tmp_path: Path, models_dir: Path, small_steps: None) -> None:
    """index.publish_every_s: each generation has more vectors than the one before and is good."""
    project = new_project(tmp_path, models_dir, MANY).having(
        index={"publish_every_s": 1e-9, "keep_generations": 9}, embedding={"threads": 1}
    )
    project.build()
    generations = line(project)
    assert [manifest.counts["vectors"] for manifest in generations] == [0, 8, 16, 24]
    assert [manifest.stage for manifest in generations] == ["lexical", "partial", "partial", "complete"]
    assert [project.store.verify(manifest.generation) for manifest in generations] == [[]] * 4


def test_a_long_interval_publishes_vectors_once(tmp_path: Path, models_dir: Path, small_steps: None) -> None:
    project = new_project(tmp_path, models_dir, MANY).having(index={"publish_every_s": 3600.0})
    project.build()
    assert [manifest.counts["vectors"] for manifest in line(project)] == [0, 24]


@pytest.mark.parametrize("query", ["where is step 7 done", "step 7 of the work"])
def test_a_partial_generation_answers_and_says_what_is_missing(
    tmp_path: Path, models_dir: Path, small_steps: None, query: str
) -> None:
    """m07 has no vector yet: the few chunks that have one do not outrank it for that."""
    project = new_project(tmp_path, models_dir, MANY).having(index={"publish_every_s": 1e-9})
    found = []

    def told(progress: BuildProgress) -> None:
        if progress.stage == "publish" and progress.done and project.current.stage == "partial" and not found:
            found.append(project.search(query))

    project.build(told)
    (result,) = found
    assert result.hits[0].path == "pkg/m07.py"
    assert [(limit.code, limit.detail) for limit in result.limits] == [
        ("vectors-partial", "8 of 24 chunks of demo have a vector so far.")
    ]


def test_every_store_holds_the_same_chunks(built: Project) -> None:
    """Law 1."""
    stores = ids_by_store(built.directory)
    assert len(set(map(tuple, stores.values()))) == 1
    assert len(stores["chunks"]) == built.current.counts["chunks"] > 0


def test_the_manifest_counts_what_the_catalogue_counts(built: Project) -> None:
    catalog = Catalog.open(built.directory, DuckDBSettings())
    assert built.current.counts == catalog.counts()
    catalog.close()


def test_nothing_is_published_when_nothing_changed(project: Project) -> None:
    before = project.current.generation
    summary = project.build()
    assert (summary.changed, summary.encoded, summary.generation) == (False, 0, before)
    assert project.current.generation == before


def test_a_touched_file_is_no_change(project: Project) -> None:
    (project.root / "shop/cart.py").touch()
    assert not project.build().changed


def test_an_added_file_is_found_in_every_store(project: Project) -> None:
    project.write({"shop/refund.py": "def refund(order):\n    return order.total\n"})
    summary = project.build()
    stores = ids_by_store(project.directory)
    assert (summary.changed, summary.encoded) == (True, 1)
    assert len(set(map(tuple, stores.values()))) == 1
    assert chunk_ids(project)["refund"] in stores["faiss"]


def test_only_the_changed_chunk_is_encoded(project: Project) -> None:
    project.write({"shop/payment.py": SHOP["shop/payment.py"].replace("amount <= 0", "amount < 1")})
    assert project.build().encoded == 1


def test_a_deleted_file_is_in_no_store(project: Project) -> None:
    gone = chunk_ids(project)["charge_card"]
    (project.root / "shop/payment.py").unlink()
    summary = project.build()
    stores = ids_by_store(project.directory)
    assert not any(gone in ids for ids in stores.values())
    assert (summary.encoded, "shop/payment.py" in project.files) == (0, False)
    with closing(Catalog.open(project.directory)) as catalog:
        assert "shop/payment.py" not in {symbol.path for symbol in catalog.symbols()}


def test_a_deleted_file_is_not_found_any_more(project: Project) -> None:
    (project.root / "shop/payment.py").unlink()
    project.build()
    assert "shop/payment.py" not in [hit.path for hit in project.search("charge_card").hits]


def test_a_small_change_shares_the_parent_s_vectors(tmp_path: Path, models_dir: Path) -> None:
    """C23, B12: what is new stands beside the primary, what is gone is deleted by name; every store agrees."""
    project = new_project(tmp_path, models_dir, MANY)
    project.build()
    before = project.directory
    (project.root / "pkg/m03.py").unlink()
    project.write({"pkg/m04.py": MANY["pkg/m04.py"].replace("value + 4", "value + 44")})
    assert project.build().encoded == 1
    stores = ids_by_store(project.directory)
    assert all((project.directory / name).samefile(before / name) for name in PRIMARY.files)
    assert len(StoredVectors.open(project.directory, 384).secondary) == 1
    assert len(set(map(tuple, stores.values()))) == 1
    assert len(stores["faiss"]) == 23
    assert project.store.verify(project.current.generation) == []


def test_no_vectors_are_shared_with_a_generation_that_has_none(project: Project) -> None:
    project.having(embedding={"provider": "none"}).build()
    assert not list(project.directory.glob("vectors*"))
    assert not (project.directory / "faiss").exists()


def test_a_lower_limit_indexes_all_vectors_as_one(project: Project) -> None:
    """index.compact_secondary, index.compact_deleted."""
    before = project.directory
    (project.root / "shop/payment.py").unlink()
    project.having(index={"compact_deleted": 9.0}).build()
    assert (project.directory / PRIMARY.index).samefile(before / PRIMARY.index)
    project.write({"shop/new.py": "def brand_new():\n    return 1\n"})
    project.having(index={"compact_deleted": 9.0, "compact_secondary": 0.01}).build()
    assert not (project.directory / PRIMARY.index).samefile(before / PRIMARY.index)


def test_functions_that_moved_keep_their_ids_and_vectors(project: Project) -> None:
    """Law 1: an id is of the text, wherever its lines are."""
    body = "\n".join(f"    total = total + price_{n} * amount_{n} + shipping_{n}" for n in range(9))
    functions = "\n\n".join(f"def sum_{name}(total):\n{body}\n    return total\n" for name in ("up", "down", "left"))
    project.write({"shop/sums.py": functions})
    small = project.having(chunking={"max_tokens": 128, "workers": 1})
    small.build()
    before = set(ids_by_store(small.directory)["chunks"])
    small.write({"shop/sums.py": f"def sum_first(total):\n{body}\n    return total - 1\n\n\n{functions}"})
    encoded = small.build().encoded
    after = set(ids_by_store(small.directory)["faiss"])
    assert before < after
    assert encoded == len(after - before)


def test_another_chunk_size_makes_other_chunks(project: Project) -> None:
    """chunking.max_tokens."""
    body = "\n".join(f"    total_{n} = price_{n} * amount_{n} + shipping_{n}" for n in range(60))
    project.write({"shop/total.py": f"def total(order):\n{body}\n    return order\n"})
    wide = project.build().counts["chunks"]
    narrow = project.having(chunking={"max_tokens": 64, "workers": 1}).build()
    assert narrow.changed
    assert narrow.counts["chunks"] > wide


def test_more_parse_workers_change_nothing(project: Project) -> None:
    """chunking.workers affects speed only."""
    assert not project.having(chunking={"workers": 2}).build().changed


def test_another_model_encodes_everything_again(project: Project) -> None:
    """Vectors of two fingerprints are never mixed, neither in a generation nor in the cache."""
    before = project.current.model
    summary = project.having(embedding={"max_tokens": 64}).build()
    assert summary.encoded == summary.counts["chunks"]
    assert project.current.model != before
    assert project.current.model is not None
    assert project.current.model.max_tokens == 64


def test_going_back_to_a_model_encodes_nothing(project: Project) -> None:
    before = VectorTable.open(project.directory, 384).vectors.tobytes()
    project.having(embedding={"max_tokens": 64}).build()
    assert project.build().encoded == 0
    assert VectorTable.open(project.directory, 384).vectors.tobytes() == before


def test_vectors_from_the_cache_are_those_that_were_encoded(project: Project, built: Project) -> None:
    """The same tree built in another data folder, from the cache alone, gives the same bytes."""
    shutil.rmtree(project.data_dir / "repos")
    assert project.build().encoded == 0
    ours, theirs = (VectorTable.open(one.directory, 384) for one in (project, built))
    assert np.array_equal(ours.vectors, theirs.vectors)


def test_without_an_encoder_an_index_is_complete_without_vectors(tmp_path: Path) -> None:
    """embedding.provider = none."""
    project = new_project(tmp_path, tmp_path / "models").having(embedding={"provider": "none"})
    summary = project.build()
    assert (summary.stage, summary.counts["vectors"], project.build().changed) == ("complete", 0, False)
    result = project.search("charge_card")
    assert (result.hits[0].path, result.limits) == ("shop/payment.py", ())
    assert not list(project.directory.glob("vectors*"))


def test_an_encoder_added_later_encodes_without_parsing_again(project: Project) -> None:
    project.write({"shop/new.py": "def brand_new():\n    return 1\n"})
    project.having(embedding={"provider": "none"}).build()
    stages: list[str] = []
    summary = project.build(lambda progress: stages.append(progress.stage))
    assert (summary.stage, summary.encoded) == ("complete", 1)
    assert "parse" not in stages


def test_an_empty_folder_is_a_valid_index(tmp_path: Path, models_dir: Path) -> None:
    project = new_project(tmp_path, models_dir, {})
    summary = project.build()
    assert (summary.stage, summary.counts["chunks"], project.build().changed) == ("complete", 0, False)
    assert project.store.verify(summary.generation) == []


def test_an_empty_index_is_asked_without_a_hit_or_a_limit(tmp_path: Path, models_dir: Path) -> None:
    project = new_project(tmp_path, models_dir, {})
    project.build()
    with project.opened() as opened:
        (status,) = opened.searcher.status()
    answers = [project.search("charge_card"), project.search("how is it paid", paths=("*.py",))]
    assert [(answer.hits, answer.limits) for answer in answers] == [((), ())] * 2
    assert (status.state, status.vector_coverage) == ("ready", 1.0)


def test_an_index_may_become_empty_and_full_again(project: Project) -> None:
    shutil.rmtree(project.root)
    project.root.mkdir()
    assert project.build().counts["chunks"] == 0
    project.write(SHOP)
    summary = project.build()
    assert (summary.encoded, len(set(map(tuple, ids_by_store(project.directory).values())))) == (0, 1)


def test_paths_with_spaces_and_other_scripts_are_kept(tmp_path: Path, models_dir: Path) -> None:
    paths = ("my docs/read me.md", "src/größe.py", "漢字/данные.py", "a'b\"c/$(x).py", "emoji 🎉.py")
    project = new_project(tmp_path, models_dir, {path: f"unique_{n} = {n}\n" for n, path in enumerate(paths)})
    project.build()
    assert sorted(project.files) == sorted(paths)
    for n, path in enumerate(paths):
        assert project.search(f"unique_{n}").hits[0].path == path
    assert project.search("unique_2", paths=("漢字/",)).hits[0].path == "漢字/данные.py"


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments], cwd=root, check=True)


@pytest.fixture
def committed(project: Project) -> Project:
    """SHOP in git, all of it committed, and built."""
    git(project.root, "init", "-q", "-b", "main", ".")
    git(project.root, "add", ".")
    git(project.root, "commit", "-q", "-m", "one")
    project.build()
    return project


def test_a_folder_without_git_has_no_commit(built: Project) -> None:
    revision = built.current.revision
    assert (revision.commit, revision.branch, revision.dirty) == ("", "", False)


def test_an_edited_work_tree_is_told_as_dirty(committed: Project) -> None:
    clean = committed.current.revision
    committed.write({"shop/cart.py": "def emptied():\n    return []\n"})
    committed.build()
    edited = committed.current.revision
    assert (clean.dirty, edited.dirty, edited.commit) == (False, True, clean.commit)
    assert committed.search("emptied").hits[0].commit == clean.commit


def test_committing_what_is_indexed_only_renews_the_commit(committed: Project) -> None:
    """Hits name the commit, so it must not stay behind; no file is written for it."""
    committed.write({"shop/cart.py": "def emptied():\n    return []\n"})
    committed.build()
    before, old = committed.current, committed.directory
    git(committed.root, "commit", "-q", "-a", "-m", "two")
    summary = committed.build()
    after = committed.current
    assert (summary.encoded, after.revision.dirty, after.files) == (0, False, before.files)
    assert after.revision.commit != before.revision.commit
    assert (committed.directory / "catalog.duckdb").samefile(old / "catalog.duckdb")


def test_a_data_folder_in_the_work_tree_is_not_indexed(tmp_path: Path, models_dir: Path) -> None:
    """`codeintel up` in a repository puts its data there: neither git nor the next build may see it."""
    outside = new_project(tmp_path, models_dir)
    inside = Project(outside.root, outside.root / "data")
    git(inside.root, "init", "-q", "-b", "main", ".")
    inside.write({"data/prices.json": '{"tea": 3}\n'})
    inside.having(embedding={"provider": "none"}).build()
    assert sorted(inside.files) == sorted([*SHOP, "data/prices.json"])
    assert not inside.having(embedding={"provider": "none"}).build().changed


def test_the_same_holds_without_git(tmp_path: Path, models_dir: Path) -> None:
    outside = new_project(tmp_path, models_dir)
    inside = Project(outside.root, outside.root / "data", {"embedding": {"provider": "none"}})
    inside.build()
    assert sorted(inside.files) == sorted(SHOP)
    assert not inside.build().changed


def test_only_so_many_generations_are_kept(project: Project) -> None:
    """index.keep_generations."""
    kept = project.having(index={"keep_generations": 2}, embedding={"provider": "none"})
    for n in range(4):
        kept.write({"counter.py": f"count = {n}\n"})
        kept.build()
    assert len(kept.store.ls()) == 2
    assert len(list((kept.store.directory / "generations").iterdir())) == 2


def test_a_second_builder_is_refused_by_name(project: Project) -> None:
    """F05: the refusal names the holder, and changes nothing."""
    known = (project.store.directory / "source.json").read_bytes()
    other = Project(project.root / "shop", project.data_dir)
    with project.store.builder_lock(), pytest.raises(BuildInProgress, match=r"process \d+"):
        other.build()
    assert (project.store.directory / "source.json").read_bytes() == known


def test_who_only_asks_for_progress_is_no_builder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status request looks at the lock for an instant; a build that starts in that instant is not refused."""
    asking = FileLock.take(project.store.directory / "lock", exclusive=False)
    assert asking is not None
    monkeypatch.setattr(builder_lock.time, "sleep", lambda seconds: seconds and asking.release())
    assert not project.build().changed


def test_a_build_tells_what_it_does_and_then_nothing(project: Project) -> None:
    project.write({"shop/new.py": "def brand_new():\n    return 1\n"})
    seen: list[tuple[str, str]] = []

    def told(progress: BuildProgress) -> None:
        stored = read_progress(project.store.directory)
        seen.append((progress.stage, stored.stage if stored else ""))

    project.build(told)
    assert dict(seen) == {stage: stage for stage in ("parse", "encode", "publish")}
    assert read_progress(project.store.directory) is None


def test_a_build_that_is_interrupted_leaves_nothing_behind(project: Project) -> None:
    before = project.current.generation
    project.write({"shop/new.py": "def brand_new():\n    return 1\n"})

    def told(progress: BuildProgress) -> None:
        if progress.stage == "publish":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project.build(told)
    assert project.current.generation == before
    assert [path.name for path in (project.store.directory / "generations").iterdir() if path.name > before] == []
    assert project.build().changed


def test_a_missing_folder_is_told(built: Project) -> None:
    with pytest.raises(NotFound, match="folder"):
        Project(built.root / "nowhere", built.data_dir).build()


def test_a_name_taken_by_another_folder_is_refused(project: Project, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InvalidArgument, match="another folder"):
        Project(other, project.data_dir).build()


def test_a_name_follows_its_folder_when_that_has_moved(project: Project, tmp_path: Path) -> None:
    moved = project.root.rename(tmp_path / "moved")
    assert not Project(moved, project.data_dir, project.sections).build().changed


def test_a_name_that_is_no_name_is_refused(built: Project) -> None:
    """S29: no name reaches outside the data folder."""
    for name in ("", "..", "a/../b", "/etc", "a b", "x" * 300, "é"):
        with pytest.raises(InvalidArgument, match="not valid"):
            build_module.build(name, built.root, built.settings(), on_progress=lambda _: None)


def test_every_setting_of_the_source_is_part_of_the_inputs(project: Project) -> None:
    """source.*: what is asked to be indexed decides whether the index is up to date."""
    changed: dict[str, object] = {
        "max_bytes": 100,
        "max_files": 2,
        "allow": ("*.py",),
        "deny": ("*.go",),
        "index_vendored": True,
        "index_generated": True,
    }
    assert changed.keys() == SourceSettings.model_fields.keys()
    for name, value in changed.items():
        plain = project.having(embedding={"provider": "none"}, source={name: value})
        assert plain.build().changed, name
