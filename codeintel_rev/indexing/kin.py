"""Of which shard is a new one kin? A second work tree, or a ref, goes on from what is published of its repository.

Whatever it goes on from, a build compares contents and exchanges what differs: a wrong guess costs time, nothing else.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from codeintel_rev.errors import CodeIntelError
from codeintel_rev.io import git
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.registry import Source, repositories, repository_directory, source_of

log = structlog.get_logger(__name__)


def open_kin(data_dir: Path, source: Source) -> Generation | None:
    """Return the newest generation, verified and leased, of another work tree or ref of the repository of `source`.

    None when there is none that can be opened.
    """
    place = git.place_in_history(source.root)
    readers = [GenerationReader(repository_directory(data_dir, name)) for name in repositories(data_dir)]
    others = [reader for reader in readers if reader.repo != source.name]
    kin = [reader for reader in others if _named(reader.repo) == _named(source.name) or _is_at(reader, place)]
    for reader in sorted(kin, key=_newest, reverse=True):
        try:
            return reader.open_current()
        except CodeIntelError as error:
            log.warning("kin is not gone on from", repo=source.name, kin=reader.repo, detail=error.detail)
    return None


def _named(repo: str) -> str:
    """Return the name without the ref."""
    return repo.partition("@")[0]


def _is_at(reader: GenerationReader, place: bytes) -> bool:
    if not place:
        return False
    try:
        root = source_of(reader.directory).root
    except CodeIntelError:
        return False  # Its own build tells what is wrong with it.
    return root.is_dir() and git.place_in_history(root) == place


def _newest(reader: GenerationReader) -> str:
    return max((manifest.generation for manifest in reader.ls()), default="")
