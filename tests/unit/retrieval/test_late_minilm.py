"""Late interaction with the embedded model's tokens, a projection of the index's own and the compressed layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder, embedding_text
from codeintel_rev.encoders.token_encoder import fitted_projection, open_token_encoder
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.token_index import (
    TOKENS,
    TokenBuild,
    token_directory,
    token_model_id,
    write_build,
    write_projection,
)
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope, SearchResult
from codeintel_rev.xtr.build import build_index
from codeintel_rev.xtr.config import BuildConfig
from tests.indexed import LONG_MS, Place, new_place, plant
from tests.token_indexed import republish, with_tokens

QUESTION = "how is a credit card charged"


def index_tokens(generation: Path, settings: Settings, minilm: DenseEncoder) -> None:
    """Index the generation's tokens as a build does."""
    chunks = list(read_chunks(generation, settings.duckdb))
    texts = [embedding_text(chunk) for chunk in chunks]
    projection = fitted_projection(settings, minilm, texts)
    assert projection is not None
    encoder = open_token_encoder(settings, minilm, settings.paths.data_dir / "models", projection)
    directory = token_directory(generation)
    directory.mkdir()
    write_projection(directory, projection.to_bytes())
    documents = zip(chunks, encoder.encode_documents(texts), strict=True)
    config = BuildConfig(directory / TOKENS, encoder.fingerprint.dim, token_model_id(encoder.fingerprint))
    build_index(config, ((chunk.chunk_id, document.tokens) for chunk, document in documents))
    write_build(directory, TokenBuild(0, {}))
    republish(generation)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, minilm: DenseEncoder) -> Iterator[Shards]:
    place: Place = plant(new_place(tmp_path_factory.mktemp("tokens"), models_dir), "shop")
    settings = with_tokens(place)
    index_tokens(place.current("shop"), settings, minilm)
    shards = Shards(place.data_dir, minilm, settings)
    shards.refresh()
    yield shards
    shards.close()


def ask(shards: Shards, options: Options = AS_SET, explained: range = range(0)) -> SearchResult:
    return shards.search(QUESTION, Scope(), 8, deadline_ms=LONG_MS, options=options, explained=explained)


@pytest.mark.parametrize("mode", ["rescore", "wide", "both"])
def test_the_lines_meant_come_first_however_tokens_take_part(shards: Shards, mode: str) -> None:
    told = ask(shards, Options(mode=mode), explained=range(8))  # type: ignore[arg-type]
    assert told.limits == ()
    assert told.hits[0].path == "shop/payment.py"
    assert {match.query_token for match in told.hits[0].token_matches} == {"credit", "card", "charged"}


def test_one_pass_makes_the_vector_and_the_tokens_of_a_query(
    shards: Shards, minilm: DenseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """encoders.md: and the vector is the one it was."""
    plain = ask(shards, Options(mode="off"))
    monkeypatch.setattr(minilm, "encode_queries", lambda _: pytest.fail("encoded twice"))
    told = ask(shards)
    dense = {hit.chunk_id: hit.contributions["dense"].score for hit in plain.hits if "dense" in hit.contributions}
    again = {hit.chunk_id: hit.contributions["dense"].score for hit in told.hits if "dense" in hit.contributions}
    both = dense.keys() & again.keys()
    assert len(both) > 3
    assert {chunk_id: dense[chunk_id] for chunk_id in both} == {chunk_id: again[chunk_id] for chunk_id in both}
