"""Scores, vectors and token vectors: whatever the server does, right ones in the right order or an error."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import UpstreamFailed, UpstreamMalformed
from codeintel_rev.io.vllm.embed import EmbedClient, embeddings
from codeintel_rev.io.vllm.endpoint import Endpoint
from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.pooling import PoolingClient, token_vectors
from codeintel_rev.io.vllm.score import ScoreClient, scores
from tests.stub_vllm import DIM, GOLDEN, StubTransport, StubVLLM, vector

TEXTS = ["def charge(card):", "def refund(card):", "retry"]
values = st.recursive(st.none() | st.floats() | st.text(), st.lists)
SPOILT_ROWS = ["missing", "twice", "extra", "no_index", "true_index", "rows_no_objects"]


@pytest.fixture
def stub(request: pytest.FixtureRequest) -> StubVLLM:
    return StubVLLM(request.param)


@pytest.fixture
async def upstream(stub: StubVLLM) -> AsyncIterator[Upstream]:
    async with httpx.AsyncClient(transport=StubTransport(stub), timeout=None) as client:
        yield Upstream(Endpoint(stub.kind, "http://stub", "tiny", "", 5.0), client)  # type: ignore[arg-type]


@pytest.mark.parametrize("stub", ["embed"], indirect=True)
@pytest.mark.parametrize("scenario", ["ok", "floats", "permuted"])
async def test_vectors_come_in_the_order_of_their_texts(upstream: Upstream, stub: StubVLLM, scenario: str) -> None:
    stub.script.append(scenario)
    found = await EmbedClient(upstream, 128).embed(TEXTS, dim=DIM, trace_id="t", within_s=None)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.stack([vector(text) for text in TEXTS]))


@pytest.mark.parametrize("stub", ["embed"], indirect=True)
@pytest.mark.parametrize(
    "scenario",
    [*SPOILT_ROWS, "nan", "infinite", "zero", "ragged", "narrow", "no_base64", "half_number", "no_numbers"],
)
async def test_a_batch_with_one_bad_vector_is_refused(upstream: Upstream, stub: StubVLLM, scenario: str) -> None:
    """F28: nothing of it enters an index or a cache."""
    stub.script.append(scenario)
    with pytest.raises(UpstreamMalformed) as raised:
        await EmbedClient(upstream, 128).embed(TEXTS, dim=DIM, trace_id="t", within_s=None)
    assert raised.value.code == "embed.malformed"


@pytest.mark.parametrize("stub", ["embed"], indirect=True)
async def test_a_text_is_read_as_far_as_asked_for(upstream: Upstream, stub: StubVLLM) -> None:
    found = await EmbedClient(upstream, 2).embed(["one two three"], dim=None, trace_id="t", within_s=None)
    assert np.array_equal(found, [vector("one two")])
    assert stub.requests[-1].body["truncate_prompt_tokens"] == 2


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_answer_at_all_gets_through_as_a_vector(body: bytes) -> None:
    with pytest.raises(UpstreamMalformed):
        embeddings(Reply({}, body), 1, DIM)


@pytest.mark.parametrize("stub", ["score"], indirect=True)
@pytest.mark.parametrize("scenario", ["ok", "permuted", "results", "list"])
async def test_scores_come_in_the_order_of_their_documents(upstream: Upstream, stub: StubVLLM, scenario: str) -> None:
    """answers §1.6: `/rerank` sorts by score, others answer with a bare list."""
    stub.script.append(scenario)
    found = await ScoreClient(upstream).score("charge a card", TEXTS, trace_id="t")
    assert found == tuple(float(vector("charge a card") @ vector(text)) for text in TEXTS)


@pytest.mark.parametrize("stub", ["score"], indirect=True)
async def test_equal_scores_are_scores(upstream: Upstream, stub: StubVLLM) -> None:
    stub.script.append("equal")
    assert await ScoreClient(upstream).score("q", TEXTS, trace_id="t") == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("stub", ["score"], indirect=True)
@pytest.mark.parametrize("scenario", [*SPOILT_ROWS, "nan", "infinite", "no_number", "true", "raw:e30=", "raw:WzFd"])
async def test_scores_that_are_not_one_a_document_are_refused(
    upstream: Upstream, stub: StubVLLM, scenario: str
) -> None:
    stub.script.append(scenario)
    with pytest.raises(UpstreamMalformed) as raised:
        await ScoreClient(upstream).score("q", TEXTS, trace_id="t")
    assert raised.value.code == "rerank.malformed"


@pytest.mark.parametrize("stub", ["score"], indirect=True)
async def test_nobody_is_asked_to_score_nothing(upstream: Upstream, stub: StubVLLM) -> None:
    assert await ScoreClient(upstream).score("q", [], trace_id="t") == ()
    assert stub.requests == []


@pytest.mark.parametrize("stub", ["score"], indirect=True)
@pytest.mark.parametrize("routes", [{"/v1/rerank"}, {"/rerank"}])
async def test_the_route_of_another_server_is_found_once(upstream: Upstream, stub: StubVLLM, routes: set[str]) -> None:
    """SGLang and llama.cpp have /v1/rerank, TEI /rerank."""
    stub.routes = routes
    client = ScoreClient(upstream)
    first = await client.score("q", TEXTS, trace_id="t")
    asked = len(stub.requests)
    assert await client.score("q", TEXTS, trace_id="t") == first
    assert len(stub.requests) == asked + 1


@pytest.mark.parametrize("stub", ["score"], indirect=True)
async def test_calls_that_look_for_the_route_at_once_all_find_it(upstream: Upstream, stub: StubVLLM) -> None:
    stub.routes = {"/v1/rerank"}
    client = ScoreClient(upstream)
    one, other = await asyncio.gather(*(client.score("q", TEXTS, trace_id=name) for name in "ab"))
    assert one == other


@pytest.mark.parametrize("stub", ["chat"], indirect=True)
async def test_a_server_of_another_kind_is_a_wrong_setting(upstream: Upstream) -> None:
    with pytest.raises(UpstreamFailed) as raised:
        await ScoreClient(upstream).score("q", TEXTS, trace_id="t")
    assert raised.value.code == "synthesis.route_absent"


@pytest.mark.parametrize("stub", ["score"], indirect=True)
async def test_one_long_document_does_not_fail_the_others(upstream: Upstream, stub: StubVLLM) -> None:
    """answers §1.1: without a limit a document, the whole batch is refused."""
    stub.max_model_len = 8
    assert len(await ScoreClient(upstream).score("q", [*TEXTS, "long " * 50], trace_id="t")) == 4
    assert stub.requests[-1].body["max_tokens_per_doc"] == 4


@given(st.permutations(range(5)), st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5))
def test_no_order_of_rows_changes_a_score(order: list[int], values: list[float]) -> None:
    rows = [{"index": index, "relevance_score": values[index]} for index in order]
    assert scores(Reply({}, json.dumps({"results": rows}).encode()), 5) == tuple(values)


@pytest.mark.parametrize("stub", ["tokens"], indirect=True)
@pytest.mark.parametrize("scenario", ["ok", "big", "permuted", "float", "base64"])
async def test_token_vectors_come_in_the_order_of_their_texts(
    upstream: Upstream, stub: StubVLLM, scenario: str
) -> None:
    """In float16, so equal to three digits; float32 where the server sends no bytes."""
    stub.script.append(scenario)
    found = await PoolingClient(upstream).tokens(TEXTS, dim=DIM, trace_id="t", within_s=None)
    assert [array.shape for array in found] == [(2, DIM), (2, DIM), (1, DIM)]
    for array, text in zip(found, TEXTS, strict=True):
        assert array.dtype == np.float32
        assert array == pytest.approx(np.stack([vector(word) for word in text.split()]), abs=1e-3)


@pytest.mark.parametrize("stub", ["tokens"], indirect=True)
@pytest.mark.parametrize(
    "scenario", [*SPOILT_ROWS, "nan", "ragged", "bad_shape", "bad_dtype", "bad_metadata", "raw:e30="]
)
async def test_a_batch_with_bad_token_vectors_is_refused(upstream: Upstream, stub: StubVLLM, scenario: str) -> None:
    stub.script.append(scenario)
    with pytest.raises(UpstreamMalformed) as raised:
        await PoolingClient(upstream).tokens(TEXTS, dim=DIM, trace_id="t", within_s=None)
    assert raised.value.code == "tokens.malformed"


def test_token_vectors_of_another_width_are_refused() -> None:
    narrow = base64.b64encode(np.ones(DIM + 1, "<f4").tobytes()).decode()
    for data in (narrow, [[1.0] * (DIM + 1)], [1.0] * DIM, [[None] * DIM], 7):
        with pytest.raises(UpstreamMalformed):
            token_vectors(Reply({}, json.dumps({"data": [{"index": 0, "data": data}]}).encode()), 1, DIM)


@pytest.mark.parametrize("recorded", ["score.json", "rerank.json"])
def test_both_routes_of_vllm_give_these_scores(recorded: str) -> None:
    """One question, as vLLM 0.32.0 answered it: in input order, and sorted by score."""
    found = scores(Reply({}, (GOLDEN / recorded).read_bytes()), 3)
    assert found == (0.8928078413009644, 0.479132741689682, 0.9299877882003784)
