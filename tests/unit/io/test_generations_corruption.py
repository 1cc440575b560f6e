"""Bytes that are not what was published: never served, silently wrong = 0."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.errors import CodeIntelError, GenerationMismatch, IndexCorrupt, IndexUnavailable
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.manifest import MANIFEST
from tests.faults import UnsyncedStorage
from tests.marked_generations import FILES, fill, markers, publish, publish_marked

SEED = 13

Mutation = Callable[[bytes, random.Random], bytes]


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(tmp_path / "shard", UnsyncedStorage())


def path_of(store: GenerationStore, generation: str, name: str) -> Path:
    return store.directory / "generations" / generation / name


def rewrite(path: Path, data: bytes) -> None:
    """Change `path` in place, as no one may: same inode, other bytes."""
    path.chmod(0o644)
    path.write_bytes(data)


def flip_bit(data: bytes, choose: random.Random) -> bytes:
    changed = bytearray(data)
    changed[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    return bytes(changed)


def zero_page(data: bytes, choose: random.Random) -> bytes:
    start = choose.randrange(0, len(data), 512)
    return data[:start] + bytes(len(data[start : start + 512])) + data[start + 512 :]


def truncate(data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randrange(len(data))]


def append(data: bytes, choose: random.Random) -> bytes:
    return data + choose.randbytes(choose.randrange(1, 64))


def swap_halves(data: bytes, choose: random.Random) -> bytes:
    middle = choose.randrange(1, len(data) - 1)
    return data[middle:] + data[:middle]


@pytest.mark.parametrize("mutation", [flip_bit, zero_page, truncate, append, swap_halves])
@pytest.mark.parametrize("name", FILES)
def test_no_mutation_of_a_file_is_served(store: GenerationStore, name: str, mutation: Mutation) -> None:
    """F12, F13: 60 of each kind for each file, 300 a file; a mutation that changes nothing must change nothing."""
    manifest = publish_marked(store, "one", size=2000)
    path = path_of(store, manifest.generation, name)
    good = path.read_bytes()
    choose = random.Random(SEED)
    silently_wrong, reasons = 0, set()
    for _ in range(60):
        bad = mutation(good, choose)
        rewrite(path, bad)
        try:
            store.open_current().close()
            silently_wrong += bad != good
        except IndexUnavailable as error:
            reasons.add((type(error.__cause__), name in error.detail))
    assert silently_wrong == 0
    assert reasons == {(IndexCorrupt, True)}
    rewrite(path, good)
    store.open_current().close()


def test_no_mutation_of_the_manifest_is_served(store: GenerationStore) -> None:
    """F12, F13: the manifest either reads as it was or is refused."""
    manifest = publish_marked(store, "one")
    path = path_of(store, manifest.generation, MANIFEST)
    good = path.read_bytes()
    choose = random.Random(SEED)
    refused = 0
    for mutation in (flip_bit, zero_page, truncate, append, swap_halves) * 60:
        rewrite(path, mutation(good, choose))
        try:
            with store.open_current() as generation:
                assert generation.manifest == manifest
        except IndexUnavailable:
            refused += 1
    assert refused > 270


def test_no_mutation_of_current_is_served_wrong(store: GenerationStore) -> None:
    """F11, F13: whatever CURRENT says, the newest generation is served and kept: no other id is a flip away."""
    publish_marked(store, "old")
    publish_marked(store, "new")
    path = store.directory / "CURRENT"
    good = path.read_bytes()
    choose = random.Random(SEED)
    for mutation in (flip_bit, zero_page, truncate, append, swap_halves) * 20:
        path.write_bytes(mutation(good, choose))
        with store.open_current() as generation:
            assert markers(generation.path) == {"new"}
    path.write_bytes(b"0" * 26)
    with store.open_current() as generation, store.builder_lock() as repairs:
        assert generation.limits == repairs != ()
        assert store.current_id() == generation.manifest.generation


def test_files_swapped_within_a_generation_are_refused(store: GenerationStore) -> None:
    """F13: both have the same size and good content, at the wrong place."""
    manifest = publish_marked(store, "one")
    first, second = (path_of(store, manifest.generation, name) for name in FILES[:2])
    a, b = first.read_bytes(), second.read_bytes()
    assert len(a) == len(b)
    rewrite(first, b)
    rewrite(second, a)
    assert len(store.verify(manifest.generation)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.rename(path.with_name("moved")), path.symlink_to("moved")),
        lambda path: shutil.copyfile(path, path.with_name("extra.parquet")),
        lambda path: (path.with_name("linked")).symlink_to("/etc"),
    ],
    ids=["missing", "a folder", "a symlink", "one too many", "a symlinked folder"],
)
def test_a_generation_with_other_files_is_refused(store: GenerationStore, damage: Callable[[Path], object]) -> None:
    """F13: the files are those of the manifest, no fewer, no more, and regular."""
    manifest = publish_marked(store, "one")
    damage(path_of(store, manifest.generation, "faiss/primary.faiss"))
    with pytest.raises(IndexUnavailable):
        store.open_current()


@pytest.mark.parametrize("replace", [True, False], ids=["replaced", "overwritten"])
def test_a_file_of_another_generation_is_named(store: GenerationStore, replace: bool) -> None:
    """F14: every file from every generation into every other, by a new inode and into the old one."""
    ids = [publish_marked(store, marker, size=size).generation for marker, size in [("a", 600), ("b", 600), ("c", 700)]]
    mixed = 0
    for source, target in itertools.permutations(ids, 2):
        for name in FILES:
            path, good = path_of(store, target, name), path_of(store, target, name).read_bytes()
            if replace:
                path.unlink()
            shutil.copyfile(path_of(store, source, name), path)
            (problem,) = store.verify(target)
            assert isinstance(problem, GenerationMismatch)
            assert source in problem.detail
            mixed += 1
            rewrite(path, good)
            assert store.verify(target) == []
    assert mixed == 6 * len(FILES)


def test_the_manifest_of_another_generation_is_refused(store: GenerationStore, tmp_path: Path) -> None:
    """F14: of the same shard, and a whole generation of another shard under this one's id."""
    first, second = publish_marked(store, "one"), publish_marked(store, "two")
    shutil.copyfile(path_of(store, first.generation, MANIFEST), path_of(store, second.generation, MANIFEST))
    assert [type(problem) for problem in store.verify(second.generation)] == [GenerationMismatch]

    other = GenerationStore(tmp_path / "other", UnsyncedStorage())
    foreign = publish_marked(other, "foreign")
    shutil.copytree(other.directory / "generations", store.directory / "generations", dirs_exist_ok=True)
    (store.directory / "CURRENT").write_text(foreign.generation)
    with store.open_current() as generation:
        assert markers(generation.path) == {"one"}
        assert [limit.code for limit in generation.limits] == ["generation-mismatch", "generation-mismatch"]


