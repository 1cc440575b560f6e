"""Which hits come first when a model scored them too? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.types import Hit

_RRF_K = 60
"""Ranks of search and model count alike: rerankers made for prose often hurt code search (answers §8.3)."""


def blended(hits: Sequence[Hit], scores: Sequence[float]) -> tuple[Hit, ...]:
    """Return `hits` by reciprocal rank fusion of their order and that of `scores`, ties as they were.

    The best place keeps the best search score and so on down: gaps in them still tell where relevance ends, those of
    ranks never do. Raises UpstreamFailed for scores that are not one finite number a hit.
    """
    if len(scores) != len(hits) or not all(map(math.isfinite, scores)):
        raise UpstreamFailed("the score server gave no finite score for each text.", code="rerank.malformed")
    order = sorted(range(len(hits)), key=lambda place: (-scores[place], place))
    ranks = {place: rank for rank, place in enumerate(order)}
    fused = sorted(ranks, key=lambda place: (-1 / (_RRF_K + place) - 1 / (_RRF_K + ranks[place]), place))
    ladder = [hit.score for hit in hits]
    return tuple(replace(hits[place], score=score) for place, score in zip(fused, ladder, strict=True))
