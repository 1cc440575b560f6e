"""Citation markers are found in whatever pieces a text comes, in one pass."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.answer.markers import HOLD_BACK, Marker, MarkerParser, Piece, Truncated

ALPHABET = "⟦⟧[]【】［］0123:L-–, `\n.ab_)é"


def parsed(*pieces: str) -> list[Piece]:
    """Return what a parser says of a text fed in these pieces, adjacent texts joined."""
    parser = MarkerParser()
    said = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    joined: list[Piece] = []
    for part in said:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def cited(text: str) -> list[tuple[int, tuple[int, int] | None]]:
    return [(part.n, part.lines) for part in parsed(text) if isinstance(part, Marker)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It adds ⟦3⟧.", [(3, None)]),
        ("It adds ⟦3:L120-L134⟧.", [(3, (120, 134))]),
        ("It adds ⟦3:L120⟧.", [(3, (120, 120))]),
        ("It adds ⟦3:120–134⟧.", [(3, (120, 134))]),
        ("It adds ⟦1, 2⟧.", [(1, None), (2, None)]),
        ("It adds [3], [[4]], 【5】 and ［6］.", [(3, None), (4, None), (5, None), (6, None)]),
        ("It adds [1][2].", [(1, None), (2, None)]),
        ("It adds.[1]", [(1, None)]),
        ("An invented ⟦999⟧ is a marker; who reads it finds no such source.", [(999, None)]),
    ],
)
def test_a_marker_is_read_in_every_form(text: str, found: list[object]) -> None:
    assert cited(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "argv[1] is the name",
        "rows[0][3]",
        "f(x)[2]",
        "the list [1, 2]",
        "`a = b [3]`",
        "``a ` [3]``",
        "```\nx = [3]\n```",
        "[link](3)",
        "[x]",
        "⟦⟧",
        "⟦three⟧",
        "[[3, 4]]",
    ],
)
def test_what_only_looks_like_a_marker_is_text(text: str) -> None:
    assert parsed(text) == [text]


def test_the_marker_asked_for_counts_in_code_too() -> None:
    assert cited("`add()⟦1⟧`") == [(1, None)]


def test_behind_code_markers_count_again() -> None:
    assert cited("```\nx = [3]\n```\nIt sets x [3].") == [(3, None)]
    assert cited("a stray ` in a paragraph [1]\n\nThe next one [2].") == [(2, None)]


def test_a_marker_cut_off_at_the_end_is_text_and_told() -> None:
    assert parsed("It adds ⟦3:L1") == ["It adds ⟦3:L1", Truncated("⟦3:L1")]
    assert parsed("It adds [") == ["It adds ["]


def test_no_more_is_held_back_than_a_marker_may_be_long() -> None:
    parser = MarkerParser()
    fed = "⟦" + "1" * 100
    said = "".join(part for part in parser.feed(fed) if isinstance(part, str))
    assert len(fed) - len(said) <= HOLD_BACK


@given(st.text(ALPHABET, max_size=80), st.lists(st.integers(0, 80), max_size=12))
def test_the_way_a_text_is_cut_changes_nothing(text: str, cuts: list[int]) -> None:
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(ends)]
    assert parsed(*pieces) == parsed(text)


@given(st.text(ALPHABET, max_size=80))
def test_nothing_of_a_text_is_lost(text: str) -> None:
    raws: list[str] = []
    for part in parsed(text):
        if isinstance(part, str):
            raws.append(part)
        elif isinstance(part, Marker) and (not raws or raws[-1] != part.raw or "," not in part.raw):
            raws.append(part.raw)
    assert "".join(raws) == text
