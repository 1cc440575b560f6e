"""Exact reads of real shards: what is found is what grep finds, what is opened is what stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import CodeIntelError, GenerationGone, InvalidArgument, NotFound
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.navigation.cursor import Cursor, digest, encode
from codeintel_rev.navigation.navigator import FoundText
from codeintel_rev.navigation.opened import OpenedNavigator
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Freshness, Scope
from tests.indexed import CORPUS, REPOSITORIES, Place, chunks_of, new_place, plant

FILES = {
    (repo, path.relative_to(CORPUS / folder).as_posix()): path.read_text(encoding="utf-8")
    .removesuffix("\n")
    .split("\n")
    for repo, folder in REPOSITORIES.items()
    for path in sorted((CORPUS / folder).rglob("*"))
    if path.is_file()
}
LANGUAGES = {"py": "python", "ts": "typescript", "go": "go", "rs": "rust", "md": "markdown"}
WORDS = sorted({word for lines in FILES.values() for line in lines for word in re.findall(r"\w+|[^\w\s]+", line)})
MAX_LINES = 20
DEADLINE_S = 60.0


def navigator_over(shards: Shards) -> OpenedNavigator:
    return OpenedNavigator(shards, MAX_LINES, DEADLINE_S)


@pytest.fixture(scope="module")
def navigator(served: Shards) -> OpenedNavigator:
    return navigator_over(served)


@contextmanager
def navigating(place: Place) -> Iterator[tuple[OpenedNavigator, Shards]]:
    with place.opened() as shards:
        yield navigator_over(shards), shards


def found(
    navigator: OpenedNavigator,
    pattern: str,
    scope: Scope = Scope(),  # noqa: B008 (a frozen value)
    *,
    regex: bool = False,
    case_sensitive: bool = True,
    limit: int = 1000,
    context_lines: int = 0,
    cursor: str = "",
) -> FoundText:
    return navigator.search_text(
        pattern,
        regex=regex,
        case_sensitive=case_sensitive,
        scope=scope,
        limit=limit,
        context_lines=context_lines,
        cursor=cursor,
    )


def lines_of(answer: FoundText) -> list[tuple[str, str, int]]:
    return [(repo, match.path, match.line) for repo, match in answer.matches]


def grep(pattern: str, scope: Scope = Scope(), *, case_sensitive: bool = True) -> list[tuple[str, str, int]]:  # noqa: B008
    """Return every line that is not blank and matches, read from the corpus itself."""
    expression = re.compile(pattern, 0 if case_sensitive else re.IGNORECASE)
    return [
        (repo, path, number)
        for (repo, path), lines in sorted(FILES.items())
        if (not scope.repos or repo in scope.repos)
        and PathMatcher(scope.paths).matches(path)
        and (not scope.languages or LANGUAGES[path.rpartition(".")[2]] in scope.languages)
        for number, line in enumerate(lines, 1)
        if line.strip() and expression.search(line)
    ]


def pages(navigator: OpenedNavigator, pattern: str, limit: int, scope: Scope = Scope()) -> list[FoundText]:  # noqa: B008
    answers = [found(navigator, pattern, scope, limit=limit)]
    while answers[-1].next_cursor:
        answers.append(found(navigator, pattern, scope, limit=limit, cursor=answers[-1].next_cursor))
    return answers


# Text

FRAGMENTS = st.builds(
    lambda line, start, length: line[start : start + length],
    st.sampled_from([line for lines in FILES.values() for line in lines if line.strip()]),
    st.integers(0, 30),
    st.integers(1, 12),
).filter(str.strip)


@given(FRAGMENTS, st.booleans())
def test_a_literal_is_found_where_grep_finds_it(navigator: OpenedNavigator, pattern: str, case_sensitive: bool) -> None:
    answer = found(navigator, pattern, case_sensitive=case_sensitive)
    assert lines_of(answer) == grep(re.escape(pattern), case_sensitive=case_sensitive)
    assert answer.next_cursor is None


EXPRESSIONS = st.lists(
    st.sampled_from([*map(re.escape, WORDS), r"\w+", r"\bfor\b", ".", "^ ", r"\d+$", "(a|e)", "[A-Z]", r"\S", "x?"]),
    min_size=1,
    max_size=3,
).map("".join)


@given(EXPRESSIONS, st.booleans())
def test_a_regular_expression_matches_what_grep_matches(
    navigator: OpenedNavigator, pattern: str, case_sensitive: bool
) -> None:
    """Blank lines lie in no chunk, or in one by chance: they are no lines to look for."""
    answer = found(navigator, pattern, regex=True, case_sensitive=case_sensitive)
    shown = [place for place, (_, match) in zip(lines_of(answer), answer.matches, strict=True) if match.text.strip()]
    assert shown == grep(pattern, case_sensitive=case_sensitive)


@given(
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(["*.py", "web/", "!*.test.ts", "src/**", "!ledger/", "docs"]), max_size=2).map(tuple),
    st.lists(st.sampled_from(list(LANGUAGES.values())), max_size=2).map(tuple),
    st.lists(st.sampled_from(list(REPOSITORIES)), max_size=2, unique=True).map(tuple),
)
def test_a_scope_is_kept(
    navigator: OpenedNavigator, word: str, paths: tuple[str, ...], languages: tuple[str, ...], repos: tuple[str, ...]
) -> None:
    scope = Scope(repos=repos, paths=paths, languages=languages)
    assert lines_of(found(navigator, word, scope)) == grep(re.escape(word), scope)


def test_a_match_shows_its_line_and_column(navigator: OpenedNavigator) -> None:
    (repo, match), *_ = found(navigator, "add_item").matches
    assert (repo, match.path, match.text) == ("shop", "shop/cart.py", FILES[repo, match.path][match.line - 1])
    assert match.text[match.column - 1 :].startswith("add_item")


@pytest.mark.parametrize("context", [1, 3, 20])
def test_context_is_the_lines_around_a_match_blank_ones_too(navigator: OpenedNavigator, context: int) -> None:
    answer = found(navigator, "def ", context_lines=context)
    assert lines_of(answer) == grep("def ")
    for repo, match in answer.matches:
        lines, at = FILES[repo, match.path], match.line - 1
        assert match.before == tuple(lines[max(0, at - context) : at])
        assert match.after == tuple(lines[at + 1 : at + 1 + context])


@pytest.mark.parametrize("context", [0, 2])
def test_a_match_lies_in_the_kinds_asked_for(navigator: OpenedNavigator, served: Shards, context: int) -> None:
    """Context reaches out of a chunk, matches do not."""
    scope = Scope(kinds=("method",))
    inside = {
        (chunk.repo, chunk.path, line)
        for chunk in chunks_of(served)
        if chunk.kind == "method"
        for line in range(chunk.start_line, chunk.end_line + 1)
    }
    answer = found(navigator, "item", scope, context_lines=context)
    assert set(lines_of(answer)) == inside & set(grep("item"))
    assert answer.matches


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("pattern", ["cart", "the ", "return", "nothing at all"])
def test_pages_show_everything_once(navigator: OpenedNavigator, pattern: str, limit: int) -> None:
    answers = pages(navigator, pattern, limit)
    assert [place for answer in answers for place in lines_of(answer)] == grep(re.escape(pattern))
    assert all(len(answer.matches) == limit for answer in answers[:-1])


def test_pages_go_on_over_more_chunks_than_one_fetch(tmp_path: Path) -> None:
    place = new_place(tmp_path)
    bodies = "\n\n\n".join(f'def number_{n}():\n    """Count."""\n' + f"    return {n}\n" * 40 for n in range(300))
    place.write("big", "many.py", bodies)
    place.index("big")
    with navigating(place) as (navigator, shards):
        assert len(chunks_of(shards)) > 256
        names = [match.text for answer in pages(navigator, "def number_", 130) for _, match in answer.matches]
    assert names == [f"def number_{n}():" for n in range(300)]


@pytest.mark.parametrize("pattern", ["", "a\nb", "\ud800", "x" * 1001])
def test_a_pattern_that_cannot_be_looked_for_is_refused(navigator: OpenedNavigator, pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        found(navigator, pattern)


def test_an_unknown_repository_is_not_found(navigator: OpenedNavigator) -> None:
    with pytest.raises(NotFound):
        found(navigator, "cart", Scope(repos=("nobody/knows",)))


def test_a_repository_named_twice_is_read_once(navigator: OpenedNavigator) -> None:
    assert lines_of(found(navigator, "cart", Scope(repos=("shop", "shop")))) == grep("cart", Scope(repos=("shop",)))


# Cursors


def test_a_cursor_goes_on_with_its_own_question_only(navigator: OpenedNavigator) -> None:
    cursor = found(navigator, "cart", limit=1).next_cursor or ""
    for pattern, scope in (("item", Scope()), ("cart", Scope(repos=("shop",))), ("cart", Scope(paths=("*.py",)))):
        with pytest.raises(InvalidArgument, match="another question"):
            found(navigator, pattern, scope, limit=1, cursor=cursor)
    with pytest.raises(InvalidArgument, match="another question"):
        navigator.list_paths("shop", "", Scope(), 1, cursor)


FORGED = {
    "no JSON": "x",
    "a number": "5",
    "too short": '["shop"]',
    "no line": '["shop", "a", null]',
    "infinite line": '["shop", "a", Infinity]',
    "huge line": f'["shop", "shop/cart.py", {"9" * 40}]',
    "negative line": '["shop", "shop/cart.py", -9223372036854775809]',
    "no Unicode": '["shop", "\\ud800", 1]',
    "deep": "[" * 100_000,
    "NUL": '["shop", "a\\u0000b", 1]',
    "long digits": f'["shop", "a", {"9" * 5000}]',
}


@pytest.mark.parametrize("position", FORGED.values(), ids=FORGED)
def test_a_forged_cursor_is_refused_or_only_goes_on_elsewhere(navigator: OpenedNavigator, position: str) -> None:
    """S19: whoever reads this source can make a cursor; all it can do is begin at another place."""
    question = digest("cart", False, True, (), (), (), ())
    try:
        answer = found(navigator, "cart", cursor=encode(Cursor(position, question, {})))
    except InvalidArgument:
        return
    assert set(lines_of(answer)) <= set(grep("cart"))


def test_a_cursor_of_a_generation_that_is_gone_says_so(tmp_path: Path) -> None:
    place = plant(new_place(tmp_path), "shop")
    with navigating(place) as (navigator, shards):
        text = found(navigator, "cart", limit=1)
        paths = navigator.list_paths("shop", "", Scope(), 1, "")
        place.write("shop", "new.py", "cart = 1\n")
        place.index("shop")
        assert found(navigator, "cart", limit=1, cursor=text.next_cursor or "").generations == text.generations
        shards.refresh()
        with pytest.raises(GenerationGone):
            found(navigator, "cart", limit=1, cursor=text.next_cursor or "")
        with pytest.raises(GenerationGone):
            navigator.list_paths("shop", "", Scope(), 1, paths.next_cursor or "")


# Files


@pytest.mark.parametrize(("repo", "path"), FILES)
def test_a_file_is_shown_as_it_stands(navigator: OpenedNavigator, repo: str, path: str) -> None:
    lines = FILES[repo, path]
    read = navigator.open_file(repo, path, 1, None).lines
    assert (read.start_line, read.total_lines, read.freshness) == (1, len(lines), Freshness.FRESH)
    assert read.text.split("\n") == lines[:MAX_LINES]
    assert read.truncated is (len(lines) > MAX_LINES)


@pytest.mark.parametrize(
    ("start", "end", "shown"), [(3, 5, (3, 5)), (1, 1, (1, 1)), (20, 999, (20, 22)), (22, None, (22, 22))]
)
def test_a_range_is_cut_at_the_file_s_end(
    navigator: OpenedNavigator, start: int, end: int | None, shown: tuple[int, int]
) -> None:
    read = navigator.open_file("shop", "shop/discounts.py", start, end).lines
    lines = FILES["shop", "shop/discounts.py"]
    assert (read.start_line, read.end_line) == shown
    assert read.text == "\n".join(lines[shown[0] - 1 : shown[1]])
    assert not read.truncated


@pytest.mark.parametrize(("start", "end"), [(0, None), (-1, 3), (5, 4), (23, None)])
def test_a_range_without_a_line_is_refused(navigator: OpenedNavigator, start: int, end: int | None) -> None:
    with pytest.raises(InvalidArgument):
        navigator.open_file("shop", "shop/discounts.py", start, end)


@pytest.mark.parametrize(
    "path", [".env", "nowhere.py", "../shop/shop/cart.py", "/etc/hostname", "shop", "", ".", "shop/cart.py/", "a\0b"]
)
def test_what_is_not_indexed_is_not_opened(navigator: OpenedNavigator, path: str) -> None:
    """S15: a file of secrets, which stands in the tree, looks like one that does not exist."""
    with pytest.raises(NotFound, match="no file"):
        navigator.open_file("shop", path, 1, None)


def test_a_lone_surrogate_in_a_path_is_no_file(navigator: OpenedNavigator) -> None:
    with pytest.raises(CodeIntelError) as raised:
        navigator.open_file("shop", "\ud800", 1, None)
    assert raised.value.status in (400, 404)


def test_an_edited_file_is_shown_as_it_stands_now(tmp_path: Path) -> None:
    place = plant(new_place(tmp_path), "shop")
    place.write("shop", "shop/cart.py", "edited = True\n")
    with navigating(place) as (navigator, _):
        read = navigator.open_file("shop", "shop/cart.py", 1, None).lines
    assert (read.text, read.freshness) == ("edited = True", Freshness.EDITED)


@pytest.mark.parametrize("path", [path for repo, path in FILES if repo == "shop"])
def test_a_file_that_is_gone_is_shown_as_it_was_indexed(lost: OpenedNavigator, path: str) -> None:
    read = lost.open_file("shop", path, 1, None).lines
    assert read.freshness is Freshness.MISSING
    assert read.text.split("\n") == FILES["shop", path][:MAX_LINES]


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedNavigator]:
    """A navigator whose work tree is empty by now."""
    place = plant(new_place(tmp_path_factory.mktemp("lost")), "shop")
    place.tree("shop").rename(place.trees / "elsewhere")
    place.tree("shop").mkdir()
    with navigating(place) as (navigator, _):
        yield navigator


def test_a_file_replaced_by_a_link_to_secrets_is_not_followed(tmp_path: Path) -> None:
    """S14: the link's target is not read, what was indexed is."""
    place = plant(new_place(tmp_path), "shop")
    cart = place.tree("shop") / "shop/cart.py"
    cart.unlink()
    cart.symlink_to(place.tree("shop") / ".env")
    with navigating(place) as (navigator, _):
        read = navigator.open_file("shop", "shop/cart.py", 1, None).lines
    assert read.freshness is Freshness.MISSING
    assert "hunter2" not in read.text


