"""Do the cited lines say it? The ladder every citation climbs, without a model (answers §3.3). Pure.

    exists      the number is one of the sources; else it is taken out of the text and reported
    range       the lines lie in the source; else they are clamped, and the citation is weak at best
    support     the claim's identifiers, words and numbers stand on the cited lines, the telling ones counting more
    taint       lines that speak to a model support nothing: weak at best
    freshness   the work tree still holds the lines; else stale

The hash is checked where sources are made (`pack`) and again by `resolve`. Support says that the lines hold the words,
not that the model drew on them (answers §3.3).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codeintel_rev.answer.events import CitationStatus, Evidence
from codeintel_rev.answer.pack import Passage, sha256
from codeintel_rev.errors import InvalidArgument
from codeintel_rev.io.code_tokens import COMMON_WEIGHT, query_weights, tokenize
from codeintel_rev.retrieval.plan import code_words
from codeintel_rev.types import Freshness

SUPPORTED, WEAK = 0.6, 0.3
"""The least overlap of a citation that is supported, and of one that is weak (answers §3.3)."""
_IDENTIFIER_WEIGHT = 2.0
_MOST_EVIDENCE = 5
_MARKER = re.compile(r"\[\d+\]")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Checked:
    """How a claim stands: `overlap` is the weighted share of its terms on the cited lines."""

    status: CitationStatus
    overlap: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """Where cited lines stand now: `current` where they were, `moved` within their file, `stale` nowhere in it.

    `unknown`: there is no work tree to look at. Lines are None where there are none.
    """

    state: Literal["current", "moved", "stale", "unknown"]
    start_line: int | None = None
    end_line: int | None = None


def rarity(passages: Sequence[Passage]) -> dict[str, float]:
    """Return how telling each term of the sources is, 1 for one that all hold; `terms` weighs those that none holds."""
    held = Counter(token for passage in passages for token in set(tokenize(passage.text)))
    return {token: _rarity(len(passages), found) for token, found in held.items()}


def terms(claim: str, rarities: Mapping[str, float], sources: int) -> dict[str, float]:
    """Return the terms of a claim with their weight, those of identifiers twice; empty when it says nothing."""
    said = _MARKER.sub(" ", claim)
    named = set(tokenize(" ".join(code_words(said))))
    return {
        token: rarities.get(token, _rarity(sources, 0)) * (_IDENTIFIER_WEIGHT if token in named else 1.0)
        for token, weight in query_weights(said).items()
        if weight != COMMON_WEIGHT
    }


def checked(weights: Mapping[str, float], passage: Passage, lines: tuple[int, int] | None) -> Checked:
    """Return how a claim of the terms `weights` stands on `lines` of `passage`, None for all of them.

    The source's path and symbol count as cited: the citation shows them.
    """
    source = passage.source
    first, last = clamped(passage, lines)
    shown = set(tokenize(f"{source.path} {source.symbol} {passage.breadcrumb}"))
    held = {
        number: set(tokenize(line)) & weights.keys()
        for number, line in enumerate(passage.lines(first, last), start=first)
    }
    found = (shown & weights.keys()).union(*held.values())
    overlap = math.fsum(weights[token] for token in found) / math.fsum(weights.values()) if weights else 0.0
    kept = lines is None or (first, last) == lines
    best: CitationStatus = "supported" if kept and not source.tainted else "weak"
    status: CitationStatus = best if overlap >= SUPPORTED else "weak" if overlap >= WEAK else "unsupported"
    ranked = sorted((number for number in held if held[number]), key=lambda number: (-len(held[number]), number))
    evidence = tuple(Evidence(number, tuple(sorted(held[number]))) for number in sorted(ranked[:_MOST_EVIDENCE]))
    return Checked(status, round(overlap, 3), evidence)


def clamped(passage: Passage, lines: tuple[int, int] | None) -> tuple[int, int]:
    """Return the part of `lines` that lies in `passage`; all of it when none does, or none are given."""
    source = passage.source
    first, last = lines or (source.start_line, source.end_line)
    first, last = max(first, source.start_line), min(last, source.end_line)
    return (first, last) if first <= last else (source.start_line, source.end_line)


def is_stale(passage: Passage, lines: tuple[int, int] | None, standing: Sequence[str] | None) -> bool:
    """Return whether the file as it stands now holds the cited lines nowhere; None for what cannot be told."""
    if passage.freshness is Freshness.FRESH or standing is None:
        return False
    first, last = clamped(passage, lines)
    return resolve(sha256("\n".join(passage.lines(first, last))), first, last, standing).state == "stale"


def resolve(content_sha256: str, start_line: int, end_line: int, standing: Sequence[str] | None) -> Resolution:
    """Return where lines with that hash, once `start_line` to `end_line`, stand in a file as it is now.

    Lines that stand in several places are taken where they are nearest to the old one. The hash is the anchor and the
    line a hint: lines that only look alike are never taken for them (answers §3.4). Raises InvalidArgument for a range
    that holds no line.
    """
    if not 1 <= start_line <= end_line:
        raise InvalidArgument(f"lines {start_line} to {end_line} are no range.", "Lines count from 1, first to last.")
    if standing is None:
        return Resolution("unknown")
    length = end_line - start_line + 1
    places = sorted(range(len(standing) - length + 1), key=lambda at: (abs(at + 1 - start_line), at))
    for at in places:
        if sha256("\n".join(standing[at : at + length])) == content_sha256:
            return Resolution("current" if at + 1 == start_line else "moved", at + 1, at + length)
    return Resolution("stale")


def unseen_names(text: str, passages: Sequence[Passage]) -> tuple[str, ...]:
    """Return the identifiers that an answer names outside code blocks and no source holds, in order, each once."""
    said = _MARKER.sub(" ", _FENCE.sub(" ", text))
    seen = "\n".join(f"{p.source.path} {p.source.symbol} {p.breadcrumb} {p.text}" for p in passages)
    words = set(re.findall(r"\w+", seen))
    return tuple(name for name in code_words(said) if not set(re.findall(r"\w+", name)) <= words)


def phantoms(names: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Return those of `names` of which the last part is no `known` symbol either."""
    return tuple(name for name in names if last_part(name) not in known)


def last_part(name: str) -> str:
    """Return what `ns::Class.method()` is called in a table of symbols."""
    found = re.findall(r"\w+", name)
    return found[-1] if found else name


def _rarity(sources: int, found: int) -> float:
    return 1.0 + math.log((sources + 1) / (found + 1))
