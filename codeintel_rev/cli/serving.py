"""`codeintel up, serve`: serve the indexed repositories until told to stop."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import typer

from codeintel_rev.app.serve import serve as serve_http
from codeintel_rev.cli import render
from codeintel_rev.cli.beside import running
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.config.settings import load_settings
from codeintel_rev.io.following import give_up
from codeintel_rev.io.registry import repositories, repository_directory


def up(path: Path, name: str) -> None:
    """Build in a child process and serve meanwhile; the child then follows the tree, and ends with the server."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    root, data_dir = repository_root(path), settings.paths.data_dir
    render.err.print(render.how_to_connect(settings))
    repo = name or default_name(str(root))
    with running("index", str(root), "--name", repo, "--watch", lost=lambda: _give_up(data_dir, [repo])):
        code = serve_http(settings)
    raise typer.Exit(code)


def serve(*, watch: bool) -> None:
    """Serve over MCP and HTTP; with `watch`, a child process follows every tree."""
    settings = load_settings()
    data_dir = settings.paths.data_dir
    check_data_dir(data_dir)
    render.err.print(render.how_to_connect(settings))
    with running("watch", lost=lambda: _give_up(data_dir, repositories(data_dir))) if watch else nullcontext():
        code = serve_http(settings)
    raise typer.Exit(code)


def _give_up(data_dir: Path, repos: Iterable[str]) -> None:
    for repo in repos:
        give_up(repository_directory(data_dir, repo))
