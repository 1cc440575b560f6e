"""The navigator over opened shards: exact reads of what is published, checked against the work tree beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.navigation.cursor import Cursor, check_served, decode, digest, encode
from codeintel_rev.navigation.files import list_paths, open_file
from codeintel_rev.navigation.navigator import FoundText, ListedPaths, ReadLines
from codeintel_rev.navigation.text import Row, TextMatch, TextQuery, find_lines, prefilter, with_context
from codeintel_rev.types import Scope, Selection

_ROWS_A_FETCH = 256


class Place(Protocol):
    """One repository's opened generation."""

    @property
    def repo(self) -> str: ...
    @property
    def generation(self) -> Generation: ...
    @property
    def catalog(self) -> Catalog: ...
    @property
    def worktree(self) -> Worktree: ...


class Places(Protocol):
    def lease(self, repos: Sequence[str]) -> AbstractContextManager[Sequence[Place]]:
        """Hold the places of `repos` (empty: all), by name. Raises NotFound, IndexUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedNavigator:
    """`max_lines` bounds one `open_file`, `deadline_s` the SQL of one text search in one repository."""

    places: Places
    max_lines: int
    deadline_s: float

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
        query = TextQuery(pattern, regex, case_sensitive)
        question = digest(pattern, regex, case_sensitive, scope.repos, scope.paths, scope.languages, scope.kinds)
        with self.places.lease(scope.repos) as places:
            generations = _generations(places)
            start = _started(cursor, question, generations)
            matches: list[tuple[str, TextMatch]] = []
            for place in places:
                if place.repo < start.repo:
                    continue
                after = (start.path, start.line) if place.repo == start.repo else ("", 0)
                rows = self._rows(place, query, place.catalog.select(scope), after)
                page = find_lines(rows, query, limit - len(matches), after)
                matches += [(place.repo, match) for match in _in_context(page.matches, place.catalog, context_lines)]
                if len(matches) == limit:
                    more = page.next_after is not None or place is not places[-1]
                    return FoundText(tuple(matches), _next(matches[-1], question, generations, more), generations)
        return FoundText(tuple(matches), None, generations)

    def open_file(self, repo: str, path: str, start_line: int, end_line: int | None) -> ReadLines:
        with self.places.lease((repo,)) as (place,):
            file = place.catalog.file(path)
            if file is None or file.status != "indexed":
                raise NotFound(f"no file {path!r}.", "list_paths names the files there are.")
            lines = open_file(
                place.worktree.root,
                file,
                start_line,
                end_line,
                self.max_lines,
                indexed_lines=indexed_lines(place.catalog, path),
            )
            return ReadLines(lines, place.generation.manifest.generation)

    def list_paths(self, repo: str, under: str, scope: Scope, limit: int, cursor: str) -> ListedPaths:
        question = digest("paths", repo, under, scope.paths, scope.languages)
        with self.places.lease((repo,)) as places:
            generations = _generations(places)
            page = list_paths(
                ((file.path, file.language) for file in places[0].catalog.paths()),
                under=under,
                matcher=PathMatcher(scope.paths),
                languages=scope.languages,
                limit=limit,
                after=_started(cursor, question, generations).path,
            )
            after = page.next_after
            following = None if after is None else encode(Cursor(_mark(repo, after, 0), question, generations))
            return ListedPaths(page, following, generations[repo])

    def _rows(
        self, place: Place, query: TextQuery, selection: Selection | None, after: tuple[str, int]
    ) -> Iterator[Row]:
        """Yield the chunks that may match, in path order."""
        function, pattern = prefilter(query)
        while True:
            found = place.catalog.chunk_text_rows(
                pattern,
                regex=function == "regexp_matches",
                selection=selection,
                after=after,
                limit=_ROWS_A_FETCH,
                deadline_s=self.deadline_s,
            )
            yield from ((row.path, row.start_line, row.text) for row in found)
            if len(found) < _ROWS_A_FETCH:
                return
            after = (found[-1].path, found[-1].end_line)


@dataclass(frozen=True, slots=True)
class _Start:
    repo: str = ""
    path: str = ""
    line: int = 0


def _generations(places: Sequence[Place]) -> dict[str, str]:
    return {place.repo: place.generation.manifest.generation for place in places}


def _started(cursor: str, question: str, generations: dict[str, str]) -> _Start:
    if not cursor:
        return _Start()
    found = decode(cursor, question=question)
    check_served(found, generations)
    try:
        repo, path, line = json.loads(found.position)
        return _Start(str(repo), str(path), int(line))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidArgument("cursor was not made by this server.", "Ask again without a cursor.") from error


def _next(last: tuple[str, TextMatch], question: str, generations: dict[str, str], more: bool) -> str | None:
    repo, match = last
    return encode(Cursor(_mark(repo, match.path, match.line), question, generations)) if more else None


def _mark(repo: str, path: str, line: int) -> str:
    return json.dumps([repo, path, line])


def _in_context(matches: Sequence[TextMatch], catalog: Catalog, context_lines: int) -> list[TextMatch]:
    if not context_lines:
        return list(matches)
    files = {path: indexed_lines(catalog, path) for path in dict.fromkeys(match.path for match in matches)}
    return [with_context(match, files[match.path], context_lines) for match in matches]


def indexed_lines(catalog: Catalog, path: str) -> list[str]:
    """Return a file's lines as they were indexed: every line that is not blank lies in a chunk."""
    file = catalog.file(path)
    lines = [""] * (file.lines if file else 0)
    for chunk in catalog.chunks_of_file(path):
        lines[chunk.start_line - 1 : chunk.end_line] = chunk.text.split("\n")
    return lines
