"""Late-interaction indexes of the corpus, made from its generations and asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.errors import (
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    IndexUnavailable,
    InvalidArgument,
    NotFound,
)
from codeintel_rev.indexing.xtr_build import LONGEST, TokenIndexSummary, build_token_index
from codeintel_rev.io.token_index import PROJECTION, token_index_directory
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.retrieval.wide import measure, opened_wide
from codeintel_rev.types import BuildProgress
from tests import tiny_models
from tests.indexed import Place, chunks_of, new_place


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, corpus: Place) -> Path:
    """The index of `shop`; to be read only."""
    folder = tmp_path_factory.mktemp("xtr") / "shop"
    build(corpus, "shop", folder)
    return folder


def build(place: Place, repo: str, folder: Path | None, told: list[BuildProgress] | None = None) -> TokenIndexSummary:
    return build_token_index(repo, place.settings, folder, on_progress=[].append if told is None else told.append)


def test_every_chunk_is_found_by_its_own_text(corpus: Place, served: Shards, tokens: Path) -> None:
    """A33: one document a chunk, under the chunk's id."""
    chunks = chunks_of(served, "shop")
    with opened_wide("shop", corpus.settings, tokens) as wide:
        assert len(wide.engine) == len(chunks)
        first = [wide.search(chunk.text[:600], 1).hits[0].chunk_id for chunk in chunks]
    assert sum(found == chunk.chunk_id for found, chunk in zip(first, chunks, strict=True)) >= 0.8 * len(chunks)


def test_a_wide_search_shows_lines_and_the_tokens_that_met(corpus: Place, tokens: Path) -> None:
    """A13, A27."""
    with opened_wide("shop", corpus.settings, tokens) as wide:
        result = wide.search("how is a credit card charged", 3)
    best = result.hits[0]
    assert (best.path, result.channels, best.contributions["xtr"].rank) == ("shop/payment.py", ("xtr",), 1)
    assert {match.document_token for match in best.token_matches} >= {"credit", "card"}
    assert list(result.hits) == sorted(result.hits, key=lambda hit: -hit.score)


def test_the_same_generation_gives_the_same_bytes(corpus: Place, tokens: Path, tmp_path: Path) -> None:
    build(corpus, "shop", tmp_path / "again")
    for path in sorted(tokens.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tokens)).read_bytes(), path.name


def test_an_index_that_is_there_is_left_as_it_is(corpus: Place, tokens: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tokens.rglob("*")}
    summary = build(corpus, "shop", tokens)
    assert not summary.changed
    assert {path: path.stat().st_mtime_ns for path in tokens.rglob("*")} == before


def test_a_folder_of_something_else_is_not_written_to(corpus: Place, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(InvalidArgument, match="something else"):
        build(corpus, "shop", tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter.txt"]


def test_it_lies_beside_its_generation_and_is_asked_there(tmp_path: Path, models_dir: Path) -> None:
    """A01: by default below data/xtr; a later generation has none until it is built."""
    place = new_place(tmp_path, models_dir)
    place.write("org/one", "one.py", "def one():\n    return 1\n")
    generation = place.index("org/one")
    told: list[BuildProgress] = []
    build(place, "org/one", None, told)
    assert token_index_directory(place.data_dir, "org/one", generation).is_dir()
    assert [(one.stage, one.done) for one in told] == [("tokens", 0), ("tokens", 1), ("token index", 0)]
    with opened_wide("org/one", place.settings, None) as wide:
        assert wide.search("one", 5).hits[0].path == "one.py"
    place.write("org/one", "two.py", "def two():\n    return 2\n")
    place.index("org/one")
    with (
        pytest.raises(IndexUnavailable, match="has no late-interaction index"),
        opened_wide("org/one", place.settings, None),
    ):
        pytest.fail("it was opened")


def test_a_repository_without_a_chunk_has_an_empty_index(tmp_path: Path, models_dir: Path) -> None:
    place = new_place(tmp_path, models_dir)
    place.write("none", "empty.py", "")
    place.index("none")
    assert build(place, "none", None).documents == 0
    with opened_wide("none", place.settings, None) as wide:
        assert wide.search("anything", 5).hits == ()


def test_a_chunk_that_is_one_endless_line_is_counted(tmp_path: Path, models_dir: Path) -> None:
    place = new_place(tmp_path, models_dir)
    place.write("long", "data.txt", "word " * 2000)
    place.index("long")
    summary = build(place, "long", None)
    assert summary.cut == 1
    assert 0 < summary.tokens <= LONGEST


def test_what_is_not_indexed_is_told(corpus: Place) -> None:
    with pytest.raises(NotFound):
        build(corpus, "nowhere", None)


def test_tokens_of_another_model_are_never_searched(corpus: Place, tokens: Path, tmp_path: Path) -> None:
    """F16, A29."""
    checkpoint = str(tiny_models.save_pylate(tmp_path / "tiny"))
    settings = corpus.settings.model_copy(update={"xtr": corpus.settings.xtr.model_copy(update={"model": checkpoint})})
    with pytest.raises(IndexIncompatible, match="all-MiniLM"), opened_wide("shop", settings, tokens):
        pytest.fail("it was opened")


def test_an_index_of_another_repository_is_not_shown(corpus: Place, tokens: Path) -> None:
    with opened_wide("org/ledger", corpus.settings, tokens) as wide, pytest.raises(GenerationMismatch):
        wide.search("money", 5)


def test_a_damaged_projection_is_refused(corpus: Place, tmp_path: Path) -> None:
    """F13: it decides what every stored vector means."""
    folder = tmp_path / "shop"
    build(corpus, "shop", folder)
    data = bytearray((folder / PROJECTION).read_bytes())
    data[-1] ^= 0x40
    (folder / PROJECTION).write_bytes(data)
    with pytest.raises((IndexCorrupt, IndexIncompatible)), opened_wide("shop", corpus.settings, folder):
        pytest.fail("it was opened")


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_is_refused(corpus: Place, tokens: Path, query: str) -> None:
    with opened_wide("shop", corpus.settings, tokens) as wide, pytest.raises(InvalidArgument):
        wide.search(query, 5)


def test_every_query_is_measured(corpus: Place, tokens: Path) -> None:
    """A38."""
    with opened_wide("shop", corpus.settings, tokens) as wide:
        measured = measure(wide, ["cart", "card", "money"], 5)
    assert (measured.queries, measured.documents) == (3, len(wide.engine))
    assert 0 < measured.search_p50_ms <= measured.search_p95_ms
    assert np.isfinite(measured.queries_per_s)


def test_the_dense_vector_needs_no_second_session(minilm: DenseEncoder, corpus: Place, tokens: Path) -> None:
    """One forward pass for both: its dense vector is the dense encoder's."""
    with opened_wide("shop", corpus.settings, tokens) as wide:
        assert np.array_equal(wide.encoder.encode_query("cart").dense, minilm.encode_queries(["cart"])[0])
