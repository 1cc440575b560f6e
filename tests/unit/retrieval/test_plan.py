"""Every decision about a query is one line of a table; nothing a person can type breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import InvalidArgument
from codeintel_rev.retrieval.plan import WEIGHTS, QueryClass, classify, code_words, make_plan

QUERY_BYTES = 8192

REPORT = (
    "Cart.total is wrong with two vouchers\n"
    "When I add a voucher and then another one, the total that is shown in the cart is lower than it should be. I"
    " expected that only one of them counts, as the documentation says. Version 2.1, in `shop/cart.py`, see below."
)
LABELLED = {
    QueryClass.IDENTIFIER: [
        "add_item",
        "HTTPServer",
        "formatPrice",
        "cart",
        "__init__",
        "_private",
        "MAX_ATTEMPTS",
        "Cart.add_item",
        "os.path.join",
        "std::vector::push_back",
        "Cart#total",
        "node->next",
        "connect()",
        "Journal.Append()",
        "größe",
        "x",
        "os.path",
        "  add_item  ",
    ],
    QueryClass.PATH: [
        "shop/cart.py",
        "src/",
        "web/money.test.ts",
        "settings.py",
        "Cargo.lock",
        "docs/checkout.md",
        "a/b/c",
        "@scope/package/index.js",
        "README.md",
        "my-file.json",
    ],
    QueryClass.REPORT: [
        REPORT,
        REPORT.replace("\n", " "),
        "how to refund " + "a payment that was made twice by mistake and then " * 5,
        f"{REPORT}\nTraceback (most recent call last):\n  File 'shop/cart.py', line 7\nKeyError: 'sku'",
    ],
    QueryClass.ERROR: [
        "Traceback (most recent call last):\n" + '  File "shop/cart.py", line 7, in add\n    self.add(item)\n' * 9,
        "ValueError: invalid literal for int() with base 10",
        "KeyError: 'sku'",
        "java.lang.NullPointerException: name is null",
        'Traceback (most recent call last):\n  File "a.py", line 1, in <module>',
        "thread 'main' panicked at src/rates.rs:12:9",
        "the cart stays empty\n    at Cart.render (cartView.ts:7:5)",
        "why do I get TimeoutError: the bank did not answer",
        "CardDeclinedException: insufficient funds",
    ],
    QueryClass.MIXED: [
        "where is add_item called",
        "how does LineItem compute its subtotal",
        "what does `total` return",
        "difference between Cart.total and apply_voucher",
        "who calls connect() first",
        "HTTPServer shutdown order",
        "the formatPrice function",
        "std::move semantics here",
    ],
    QueryClass.BEHAVIOUR: [
        "convert between currencies",
        "remove _private attributes",
        "check if a card is expired",
        "Returns the total of a cart.",
        "Applies a voucher to the cart",
        "how to refund a payment",
        "python read csv file",
        "The sum of all items, without those on sale.",
    ],
    QueryClass.TOPIC: [
        "how is a credit card charged",
        "retry when the bank does not answer",
        "where are vouchers redeemed?",
        "What a customer wants to buy",
        "double entry book keeping",
        "wie wird der Preis berechnet",
        "カートに 商品を追加",
        "vouchers, discounts and refunds",
        "2 + 2",
        "I want an HTTP server",
    ],
}
CASES = [(query, expected) for expected, queries in LABELLED.items() for query in queries]
HOSTILE = {
    "8 KB of one word": "a" * QUERY_BYTES,
    "8 KB of one word among others": "x " + "a" * (QUERY_BYTES - 2),
    "8 KB of dots": "x" + "." * (QUERY_BYTES - 1),
    "8 KB of dotted names": "x " + "a." * (QUERY_BYTES // 2 - 1),
    "8 KB of folders": "a/" * (QUERY_BYTES // 2),
    "8 KB of new lines": "x" + "\n" * (QUERY_BYTES - 2) + "y",
    "8 KB of stack frame": " at " + "(" * (QUERY_BYTES - 4) + "x",
    "8 KB of back quotes": "x" + "`" * (QUERY_BYTES - 1),
    "control characters": "\x00\x01 add\x1bitem \x7f",
    "lone surrogate": "add \ud800 item",
    "right to left": "\u202eadd_item\u202c",
    "markup": "<script>alert(1)</script>",
    "SQL": "'; DROP TABLE chunks; --",
    "search syntax": '+path:x -"y" AND (z OR *)^2~',
}


@pytest.mark.parametrize(("query", "expected"), CASES, ids=[query for query, _ in CASES])
def test_a_query_has_its_class(query: str, expected: QueryClass) -> None:
    assert make_plan(query, 10).query_class is expected


@pytest.mark.parametrize("query", ["", " ", "\n\t\r ", "?", "...", "()", "\x00", "\u200b", "-- !! ``"])
def test_a_query_without_a_word_is_refused(query: str) -> None:
    with pytest.raises(InvalidArgument):
        make_plan(query, 10)


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(10)
def test_a_hostile_query_is_planned_like_any_other(query: str) -> None:
    """S18, F38: longest query there is; nothing in it makes planning slow or fail."""
    assert make_plan(query, 10).weights == WEIGHTS[classify(query.strip())]


@given(st.text(min_size=1))
def test_any_text_is_planned_or_refused(query: str) -> None:
    try:
        plan = make_plan(query, 10)
    except InvalidArgument:
        assert not any(character.isalnum() for character in query)
    else:
        assert plan.query == query.strip()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("add_item", ("add_item",)),
        ("connect()", ("connect",)),
        ("Cart.add_item", ("Cart.add_item",)),
        ("shop/cart.py", ()),
        ("how is a card charged", ()),
        ("where do Cart.total and add_item() meet add_item", ("Cart.total", "add_item")),
        ("what does `total` return", ("total",)),
        ("std::vector in HTTPServer", ("std::vector", "HTTPServer")),
    ],
)
def test_names_are_what_is_written_like_code(query: str, names: tuple[str, ...]) -> None:
    plan = make_plan(query, 10)
    assert tuple(name for name in plan.names if plan.query_class is not QueryClass.PATH) == names


def test_code_words_come_in_order_and_once() -> None:
    assert code_words("b_c then aB then b_c() then a.b") == ("b_c", "aB", "a.b")


def test_every_class_asks_the_words_and_the_vectors() -> None:
    """No class may leave a query to one channel: when it is late, nothing would answer."""
    assert all(weights["lexical"] > 0 and weights["dense"] > 0 for weights in WEIGHTS.values())
    assert WEIGHTS.keys() == set(QueryClass)


def test_depth_is_what_was_asked_for() -> None:
    assert make_plan("cart", 37).depth == 37


def test_a_report_is_about_its_title_and_looks_deeper() -> None:
    plan = make_plan(REPORT, 60)
    assert plan.title == "Cart.total is wrong with two vouchers"
    assert plan.depth == 180
    assert make_plan(REPORT.replace("\n", ". "), 60).title == "Cart.total is wrong with two vouchers."
    assert make_plan("apply voucher", 60).title == ""
