"""What else is known of the files that were found: their lines and definitions, as indexed and as they stand now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from codeintel_rev.errors import IndexUnavailable, NotFound
from codeintel_rev.navigation.opened import Place, Places, indexed_lines
from codeintel_rev.types import Definition, Revision


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file of one generation: every line as it was indexed, and what is defined in it, in file order."""

    revision: Revision
    lines: tuple[str, ...]
    definitions: tuple[Definition, ...]


Facts = Mapping[tuple[str, str], FileFacts]
"""By (repository, path)."""


class Library(Protocol):
    """Reads what is published. Safe to call from many threads at once."""

    def facts(self, files: Iterable[tuple[str, str]], generations: Mapping[str, str]) -> Facts:
        """Return what is known of `files`, without those of a repository that no longer serves that generation."""
        ...

    def standing(self, repo: str, path: str) -> tuple[str, ...] | None:
        """Return the lines of a file of the work tree, none when it is gone; None where nothing can be told."""
        ...

    def known_names(self, repos: Collection[str], names: Collection[str]) -> set[str]:
        """Return those of `names` that anything in `repos` is defined by."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedLibrary:
    """The library of the opened shards. A repository that went away meanwhile is one of which nothing is known."""

    places: Places

    def facts(self, files: Iterable[tuple[str, str]], generations: Mapping[str, str]) -> Facts:
        by_repo: dict[str, list[str]] = {}
        for repo, path in files:
            by_repo.setdefault(repo, []).append(path)
        found: dict[tuple[str, str], FileFacts] = {}
        for repo, paths in by_repo.items():
            try:
                with self.places.lease((repo,)) as (place,):
                    if place.generation.manifest.generation == generations.get(repo):
                        found.update(((repo, path), _facts(place, path)) for path in paths)
            except (NotFound, IndexUnavailable):
                continue
        return found

    def standing(self, repo: str, path: str) -> tuple[str, ...] | None:
        try:
            with self.places.lease((repo,)) as (place,):
                return place.worktree.lines(path)
        except (NotFound, IndexUnavailable):
            return None

    def known_names(self, repos: Collection[str], names: Collection[str]) -> set[str]:
        with self.places.lease(tuple(repos)) as places:
            return {name for place in places for name in place.catalog.known_names(names)}


def _facts(place: Place, path: str) -> FileFacts:
    lines, definitions = indexed_lines(place.catalog, path), place.catalog.symbols_of_file(path)
    return FileFacts(place.generation.manifest.revision, tuple(lines), tuple(definitions))
