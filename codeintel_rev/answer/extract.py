"""What can be answered from the sources alone, without a model? (answers §4.2) Pure.

A sentence a source: its best definition, the first sentence of its documentation, and of the best source the lines that
hold most of what was asked. Every sentence is a template over its own lines, so it is supported by construction.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from codeintel_rev.answer.events import (
    Body,
    Citation,
    CitationChecked,
    ExtractItem,
    TextContext,
    TextDelta,
    TextStarted,
)
from codeintel_rev.answer.excerpt import best_definition, density, documentation, excerpt, head_end, telling
from codeintel_rev.answer.pack import Pack, Passage
from codeintel_rev.answer.plain import without_links, without_urls
from codeintel_rev.indexing.languages import PROSE
from codeintel_rev.indexing.roles import role_of
from codeintel_rev.io.code_tokens import tokenize
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.types import Role

MOST_SENTENCES = 4
_APART = "\n\n"
_UNCLEAR = "The index holds no clear answer to this. The nearest lines are:\n\n"
_FAR_BEHIND = 0.5  # A source of less than this share of the best score is not told of.
_MOST_CALLS = 6
_WHERE = re.compile(r"^\W*(?:where|which (?:file|module|class|function|method))\b", re.IGNORECASE)
_CALLERS = re.compile(r"\b(?:who|what|where)\b.*\b(?:calls?|called|callers?|uses?|used|usages?)\b", re.IGNORECASE)
_INNER_SPACE = re.compile(r"(?<=[(\[])\s+|,?\s+(?=[)\]])")
_TICKS = re.compile(r"`+")


def extract(question: str, passages: Sequence[Passage]) -> tuple[ExtractItem, ...]:
    """Return the answer, the most direct sentence first; empty without passages."""
    weights = telling(question, passages)
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


def told(items: Sequence[ExtractItem], packed: Pack, offset: int, first_cid: int, *, clear: bool) -> Iterator[Body]:
    """Yield the items as the text of an answer that starts at `offset`, each with its citation.

    Unless it is `clear`, it says first that it is none. What tainted lines say is weak.
    """
    tainted = {passage.source.n for passage in packed.passages if passage.source.tainted}
    context = TextContext(len(packed.passages), packed.tokens, packed.dropped)
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
        yield CitationChecked(cid, "weak" if item.n in tainted else "supported", 1.0)
        offset = at + len(f"[{item.n}]{end}")


def _is_test(passage: Passage) -> bool:
    return role_of(passage.source.path, passage.source.language, "") is Role.TEST


def _sentence(passage: Passage, weights: Mapping[str, float], *, located: bool) -> ExtractItem:
    source = passage.source
    definition = best_definition(passage, weights)
    if source.language in PROSE:
        return _quotation(passage, weights)
    if definition is None:
        name = f"`{source.symbol}` in " if source.symbol else ""
        text = f"{name}`{source.path}`, lines {source.start_line} to {source.end_line}."
        return ExtractItem(source.n, (source.start_line, source.end_line), text)
    doc = documentation(definition, passage)
    first, last = definition.start_line, definition.start_line
    if doc:
        first, last = min(first, doc.first), max(last, doc.last)
    where = f"`{definition.qualified_name}` is defined in `{source.path}`, line {definition.start_line}"
    short = f"`{definition.qualified_name}` in `{source.path}`"
    if not doc:
        return ExtractItem(source.n, (first, last), f"{where}: `{_one_line(definition.signature)}`.")
    return ExtractItem(source.n, (first, last), f"{where}: {doc.sentence}" if located else f"{short}: {doc.sentence}")


def _quotation(passage: Passage, weights: Mapping[str, float]) -> ExtractItem:
    """Return the paragraph of a text that holds most of what was asked, cut to its first sentences."""
    source = passage.source
    lines = passage.text.split("\n")
    held = [frozenset(tokenize(line)) & weights.keys() for line in lines]
    spans = _paragraphs(lines)
    first, last = max(spans, key=lambda span: (density(held[span[0] : span[1]], weights), -span[0]), default=(0, 1))
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
    """Return the lines of a source that say most of what was asked, as they stand; None when they say nothing of it."""
    source = passage.source
    found = None if source.language in PROSE else excerpt(passage, weights)
    if found is None:
        return None
    start, end = found
    code = without_urls(textwrap.dedent("\n".join(passage.text.split("\n")[start:end])))
    fence = "`" * max(3, 1 + max(map(len, _TICKS.findall(code)), default=0))
    text = f"{fence}{source.language}\n{code}\n{fence}"
    return ExtractItem(source.n, (source.start_line + start, source.start_line + end - 1), text)


def _calls(names: Sequence[str], passages: Sequence[Passage]) -> list[ExtractItem]:
    """Return where the last of the `names` asked for is used, a sentence a line; definitions of it are none."""
    name = re.findall(r"\w+", names[-1])[-1]
    use = re.compile(rf"\b{re.escape(name)}\b\s*[(.\[]")
    found = []
    for passage in passages:
        start, lines = passage.source.start_line, passage.text.split("\n")
        heads = [
            range(d.start_line, start + head_end(d, lines, d.start_line - start, len(lines)))
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
