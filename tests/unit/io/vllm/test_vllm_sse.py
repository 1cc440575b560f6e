"""Events from bytes that arrive cut anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import UpstreamMalformed
from codeintel_rev.io.vllm.sse import MAX_EVENT, EventReader

STREAM = "\n\n".join(
    (
        ": keep-alive",
        'event: x\nid: 1\ndata: {"a": "é\u2028"}',
        "data:no space",
        "",
        "data: two\ndata: lines",
        "retry: 5",
        "data: [DONE]",
        "",
    )
).encode()
EVENTS = ['{"a": "é\u2028"}', "no space", "two\nlines", "[DONE]"]


def read(*chunks: bytes) -> list[str]:
    reader = EventReader("chat")
    return [event for chunk in chunks for event in reader.feed(chunk)]


@given(cuts=st.lists(st.integers(0, 2 * len(STREAM))), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_however_their_bytes_are_cut(cuts: list[int], newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert read(*(stream[start:end] for start, end in pairwise(places))) == EVENTS


def test_an_event_that_was_cut_off_is_none() -> None:
    assert read(b"data: one\n\ndata: two\n", b"data: three") == ["one"]


@pytest.mark.parametrize("prefix", [b"data: ", b": ", b"x", b"data: a\ndata: "])
def test_an_endless_line_is_refused_before_it_fills_the_memory(prefix: bytes) -> None:
    """F27: a 10 MB line."""
    with pytest.raises(UpstreamMalformed, match="more than"):
        read(prefix, *[b"x" * 65536] * (MAX_EVENT // 65536 + 1))


def test_endless_lines_of_one_event_are_refused() -> None:
    with pytest.raises(UpstreamMalformed, match="more than"):
        read(*[b"data: " + b"x" * 1000 + b"\n"] * (MAX_EVENT // 1000 + 1))


def test_comments_may_come_for_ever() -> None:
    """A server that keeps a connection alive for an hour is no attacker."""
    assert read(*[b": keep-alive\n\n"] * (MAX_EVENT // 10), b"data: x\n\n") == ["x"]


def test_text_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(UpstreamMalformed, match="UTF-8"):
        read(b"data: \xff\n\n")
