"""Are the bytes on disk those that were published? Content of a generation directory and its digests."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.io.durable import Digest, Storage, os_errors_mapped
from codeintel_rev.io.manifest import MANIFEST, Manifest

_SCRATCH = (".lock", ".tmp")
"""Ends of the names of tantivy's locks and DuckDB's spill folders: engines make them while reading; no content."""

_SETTLED_NS = 2_000_000_000
"""A file this long untouched cannot change again under the same mtime: clocks of file systems tick within 2 s."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not as published. `found` is None when it is missing, unreadable or not a regular file."""

    path: str
    found: Digest | None
    detail: str


class Digests:
    """Digests of files; a settled file with the inode, mtime and size of one already read is not read again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[tuple[int, int, int, int], Digest] = {}

    def of(self, path: Path, status: os.stat_result) -> Digest:
        """Return the digest of `path`, whose lstat before this call is `status`."""
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        if settled and key in self._known:
            return self._known[key]
        digest = self._storage.digest(path)
        if settled:
            self._known[key] = digest
        return digest


def content(root: Path) -> dict[str, os.stat_result]:
    """Return relative path → lstat, by path, of everything below `root` but directories, the manifest and scratch."""
    found = {}
    with os_errors_mapped("list", root):
        for folder, names, files in os.walk(root, onerror=_raise):
            names[:] = [name for name in names if not name.endswith(_SCRATCH)]
            for path in (Path(folder, name) for name in (*names, *files) if not name.endswith(_SCRATCH)):
                status = path.lstat()
                if not stat.S_ISDIR(status.st_mode):
                    found[path.relative_to(root).as_posix()] = status
    found.pop(MANIFEST, None)
    return dict(sorted(found.items()))


def folders(root: Path) -> list[Path]:
    """Return `root` and every directory below it, deepest first."""
    return [Path(folder) for folder, _, _ in os.walk(root, topdown=False, onerror=_raise)]


def differences(root: Path, manifest: Manifest, digests: Digests) -> Iterator[Difference]:
    """Yield every file below `root` that is not as `manifest` says, missing ones first and unpublished ones last."""
    present = content(root)
    for path, published in manifest.files.items():
        if path not in present:
            yield Difference(path, None, "is missing")
        elif difference := _difference(root, path, present[path], published, digests):
            yield difference
    for path in present.keys() - manifest.files.keys():
        yield Difference(path, None, "was never published")


def _difference(
    root: Path, path: str, status: os.stat_result, published: Digest, digests: Digests
) -> Difference | None:
    if not stat.S_ISREG(status.st_mode):
        return Difference(path, None, "is not a regular file")
    try:
        found = digests.of(root / path, status)
    except IndexCorrupt as error:
        return Difference(path, None, error.detail)
    if found == published:
        return None
    if found[0] != published[0]:
        return Difference(path, found, f"has {found[0]} bytes, {published[0]} were published")
    return Difference(path, found, f"has SHA-256 {found[1][:12]}…, {published[1][:12]}… was published")


def _raise(error: OSError) -> None:
    """os.walk would leave out what it cannot list: an unlisted file would be an unpublished one."""
    raise error
