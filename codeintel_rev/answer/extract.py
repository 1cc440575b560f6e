"""What can be answered from the sources alone, without a model? (answers §4.2) Pure.

A sentence a source: its best definition, the first sentence of its documentation, and of the best source the lines that
hold most of what was asked. Every sentence is a template over its own lines, so it is supported by construction.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from codeintel_rev.answer.events import (
    Body,
    Citation,
    CitationChecked,
    ExtractItem,
    TextContext,
    TextDelta,
    TextStarted,
)
from codeintel_rev.answer.pack import Passage
from codeintel_rev.answer.plain import without_links, without_urls
from codeintel_rev.indexing.languages import PROSE
from codeintel_rev.indexing.roles import role_of
from codeintel_rev.io.code_tokens import query_weights, tokenize
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.types import Definition, Role

MOST_SENTENCES = 4
WINDOW = range(3, 9)
_APART = "\n\n"
_UNCLEAR = "The index holds no clear answer to this. The nearest lines are:\n\n"
_FAR_BEHIND = 0.5  # A source of less than this share of the best score is not told of.
_MOST_CALLS = 6
_WHERE = re.compile(r"^\W*(?:where|which (?:file|module|class|function|method))\b", re.IGNORECASE)
_CALLERS = re.compile(r"\b(?:who|what|where)\b.*\b(?:calls?|called|callers?|uses?|used|usages?)\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[\w)\]`'\"])[.!?](?=\s|$)")
_SECTION = re.compile(
    r"\n\s*\n|\n\s*(?:Args|Arguments|Parameters|Returns|Raises|Example|:param|@param|\.\. )", re.IGNORECASE
)
_LONGEST_HEAD = 30
_COMMENT = ("#", "//", "/*", "*", "--", ":param", ":type")
_QUOTES = ('"""', "'''")
_INNER_SPACE = re.compile(r"(?<=[(\[])\s+|,?\s+(?=[)\]])")
_TICKS = re.compile(r"`+")
_SHORT = 30
_ROLE = re.compile(r":\w+:`~?([^`<]+?)(?: <[^`]*>)?`")
_OPENS = ("(", "[", "{", ",", ":", "\\", "&&", "||", "=")


def extract(question: str, passages: Sequence[Passage]) -> tuple[ExtractItem, ...]:
    """Return the answer, the most direct sentence first; empty without passages."""
    weights = _telling(question, passages)
    names = make_plan(question, 1).names
    tests = "test" in question.lower()
    told_of = [p for p in passages if tests or p is passages[0] or not _is_test(p)]
    calls = _calls(names, told_of) if names and _CALLERS.search(question) else []
    if calls:
        return tuple(calls[:_MOST_CALLS])
    where = bool(_WHERE.search(question))
    best = passages[0].source.score if passages else 0.0
    near = [passage for passage in told_of if passage.source.score >= _FAR_BEHIND * best]
    items: dict[str, ExtractItem] = {}
    for passage in near:
        found = _sentence(passage, weights, located=where and not items)
        items.setdefault(found.text, replace(found, text=without_links(found.text)))
    told = list(items.values())[:MOST_SENTENCES]
    shown = _shown(passages[0], weights) if passages and not (where and names) else None
    return tuple(told[:1] + ([shown] if shown else []) + told[1:])


def told(
    items: Sequence[ExtractItem], context: TextContext, offset: int, first_cid: int, *, clear: bool
) -> Iterator[Body]:
    """Yield the items as the text of an answer that starts at `offset`, each with its citation.

    Unless it is `clear`, it says first that it is none.
    """
    if offset:
        yield TextDelta(_APART, offset)
        offset += len(_APART)
    yield TextStarted("", context, offset)
    if not clear:
        yield TextDelta(_UNCLEAR, offset)
        offset += len(_UNCLEAR)
    for cid, item in enumerate(items, start=first_cid):
        # A marker behind a fence would keep it open.
        before = f"{item.text}\n" if item.text.endswith("`" * 3) else f"{item.text} "
        end = "\n" if item is items[-1] else "\n\n"
        yield TextDelta(f"{before}[{item.n}]{end}", offset)
        at = offset + len(before)
        yield Citation(cid, item.n, at, (offset, at), "exists", item.lines)
        yield CitationChecked(cid, "supported", 1.0)
        offset = at + len(f"[{item.n}]{end}")


@dataclass(frozen=True, slots=True)
class _Doc:
    """The first sentence of a documentation and the lines it stands on."""

    sentence: str
    first: int
    last: int


