"""The lines that hold a text or match a regular expression: exact, in order, in time linear in what is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Literal

import re2

from codeintel_rev.errors import InvalidArgument, QueryTooComplex

MAX_PATTERN_CHARS = 1000

Row = tuple[str, int, str]
"""Path, number of the first line, lines joined by `\\n`."""

# Of a compiled pattern. RE2 takes quadratic time over counted repetitions of what may be empty: 30 `a{0,1000}` compile
# in 1.3 s within its default of 8 MiB; here the worst pattern found takes 30 ms.
_MEMORY = 128 * 1024
# Where a pattern says "text" or takes line anchors away, a chunk's ends are not a line's.
_TEXT_ANCHOR = re.compile(r"\\[Az]|\(\?\w*-\w*m")


@dataclass(frozen=True, slots=True)
class TextQuery:
    """What to look for within one line: a literal, or a regular expression in RE2's syntax.

    Raises InvalidArgument for a pattern that is empty, malformed or spans lines, QueryTooComplex for one that is longer
    than MAX_PATTERN_CHARS or too large when compiled.
    """

    pattern: str
    regex: bool = False
    case_sensitive: bool = False

    def __post_init__(self) -> None:
        if not self.pattern:
            raise InvalidArgument("the pattern is empty.", "Give the text to look for.")
        if len(self.pattern) > MAX_PATTERN_CHARS:
            raise QueryTooComplex(f"the pattern has {len(self.pattern)} characters.", f"At most {MAX_PATTERN_CHARS}.")
        if "\n" in self.pattern:
            raise InvalidArgument("the pattern spans lines.", "Look for one of its lines.")
        _compile(self)


@dataclass(frozen=True, slots=True)
class TextMatch:
    """One matching line; `column` is where its first match starts, 1-based, in characters.

    `before` and `after` are the lines next to it, none missing between.
    """

    path: str
    line: int
    column: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TextPage:
    """Matches in path, line order. `next_after` is the (path, line) to go on after, None when there are no more."""

    matches: tuple[TextMatch, ...]
    next_after: tuple[str, int] | None


def find_lines(rows: Iterable[Row], query: TextQuery, limit: int, after: tuple[str, int] | None) -> TextPage:
    """Return the first `limit` matching lines behind line `after`, each once although rows may overlap.

    REQUIRES: rows of one path come together and paths ascend. Only as many rows are read as the page needs. Raises
    InvalidArgument for a limit below 1.
    """
    if limit < 1:
        raise InvalidArgument(f"limit {limit} is below 1.")
    found = list(islice(_matches(rows, query, after or ("", 0)), limit + 1))
    page = tuple(found[:limit])
    return TextPage(page, (page[-1].path, page[-1].line) if len(found) > limit else None)


def with_context(match: TextMatch, lines: Sequence[str], context: int) -> TextMatch:
    """Return `match` with up to `context` lines on either side; `lines` are all lines of its file."""
    at = match.line - 1
    return replace(match, before=tuple(lines[max(0, at - context) : at]), after=tuple(lines[at + 1 : at + 1 + context]))


def prefilter(query: TextQuery) -> tuple[Literal["contains", "regexp_matches"], str]:
    """Return the SQL function and pattern that hold for every row with a matching line, and perhaps for more rows."""
    if query.case_sensitive and not query.regex:
        return "contains", query.pattern
    flags = "(?m)" if query.case_sensitive else "(?im)"
    if not query.regex:
        return "regexp_matches", flags + re2.escape(query.pattern)
    return "regexp_matches", "" if _TEXT_ANCHOR.search(query.pattern) else flags + query.pattern


def _compile(query: TextQuery) -> Any:
    options = re2.Options()
    options.case_sensitive = query.case_sensitive
    options.literal = not query.regex
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(query.pattern, options)
    except UnicodeEncodeError as error:
        raise InvalidArgument("the pattern is no valid Unicode.") from error
    except re2.error as error:
        raise _refusal(query.pattern, error.args[0].decode(errors="replace")) from error


def _refusal(pattern: str, said: str) -> InvalidArgument:
    """Return the error for what RE2 said, which is a reason, mostly followed by the part of the pattern it means."""
    reason, _, part = said.partition(": ")
    if "too large" in reason or "repetition size" in reason or "nesting" in reason:
        return QueryTooComplex(f"the pattern is too complex: {said}.", "Repeat or nest less.")
    where = f" at character {pattern.find(part) + 1}, {part!r}" if part else ""
    return InvalidArgument(f"malformed pattern{where}: {reason}.", "Write RE2 syntax, or look for a literal.")


def _matches(rows: Iterable[Row], query: TextQuery, after: tuple[str, int]) -> Iterator[TextMatch]:
    expression = _compile(query)
    for path, group in groupby(rows, key=itemgetter(0)):
        if path < after[0]:
            continue
        lines = dict(line for _, start, text in group for line in enumerate(text.split("\n"), start))
        for number in sorted(lines):
            if (path, number) > after and (match := expression.search(lines[number])):
                yield TextMatch(path, number, match.start() + 1, lines[number])
