"""What a build tells is true while it runs, and nobody believes what a dead one left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.progress import FILE, clear_progress, read_progress, write_progress
from codeintel_rev.types import BuildProgress

HALF = BuildProgress("encode", 5, 10, 2.5, 2.0, 1e9, 1)


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    tmp_path.joinpath("shop").mkdir()
    return GenerationStore(tmp_path / "shop")


def test_what_the_builder_tells_is_read(store: GenerationStore) -> None:
    with store.builder_lock():
        write_progress(store.directory, HALF)
        assert read_progress(store.directory) == HALF


def test_the_latest_is_read(store: GenerationStore) -> None:
    with store.builder_lock():
        write_progress(store.directory, HALF)
        write_progress(store.directory, BuildProgress("publish", 0, 1, None, None, 1e9, 1))
        found = read_progress(store.directory)
    assert found == BuildProgress("publish", 0, 1, None, None, 1e9, 1)


def test_nothing_is_told_before_or_after(store: GenerationStore) -> None:
    with store.builder_lock():
        assert read_progress(store.directory) is None
        write_progress(store.directory, HALF)
        clear_progress(store.directory)
        assert read_progress(store.directory) is None


def test_clearing_nothing_is_no_error(store: GenerationStore) -> None:
    clear_progress(store.directory)
    assert not (store.directory / FILE).exists()


@pytest.mark.parametrize("locked_before", [True, False])
def test_what_a_dead_builder_left_is_not_believed(store: GenerationStore, locked_before: bool) -> None:
    """Its pid says nothing: after a restart it may be anyone's, even the reader's own."""
    if locked_before:
        with store.builder_lock():
            pass
    write_progress(store.directory, HALF)
    assert read_progress(store.directory) is None


def test_reading_does_not_keep_a_builder_out(store: GenerationStore) -> None:
    write_progress(store.directory, HALF)
    read_progress(store.directory)
    with store.builder_lock():
        assert read_progress(store.directory) == HALF


GARBAGE = {
    "empty": b"",
    "cut": b'{"stage": "enc',
    "no object": b"[1, 2]",
    "a number": b"5",
    "other fields": json.dumps({"stage": "encode", "color": 1}).encode(),
    "no text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_nothing_told(store: GenerationStore, content: bytes) -> None:
    (store.directory / FILE).write_bytes(content)
    with store.builder_lock():
        assert read_progress(store.directory) is None


def test_a_shard_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "nowhere") is None