def test_a_bad_generation_steps_down_to_its_parent_and_says_so(store: GenerationStore) -> None:
    """F11: readers move nothing."""
    publish_marked(store, "old")
    newest = publish_marked(store, "new").generation
    path_of(store, newest, "catalog.duckdb").unlink()
    with store.open_current() as generation:
        assert markers(generation.path) == {"old"}
        (limit,) = generation.limits
    assert (limit.code, limit.stage) == ("index-corrupt", "generation")
    assert f"generation {newest} is not served: catalog.duckdb" in limit.detail
    assert "rollback" in limit.action
    assert store.current_id() == newest
    assert not (store.directory / "quarantine").exists()


def test_the_next_builder_quarantines_the_bad_generation(store: GenerationStore) -> None:
    """F11: the evidence is kept, CURRENT is put right, the build follows the good one."""
    old = publish_marked(store, "old").generation
    newest = publish_marked(store, "new").generation
    path_of(store, newest, "catalog.duckdb").unlink()
    with store.builder_lock() as repairs:
        assert [limit.code for limit in repairs] == ["index-corrupt"]
        assert store.current_id() == old
        draft = store.begin(old)
        fill(draft.path, "next")
        publish(store, draft)
    (evidence,) = (store.directory / "quarantine").iterdir()
    assert evidence.name.startswith(newest)
    assert (evidence / "faiss/primary.faiss").is_file()
    with store.open_current() as generation:
        assert (markers(generation.path), generation.limits) == ({"next"}, ())


