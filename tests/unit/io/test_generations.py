"""Building, publishing, going back and collecting, while nothing fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codeintel_rev.errors import (
    GenerationGone,
    IndexCorrupt,
    IndexUnavailable,
    InvalidArgument,
    StaleBuild,
)
from codeintel_rev.io.durable import Digest, Storage
from codeintel_rev.io.generations import GenerationStore
from tests.faults import UnsyncedStorage
from tests.marked_generations import FILES, fill, markers, publish, publish_marked


class _CountingReads(Storage):
    def __init__(self) -> None:
        self.names: list[str] = []

    def digest(self, path: Path) -> Digest:
        self.names.append(path.name)
        return super().digest(path)


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(tmp_path / "repos" / "owner%2Fname", UnsyncedStorage())


def test_a_new_shard_has_no_generation(store: GenerationStore) -> None:
    assert store.current_id() is None
    assert store.ls() == []
    with pytest.raises(IndexUnavailable, match="owner/name is published"):
        store.open_current()


def test_what_was_published_is_what_is_opened(store: GenerationStore) -> None:
    manifest = publish_marked(store, "one")

    with store.open_current() as generation:
        assert generation.manifest == manifest
        assert generation.limits == ()
        assert markers(generation.path) == {"one"}
    assert (manifest.repo, manifest.parent, manifest.counts) == ("owner/name", None, {"chunks": 20})
    assert set(manifest.files) == set(FILES)


def test_published_files_are_read_only(store: GenerationStore) -> None:
    """F15: a truncated file under a live memory map kills the reader."""
    publish_marked(store, "one")
    with store.open_current() as generation:
        modes = {oct(path.stat().st_mode & 0o777) for path in generation.path.rglob("*") if path.is_file()}
    assert modes == {"0o444"}


def test_a_draft_is_invisible_until_it_is_published(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    with store.builder_lock():
        fill(store.begin(first.generation).path, "two")
        assert [manifest.generation for manifest in store.ls()] == [first.generation]
        assert store.current_id() == first.generation


def test_linked_files_are_shared_and_others_are_not(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    with store.builder_lock():
        draft = store.begin(first.generation, link=["faiss", "catalog.duckdb", "faiss/meta.json"])
        fill(draft.path, "two", files=["lexical/meta.json"])
        second = publish(store, draft)
    parent = store.directory / "generations" / first.generation
    assert set(second.files) == {"catalog.duckdb", "faiss/meta.json", "faiss/primary.faiss", "lexical/meta.json"}
    assert (draft.path / "faiss/meta.json").samefile(parent / "faiss/meta.json")
    assert store.verify(second.generation) == []


def test_a_draft_may_share_more_later(store: GenerationStore) -> None:
    """Whether a file is still good may show only while the draft is written."""
    first = publish_marked(store, "one")
    with store.builder_lock():
        draft = store.begin(first.generation, link=["catalog.duckdb"])
        store.link(draft, ["faiss"])
        second = publish(store, draft)
        with pytest.raises(InvalidArgument, match="no file or folder fais"):
            store.link(store.begin(second.generation), ["fais"])
    assert set(second.files) == {"catalog.duckdb", "faiss/meta.json", "faiss/primary.faiss"}
    assert store.verify(second.generation) == []


def test_a_link_of_what_the_parent_lacks_is_refused(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    with store.builder_lock():
        with pytest.raises(InvalidArgument, match="no file or folder fais"):
            store.begin(first.generation, link=["fais"])
        assert len(list((store.directory / "generations").iterdir())) == 1


def test_a_first_generation_has_nothing_to_link(store: GenerationStore) -> None:
    with store.builder_lock(), pytest.raises(InvalidArgument):
        store.begin(None, link=["faiss"])


def test_a_linked_file_that_rotted_is_not_blessed_by_the_next_manifest(store: GenerationStore) -> None:
    """F13: hashing the rotten bytes anew would make them good for ever."""
    first = publish_marked(store, "one")
    with store.builder_lock():
        draft = store.begin(first.generation, link=FILES)
        with (store.directory / "generations" / first.generation / "catalog.duckdb").open("r+b") as file:
            file.write(b"X")
        with pytest.raises(IndexCorrupt, match=r"catalog\.duckdb, linked from"):
            publish(store, draft)
        assert store.current_id() == first.generation


def test_a_linked_file_that_was_renamed_is_still_checked(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    with store.builder_lock():
        draft = store.begin(first.generation, link=["catalog.duckdb"])
        (draft.path / "catalog.duckdb").rename(draft.path / "old.duckdb")
        with (draft.path / "old.duckdb").open("r+b") as file:
            file.write(b"X")
        with pytest.raises(IndexCorrupt):
            publish(store, draft)


def test_a_draft_with_a_symlink_is_refused(store: GenerationStore) -> None:
    """A generation is copied to other machines as files: it holds no way out of itself."""
    with store.builder_lock():
        draft = store.begin(None)
        (draft.path / "catalog.duckdb").symlink_to("/etc/passwd")
        with pytest.raises(InvalidArgument, match="not a regular file"):
            publish(store, draft)
        assert not draft.path.exists()


def test_locks_and_spills_of_the_engines_are_no_content(store: GenerationStore) -> None:
    manifest = publish_marked(store, "one")
    folder = store.directory / "generations" / manifest.generation
    (folder / "lexical/.tantivy-meta.lock").touch()
    (folder / "catalog.duckdb.tmp").mkdir()
    (folder / "catalog.duckdb.tmp" / "spill-0").write_bytes(b"page")
    assert store.verify(manifest.generation) == []


def test_begin_refuses_a_parent_that_is_not_current(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    publish_marked(store, "two")
    with store.builder_lock(), pytest.raises(StaleBuild):
        store.begin(first.generation)


def test_a_stale_build_does_not_publish(store: GenerationStore) -> None:
    """F05: a builder that slept through its successor's publish."""
    first = publish_marked(store, "one")
    stale, fresh = store.begin(first.generation), store.begin(first.generation)
    fill(stale.path, "stale")
    fill(fresh.path, "fresh")
    second = publish(store, fresh)

    with pytest.raises(StaleBuild, match=second.generation):
        publish(store, stale)
    assert store.current_id() == second.generation
    assert not stale.path.exists()


