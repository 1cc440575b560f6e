"""The interface between those who ask what stands at a place and whatever reads it: opened shards or a fake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from codeintel_rev.navigation.files import FileLines, PathPage
from codeintel_rev.navigation.text import TextMatch
from codeintel_rev.types import Scope


@dataclass(frozen=True, slots=True)
class FoundText:
    """Matching lines, each with its repository; `generations` names the generation of every repository asked."""

    matches: tuple[tuple[str, TextMatch], ...]
    next_cursor: str | None
    generations: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReadLines:
    """Lines of a file that `generation` indexes."""

    lines: FileLines
    generation: str


@dataclass(frozen=True, slots=True)
class ListedPaths:
    """Paths that `generation` indexes; `next_cursor` is None on the last page."""

    page: PathPage
    next_cursor: str | None
    generation: str


class Navigator(Protocol):
    """Reads published generations exactly, without ranking. Safe to call from many threads at once.

    Every method raises NotFound for a repository or file that is not served, and InvalidArgument for a `cursor` it
    did not make; GenerationGone when a cursor's generation is no longer served. An empty cursor is the beginning.
    """

    def search_text(
        self,
        pattern: str,
        *,
        regex: bool,
        case_sensitive: bool,
        scope: Scope,
        limit: int,
        context_lines: int,
        cursor: str,
    ) -> FoundText:
        """Return at most `limit` matching lines in repository, path and line order. Raises QueryTooComplex."""
        ...

    def open_file(self, repo: str, path: str, start_line: int, end_line: int | None) -> ReadLines:
        """Return the lines asked for, cut to those that exist and to the configured most; `end_line` None is the last.

        Raises InvalidArgument for a range that holds no line.
        """
        ...

    def list_paths(self, repo: str, under: str, scope: Scope, limit: int, cursor: str) -> ListedPaths:
        """Return at most `limit` indexed paths below the folder `under` ("" for all), in order."""
        ...
