"""From what a model writes, piece by piece, to the text a reader sees and the citations in it. Pure.

Markers become `[n]`, links become text, a citation follows the delta that holds its marker, and its check the end of
the sentence. Which events come does not depend on how the model's text was cut, except for the size of deltas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from codeintel_rev.answer.citations import checked, rarity, terms
from codeintel_rev.answer.events import Citation, CitationChecked, Limited, TextDelta
from codeintel_rev.answer.markers import Marker, MarkerParser, Piece
from codeintel_rev.answer.pack import Passage
from codeintel_rev.answer.plain import Words

_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_ENDED = re.compile(r"[.!?](?:\[\d+\]|\s)*\Z")
_WORD = re.compile(r"\w")
_LINKS_WHEN_BEHIND_A_MARKER = ("(", "[", ":")

Told = TextDelta | Citation | CitationChecked | Limited
TRUNCATED = "citation.truncated"


@dataclass(slots=True)
class Transcript:
    """One text over `passages`."""

    passages: Sequence[Passage]
    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    _parser: MarkerParser = field(default_factory=MarkerParser)
    _words: Words = field(default_factory=Words)
    _rarity: dict[str, float] = field(default_factory=dict)
    _sentence: int = 0
    _before: tuple[int, int] = (0, 0)
    _looked: int = 0
    _claimed: int = 0
    _pending: list[Citation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rarity = rarity(self.passages)

    def feed(self, text: str) -> list[Told]:
        """Return the events of a further piece."""
        return [event for piece in self._parser.feed(text) for event in self._take(piece)]

    def finish(self) -> list[Told]:
        """Return what was held back, and the checks of the last sentence."""
        told = [event for piece in self._parser.finish() for event in self._take(piece)]
        return [*told, *self._write(self._words.finish()), *self._check(len(self.text))]

    def cut(self) -> list[Told]:
        """Return the checks of what is written, without what was held back: the model will not go on."""
        return list(self._check(len(self.text)))

    @property
    def ends_sentence(self) -> bool:
        """Whether the text could end here: behind a full stop, with no further word begun."""
        return bool(_ENDED.search(self.text)) and not self._words.holds_word

    def _take(self, piece: Piece) -> Iterator[Told]:
        if isinstance(piece, str):
            yield from self._write(self._words.feed(piece))
        elif isinstance(piece, Marker):
            yield from self._cite(piece)
        else:
            detail = f"The text ended inside what may have been a citation: {piece.raw!r}."
            yield Limited(TRUNCATED, "stream", "Read the last sentence as uncited.", detail)

    def _write(self, text: str) -> Iterator[Told]:
        if not text:
            return
        if self._claimed == len(self.text) and self._claimed and text.startswith(_LINKS_WHEN_BEHIND_A_MARKER):
            text = f" {text}"
        yield TextDelta(text, len(self.text))
        self.text += text
        for found in _SENTENCE_END.finditer(self.text, self._looked):
            yield from self._check(found.end())
        self._looked = max(self._looked, len(self.text) - 1)

    def _cite(self, marker: Marker) -> Iterator[Told]:
        exists = 1 <= marker.n <= len(self.passages)
        held = self._words.finish()
        yield from self._write(held if exists else held.rstrip(" "))
        at = len(self.text)
        claim = self._claim(at)
        status: Literal["exists", "invalid"] = "exists" if exists else "invalid"
        cid = len(self.citations)
        citation = Citation(cid, marker.n, at, claim, status, marker.lines)
        self.citations.append(citation)
        if exists:
            yield TextDelta(f"[{marker.n}]", at)
            self.text += f"[{marker.n}]"
            self._looked = self._claimed = len(self.text)
            self._pending.append(citation)
        yield citation

    def _claim(self, at: int) -> tuple[int, int]:
        """Return what a marker at `at` stands for: the words before it, the claim of the marker it follows, the
        sentence that just ended, or, at the start of one, nothing yet."""
        start = max(self._sentence, self._claimed)
        if _WORD.search(self.text, start, at):
            return start, at
        if self._pending and self._claimed > self._sentence:
            return self._pending[-1].claim
        return self._before if self._before[1] else (self._sentence, at)

    def _check(self, end: int) -> Iterator[Told]:
        """Yield the checks of the sentence that ends at `end`."""
        if _WORD.search(self.text, self._sentence, end):
            self._before = (self._sentence, end)
        for citation in self._pending:
            passage = self.passages[citation.n - 1]
            result = checked(self._weights(citation, end), passage, citation.lines)
            yield CitationChecked(citation.cid, result.status, result.overlap, result.evidence)
        self._pending.clear()
        self._sentence = end

    def _weights(self, citation: Citation, end: int) -> dict[str, float]:
        """Return the terms of the claim; of the whole sentence where the marker stands before its words, as in
        "According to [1], …"."""
        first, last = citation.claim
        found = terms(self.text[first:last], self._rarity, len(self.passages))
        if len(found) > 1:
            return found
        return terms(self.text[min(first, self._sentence) : end], self._rarity, len(self.passages))
