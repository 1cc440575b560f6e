"""`codeintel up, serve`: serve the indexed repositories until told to stop."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from codeintel_rev.app.serve import serve as serve_http
from codeintel_rev.cli import render
from codeintel_rev.cli.beside import running
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.config.settings import load_settings


def up(path: Path, name: str) -> None:
    """Build in a child process and serve meanwhile; the child then follows the tree, and ends with the server."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    root = repository_root(path)
    render.err.print(render.how_to_connect(settings))
    with running("index", str(root), "--name", name or default_name(str(root)), "--watch"):
        code = serve_http(settings)
    raise typer.Exit(code)


def serve(*, watch: bool) -> None:
    """Serve over MCP and HTTP; with `watch`, a child process follows every tree."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    render.err.print(render.how_to_connect(settings))
    with running("watch") if watch else nullcontext():
        code = serve_http(settings)
    raise typer.Exit(code)
