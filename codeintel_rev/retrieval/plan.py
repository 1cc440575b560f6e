"""What kind of question is this, and how should each channel count?

A pure function of the query text, so that every decision has a labelled fixture in `tests/unit/retrieval`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from codeintel_rev.errors import InvalidArgument


class QueryClass(StrEnum):
    """The most specific that fits, in this order of trial."""

    REPORT = "report"  # an issue, a bug report: a title, then prose, code and logs
    ERROR = "error"  # a traceback, a compiler's or log's message
    PATH = "path"  # src/app/main.py
    IDENTIFIER = "identifier"  # parse_url, Session.get, Mutex()
    BEHAVIOUR = "behaviour"  # what one function does: "check if a value is iterable"
    MIXED = "mixed"  # words around code: "where is parse_url called"
    TOPIC = "topic"  # a part of the system: "how are routes registered"


@dataclass(frozen=True, slots=True)
class Plan:
    """How one query is asked: `names` go to the symbol channel, `weights` to the fusion, `depth` to every channel.

    `title` is the part of a report that says what it is about; its words count twice. Empty for other queries.
    """

    query: str
    title: str
    query_class: QueryClass
    names: tuple[str, ...]
    weights: dict[str, float]
    depth: int


# Chosen on the bench sets (docs/quality.md): BM25 leads on names and topics, dense on what a function does. SPLADE, and
# tokens when they are asked as a channel, count as dense does until a checkpoint is measured.
WEIGHTS: dict[QueryClass, dict[str, float]] = {
    QueryClass.REPORT: {"lexical": 1.0, "dense": 1.0, "symbols": 0.5, "splade": 1.0, "xtr": 1.0},
    QueryClass.ERROR: {"lexical": 1.0, "dense": 1.0, "symbols": 0.5, "splade": 1.0, "xtr": 1.0},
    QueryClass.PATH: {"lexical": 1.0, "dense": 0.25, "symbols": 0.5, "splade": 0.25, "xtr": 0.25},
    QueryClass.IDENTIFIER: {"lexical": 1.0, "dense": 0.5, "symbols": 1.0, "splade": 0.5, "xtr": 0.5},
    QueryClass.BEHAVIOUR: {"lexical": 1.0, "dense": 3.0, "splade": 3.0, "xtr": 3.0},
    QueryClass.MIXED: {"lexical": 1.0, "dense": 1.0, "symbols": 0.5, "splade": 1.0, "xtr": 1.0},
    QueryClass.TOPIC: {"lexical": 1.0, "dense": 1.0, "splade": 1.0, "xtr": 1.0},
}

_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:(?:\.|::|#|->)[^\W\d]\w*)*(?:\(\))?")
_PATH = re.compile(r"(?:[\w.@-]+/)+[\w.@-]*|[\w@-]+(?:\.[\w-]+)*\.(?:[a-z]{1,4}|[a-z]+[0-9]?)")
_CODE_WORD = re.compile(
    r"""`(?P<quoted>[^`\s]+)`                                   # `quoted`
      | (?<!\w)(?P<bare>                                        # else a long word is tried from each of its letters
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
_REPORT_WORDS, _TITLE_CHARACTERS = 40, 200
_REPORT_DEPTH = 3
"""Times the candidates of other queries: many words find many chunks, and the file meant is seldom among the first."""
_PLAIN_FILE = re.compile(r"(?:e\.g|i\.e|etc)\.?$", re.IGNORECASE)
_LANGUAGES = frozenset(
    "python java javascript typescript golang rust kotlin scala ruby php swift haskell elixir lua bash perl".split()
)
# Words a function's description begins with, in English docstrings; those that are as often nouns in a topic (request,
# filter, store, index …) are left out.
_VERBS = frozenset(
    "add append apply assert attach bind build calculate call change check clean clear close collect combine"
    " compare compile compute configure connect construct convert copy count create decode decorate decide define"
    " delete deserialize detect determine disable discard dispatch display download drop emit enable encode ensure"
    " enter escape evaluate execute exit expand expose extend extract fetch fill find finish flatten flush force"
    " forward generate get give guess handle hide import increment indicate infer initialize inject insert inspect"
    " install instantiate invoke iterate join keep launch leave list load locate look make match merge modify move"
    " normalize notify obtain open override parse pass perform pick poll pop populate prepare prepend prevent"
    " print produce provide publish pull push put raise read receive reduce refresh register release reload remove"
    " rename render reorder replace reset resolve restore retrieve return reverse rewrite rotate round run save"
    " scan select send serialize serve set show shuffle skip sort split start stop strip subtract sum swap switch"
    " take tell test throw toggle transform translate traverse trigger trim truncate try turn unpack unregister"
    " update upload use validate verify wait walk warn wrap write yield".split()
)
_HOW_TO = re.compile(r"how (?:to|do i|can i|do you)\b", re.IGNORECASE)


def classify(query: str) -> QueryClass:
    """Return the class of a non-empty query, the most specific first."""
    text = query.strip()
    if _is_report(text):
        return QueryClass.REPORT
    if _ERROR.search(text):
        return QueryClass.ERROR
    if not re.search(r"\s", text):
        if _PATH.fullmatch(text) and ("/" in text or _looks_like_file(text)):
            return QueryClass.PATH
        if _IDENTIFIER.fullmatch(text):
            return QueryClass.IDENTIFIER
    if _describes_behaviour(text):
        return QueryClass.BEHAVIOUR
    return QueryClass.MIXED if code_words(text) else QueryClass.TOPIC


def _is_report(text: str) -> bool:
    """Say whether a text is long and begins with something else than the message of an error."""
    return len(text.split()) >= _REPORT_WORDS and not _ERROR.search(_title(text))


def _title(text: str) -> str:
    """Return the first line of a text, of that the first sentence where it is a paragraph."""
    line = text.partition("\n")[0].strip()
    return line if len(line) <= _TITLE_CHARACTERS else re.split(r"(?<=[.!?])\s", line, maxsplit=1)[0]


def _describes_behaviour(text: str) -> bool:
    """Say whether a sentence, or a web search that names the language, tells what one function does."""
    words = re.findall(r"[a-z']+", text.lower())
    if len(words) < 3:
        return False
    told = [word for word in words if word not in _LANGUAGES]
    is_sentence = text.endswith(".") and len(words) >= 4
    return is_sentence or len(told) < len(words) or bool(_HOW_TO.match(text)) or _is_verb(told[0])


def _is_verb(word: str) -> bool:
    stems = (word, word.removesuffix("s"), word.removesuffix("es"), re.sub("ies$", "y", word))
    return any(stem in _VERBS for stem in stems)


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
    if query_class is QueryClass.REPORT:
        return Plan(text, _title(text), query_class, names, WEIGHTS[query_class], candidates * _REPORT_DEPTH)
    return Plan(text, "", query_class, names, WEIGHTS[query_class], candidates)