def _is_test(passage: Passage) -> bool:
    return role_of(passage.source.path, passage.source.language, "") is Role.TEST


def _telling(question: str, passages: Sequence[Passage]) -> dict[str, float]:
    """Return the weight of every word of the question: the fewer sources hold it, the more it tells."""
    held = Counter(token for passage in passages for token in set(tokenize(passage.text)))
    sources = len(passages)
    return {
        token: weight * max(0.1, math.log((sources + 1) / (held[token] + 0.5)))
        for token, weight in query_weights(question).items()
        if held[token]
    }


def _score(text: str, weights: Mapping[str, float]) -> float:
    return sum(weights.get(token, 0.0) for token in set(tokenize(text)))


def _best_definition(passage: Passage, weights: Mapping[str, float]) -> Definition | None:
    """Return the definition that the question is most about; the first of equals."""
    return max(passage.definitions, key=lambda d: _aboutness(d, passage, weights), default=None)


def _aboutness(definition: Definition, passage: Passage, weights: Mapping[str, float]) -> float:
    named = 2.0 * _score(definition.qualified_name, weights)
    own = 0.01 if definition.qualified_name == passage.source.symbol else 0.0
    return named + own + _score(f"{definition.signature} {definition.doc}", weights)


def _sentence(passage: Passage, weights: Mapping[str, float], *, located: bool) -> ExtractItem:
    source = passage.source
    definition = _best_definition(passage, weights)
    if source.language in PROSE:
        return _quotation(passage, weights)
    if definition is None:
        name = f"`{source.symbol}` in " if source.symbol else ""
        text = f"{name}`{source.path}`, lines {source.start_line} to {source.end_line}."
        return ExtractItem(source.n, (source.start_line, source.end_line), text)
    doc = _documentation(definition, passage)
    first, last = definition.start_line, definition.start_line
    if doc:
        first, last = min(first, doc.first), max(last, doc.last)
    where = f"`{definition.qualified_name}` is defined in `{source.path}`, line {definition.start_line}"
    short = f"`{definition.qualified_name}` in `{source.path}`"
    if not doc:
        return ExtractItem(source.n, (first, last), f"{where}: `{_one_line(definition.signature)}`.")
    return ExtractItem(source.n, (first, last), f"{where}: {doc.sentence}" if located else f"{short}: {doc.sentence}")


def _documentation(definition: Definition, passage: Passage) -> _Doc | None:
    """Return the first sentence of the documentation, two where it is short, when they stand in the passage."""
    paragraph = _SECTION.split(definition.doc.strip(), maxsplit=1)[0].strip()
    ends = [found.end() for found in _SENTENCE_END.finditer(paragraph)] or [len(paragraph)]
    raw = paragraph[: [*ends, len(paragraph)][1] if ends[0] < _SHORT else ends[0]]
    words = re.findall(r"\w+", raw)
    if not words:
        return None
    for at, line in enumerate(passage.text.split("\n"), start=passage.source.start_line):
        if at >= definition.start_line - _LONGEST_HEAD and _begins(line, words):
            sentence = _ROLE.sub(r"`\1`", " ".join(raw.split())).replace("``", "`")
            ended = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
            return _Doc(ended, at, min(at + raw.count("\n"), passage.source.end_line))
    return None


def _begins(line: str, words: Sequence[str]) -> bool:
    """Whether `line` begins with the first of `words`, or is all of them that fit; what begins a comment is no word."""
    found = re.findall(r"\w+", line)[: min(4, len(words))]
    return bool(found) and found == list(words[: len(found)])


def _quotation(passage: Passage, weights: Mapping[str, float]) -> ExtractItem:
    """Return the paragraph of a text that holds most of what was asked, cut to its first sentences."""
    source = passage.source
    lines = passage.text.split("\n")
    paragraphs = _paragraphs(lines)
    first, last = max(
        paragraphs, key=lambda span: (_density(lines[span[0] : span[1]], weights), -span[0]), default=(0, 1)
    )
    quoted = textwrap.shorten(" ".join(lines[first:last]), 300, placeholder=" …")
    name = f" ({source.symbol})" if source.symbol else ""
    span = (source.start_line + first, source.start_line + last - 1)
    return ExtractItem(source.n, span, f"`{source.path}`{name} says: “{quoted}”")


