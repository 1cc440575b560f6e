"""`indexctl` verbs that tell what a generation holds, over a real index."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_command_line import run

from codeintel_rev.cli import contents
from codeintel_rev.errors import IndexUnavailable, NotFound, StorageFailed
from codeintel_rev.io.faiss_index import FaissIndex
from tests.indexed import Place, new_place


@pytest.fixture
def place(corpus: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The corpus, indexed with vectors, as the settings name it."""
    return chosen(corpus, tmp_path, monkeypatch)


@pytest.fixture
def wordy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A repository of two generations without vectors."""
    made = chosen(new_place(tmp_path), tmp_path, monkeypatch)
    for name in ("one", "two"):
        made.write("shop", f"{name}.py", f"def {name}():\n    return 1\n")
        made.index("shop")
    return made


def chosen(place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(place.data_dir))
    return place


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return json.loads(capsys.readouterr().out)


def test_coverage_counts_chunks_and_vectors_by_module_and_language(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    contents.coverage("shop", as_json=True)
    rows = told(capsys)
    assert {(row["module"], row["language"]) for row in rows} >= {("shop", "python")}
    assert all(row["chunks"] == row["vectors"] for row in rows)


def test_a_module_without_vectors_is_covered_by_none(wordy: Place, capsys: pytest.CaptureFixture[str]) -> None:
    contents.coverage("shop", as_json=False)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["python", "2", "0"]


def test_the_files_are_those_indexed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    contents.files("shop", skipped=False, as_json=True)
    paths = [row["path"] for row in told(capsys)]
    assert "shop/cart.py" in paths
    assert ".env" not in paths


def test_skipped_files_are_listed_with_their_reasons(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    contents.files("shop", skipped=True, as_json=False)
    _, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert [(row[0], row[-1]) for row in rows] == [(".env", "secret")]


def test_the_exported_map_is_the_index_own(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B04: exact map, count printed."""
    contents.export("shop", tmp_path / "map.parquet", as_json=True)
    ids = FaissIndex.open(place.current("shop"), 384).ids.tolist()
    table = pq.read_table(tmp_path / "map.parquet").to_pydict()
    assert table == {"faiss_id": list(range(len(ids))), "chunk_id": ids}
    assert told(capsys) == [{"generation": place.current("shop").name, "vectors": len(ids)}]


def test_without_vectors_there_is_no_map(wordy: Place, tmp_path: Path) -> None:
    with pytest.raises(IndexUnavailable, match="has no vectors"):
        contents.export("shop", tmp_path / "map.parquet", as_json=True)
    assert not (tmp_path / "map.parquet").exists()


def test_a_map_that_cannot_be_written_is_told(place: Place, tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        contents.export("shop", tmp_path / "nowhere" / "map.parquet", as_json=True)


def test_an_older_generation_is_told_as_such(wordy: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """F01: the newest one is damaged, the one before answers."""
    damaged = wordy.current("shop") / "catalog.duckdb"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    contents.files("shop", skipped=False, as_json=True)
    printed = capsys.readouterr()
    assert [row["path"] for row in json.loads(printed.out)] == ["one.py"]
    assert "limited (index-corrupt)" in printed.err


def test_an_unknown_repository_has_no_contents(place: Place) -> None:
    with pytest.raises(NotFound):
        contents.files("org/other", skipped=False, as_json=True)


def test_a_program_gets_json_and_nothing_else(place: Place, tmp_path: Path) -> None:
    """What a server logs when it opens an index is no part of an answer."""
    settings = {"CODEINTEL_PATHS__DATA_DIR": str(place.data_dir)}
    listed = run("indexctl", "files", "shop", "--skipped", "--json", folder=tmp_path, **settings)
    asked = run("search", "cart", "--json", folder=tmp_path, CODEINTEL_EMBEDDING__PROVIDER="none", **settings)
    assert [row["path"] for row in json.loads(listed.stdout)] == [".env"]
    assert json.loads(asked.stdout)["hits"]
    assert (listed.stderr, asked.stderr) == ("", "")
