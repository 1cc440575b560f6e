"""What our clients expect of a model server, asked of the stub and of real ones, so that the stub cannot drift.

Each test runs against the stub in the process, against the stub behind a real Hypercorn, and, with `make
conformance-vllm`, against the servers that the `CODEINTEL_VLLM__…` variables name. Random weights are enough.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import anyio
import httpx
import numpy as np
import pytest

from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.io.vllm.chat import ChatClient
from codeintel_rev.io.vllm.embed import EmbedClient
from codeintel_rev.io.vllm.endpoint import Endpoint
from codeintel_rev.io.vllm.http import Upstream, http_client
from codeintel_rev.io.vllm.pooling import PoolingClient
from codeintel_rev.io.vllm.score import ScoreClient
from codeintel_rev.types import ChatDelta, ChatEnd, Message
from tests.stub_vllm import StubTransport, StubVLLM, serving

SERVERS = ["in process", "hypercorn", pytest.param("real", marks=pytest.mark.conformance)]
QUESTION = (Message("system", "Answer briefly."), Message("user", "What does `retry` do?"))
TEXTS = ("def charge(card, amount):", "retry with backoff", "SELECT * FROM invoices")


@pytest.fixture(params=SERVERS)
async def upstream(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[Upstream]:
    """One endpoint of `kind` and its server."""
    async with httpx.AsyncClient(transport=StubTransport(StubVLLM(kind)), timeout=None) as in_process:
        if request.param == "in process":
            yield Upstream(Endpoint(kind, "http://stub", "tiny", "", 10.0), in_process)  # type: ignore[arg-type]
            return
    async with http_client() as client:
        if request.param == "hypercorn":
            async with serving(StubVLLM(kind)) as url:
                yield Upstream(Endpoint(kind, url, "tiny", "", 10.0), client)  # type: ignore[arg-type]
            return
        settings = getattr(load_settings().vllm, kind)
        if not settings.url:
            pytest.skip(f"CODEINTEL_VLLM__{kind.upper()}__URL names no server")
        yield Upstream(Endpoint.of(kind, settings), client)  # type: ignore[arg-type]


def of(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", [kind])


def renamed(upstream: Upstream) -> Upstream:
    """Return the same server, asked for a model it has not."""
    return Upstream(replace(upstream.endpoint, model="no-such-model"), upstream._client)


async def answer(client: ChatClient, messages: Sequence[Message] = QUESTION) -> tuple[str, ChatEnd]:
    parts = [part async for part in client.stream(messages, max_tokens=8, trace_id="contract")]
    *deltas, end = parts
    assert isinstance(end, ChatEnd)
    assert all(isinstance(delta, ChatDelta) and delta.text for delta in deltas)
    return "".join(delta.text for delta in deltas if isinstance(delta, ChatDelta)), end


async def code_of(awaitable: object) -> str:
    with pytest.raises(UpstreamFailed) as raised:
        await awaitable  # type: ignore[misc]
    return raised.value.code


@of("chat")
async def test_a_chat_ends_once_with_its_counts(upstream: Upstream) -> None:
    client = ChatClient(upstream)
    text, end = await answer(client)
    assert text
    assert end.finish_reason in {"stop", "length"}
    assert end.prompt_tokens
    assert end.completion_tokens is not None
    assert 0 < end.completion_tokens <= 8


@of("chat")
async def test_the_length_of_a_prompt_is_told_before_it_is_asked(upstream: Upstream) -> None:
    client = ChatClient(upstream)
    counted, length = await client.count(QUESTION), await client.context_length()
    assert counted is not None
    assert length is not None
    assert 0 < counted < length


@of("chat")
async def test_a_stream_that_was_closed_does_no_harm(upstream: Upstream) -> None:
    client = ChatClient(upstream)
    for _ in range(3):
        async with aclosing(client.stream(QUESTION, max_tokens=500, trace_id="contract")) as parts:
            await anext(parts)
    with anyio.fail_after(10):
        await answer(client)


@of("chat")
async def test_a_prompt_that_is_too_long_is_told_as_that(upstream: Upstream) -> None:
    client = ChatClient(upstream)
    length = await client.context_length()
    long = [Message("user", "word " * ((length or 0) * 2))]
    with pytest.raises(UpstreamFailed) as raised:
        await answer(client, long)
    assert raised.value.prompt_too_long, raised.value


@of("chat")
async def test_a_chat_model_of_another_name_is_a_wrong_setting(upstream: Upstream) -> None:
    assert await code_of(answer(ChatClient(renamed(upstream)))) == "synthesis.model_absent"
    assert await code_of(ChatClient(renamed(upstream)).context_length()) == "synthesis.model_absent"


@of("chat")
async def test_a_chat_server_scores_and_embeds_nothing(upstream: Upstream) -> None:
    assert await code_of(ScoreClient(upstream).score("q", TEXTS, trace_id="contract")) == "synthesis.route_absent"
    asked = EmbedClient(upstream, 16).embed(TEXTS, dim=None, trace_id="contract", within_s=None)
    assert await code_of(asked) == "synthesis.route_absent"


@of("embed")
async def test_a_text_has_its_vector_alone_and_among_others(upstream: Upstream) -> None:
    client = EmbedClient(upstream, 64)
    together = await client.embed(TEXTS, dim=None, trace_id="contract", within_s=None)
    backwards = await client.embed(TEXTS[::-1], dim=together.shape[1], trace_id="contract", within_s=None)
    alone = await client.embed(TEXTS[:1], dim=together.shape[1], trace_id="contract", within_s=None)
    assert together.dtype == np.float32
    assert together == pytest.approx(backwards[::-1], abs=1e-3)
    assert together[:1] == pytest.approx(alone, abs=1e-3)


@of("embed")
async def test_a_long_text_is_read_as_far_as_asked_for(upstream: Upstream) -> None:
    client = EmbedClient(upstream, 8)
    card = await client.card(trace_id="contract")
    long, longer = ("retry " * (card.max_model_len or 512), "retry " * (card.max_model_len or 512) * 2)
    vectors = await client.embed([long, longer], dim=None, trace_id="contract", within_s=None)
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-3)


@of("embed")
async def test_an_embedding_model_of_another_name_is_a_wrong_setting(upstream: Upstream) -> None:
    asked = EmbedClient(renamed(upstream), 64).embed(TEXTS, dim=None, trace_id="contract", within_s=None)
    assert await code_of(asked) == "embed.model_absent"


@of("score")
async def test_scores_follow_their_documents(upstream: Upstream) -> None:
    client = ScoreClient(upstream)
    forwards = await client.score("retry a call", TEXTS, trace_id="contract")
    backwards = await client.score("retry a call", TEXTS[::-1], trace_id="contract")
    assert len(set(forwards)) == len(TEXTS)
    assert forwards == pytest.approx(backwards[::-1], abs=1e-3)


@of("score")
async def test_every_route_of_a_reranker_gives_the_same_scores(upstream: Upstream) -> None:
    first, second = ScoreClient(upstream), ScoreClient(upstream)
    second._route = 1
    scores = await first.score("retry a call", TEXTS, trace_id="contract")
    assert scores == pytest.approx(await second.score("retry a call", TEXTS, trace_id="contract"), abs=1e-3)


@of("score")
async def test_a_long_document_is_scored_with_the_others(upstream: Upstream) -> None:
    documents = [*TEXTS, "word " * 10_000, ""]
    assert len(await ScoreClient(upstream).score("retry a call", documents, trace_id="contract")) == 5


@of("tokens")
async def test_each_token_has_its_vector(upstream: Upstream) -> None:
    client = PoolingClient(upstream)
    together = await client.tokens(TEXTS, dim=None, trace_id="contract", within_s=None)
    backwards = await client.tokens(TEXTS[::-1], dim=together[0].shape[1], trace_id="contract", within_s=None)
    assert all(array.ndim == 2 and len(array) for array in together)
    for one, other in zip(together, backwards[::-1], strict=True):
        assert np.linalg.norm(one, axis=1) == pytest.approx(1, abs=1e-2)
        assert one == pytest.approx(other, abs=1e-2)
