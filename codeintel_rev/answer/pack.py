"""Which lines go into an answer, as which source? (answers §8.4, §8.5). Pure.

Hits are cut to the best few, equal texts kept once, neighbours of one file made one, then taken while they fit. Numbers
are given last, best first, and never change.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from urllib.parse import quote

from codeintel_rev.answer.events import Source
from codeintel_rev.answer.fence import is_tainted
from codeintel_rev.answer.library import Facts, FileFacts
from codeintel_rev.types import Definition, Freshness, Hit

NEAR_LINES = 3
"""Hits of one file with no more lines between them are one source."""
PER_FILE = 3
LEAST, MOST = 3, 12
"""Of the hits at least and at most so many are sources; where between, the largest gap in score says."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A numbered source with its text, and what encloses it: signatures from the outside in, joined by ` › `."""

    source: Source
    text: str
    breadcrumb: str
    tokens: int
    definitions: tuple[Definition, ...]
    freshness: Freshness

    def lines(self, first: int, last: int) -> list[str]:
        """Return its lines `first` to `last`, as the file numbers them."""
        return self.text.split("\n")[first - self.source.start_line : last - self.source.start_line + 1]


@dataclass(frozen=True, slots=True)
class Pack:
    """The sources of an answer, `tokens` of them all, and how many were found that did not fit."""

    passages: tuple[Passage, ...]
    tokens: int
    dropped: int


def pack(
    hits: Sequence[Hit],
    facts: Facts,
    *,
    count: Callable[[str], int],
    budget: int,
    max_sources: int,
    permalink: str = "",
) -> Pack:
    """Return the sources of `hits`, best first, that fit into `budget` tokens; the best one always does.

    `permalink` is a template of {repo}, {commit}, {path}, {start} and {end}; "" makes no links.
    """
    merged = _merged(_distinct(hits[: adaptive_k([hit.score for hit in hits], LEAST, min(MOST, max_sources))]), facts)
    chosen = _fitting(_capped(merged), count, budget)
    passages = tuple(
        _passage(n, hit, facts.get((hit.repo, hit.path)), count(hit.snippet), permalink)
        for n, hit in enumerate(chosen, start=1)
    )
    return Pack(passages, sum(passage.tokens for passage in passages), len(merged) - len(chosen))


def adaptive_k(scores: Sequence[float], least: int, most: int) -> int:
    """Return how many of the descending `scores` to keep: up to the largest gap behind `least` to `most` of them."""
    if len(scores) <= min(least, most):
        return len(scores)
    last = min(most, len(scores) - 1)
    return max(range(min(least, last), last + 1), key=lambda k: (scores[k - 1] - scores[k], k))


