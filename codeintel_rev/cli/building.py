"""`codeintel index`, `indexctl build, update`: build and publish a repository's index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.indexing.build import build
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.observability.logs import configure_logs


def index(path: Path, name: str, *, as_json: bool) -> None:
    """Build the index of the repository at `path` and say what came of it."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    root = repository_root(path)
    _build(name or default_name(root), root, settings, as_json=as_json)


def update(repo: str, *, as_json: bool) -> None:
    """Bring the index of `repo` up to date with the folder it was made from, and say what came of it."""
    settings = load_settings()
    root = source_of(repository_directory(settings.paths.data_dir, repo)).root
    _build(repo, root, settings, as_json=as_json)


def _build(repo: str, root: Path, settings: Settings, *, as_json: bool) -> None:
    configure_logs(settings.observability)
    with render.progress() as report:
        summary = asdict(build(repo, root, settings, on_progress=report))
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())
