"""Which repositories are indexed here, in which directory is each, and where is its work tree?

A shard is `data/repos/<name, / written %2F>/`. Its `source.json` is the only place that holds an absolute path, outside
every generation, so that a generation can be copied to another machine as files.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from codeintel_rev.errors import IndexCorrupt, InvalidArgument, NotFound
from codeintel_rev.io.durable import DISK, os_errors_mapped

SOURCE = "source.json"

_PARTS = r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*"
_NAME = re.compile(rf"{_PARTS}(@{_PARTS})?")
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Source:
    """Where a repository's work tree is. `root` is absolute. A ref of `name` is a repository of its own, `name@ref`."""

    name: str
    root: Path


def repository_directory(data_dir: Path, name: str) -> Path:
    """Return the shard directory of repository `name`, which need not exist.

    Raises InvalidArgument unless `name` is `/`-separated parts of letters, digits, `.`, `_` and `-`, none of them `.`
    or `..`, and so is what follows an `@`: no name reaches outside `data_dir`, and two names never share a directory.
    """
    if not _is_valid(name):
        raise InvalidArgument(
            f"repository name {name[:_LONGEST]!r} is not valid.", "Use letters, digits, '.', '_', '-', '/', and '@REF'."
        )
    return data_dir / "repos" / quote(name, safe="")


def clone_directory(data_dir: Path, name: str) -> Path:
    """Return where the clone of a repository lies that is indexed by its URL. Raises InvalidArgument for a bad name."""
    return data_dir / "clones" / repository_directory(data_dir, name).name


def _is_valid(name: str) -> bool:
    return len(name) <= _LONGEST and bool(_NAME.fullmatch(name)) and not {".", ".."} & set(re.split("[/@]", name))


def repository_name(directory: Path) -> str:
    """Return the name of the repository whose shard is `directory`."""
    return unquote(directory.name)


def repositories(data_dir: Path) -> list[str]:
    """Return the names of the repositories that have a shard here, sorted; none when `data_dir` does not exist.

    A folder that no repository can have, such as a copy made by hand, is none.
    """
    names = (repository_name(source.parent) for source in (data_dir / "repos").glob(f"*/{SOURCE}"))
    return sorted({name for name in names if _is_valid(name) and repository_directory(data_dir, name).is_dir()})


def published(data_dir: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time in ns of each shard's CURRENT, by folder: another one is there after every publication."""
    stamps = {}
    for current in (data_dir / "repos").glob("*/CURRENT"):
        with suppress(FileNotFoundError):
            status = current.stat()
            stamps[current.parent.name] = (status.st_ino, status.st_mtime_ns)
    return stamps


def register(data_dir: Path, source: Source) -> Path:
    """Make `source` known and return its shard directory. Raises InvalidArgument for a bad name or relative root."""
    directory = repository_directory(data_dir, source.name)
    if not source.root.is_absolute():
        raise InvalidArgument(f"root of repository {source.name} is not absolute.", "Resolve it first.")
    DISK.make_directory(directory)
    draft = directory / f"{SOURCE}.tmp"
    DISK.write(draft, json.dumps({"name": source.name, "root": str(source.root)}).encode())
    DISK.replace(draft, directory / SOURCE)
    DISK.sync_directory(directory)
    return directory


def source_of(directory: Path) -> Source:
    """Return the source of the shard at `directory`. Raises NotFound when there is none, IndexCorrupt for garbage."""
    path = directory / SOURCE
    if not path.is_file():
        raise NotFound(f"repository {repository_name(directory)} is not indexed here.", "Index it first.")
    with os_errors_mapped("read", path):
        data = path.read_bytes()
    try:
        fields = json.loads(data)
        return Source(fields["name"], Path(fields["root"]))
    except (ValueError, KeyError, TypeError) as error:
        raise IndexCorrupt(f"{SOURCE} of {repository_name(directory)} is not readable.", "Index it again.") from error
