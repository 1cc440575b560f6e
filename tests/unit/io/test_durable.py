"""The seam to the disk: errors leave by name, links fall back to copies."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from codeintel_rev.errors import IndexCorrupt, InsufficientStorage, StorageFailed
from codeintel_rev.io.durable import DISK, storage_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_or_quota_is_insufficient_storage(number: int) -> None:
    """F06."""
    error = storage_error("write", Path("/secret/place/CURRENT"), OSError(number, "x"))
    assert isinstance(error, InsufficientStorage)
    assert str(error) == "cannot write CURRENT: the disk is full. Free space."


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_any_other_error_is_a_storage_failure(number: int) -> None:
    """F08."""
    assert isinstance(storage_error("sync", Path("CURRENT"), OSError(number, "x")), StorageFailed)


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    for _ in range(2):
        DISK.make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_in_the_way_of_a_directory_is_a_storage_failure(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StorageFailed, match="cannot create"):
        DISK.make_directory(tmp_path / "a" / "b")


def test_a_link_is_the_same_file(tmp_path: Path) -> None:
    DISK.write(tmp_path / "a", b"bytes")
    DISK.link(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").samefile(tmp_path / "a")


def test_a_link_across_devices_is_a_copy(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source = shared / f"{tmp_path.name}.source"
    source.write_bytes(b"bytes")
    try:
        DISK.link(source, tmp_path / "b")
    finally:
        source.unlink()
    assert (tmp_path / "b").read_bytes() == b"bytes"


def test_a_link_onto_an_existing_file_is_a_storage_failure(tmp_path: Path) -> None:
    for name in "ab":
        DISK.write(tmp_path / name, name.encode())
    with pytest.raises(StorageFailed, match="cannot link b"):
        DISK.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"


def test_a_digest_is_length_and_sha256(tmp_path: Path) -> None:
    DISK.write(tmp_path / "a", b"abc")
    assert DISK.digest(tmp_path / "a") == (3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def test_a_missing_or_symlinked_file_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("missing", "link"):
        with pytest.raises(IndexCorrupt, match=name):
            DISK.digest(tmp_path / name)


def test_removing_what_is_gone_is_no_error(tmp_path: Path) -> None:
    DISK.remove_tree(tmp_path / "a")
    DISK.unlink(tmp_path / "a")


def test_syncing_what_is_gone_is_a_storage_failure(tmp_path: Path) -> None:
    for sync in (DISK.sync_file, DISK.sync_directory):
        with pytest.raises(StorageFailed, match="cannot sync a"):
            sync(tmp_path / "a")
