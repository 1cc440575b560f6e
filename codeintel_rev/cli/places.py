"""Where the command line finds a repository and keeps its data."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from codeintel_rev.errors import NotFound, SettingsError
from codeintel_rev.io.git import is_url

UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")


def repository_root(path: Path) -> Path:
    """Return `path` made absolute. Raises NotFound when it is no folder."""
    if not path.is_dir():
        raise NotFound(f"{path} is not a folder.", "Give the root of a repository.")
    return path.resolve()


def default_name(source: str) -> str:
    """Return the name of a folder, or the last part of a URL, with what a repository's name may not hold replaced."""
    last = PurePosixPath(source.removesuffix(".git")) if is_url(source) else Path(source).resolve()
    return UNNAMEABLE.sub("-", last.name).strip("-.") or "repository"


def check_data_dir(data_dir: Path) -> None:
    """Raise SettingsError unless `data_dir` is a directory or can be made one."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"setting paths.data_dir: {data_dir} cannot be used, {error.strerror}.", "Set CODEINTEL_PATHS__DATA_DIR."
        ) from error
