"""What kind of question is this, and how should each channel count?

A pure function of the query text, so that every decision has a labelled fixture in `tests/unit/retrieval`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from codeintel_rev.errors import InvalidArgument


class QueryClass(StrEnum):
    IDENTIFIER = "identifier"
    PATH = "path"
    ERROR = "error"
    MIXED = "mixed"
    NATURAL = "natural"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one query is asked: `names` go to the symbol channel, `weights` to the fusion, `depth` to every channel."""

    query: str
    query_class: QueryClass
    names: tuple[str, ...]
    weights: dict[str, float]
    depth: int


# Chosen on the bench sets (docs/quality.md): dense hurts bare identifiers and leads on natural language.
WEIGHTS: dict[QueryClass, dict[str, float]] = {
    QueryClass.IDENTIFIER: {"lexical": 1.0, "dense": 0.5, "symbols": 2.0},
    QueryClass.PATH: {"lexical": 1.0, "dense": 0.25, "symbols": 0.5},
    QueryClass.ERROR: {"lexical": 1.0, "dense": 1.0, "symbols": 0.5},
    QueryClass.MIXED: {"lexical": 1.0, "dense": 2.0, "symbols": 0.5},
    QueryClass.NATURAL: {"lexical": 1.0, "dense": 3.0, "symbols": 0.0},
}

_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:(?:\.|::|#|->)[^\W\d]\w*)*(?:\(\))?")
_PATH = re.compile(r"(?:[\w.@-]+/)+[\w.@-]*|[\w@-]+(?:\.[\w-]+)*\.(?:[a-z]{1,4}|[a-z]+[0-9]?)")
_CODE_WORD = re.compile(
    r"""`(?P<quoted>[^`\s]+)`                                   # `quoted`
      | (?P<bare>
          [A-Za-z_]\w*(?:(?:\.|::)[A-Za-z_]\w*)+                # dotted.name, ns::name
        | [A-Za-z]\w*_\w+ | _\w+                                # snake_case
        | [a-z]+[A-Z]\w* | [A-Z][a-z0-9]+(?:[A-Z]\w*)           # camelCase, PascalCase
        | [A-Z]{2,}[a-z]\w*                                     # HTTPServer
        | [A-Za-z_]\w*(?=\(\))                                  # call()
      )""",
    re.VERBOSE,
)
_ERROR = re.compile(
    r"Traceback \(most recent|\b\w*(?:Error|Exception)\b\s*:|\bpanicked at\b|^\s+at .+\(.+:\d+\)", re.MULTILINE
)
_PLAIN_FILE = re.compile(r"(?:e\.g|i\.e|etc)\.?$", re.IGNORECASE)


def classify(query: str) -> QueryClass:
    """Return the class of a non-empty query, the most specific first."""
    text = query.strip()
    if _ERROR.search(text):
        return QueryClass.ERROR
    if not re.search(r"\s", text):
        if _PATH.fullmatch(text) and ("/" in text or _looks_like_file(text)):
            return QueryClass.PATH
        if _IDENTIFIER.fullmatch(text):
            return QueryClass.IDENTIFIER
    return QueryClass.MIXED if code_words(text) else QueryClass.NATURAL


def _looks_like_file(text: str) -> bool:
    """`settings.py` is a file, `os.path` and `Class.method` are names: only a known suffix decides."""
    return text.rsplit(".", 1)[-1] in FILE_SUFFIXES and not _PLAIN_FILE.match(text)


FILE_SUFFIXES = frozenset(
    "py pyi js jsx ts tsx mjs cjs go rs java kt kts scala c h cc cpp cxx hpp cs rb php swift sh bash lua hs ex exs zig"
    " md rst txt json yaml yml toml ini cfg xml html css scss sql tf mk proto gradle lock".split()
)


def code_words(query: str) -> tuple[str, ...]:
    """Return the words of a question that are written like code, in order, each once."""
    found = (match["quoted"] or match["bare"] for match in _CODE_WORD.finditer(query))
    return tuple(dict.fromkeys(word.removesuffix("()") for word in found))


def make_plan(query: str, candidates: int) -> Plan:
    """Return the plan of a query. Raises InvalidArgument when it holds no word at all."""
    text = query.strip()
    if not re.search(r"\w", text):
        raise InvalidArgument("query holds no word to search for.", "Ask with a name or a sentence.")
    query_class = classify(text)
    names = (text.removesuffix("()"),) if query_class is QueryClass.IDENTIFIER else code_words(text)
    return Plan(text, query_class, names, WEIGHTS[query_class], candidates)
