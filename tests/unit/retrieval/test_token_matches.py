"""Why hits match, token by token, over real shards with the embedded model's tokens."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from codeintel_rev.mcp_server.envelope import envelope
from codeintel_rev.retrieval.searcher import NONE
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.retrieval.token_matches import HITS, MATCHES, Explaining, explained
from codeintel_rev.types import Scope, SearchResult
from tests.indexed import LONG_MS, Place, ask

QUESTION = "how is a credit card charged"


def explaining(shards: Shards, query: str = QUESTION, positions: range = range(8)) -> SearchResult:
    return shards.search(query, Scope(), 8, deadline_ms=LONG_MS, explained=positions)


def test_the_same_word_and_its_inflections_meet(served: Shards) -> None:
    """A12, A13: strongest first, common words last."""
    met = {(match.query_token, match.document_token) for match in explaining(served).hits[0].token_matches}
    assert met == {("credit", "credit"), ("card", "card"), ("charged", "Charging")}


def test_a_match_stands_where_it_says(served: Shards, corpus: Place) -> None:
    """A13: path, line and column of the work tree."""
    for hit in explaining(served).hits:
        for match in hit.token_matches:
            lines = (corpus.tree(hit.repo) / match.path).read_text(encoding="utf-8").split("\n")
            assert lines[match.line - 1][match.column - 1 :].startswith(match.document_token)
            assert hit.start_line <= match.line <= hit.end_line


def test_shares_are_parts_of_one_score(served: Shards) -> None:
    shares = [match.share for match in explaining(served).hits[0].token_matches]
    assert 0 < sum(shares) <= 1 + 1e-6
    assert all(share > 0 for share in shares)


def test_a_few_hits_of_the_page_shown_are_explained(served: Shards) -> None:
    """A21: at most five hits, three matches each."""
    for positions in (range(8), range(2, 8)):
        hits = explaining(served, positions=positions).hits
        told = [place for place, hit in enumerate(hits) if hit.token_matches]
        assert told == list(positions)[:HITS]
        assert all(len(hit.token_matches) <= MATCHES for hit in hits)


def test_explaining_adds_one_reason_and_changes_nothing_else(served: Shards) -> None:
    """A14, A22."""
    plain, told = explaining(served, positions=NONE), explaining(served)
    assert told.hits[0].why[-1].startswith("tokens credit→credit 0.")
    undone = [replace(hit, token_matches=(), why=hit.why[:-1]) if hit.token_matches else hit for hit in told.hits]
    assert undone == list(plain.hits)
    assert (told.limits, told.channels, told.generations) == (plain.limits, plain.channels, plain.generations)


def test_nothing_of_it_is_sent_unasked(served: Shards) -> None:
    """A22: clients that do not ask see the fields they knew."""
    asked = envelope(explaining(served), "trace", explain=True, next_cursor=None).payload()
    unasked = envelope(explaining(served, positions=NONE), "trace", explain=False, next_cursor=None).payload()
    assert asked["hits"][0]["token_matches"][0]["path"] == "shop/payment.py"  # type: ignore[index]
    assert "token_matches" not in str(unasked)


@pytest.mark.parametrize("query", ["card " * 1638, "card\x00charge\x1b", "card \ud800", "支払い card"])
def test_a_hostile_query_is_explained(served: Shards, query: str) -> None:
    result = explaining(served, query)
    assert result.limits == ()
    assert result.hits[0].token_matches


def test_a_model_that_cannot_be_opened_is_a_limit(corpus: Place, tmp_path: Path) -> None:
    """A04, A45: met when somebody asks for it, not before, and without touching the hits."""
    settings = corpus.settings
    broken = settings.model_copy(
        update={"xtr": settings.xtr.model_copy(update={"model": str(tmp_path), "enable": False})}
    )
    shards = Shards(corpus.data_dir, None, broken)
    shards.refresh()
    plain, told = explaining(shards, positions=NONE), explaining(shards)
    shards.close()
    assert plain.limits == ()
    assert [limit.stage for limit in told.limits] == ["explain"]
    assert told.hits == plain.hits


def test_an_explanation_that_is_late_is_a_limit(served: Shards) -> None:
    result = ask(served, QUESTION, limit=3)
    end = Event()
    with ThreadPoolExecutor(1) as busy, served.lease(()) as shards:
        busy.submit(end.wait)
        by = Explaining(lambda: pytest.fail("it was given up"), busy, time.monotonic())
        told = explained(result, QUESTION, range(3), shards, by)
        end.set()
    assert [limit.code for limit in told.limits] == ["deadline-exceeded"]
    assert told.hits == result.hits
