"""How hot is each line of a file for a query? The best similarity of its tokens; no index is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codeintel_rev.encoders.tokens import TokenEncoder, positions
from codeintel_rev.io.decode import lines_of
from codeintel_rev.retrieval.token_matches import Words, weight
from codeintel_rev.types import Floats

BLOCK = 16
"""Lines read together: about one window of the embedded model, and blocks are encoded side by side."""


@dataclass(frozen=True, slots=True)
class HotLine:
    """`similarity` is that of `query_token` and `document_token`, the strongest pair here; 0 and "" without words."""

    number: int
    text: str
    similarity: float
    query_token: str
    document_token: str


def heat(query: str, text: str, encoder: TokenEncoder) -> list[HotLine]:
    """Return every line of `text`. A common word of the query makes a line a quarter as hot. Raises EncoderFailed."""
    lines = lines_of(text)
    blocks = [lines[start : start + BLOCK] for start in range(0, len(lines), BLOCK)]
    asked = encoder.encode_query(query)
    words = Words.of(query, asked.offsets)
    meant = np.flatnonzero(words.of_token >= 0)
    names = [words.text(number) for number in words.of_token[meant]]
    weights: Floats = np.array([weight(name) for name in names], np.float32)
    tokens: Floats = asked.tokens[meant] * weights[:, None]
    read = encoder.encode_documents(["\n".join(block) for block in blocks])
    hot: list[HotLine] = []
    for block, document in zip(blocks, read, strict=True):
        found = Words.of("\n".join(block), document.offsets)
        hot += _lines(block, found, tokens @ document.tokens.T, names, len(hot))
    return hot


def _lines(
    block: Sequence[str], found: Words, similarities: Floats, names: Sequence[str], before: int
) -> list[HotLine]:
    """Return the lines of `block`; `similarities` are (query tokens, its tokens)."""
    seen = np.flatnonzero(found.of_token >= 0) if names else np.empty(0, np.int64)
    at = positions("\n".join(block), found.spans)[found.of_token[seen], 0] if len(seen) else seen
    hot = []
    for number, text in enumerate(block, start=1):
        here = seen[at == number]
        best = int(similarities[:, here].argmax()) if len(here) else -1
        if best < 0:
            hot.append(HotLine(before + number, text, 0.0, "", ""))
            continue
        q, token = divmod(best, len(here))
        word = found.text(found.of_token[here[token]])
        hot.append(HotLine(before + number, text, float(similarities[q, here[token]]), names[q], word))
    return hot
