"""Vouchers and volume discounts that lower the price of a cart."""

from shop.cart import Cart

VOLUME_STEPS = ((100, 10), (50, 5))


class VoucherExpired(ValueError):
    """A voucher is used after its last day."""


def volume_discount(cart: Cart) -> int:
    """Return the percentage taken off for buying many articles at once."""
    count = sum(item.quantity for item in cart.items)
    return next((percent for least, percent in VOLUME_STEPS if count >= least), 0)


def apply_voucher(total: int, percent: int, days_left: int) -> int:
    """Return the price after a voucher. Raises VoucherExpired when it is too old to be redeemed."""
    if days_left < 0:
        raise VoucherExpired("the voucher is no longer valid")
    return total - total * percent // 100
