"""One matcher: globs over paths as a scope means them, and ignore files exactly as git reads them."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeintel_rev.errors import InvalidArgument, QueryTooComplex
from codeintel_rev.io.globs import IgnoreFiles, PathMatcher


@pytest.mark.parametrize(
    ("globs", "path", "expected"),
    [
        ((), "any/file", True),
        (("*.py",), "a/b.py", True),
        (("*.py",), "a/b.pyi", False),
        (("src/",), "src/a/b.c", True),
        (("src/",), "lib/src", False),
        (("/src",), "lib/src/x", False),
        (("src/*.c",), "src/a/b.c", False),
        (("src/**/*.c",), "src/a/b/c.c", True),
        (("**/api/*.go",), "x/y/api/z.go", True),
        (("!tests/",), "src/a.py", True),
        (("!tests/",), "src/tests/a.py", False),
        (("*.py", "!tests/"), "tests/a.py", False),
        (("*.py", "!tests/"), "src/a.py", True),
        (("*.py", "!tests/"), "src/a.go", False),
        (("!tests/", "*.py"), "tests/a.py", True),
        (("src/", "!src/gen/", "src/gen/keep.py"), "src/gen/keep.py", True),
        (("[[:digit:]]*.sql",), "db/01.sql", True),
        (("", "# comment"), "x", True),
        ((r"\!odd",), "!odd", True),
        (("*.py",), "new\nline/x.py", True),
    ],
)
def test_the_last_glob_that_matches_decides(globs: tuple[str, ...], path: str, expected: bool) -> None:
    assert PathMatcher(globs).matches(path) is expected


@pytest.mark.parametrize("glob", ["[z-a]", "!", "back\\", "\ud800", "[", "src/[a", "a[!"])
def test_a_malformed_glob_is_named(glob: str) -> None:
    with pytest.raises(InvalidArgument, match="malformed glob"):
        PathMatcher([glob])


def test_more_globs_than_can_be_matched_at_once_are_refused() -> None:
    """F38."""
    with pytest.raises(QueryTooComplex, match="too many"):
        PathMatcher([f"*a*{number}*b*{number}*c*" for number in range(10_000)])


@pytest.mark.timeout(10)
def test_a_glob_made_to_backtrack_is_matched_in_linear_time() -> None:
    """F38: the standard library's `re` would run for years."""
    assert not PathMatcher(["*a" * 30 + "b"]).matches("a" * 250)


NAMES = ["a", "b", "foo", "x.py", "y.txt", ".h"]
LINES = [
    *("*", "!*/", "!*.py", "*.py", "foo", "foo/", "!foo", "!foo/", "/foo", "a/*", "!a/b", "a/**", "**/b", "a/**/x.py"),
    *("/*", "!/a", "*/", "**/", "!**/", "b/*", "!b/x.py", "foo.*", "[a-b]", "[!a]", "[^a]", "[[:alpha:]]", "?", "# c"),
    *("", "  ", "foo ", " foo", "foo\\ ", "/a/b/foo", "**", "!**", "*/b", "*.t[x-z]t", ".*", "!.h", "b/**/", "/**/"),
    *("!foo/**/", "f*o", "[z-a]", "a\\", "\\a", "**/*.py", "/", "//", "!", "foo/**/b", "***", "a**", "[]a]", "a\r"),
]
ENTRIES = st.recursive(
    st.just({}), lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=25
)
RULES = st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=6), min_size=1, max_size=6)


def grow(folder: Path, entries: dict, rules: list[list[str]]) -> None:
    if rules:
        (folder / ".gitignore").write_text("\n".join(rules.pop()))
    for name, inner in entries.items():
        if inner:
            (folder / name).mkdir()
            grow(folder / name, inner, rules)
        else:
            (folder / name).write_text("")


def listed_by_git(root: Path) -> set[str]:
    listed = subprocess.run(
        ["git", "-c", "core.excludesFile=", "ls-files", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(filter(None, listed.stdout.split("\0")))


@settings(max_examples=40, deadline=None)
@given(entries=ENTRIES, rules=RULES)
def test_nested_ignore_files_mean_what_they_mean_to_git(entries: dict, rules: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
        grow(root, entries, list(rules))
        ignored = IgnoreFiles(root, ".gitignore")
        files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
        kept = {str(path) for path in files if path.parts[0] != ".git" and not ignored.excluded(str(path))}
        assert kept == listed_by_git(root)


def test_the_topmost_excluded_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / ".ignore").write_text("build/\n")
    assert IgnoreFiles(tmp_path, ".ignore").excluded("a/build/b/c.py") == "a/build/"


def test_a_very_deep_path_is_judged(tmp_path: Path) -> None:
    """S15: no recursion per folder."""
    (tmp_path / ".ignore").write_text("*.log\n")
    assert IgnoreFiles(tmp_path, ".ignore").excluded("d/" * 3000 + "x.log")


def test_a_symlinked_ignore_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("*\n")
    (tmp_path / ".ignore").symlink_to(tmp_path / "elsewhere")
    assert IgnoreFiles(tmp_path, ".ignore").excluded("x.py") is None