def _paragraphs(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return the runs of lines that are not blank and no heading, as half-open ranges."""
    spans: list[tuple[int, int]] = []
    for at, line in enumerate(lines):
        if not line.strip() or line.startswith(("#", "```", "---", "===")):
            continue
        if spans and spans[-1][1] == at:
            spans[-1] = (spans[-1][0], at + 1)
        else:
            spans.append((at, at + 1))
    return spans


def _shown(passage: Passage, weights: Mapping[str, float]) -> ExtractItem | None:
    """Return the lines of a source's best definition, behind its head, that hold most of what was asked.

    None when they hold nothing of it.
    """
    source = passage.source
    if source.language in PROSE:
        return None
    lines = passage.text.split("\n")
    first, last = _body(_best_definition(passage, weights), passage)
    windows = [
        (start, min(start + size, last))
        for start in range(first, last)
        for size in WINDOW
        if (start == first or start + size <= last)
        and lines[start].strip()
        and lines[min(start + size, last) - 1].strip()
    ]
    read = ["" if line.lstrip().startswith(_COMMENT) else line for line in lines]
    scored = [(_density(read[a:b], weights) * _shape(lines[a:b]), -a, -b) for a, b in windows]
    if not scored or max(scored)[0] <= 0:
        return None
    _, start, end = (abs(value) for value in max(scored))
    start, end = int(start), _statement_end(lines, int(start), int(end), last)
    code = without_urls(textwrap.dedent("\n".join(lines[start:end])))
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(code)), default=0))
    text = f"{fence}{source.language}\n{code}\n{fence}"
    return ExtractItem(source.n, (source.start_line + start, source.start_line + end - 1), text)


def _body(definition: Definition | None, passage: Passage) -> tuple[int, int]:
    """Return the half-open range of the passage's lines behind the head and documentation of `definition`."""
    lines, start = passage.text.split("\n"), passage.source.start_line
    if definition is None:
        return 0, len(lines)
    last = min(len(lines), definition.end_line - start + 1)
    first = _head_end(definition, lines, max(0, definition.start_line - start), last)
    if first < last and lines[first].lstrip().lstrip("rRbBuU").startswith(_QUOTES):
        closed = (at for at in range(first, last) if _closes_doc(lines[at], opens=at == first))
        first = next(closed, last) + 1
    return min(first, last), last


def _head_end(definition: Definition, lines: Sequence[str], head: int, last: int) -> int:
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


def _density(lines: Sequence[str], weights: Mapping[str, float]) -> float:
    return _score("\n".join(lines), weights) / (len(lines) + 6)


def _shape(lines: Sequence[str]) -> float:
    """Return less than 1 for lines that begin inside a statement or with a comment, or end where a statement opens."""
    outermost = _indent(lines[0]) == min(_indent(line) for line in lines if line.strip())
    begins = 1.0 if outermost and not lines[0].lstrip().startswith(_COMMENT) else 0.7
    return begins * (0.8 if lines[-1].rstrip().endswith(_OPENS) else 1.0)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _calls(names: Sequence[str], passages: Sequence[Passage]) -> list[ExtractItem]:
    """Return where the last of the `names` asked for is used, a sentence a line; definitions of it are none."""
    name = re.findall(r"\w+", names[-1])[-1]
    use = re.compile(rf"\b{re.escape(name)}\b\s*[(.\[]")
    found = []
    for passage in passages:
        start, lines = passage.source.start_line, passage.text.split("\n")
        heads = [
            range(d.start_line, start + _head_end(d, lines, d.start_line - start, len(lines)))
            for d in passage.definitions
            if d.name == name
        ]
        used = (
            n for n, line in enumerate(lines, start=start) if use.search(line) and not any(n in head for head in heads)
        )
        number = next(used, 0)
        if number and passage.source.language not in PROSE:
            text = f"`{name}` is used in {_place(passage, number)}: `{_one_line(lines[number - start])}`."
            found.append(ExtractItem(passage.source.n, (number, number), without_links(text)))
    return found


def _place(passage: Passage, number: int) -> str:
    inside = [d for d in passage.definitions if d.start_line <= number <= d.end_line]
    symbol = inside[-1].qualified_name if inside else passage.source.symbol
    return (
        f"`{symbol}` (`{passage.source.path}`, line {number})" if symbol else f"`{passage.source.path}`, line {number}"
    )


def _one_line(text: str) -> str:
    closed = _INNER_SPACE.sub("", " ".join(text.split()))
    return textwrap.shorten(closed, 160, placeholder=" …").replace("`", "'")
