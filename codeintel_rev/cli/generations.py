"""`indexctl ls, verify, gc, rollback, compact, add-incremental`: what lies on disk, without a server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.indexing.chunk_import import import_chunks
from codeintel_rev.indexing.compaction import compact as publish
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.registry import repository_directory, source_of


def ls(repo: str, *, as_json: bool) -> None:
    """Print a repository's generations, newest first; `*` marks the current one."""
    store = _store(load_settings(), repo)
    current = store.current_id()
    rows = [_row(manifest, current) for manifest in store.ls()]
    if as_json:
        render.print_json(rows)
    else:
        render.print_table(tuple(rows[0]) if rows else ("generation",), (tuple(row.values()) for row in rows))


def verify(repo: str, generation: str, *, as_json: bool) -> None:
    """Raise the first problem of the generation when it has any."""
    store = _store(load_settings(), repo)
    chosen = generation or store.published_id()
    problems = store.verify(chosen)
    _say({"generation": chosen, "problems": [problem.detail for problem in problems]}, as_json=as_json)
    for problem in problems:
        raise problem


def gc(repo: str, keep: int | None, *, as_json: bool) -> None:
    """Print the generations removed."""
    settings = load_settings()
    removed = _store(settings, repo).gc(keep or settings.index.keep_generations)
    _say({"removed": removed}, as_json=as_json)


def rollback(repo: str, generation: str, *, as_json: bool) -> None:
    """Print the generation that is current now."""
    manifest = _store(load_settings(), repo).rollback(generation or None)
    _say({"current": manifest.generation}, as_json=as_json)


def compact(repo: str, *, as_json: bool) -> None:
    """Publish the compacted generation and say what came of it."""
    _say(asdict(publish(repo, load_settings())), as_json=as_json)


def add_incremental(repo: str, chunks: Path, *, as_json: bool) -> None:
    """Import chunks made elsewhere and say what came of them."""
    _say(asdict(import_chunks(repo, chunks, load_settings())), as_json=as_json)


def _store(settings: Settings, repo: str) -> GenerationStore:
    directory = repository_directory(settings.paths.data_dir, repo)
    source_of(directory)
    return GenerationStore(directory)


def _row(manifest: Manifest, current: str | None) -> dict[str, object]:
    return {
        "current": "*" if manifest.generation == current else "",
        "generation": manifest.generation,
        "created_at": manifest.created_at,
        "stage": manifest.stage,
        "commit": manifest.revision.commit[:12],
        "counts": manifest.counts,
    }


def _say(told: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        render.print_json(told)
    else:
        render.print_table(tuple(told), [tuple(told.values())])
