"""The shopping cart: what a customer wants to buy, before anything is paid."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LineItem:
    """One article in a cart and how many of it."""

    sku: str
    quantity: int
    unit_price: int

    @property
    def subtotal(self) -> int:
        return self.quantity * self.unit_price


@dataclass
class Cart:
    """Articles in the order they were put in."""

    items: list[LineItem] = field(default_factory=list)

    def add_item(self, item: LineItem) -> None:
        """Put an article into the cart; the same article again only raises its quantity."""
        for place, present in enumerate(self.items):
            if present.sku == item.sku:
                merged = LineItem(item.sku, present.quantity + item.quantity, item.unit_price)
                self.items[place] = merged
                return
        self.items.append(item)

    def remove_item(self, sku: str) -> None:
        """Take an article out of the cart. Raises KeyError when it is not in it."""
        kept = [item for item in self.items if item.sku != sku]
        if len(kept) == len(self.items):
            raise KeyError(sku)
        self.items = kept

    def total(self) -> int:
        """Return the price of everything in the cart, in cents, before discounts."""
        return sum(item.subtotal for item in self.items)
