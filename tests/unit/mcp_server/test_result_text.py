"""Results as text, within the tokens an agent wants to pay."""

from __future__ import annotations

import pytest

from codeintel_rev.mcp_server.envelope import Envelope, Hit, Method, Scope
from codeintel_rev.mcp_server.requests import SearchRequest
from codeintel_rev.mcp_server.text import CHARS_PER_TOKEN, of_search
from codeintel_rev.types import Freshness


def hit(place: int, lines: int, freshness: Freshness = Freshness.FRESH) -> Hit:
    return Hit(
        repo="shop",
        path=f"src/file{place}.py",
        start_line=1,
        end_line=lines,
        language="python",
        symbol="f",
        kind="function",
        snippet="\n".join(f"line {number} of the snippet" for number in range(lines)),
        score=1.0,
        freshness=freshness,
        why=("lexical #1",),
        chunk_id=place,
        commit="",
        uri="",
    )


def answer(*hits: Hit, next_cursor: str | None = None) -> Envelope:
    return Envelope(
        hits=hits,
        method=Method(plan="", channels=()),
        limits=(),
        scope=Scope(repos=(), paths=(), languages=(), kinds=()),
        generation={},
        trace_id="",
        next_cursor=next_cursor,
    )


@pytest.mark.parametrize("max_tokens", [100, 150, 300, 1000, 4000])
@pytest.mark.parametrize("next_cursor", [None, "c" * 150])
def test_the_text_never_exceeds_its_budget(max_tokens: int, next_cursor: str | None) -> None:
    told = of_search(
        answer(*(hit(place, 60) for place in range(20)), next_cursor=next_cursor),
        SearchRequest(query="x", max_tokens=max_tokens),
    )
    assert len(told.text) <= max_tokens * CHARS_PER_TOKEN


def test_what_does_not_fit_is_told_with_how_to_get_it() -> None:
    told = of_search(answer(hit(1, 500)), SearchRequest(query="x", max_tokens=300))
    assert told.truncated
    assert told.text.endswith("Truncated to 300 tokens: raise max_tokens, or open_file the lines above.")


def test_every_heading_comes_before_any_snippet_is_given_room() -> None:
    told = of_search(answer(*(hit(place, 200) for place in range(8))), SearchRequest(query="x", max_tokens=700))
    assert all(f"src/file{place}.py:1-200" in told.text for place in range(8))


def test_a_text_that_fits_is_whole() -> None:
    told = of_search(answer(hit(1, 3)), SearchRequest(query="x"))
    assert not told.truncated
    assert told.text.endswith("line 2 of the snippet")


def test_lines_edited_since_indexing_are_marked() -> None:
    told = of_search(answer(hit(1, 1, Freshness.EDITED)), SearchRequest(query="x"))
    assert "[edited since indexing]" in told.text


def test_no_hits_say_what_to_try_next() -> None:
    assert "search_text" in of_search(answer(), SearchRequest(query="x")).text
