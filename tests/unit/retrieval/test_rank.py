"""Each thing known about code moves a hit the right way; how far is tuned elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.retrieval.rank import Candidate, Ranked, rank
from codeintel_rev.types import Role

# The words asked are stems ("exampl"), those of `_ROLE_WORDS` are not.
PLAIN = Candidate(0, "shop", "src/zzz.py", Role.CODE, "function", (), 0.5)


def candidates(*changes: dict[str, object]) -> list[Candidate]:
    """Return equal candidates, each of a file of its own, but for the changes given."""
    return [replace(PLAIN, **({"chunk_id": n, "path": f"src/z{n}.py"} | one)) for n, one in enumerate(changes)]


def order(query: str, found: list[Candidate]) -> list[int]:
    return [found[ranked.row].chunk_id for ranked in rank(make_plan(query, 10), found)]


def ranked(query: str, found: list[Candidate]) -> list[Ranked]:
    return rank(make_plan(query, 10), found)


@pytest.mark.parametrize(
    ("query", "better"),
    [
        ("add_item", {"defines": ("Cart.add_item",)}),
        ("Cart.add_item", {"defines": ("Cart.add_item",)}),
        ("where is add_item called", {"defines": ("Cart.add_item",)}),
        ("std::push_back", {"defines": ("push_back",)}),
        ("ADD_ITEM", {"defines": ("add_item",)}),
        ("how is a price formatted", {"defines": ("format_price",)}),
        ("apply voucher", {"path": "shop/voucher.py"}),
        ("apply voucher", {"path": "voucher/apply.py"}),
        ("crash in shop/cart.py line 7", {"path": "shop/cart.py"}),
        ("crash in shop.cart.Cart", {"path": "lib/shop/cart.py"}),
        ("crash in shop.cart.Cart", {"path": "shop/cart/__init__.py"}),
    ],
)
def test_a_hit_that_fits_better_rises(query: str, better: dict[str, object]) -> None:
    assert order(query, candidates({}, better))[0] == 1


def test_the_definition_beats_a_mention_with_a_better_text() -> None:
    found = candidates({"score": 0.6}, {"defines": ("Cart.add_item",), "score": 0.4})
    assert order("add_item", found) == [1, 0]


def test_the_exact_name_beats_one_of_another_case() -> None:
    assert order("Cart", candidates({"defines": ("cart",)}, {"defines": ("Cart",)}))[0] == 1


def test_a_name_that_only_begins_alike_is_not_the_name() -> None:
    found = candidates({"defines": ("add_item_later",)}, {"defines": ("add_item",)})
    assert order("add_item", found)[0] == 1


def test_more_of_a_path_that_is_written_counts_more() -> None:
    found = candidates({"path": "old/cart.py"}, {"path": "shop/cart.py"}, {"path": "shop/rates.py"})
    assert order("crash in src/shop/cart.py", found) == [1, 0, 2]
    assert ranked("crash in src/shop/cart.py", found)[0].why == ("its path is written in the query",)


@pytest.mark.parametrize("kind", ["class", "module", "field"])
def test_what_one_function_does_is_done_by_a_function(kind: str) -> None:
    assert order("convert between currencies", candidates({"kind": kind}, {})) == [1, 0]
    assert order("how are currencies converted", candidates({"kind": kind}, {})) == [0, 1]
    assert order("convert between currencies", candidates({"kind": kind, "defines": ("Rates.convert",)}, {})) == [0, 1]


def test_a_report_is_ranked_by_its_title_and_wants_code() -> None:
    found = candidates({"path": "shop/login.py"}, {"path": "shop/voucher.py"}, {"role": Role.TEST, "score": 0.9})
    assert order("voucher is lost\n" + "I did login and then the login test was there. " * 9, found) == [1, 0, 2]


@pytest.mark.parametrize("role", [Role.TEST, Role.EXAMPLE, Role.GENERATED, Role.VENDORED, Role.DOCS])
def test_code_comes_before_what_is_not_the_code(role: Role) -> None:
    found = candidates({"role": role}, {})
    assert order("apply voucher", found) == [1, 0]
    assert any(str(role) in reason for reason in ranked("apply voucher", found)[1].why)


@pytest.mark.parametrize(
    ("query", "role"),
    [
        ("tests of the voucher", Role.TEST),
        ("voucher spec", Role.TEST),
        ("example of a voucher", Role.EXAMPLE),
        ("readme voucher", Role.DOCS),
        ("generated voucher client", Role.GENERATED),
    ],
)
def test_a_role_asked_for_is_not_lowered(query: str, role: Role) -> None:
    first, second = ranked(query, candidates({"role": role}, {}))
    assert (first.row, first.score) == (0, second.score)


def test_a_file_with_many_hits_rises() -> None:
    found = candidates({"path": "one.py"}, {"path": "many.py"}, {"path": "many.py"}, {"path": "many.py"})
    assert order("apply voucher", found)[0] == 1


def test_one_file_does_not_fill_the_answer() -> None:
    """Further hits of a file give way to another file's first that fits nearly as well."""
    found = candidates(*({"path": "many.py", "score": 0.6} for _ in range(5)), {"path": "other.py", "score": 0.5})
    assert order("apply voucher", found).index(5) == 1


