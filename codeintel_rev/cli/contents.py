"""`indexctl coverage, files, export-idmap`: what a repository's current generation holds, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.io.dual_index import DualIndex, export_idmap
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.registry import repository_directory, source_of
from codeintel_rev.mcp_server.envelope import limit

COVERAGE = ("module", "language", "chunks", "vectors")
FILES = ("path", "language", "role", "size", "chunks", "reason")


def coverage(repo: str, *, as_json: bool) -> None:
    """Print how many chunks of each module and language have a vector."""
    with current_catalog(load_settings(), repo) as catalog:
        rows = [asdict(row) for row in catalog.coverage()]
    _print(COVERAGE, rows, as_json=as_json)


def files(repo: str, *, skipped: bool, as_json: bool) -> None:
    """Print the files that were indexed, or those that were `skipped`, with the reasons."""
    with current_catalog(load_settings(), repo) as catalog:
        rows = [asdict(row) for row in (catalog.skipped() if skipped else catalog.paths())]
    _print(FILES, rows, as_json=as_json)


def export(repo: str, out: Path, *, as_json: bool) -> None:
    """Write which chunk each vector is of, as the FAISS index has it, to `out` and print how many there are (B04)."""
    with current_generation(load_settings(), repo) as generation:
        identity, model = generation.manifest.generation, generation.manifest.model
        if model is None or not generation.manifest.counts["vectors"]:
            raise IndexUnavailable(f"generation {identity} of {repo} has no vectors.", "Index with an encoder.")
        count = export_idmap(DualIndex.open(generation.path, model.dim), out)
    _print(("generation", "vectors"), [{"generation": identity, "vectors": count}], as_json=as_json)


@contextmanager
def current_generation(settings: Settings, repo: str) -> Iterator[Generation]:
    """Hold the generation of `repo` that would be served, having told what it is served without."""
    directory = repository_directory(settings.paths.data_dir, repo)
    source_of(directory)
    with GenerationReader(directory).open_current() as generation:
        render.print_limits(map(limit, generation.limits))
        yield generation


@contextmanager
def current_catalog(settings: Settings, repo: str) -> Iterator[Catalog]:
    """Hold the catalogue of that generation."""
    with current_generation(settings, repo) as current, closing(Catalog.open(current.path, settings.duckdb)) as catalog:
        yield catalog


def _print(columns: tuple[str, ...], rows: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        render.print_json(rows)
    else:
        render.print_table(columns, ([row[column] for column in columns] for row in rows))
