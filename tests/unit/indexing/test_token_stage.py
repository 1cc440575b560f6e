"""Token vectors as a part of each generation: built in parts, kept up to date, gone on with after a kill."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeTokens
from killed_build import CHECKPOINT, killed_build
from projects import Project, ids_by_store, new_project

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.indexing import token_stage
from codeintel_rev.indexing.token_stage import centroids_for
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.manifest import MANIFEST, Manifest
from codeintel_rev.io.parquet_store import read_idmap
from codeintel_rev.io.token_index import (
    BUILD,
    PROJECTION,
    TEXTS,
    TOKENS,
    read_build,
    token_directory,
    token_model_id,
)
from codeintel_rev.io.vectors import PRIMARY
from codeintel_rev.types import BuildProgress, Chunk
from codeintel_rev.xtr.build import SAMPLE_PER_CENTROID, centroid_count
from codeintel_rev.xtr.config import BuildConfig, SearchConfig
from codeintel_rev.xtr.search import XTRSearch
from codeintel_rev.xtr.storage import read_manifest
from tests import tiny_models

FILES = {
    f"m{n:02}.py": f'def step_{n}(value):\n    """Do step {n} of the work."""\n    return value + {n}\n'
    for n in range(12)
}
ON = {"xtr": {"enable": True}, "embedding": {"provider": "none"}, "index": {"keep_generations": 9}}
SLOWLY = ON | {"index": {"keep_generations": 9, "publish_every_s": 1e-9}}


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeTokens:
    """The encoder of every build of the test; parts are of five chunks, encoded two at a time."""
    fake = FakeTokens()
    monkeypatch.setattr(token_stage, "open_token_encoder", lambda *_: fake)
    monkeypatch.setattr(token_stage, "PART", 5)
    monkeypatch.setattr(token_stage, "AT_ONCE", 2)
    return fake


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens stored as they are, so that scores may be compared."""
    monkeypatch.setattr(token_stage, "BuildConfig", partial(BuildConfig, layout="flat"))


@pytest.fixture
def project(tmp_path: Path, encoder: FakeTokens) -> Project:
    """FILES, built with tokens; the encoder has forgotten what it read."""
    project = new_project(tmp_path, tmp_path / "models", FILES).having(**ON)
    project.build()
    encoder.read.clear()
    return project


def line(project: Project) -> list[Manifest]:
    """Return the published generations, oldest first."""
    return project.store.ls()[::-1]


def tokens_of(project: Project) -> Path:
    return token_directory(project.directory) / TOKENS


def chunks(project: Project) -> dict[int, Chunk]:
    return {chunk.chunk_id: chunk for chunk in read_chunks(project.directory, DuckDBSettings())}


def found(project: Project, query: str, limit: int = 50) -> list[tuple[int, float]]:
    """Return (chunk_id, score) of every document, best first."""
    answer = XTRSearch.open(SearchConfig(tokens_of(project))).search(FakeTokens().encode_query(query).tokens, limit)
    return list(zip(answer.doc_ids.tolist(), answer.scores.tolist(), strict=True))


def digests(folder: Path, *, but: Iterable[str] = ()) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in but
    }


def assert_whole(project: Project) -> None:
    """Every chunk has its tokens, and every byte is what was published."""
    current = project.current
    assert project.store.verify(current.generation) == []
    assert sorted(chunk_id for chunk_id, _ in found(project, "step")) == sorted(chunks(project))
    assert current.counts["tokens"] == current.counts["chunks"]
    assert all((path / MANIFEST).exists() for path in (project.store.directory / "generations").iterdir())


def test_tokens_follow_a_generation_that_is_complete_without_them(project: Project, encoder: FakeTokens) -> None:
    """A01, A15: dense search is not kept waiting; what follows shares every file."""
    before, after = line(project)
    assert [before.stage, after.stage] == ["complete", "complete"]
    assert (before.token_model, after.token_model) == ("", token_model_id(encoder.fingerprint))
    assert after.counts == before.counts | {"tokens": 12, "tokens_cut": 0}
    assert before.files.items() <= after.files.items()
    assert (project.directory / "catalog.duckdb").samefile(project.store.path_of(before.generation) / "catalog.duckdb")
    assert_whole(project)


def test_off_a_generation_has_no_trace_of_them(tmp_path: Path) -> None:
    """A22."""
    project = new_project(tmp_path, tmp_path / "models", FILES).having(embedding={"provider": "none"})
    summary = project.build()
    (only,) = line(project)
    assert not token_directory(project.directory).exists()
    assert (summary.tokens_encoded, "tokens" in only.counts) == (0, False)
    assert "token" not in (project.directory / MANIFEST).read_text()


