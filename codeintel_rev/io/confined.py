"""Files beneath a root, opened component by component so that nothing outside of it can be reached.

Checking a path and then opening it leaves a moment to swap a folder for a symlink (reliability F37, S14); here each
step is taken from the descriptor of the folder before it and refuses to follow a link.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from codeintel_rev.errors import InvalidArgument, NotFound

_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: opening a FIFO must not wait for a writer.
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def read_beneath(root: Path, path: str, max_bytes: int) -> bytes:
    """Return the bytes of the regular file at `path`, relative to `root` and `/`-separated.

    Raises NotFound, worded alike for all of them, when the file does not exist, may not be read, is no regular file or
    lies behind a symlink, and for a path that is absolute, has empty, `.` or `..` parts or a NUL. Raises
    InvalidArgument when the file is longer than `max_bytes`.
    """
    try:
        descriptor = _open_beneath(root, path)
    except (OSError, ValueError) as error:  # ValueError: NUL, or text no file name can hold
        raise NotFound(f"no file {path!r}.", "list_paths names the files there are.") from error
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InvalidArgument(f"file {path!r} is longer than {max_bytes} bytes.")
    return content


def _open_beneath(root: Path, path: str) -> int:
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError(path)
    folder = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _open_regular(parts[-1], folder)
    finally:
        os.close(folder)


def _open_regular(name: str, folder: int) -> int:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise FileNotFoundError(name)
