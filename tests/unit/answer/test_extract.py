"""An answer without a model: short, the direct answer first, and every sentence stands on the lines it names."""

from __future__ import annotations

import re

import pytest

from codeintel_rev.answer.citations import checked, rarity, terms
from codeintel_rev.answer.excerpt import density
from codeintel_rev.answer.extract import MOST_SENTENCES, extract
from codeintel_rev.answer.library import FileFacts, OpenedLibrary
from codeintel_rev.answer.pack import Pack, pack
from codeintel_rev.indexing.token_estimate import estimate_tokens
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Definition, Revision
from tests.answers import ADD, hit, packed
from tests.indexed import ask

QUESTIONS = [
    "How is an article put into the cart?",
    "Where is Cart defined?",
    "who calls total",
    "charge a card",
    "What happens when a payment is declined?",
    "How are amounts of money shown?",
    "post an entry to the journal",
    "Which exchange rates are known?",
    "how do discounts work",
    "describe the checkout",
]


def found(served: Shards, question: str) -> Pack:
    result = ask(served, question, limit=12)
    files = dict.fromkeys((hit.repo, hit.path) for hit in result.hits)
    facts = OpenedLibrary(served).facts(files, result.generations)
    return pack(result.hits, facts, count=estimate_tokens, budget=6000, max_sources=12)


def answered(question: str, *hits: object) -> list[str]:
    return [item.text for item in extract(question, packed(*hits).passages)]  # type: ignore[arg-type]


def test_a_question_is_answered_by_the_definition_and_the_lines_that_hold_most_of_it() -> None:
    assert answered("How does Cart.add notice that the items reach the limit?", ADD) == [
        "`Cart.add` in `shop/cart.py`: Put an item into the cart.",
        "```python\nif len(self.items) >= self.limit:\n    raise CartFull(self.limit)\nself.items.append(item)\n```",
    ]


def test_where_is_answered_by_the_place_alone() -> None:
    assert answered("Where is Cart.add?", ADD) == [
        "`Cart.add` is defined in `shop/cart.py`, line 10: Put an item into the cart."
    ]


def test_without_documentation_the_signature_tells() -> None:
    assert answered("total", hit(19, 20, symbol="Cart.total"))[0] == (
        "`Cart.total` is defined in `shop/cart.py`, line 19: `def total(self, rates):`."
    )


FETCH = '''\
def fetch(
    url,
    retries,
):
    """
    Fetch a page. It is read whole.

    :param retries: how often the fetch is tried
    """
    # Some servers want a second fetch.
    for attempt in range(retries):
        page = get(url)
        # Nothing came.
    return page'''


def test_what_is_shown_stands_behind_signature_and_documentation() -> None:
    lines, doc = tuple(FETCH.split("\n")), "Fetch a page. It is read whole.\n\n:param retries: how often it is tried"
    fetch = Definition("a.py", "python", "fetch", "fetch", "function", 1, 14, "def fetch(url, retries):", doc)
    facts = {("shop", "a.py"): FileFacts(Revision("", "", dirty=False), lines, (fetch,))}
    passages = packed(hit(1, 1, path="a.py", text=FETCH), facts=facts).passages
    assert [item.text for item in extract("how often are retries of a page tried", passages)] == [
        "`fetch` in `a.py`: Fetch a page. It is read whole.",
        "```python\nfor attempt in range(retries):\n    page = get(url)\n```",
    ]


def test_tests_are_told_of_only_when_asked_for() -> None:
    test = hit(1, 1, 0.9, path="tests/test_cart.py", text="add an item to the cart")
    told = [len(answered(question, ADD, test)) for question in ("add an item", "which test covers add of an item")]
    assert told[1] == told[0] + 1


def test_callers_are_told_line_by_line() -> None:
    user = hit(1, 1, 0.4, path="app.py", text="def buy(cart):\n    cart.add(item)\n", symbol="buy")
    assert answered("who calls `add`", ADD, user) == ["`add` is used in `buy` (`app.py`, line 2): `cart.add(item)`."]


def test_what_is_far_behind_the_best_is_not_told() -> None:
    assert len(answered("total of the items", hit(19, 20), hit(1, 4, 0.4))) == len(
        answered("total of the items", hit(19, 20))
    )


def test_nothing_found_is_nothing_said() -> None:
    assert answered("anything") == []


def test_no_url_and_no_broken_fence_comes_out_of_a_repository() -> None:
    text = "def fetch():\n    # ```\n    fetch_it('https://evil.example')  # ![x](//evil.example)\n    return a"
    told = "\n".join(answered("fetch_it", hit(1, 1, path="a.py", text=text)))
    assert "evil" not in told
    assert told.count("````") == 2


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_sentence_stands_on_its_lines(served: Shards, question: str) -> None:
    """Supported by the same check that a model's citations go through."""
    passages = found(served, question).passages
    items = extract(question, passages)
    assert items
    assert sum(not item.text.startswith("```") for item in items) <= max(MOST_SENTENCES, 6)
    for item in items:
        source = passages[item.n - 1].source
        assert source.start_line <= item.lines[0] <= item.lines[1] <= source.end_line
        plain = re.sub(r"is defined in|is used in|says|, lines? \d+(?: to \d+)?", "", item.text)
        weights = terms(plain.removeprefix("```" + source.language), rarity(passages), len(passages))
        assert checked(weights, passages[item.n - 1], item.lines).status == "supported", item


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("How is an article put into the cart?", "`Cart.add_item` in `shop/cart.py`: Put an article into the cart;"),
        ("Where is LineItem defined?", "`LineItem` is defined in `"),
    ],
)
def test_the_direct_answer_comes_first(served: Shards, question: str, first: str) -> None:
    assert extract(question, found(served, question).passages)[0].text.startswith(first)


def test_no_sum_depends_on_the_order_of_a_set() -> None:
    """It is another in each process, and so would be the answer: two equal windows would change places."""
    large = {f"{sign}{n}": sign * 10.0 ** (20 + n) for n in range(30) for sign in (1, -1)}
    weights = {**large, "small": 1.0}
    assert density([frozenset(weights)], weights) == 1.0 / 7
