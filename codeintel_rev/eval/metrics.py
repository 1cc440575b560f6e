"""How well does a list of hits meet what was judged right? Pure; binary gains.

A hit counts for a judgement when it is of the judged file and shares a line with it. Hits count as they come: several
of one file push others down. Figures are those of the public sets' own scorers (`tests/golden/eval_scores.json`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codeintel_rev.errors import InvalidArgument

LAST_LINE = 1 << 40
"""The end of a place that is a whole file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Lines of a file, 1-based and inclusive; by default all of them."""

    path: str
    start_line: int = 0
    end_line: int = LAST_LINE

    def meets(self, other: Place) -> bool:
        return self.path == other.path and self.start_line <= other.end_line and self.end_line >= other.start_line


@dataclass(frozen=True, slots=True)
class Score:
    """The 1-based rank of the first hit for each judgement, None where none of the first `k` hits counts for it."""

    ranks: tuple[int | None, ...]
    k: int

    @property
    def found(self) -> tuple[int, ...]:
        return tuple(rank for rank in self.ranks if rank is not None)

    @property
    def mrr(self) -> float:
        """One over the rank of the first right hit."""
        return 1 / min(self.found) if self.found else 0.0

    @property
    def ndcg(self) -> float:
        """What was gained, later hits discounted by log2, over what the best order gains. One hit gains once."""
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(self.ranks), self.k) + 1))
        return sum(1 / math.log2(rank + 1) for rank in set(self.found)) / ideal

    @property
    def recall(self) -> float:
        """Share of the judgements that were found."""
        return len(self.found) / len(self.ranks)

    def hit(self, n: int) -> float:
        """Return 1 when one of the first `n` hits is right, else 0."""
        return float(any(rank <= n for rank in self.found))


def score(hits: Iterable[Place], judged: Sequence[Place], k: int) -> Score:
    """Return how the first `k` of `hits` meet `judged`. Raises InvalidArgument when nothing is judged right."""
    if not judged:
        raise InvalidArgument("a question without a judgement cannot be scored.", "Judge at least one place right.")
    places = list(hits)[:k]
    first = (next((rank for rank, hit in enumerate(places, 1) if hit.meets(right)), None) for right in judged)
    return Score(tuple(first), k)


def files_once(hits: Iterable[Place]) -> list[Place]:
    """Return the file of each hit, once, where it came first: the view for sets that judge files."""
    return [Place(path) for path in dict.fromkeys(hit.path for hit in hits)]


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Return the mean figures by name, as `ndcg@10`. REQUIRES: `scores` is not empty and all have one k."""
    k = scores[0].k
    sums = {
        f"ndcg@{k}": sum(one.ndcg for one in scores),
        f"mrr@{k}": sum(one.mrr for one in scores),
        f"recall@{k}": sum(one.recall for one in scores),
        **{f"hit@{n}": sum(one.hit(n) for one in scores) for n in sorted({1, min(5, k), k})},
    }
    return {name: total / len(scores) for name, total in sums.items()}
