"""The corpus of `tests/corpus`, indexed for real and opened as a server opens it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.indexing.build import build
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generation_reader import GenerationReader
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import BuildProgress, Chunk, Scope, SearchResult

CORPUS = Path(__file__).parent / "corpus"
REPOSITORIES = {"shop": "shop", "org/ledger": "org-ledger"}
LONG_MS = 60_000.0


@dataclass(frozen=True, slots=True)
class Place:
    """A data directory and the folder its work trees lie in. `provider` makes the vectors; "none": no vectors."""

    data_dir: Path
    trees: Path
    provider: str = "none"

    @property
    def settings(self) -> Settings:
        """Deadlines no slow machine misses, and chunks as they were when the golden answers were reviewed."""
        return Settings.model_validate(
            {
                "paths": {"data_dir": self.data_dir},
                "chunking": {"workers": 1, "max_tokens": 256},
                "embedding": {"provider": self.provider},
                "retrieval": {"channel_deadline_ms": int(LONG_MS)},
            }
        )

    def tree(self, repo: str) -> Path:
        return self.trees / repo.replace("/", "-")

    def write(self, repo: str, path: str, text: str) -> None:
        file = self.tree(repo) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def index(self, repo: str, told: Callable[[BuildProgress], None] = lambda _: None) -> str:
        """Index the repository and return the generation that is current then."""
        return build(repo, self.tree(repo), self.settings, on_progress=told).generation

    def directory(self, repo: str) -> Path:
        return repository_directory(self.data_dir, repo)

    def current(self, repo: str) -> Path:
        reader = GenerationReader(self.directory(repo))
        return reader.path_of(reader.current_id() or "")

    @contextmanager
    def opened(self, encoder: DenseEncoder | None = None) -> Iterator[Shards]:
        shards = Shards(self.data_dir, encoder, self.settings)
        shards.refresh()
        try:
            yield shards
        finally:
            shards.close()


def new_place(folder: Path, models: Path | None = None) -> Place:
    """Return an empty place below `folder`; with the run's shared `models` it makes vectors."""
    place = Place(folder / "data", folder / "trees", "minilm" if models else "none")
    place.data_dir.mkdir(parents=True)
    place.trees.mkdir()
    if models:
        models.mkdir(parents=True, exist_ok=True)
        (place.data_dir / "models").symlink_to(models)
    return place


def copied(place: Place, folder: Path) -> Place:
    """Return a place with its own copy of what `place` has published, and the same work trees."""
    shutil.copytree(place.data_dir, folder / "data", symlinks=True)
    return Place(folder / "data", place.trees, place.provider)


def plant(place: Place, *repos: str) -> Place:
    """Copy the corpus's work trees, with a file of secrets in each, into `place` and index them."""
    for repo in repos:
        shutil.copytree(CORPUS / REPOSITORIES[repo], place.tree(repo))
        place.write(repo, ".env", "PAYMENT_TOKEN=hunter2\n")
        place.index(repo)
    return place


def ask(shards: Shards, query: str, *, limit: int = 50, **scope: tuple[str, ...]) -> SearchResult:
    return shards.search(query, Scope(**scope), limit, deadline_ms=LONG_MS)


def chunks_of(shards: Shards, *repos: str) -> list[Chunk]:
    """Return every chunk that is served, read from the catalogues."""
    with shards.lease(repos) as held:
        return [chunk for shard in held for chunk in _chunks(shard.catalog)]


def _chunks(catalog: Catalog) -> list[Chunk]:
    return catalog.hydrate(catalog.ids())[0]
