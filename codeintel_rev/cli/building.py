"""`codeintel index`: build and publish a repository's index."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import NotFound
from codeintel_rev.indexing.build import build
from codeintel_rev.observability.logs import configure_logs

UNNAMEABLE = re.compile(r"[^A-Za-z0-9._-]+")


def index(path: Path, name: str, *, as_json: bool) -> None:
    """Build the index of the repository at `path` and say what came of it."""
    settings = load_settings()
    configure_logs(settings.observability)
    root = repository_root(path)
    with render.progress() as report:
        summary = asdict(build(name or default_name(root), root, settings, on_progress=report))
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())


def repository_root(path: Path) -> Path:
    """Return `path` made absolute. Raises NotFound when it is no folder."""
    if not path.is_dir():
        raise NotFound(f"{path} is not a folder.", "Give the root of a repository.")
    return path.resolve()


def default_name(root: Path) -> str:
    """Return the folder's name, with what a repository's name may not hold replaced."""
    return UNNAMEABLE.sub("-", root.name).strip("-.") or "repository"
