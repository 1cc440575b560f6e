"""The one gitignore-style matcher: query scopes, source allow and deny lists, and ignore files.

pathspec translates a glob and RE2 matches it: globs come from foreign files and from queries, and RE2 is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import re2
from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from codeintel_rev.errors import InvalidArgument, NotFound, QueryTooComplex
from codeintel_rev.io.confined import read_beneath

MAX_IGNORE_FILE_BYTES = 1024 * 1024
_LONGEST_SHOWN = 200

Decide = Callable[[str], bool | None]
Rule = tuple[str, bool]

_OPTIONS = re2.Options()
_OPTIONS.dot_nl = True  # a file name may hold a newline
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 16 * 1024 * 1024
_OPTIONS.never_capture = True

_POSIX_CLASS = re.compile(r"\[:(alnum|alpha|blank|digit|lower|punct|space|upper|xdigit):\]")
_POSIX_RANGES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": "!-.:-@[-`{-~",
    "space": " \t\n\v\f\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


class PathMatcher:
    """Globs over whole paths: the last one that matches decides, `!` negates.

    A glob that matches a folder matches all that lies in it and, unlike in an ignore file, a later glob may take part
    of that folder out again: `("*.py", "!tests/")` is every Python file outside of `tests`. No glob, or only negated
    ones, means everything (except those). Raises InvalidArgument for a malformed glob, QueryTooComplex for too many.
    """

    def __init__(self, globs: Iterable[str]) -> None:
        rules = [rule for glob in globs if (rule := _strict(glob))]
        self._decide = _decider(rules)
        self._otherwise = not any(included for _, included in rules)

    def matches(self, path: str) -> bool:
        decision = self._decide(path)
        return self._otherwise if decision is None else decision


@dataclass(frozen=True, slots=True)
class _Folder:
    """What ignore files say inside one folder: the excluded entry it lies in, and the rules in force, nearest first."""

    excluded: str | None
    rules: tuple[tuple[int, Decide], ...]

    def ignores(self, entry: str) -> bool:
        decisions = (decide(entry[start:]) for start, decide in self.rules)
        return next((decision for decision in decisions if decision is not None), False)


class IgnoreFiles:
    """The ignore files of one name in a folder tree, with git's precedence: nearest file first, its last match decides.

    An excluded folder is excluded with all its contents. Files are read when an entry of their folder is first asked
    about; a line git would discard is discarded.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name
        self._folders = {"": _Folder(None, self._rules(""))}

    def excluded(self, entry: str) -> str | None:
        """Return the topmost excluded entry that `entry` is or lies in, None when it is not excluded.

        `entry` is relative to the root; the trailing `/` of a folder tells it from a file, here and in the answer.
        """
        folder = self._folder(entry[: entry.rstrip("/").rfind("/") + 1])
        return folder.excluded or (entry if folder.ignores(entry) else None)

    def _folder(self, path: str) -> _Folder:
        if path in self._folders:
            return self._folders[path]
        folder = self._folders[""]
        for end in (match.end() for match in re.finditer("/", path)):
            inner = path[:end]
            folder = self._folders.get(inner) or self._enter(folder, inner)
        return folder

    def _enter(self, outer: _Folder, path: str) -> _Folder:
        excluded = outer.excluded or (path if outer.ignores(path) else None)
        rules = outer.rules if excluded else (*self._rules(path), *outer.rules)
        self._folders[path] = _Folder(excluded, rules)
        return self._folders[path]

    def _rules(self, folder: str) -> tuple[tuple[int, Decide], ...]:
        try:
            content = read_beneath(self._root, folder + self._name, MAX_IGNORE_FILE_BYTES)
        except NotFound:
            return ()
        lines = content.decode("utf-8-sig", errors="replace").split("\n")
        return ((len(folder), _decider(list(_entry_rules(lines)))),)


def _strict(glob: str) -> Rule | None:
    """Return the rule of a glob somebody typed, None for an empty one or a comment."""
    malformed = InvalidArgument(f"malformed glob {glob[:_LONGEST_SHOWN]!r}.", "Globs are written as in .gitignore.")
    try:
        rule = _translate(glob)
        if rule:
            re2.compile(rule[0], _OPTIONS)
    except (GitIgnorePatternError, re2.error, UnicodeEncodeError) as error:
        raise malformed from error
    if rule is None and "[" in glob and not glob.startswith("#"):
        raise malformed  # an open bracket: dropped as in an ignore file, it would widen the scope to everything
    return rule


def _entry_rules(lines: Iterable[str]) -> Iterator[Rule]:
    """Yield the rules of an ignore file, each matching an entry itself and not what lies in it.

    Git decides folder by folder from the top; pathspec's expressions also match everything beneath a match, which is
    right for one path but gets `*`, `!*/`, `!*.py` wrong. The tail that makes them do so is replaced.
    """
    for line in lines:
        try:
            rule = _translate(line)
            if rule:
                entry = _entry_expression(line, rule[0])
                re2.compile(entry, _OPTIONS)
                yield entry, rule[1]
        except (GitIgnorePatternError, re2.error):
            continue


def _entry_expression(line: str, regex: str) -> str:
    if line.rstrip().endswith("/**/") and line.strip("!/* "):  # folders beneath, not the folder itself
        return regex.removesuffix("(?P<ps_d>/)") + "/.+/$"
    for tail, replacement in (("(?:(?P<ps_d>/)|$)", "/?$"), ("(?P<ps_d>/)", "/$"), ("/", "/.")):
        if regex.endswith(tail):
            return regex.removesuffix(tail) + replacement
    return regex


def _translate(glob: str) -> Rule | None:
    ranged = _POSIX_CLASS.sub(lambda match: _POSIX_RANGES[match[1]], glob)
    regex, included = GitIgnoreSpecPattern.pattern_to_regex(ranged)
    return None if regex is None or included is None else (regex, included)


def _decider(rules: list[Rule]) -> Decide:
    """Return the function that tells what the last of `rules` that matches a path says, None when none does."""
    if not rules:
        return lambda _: None
    expressions = re2.Set.SearchSet(_OPTIONS)
    for regex, _ in rules:
        expressions.Add(regex)
    try:
        expressions.Compile()
    except re2.error as error:
        raise QueryTooComplex(f"{len(rules)} globs are too many to match at once.", "Use fewer globs.") from error

    def decide(path: str) -> bool | None:
        matched = expressions.Match(path)
        return rules[max(matched)][1] if matched else None

    return decide
