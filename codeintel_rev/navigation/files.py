"""The lines of one indexed file as they stand in the work tree, and the list of indexed paths."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.confined import read_beneath
from codeintel_rev.io.decode import decode, lines_of
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.types import Freshness

MAX_FILE_BYTES = 64 * 1024 * 1024
"""A file that grew beyond this since it was indexed is not opened."""


class IndexedFile(Protocol):
    """What the index knows of a file: its path, and the sha256 in hex of the raw bytes it was indexed from."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class FileLines:
    """Lines `start_line` to `end_line` of a file of `total_lines`, joined by `\\n`.

    `truncated` tells that more lines were asked for than one answer holds. `freshness` is of the whole file.
    """

    path: str
    start_line: int
    end_line: int
    total_lines: int
    freshness: Freshness
    truncated: bool
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FolderCount:
    """A folder directly under the one listed, and how many of the files listed lie in it, however deep."""

    path: str
    files: int


@dataclass(frozen=True, slots=True)
class PathPage:
    """One page of paths in order; `total` and `folders` count all pages. `next_after` is None on the last."""

    paths: tuple[str, ...]
    folders: tuple[FolderCount, ...]
    total: int
    next_after: str | None


def open_file(
    root: Path,
    file: IndexedFile,
    start_line: int,
    end_line: int | None,
    max_lines: int,
    *,
    indexed_lines: Sequence[str] | None = None,
) -> FileLines:
    """Return the lines asked for, 1-based and inclusive, from the work tree at `root`; `end_line` None is the last.

    REQUIRES: `file` comes from the index, so that a file that was denied there stays closed here. At most `max_lines`
    lines are returned. When the file is gone, the answer comes from `indexed_lines`, all lines as they were indexed,
    with freshness "missing"; without them NotFound is raised. Raises InvalidArgument for a range that holds no line.
    """
    try:
        content = read_beneath(root, file.path, MAX_FILE_BYTES)
    except NotFound:
        if indexed_lines is None:
            raise
        return _cut(file, indexed_lines, Freshness.MISSING, (start_line, end_line), max_lines)
    decoded = decode(content)
    if decoded is None:
        raise NotFound(f"file {file.path!r} is no text any more.", "Index the repository again.")
    fresh = hashlib.sha256(content).hexdigest() == file.sha256
    freshness = Freshness.FRESH if fresh else Freshness.EDITED
    return _cut(file, lines_of(decoded.text), freshness, (start_line, end_line), max_lines)


def list_paths(
    paths: Iterable[tuple[str, str]],
    *,
    under: str,
    matcher: PathMatcher,
    languages: Iterable[str],
    limit: int,
    after: str,
) -> PathPage:
    """Return the first `limit` of the (path, language) pairs that lie in folder `under` and match, after path `after`.

    Empty `under` is the root, empty `languages` any, empty `after` the beginning. Raises InvalidArgument for a limit
    below 1.
    """
    if limit < 1:
        raise InvalidArgument(f"limit {limit} is below 1.")
    prefix, wanted = _prefix(under), frozenset(languages)
    listed = sorted(
        path
        for path, language in paths
        if path.startswith(prefix) and (not wanted or language in wanted) and matcher.matches(path)
    )
    inner = (path[len(prefix) :].partition("/") for path in listed)
    folders = Counter(prefix + name for name, slash, _ in inner if slash)
    rest = [path for path in listed if path > after]
    return PathPage(
        paths=tuple(rest[:limit]),
        folders=tuple(FolderCount(path, files) for path, files in sorted(folders.items())),
        total=len(listed),
        next_after=rest[limit - 1] if len(rest) > limit else None,
    )


def _prefix(folder: str) -> str:
    trimmed = folder.strip("/").removeprefix("./")
    return f"{trimmed}/" if trimmed and trimmed != "." else ""


def _cut(
    file: IndexedFile, lines: Sequence[str], freshness: Freshness, span: tuple[int, int | None], max_lines: int
) -> FileLines:
    first, end = span
    if first < 1 or (end is not None and end < first):
        raise InvalidArgument(f"lines {first} to {end} are no range.", "Lines count from 1, first to last.")
    if first > len(lines):
        raise InvalidArgument(f"line {first} is beyond the end of {file.path!r}, which has {len(lines)} lines.")
    last = len(lines) if end is None else min(end, len(lines))
    shown = min(last, first + max_lines - 1)
    text = "\n".join(lines[first - 1 : shown])
    return FileLines(file.path, first, shown, len(lines), freshness, shown < last, text)
