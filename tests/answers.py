"""What the tests of answers are made of: hits, facts and passages small enough to read."""

from __future__ import annotations

from codeintel_rev.answer.library import FileFacts
from codeintel_rev.answer.pack import Pack, pack
from codeintel_rev.types import Contribution, Definition, Freshness, Hit, Revision

COMMIT = "c0ffee" + "0" * 34
CART = '''\
"""The cart of a shopper."""

class Cart:
    """Items somebody means to buy."""

    def __init__(self, limit):
        self.limit = limit
        self.items = []

    def add(self, item):
        """Put an item into the cart.

        Raises CartFull when there are too many.
        """
        if len(self.items) >= self.limit:
            raise CartFull(self.limit)
        self.items.append(item)

    def total(self, rates):
        return sum(item.price * rates[item.currency] for item in self.items)
'''.rstrip("\n")
LINES = tuple(CART.split("\n"))
DEFINITIONS = (
    Definition("shop/cart.py", "python", "Cart", "Cart", "class", 3, 20, "class Cart:", "Items somebody means to buy."),
    Definition("shop/cart.py", "python", "add", "Cart.add", "method", 10, 17, "def add(self, item):",
               "Put an item into the cart.\n\nRaises CartFull when there are too many."),
    Definition("shop/cart.py", "python", "total", "Cart.total", "method", 19, 20, "def total(self, rates):", ""),
)  # fmt: skip
FACTS = {("shop", "shop/cart.py"): FileFacts(Revision(COMMIT, "main", dirty=False), LINES, DEFINITIONS)}


def hit(
    start: int,
    end: int,
    score: float = 1.0,
    *,
    path: str = "shop/cart.py",
    text: str | None = None,
    symbol: str = "",
    channel: str = "lexical",
    freshness: Freshness = Freshness.FRESH,
) -> Hit:
    """Return a hit on lines of the cart, or of `text` as all of another file."""
    snippet = "\n".join(LINES[start - 1 : end]) if text is None else text
    return Hit(
        chunk_id=start * 1000 + sum(map(ord, path)),
        repo="shop",
        path=path,
        start_line=start,
        end_line=start + snippet.count("\n"),
        language="python",
        symbol=symbol,
        kind="function",
        snippet=snippet,
        score=score,
        freshness=freshness,
        commit=COMMIT,
        why=(),
        contributions={channel: Contribution(1, score, 1.0, score)},
    )


ADD = hit(10, 17, 1.0, symbol="Cart.add")


def words(text: str) -> int:
    return len(text.split())


def packed(*hits: Hit, facts: dict = FACTS, budget: int = 1000, max_sources: int = 12, permalink: str = "") -> Pack:
    return pack(hits, facts, count=words, budget=budget, max_sources=max_sources, permalink=permalink)
