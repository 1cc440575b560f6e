"""An indexed file opens at exact lines and says whether it changed; paths are listed page by page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.navigation.files import FileLines, FolderCount, PathPage, list_paths, open_file
from codeintel_rev.types import Freshness

CONTENT = b"one\r\ntwo\r\nthree\r\nfour\r\nfive\r\n"


@dataclass(frozen=True)
class Record:
    path: str
    sha256: str


@pytest.fixture
def record(tmp_path: Path) -> Record:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.txt").write_bytes(CONTENT)
    return Record("src/a.txt", hashlib.sha256(CONTENT).hexdigest())


def test_the_lines_asked_for_are_returned(tmp_path: Path, record: Record) -> None:
    assert open_file(tmp_path, record, 2, 3, 100) == FileLines(
        path="src/a.txt",
        start_line=2,
        end_line=3,
        total_lines=5,
        freshness=Freshness.FRESH,
        truncated=False,
        text="two\nthree",
    )


def test_a_range_beyond_the_end_is_clamped(tmp_path: Path, record: Record) -> None:
    opened = open_file(tmp_path, record, 4, 99, 100)
    assert (opened.end_line, opened.text, opened.truncated) == (5, "four\nfive", False)


def test_no_end_is_the_last_line(tmp_path: Path, record: Record) -> None:
    assert open_file(tmp_path, record, 5, None, 100).text == "five"


@pytest.mark.parametrize(("max_lines", "truncated"), [(4, True), (5, False), (6, False)])
def test_more_lines_than_allowed_are_cut_and_said_so(
    tmp_path: Path, record: Record, max_lines: int, truncated: bool
) -> None:
    """S18."""
    opened = open_file(tmp_path, record, 1, None, max_lines)
    assert (opened.end_line, opened.truncated) == (min(max_lines, 5), truncated)


@pytest.mark.parametrize(
    ("start", "end", "said"), [(3, 2, "no range"), (0, 2, "no range"), (-1, None, "no range"), (6, 6, "has 5 lines")]
)
def test_a_range_that_holds_no_line_is_refused(
    tmp_path: Path, record: Record, start: int, end: int | None, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        open_file(tmp_path, record, start, end, 100)


def test_an_edited_file_says_so_and_shows_what_stands_there_now(tmp_path: Path, record: Record) -> None:
    (tmp_path / "src" / "a.txt").write_text("new\n")
    opened = open_file(tmp_path, record, 1, None, 100)
    assert (opened.freshness, opened.text) == (Freshness.EDITED, "new")


def test_a_file_whose_newlines_changed_is_edited(tmp_path: Path, record: Record) -> None:
    (tmp_path / "src" / "a.txt").write_bytes(CONTENT.replace(b"\r\n", b"\n"))
    assert open_file(tmp_path, record, 1, None, 100).freshness is Freshness.EDITED


def test_a_missing_file_is_not_found(tmp_path: Path, record: Record) -> None:
    (tmp_path / "src" / "a.txt").unlink()
    with pytest.raises(NotFound):
        open_file(tmp_path, record, 1, None, 100)


def test_a_missing_file_is_shown_as_it_was_indexed(tmp_path: Path, record: Record) -> None:
    (tmp_path / "src" / "a.txt").unlink()
    opened = open_file(tmp_path, record, 2, 2, 100, indexed_lines=["one", "two"])
    assert (opened.freshness, opened.text, opened.total_lines) == (Freshness.MISSING, "two", 2)


def test_a_file_that_became_binary_is_not_shown(tmp_path: Path, record: Record) -> None:
    (tmp_path / "src" / "a.txt").write_bytes(b"\0\1\2")
    with pytest.raises(NotFound, match="no text any more"):
        open_file(tmp_path, record, 1, None, 100)


def test_a_path_that_became_a_link_is_not_found(tmp_path: Path, record: Record) -> None:
    """F37."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "src" / "a.txt").unlink()
    (tmp_path / "src" / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFound, match=r"no file 'src/a\.txt'"):
        open_file(tmp_path, record, 1, None, 100)


PATHS = [
    ("src/b/two.py", "python"),
    ("README.md", "markdown"),
    ("src/a.py", "python"),
    ("src/b/one.go", "go"),
    ("src/c/d/e.py", "python"),
    ("srcs/x.py", "python"),
]


def page(**asked: object) -> PathPage:
    defaults = {"under": "", "matcher": PathMatcher(()), "languages": (), "limit": 100, "after": ""}
    return list_paths(PATHS, **{**defaults, **asked})


def test_paths_come_in_order_with_the_folders_they_lie_in() -> None:
    assert page() == PathPage(
        paths=tuple(sorted(path for path, _ in PATHS)),
        folders=(FolderCount("src", 4), FolderCount("srcs", 1)),
        total=6,
        next_after=None,
    )


@pytest.mark.parametrize("under", ["src", "src/", "/src", "./src"])
def test_a_folder_is_listed_with_its_own_folders(under: str) -> None:
    listed = page(under=under)
    assert (listed.folders, listed.total) == ((FolderCount("src/b", 2), FolderCount("src/c", 1)), 4)


def test_globs_and_languages_narrow_the_list() -> None:
    assert page(matcher=PathMatcher(["src/", "!src/c/"]), languages=["python"]).paths == ("src/a.py", "src/b/two.py")


def test_pages_join_to_the_whole_list() -> None:
    joined: list[str] = []
    after: str | None = ""
    while after is not None:
        part = page(limit=2, after=after)
        joined.extend(part.paths)
        after = part.next_after
    assert joined == sorted(path for path, _ in PATHS)


def test_an_unknown_folder_is_an_empty_page() -> None:
    assert page(under="nowhere") == PathPage((), (), 0, None)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="limit 0"):
        page(limit=0)
