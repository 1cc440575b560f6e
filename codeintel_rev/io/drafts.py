"""A generation being written: files are linked from what it goes on from, then all is sealed, durable and read-only."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from codeintel_rev.errors import IndexCorrupt, InvalidArgument
from codeintel_rev.io.durable import Digest, Storage
from codeintel_rev.io.integrity import Digests, content, folders
from codeintel_rev.io.leases import Generation


@dataclass(frozen=True, slots=True)
class Draft:
    """Put new files under `path`, then publish or abandon it.

    It goes on from `parent`, or, the first of its shard, from `kin`, another shard's. Linked files are that one's own:
    replace them by rename if need be, never write into them.
    """

    generation: str
    parent: str | None
    path: Path
    kin: Generation | None = None

    @property
    def has_origin(self) -> bool:
        return bool(self.parent or self.kin)

    @property
    def origin(self) -> Path:
        """The directory of what it goes on from. REQUIRES: it goes on from something."""
        return self.kin.path if self.kin else self.path.with_name(self.parent or "")


def link_files(draft: Draft, published: Mapping[str, Digest], names: Iterable[str], storage: Storage) -> None:
    """Share with `draft` the files its origin `published` that are one of `names` or lie below one.

    Raises InvalidArgument for a name of no file, IndexCorrupt when a copy is not what was published.
    """
    for path in _selected(published, names):
        source, target = draft.origin / path, draft.path / path
        storage.link(source, target)
        if not target.samefile(source) and storage.digest(target) != published[path]:
            raise _rotten(path, draft)


def seal(draft: Draft, published: Mapping[str, Digest], storage: Storage, digests: Digests) -> dict[str, Digest]:
    """Make everything in `draft` read-only and durable and return its digests by path.

    A linked file must have the digest its origin `published`: hashing it anew would bless a bit that rotted since.
    Raises IndexCorrupt when it has not, InvalidArgument for anything but regular files and folders.
    """
    linked = _by_inode(draft, published)
    files = {}
    for path, status in content(draft.path).items():
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArgument(f"the draft holds {path}, which is not a regular file.")
        storage.protect(draft.path / path)
        storage.sync_file(draft.path / path)
        files[path] = digests.of(draft.path / path, status)
        if files[path] != linked.get(status.st_ino, files[path]):
            raise _rotten(path, draft)
    for folder in folders(draft.path):
        storage.sync_directory(folder)
    return files


def _by_inode(draft: Draft, published: Mapping[str, Digest]) -> dict[int, Digest]:
    """Return inode → published digest: a link is known by its inode, under whatever name."""
    if not published:
        return {}
    return {status.st_ino: published[path] for path, status in content(draft.origin).items() if path in published}


def _selected(published: Mapping[str, Digest], names: Iterable[str]) -> list[str]:
    selected: set[str] = set()
    for name in names:
        paths = {path for path in published if path == name or path.startswith(f"{name}/")}
        if not paths:
            raise InvalidArgument(f"the parent generation has no file or folder {name}.")
        selected |= paths
    return sorted(selected)


def _rotten(path: str, draft: Draft) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path}, linked from generation {draft.origin.name}, is not what it published.", "Rebuild the index."
    )
