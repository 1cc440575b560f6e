"""A builder that dies, a disk that fills, a sync that fails: CURRENT stays wholly old or becomes wholly new."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codeintel_rev.errors import BuildInProgress, IndexUnavailable, InsufficientStorage, StorageFailed
from codeintel_rev.io import failpoints, generations
from codeintel_rev.io.generations import GenerationStore
from tests.faults import FaultyStorage, PowerLost, UnsyncedStorage, os_error_at
from tests.marked_generations import markers, publish, publish_marked

_fork = multiprocessing.get_context("fork")

FAILPOINTS = re.findall(r'reach\("([^"]+)"\)', Path(generations.__file__).read_text())
SEED = 20260101


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(tmp_path / "shard")


def run_child(target: Callable[[], object]) -> int:
    """Run `target` in a child and return how it ended."""
    child = _fork.Process(target=target)
    child.start()
    child.join(30)
    assert child.exitcode is not None
    return child.exitcode


def assert_whole(directory: Path, allowed: set[str]) -> str:
    """Open the shard as a fresh reader: one whole generation, nothing degraded; return its marker."""
    reader = GenerationStore(directory)
    with reader.open_current() as generation:
        (marker,) = markers(generation.path)
        assert generation.limits == ()
        assert marker in allowed
        assert reader.verify(generation.manifest.generation) == []
    return marker


def assert_next_build_works(directory: Path) -> None:
    """The next builder finds nothing to repair, removes orphans and publishes."""
    builder = GenerationStore(directory, UnsyncedStorage())
    with builder.builder_lock() as repairs:
        assert repairs == ()
        kept = {path.name for path in (directory / "generations").iterdir()}
        assert kept == {manifest.generation for manifest in builder.ls()}
        assert max(kept, default=None) == builder.current_id()
    publish_marked(builder, "next")
    assert_whole(directory, {"next"})


def kill_while_publishing(directory: Path, delay: float) -> None:
    """Start a child that publishes over and over, and SIGKILL it after `delay` seconds."""
    ready = _fork.Event()

    def publish_for_ever() -> None:
        child = GenerationStore(directory)
        ready.set()
        while True:
            publish_marked(child, f"child {random.random()}")
            child.gc(2)

    child = _fork.Process(target=publish_for_ever)
    child.start()
    assert ready.wait(10)
    child.join(delay)
    child.kill()
    child.join(10)


def check_kills(directory: Path, rounds: int) -> None:
    random_delay = random.Random(SEED)
    publish_marked(GenerationStore(directory), "next")
    for number in range(rounds):
        delay = random_delay.uniform(0, 0.03)
        kill_while_publishing(directory, delay)
        with GenerationStore(directory).open_current() as generation:
            found = markers(generation.path)
            assert (len(found), generation.limits) == (1, ()), f"seed {SEED}, round {number}, delay {delay}"
        assert_next_build_works(directory)


def test_a_killed_builder_leaves_a_whole_generation(tmp_path: Path) -> None:
    """F01, 20 rounds."""
    check_kills(tmp_path / "shard", 20)


@pytest.mark.slow
def test_a_builder_killed_200_times_leaves_a_whole_generation(tmp_path: Path) -> None:
    """F01 in full."""
    check_kills(tmp_path / "shard", 200)


@pytest.mark.parametrize("point", [point for point in FAILPOINTS if point.startswith("publish.")])
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_death_between_two_steps_of_publishing_is_all_or_nothing(
    store: GenerationStore, point: str, first: bool
) -> None:
    """F02: each point between each pair of steps, for the first generation of a shard and for a later one."""
    if not first:
        publish_marked(store, "old")

    def build() -> None:
        with failpoints.armed(point, lambda: os._exit(137)):
            publish_marked(store, "new")

    assert run_child(build) == 137
    published = point == "publish.after_replace"
    if first and not published:
        with pytest.raises(IndexUnavailable):
            store.open_current()
    else:
        assert_whole(store.directory, {"new" if published else "old"})
    publish_marked(store, "next")
    assert_whole(store.directory, {"next"})
    assert len(list((store.directory / "generations").iterdir())) == len(store.ls())


def test_a_lost_current_is_found_again_by_the_next_builder(store: GenerationStore) -> None:
    """F11: readers serve nothing rather than guess; no generation is thrown away."""
    publish_marked(store, "old")
    publish_marked(store, "new")
    (store.directory / "CURRENT").unlink()
    with pytest.raises(IndexUnavailable):
        store.open_current()
    with store.builder_lock() as repairs:
        assert [limit.detail for limit in repairs] == ["CURRENT of shard names nothing, which is not kept."]
    assert_whole(store.directory, {"new"})


def test_death_in_garbage_collection_leaves_an_orphan(store: GenerationStore) -> None:
    """F02 for the collector: a half-removed generation is never mistaken for a damaged one."""
    for number in range(3):
        publish_marked(store, str(number))

    def collect() -> None:
        with failpoints.armed("gc.after_unlink", lambda: os._exit(137)):
            store.gc(1)

    assert run_child(collect) == 137
    assert len(store.ls()) == 2
    assert_whole(store.directory, {"2"})
    assert_next_build_works(store.directory)


def test_death_in_repair_is_repaired_by_the_next_builder(store: GenerationStore) -> None:
    """F11 with F02: killed after the bad generation went to quarantine, before CURRENT was put right."""
    publish_marked(store, "old")
    newest = publish_marked(store, "new").generation
    (store.directory / "generations" / newest / "catalog.duckdb").unlink()

    def repair() -> None:
        with failpoints.armed("repair.after_quarantine", lambda: os._exit(137)), store.builder_lock():
            pass

    assert run_child(repair) == 137
    with store.open_current() as generation:
        assert markers(generation.path) == {"old"}
        assert [limit.code for limit in generation.limits] == ["index-corrupt"]
    with store.builder_lock():
        pass
    assert_whole(store.directory, {"old"})


def test_every_failpoint_is_exercised() -> None:
    """F02: a new point in the store must come with its own test here."""
    assert sorted(FAILPOINTS) == [
        "gc.after_unlink",
        "publish.after_fsync",
        "publish.after_manifest",
        "publish.after_replace",
        "publish.before_replace",
        "repair.after_quarantine",
    ]


def quick(directory: Path) -> GenerationStore:
    return GenerationStore(directory, UnsyncedStorage())


def steps_of_a_publish(directory: Path) -> int:
    """Return how many storage steps a second publish takes."""
    publish_marked(quick(directory), "old")
    storage = FaultyStorage(directory, SEED)
    publish_marked(GenerationStore(directory, storage), "new")
    return storage.steps


@pytest.mark.parametrize("seed", range(4))
def test_power_loss_at_any_step_leaves_a_whole_generation(tmp_path: Path, seed: int) -> None:
    """F04: what was never synced vanishes, renames may survive; nothing acknowledged is lost, nothing degrades."""
    steps = steps_of_a_publish(tmp_path / "count")
    assert steps > 20
    for step in range(1, steps + 1):
        directory = tmp_path / f"{step}"
        publish_marked(quick(directory), "old")
        storage = FaultyStorage(directory, seed)
        storage.power_goes_at = step
        with pytest.raises(PowerLost):
            publish_marked(GenerationStore(directory, storage), "new")
        storage.lose_power()
        assert_whole(directory, {"old", "new"})
        assert_next_build_works(directory)


@pytest.mark.parametrize("seed", range(4))
def test_an_acknowledged_publish_survives_power_loss(tmp_path: Path, seed: int) -> None:
    """F04: what publish returned for is there afterwards."""
    publish_marked(quick(tmp_path / "shard"), "old")
    storage = FaultyStorage(tmp_path / "shard", seed)
    publish_marked(GenerationStore(tmp_path / "shard", storage), "new")
    storage.lose_power()
    assert_whole(tmp_path / "shard", {"new"})


def test_power_loss_on_a_disk_that_lies_is_never_served_wrong(tmp_path: Path) -> None:
    """F04: syncs that did nothing leave short and empty files behind; hashes refuse them and the parent serves."""
    served, degraded = [], 0
    for seed in range(40):
        directory = tmp_path / f"{seed}"
        publish_marked(quick(directory), "old")
        storage = FaultyStorage(directory, seed, lying=True)
        publish_marked(GenerationStore(directory, storage), "new")
        storage.lose_power()
        with quick(directory).builder_lock() as repairs, quick(directory).open_current() as generation:
            served.append(markers(generation.path))
            degraded += bool(repairs)
        publish_marked(quick(directory), "next")
        assert_whole(directory, {"next"})
    assert {"old"} in served
    assert all(found in ({"old"}, {"new"}) for found in served)
    assert degraded > 0


def syncs_of_a_publish(directory: Path) -> int:
    publish_marked(quick(directory), "old")
    syncs = 0

    def count(operation: str, path: Path) -> None:
        nonlocal syncs
        syncs += operation.startswith("sync_")

    publish_marked(GenerationStore(directory, FaultyStorage(directory, SEED, count)), "new")
    return syncs


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_failed_sync_fails_the_build_and_is_not_retried(tmp_path: Path, number: int) -> None:
    """F08, F06: the n-th sync fails, for every n; the old generation serves and the draft is gone."""
    syncs = syncs_of_a_publish(tmp_path / "count")
    assert syncs > 10
    expected = StorageFailed if number == errno.EIO else InsufficientStorage
    for step in range(1, syncs + 1):
        directory = tmp_path / f"{step}"
        publish_marked(quick(directory), "old")
        seen: list[str] = []
        fault = os_error_at(step, number, ("sync_file", "sync_directory"))
        storage = FaultyStorage(
            directory,
            SEED,
            lambda operation, path, fault=fault, seen=seen: (
                seen.append(f"{operation} {path.name}"),
                fault(operation, path),
            ),
        )
        with pytest.raises(expected):
            publish_marked(GenerationStore(directory, storage), "new")
        last = step == syncs
        assert_whole(directory, {"new" if last else "old"})
        assert len(list((directory / "generations").iterdir())) == 1 + last
        assert_next_build_works(directory)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
def test_an_error_at_any_step_fails_the_build_by_name(tmp_path: Path, number: int) -> None:
    """F06, F08: not only syncs fail."""
    steps = steps_of_a_publish(tmp_path / "count")
    for step in range(1, steps + 1):
        directory = tmp_path / f"{step}"
        publish_marked(quick(directory), "old")
        storage = FaultyStorage(directory, SEED, os_error_at(step, number))
        with pytest.raises((StorageFailed, InsufficientStorage)):
            publish_marked(GenerationStore(directory, storage), "new")
        assert_whole(directory, {"old", "new"})
        assert_next_build_works(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of 6 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False).returncode
    ):
        pytest.skip("mounting a tmpfs is refused here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_fails_the_build_and_the_old_generation_serves(small_disk: Path) -> None:
    """F06: the engines fill the disk to the last byte, then publishing needs a few more."""
    store = GenerationStore(small_disk / "shard")
    publish_marked(store, "old")
    publish_marked(store, "older", size=50_000)
    oldest = publish_marked(store, "current", size=50_000)
    with store.builder_lock():
        draft = store.begin(oldest.generation)
        with contextlib.suppress(OSError), (draft.path / "faiss").open("wb", buffering=0) as file:
            while file.write(b"x" * 4096):
                pass
        with pytest.raises(InsufficientStorage, match="disk is full"):
            publish(store, draft)
        assert not draft.path.exists()
    assert_whole(store.directory, {"current"})
    publish_marked(store, "next")


def test_a_full_disk_can_be_collected_and_rolled_back(small_disk: Path) -> None:
    """F06: deletes and reads stay allowed."""
    store = GenerationStore(small_disk / "shard")
    ids = [publish_marked(store, str(number), size=50_000).generation for number in range(3)]
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    assert_whole(store.directory, {"2"})
    assert store.gc(2) == [ids[0]]
    assert store.rollback().generation == ids[1]


def test_a_second_builder_is_told_who_builds(store: GenerationStore) -> None:
    """F05: by the same thread, another store object and another process."""
    with store.builder_lock():
        for other in (store, GenerationStore(store.directory)):
            with pytest.raises(BuildInProgress, match=f"process {os.getpid()}, since 20"), other.builder_lock():
                pass

        def build() -> None:
            with contextlib.suppress(BuildInProgress), GenerationStore(store.directory).builder_lock():
                os._exit(1)
            os._exit(0)

        assert run_child(build) == 0
    with store.builder_lock():
        pass


def test_a_killed_builder_frees_the_lock_though_its_workers_live(store: GenerationStore) -> None:
    """F05: the lock is the OS's; a parse worker forked under it and orphaned by SIGKILL does not keep it."""
    worker_started, started = os.pipe()
    orphan_waits, release = os.pipe()

    def build() -> None:
        with store.builder_lock():
            if os.fork() == 0:
                os.close(release)
                os.write(started, b"!")
                os.read(orphan_waits, 1)
                os._exit(0)
            os.read(orphan_waits, 1)

    child = _fork.Process(target=build)
    child.start()
    os.read(worker_started, 1)
    child.kill()
    child.join()
    with store.builder_lock():
        pass
    for descriptor in (worker_started, started, orphan_waits, release):
        os.close(descriptor)
