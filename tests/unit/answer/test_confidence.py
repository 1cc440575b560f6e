"""The more speaks for an answer the higher its confidence, and too little is no answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codeintel_rev.answer.confidence import Signals, abstains, confidence, signals
from codeintel_rev.answer.events import CitationCounts
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Contribution
from tests.answers import ADD, hit, packed
from tests.indexed import ask

BOTH = {"lexical": Contribution(1, 1.0, 1.0, 1.0), "dense": Contribution(2, 1.0, 1.0, 1.0)}


def test_signals_are_shares() -> None:
    second = hit(1, 1, 0.5, path="b.py", text="nothing")
    hits = [replace(ADD, contributions=BOTH), second]
    found = signals("does `Cart.add` raise `CartFull` or `Overflow` in kafka", hits, packed(*hits).passages)
    assert found.named == pytest.approx(2 / 3)
    assert found.agreement == 0.5
    assert found.margin == 0.5
    assert 0.5 < found.coverage < 0.9


def test_what_says_nothing_is_left_out() -> None:
    found = signals("put an item", [ADD], packed(ADD).passages)
    assert found == Signals(1.0, None, None, None)
    assert confidence(found) == 1.0


def test_a_question_of_common_words_only_is_covered_by_nothing() -> None:
    assert signals("what is it", [ADD], packed(ADD).passages).coverage == 0.0


def test_confidence_weighs_what_counts() -> None:
    assert confidence(Signals(0.8, 0.5, 1.0, 0.0)) == pytest.approx(0.5 * 0.8 + 0.2 * 0.5 + 0.2)


def test_citations_that_are_not_supported_halve_it_at_most() -> None:
    found = Signals(1.0, None, None, None)
    assert confidence(found, CitationCounts(4, 4)) == 1.0
    assert confidence(found, CitationCounts(4, 2)) == 0.75
    assert confidence(found, CitationCounts()) == 0.5


@pytest.mark.parametrize("question", ["How do I configure Kafka partitions?", "Where are GraphQL resolvers?"])
def test_what_the_index_does_not_hold_is_not_answered(served: Shards, question: str) -> None:
    hits = ask(served, question, limit=12).hits
    assert abstains(signals(question, hits, packed(*hits, facts={}).passages))


@pytest.mark.parametrize("question", ["How is an article put into the cart?", "Where is LineItem?", "declined payment"])
def test_what_it_holds_is(served: Shards, question: str) -> None:
    hits = ask(served, question, limit=12).hits
    assert not abstains(signals(question, hits, packed(*hits, facts={}).passages))
