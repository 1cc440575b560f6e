"""Every line that matches, once, in order; no pattern can make it slow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import InvalidArgument, QueryTooComplex
from codeintel_rev.navigation.text import MAX_PATTERN_CHARS, TextMatch, TextQuery, find_lines, prefilter, with_context

LINES = ["import os", "", "def run(path):", "    return os.run(path)  # ÉTÉ run", "x = (a+b)"]
ROWS = [("a.py", 1, "\n".join(LINES)), ("b.py", 1, "RUN = 1"), ("b.py", 8, "run(2)")]


def places(query: TextQuery, rows: list[tuple[str, int, str]] = ROWS) -> list[tuple[str, int, int]]:
    return [(match.path, match.line, match.column) for match in find_lines(rows, query, 100, None).matches]


def test_a_literal_is_found_in_any_case() -> None:
    assert places(TextQuery("run")) == [("a.py", 3, 5), ("a.py", 4, 15), ("b.py", 1, 1), ("b.py", 8, 1)]


def test_case_can_be_told_apart() -> None:
    assert places(TextQuery("RUN", case_sensitive=True)) == [("b.py", 1, 1)]


def test_a_literal_s_metacharacters_are_itself() -> None:
    assert places(TextQuery("(a+b)")) == [("a.py", 5, 5)]


def test_columns_count_characters() -> None:
    assert places(TextQuery("été run")) == [("a.py", 4, 28)]


@pytest.mark.parametrize(
    ("pattern", "lines"), [(r"^def \w+", [3]), (r"\)$", [5]), (r"\Aimport", [1]), (r"^$", [2]), (r"os.*run", [4])]
)
def test_a_regular_expression_sees_one_line_at_a_time(pattern: str, lines: list[int]) -> None:
    assert [line for path, line, _ in places(TextQuery(pattern, regex=True), ROWS[:1])] == lines


def test_a_line_in_two_overlapping_rows_is_found_once() -> None:
    rows = [("a.py", 1, "run\nrun"), ("a.py", 2, "run\nrun"), ("a.py", 2, "run")]
    assert [line for _, line, _ in places(TextQuery("run"), rows)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "context", "before", "after"),
    [(2, 1, ("one",), ("",)), (1, 2, (), ("two", "")), (4, 9, ("one", "two", ""), ()), (2, 0, (), ())],
)
def test_context_is_the_lines_next_to_a_match(
    line: int, context: int, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    lines = ["one", "two", "", "four"]
    match = TextMatch("a.py", line, 1, lines[line - 1])
    assert with_context(match, lines, context) == replace(match, before=before, after=after)


def test_pages_join_to_all_matches() -> None:
    joined = []
    page = find_lines(ROWS, TextQuery("run"), 1, None)
    joined.extend(page.matches)
    while page.next_after is not None:
        page = find_lines(ROWS, TextQuery("run"), 1, page.next_after)
        joined.extend(page.matches)
    assert tuple(joined) == find_lines(ROWS, TextQuery("run"), 100, None).matches


def test_a_page_that_ends_with_the_last_match_has_no_next() -> None:
    assert find_lines(ROWS, TextQuery("run"), 4, None).next_after is None


def test_no_more_rows_are_read_than_the_page_needs() -> None:
    rows = iter([("a.py", 1, "run"), ("b.py", 1, "run"), ("c.py", 1, "run"), ("d.py", 1, "run")])
    find_lines(rows, TextQuery("run"), 1, None)
    assert [path for path, _, _ in rows] == ["d.py"]


@pytest.mark.parametrize(("pattern", "where"), [("ab**", "character 3"), ("[z-a]", "'z-a'"), ("x(?=y)", "character 2")])
def test_a_malformed_pattern_is_refused_with_the_place(pattern: str, where: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(where)):
        TextQuery(pattern, regex=True)


@pytest.mark.parametrize("pattern", ["", "two\nlines", "\ud800"])
def test_a_pattern_that_no_line_can_hold_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        TextQuery(pattern)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "pattern",
    [
        "((a{100}){100}){100}",
        "x{1001}",
        r"(\pL{100}){10}",
        "(?:a{0,1000})" * 30,
        "(?:é{0,1000})" * 70,
        "a" * (MAX_PATTERN_CHARS + 1),
    ],
)
def test_a_bomb_is_too_complex(pattern: str) -> None:
    """F38, S20: refused when compiled, before any text is read."""
    with pytest.raises(QueryTooComplex):
        TextQuery(pattern, regex=True)


def test_the_longest_pattern_allowed_is_taken() -> None:
    """F38."""
    query = TextQuery("a" * MAX_PATTERN_CHARS)
    assert places(query, [("a.py", 1, "a" * MAX_PATTERN_CHARS)]) == [("a.py", 1, 1)]


@pytest.mark.timeout(10)
def test_a_pattern_made_to_backtrack_is_matched_in_linear_time() -> None:
    """F38, S20: the standard library's `re` takes seconds for 26 characters."""
    assert places(TextQuery("(a+)+$", regex=True), [("a.py", 1, "a" * 100_000 + "b")]) == []


def test_a_page_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        find_lines(ROWS, TextQuery("x"), 0, None)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


PATTERNS = ["^b", "b$", "^$", r"\Ab", r"b\z", "a.b", "B", "(?-m)^b", r"\Qb", r"\bb\b", "[^a]b", "É", "(?s)a.*b", r"\s"]


@given(
    text=st.lists(st.text(alphabet="abÉé B(", max_size=5), min_size=1, max_size=4).map("\n".join),
    pattern=st.sampled_from(PATTERNS) | st.text(alphabet="abÉ(", min_size=1, max_size=3).map(re.escape),
    regex=st.booleans(),
    case_sensitive=st.booleans(),
)
def test_the_prefilter_keeps_every_row_that_has_a_match(
    connection: duckdb.DuckDBPyConnection, text: str, pattern: str, regex: bool, case_sensitive: bool
) -> None:
    """A row dropped by SQL would be a match silently lost."""
    query = TextQuery(pattern, regex, case_sensitive)
    function, argument = prefilter(query)
    kept = connection.execute(f"SELECT {function}(?, ?)", [text, argument]).fetchall()[0][0]
    assert kept or not places(query, [("a.py", 1, text)])
