"""`codeintel index`, `indexctl build, update`: build and publish a repository's index."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.cli.places import check_data_dir, default_name, repository_root
from codeintel_rev.cli.watching import follow
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.errors import CodeIntelError
from codeintel_rev.indexing.build import build
from codeintel_rev.io.git import commit_of, fetch_clone, is_url
from codeintel_rev.io.registry import Source, clone_directory, repositories, repository_directory, source_of
from codeintel_rev.observability.logs import configure_logs


def index(source: str, name: str, *, ref: str = "", as_json: bool, watch: bool = False) -> None:
    """Build the index of the repository at `source`, a folder or a URL, or of `ref` in it, and say what came of it.

    With `watch`, then follow the tree.
    """
    settings = load_settings()
    check_data_dir(settings.paths.data_dir)
    repo = (name or default_name(source)) + (f"@{ref}" if ref else "")
    configure_logs(settings.observability)
    root = _root(source, repo, ref, settings)
    try:
        _build(repo, root, settings, as_json=as_json)
    except CodeIntelError as error:
        if not (watch and _is_registered(Source(repo, root), settings.paths.data_dir)):
            raise
        render.err.print(str(error))
    if watch:
        follow((repo,), settings)


def update(repo: str, *, as_json: bool) -> None:
    """Bring the index of `repo` up to date with the folder it was made from, and say what came of it."""
    settings = load_settings()
    configure_logs(settings.observability)
    root = source_of(repository_directory(settings.paths.data_dir, repo)).root
    _build(repo, root, settings, as_json=as_json)


def _root(source: str, repo: str, ref: str, settings: Settings) -> Path:
    """Return the folder to index: a clone where `source` is a URL or a ref of it is asked for."""
    if is_url(source):
        return _fetched(source, repo, ref or "HEAD", settings)
    root = repository_root(Path(source))
    return _fetched(root.as_uri(), repo, commit_of(root, ref), settings) if ref else root


def _fetched(url: str, repo: str, ref: str, settings: Settings) -> Path:
    root = clone_directory(settings.paths.data_dir, repo)
    fetch_clone(url, root, ref)
    return root


def _is_registered(source: Source, data_dir: Path) -> bool:
    return source.name in repositories(data_dir) and source_of(repository_directory(data_dir, source.name)) == source


def _build(repo: str, root: Path, settings: Settings, *, as_json: bool) -> None:
    with render.progress() as report:
        summary = asdict(build(repo, root, settings, on_progress=report))
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())
