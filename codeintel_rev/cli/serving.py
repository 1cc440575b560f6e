"""`codeintel up, serve`: serve the indexed repositories until told to stop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import typer

from codeintel_rev.app.serve import serve as serve_http
from codeintel_rev.cli import render
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.config.settings import load_settings


def up(path: Path, name: str) -> None:
    """Build in a child process and serve meanwhile; the child ends with the server."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    root = repository_root(path)
    index = (
        sys.executable,
        "-m",
        "codeintel_rev.cli.main",
        "index",
        str(root),
        "--name",
        name or default_name(str(root)),
    )
    render.err.print(render.how_to_connect(settings))
    with subprocess.Popen(index, stdout=subprocess.DEVNULL) as builder:
        try:
            code = serve_http(settings)
        finally:
            builder.terminate()
    raise typer.Exit(code)


def serve() -> None:
    """Serve over MCP and HTTP."""
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    render.err.print(render.how_to_connect(settings))
    raise typer.Exit(serve_http(settings))
