"""`codeintel index`: build and publish a repository's index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.config.settings import load_settings
from codeintel_rev.indexing.build import build
from codeintel_rev.io.git import fetch_clone, is_url
from codeintel_rev.io.registry import clone_directory
from codeintel_rev.observability.logs import configure_logs


def index(source: str, name: str, *, as_json: bool) -> None:
    """Build the index of the repository at `source`, a folder or a URL, and say what came of it."""
    settings = load_settings()
    configure_logs(settings.observability)
    check_data_dir(settings.paths.data_dir)
    name = name or default_name(source)
    if is_url(source):
        root = clone_directory(settings.paths.data_dir, name)
        fetch_clone(source, root)
    else:
        root = repository_root(Path(source))
    with render.progress() as report:
        summary = asdict(build(name, root, settings, on_progress=report))
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())
