"""Late-interaction indexes of the corpus, made from its generations and asked."""

from __future__ import annotations

import shutil
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
from codeintel_rev.indexing.token_stage import LONGEST
from codeintel_rev.indexing.xtr_build import TokenIndexSummary, build_token_index
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.registry import Source, register
from codeintel_rev.io.token_index import PROJECTION, token_directory
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.retrieval.wide import measure, opened_wide
from codeintel_rev.types import BuildProgress
from tests import tiny_models
from tests.indexed import Place, chunks_of, copied, new_place


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, corpus: Place) -> Place:
    """The corpus with the tokens of `shop`; to be read only."""
    place = copied(corpus, tmp_path_factory.mktemp("xtr"))
    build(place, "shop")
    return place


def build(place: Place, repo: str, told: list[BuildProgress] | None = None) -> TokenIndexSummary:
    return build_token_index(repo, place.settings, on_progress=[].append if told is None else told.append)


def test_every_chunk_is_found_by_its_own_text(indexed: Place, served: Shards) -> None:
    """A33: one document a chunk, under the chunk's id."""
    chunks = chunks_of(served, "shop")
    with opened_wide("shop", indexed.settings, None) as wide:
        assert len(wide.index.engine) == len(chunks)
        first = [wide.search(chunk.text[:600], 1).hits[0].chunk_id for chunk in chunks]
    assert sum(found == chunk.chunk_id for found, chunk in zip(first, chunks, strict=True)) >= 0.8 * len(chunks)


def test_a_wide_search_shows_lines_and_the_tokens_that_met(indexed: Place) -> None:
    """A13, A27."""
    with opened_wide("shop", indexed.settings, None) as wide:
        result = wide.search("how is a credit card charged", 3)
    best = result.hits[0]
    assert (best.path, result.channels, best.contributions["xtr"].rank) == ("shop/payment.py", ("xtr",), 1)
    assert {match.document_token for match in best.token_matches} >= {"credit", "card"}
    assert list(result.hits) == sorted(result.hits, key=lambda hit: -hit.score)


def test_what_is_there_is_not_built_again(indexed: Place) -> None:
    before = indexed.current("shop")
    summary = build(indexed, "shop")
    assert (summary.changed, summary.encoded, indexed.current("shop")) == (False, 0, before)
    assert summary.documents > 0


def test_it_is_a_part_of_the_generation_and_asked_there(tmp_path: Path, models_dir: Path) -> None:
    """A01. Where `xtr` is off, a later generation has none until it is built."""
    place = new_place(tmp_path, models_dir)
    place.write("org/one", "one.py", "def one():\n    return 1\n")
    place.index("org/one")
    told: list[BuildProgress] = []
    summary = build(place, "org/one", told)
    assert (summary.changed, summary.encoded) == (True, 1)
    assert token_directory(place.current("org/one")).is_dir()
    assert [(one.stage, one.done) for one in told] == [("tokens", 0), ("tokens", 1), ("publish", 0), ("publish", 1)]
    with opened_wide("org/one", place.settings, None) as wide:
        assert wide.search("one", 5).hits[0].path == "one.py"
    place.write("org/one", "two.py", "def two():\n    return 2\n")
    place.index("org/one")
    with (
        pytest.raises(IndexUnavailable, match="has no late-interaction index"),
        opened_wide("org/one", place.settings, None),
    ):
        pytest.fail("it was opened")


def test_it_is_gone_back_from_and_collected_with_its_generation(tmp_path: Path, models_dir: Path) -> None:
    place = new_place(tmp_path, models_dir)
    place.write("one", "one.py", "def one():\n    return 1\n")
    place.index("one")
    build(place, "one")
    store, with_tokens = GenerationStore(place.directory("one")), place.current("one")
    assert store.rollback().token_model == ""
    assert store.rollback(with_tokens.name).token_model.startswith("all-MiniLM")
    for n in range(2):
        place.write("one", "one.py", f"def one():\n    return {n + 2}\n")
        place.index("one")
    store.gc(1)
    assert not with_tokens.exists()


def test_a_repository_without_a_chunk_has_an_empty_index(tmp_path: Path, models_dir: Path) -> None:
    place = new_place(tmp_path, models_dir)
    place.write("none", "empty.py", "")
    place.index("none")
    assert build(place, "none").documents == 0
    with opened_wide("none", place.settings, None) as wide:
        assert wide.search("anything", 5).hits == ()


def test_a_chunk_that_is_one_endless_line_is_counted(tmp_path: Path, models_dir: Path) -> None:
    place = new_place(tmp_path, models_dir)
    place.write("long", "data.txt", "word " * 2000)
    place.index("long")
    summary = build(place, "long")
    assert summary.cut == 1
    assert 0 < summary.tokens <= LONGEST


def test_what_is_not_indexed_is_told(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    with pytest.raises(NotFound):
        build(place, "nowhere")
    register(place.data_dir, Source("begun", tmp_path))
    with pytest.raises(IndexUnavailable, match="codeintel index"):
        build(place, "begun")


def test_tokens_of_another_model_are_never_searched(indexed: Place, tmp_path: Path) -> None:
    """F16, A29."""
    checkpoint = str(tiny_models.save_pylate(tmp_path / "tiny"))
    settings = indexed.settings.model_copy(
        update={"xtr": indexed.settings.xtr.model_copy(update={"model": checkpoint})}
    )
    with pytest.raises(IndexIncompatible, match="all-MiniLM"), opened_wide("shop", settings, None):
        pytest.fail("it was opened")


def test_an_index_of_another_repository_is_not_shown(indexed: Place) -> None:
    with (
        opened_wide("org/ledger", indexed.settings, token_directory(indexed.current("shop"))) as wide,
        pytest.raises(GenerationMismatch),
    ):
        wide.search("money", 5)


def test_a_damaged_projection_is_refused(indexed: Place, tmp_path: Path) -> None:
    """F13: it decides what every stored vector means."""
    folder = Path(shutil.copytree(token_directory(indexed.current("shop")), tmp_path / "shop"))
    data = bytearray((folder / PROJECTION).read_bytes())
    data[-1] ^= 0x40
    (folder / PROJECTION).chmod(0o644)
    (folder / PROJECTION).write_bytes(data)
    with pytest.raises((IndexCorrupt, IndexIncompatible)), opened_wide("shop", indexed.settings, folder):
        pytest.fail("it was opened")


@pytest.mark.parametrize("query", ["", " \n"])
def test_an_empty_query_is_refused(indexed: Place, query: str) -> None:
    with opened_wide("shop", indexed.settings, None) as wide, pytest.raises(InvalidArgument):
        wide.search(query, 5)


def test_every_query_is_measured(indexed: Place) -> None:
    """A38."""
    with opened_wide("shop", indexed.settings, None) as wide:
        measured = measure(wide, ["cart", "card", "money"], 5)
    assert (measured.queries, measured.documents) == (3, len(wide.index.engine))
    assert 0 < measured.search_p50_ms <= measured.search_p95_ms
    assert np.isfinite(measured.queries_per_s)


def test_the_dense_vector_needs_no_second_session(minilm: DenseEncoder, indexed: Place) -> None:
    """One forward pass for both: its dense vector is the dense encoder's."""
    with opened_wide("shop", indexed.settings, None) as wide:
        assert np.array_equal(wide.index.encoder.encode_query("cart").dense, minilm.encode_queries(["cart"])[0])
