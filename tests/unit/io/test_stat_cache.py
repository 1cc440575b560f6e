"""A file is read once for each content it has, and never remembered when it may still change unseen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from codeintel_rev.io.stat_cache import STAT, Stamp, StatCache

LONG_AGO = Stamp(5, 1_000_000_000, 1_000_000_000, 77)


def asked(directory: Path, stamp: Stamp = LONG_AGO, content: str = "a" * 64) -> list[str]:
    """Ask for one file, save, and return what had to be read."""
    reads: list[str] = []

    def read(path: str) -> str:
        reads.append(path)
        return content

    cache = StatCache(directory)
    cache.digest("src/a.py", stamp, read)
    cache.save()
    return reads


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    assert (asked(tmp_path), asked(tmp_path)) == (["src/a.py"], [])
    assert StatCache(tmp_path).digest("src/a.py", LONG_AGO, lambda _: "never") == "a" * 64


@pytest.mark.parametrize("field", Stamp._fields)
def test_whatever_changes_in_the_stamp_the_file_is_read_again(tmp_path: Path, field: str) -> None:
    asked(tmp_path)
    assert asked(tmp_path, LONG_AGO._replace(**{field: 8})) == ["src/a.py"]


@pytest.mark.parametrize("field", ["mtime_ns", "ctime_ns"])
def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path: Path, field: str) -> None:
    """It can change again under the same size and times: git calls that racy."""
    (tmp_path / "a.py").touch()
    stamp = LONG_AGO._replace(**{field: (tmp_path / "a.py").stat().st_mtime_ns})
    assert (asked(tmp_path, stamp), asked(tmp_path, stamp)) == (["src/a.py"], ["src/a.py"])


def test_what_cannot_be_read_is_not_remembered(tmp_path: Path) -> None:
    assert (asked(tmp_path, content=""), asked(tmp_path)) == (["src/a.py"], ["src/a.py"])


def test_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    asked(tmp_path)
    StatCache(tmp_path).save()
    assert asked(tmp_path) == ["src/a.py"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"a" * 64, b"b" * 64),
        lambda data: data.replace(b'"format": 1', b'"format": 2'),
        lambda data: b"\xff" + data,
        lambda data: b"[]\n[]\n",
    ],
)
def test_a_damaged_memory_is_as_if_empty(tmp_path: Path, harm) -> None:
    asked(tmp_path)
    (tmp_path / STAT).write_bytes(harm((tmp_path / STAT).read_bytes()))
    assert (asked(tmp_path), asked(tmp_path)) == (["src/a.py"], [])


def test_odd_names_are_remembered(tmp_path: Path) -> None:
    names = ["größe.py", "a\nb.py", 'a"b', "漢字"]
    cache = StatCache(tmp_path)
    for name in names:
        cache.digest(name, LONG_AGO, lambda path: path)
    cache.save()
    again = StatCache(tmp_path)
    assert [again.digest(name, LONG_AGO, lambda _: "never") for name in names] == names


def test_a_folder_that_cannot_be_written_only_costs_reading_again(tmp_path: Path) -> None:
    assert asked(tmp_path / "missing") == ["src/a.py"]
    assert not (tmp_path / "missing").exists()


def test_a_stamp_tells_an_exchanged_file_with_the_same_size_and_time(tmp_path: Path) -> None:
    place, other = tmp_path / "a.py", tmp_path / "b.py"
    place.write_text("one")
    other.write_text("two")
    os.utime(other, ns=(0, place.stat().st_mtime_ns))
    before = Stamp.of(place.lstat())
    other.replace(place)
    after = Stamp.of(place.lstat())
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after != before
