"""Names of repositories become directories, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import IndexCorrupt, InvalidArgument, NotFound
from codeintel_rev.io.registry import (
    Source,
    published,
    register,
    repositories,
    repository_directory,
    repository_name,
    source_of,
)

PART = st.text("aZ09._-", min_size=1, max_size=12).filter(lambda part: part not in (".", ".."))


@given(st.lists(PART, min_size=1, max_size=4))
def test_a_name_is_read_back_from_its_directory(parts: list[str]) -> None:
    directory = repository_directory(Path("/data"), "/".join(parts))
    assert directory.parent == Path("/data/repos")
    assert repository_name(directory) == "/".join(parts)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../b",
        "a/./b",
        "/a",
        "a/",
        "a//b",
        "a@",
        "@a",
        "a@b@c",
        "a@../b",
        "..@a",
        "a b",
        "a\\b",
        "a\x00b",
        "a\n",
        "é",
        "%2e%2e",
        "~",
        "x" * 201,
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    """F37."""
    with pytest.raises(InvalidArgument, match="not valid"):
        repository_directory(Path("/data"), name)


def test_registered_repositories_are_listed_by_name(tmp_path: Path) -> None:
    assert repositories(tmp_path) == []
    for name in ("zeta", "owner/alpha"):
        register(tmp_path, Source(name, tmp_path / name))
    (tmp_path / "repos" / "not-one").mkdir()
    assert repositories(tmp_path) == ["owner/alpha", "zeta"]


def test_a_source_is_read_back_and_replaced(tmp_path: Path) -> None:
    register(tmp_path, Source("a", Path("/old")))
    directory = register(tmp_path, Source("a", Path("/new place/ü")))
    assert source_of(directory) == Source("a", Path("/new place/ü"))
    assert [path.name for path in directory.iterdir()] == ["source.json"]


def test_a_relative_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="not absolute"):
        register(tmp_path, Source("a", Path("work")))


def test_an_unknown_repository_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="owner/a is not indexed"):
        source_of(repository_directory(tmp_path, "owner/a"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "root": 1}', "\x00"])
def test_a_garbled_source_is_corrupt(tmp_path: Path, text: str) -> None:
    directory = register(tmp_path, Source("a", tmp_path))
    (directory / "source.json").write_text(text)
    with pytest.raises(IndexCorrupt, match=r"source\.json of a"):
        source_of(directory)


@pytest.mark.parametrize("name", ["shop (copy)", "a%2Db", "%", "%2E%2E"])
def test_a_folder_no_repository_can_have_is_none(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "repos" / name
    folder.mkdir(parents=True)
    (folder / "source.json").write_text("{}")
    assert repositories(tmp_path) == []


def test_a_publication_leaves_another_stamp(tmp_path: Path) -> None:
    shops = [register(tmp_path, Source(name, tmp_path)) for name in ("a/b", "c")]
    assert published(tmp_path) == {}
    for shop in shops:
        (shop / "CURRENT").write_text("one")
    before = published(tmp_path)
    (shops[0] / "CURRENT.tmp").write_text("two")
    (shops[0] / "CURRENT.tmp").replace(shops[0] / "CURRENT")
    after = published(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"a%2Fb"}