def test_switched_off_the_next_generation_has_none(project: Project) -> None:
    project.write({"m00.py": "changed = 1\n"})
    project.having(embedding={"provider": "none"}).build()
    assert (project.current.token_model, "tokens" in project.current.counts) == ("", False)
    assert not token_directory(project.directory).exists()


def test_switched_on_only_tokens_are_made(tmp_path: Path, encoder: FakeTokens) -> None:
    off = new_project(tmp_path, tmp_path / "models", FILES).having(embedding={"provider": "none"})
    off.build()
    stages: list[str] = []
    summary = off.having(**ON).build(lambda progress: stages.append(progress.stage))
    assert (summary.tokens_encoded, set(stages)) == (12, {"tokens", "publish"})


def test_nothing_is_done_when_nothing_changed(project: Project, encoder: FakeTokens) -> None:
    summary = project.build()
    assert (summary.changed, summary.tokens_encoded, encoder.read) == (False, 0, [])


def test_parts_are_published_as_they_are_made(tmp_path: Path, encoder: FakeTokens) -> None:
    """index.publish_every_s. A search meanwhile finds the part; the end is one segment."""
    project = new_project(tmp_path, tmp_path / "models", FILES).having(**SLOWLY)
    project.build()
    assert [manifest.counts.get("tokens") for manifest in line(project)] == [None, 5, 10, 12]
    assert [project.store.verify(manifest.generation) for manifest in line(project)] == [[]] * 4
    assert len(read_manifest(tokens_of(project)).segments) == 1
    assert_whole(project)


def test_the_codec_suits_all_as_far_as_the_first_part_can_train_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_stage, "PART", 4096)
    assert centroids_for(160, 8_000) == centroid_count(160 * 8_000) > centroid_count(160 * 4096)
    assert centroids_for(160, 100_000) == 160 * 4096 // SAMPLE_PER_CENTROID < centroid_count(160 * 100_000)


def test_a_first_part_trains_no_more_centroids_than_it_has_tokens_for(tmp_path: Path, encoder: FakeTokens) -> None:
    text = "\n".join(f"value_{n} = {n}" for n in range(40))
    project = new_project(tmp_path, tmp_path / "models", {f"m{n}.py": f"{text}\nlast = {n}\n" for n in range(12)})
    project = project.having(**ON)
    project.build()
    index = read_manifest(tokens_of(project))
    assert index.nlist == index.tokens // 12 * 5 // SAMPLE_PER_CENTROID


@pytest.mark.parametrize("sections", [ON, SLOWLY])
def test_the_same_tree_gives_the_same_bytes(project: Project, tmp_path: Path, sections: dict) -> None:
    """However often parts were published; only `build.json` tells how long it took."""
    other = new_project(tmp_path / "other", tmp_path / "models", FILES).having(**sections)
    other.build()
    ours, theirs = (digests(token_directory(one.directory), but=[BUILD]) for one in (project, other))
    assert ours == theirs
    assert len(ours) > 5


CHANGES = {
    "m00.py": FILES["m00.py"].replace("Do step", "Carry out step"),
    "m12.py": "def brand_new():\n    return 1\n",
}


def test_an_updated_index_answers_as_one_made_from_scratch(tmp_path: Path, encoder: FakeTokens, exact: None) -> None:
    """Edited, added and deleted files, and one that went back to what it was: ids and scores are the same."""
    project = new_project(tmp_path, tmp_path / "models", FILES).having(**ON)
    scratch = new_project(tmp_path / "scratch", tmp_path / "models", FILES).having(**ON)
    project.build()
    project.write({"m05.py": "def gone_again():\n    return 5\n"})
    project.build()
    for one in (project, scratch):
        one.write(CHANGES | {"m05.py": FILES["m05.py"]})
        (one.root / "m07.py").unlink()
        one.build()
    assert_whole(project)
    for query in ("carry out step 0", "brand_new", "do step 5 of the work", "return value"):
        assert found(project, query) == found(scratch, query)


def test_only_what_changed_is_encoded(project: Project, encoder: FakeTokens) -> None:
    project.write(CHANGES)
    summary = project.build()
    read = {embedding_text(chunk) for chunk in chunks(project).values() if chunk.path in CHANGES}
    assert (summary.tokens_encoded, set(encoder.read)) == (2, read)
    assert_whole(project)