def test_secrets_are_in_no_text_and_no_list(navigator: OpenedNavigator) -> None:
    """S15."""
    assert found(navigator, "hunter2").matches == ()
    assert ".env" not in navigator.list_paths("shop", "", Scope(), 1000, "").page.paths


# Paths


def test_every_indexed_file_is_listed(navigator: OpenedNavigator) -> None:
    for repo in REPOSITORIES:
        listed = navigator.list_paths(repo, "", Scope(), 1000, "")
        assert list(listed.page.paths) == [path for of, path in sorted(FILES) if of == repo]
        assert listed.next_cursor is None


@pytest.mark.parametrize(
    ("under", "scope", "expected"),
    [
        ("web", Scope(), ["web/cartView.ts", "web/money.test.ts", "web/money.ts"]),
        ("web/", Scope(paths=("!*.test.ts",)), ["web/cartView.ts", "web/money.ts"]),
        ("", Scope(languages=("markdown",)), ["docs/checkout.md"]),
        ("we", Scope(), []),
        ("../org-ledger", Scope(), []),
    ],
)
def test_a_list_is_of_what_was_asked(navigator: OpenedNavigator, under: str, scope: Scope, expected: list[str]) -> None:
    assert list(navigator.list_paths("shop", under, scope, 10, "").page.paths) == expected


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_of_paths_list_everything_once(navigator: OpenedNavigator, limit: int) -> None:
    listed, cursor = [], ""
    while True:
        answer = navigator.list_paths("shop", "", Scope(), limit, cursor)
        listed += answer.page.paths
        if answer.next_cursor is None:
            break
        cursor = answer.next_cursor
    assert listed == [path for repo, path in sorted(FILES) if repo == "shop"]


def test_a_path_cursor_of_another_folder_is_refused(navigator: OpenedNavigator) -> None:
    cursor = navigator.list_paths("shop", "", Scope(), 1, "").next_cursor or ""
    for repo, under in (("shop", "web"), ("org/ledger", "")):
        with pytest.raises(InvalidArgument, match="another question"):
            navigator.list_paths(repo, under, Scope(), 1, cursor)


def test_paths_of_an_unknown_repository_are_not_found(navigator: OpenedNavigator) -> None:
    with pytest.raises(NotFound):
        navigator.list_paths("nobody/knows", "", Scope(), 1, "")
