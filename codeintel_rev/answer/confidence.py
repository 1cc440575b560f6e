"""How far can an answer be trusted, and is there enough to answer at all? A plain formula over what was found.

    coverage   share of the question's words (identifiers count twice, common words nothing) in the best sources
    named      share of the question's identifiers that the sources hold; left out when it names none
    agreement  share of the best hits that two channels or more found; left out when one channel answered
    margin     how far the best score is ahead of the second, as a share of it

    before a model: .5 coverage + .2 named + .2 agreement + .1 margin, over the weights of those that count
    after one:      that, times (1 + share of its citations that are supported) / 2

It is a ranking of answers by how much speaks for them, not a probability. Over 81 questions, each asked of its own
repository and of another, the own answer is ahead in 88 of 100 pairs; none of the own is refused, 42 % of the others
(`benchmarks/answers.py`; 0.6 instead of 0.4 would refuse 6 % and 60 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from codeintel_rev.answer.citations import terms
from codeintel_rev.answer.events import CitationCounts
from codeintel_rev.answer.pack import Passage
from codeintel_rev.io.code_tokens import tokenize
from codeintel_rev.retrieval.plan import code_words
from codeintel_rev.types import Hit

BEST = 5
"""Hits and sources looked at."""
ENOUGH = 0.4
"""The coverage below which a question whose identifiers were not found is not answered."""
_WEIGHTS = {"coverage": 0.5, "named": 0.2, "agreement": 0.2, "margin": 0.1}


@dataclass(frozen=True, slots=True)
class Signals:
    """What speaks for an answer, each from 0 to 1; None where it says nothing."""

    coverage: float
    named: float | None
    agreement: float | None
    margin: float | None


def signals(question: str, hits: Sequence[Hit], passages: Sequence[Passage]) -> Signals:
    """Return the signals of a question and what was found for it."""
    best = passages[:BEST]
    held = {token for p in best for token in tokenize(f"{p.source.path} {p.source.symbol} {p.breadcrumb} {p.text}")}
    asked = terms(question, {}, 0)
    names = [set(tokenize(name)) for name in code_words(question)]
    ranks = [[part.rank for part in hit.contributions.values() if part.rank is not None] for hit in hits[:BEST]]
    channels = {name for hit in hits for name, part in hit.contributions.items() if part.rank is not None}
    scores = [hit.score for hit in hits[:2]]
    return Signals(
        coverage=sum(asked[term] for term in asked if term in held) / sum(asked.values()) if asked else 0.0,
        named=sum(name <= held for name in names) / len(names) if names else None,
        agreement=sum(len(found) > 1 for found in ranks) / len(ranks) if len(channels) > 1 else None,
        margin=max(0.0, 1 - scores[1] / scores[0]) if len(scores) > 1 and scores[0] > 0 else None,
    )


def confidence(found: Signals, citations: CitationCounts | None = None) -> float:
    """Return a number from 0 to 1; `citations` are those of a model's text, if one wrote it."""
    counting: dict[str, float] = {name: value for name, value in asdict(found).items() if value is not None}
    before = sum(_WEIGHTS[name] * value for name, value in counting.items()) / sum(_WEIGHTS[name] for name in counting)
    if citations is None:
        return round(before, 3)
    supported = citations.supported / citations.total if citations.total else 0.0
    return round(before * (1 + supported) / 2, 3)


def abstains(found: Signals) -> bool:
    """Return whether too little speaks for an answer: models seldom say so themselves (answers §6)."""
    return not found.named and found.coverage < ENOUGH
