"""Which lines of a source say most of what was asked, and what does its documentation say first? Pure."""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codeintel_rev.answer.pack import Passage
from codeintel_rev.io.code_tokens import query_weights, tokenize
from codeintel_rev.types import Definition

WINDOW = range(3, 9)
"""Lines of an excerpt."""
_LONGEST_HEAD = 30
_SHORT, _LONGEST = 30, 300
_SENTENCE_END = re.compile(r"(?<=[\w)\]`'\"])[.!?](?=\s|$)")
_SECTION = re.compile(
    r"\n\s*\n|\n\s*(?:Args|Arguments|Parameters|Returns|Raises|Example|:param|@param|\.\. )", re.IGNORECASE
)
_ROLE = re.compile(r":\w+:`~?([^`<]+?)(?: <[^`]*>)?`")
_COMMENT = ("#", "//", "/*", "*", "--", ":param", ":type")
_QUOTES = ('"""', "'''")
_OPENS = ("(", "[", "{", ",", ":", "\\", "&&", "||", "=")


@dataclass(frozen=True, slots=True)
class Doc:
    """The first sentence of a documentation and the lines it stands on."""

    sentence: str
    first: int
    last: int


def telling(question: str, passages: Sequence[Passage]) -> dict[str, float]:
    """Return the weight of every word of the question: the fewer sources hold it, the more it tells."""
    held = Counter(token for passage in passages for token in set(tokenize(passage.text)))
    sources = len(passages)
    return {
        token: weight * max(0.1, math.log((sources + 1) / (held[token] + 0.5)))
        for token, weight in query_weights(question).items()
        if held[token]
    }


def score(text: str, weights: Mapping[str, float]) -> float:
    return math.fsum(weights.get(token, 0.0) for token in set(tokenize(text)))


def best_definition(passage: Passage, weights: Mapping[str, float]) -> Definition | None:
    """Return the definition that the question is most about; the first of equals."""
    return max(passage.definitions, key=lambda d: _aboutness(d, passage, weights), default=None)


def _aboutness(definition: Definition, passage: Passage, weights: Mapping[str, float]) -> float:
    named = 2.0 * score(definition.qualified_name, weights)
    own = 0.01 if definition.qualified_name == passage.source.symbol else 0.0
    return named + own + score(f"{definition.signature} {definition.doc}", weights)


def documentation(definition: Definition, passage: Passage) -> Doc | None:
    """Return the first sentence of the documentation, two where it is short, when they stand in the passage."""
    paragraph = _SECTION.split(definition.doc.strip(), maxsplit=1)[0].strip()
    ends = [found.end() for found in _SENTENCE_END.finditer(paragraph)] or [len(paragraph)]
    raw = paragraph[: [*ends, len(paragraph)][1] if ends[0] < _SHORT else ends[0]]
    words = re.findall(r"\w+", raw)
    if not words:
        return None
    for at, line in enumerate(passage.text.split("\n"), start=passage.source.start_line):
        if at >= definition.start_line - _LONGEST_HEAD and _begins(line, words):
            sentence = textwrap.shorten(_ROLE.sub(r"`\1`", raw), _LONGEST, placeholder=" …").replace("``", "`")
            ended = sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."
            return Doc(ended, at, min(at + raw.count("\n"), passage.source.end_line))
    return None


def _begins(line: str, words: Sequence[str]) -> bool:
    """Whether `line` begins with the first of `words`, or is all of them that fit; what begins a comment is no word."""
    found = re.findall(r"\w+", line)[: min(4, len(words))]
    return bool(found) and found == list(words[: len(found)])


def excerpt(passage: Passage, weights: Mapping[str, float]) -> tuple[int, int] | None:
    """Return the half-open range of a passage's lines, of its best definition and behind its head, that say most.

    Lines count by the telling words they hold, each once, comments by none; None when no line holds any.
    """
    lines = passage.text.split("\n")
    held = [
        frozenset() if line.lstrip().startswith(_COMMENT) else frozenset(tokenize(line)) & weights.keys()
        for line in lines
    ]
    first, last = _body(best_definition(passage, weights), passage)
    scored = [(density(held[a:b], weights) * _shape(lines[a:b]), -a, -b) for a, b in _windows(lines, first, last)]
    best, start, end = max(scored, default=(0.0, 0, 0))
    return (-start, _statement_end(lines, -start, -end, last)) if best > 0 else None


def density(held: Sequence[frozenset[str]], weights: Mapping[str, float]) -> float:
    """Return how much lines that hold these words say for their length. Exactly summed: sets have no order."""
    return math.fsum(weights[token] for token in frozenset().union(*held)) / (len(held) + 6)


def _windows(lines: Sequence[str], first: int, last: int) -> list[tuple[int, int]]:
    """Return the ranges of a window's length, or as far as `last`, that begin and end with a line that is not blank."""
    ranges = ((start, min(start + size, last)) for start in range(first, last) for size in WINDOW)
    return [
        (a, b) for a, b in ranges if (a == first or b - a >= WINDOW.start) and lines[a].strip() and lines[b - 1].strip()
    ]


def _body(definition: Definition | None, passage: Passage) -> tuple[int, int]:
    """Return the half-open range of the passage's lines behind the head and documentation of `definition`."""
    lines, start = passage.text.split("\n"), passage.source.start_line
    if definition is None:
        return 0, len(lines)
    last = min(len(lines), definition.end_line - start + 1)
    first = head_end(definition, lines, max(0, definition.start_line - start), last)
    if first < last and lines[first].lstrip().lstrip("rRbBuU").startswith(_QUOTES):
        closed = (at for at in range(first, last) if _closes_doc(lines[at], opens=at == first))
        first = next(closed, last) + 1
    return min(first, last), last


def head_end(definition: Definition, lines: Sequence[str], head: int, last: int) -> int:
    """Return the line behind the definition's signature, which may take several."""
    signature, seen = _letters(definition.signature), ""
    for at in range(head, min(head + _LONGEST_HEAD, last)):
        seen += _letters(lines[at])
        if signature in seen:
            return at + 1
    return head + 1


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text)


def _closes_doc(line: str, *, opens: bool) -> bool:
    """Whether a string of documentation ends on `line`; on the line that `opens` it, it must stand twice."""
    return any(line.rstrip().endswith(mark) and line.count(mark) > opens for mark in _QUOTES)


def _statement_end(lines: Sequence[str], start: int, end: int, last: int) -> int:
    """Return `end`, moved behind what belongs to the first line's block as far as a window is long, but no comment."""
    most = min(last, start + WINDOW.stop - 1)
    while end < most and lines[end].strip() and _indent(lines[end]) > _indent(lines[start]):
        end += 1
    while end - start > 1 and lines[end - 1].lstrip().startswith(_COMMENT):
        end -= 1
    return end


def _shape(lines: Sequence[str]) -> float:
    """Return less than 1 for lines that begin inside a statement or with a comment, or end where a statement opens."""
    outermost = _indent(lines[0]) == min(_indent(line) for line in lines if line.strip())
    begins = 1.0 if outermost and not lines[0].lstrip().startswith(_COMMENT) else 0.7
    return begins * (0.8 if lines[-1].rstrip().endswith(_OPENS) else 1.0)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
