"""`codeintel index`: build and publish a repository's index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from codeintel_rev.cli import render
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.cli.watching import follow
from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import CodeIntelError
from codeintel_rev.indexing.build import build
from codeintel_rev.io.registry import Source, repositories, repository_directory, source_of
from codeintel_rev.observability.logs import configure_logs


def index(path: Path, name: str, *, as_json: bool, watch: bool = False) -> None:
    """Build the index of the repository at `path` and say what came of it; with `watch`, then follow the tree."""
    settings = load_settings()
    configure_logs(settings.observability)
    check_data_dir(settings.paths.data_dir)
    root = repository_root(path)
    repo = name or default_name(root)
    try:
        with render.progress() as report:
            summary = asdict(build(repo, root, settings, on_progress=report))
    except CodeIntelError as error:
        if not (watch and _is_registered(Source(repo, root), settings.paths.data_dir)):
            raise
        render.err.print(str(error))
    else:
        _print(summary, as_json=as_json)
    if watch:
        follow((repo,), settings)


def _is_registered(source: Source, data_dir: Path) -> bool:
    return source.name in repositories(data_dir) and source_of(repository_directory(data_dir, source.name)) == source


def _print(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())
