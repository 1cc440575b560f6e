"""`indexctl` over a real generation store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from marked_generations import publish_marked

from codeintel_rev.cli import building, generations
from codeintel_rev.errors import IndexCorrupt, IndexUnavailable, NotFound
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import Source, register


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GenerationStore:
    """The shard `org/shop`, registered below the data folder of the settings, with nothing published."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(tmp_path / "data"))
    return GenerationStore(register(tmp_path / "data", Source("org/shop", tmp_path)))


def told(capsys: pytest.CaptureFixture[str]) -> object:
    return json.loads(capsys.readouterr().out)


def test_generations_are_listed_newest_first(store: GenerationStore, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = publish_marked(store, "1").generation, publish_marked(store, "2").generation
    generations.ls("org/shop", as_json=True)
    rows = told(capsys)
    assert [(row["generation"], row["current"]) for row in rows] == [(second, "*"), (first, "")]  # type: ignore[attr-defined]


def test_a_listing_is_readable(store: GenerationStore, capsys: pytest.CaptureFixture[str]) -> None:
    generation = publish_marked(store, "1").generation
    generations.ls("org/shop", as_json=False)
    assert generation in capsys.readouterr().out


def test_a_good_generation_verifies(store: GenerationStore, capsys: pytest.CaptureFixture[str]) -> None:
    generation = publish_marked(store, "1").generation
    generations.verify("org/shop", "", as_json=True)
    assert told(capsys) == {"generation": generation, "problems": []}


def test_a_flipped_byte_fails_verification(store: GenerationStore) -> None:
    """F13: an exit code an operator's script can see."""
    generation = publish_marked(store, "1").generation
    damaged = store.directory / "generations" / generation / "catalog.duckdb"
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    with pytest.raises(IndexCorrupt, match=r"catalog\.duckdb"):
        generations.verify("org/shop", "", as_json=True)


def test_going_back_makes_the_generation_before_current(
    store: GenerationStore, capsys: pytest.CaptureFixture[str]
) -> None:
    first = publish_marked(store, "1").generation
    publish_marked(store, "2")
    generations.rollback("org/shop", "", as_json=True)
    assert told(capsys) == {"current": first}
    assert store.current_id() == first


def test_collecting_names_what_it_removed(store: GenerationStore, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = [publish_marked(store, str(marker)).generation for marker in range(4)]
    generations.gc("org/shop", 3, as_json=True)
    assert told(capsys) == {"removed": [first]}


def test_nothing_published_is_nothing_to_verify(store: GenerationStore) -> None:
    with pytest.raises(IndexUnavailable):
        generations.verify("org/shop", "", as_json=True)


def test_an_unknown_repository_is_not_found(store: GenerationStore) -> None:
    with pytest.raises(NotFound):
        generations.ls("org/other", as_json=True)


def test_an_update_goes_on_from_the_folder_it_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CODEINTEL_EMBEDDING__PROVIDER", "none")
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(tmp_path / "data"))
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "cart.md").write_text("# Cart\n")
    building.index(str(tree), "org/shop", as_json=True)
    first = told(capsys)
    (tree / "money.md").write_text("# Money\n")
    building.update("org/shop", as_json=True)
    second = told(capsys)
    assert [one["counts"]["files"] for one in (first, second)] == [1, 2]  # type: ignore[index]


def test_an_update_of_an_unknown_repository_is_not_found(store: GenerationStore) -> None:
    with pytest.raises(NotFound):
        building.update("unknown", as_json=True)
