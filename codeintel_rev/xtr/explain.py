"""Why does a document match? Its strongest alignments with the query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codeintel_rev.errors import NotFound
from codeintel_rev.types import Floats
from codeintel_rev.xtr.search import XTRSearch


@dataclass(frozen=True, slots=True)
class Alignment:
    """Query token `q_index` meets document token `doc_token_index`; `share` is its part of the document's score."""

    q_index: int
    doc_token_index: int
    similarity: float
    share: float


def explain(index: XTRSearch, query: Floats, doc_id: int, k: int = 5) -> tuple[Alignment, ...]:
    """Return the `k` alignments of `query` (n, dim) with the document that weigh most, best first; none without tokens.

    Raises NotFound, DimensionMismatch, InvalidArgument.
    """
    similarities = similarity(index, query, doc_id)
    if not similarities.size:
        return ()
    matched = similarities.argmax(axis=1)
    best = similarities[np.arange(len(similarities)), matched]
    total = float(best.sum()) or 1.0
    return tuple(
        Alignment(int(q), int(matched[q]), float(best[q]), float(best[q]) / total)
        for q in np.argsort(-best, kind="stable")[:k]
    )


def similarity(index: XTRSearch, query: Floats, doc_id: int) -> Floats:
    """Return (query tokens, document tokens) inner products, of the tokens as they are stored. Raises as `explain`."""
    tokens = index.tokens(doc_id)
    if tokens is None:
        raise NotFound(f"document {doc_id} is not in the xtr index.")
    return index.ready(query).tokens @ tokens.T
