"""Questions made of an index's own definitions: what they are called and what their comments say. Pure.

    name       the name as it is written, where only one definition has it
    named      the name and the first sentence of its comment
    unnamed    the first sentence without any word of the name

The comment stands in the indexed text, so these are easier than people's questions: their figures tell one state of an
index from another, not how good the service is. The right place is what the definition's own lines are: of one with
others inside, those above the first of them, else any method would answer for its class.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

from codeintel_rev.eval.metrics import Place
from codeintel_rev.eval.queries import Query
from codeintel_rev.io.code_tokens import tokenize
from codeintel_rev.types import Definition

MOST_CHARACTERS = 160
FEWEST_WORDS = 5
"""A comment that says less asks for nothing in particular."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s(?=[^\sa-z(\d`'])|(?<=。)|\s(?=[:@\\]\w|-{3}|>>>)")
_WORD = re.compile(r"\w+")

T = TypeVar("T")


def questions(repo: str, definitions: Iterable[Definition], most: int) -> list[Query]:
    """Return at most `most` questions, spread evenly over form, language and kind, and in these over folders.

    A question that two definitions would answer is left out. Same definitions, same questions with the same qids, which
    do not depend on lines.
    """
    groups = defaultdict(list)
    for one in definitions:
        groups[one.path, one.qualified_name].append(one)
    places = _own_lines(chain.from_iterable(groups.values()))
    names = Counter(same[0].name for same in groups.values())
    made = [
        _query(repo, form, text, same, places)
        for same in groups.values()
        for form, text in _texts(same[0], is_only=names[same[0].name] == 1)
    ]
    said = Counter(one.text for one in made)
    unique = [one for one in made if said[one.text] == 1]
    return list(_stratified(unique))[:most]


def _texts(definition: Definition, *, is_only: bool) -> Iterator[tuple[str, str]]:
    """Yield the form and text of each question that `definition` gives."""
    if is_only:
        yield "name", definition.name
    sentence = first_sentence(definition.doc)
    if len(_WORD.findall(sentence)) >= FEWEST_WORDS:
        yield "named", f"{definition.name} {sentence}"
    unnamed = without_name(sentence, definition.name)
    if len(_WORD.findall(unnamed)) >= FEWEST_WORDS:
        yield "unnamed", unnamed


def first_sentence(comment: str) -> str:
    """Return the first sentence, without fields such as `:param x:` and `@param x`, cut after a whole word."""
    sentence = _SENTENCE_END.split(comment.strip(), maxsplit=1)[0].strip()
    if len(sentence) <= MOST_CHARACTERS:
        return sentence
    return sentence[: MOST_CHARACTERS + 1].rpartition(" ")[0] or sentence[:MOST_CHARACTERS]


def without_name(sentence: str, name: str) -> str:
    """Return `sentence` without the words that share a stem with a part of `name`."""
    named = set(tokenize(name))
    kept = (word for word in sentence.split() if not named & set(tokenize(word)))
    return " ".join(kept)


def _query(
    repo: str, form: str, text: str, same: Sequence[Definition], places: dict[tuple[str, int, int], Place]
) -> Query:
    first = same[0]
    qid = hashlib.sha256("\0".join((repo, first.path, first.qualified_name, form)).encode()).hexdigest()[:12]
    judged = tuple(dict.fromkeys(places[one.path, one.start_line, one.end_line] for one in same))
    classes = {"form": form, "language": first.language, "kind": first.kind}
    return Query(f"s-{qid}", text, repo, judged, classes)


def _own_lines(definitions: Iterable[Definition]) -> dict[tuple[str, int, int], Place]:
    """Return the lines of each definition above the first one that begins inside it."""
    by_path = defaultdict(set)
    for one in definitions:
        by_path[one.path].add((one.start_line, one.end_line))
    return {
        (path, start, end): Place(path, start, min([end, *(other - 1 for other, _ in spans if start < other <= end)]))
        for path, spans in by_path.items()
        for start, end in spans
    }


def _stratified(made: Iterable[Query]) -> Iterator[Query]:
    ordered = sorted(made, key=lambda one: one.qid)
    folders = _in_turn(ordered, lambda one: one.judged[0].path.rpartition("/")[0])
    return _in_turn(folders, lambda one: tuple(one.classes.values()))


def _in_turn(items: Iterable[T], key: Callable[[T], Hashable]) -> Iterator[T]:
    """Yield the first of each group, then the second of each …, in the order in which groups and items are met."""
    groups: dict[Hashable, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (group[turn] for group in groups.values() if turn < len(group))
