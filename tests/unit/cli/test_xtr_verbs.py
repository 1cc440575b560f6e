"""`xtr` as an operator meets it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from codeintel_rev.cli import heat_map, late_interaction
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.token_index import token_directory
from tests.indexed import Place, copied


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, corpus: Place) -> Place:
    """The corpus with the tokens of `shop`; to be read only."""
    place = copied(corpus, tmp_path_factory.mktemp("built"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CODEINTEL_PATHS__DATA_DIR", str(place.data_dir))
        late_interaction.build("shop", as_json=True)
    return place


@pytest.fixture
def index_dir(tmp_path: Path, built: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the index of `shop`, with the settings of the corpus in effect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(built.data_dir))
    return Path(shutil.copytree(token_directory(built.current("shop")), tmp_path / "index"))


def test_a_build_says_what_came_of_it(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late_interaction.build("shop", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["repo"], told["model"], told["changed"], told["cut"]) == ("shop", "all-MiniLM-L6-v2", False, 0)
    assert told["documents"] > 0


def damage(index_dir: Path) -> None:
    cells = next((index_dir / "tokens").rglob("cells.u16"))
    cells.chmod(0o644)
    cells.write_bytes(b"\xff" + cells.read_bytes()[1:])


def test_an_index_is_ready_until_it_is_damaged(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A19, F13: `XTR ready`, or the error that exits with 1."""
    for folder in (index_dir, None):
        late_interaction.verify("shop", folder)
        assert capsys.readouterr().out == "XTR ready\n"
    damage(index_dir)
    with pytest.raises(late_interaction.NotReady, match=r"cells\.u16"):
        late_interaction.verify("shop", index_dir)


def test_no_index_is_not_ready(index_dir: Path) -> None:
    """A07, A19."""
    with pytest.raises(late_interaction.NotReady, match="has no late-interaction index"):
        late_interaction.verify("org/ledger", None)


def test_an_audit_names_every_file(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A38: counts, sizes, checksums."""
    late_interaction.audit("shop", index_dir)
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == []
    assert sum(file["bytes"] for file in told["files"]) == told["bytes"]
    assert all(len(file["sha256"]) == 64 for file in told["files"])
    damage(index_dir)
    with pytest.raises(late_interaction.NotReady):
        late_interaction.audit("shop", index_dir)
    assert json.loads(capsys.readouterr().out)["problems"]


def test_a_search_as_json_is_the_envelope(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late_interaction.search("shop", "how is a credit card charged", 2, index_dir, as_json=True)
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["path"] for hit in hits][:1] == ["shop/payment.py"]
    assert hits[0]["token_matches"]


def test_a_search_prints_places_and_alignments(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late_interaction.search("shop", "how is a credit card charged", 1, index_dir, as_json=False)
    shown = capsys.readouterr().out
    assert shown.startswith("shop: shop/payment.py:")
    assert "credit→credit" in shown


def test_a_bench_is_one_line_of_json(index_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A38: p50, p95, throughput."""
    (tmp_path / "q.jsonl").write_text('{"qid": "1", "query": "cart"}\n{"qid": "2", "query": "card"}\n')
    late_interaction.bench("shop", tmp_path / "q.jsonl", 10, index_dir)
    told = json.loads(capsys.readouterr().out)
    assert told["queries"] == 2
    assert {"search_p50_ms", "search_p95_ms", "encode_p50_ms", "encode_p95_ms", "queries_per_s"} < told.keys()


def test_no_question_is_nothing_to_measure(index_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("")
    with pytest.raises(InvalidArgument):
        late_interaction.bench("shop", tmp_path / "q.jsonl", 10, index_dir)


def test_a_heat_map_colours_the_line_that_says_it(
    index_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pay.py").write_text("import os\n\ncharge_card(<b>)\n")
    heat_map.explain("charge a card", tmp_path / "pay.py", tmp_path / "pay.html")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2].strip().startswith("3 0.")
    assert "→" in lines[2]
    page = (tmp_path / "pay.html").read_text(encoding="utf-8")
    (hot,) = [line for line in page.splitlines() if "background-color: #ff8c00" in line]
    assert "charge_card(&lt;b&gt;)" in hot


@pytest.mark.parametrize("content", [b"\x00\x01", b"x" * (2 * 1024 * 1024 + 1)])
def test_what_is_no_text_file_is_told(index_dir: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InvalidArgument):
        heat_map.explain("card", tmp_path / "file", None)


def test_no_file_and_no_query_are_told(index_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        heat_map.explain("card", tmp_path / "none", None)
    with pytest.raises(InvalidArgument):
        heat_map.explain(" ", tmp_path / "none", None)
