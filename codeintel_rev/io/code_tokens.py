"""What are the words of a piece of code, a path or a question? Pure; used alike when indexing and when asking.

`JSONString2Map` is kept whole and split on case, digits and underscores; the parts are folded to their English stem
(snowball), so that a question's "parsing requests" meets `parse_request`. Nothing is dropped: a word too common to tell
anything apart weighs less in a query (`query_weights`), it does not vanish.

BM25 alone, ndcg@10 on three public sets (questions about repositories / docstring → function / web query → function):

    whole identifiers and parts         .702  .499  .366
    + stems                             .760  .539  .388   (without whole identifiers: .736 .533 .386)
    + common words at a quarter         .759  .583  .404   (dropped: .756 .576 .392)

Changing anything here changes what an index holds: raise `lexical.FORMAT` with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, pairwise

from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
# Pieces are bounded so that a megabyte of base64 is many small words, none beyond the engine's 64 KiB a term.
_WORD = re.compile(rf"[{_CJK}]{{1,64}}|[^\W{_CJK}]{{1,128}}")
_ASCII_WORD = re.compile(r"\w{1,128}", re.ASCII)  # what _WORD finds in ASCII, in half the time
_IS_CJK = re.compile(rf"[{_CJK}]")
# Over a word's mask, not the word: `re` has no class for "upper-case letter of any script".
_PART = re.compile(r"U{2,}a(?!a)|U+(?!a)|U?a+|0+")  # the first: the plural of an acronym, URLs
_ENGLISH = TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.stemmer("english")).build()

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
    return list(chain.from_iterable(map(_word_tokens, _words(text))))


def query_weights(query: str) -> dict[str, float]:
    """Return the distinct tokens of a question, in order, with their weight: 1, or `COMMON_WEIGHT` for common words."""
    return {token: COMMON_WEIGHT if token in _COMMON else 1.0 for token in tokenize(query)}


def matched_terms(query: str, text: str) -> tuple[str, ...]:
    """Return the telling words of `query` that `text` shares, unstemmed, in the order asked; for a hit's `why`.

    Of a word that is not in `text` as a whole, the parts that are.
    """
    present = set(tokenize(text)) - _COMMON
    found: dict[str, None] = {}
    for word in _words(query):
        shared = [piece for piece, token in zip(_pieces(word), _word_tokens(word), strict=True) if token in present]
        whole = shared and shared[0] == word.casefold()
        found.update(dict.fromkeys(shared[:1] if whole else shared))
    return tuple(found)


def _words(text: str) -> list[str]:
    return _ASCII_WORD.findall(text) if text.isascii() else _WORD.findall(unicodedata.normalize("NFKC", text))


@lru_cache(maxsize=1 << 16)
def _word_tokens(word: str) -> tuple[str, ...]:
    first, *rest = _pieces(word)
    return (first, *map(_stem, rest)) if rest else (_stem(first),)


def _pieces(word: str) -> list[str]:
    """Return the word and its parts, case-folded; the word alone when it has one part or none."""
    if _IS_CJK.match(word):
        return [*word, *map("".join, pairwise(word))]
    mask = "".join(map(_letter_class, word))
    parts = [word[found.start() : found.end()].casefold() for found in _PART.finditer(mask)]
    return parts if len(parts) == 1 else [word.casefold(), *parts]


def _letter_class(character: str) -> str:
    if character == "_":
        return "_"
    if character.isdecimal():
        return "0"
    return "U" if character.isupper() else "a"


def _stem(word: str) -> str:
    return "".join(_ENGLISH.analyze(word))


def _tokens_of(words: Iterable[str]) -> frozenset[str]:
    return frozenset(token for word in words for token in tokenize(word))


_COMMON = _tokens_of(f"{_COMMON_ENGLISH} {_LANGUAGES}".split())
