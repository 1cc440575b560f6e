"""Builds and the space that is left: refused below one mark, begun again above another, and search does not care."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from indexed import Place, ask, new_place

from codeintel_rev.app.probes import check_absent
from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.errors import InsufficientStorage
from codeintel_rev.indexing.compaction import compact
from codeintel_rev.indexing.xtr_build import build_token_index
from codeintel_rev.io.disk_space import MARKER, STAGE, check_space, shortage

MARKS = IndexSettings(disk_low_mb=100, disk_resume_mb=150)
HaveFree = Callable[[float], None]


@pytest.fixture
def have_free(monkeypatch: pytest.MonkeyPatch) -> HaveFree:
    """What sets how many MiB every disk has free."""

    def have(mib: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(mib * 1024 * 1024)))

    return have


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place with one repository, "shop", indexed."""
    place = new_place(tmp_path)
    place.write("shop", "cart.py", "def add_to_cart(item):\n    return item\n")
    place.index("shop")
    return place


def may_begin(data_dir: Path) -> bool:
    try:
        check_space(data_dir, MARKS)
    except InsufficientStorage:
        return False
    return True


def test_between_the_marks_it_stays_what_it_was(tmp_path: Path, have_free: HaveFree) -> None:
    """F07: one block and one release, no flapping."""
    told = []
    for free in (101, 99.9, 101, 149, 99, 150, 149, 101):
        have_free(free)
        said = shortage(tmp_path, MARKS)
        told.append(may_begin(tmp_path))
        assert (said is None) is told[-1]
    assert told == [True, False, False, False, False, True, True, True]


def test_it_says_how_much_is_free_and_needed(tmp_path: Path, have_free: HaveFree) -> None:
    have_free(42.7)
    with pytest.raises(InsufficientStorage, match=r"42 MiB .* begin at 150 MiB\. Free space"):
        check_space(tmp_path, MARKS)


def test_asking_changes_nothing(tmp_path: Path, have_free: HaveFree) -> None:
    have_free(1)
    assert shortage(tmp_path, MARKS)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_for_the_marker_is_refused_all_the_same(
    tmp_path: Path, have_free: HaveFree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "touch", full)
    have_free(1)
    with pytest.raises(InsufficientStorage):
        check_space(tmp_path, MARKS)


def test_no_builder_begins_and_search_answers(place: Place, have_free: HaveFree) -> None:
    before = place.current("shop")
    place.write("shop", "cart.py", "def empty_the_cart():\n    return []\n")
    have_free(3)
    for begin in (
        lambda: place.index("shop"),
        lambda: compact("shop", place.settings),
        lambda: build_token_index("shop", place.settings, on_progress=lambda _: None),
    ):
        with pytest.raises(InsufficientStorage, match="3 MiB"):
            begin()
    with place.opened() as shards:
        found, status = ask(shards, "add_to_cart"), shards.status()
    assert (len(found.hits), found.limits) == (1, ())
    assert [(shard.state, shard.limits[0].code) for shard in status] == [("degraded", "disk-low")]
    assert not check_absent(status, STAGE).healthy
    assert place.current("shop") == before
    have_free(5000)
    place.index("shop")
    assert place.current("shop") != before
    assert not (place.data_dir / MARKER).exists()
    with place.opened() as shards:
        assert check_absent(shards.status(), STAGE).healthy


def test_the_marks_are_in_order() -> None:
    with pytest.raises(ValueError, match="disk_resume_mb must be at least disk_low_mb"):
        IndexSettings(disk_low_mb=2, disk_resume_mb=1)
