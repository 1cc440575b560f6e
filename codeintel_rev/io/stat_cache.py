"""What each file of a work tree held when it was last read: a file whose stat is the same is not read again.

    <shard>/stat.json    line 1: format and SHA-256 of line 2; line 2: path → "size mtime ctime inode sha256"

Only a memory of the tree, outside every generation: missing, damaged or of another format, it is as if empty. A file
that changed within `_RACY_NS` before it was read is not remembered, because it can change again under the same times
(git calls such entries racy); size and times may be set back by whoever copies a file, the ctime may not.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

FORMAT = 1
STAT = "stat.json"
_RACY_NS = 2_000_000_000  # Clocks of file systems tick within 2 s.


class Stamp(NamedTuple):
    """What `lstat` tells of a file's content without reading it: bytes, nanoseconds, nanoseconds, number."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class StatCache:
    """Digests by path and stamp. `save` keeps those that were asked for since it was opened."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / STAT
        self._known = _load(self._path)
        self._seen: dict[str, str] = {}

    def digest(self, path: str, stamp: Stamp, read: Callable[[str], str]) -> str:
        """Return the SHA-256 of the file at `path`, remembered, or else what `read(path)` returns: "" for unreadable.

        `stamp` must have been taken before this call.
        """
        key = " ".join(map(str, stamp))
        known = self._known.get(path, "")
        held, _, digest = known.rpartition(" ")
        if held == key:
            self._seen[path] = known
            return digest
        before_ns = time.time_ns()
        digest = read(path)
        if digest and max(stamp.mtime_ns, stamp.ctime_ns) < before_ns - _RACY_NS:
            self._seen[path] = f"{key} {digest}"
        return digest

    def save(self) -> None:
        """Remember what was asked for; a disk that refuses only costs reading again."""
        if self._seen == self._known:
            return
        line = json.dumps(self._seen)
        header = json.dumps({"format": FORMAT, "sha256": _sha256(line)})
        draft = self._path.with_suffix(".tmp")
        with suppress(OSError):
            draft.write_text(f"{header}\n{line}\n", encoding="ascii")
            draft.replace(self._path)


def _load(path: Path) -> dict[str, str]:
    try:
        header, line = path.read_text(encoding="ascii").split("\n")[:2]
        if json.loads(header) != {"format": FORMAT, "sha256": _sha256(line)}:
            return {}
        known: dict[str, str] = json.loads(line)
        return known
    except (OSError, ValueError):
        return {}


def _sha256(line: str) -> str:
    return hashlib.sha256(line.encode("ascii")).hexdigest()