def test_a_draft_that_a_successor_removed_is_stale(store: GenerationStore) -> None:
    draft = store.begin(None)
    with store.builder_lock():
        assert not draft.path.exists()
    with pytest.raises(StaleBuild):
        publish(store, draft)


def test_a_published_draft_is_neither_published_again_nor_abandoned(store: GenerationStore) -> None:
    with store.builder_lock():
        draft = store.begin(None)
        fill(draft.path, "one")
        manifest = publish(store, draft)
        with pytest.raises(StaleBuild, match="published already"):
            publish(store, draft)
        store.abandon(draft)
    assert store.verify(manifest.generation) == []


def test_an_abandoned_draft_leaves_nothing(store: GenerationStore) -> None:
    with store.builder_lock():
        draft = store.begin(None)
        fill(draft.path, "one")
        store.abandon(draft)
    assert list((store.directory / "generations").iterdir()) == []


def test_ids_sort_by_creation_when_the_clock_goes_back(store: GenerationStore) -> None:
    """F42: the directory below is named as if it came from the far future."""
    future = "7ZZZZZZZZ0" + "0" * 16
    (store.directory / "generations" / future).mkdir(parents=True)
    assert store.begin(None).generation > future


def test_gc_keeps_the_newest_with_current_and_its_parent(store: GenerationStore) -> None:
    ids = [publish_marked(store, str(number)).generation for number in range(5)]
    assert store.gc(3) == [ids[1], ids[0]]
    assert store.gc(1) == [ids[2]]
    assert [manifest.generation for manifest in store.ls()] == [ids[4], ids[3]]


