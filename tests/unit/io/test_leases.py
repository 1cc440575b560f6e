"""A generation in use, here or in another process, outlives garbage collection; a dead user holds nothing."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from codeintel_rev.errors import GenerationGone
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.leases import FileLock
from tests.faults import UnsyncedStorage
from tests.marked_generations import markers, publish_marked

_fork = multiprocessing.get_context("fork")


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(tmp_path / "shard", UnsyncedStorage())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_lease_of_another_process_stops_gc_until_it_dies(store: GenerationStore) -> None:
    """F19: the lease needs no time-out, the OS ends it with the process."""
    first = publish_marked(store, "one").generation
    leased, lease = os.pipe()

    def read() -> None:
        generation = GenerationStore(store.directory).open_current()
        os.write(lease, b"!")
        os.read(leased, 0)
        threading.Event().wait(30)
        generation.close()

    child = _fork.Process(target=read)
    child.start()
    os.read(leased, 1)
    publish_marked(store, "two")
    publish_marked(store, "three")
    assert store.gc(1) == []
    child.kill()
    child.join()
    assert store.gc(1) == [first]
    os.close(leased)
    os.close(lease)


def test_a_forked_child_does_not_inherit_a_lease(store: GenerationStore) -> None:
    """F05, F19: a worker that outlives its parent must not keep what the parent held."""
    first = publish_marked(store, "one").generation
    generation = store.open_current()
    waits, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(waits, 1)
        os._exit(0)
    generation.close()
    publish_marked(store, "two")
    publish_marked(store, "three")
    assert store.gc(1) == [first]
    os.close(release)
    os.close(waits)
    os.waitpid(child, 0)


def test_a_closed_generation_lives_until_its_last_lease_ends(store: GenerationStore) -> None:
    """F19."""
    publish_marked(store, "one")
    closed: list[str] = []
    generation = store.open_current()
    generation.on_close(lambda: closed.append("files"))
    generation.on_close(lambda: closed.append("index"))
    with generation.lease(), generation.lease():
        generation.close()
        generation.close()
        assert closed == []
        assert markers(generation.path) == {"one"}
    assert closed == ["index", "files"]
    with pytest.raises(GenerationGone, match="was closed"), generation.lease():
        pass


def test_leases_from_many_threads_end_in_one_close(store: GenerationStore) -> None:
    publish_marked(store, "one")
    closed: list[str] = []
    generation = store.open_current()
    generation.on_close(lambda: closed.append("index"))
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait(10)
        for _ in range(500):
            with generation.lease():
                pass

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert closed == []
    generation.close()
    assert closed == ["index"]


def test_no_descriptor_is_left_open(store: GenerationStore) -> None:
    """L15: opened, refused and excluded locks all go back."""
    publish_marked(store, "one")
    before = open_descriptors()
    for _ in range(5):
        with store.open_current() as generation:
            assert FileLock.take(generation.path / "MANIFEST.json", exclusive=True) is None
        with pytest.raises(ZeroDivisionError):
            store.open_best(lambda _: 1 / 0)
    assert open_descriptors() == before


def test_a_lock_released_twice_does_not_close_another_file(tmp_path: Path) -> None:
    """The number of a closed descriptor is given to the next file."""
    (tmp_path / "a").touch()
    first = FileLock.take(tmp_path / "a", exclusive=True)
    assert first is not None
    first.release()
    second = FileLock.take(tmp_path / "a", exclusive=True)
    first.release()
    assert second is not None
    assert FileLock.take(tmp_path / "a", exclusive=False) is None
    second.release()


def test_a_missing_file_cannot_be_locked(tmp_path: Path) -> None:
    assert FileLock.take(tmp_path / "a", exclusive=False) is None
    assert not (tmp_path / "a").exists()


def test_a_removed_file_is_known_as_gone(tmp_path: Path) -> None:
    """The collector removed the generation between opening and locking its manifest."""
    (tmp_path / "a").touch()
    lock = FileLock.take(tmp_path / "a", exclusive=False)
    assert lock is not None
    assert not lock.file_is_gone
    (tmp_path / "a").unlink()
    assert lock.file_is_gone
    lock.release()
