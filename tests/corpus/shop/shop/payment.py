"""Charging a credit card, with retries when the bank does not answer."""

import time

MAX_ATTEMPTS = 4


class CardDeclined(Exception):
    """The bank refuses the charge; trying again is of no use."""


class Gateway:
    """The connection to the bank."""

    def __init__(self, client) -> None:
        self.client = client

    def charge_card(self, card: str, amount: int) -> str:
        """Take money from a card and return the receipt number. Raises CardDeclined."""
        answer = self.client.post("/charges", {"card": card, "amount": amount})
        if answer["status"] == "declined":
            raise CardDeclined(answer["reason"])
        return answer["receipt"]

    def refund(self, receipt: str) -> None:
        """Give the money of an earlier charge back to the customer."""
        self.client.post("/refunds", {"receipt": receipt})


def retry_with_backoff(call, attempts: int = MAX_ATTEMPTS):
    """Call again after a timeout, waiting twice as long before each new attempt."""
    for attempt in range(attempts):
        try:
            return call()
        except TimeoutError:
            time.sleep(2**attempt)
    raise TimeoutError("the bank did not answer")