def test_gc_spares_what_is_leased(store: GenerationStore) -> None:
    """F19: a stream started on generation N keeps N across swaps; later N is gone and says so."""
    first = publish_marked(store, "one")
    generation = store.open_current()
    for number in range(3):
        publish_marked(store, str(number))
    with generation.lease():
        generation.close()
        assert first.generation not in store.gc(1)
        assert markers(generation.path) == {"one"}
    assert store.gc(1) == [first.generation]
    with pytest.raises(GenerationGone):
        generation.lease().__enter__()
    with pytest.raises(GenerationGone):
        store.manifest(first.generation)


def test_gc_of_an_empty_shard_removes_nothing(store: GenerationStore) -> None:
    assert store.gc(1) == []


def test_rollback_returns_to_the_parent_and_can_be_undone(store: GenerationStore) -> None:
    first, second = publish_marked(store, "one"), publish_marked(store, "two")
    assert store.rollback() == first
    with store.open_current() as generation:
        assert markers(generation.path) == {"one"}
        assert generation.limits == ()
    assert store.rollback(second.generation) == second


def test_a_build_after_a_rollback_drops_what_was_rolled_back(store: GenerationStore) -> None:
    first, second = publish_marked(store, "one"), publish_marked(store, "two")
    store.rollback()
    third = publish_marked(store, "three")
    assert third.parent == first.generation
    assert second.generation not in [manifest.generation for manifest in store.ls()]


def test_what_was_rolled_back_is_never_stepped_down_to(store: GenerationStore) -> None:
    """Generation two is newer than the parent of three, leased and thus kept, but was judged bad."""
    publish_marked(store, "one")
    publish_marked(store, "two")
    with store.open_current():
        store.rollback()
        third = publish_marked(store, "three")
    (store.directory / "generations" / third.generation / "catalog.duckdb").unlink()
    with store.open_current() as generation:
        assert markers(generation.path) == {"one"}


def test_rollback_refuses_a_bad_or_unknown_generation(store: GenerationStore) -> None:
    first, second = publish_marked(store, "one"), publish_marked(store, "two")
    (store.directory / "generations" / first.generation / "catalog.duckdb").unlink()
    with pytest.raises(IndexCorrupt, match="is missing"):
        store.rollback(first.generation)
    with pytest.raises(IndexUnavailable):
        store.rollback()
    with pytest.raises(GenerationGone):
        store.rollback("../../etc")
    assert store.current_id() == second.generation


def test_an_opener_that_fails_leaves_no_lease(store: GenerationStore) -> None:
    first = publish_marked(store, "one")
    with pytest.raises(ZeroDivisionError):
        store.open(first.generation, lambda _: 1 / 0)
    publish_marked(store, "two")
    publish_marked(store, "three")
    assert store.gc(1) == [first.generation]


def test_a_settled_file_is_read_once(store: GenerationStore, tmp_path: Path) -> None:
    """L17: a linked, unchanged file costs one read per process; changing it in place costs another."""
    manifest = publish_marked(store, "one")
    path = store.directory / "generations" / manifest.generation / "catalog.duckdb"
    os.utime(path, (1, 1))
    reads = _CountingReads()
    reader = GenerationStore(store.directory, reads)

    reader.open_current().close()
    reader.open_current().close()
    assert reads.names.count("catalog.duckdb") == 1
    path.chmod(0o644)
    path.write_bytes(b"X" * path.stat().st_size)
    with pytest.raises(IndexUnavailable, match="SHA-256"):
        reader.open_current()
    assert reads.names.count("catalog.duckdb") == 2


def test_an_unsettled_file_is_read_every_time(store: GenerationStore) -> None:
    """F13: within the tick of its clock a file can change under the same mtime."""
    publish_marked(store, "one")
    reads = _CountingReads()
    reader = GenerationStore(store.directory, reads)
    reader.open_current().close()
    reader.open_current().close()
    assert reads.names.count("catalog.duckdb") == 2