def test_an_update_makes_only_what_changed_in_every_store(
    tmp_path: Path, models_dir: Path, encoder: FakeTokens
) -> None:
    """One file is parsed and encoded; vectors and tokens of the others are the parent's own files."""
    sections = {"xtr": {"enable": True}, "index": {"compact_secondary": 0.5, "keep_generations": 9}}
    project = new_project(tmp_path, models_dir, FILES).having(**sections)
    project.build()
    before, parsed = project.directory, set[int]()

    def told(progress: BuildProgress) -> None:
        if progress.stage == "parse":
            parsed.add(progress.total)

    project.write({"m00.py": CHANGES["m00.py"]})
    summary = project.build(told)
    assert (parsed, summary.encoded, summary.tokens_encoded) == ({1}, 1, 1)
    assert all((project.directory / name).samefile(before / name) for name in PRIMARY.files)
    documents = list(token_directory(before).rglob("cells.u16"))
    assert documents
    assert all((project.directory / path.relative_to(before)).samefile(path) for path in documents)
    rows, _ = read_idmap(project.directory)
    assert (len(rows), rows[-1]) == (12, 12)
    assert len({*map(tuple, ids_by_store(project.directory).values()), tuple(sorted(chunks(project)))}) == 1
    assert_whole(project)


def test_a_deleted_file_is_not_found_any_more(project: Project, encoder: FakeTokens) -> None:
    (project.root / "m07.py").unlink()
    assert project.build().tokens_encoded == 0
    assert encoder.read == []
    assert_whole(project)


def test_the_generations_between_carry_what_still_holds(project: Project) -> None:
    """While the rest is made, a search by tokens misses new chunks and finds none that is gone."""
    project.write(CHANGES)
    project.build()
    _, _, between, after = line(project)
    assert [between.counts["tokens"], after.counts["tokens"]] == [11, 13]
    assert between.token_model == after.token_model
    texts = np.load(token_directory(project.store.path_of(between.generation)) / TEXTS)
    assert set(texts[:, 0]) < set(chunks(project))


def test_lines_that_moved_are_not_encoded_again(project: Project, encoder: FakeTokens) -> None:
    """Law 1: an id is of the text, and its tokens are, wherever its lines are."""
    small = project.having(**ON, chunking={"max_tokens": 128, "workers": 1})
    functions = "\n\n".join(function(name) for name in ("up", "down", "left"))
    small.write({"sums.py": functions})
    small.build()
    before = chunks(small)
    small.write({"sums.py": f"{function('first')}\n\n{functions}"})
    encoder.read.clear()
    encoded = small.build().tokens_encoded
    after = chunks(small)
    assert before.keys() < after.keys()
    assert encoded == len(encoder.read) == len(after) - len(before)


def test_another_header_over_the_same_text_is_encoded(project: Project, encoder: FakeTokens) -> None:
    """Its id is that of the text, its tokens are also of the class it stands in."""
    small = project.having(**ON, chunking={"max_tokens": 128, "workers": 1})
    methods = "\n".join(f"    {row}" for name in ("up", "down") for row in function(name).splitlines())
    small.write({"sums.py": f"class Sums:\n{methods}\n"})
    small.build()
    before = chunks(small)
    small.write({"sums.py": f"class Totals:\n{methods}\n"})
    encoder.read.clear()
    small.build()
    after = chunks(small)
    renamed = [one for one in after.values() if one.chunk_id in before and one != before[one.chunk_id]]
    assert renamed
    assert {embedding_text(chunk) for chunk in renamed} <= set(encoder.read)
    assert_whole(small)


def function(name: str) -> str:
    body = "\n".join(f"    total = total + {name}_price_{n} * amount_{n}" for n in range(9))
    return f"def sum_{name}(total):\n{body}\n    return total\n"


def test_the_parent_is_left_as_it_was(project: Project) -> None:
    """Law 2: its files are shared, and not written to."""
    parent = project.directory
    before = digests(parent)
    project.write(CHANGES)
    project.build()
    assert digests(parent) == before
    shared = [
        path
        for path in tokens_of(project).rglob("cells.u16")
        if (parent / path.relative_to(project.directory)).exists()
    ]
    assert all(path.samefile(parent / path.relative_to(project.directory)) for path in shared)
    assert shared


@pytest.mark.parametrize(("gone", "deleted"), [(1, 1), (3, 0)])
def test_more_than_one_in_ten_deleted_is_compacted(project: Project, gone: int, deleted: int) -> None:
    for n in range(gone):
        (project.root / f"m{n:02}.py").unlink()
    project.build()
    assert sum(segment.deleted_documents for segment in read_manifest(tokens_of(project)).segments) == deleted
    assert_whole(project)