def test_the_same_path_in_two_repositories_is_two_files() -> None:
    one = candidates({"path": "a.py"}, {"path": "a.py", "repo": "other"})
    scores = [hit.score for hit in ranked("apply voucher", one)]
    assert scores[0] == scores[1]


def test_ties_keep_the_fused_order() -> None:
    assert order("apply voucher", candidates({}, {}, {})) == [0, 1, 2]


def test_every_reason_is_one_of_the_hit_itself() -> None:
    first, second = ranked("add_item", candidates({"defines": ("add_item",)}, {}))
    assert "defines the name asked for" in first.why
    assert second.why == ()


def test_nothing_found_is_nothing_ranked() -> None:
    assert ranked("apply voucher", []) == []


FOUND = st.lists(
    st.builds(
        Candidate,
        chunk_id=st.integers(1, 1 << 62),
        repo=st.sampled_from(["shop", "org/ledger"]),
        path=st.sampled_from(["shop/cart.py", "tests/test_cart.py", "a", "voucher.go", "docs/add/item.md", "ü/ß.rs"]),
        role=st.sampled_from(Role),
        kind=st.sampled_from(["function", "class", "text"]),
        defines=st.lists(st.sampled_from(["Cart.add_item", "add_item", "Voucher", "", ".", "x.y.z"])).map(tuple),
        score=st.floats(0, 1, width=32),
    ),
    max_size=15,
).map(lambda found: sorted(found, key=lambda one: -one.score))


@given(FOUND, st.sampled_from(["add_item", "apply voucher", "tests of Cart.add_item()", "shop/cart.py", "ß"]))
def test_every_candidate_is_ranked_once_best_first_the_same_every_time(found: list[Candidate], query: str) -> None:
    once = ranked(query, found)
    assert sorted(hit.row for hit in once) == list(range(len(found)))
    assert [hit.score for hit in once] == sorted((hit.score for hit in once), reverse=True)
    assert once == ranked(query, found)


@given(FOUND)
def test_a_better_text_never_sinks_a_hit(found: list[Candidate]) -> None:
    """Of two hits alike in all but their text's score, the better one comes first."""
    twins = [replace(PLAIN, chunk_id=-1, path="twin/a.py", score=0.9), replace(PLAIN, chunk_id=-2, path="twin/b.py")]
    rest = [one for one in found if not one.path.startswith("twin")]
    placed = order("apply voucher", sorted([*rest, *twins], key=lambda one: -one.score))
    assert placed.index(-1) < placed.index(-2)
