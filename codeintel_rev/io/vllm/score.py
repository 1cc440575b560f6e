"""How well passages answer a query, by a reranker: vLLM, or another that has a rerank route (answers §1.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.models import served_model
from codeintel_rev.io.vllm.refusals import failure, parsed, reason_of

Body = Callable[[str, Sequence[str]], dict[str, Any]]
ROUTES: tuple[tuple[str, Body], ...] = (
    ("/score", lambda query, documents: {"queries": query, "documents": list(documents)}),
    ("/v1/rerank", lambda query, documents: {"query": query, "documents": list(documents)}),
    ("/rerank", lambda query, documents: {"query": query, "texts": list(documents), "truncate": True}),
)
"""vLLM, which echoes every document on its rerank routes; llama.cpp and SGLang; TEI. Asked in this order, once."""


class ScoreClient:
    """A reranker behind `upstream`. Its scores are of one query: compare them with no other's."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._route = 0
        self._limits: dict[str, int] | None = None

    async def score(self, query: str, documents: Sequence[str], *, trace_id: str) -> tuple[float, ...]:
        """Return the score of each document, in their order; of none, none, and nobody is asked.

        Raises UpstreamFailed, with the code `rerank.malformed` for anything but one finite score a document.
        """
        if not documents:
            return ()
        if self._limits is None:
            card = await served_model(self._upstream, trace_id=trace_id)
            self._limits = length_limits(card.max_model_len)
        route = self._route
        while True:
            try:
                found = await self._asked(route, query, documents, trace_id)
            except UpstreamFailed as error:
                if reason_of(error) != "route_absent" or route + 1 == len(ROUTES):
                    raise
                route += 1
            else:
                self._route = route
                return found

    async def _asked(self, route: int, query: str, documents: Sequence[str], trace_id: str) -> tuple[float, ...]:
        path, body = ROUTES[route]
        asked = {"model": self._upstream.endpoint.model, **body(query, documents), **(self._limits or {})}
        return await self._upstream.ask(
            path, asked, lambda reply: scores(reply, len(documents)), trace_id=trace_id, hedged=True
        )


def length_limits(max_model_len: int | None) -> dict[str, int]:
    """Return what keeps one long document from failing the whole batch: half for it, a quarter for the query.

    Not one cut at the right end where it can be helped: that cuts the suffix by which generative rerankers answer
    (sentence-transformers#3787).
    """
    if max_model_len is None:
        return {"truncate_prompt_tokens": -1}
    return {"max_tokens_per_doc": max_model_len // 2, "max_tokens_per_query": max_model_len // 4}


def scores(reply: Reply, count: int) -> tuple[float, ...]:
    """Return `count` scores in input order, from every shape rerankers answer in. Raises UpstreamMalformed.

    A list, or `results` or `data` of an object; `relevance_score` or `score`; in any order, each index once.
    """
    body = parsed(reply.body)
    rows = next((body[key] for key in ("results", "data") if key in body), None) if isinstance(body, dict) else body
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise failure("score", "malformed", "answered without a list of scores")
    by_index = {row.get("index"): row.get("relevance_score", row.get("score")) for row in rows}
    if len(rows) != count or by_index.keys() != set(range(count)) or any(type(key) is not int for key in by_index):
        raise failure("score", "malformed", f"gave {len(rows)} scores for {count} documents, or one twice")
    values = [by_index[position] for position in range(count)]
    if not all(type(value) in {int, float} and isfinite(value) for value in values):
        raise failure("score", "malformed", "gave a score that is no number")
    return tuple(float(value) for value in values)
