"""The one seam between generations and the disk: write, sync, replace, link, remove, digest.

Useful for: everything that must survive a crash. Not useful for: the engines' own writes into a draft, which become
durable when the draft is published. Tests pass a twin that fails on purpose.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from codeintel_rev.errors import IndexCorrupt, InsufficientStorage, StorageFailed

Digest = tuple[int, str]
"""Length in bytes and SHA-256 in hexadecimal."""

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LINKS_HERE = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP}
_UNREADABLE = {errno.EIO, errno.ELOOP, errno.ENOENT}


def storage_error(action: str, path: Path, error: OSError) -> InsufficientStorage | StorageFailed:
    """Return what `error`, met while trying to `action` `path`, is called here."""
    if error.errno in _FULL:
        return InsufficientStorage(f"cannot {action} {path.name}: the disk is full.", "Free space.")
    return StorageFailed(f"cannot {action} {path.name}: {error.strerror}.", "Check the disk and its permissions.")


@contextmanager
def os_errors_mapped(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(action, path, error) from error


class Storage:
    """POSIX files. Every OSError leaves mapped, and nothing is ever retried: after a failed fsync the kernel may have
    dropped the dirty pages, so that a second one which succeeds proves nothing."""

    def write(self, path: Path, data: bytes) -> None:
        """Make `path` hold exactly `data`, durably once its directory is synced too."""
        with os_errors_mapped("write", path):
            path.write_bytes(data)
        self.sync_file(path)

    def make_directory(self, path: Path) -> None:
        """Make `path` and its missing parents exist, durably."""
        if path.is_dir():
            return
        self.make_directory(path.parent)
        with os_errors_mapped("create", path):
            path.mkdir(exist_ok=True)
        self.sync_directory(path.parent)

    def sync_file(self, path: Path) -> None:
        self._sync(path, os.O_RDONLY)

    def sync_directory(self, path: Path) -> None:
        """Make the names in `path` durable: creations, renames and removals."""
        self._sync(path, os.O_RDONLY | os.O_DIRECTORY)

    def replace(self, source: Path, target: Path) -> None:
        """Give `source` the name `target` in one step; durable once the directory is synced."""
        with os_errors_mapped("replace", target):
            source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Make `target` the same file as `source`, or a copy of it where the file system has no hard links."""
        with os_errors_mapped("link", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
            except OSError as error:
                if error.errno not in _NO_LINKS_HERE:
                    raise
                shutil.copyfile(source, target)

    def protect(self, path: Path) -> None:
        """Make `path` read-only: truncating a file under a live memory map kills the reader (SIGBUS)."""
        with os_errors_mapped("protect", path):
            path.chmod(0o444)

    def unlink(self, path: Path) -> None:
        with os_errors_mapped("remove", path):
            path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Make `path` and all below it gone; nothing happens when it already is."""
        if path.is_dir():
            with os_errors_mapped("remove", path):
                shutil.rmtree(path)

    def digest(self, path: Path) -> Digest:
        """Return what `path` holds now. Raises IndexCorrupt when it is gone, a link or unreadable; StorageFailed."""
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 (Path has no O_NOFOLLOW)
                return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            if error.errno in _UNREADABLE:
                raise IndexCorrupt(f"{path.name} cannot be read: {error.strerror}.") from error
            raise storage_error("read", path, error) from error

    def _sync(self, path: Path, flags: int) -> None:
        with os_errors_mapped("sync", path):
            descriptor = os.open(path, flags)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


DISK = Storage()
