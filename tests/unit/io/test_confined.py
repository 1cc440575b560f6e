"""Only regular files beneath the root are read, and nothing tells what else there is."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.confined import read_beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"secret")
    (root / "file-link").symlink_to(tmp_path / "outside" / "file")
    (root / "folder-link").symlink_to(tmp_path / "outside")
    (root / "inner-link").symlink_to("folder")
    os.mkfifo(root / "fifo")
    return root


def test_a_regular_file_is_read(root: Path) -> None:
    assert read_beneath(root, "folder/file", 100) == b"inside"


def test_a_file_of_exactly_the_limit_is_read(root: Path) -> None:
    assert read_beneath(root, "folder/file", 6) == b"inside"


def test_a_longer_file_is_refused_whole(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="longer than 5 bytes"):
        read_beneath(root, "folder/file", 5)


REFUSED = [
    *("../outside/file", "folder/../../outside/file", "..", "folder/..", "./folder/file", "."),
    *("/etc/passwd", "", "folder//file", "folder/", "folder", "folder/file\0", "folder/file/x"),
    *("file-link", "folder-link/file", "inner-link/file", "fifo", "socket", "Folder/file", "folder/file "),
    *("%2e%2e/outside/file", "..\\outside\\file", "\ud800", "x" * 300),
]


@pytest.mark.parametrize("path", REFUSED)
def test_what_may_not_be_read_looks_like_what_is_not_there(root: Path, path: str) -> None:
    """F37, S14: traversal, absolute paths, NUL, symlinks, folders and devices are worded as a missing file is."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket"))
        with pytest.raises(NotFound) as refused:
            read_beneath(root, path, 100)
    with pytest.raises(NotFound) as missing:
        read_beneath(root, "missing", 100)
    assert str(refused.value) == str(missing.value).replace("'missing'", repr(path))


def test_a_symlinked_root_is_the_operator_s_choice(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert read_beneath(tmp_path / "alias", "folder/file", 100) == b"inside"


def test_a_folder_swapped_for_a_symlink_never_lets_a_read_escape(root: Path, tmp_path: Path) -> None:
    """F37 race: while a folder turns into a link and back, reads see the inside or nothing.

    At least 10,000 reads, and as many more as a busy machine needs to show both.
    """
    stop = threading.Event()
    swapped = root / "swapped"
    (root / "folder").rename(swapped)

    def swap() -> None:
        while not stop.is_set():
            swapped.rename(root / "aside")
            swapped.symlink_to(tmp_path / "outside")
            swapped.unlink()
            (root / "aside").rename(swapped)

    seen: Counter[bytes] = Counter()
    swapper = threading.Thread(target=swap)
    swapper.start()
    give_up = time.monotonic() + 60
    try:
        while (seen.total() < 10_000 or len(seen) < 2) and time.monotonic() < give_up:
            try:
                seen[read_beneath(root, "swapped/file", 100)] += 1
            except NotFound:
                seen[b"not found"] += 1
    finally:
        stop.set()
        swapper.join()
    assert seen.keys() == {b"inside", b"not found"}


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for path in REFUSED:
        with pytest.raises(NotFound):
            read_beneath(root, path, 100)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