def sha256(text: str) -> str:
    """Return the digest of lines joined by `\\n`, in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _distinct(hits: Iterable[Hit]) -> list[Hit]:
    """Return the first of every text."""
    return list({sha256(hit.snippet): hit for hit in reversed(list(hits))}.values())[::-1]


def _merged(hits: Sequence[Hit], facts: Facts) -> list[Hit]:
    """Return the hits, those near each other in one file made one at the place of the best of them."""
    places: dict[int, Hit] = {}
    by_file: dict[tuple[str, str], list[int]] = {}
    for rank, hit in enumerate(hits):
        by_file.setdefault((hit.repo, hit.path), []).append(rank)
    for file, ranks in by_file.items():
        for group in _neighbours([(rank, hits[rank]) for rank in ranks], facts.get(file)):
            places[min(rank for rank, _ in group)] = reduce(
                lambda one, two: _joined(one, two, facts.get(file)), (hit for _, hit in group)
            )
    return [places[rank] for rank in sorted(places)]


def _neighbours(ranked: list[tuple[int, Hit]], known: FileFacts | None) -> list[list[tuple[int, Hit]]]:
    """Return the hits of one file by line, in groups; what stands between two must be known to join them."""
    groups: list[list[tuple[int, Hit]]] = []
    end = 0
    for rank, hit in sorted(ranked, key=lambda item: (item[1].start_line, item[1].end_line)):
        if groups and hit.start_line <= end + 1 + (NEAR_LINES if known else 0):
            groups[-1].append((rank, hit))
        else:
            groups.append([(rank, hit)])
            end = 0
        end = max(end, hit.end_line)
    return groups


def _joined(one: Hit, two: Hit, known: FileFacts | None) -> Hit:
    """Return one hit over both, `one` starting first: named by the better, found by all channels that found either."""
    better = max(one, two, key=lambda hit: (hit.score, -hit.start_line))
    end = max(one.end_line, two.end_line)
    between = list(known.lines[one.end_line : two.start_line - 1]) if known else []
    behind = two.snippet.split("\n")[max(0, one.end_line - two.start_line + 1) :]
    contributions = {**one.contributions, **two.contributions, **better.contributions}
    fresh = {one.freshness, two.freshness}
    return replace(
        better,
        start_line=one.start_line,
        end_line=end,
        snippet="\n".join([*one.snippet.split("\n"), *between, *behind]),
        contributions=contributions,
        freshness=one.freshness if len(fresh) == 1 else next(f for f in _WORST if f in fresh),
    )


_WORST = (Freshness.MISSING, Freshness.EDITED, Freshness.UNKNOWN, Freshness.FRESH)


def _capped(hits: Iterable[Hit]) -> list[Hit]:
    """Return the hits without those of a file that has `PER_FILE` better ones."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for hit in hits:
        seen[hit.repo, hit.path] += 1
        if seen[hit.repo, hit.path] <= PER_FILE:
            kept.append(hit)
    return kept


def _fitting(hits: Sequence[Hit], count: Callable[[str], int], budget: int) -> list[Hit]:
    """Return the first hit, and of the others those that fit, most score a token first; all in their order."""
    if not hits:
        return []
    tokens = [max(1, count(hit.snippet)) for hit in hits]
    chosen, left = {0}, budget - tokens[0]
    for rank in sorted(range(1, len(hits)), key=lambda rank: (-hits[rank].score / tokens[rank], rank)):
        if tokens[rank] <= left:
            chosen.add(rank)
            left -= tokens[rank]
    return [hits[rank] for rank in sorted(chosen)]


def _passage(n: int, hit: Hit, known: FileFacts | None, tokens: int, permalink: str) -> Passage:
    """Return `hit` as source `n`. Facts that disagree with its text are of something else, and left out."""
    if known and "\n".join(known.lines[hit.start_line - 1 : hit.end_line]) != hit.snippet:
        known = None
    definitions = known.definitions if known else ()
    clean = bool(known and hit.commit and not known.revision.dirty)
    source = Source(
        n=n,
        chunk_id=hit.chunk_id,
        repo=hit.repo,
        commit=hit.commit,
        path=hit.path,
        start_line=hit.start_line,
        end_line=hit.end_line,
        symbol=hit.symbol,
        language=hit.language,
        content_sha256=sha256(hit.snippet),
        permalink=_link(permalink, hit) if permalink and clean else "",
        retrievers={name: part.rank for name, part in sorted(hit.contributions.items()) if part.rank is not None},
        score=round(hit.score, 6),
        tainted=is_tainted(f"{hit.path}\n{hit.snippet}"),
    )
    around = [d for d in definitions if d.start_line < hit.start_line <= d.end_line]
    inside = tuple(d for d in definitions if hit.start_line <= d.start_line <= hit.end_line)
    return Passage(source, hit.snippet, " › ".join(d.signature for d in around), tokens, inside, hit.freshness)


def _link(template: str, hit: Hit) -> str:
    return template.format(
        repo=quote(hit.repo), commit=hit.commit, path=quote(hit.path), start=hit.start_line, end=hit.end_line
    )
