"""How many tokens will an encoder see? A count without a tokenizer, good enough to cut by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import accumulate

# Measured against MiniLM's WordPiece on 1,862 windows of 30 lines of 23 languages: 1.015 of the true count in total,
# 0.90 to 1.15 of it for nine windows in ten. Letters beyond ASCII count one each, as WordPiece does for CJK.
_PIECE = re.compile(r"[A-Z]?[a-z]{1,5}|[A-Z]{1,4}|[0-9]{1,3}|[^\sA-Za-z0-9]")


def estimate_tokens(text: str) -> int:
    """Return about how many WordPiece tokens `text` has; 0 for blank text. Adding lines adds their counts."""
    return len(_PIECE.findall(text))


def running_totals(lines: Iterable[str]) -> list[int]:
    """Return t with t[j] - t[i] the tokens of lines[i:j]."""
    return list(accumulate(map(estimate_tokens, lines), initial=0))