def test_many_segments_are_compacted(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_stage, "MOST_SEGMENTS", 2)
    counts = []
    for n in range(2):
        project.write({f"new_{n}.py": f"new_{n} = {n}\n"})
        project.build()
        counts.append(len(read_manifest(tokens_of(project)).segments))
    assert counts == [2, 1]
    assert_whole(project)


def test_an_index_mostly_of_other_chunks_is_made_anew(project: Project) -> None:
    """Its codec was trained on what is gone; growth by less than that keeps it."""
    project.write({f"few_{n}.py": f"few_{n} = {n}\n" for n in range(6)})
    grown = project.build().tokens_encoded
    project.write({f"many_{n}.py": f"many_{n} = {n}\n" for n in range(20)})
    assert (grown, project.build().tokens_encoded) == (6, 38)
    assert_whole(project)


def test_an_interrupted_build_goes_on_from_what_it_published(tmp_path: Path, encoder: FakeTokens) -> None:
    """Though most chunks are new to it, its codec was made for them."""
    project = new_project(tmp_path, tmp_path / "models", FILES).having(**SLOWLY)

    def told(progress: BuildProgress) -> None:
        if progress.stage == "publish" and progress.done and project.current.counts.get("tokens"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        project.build(told)
    assert project.current.counts["tokens"] == 5
    encoder.read.clear()
    assert project.build().tokens_encoded == len(encoder.read) == 7
    assert len(read_manifest(tokens_of(project)).segments) == 1
    assert_whole(project)


def test_a_killed_build_costs_the_part_it_was_at(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F10: at the second part's manifest, in a process of its own."""
    project = new_project(tmp_path, models_dir, FILES)
    killed_build(project, "publish.after_manifest:5", CODEINTEL_XTR__ENABLE="true")
    assert (project.current.stage, project.current.counts["tokens"]) == ("complete", CHECKPOINT)
    again = project.having(xtr={"enable": True})
    assert again.build().tokens_encoded == len(FILES) - CHECKPOINT
    assert_whole_minilm(again)


def assert_whole_minilm(project: Project) -> None:
    texts = np.load(token_directory(project.directory) / TEXTS)
    assert project.store.verify(project.current.generation) == []
    assert texts[:, 0].tolist() == sorted(chunks(project))


def test_the_stored_projection_is_kept_as_the_tree_changes(tmp_path: Path, models_dir: Path) -> None:
    """Tokens meet only through one projection: fitted once, to the first chunks."""
    project = new_project(tmp_path, models_dir, FILES).having(xtr={"enable": True})
    project.build()
    first = token_directory(project.directory) / PROJECTION
    model = project.current.token_model
    project.write(CHANGES)
    assert project.build().tokens_encoded == 2
    assert (token_directory(project.directory) / PROJECTION).samefile(first)
    assert project.current.token_model == model != ""
    assert_whole_minilm(project)


def test_another_model_encodes_everything_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """F16, A29: tokens of two models are never in one index."""
    other = FakeTokens("other")
    monkeypatch.setattr(token_stage, "open_token_encoder", lambda *_: other)
    summary = project.build()
    assert (summary.tokens_encoded, len(other.read)) == (12, 12)
    assert (
        project.current.token_model == read_manifest(tokens_of(project)).model_id == token_model_id(other.fingerprint)
    )
    assert_whole(project)


def test_the_projection_of_one_model_is_not_used_with_another(tmp_path: Path, models_dir: Path) -> None:
    """One fitted to 384 dimensions, and a checkpoint of 32 that has learned none."""
    project = new_project(tmp_path, models_dir, FILES).having(xtr={"enable": True})
    project.build()
    plain = str(tiny_models.save_plain(tmp_path / "plain"))
    other = project.having(xtr={"model": plain}, embedding={"provider": "none"})
    assert other.build().tokens_encoded == 12
    assert other.current.token_model.startswith("plain ")
    assert not (token_directory(other.directory) / PROJECTION).exists()
    assert not other.build().changed


def test_xtr_quant_bits(project: Project) -> None:
    two = project.having(**ON | {"xtr": {"enable": True, "quant_bits": 2}})
    four = read_manifest(tokens_of(project))
    assert two.build().tokens_encoded == 12
    index = read_manifest(tokens_of(two))
    assert (index.quant_bits, index.bytes < four.bytes) == (2, True)


def damage(project: Project) -> None:
    """Flip a bit in the oldest segment."""
    cells = min(tokens_of(project).rglob("cells.u16"))
    cells.chmod(0o644)
    with cells.open("r+b") as file:
        file.write(bytes([cells.read_bytes()[0] ^ 0x40]))


def test_a_damaged_index_is_not_linked(project: Project, encoder: FakeTokens) -> None:
    """F13: its generation goes into quarantine, its tokens are made anew."""
    damage(project)
    summary = project.build()
    assert (summary.tokens_encoded, len(summary.repaired)) == (12, 1)
    assert_whole(project)


def test_damage_that_all_generations_share_is_mended(project: Project) -> None:
    """F13: one file may be linked into every generation that is kept."""
    two = project.having(**ON | {"index": {"keep_generations": 2}})
    two.write({"new.py": "new = 1\n"})
    two.build()
    damage(two)
    assert all(two.store.verify(manifest.generation) for manifest in line(two))
    summary = two.build()
    assert (summary.tokens_encoded, len(summary.repaired)) == (13, 2)
    assert_whole(two)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (TEXTS, b"no array"),
        (BUILD, b"{}"),
        (BUILD, b'{"format": 2}'),
        (f"{TOKENS}/manifest.json", b"[]"),
    ],
)
def test_an_index_that_was_published_unreadable_is_not_linked(project: Project, name: str, content: bytes) -> None:
    """By a version of another format, say."""
    spoil(project, name, content)
    assert project.build().tokens_encoded == 12
    assert_whole(project)


