"""A small repository with a data folder of its own, built and asked for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codeintel_rev.app.context import Opened
from codeintel_rev.app.opening import open_index
from codeintel_rev.config.settings import DuckDBSettings, Settings
from codeintel_rev.indexing.build import BuildSummary, build
from codeintel_rev.io.catalog_rows import FileRow
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.lexical import LexicalIndex
from codeintel_rev.io.manifest import Manifest
from codeintel_rev.io.parquet_store import read_idmap
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.types import BuildProgress, Scope, SearchResult

SHOP = {
    "shop/cart.py": '"""The cart of a customer."""\n\n\ndef add_item(cart, item):\n'
    '    """Put an item into the cart."""\n'
    "    cart.append(item)\n    return cart\n",
    "shop/payment.py": '"""Payments."""\n\n\ndef charge_card(card, amount):\n    """Take money from a credit card."""\n'
    "    if amount <= 0:\n        raise ValueError(amount)\n    return card.debit(amount)\n",
    "shop/mail.go": "package shop\n\n// SendReceipt mails the customer a receipt.\n"
    "func SendReceipt(to string) error {\n\treturn smtp(to)\n}\n",
    "README.md": "# Shop\n\nSells things to people.\n",
}


@dataclass(frozen=True, slots=True)
class Project:
    """A repository called `demo` at `root`. `sections` are the settings of every build and search."""

    root: Path
    data_dir: Path
    sections: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def settings(self) -> Settings:
        own = {"paths": {"data_dir": self.data_dir}, "chunking": {"workers": 1}}
        names = own.keys() | self.sections.keys()
        return Settings(**{name: {**own.get(name, {}), **self.sections.get(name, {})} for name in names})  # type: ignore[arg-type]

    def having(self, **sections: Mapping[str, object]) -> Project:
        """Return the same project under other settings."""
        return Project(self.root, self.data_dir, sections)

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for path, content in files.items():
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)

    def build(self, told: Callable[[BuildProgress], object] = lambda _: None) -> BuildSummary:
        return build("demo", self.root, self.settings(), on_progress=told)

    @property
    def store(self) -> GenerationStore:
        return GenerationStore(repository_directory(self.data_dir, "demo"))

    @property
    def current(self) -> Manifest:
        return self.store.manifest(self.store.current_id() or "")

    @property
    def directory(self) -> Path:
        """Where the current generation lies."""
        return self.store.path_of(self.current.generation)

    @property
    def files(self) -> dict[str, FileRow]:
        with closing(Catalog.open(self.directory, DuckDBSettings())) as catalog:
            return {row.path: row for row in [*catalog.paths(), *catalog.skipped()]}

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        opened = open_index(self.settings())
        try:
            yield opened
        finally:
            opened.searcher.close()

    def search(self, query: str, limit: int = 5, **scope: tuple[str, ...]) -> SearchResult:
        with self.opened() as opened:
            return opened.searcher.search(query, Scope(**scope), limit, deadline_ms=60_000)


def new_project(folder: Path, models_dir: Path, files: Mapping[str, str | bytes] | None = None) -> Project:
    """Return a project below `folder` holding `files` (default: SHOP), with the run's shared models."""
    models_dir.mkdir(parents=True, exist_ok=True)
    project = Project(folder / "tree", folder / "data")
    project.root.mkdir(parents=True)
    project.data_dir.mkdir()
    (project.data_dir / "models").symlink_to(models_dir)
    project.write(SHOP if files is None else files)
    return project


def ids_by_store(directory: Path) -> dict[str, list[int]]:
    """Return the ascending chunk ids that each store of a complete generation holds."""
    catalog = Catalog.open(directory, DuckDBSettings())
    stores = {
        "chunks": catalog.ids().tolist(),
        "lexical": LexicalIndex.open(directory / "lexical").chunk_ids().tolist(),
        "vectors": StoredVectors.open(directory, 384).idmap()[1].tolist(),
        "faiss": DualIndex.open(directory, 384).search(np.ones(384), 10**9)[0].tolist(),
        "idmap": read_idmap(directory)[1].tolist(),
    }
    catalog.close()
    return {name: sorted(ids) for name, ids in stores.items()}