def test_a_generation_may_be_quarantined_twice(store: GenerationStore) -> None:
    """F11: an operator put the evidence back, and it is still bad."""
    newest = publish_marked(store, "new").generation
    for _ in range(2):
        path_of(store, newest, "catalog.duckdb").unlink(missing_ok=True)
        (store.directory / "CURRENT").write_text(newest)
        with store.builder_lock():
            assert store.current_id() is None
        *_, evidence = (store.directory / "quarantine").iterdir()
        shutil.copytree(evidence, store.directory / "generations" / newest)
    assert len(list((store.directory / "quarantine").iterdir())) == 2


def test_without_a_good_generation_the_shard_is_down_until_it_is_rebuilt(store: GenerationStore) -> None:
    """F11: the error names the first reason and the way out."""
    ids = [publish_marked(store, marker).generation for marker in ("one", "two")]
    for identity in ids:
        path_of(store, identity, "catalog.duckdb").unlink()
    with pytest.raises(IndexUnavailable, match=f"{ids[1]} is missing.*Rebuild"):
        store.open_current()
    with store.builder_lock() as repairs:
        assert len(repairs) == 2
        assert store.current_id() is None
    publish_marked(store, "three")
    with store.open_current() as generation:
        assert generation.limits == ()


def test_a_bad_older_generation_is_stepped_over(store: GenerationStore) -> None:
    """F11: the parent of the newest is bad too; its parent serves."""
    ids = [publish_marked(store, marker).generation for marker in ("one", "two", "three")]
    rewrite(path_of(store, ids[2], MANIFEST), b"{}")
    path_of(store, ids[1], "catalog.duckdb").unlink()
    with store.open_current() as generation:
        assert markers(generation.path) == {"one"}
        assert len(generation.limits) == 2


def test_garbage_in_current_serves_the_newest_good_and_says_so(store: GenerationStore) -> None:
    """F11."""
    newest = publish_marked(store, "new").generation
    (store.directory / "CURRENT").write_bytes(b"\xff\x00")
    with pytest.raises(IndexCorrupt, match="does not hold a generation id"):
        store.current_id()
    with store.open_current() as generation:
        assert (generation.manifest.generation, len(generation.limits)) == (newest, 1)
    assert store.rollback().generation == newest
    assert store.current_id() == newest


def test_rollback_works_offline_from_a_bad_current(store: GenerationStore) -> None:
    """F11."""
    old = publish_marked(store, "old").generation
    path_of(store, publish_marked(store, "new").generation, MANIFEST).unlink()
    assert store.rollback().generation == old


def test_an_opener_that_finds_the_content_bad_steps_down(store: GenerationStore) -> None:
    """Law 3: counts, dimensions and models are checked by whoever opens the files; hashes cannot."""
    publish_marked(store, "old")
    publish_marked(store, "new")

    def refuse_new(generation: object) -> set[str]:
        found = markers(generation.path)
        if found == {"new"}:
            raise IndexCorrupt("20 chunks, 19 vectors.")
        return found

    assert store.open_best(refuse_new) == {"old"}


def test_every_problem_is_a_typed_error_with_a_way_out(store: GenerationStore) -> None:
    manifest = publish_marked(store, "one")
    for name in FILES:
        path_of(store, manifest.generation, name).unlink()
    problems = store.verify(manifest.generation)
    assert len(problems) == len(FILES)
    assert all(isinstance(problem, CodeIntelError) and problem.hint for problem in problems)
    assert not any(str(store.directory) in str(problem) for problem in problems)
