"""What of a model's text may a reader see? Words, but no link, image or HTML: those reach out (reliability S27).

Markdown's `](` is taken apart, so that no text becomes a link; a URL and a tag that loads something are taken out.
Works on words: what leaves it ends where white space begins, so that it never cuts a grapheme or half a URL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from codeintel_rev.answer.fence import visible

REMOVED = "(link removed)"
MAX_WORD = 512
"""Characters of the longest word; a longer one is cut in two."""

_URL = re.compile(
    r"[a-z0-9+.-]{0,20}://[^\s)\]}>\"'`]+|(?<![^\s(<\"'])//[\w-]+(?:\.[\w-]+)+[^\s)\]}>\"'`]*|\bwww\.[^\s)\]}>\"'`]+",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(rf"(\S{{{MAX_WORD}}})(?=\S)")
_SCHEME = re.compile(r"\b(?:(?:java|vb)script:(?=\S)|data:(?=[a-z]+/))", re.IGNORECASE)
_TAG = re.compile(
    r"<(?=[!/]?(?:a|area|audio|base|body|embed|form|frame|iframe|img|input|link|meta|object|picture|script|source|style"
    r"|svg|track|video)\b)",
    re.IGNORECASE,
)


def without_links(text: str) -> str:
    """Return whole words with every link, image and tag made text."""
    return _TAG.sub("‹", _SCHEME.sub("", without_urls(text)).replace("](", "] ("))


def without_urls(text: str) -> str:
    """Return `text`, such as code between fences, without any URL and unseen character."""
    return _URL.sub(REMOVED, visible(text))


@dataclass(slots=True)
class Words:
    """A text as it streams in, let out word by word, the same whatever pieces it comes in."""

    _held: str = ""

    @property
    def holds_word(self) -> bool:
        return bool(self._held.strip())

    def feed(self, text: str) -> str:
        """Return what is certain now."""
        self._held += text
        end = _last_word(self._held)
        ready, self._held = self._held[:end], self._held[end:]
        return _let_out(ready)

    def finish(self) -> str:
        """Return what was held."""
        ready, self._held = self._held, ""
        return _let_out(ready)


def _last_word(text: str) -> int:
    """Return where the last word, which may go on, begins: with the white space before it."""
    end = len(text)
    while end and not text[end - 1].isspace():
        end -= 1
    return len(text[:end].rstrip())


def _let_out(text: str) -> str:
    return without_links(_LONG_WORD.sub(r"\1 ", text))
