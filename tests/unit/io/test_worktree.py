"""Whether the lines shown still stand where they were indexed."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeintel_rev.io import worktree
from codeintel_rev.io.worktree import Worktree
from codeintel_rev.types import Freshness

TEXT = "one\ntwo\nthree\nfour\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


def freshness(root: Path, content: bytes | str, line: int = 2, text: str = "two\nthree") -> Freshness:
    (root / "a.py").write_bytes(content.encode() if isinstance(content, str) else content)
    return Worktree(root).freshness("a.py", line, text)


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.encode("utf-16"),
        "ONE\ntwo\nthree",
        TEXT + "five\n",
    ],
    ids=["same", "no last newline", "CRLF", "BOM", "UTF-16", "edited before", "edited behind"],
)
def test_lines_that_stand_there_are_fresh(root: Path, content: bytes | str) -> None:
    assert freshness(root, content) is Freshness.FRESH


@pytest.mark.parametrize(
    "content",
    ["", "\n" + TEXT, "one\ntwo\nTHREE\n", "one\ntwo", "one\ntwo\n \nthree\n", b"one\0two\0", b"\xff\xfe\x00"],
    ids=["emptied", "moved", "changed", "cut", "inserted", "binary", "cut UTF-16"],
)
def test_lines_that_do_not_are_edited(root: Path, content: bytes | str) -> None:
    assert freshness(root, content) is Freshness.EDITED


def test_a_line_behind_the_end_is_edited(root: Path) -> None:
    assert freshness(root, TEXT, line=5, text="five") is Freshness.EDITED


def test_a_file_that_grew_beyond_reading_is_edited(root: Path) -> None:
    assert freshness(root, b"x" * (worktree.MAX_BYTES + 1)) is Freshness.EDITED


@pytest.mark.parametrize("path", ["gone.py", "folder", "../secret", "/etc/hostname", "link.py", "a\0b", "", "\ud800"])
def test_what_is_no_file_of_the_tree_is_missing(root: Path, path: str) -> None:
    """S14: a link or a path that leads out of the tree is as good as gone; what it leads to is not compared."""
    (root.parent / "secret").write_text(TEXT)
    (root / "folder").mkdir()
    (root / "link.py").symlink_to(root.parent / "secret")
    assert Worktree(root).freshness(path, 2, "two") is Freshness.MISSING


def test_without_a_tree_nothing_can_be_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "file" / "below"):
        assert Worktree(root).freshness("a.py", 1, "one") is Freshness.UNKNOWN


def test_the_lines_that_stand_there_now_are_read(root: Path) -> None:
    (root / "a.py").write_text(TEXT)
    assert Worktree(root).lines("a.py") == ("one", "two", "three", "four")


def test_a_file_that_is_gone_has_no_lines_and_a_tree_that_is_gone_tells_nothing(root: Path) -> None:
    (root / "a.bin").write_bytes(b"\0\1")
    assert Worktree(root).lines("b.py") == Worktree(root).lines("../a.py") == Worktree(root).lines("a.bin") == ()
    assert Worktree(root / "gone").lines("a.py") is None
