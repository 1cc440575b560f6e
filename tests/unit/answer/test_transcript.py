"""What a model writes becomes text, citations and their checks, the same whatever pieces it comes in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.answer.events import Citation, CitationChecked, Limited, TextDelta
from codeintel_rev.answer.transcript import TRUNCATED, Transcript
from tests.answers import ADD, hit, packed

PASSAGES = packed(ADD, hit(19, 20, 0.9, symbol="Cart.total"), facts={}).passages


def told(*pieces: str) -> tuple[str, list[object]]:
    """Return the text, and the events that are no text."""
    transcript = Transcript(PASSAGES)
    events = [event for piece in pieces for event in transcript.feed(piece)] + transcript.finish()
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == transcript.text
    return text, [event for event in events if not isinstance(event, TextDelta)]


def statuses(text: str) -> list[str]:
    return [event.status for event in told(text)[1] if isinstance(event, CitationChecked)]


def test_a_marker_is_written_plainly_and_its_citation_follows_it() -> None:
    text, (citation, checked) = told("`add` puts an item into the cart ⟦1:L16-L17⟧.")
    assert text == "`add` puts an item into the cart [1]."
    assert citation == Citation(0, 1, 33, (0, 33), "exists", (16, 17))
    assert isinstance(checked, CitationChecked)


def test_a_number_without_a_source_is_taken_out_and_reported() -> None:
    """answers §3.3: numbers that do not exist must not be shown."""
    text, (citation,) = told("It adds ⟦7⟧.")
    assert text == "It adds."
    assert isinstance(citation, Citation)
    assert (citation.n, citation.status) == (7, "invalid")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("`Cart.add` raises `CartFull` when the items reach the limit ⟦1⟧.", "supported"),
        ("Puts an item into the cart. ⟦1⟧", "supported"),
        ("According to ⟦1⟧, `add` raises `CartFull`.", "supported"),
        ("`add` raises `CartFull` ⟦1:L99⟧.", "weak"),
        ("`add` writes the cart to Redis and publishes a message to Kafka ⟦1⟧.", "unsupported"),
        ("`total` sums prices by currency ⟦1⟧.", "unsupported"),
        ("`total` sums prices by currency ⟦2⟧.", "supported"),
    ],
)
def test_a_claim_is_checked_against_the_lines_it_cites(text: str, status: str) -> None:
    assert statuses(text) == [status]


def test_markers_side_by_side_stand_for_the_same_claim() -> None:
    _, events = told("`add` raises `CartFull` ⟦1⟧⟦2⟧. Then ⟦2⟧ sums prices.")
    claims = [event.claim for event in events if isinstance(event, Citation)]
    assert claims[0] == claims[1] == (0, 24)
    assert claims[2] == (31, 37)


def test_no_marker_becomes_a_link() -> None:
    assert told("It adds ⟦1⟧(see) and ⟦2⟧: done.")[0] == "It adds [1] (see) and [2] : done."


def test_a_marker_cut_off_is_a_limit() -> None:
    text, (limit,) = told("It adds ⟦1:L")
    assert text == "It adds ⟦1:L"
    assert isinstance(limit, Limited)
    assert limit.code == TRUNCATED


def test_a_sentence_is_over_behind_its_citations() -> None:
    transcript = Transcript(PASSAGES)
    ended = [
        (transcript.feed(piece), transcript.ends_sentence)[1]
        for piece in ("It adds", " it. ", "⟦1⟧", " Then", " x", ". ")
    ]
    assert ended == [False, True, True, False, False, True]


PIECES = st.sampled_from(
    ["⟦1⟧", "⟦9⟧", "[2]", "⟦", "add", " ", ". ", "\n", "`", "(", "https://x.y", "items", "⟦1:L16⟧", "é"]
)


@given(st.lists(PIECES, max_size=25).map("".join), st.lists(st.integers(0, 120), max_size=12))
def test_the_way_a_text_is_cut_changes_nothing(text: str, cuts: list[int]) -> None:
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    assert told(*(text[start:end] for start, end in pairwise(ends))) == told(text)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_every_citation_names_a_source_or_is_invalid_and_stands_at_its_marker(text: str) -> None:
    written, events = told(text)
    for citation in events:
        if isinstance(citation, Citation) and citation.status == "exists":
            assert written[citation.offset :].startswith(f"[{citation.n}]")
            assert 0 <= citation.claim[0] <= citation.claim[1] <= citation.offset
        elif isinstance(citation, Citation):
            assert not 1 <= citation.n <= len(PASSAGES)
