"""What are the words of a piece of code, a path or a question? Pure; used alike when indexing and when asking.

`JSONString2Map` is kept whole and split on case, digits and underscores; the parts are folded to a light English stem,
so that a question's "parsing requests" meets `parse_request`. Nothing is dropped: a word too common to tell anything
apart weighs less in a query (`query_weights`), it does not vanish.

BM25 alone, ndcg@10 on three public sets (questions about repositories / docstring → function / web query → function):

    whole identifiers and parts, no stem     .704  .538  .372
    parts only                               .682  .544  .370
    + this stem (snowball is −.015/+.005/0)  .748  .571  .389
    + common words at a quarter              .754  .644  .408   (dropped: .746 .624 .382)

Changing anything here changes what an index holds: raise `lexical.FORMAT` with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
# Pieces are bounded so that a megabyte of base64 is many small words, none beyond the engine's 64 KiB a term.
_WORD = re.compile(rf"[{_CJK}]{{1,64}}|[^\W{_CJK}]{{1,128}}")
_IS_CJK = re.compile(rf"[{_CJK}]")
# Over a word's mask, not the word: `re` has no class for "upper-case letter of any script".
_PART = re.compile(r"U{2,}a(?!a)|U+(?!a)|U?a+|0+")  # the first: the plural of an acronym, URLs
_VOWEL = re.compile(r"[aeiouy]")

_COMMON_ENGLISH = (
    "a an and are as at be but by can could do does for from has have how i if in into is it its my not of on or our"
    " should such that the their then there these they this to was we what when where which who will with would you"
    " your"
)
# The language is what a file is written in, seldom what its text says: "python" in a question finds odd comments.
_LANGUAGES = "python java javascript typescript golang rust kotlin scala ruby php swift haskell csharp cpp"
COMMON_WEIGHT = 0.25


def tokenize(text: str) -> list[str]:
    """Return the tokens of code or prose in reading order, duplicates kept; empty when `text` holds no word.

    Tokens are case-folded and hold no white space. A word of several parts gives itself, then its parts; a run of
    Chinese, Japanese or Korean gives its characters and their pairs.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    tokens: list[str] = []
    for word in _WORD.findall(text):
        tokens.extend(_word_tokens(word))
    return tokens


def query_weights(query: str) -> dict[str, float]:
    """Return the distinct tokens of a question, in order, with their weight: 1, or `COMMON_WEIGHT` for common words."""
    return {token: COMMON_WEIGHT if token in _COMMON else 1.0 for token in tokenize(query)}


def matched_terms(query: str, text: str) -> tuple[str, ...]:
    """Return the telling tokens of `query` that occur in `text`, in the order asked; for a hit's `why`."""
    present = set(tokenize(text))
    return tuple(token for token, weight in query_weights(query).items() if weight == 1.0 and token in present)


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[str, ...]:
    if _IS_CJK.match(word):
        return (*word, *map("".join, pairwise(word)))
    parts = _parts(word)
    stems = tuple(stem(part) for part in parts)
    return stems if len(parts) == 1 else (word.casefold(), *stems)


def _parts(word: str) -> list[str]:
    mask = "".join(map(_letter_class, word))
    return [word[found.start() : found.end()].casefold() for found in _PART.finditer(mask)]


def _letter_class(character: str) -> str:
    if character == "_":
        return "_"
    if character.isdecimal():
        return "0"
    return "U" if character.isupper() else "a"


def stem(word: str) -> str:
    """Return an ASCII word without plural, -ing, -ed, final -e, -ion after t or s, -or and -er after t.

    Only has to bring the forms of one word together, not to give a word: caching, cached, caches → cach.
    """
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    return _without_agent(_without_e(_without_tense(_singular(word))))


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_tense(word: str) -> str:
    for suffix in ("ing", "ed"):
        root = word.removesuffix(suffix)
        if root != word and len(root) >= 3 and _VOWEL.search(root):
            doubled = root[-1] == root[-2] and root[-1] not in "lsz"
            return root[:-1] if doubled else root
    return word


def _without_e(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _without_agent(word: str) -> str:
    if len(word) < 6:
        return word
    if word.endswith(("tion", "sion")):
        return word[:-3]
    return word[:-2] if word.endswith(("tor", "ter")) else word


def _tokens_of(words: Iterable[str]) -> frozenset[str]:
    return frozenset(token for word in words for token in tokenize(word))


_COMMON = _tokens_of(f"{_COMMON_ENGLISH} {_LANGUAGES}".split())
