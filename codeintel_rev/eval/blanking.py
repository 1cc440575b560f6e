"""A copy of a repository without what its comments say, so that questions made of them cannot be found by their words.

Only the first sentence goes, letter by letter: quotes, comment marks and line ends stay, so that the rest still parses
and every line keeps its number. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from codeintel_rev.eval.synth import FEWEST_WORDS, first_sentence
from codeintel_rev.types import Chunk, Definition

_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Blanked:
    """The text of each file by its path, and the definitions, each with a comment only where its sentence is gone."""

    texts: dict[str, str]
    definitions: list[Definition]


def blanked(chunks: Iterable[Chunk], definitions: Iterable[Definition]) -> Blanked:
    """Return the files that `chunks` are cut from, without the first sentences of `definitions`.

    A line in no chunk is empty. Sentences of fewer than `FEWEST_WORDS` words make no question and stay.
    """
    texts = _texts(chunks)
    by_path = defaultdict(list)
    for one in definitions:
        by_path[one.path].append(one)
    kept = []
    for path, of_file in by_path.items():
        texts[path], gone = without(texts[path], {first_sentence(one.doc) for one in of_file})
        kept += [one if first_sentence(one.doc) in gone else replace(one, doc="") for one in of_file]
    return Blanked(texts, kept)


def without(text: str, sentences: Iterable[str]) -> tuple[str, set[str]]:
    """Return `text` without the letters of `sentences`, however its lines are broken, and those that were there."""
    gone = set()
    for sentence in sorted(sentences, key=lambda one: (-len(one), one)):
        words = _WORD.findall(sentence)
        if len(words) >= FEWEST_WORDS:
            pattern = r"\b" + r"\W+".join(words) + r"\b"
            text, count = re.subn(pattern, lambda match: _LETTER.sub("", match[0]), text)
            gone |= {sentence} if count else set()
    return text, gone


def _texts(chunks: Iterable[Chunk]) -> dict[str, str]:
    lines: dict[str, dict[int, str]] = defaultdict(dict)
    for chunk in chunks:
        lines[chunk.path].update(enumerate(chunk.text.split("\n"), start=chunk.start_line))
    return {
        path: "".join(f"{of_file.get(number, '')}\n" for number in range(1, max(of_file) + 1))
        for path, of_file in lines.items()
    }
