"""Which words of the query meet which words of a hit? Computed from the hit's lines when asked; no index is needed.

Late interaction's alignment, ColBERT §3.2: each query token with the document token most like it. Only tokens of words
of the query and of the chunk's own lines count, and a word is shown whole, for the best of its tokens: an alignment
that cannot be seen explains nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.encoders.tokens import EncodedDocument, EncodedQuery, TokenEncoder, file_positions
from codeintel_rev.errors import CodeIntelError, DeadlineExceeded
from codeintel_rev.io.code_tokens import query_weights
from codeintel_rev.observability.tracing import span
from codeintel_rev.retrieval.fanout import in_context
from codeintel_rev.retrieval.hydrate import texts
from codeintel_rev.retrieval.shard import Shard
from codeintel_rev.types import Chunk, Hit, Ids, Limit, SearchResult, Stage, TokenMatch

HITS, MATCHES = 5, 3
_WORD = re.compile(r"[^\W_]+")
_CHARACTERS = 6000
"""Of a chunk, whose tokens are many where one line is a file: four times the usual."""
_SHARE = 0.8  # Of the time left: the answer must still be sent.
_UNCHANGED = "The hits are the same without token matches."


@dataclass(frozen=True, slots=True)
class Explaining:
    """What it takes: where the encoder comes from, where it runs, and until when (`time.monotonic`)."""

    encoder: Callable[[], TokenEncoder]
    executor: Executor
    deadline: float


def explained(
    result: SearchResult, query: str, positions: range, shards: Sequence[Shard], by: Explaining
) -> SearchResult:
    """Return `result` with token matches in the first HITS of the hits at `positions`.

    Whatever fails or is late is a Limit of the result, whose hits stay what they were.
    """
    shown = [hit.chunk_id for hit in result.hits[positions.start : positions.stop][:HITS]]
    started = time.monotonic()
    try:
        with span("search.explain"):
            chunks = list(texts(shown, shards).values())
            matches = _in_time(query, chunks, by, _SHARE * (by.deadline - started))
    except CodeIntelError as error:
        limit = Limit(error.slug, "explain", error.detail, f"{_UNCHANGED} {error.hint}".rstrip())
        return replace(result, limits=(*result.limits, limit))
    stage = Stage("explain", (time.monotonic() - started) * 1000, "ok")
    hits = tuple(_told(hit, matches.get(hit.chunk_id, ())) for hit in result.hits)
    return replace(result, hits=hits, stages=(*result.stages, stage))


def token_matches(query: str, chunks: Sequence[Chunk], encoder: TokenEncoder) -> list[tuple[TokenMatch, ...]]:
    """Return the MATCHES strongest alignments of `query` with each of `chunks`, best first; common words come last.

    Raises EncoderFailed.
    """
    asked = encoder.encode_query(query)
    read = [embedding_text(chunk)[:_CHARACTERS] for chunk in chunks]
    documents = encoder.encode_documents(read)
    return [
        _matches(query, asked, chunk, text, document)
        for chunk, text, document in zip(chunks, read, documents, strict=True)
    ]


def phrase(matches: Sequence[TokenMatch]) -> str:
    """Return the reason that `matches`, at least one, are."""
    first = matches[0]
    met = (f"{match.query_token}→{match.document_token} {match.similarity:.2f}" for match in matches)
    return f"tokens {', '.join(met)} (from {first.line}:{first.column})"


def _in_time(query: str, chunks: Sequence[Chunk], by: Explaining, seconds: float) -> dict[int, tuple[TokenMatch, ...]]:
    """Return the matches by chunk id. Raises DeadlineExceeded after `seconds`, and what encoding raises."""
    running = by.executor.submit(in_context(lambda: token_matches(query, chunks, by.encoder())))
    try:
        found = running.result(timeout=max(seconds, 0.0))
    except TimeoutError as error:
        running.cancel()
        raise DeadlineExceeded(f"token matches of {len(chunks)} hits were not ready in time.") from error
    return {chunk.chunk_id: matches for chunk, matches in zip(chunks, found, strict=True)}


def _told(hit: Hit, matches: tuple[TokenMatch, ...]) -> Hit:
    return replace(hit, token_matches=matches, why=(*hit.why, phrase(matches))) if matches else hit


def _matches(
    query: str, asked: EncodedQuery, chunk: Chunk, text: str, document: EncodedDocument
) -> tuple[TokenMatch, ...]:
    words, found = Words.of(query, asked.offsets), Words.of(text, document.offsets)
    places = file_positions(chunk, found.spans)
    meant = np.flatnonzero(words.of_token >= 0)
    seen = np.flatnonzero((found.of_token >= 0) & np.append(places[:, 0] > 0, False)[found.of_token])
    if not (len(meant) and len(seen)):
        return ()
    similarities = asked.tokens[meant] @ document.tokens[seen].T
    best, matched = similarities.max(axis=1), found.of_token[seen[similarities.argmax(axis=1)]]
    by_word: dict[str, list[int]] = {}
    for q in np.argsort(-best, kind="stable").tolist():
        by_word.setdefault(words.text(words.of_token[meant[q]]), []).append(q)
    ordered = sorted(by_word.items(), key=lambda item: -weight(item[0]) * best[item[1][0]])
    return tuple(
        TokenMatch(
            query_token=word,
            document_token=found.text(matched[tokens[0]]),
            similarity=float(best[tokens[0]]),
            share=float(best[tokens].sum() / best.sum()),
            path=chunk.path,
            line=int(places[matched[tokens[0]], 0]),
            column=int(places[matched[tokens[0]], 1]),
        )
        for word, tokens in ordered[:MATCHES]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The words of a text: `spans` (w, 2), and the number of the one each token ends in, (n,), -1 for none."""

    source: str
    spans: Ids
    of_token: Ids

    @classmethod
    def of(cls, text: str, offsets: Ids) -> Self:
        spans = np.array([word.span() for word in _WORD.finditer(text)], np.int64).reshape(-1, 2)
        last = offsets[:, 1] - 1
        at = np.searchsorted(spans[:, 0], last, side="right") - 1
        return cls(text, spans, np.where(last < np.append(spans[:, 1], -1)[at], at, -1))

    def text(self, word: int) -> str:
        return self.source[self.spans[word, 0] : self.spans[word, 1]]


def weight(word: str) -> float:
    """Return how much a word of the query says: 1, or less for common words."""
    return max(query_weights(word).values(), default=1.0)