def test_texts_that_are_not_the_documents_are_not_believed(project: Project, encoder: FakeTokens) -> None:
    with (token_directory(project.directory) / TEXTS).open("rb") as file:
        texts = np.load(file)
    np.save(project.root.parent / "fewer.npy", texts[1:])
    spoil(project, TEXTS, (project.root.parent / "fewer.npy").read_bytes())
    assert project.build().tokens_encoded == 12
    assert_whole(project)


def spoil(project: Project, name: str, content: bytes) -> None:
    """Publish the current generation again with another file below `xtr/`."""
    current, store = project.current, project.store
    with store.builder_lock():
        draft = store.begin(current.generation, [path for path in current.files if path != f"xtr/{name}"])
        (token_directory(draft.path) / name).write_bytes(content)
        store.publish(
            draft,
            revision=current.revision,
            stage=current.stage,
            inputs=current.inputs,
            model=current.model,
            counts=current.counts,
            components=current.components,
            libraries=current.libraries,
            token_model=current.token_model,
        )


def test_a_commit_of_what_is_indexed_keeps_the_tokens(project: Project) -> None:
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments], cwd=project.root, check=True
        )
    before = project.current
    summary = project.build()
    after = project.current
    assert (summary.changed, summary.tokens_encoded) == (True, 0)
    assert (after.token_model, after.counts, after.files) == (before.token_model, before.counts, before.files)


def test_what_is_cut_stays_counted(project: Project) -> None:
    """A chunk of one endless line is read up to LONGEST, and told."""
    project.write({"data.txt": "word " * 2000})
    assert project.build().counts["tokens_cut"] == 1
    project.write(CHANGES)
    summary = project.build()
    assert (summary.tokens_encoded, summary.counts["tokens_cut"]) == (2, 1)


def test_an_empty_repository_has_an_empty_index_that_can_grow(tmp_path: Path, encoder: FakeTokens) -> None:
    project = new_project(tmp_path, tmp_path / "models", {}).having(**ON)
    assert project.build().counts["tokens"] == 0
    project.write(FILES)
    project.build()
    assert_whole(project)
    for path in FILES:
        (project.root / path).unlink()
    assert project.build().counts["tokens"] == 0
    assert_whole(project)


def test_the_build_tells_how_far_it_is_and_how_long_the_engine_took(project: Project) -> None:
    """A41."""
    told: list[tuple[int, int]] = []
    project.write(CHANGES)
    project.build(lambda progress: told.append((progress.done, progress.total)) if progress.stage == "tokens" else None)
    assert (told[0], told[-1]) == ((11, 13), (13, 13))
    build = read_build(token_directory(project.directory))
    figures = build.figures
    assert build.missing == 0
    assert (figures["xtr_doc_count"], figures["xtr_shards"]) == (13, 2)
    assert figures["xtr_build_write_ms"] > 0
    first, with_tokens = line(project)[:2]
    assert not token_directory(project.store.path_of(first.generation)).exists()
    assert read_build(token_directory(project.store.path_of(with_tokens.generation))).figures["xtr_build_train_ms"] > 0
