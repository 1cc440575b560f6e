"""Where does the text of a model cite a source? A linear parser of markers, fed in pieces of any size (answers §3.1).

Asked for are `⟦3⟧` and `⟦3:L120-L134⟧`; models drift, so outside code `[3]`, `[[3]]`, `【3】` and `［3］` are taken
too. Every character is looked at once and at most `HOLD_BACK` are held, so neither a hostile text nor the way it is cut
into pieces changes time or result. `items[3]` in prose is no marker: rather none than an invented one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

HOLD_BACK = 24
"""Longest marker, in characters; what is longer is text."""

_CLOSING = {"⟦": "⟧", "【": "】", "［": "］", "[": "]", "[[": "]]"}
_ASKED = "⟦"
_BODY = re.compile(r"([0-9]{1,3})(?::L?([0-9]{1,7})(?:[-–]L?([0-9]{1,7}))?)?")
_IN_BODY = frozenset("0123456789:L-–, ")


@dataclass(frozen=True, slots=True)
class Marker:
    """A citation of source `n`, of its `lines` where it names some; `raw` is how it was written."""

    n: int
    lines: tuple[int, int] | None
    raw: str


@dataclass(frozen=True, slots=True)
class Truncated:
    """The text ended inside what may have been a marker; `raw` stands as text before this."""

    raw: str


Piece = str | Marker | Truncated


@dataclass(slots=True)
class _Code:
    """Whether the text stands inside a code span or fence of Markdown, told by runs of backticks."""

    _open: int = 0
    _fenced: bool = False
    _run: int = 0
    _run_starts_line: bool = False
    _at_line_start: bool = True
    _newlines: int = 0

    @property
    def inside(self) -> bool:
        return self._open > 0

    def take(self, character: str) -> None:
        if character == "`":
            self._run_starts_line = self._at_line_start if not self._run else self._run_starts_line
            self._run += 1
            return
        if self._run:
            self._end_run()
        self._newlines = self._newlines + 1 if character == "\n" else self._newlines if character == " " else 0
        if self._newlines > 1 and not self._fenced:
            self._open = 0  # A code span ends with its paragraph, closed or not.
        self._at_line_start = character == "\n" or (self._at_line_start and character == " ")

    def _end_run(self) -> None:
        run, self._run, self._at_line_start = self._run, 0, False
        if not self._open:
            self._open, self._fenced = run, run >= 3 and self._run_starts_line
        elif run >= self._open and self._run_starts_line if self._fenced else run == self._open:
            self._open, self._fenced = 0, False


@dataclass(slots=True)
class MarkerParser:
    """One text, fed in pieces. Of `str` pieces only the concatenation is meant, not where they are cut."""

    _held: str = ""
    _code: _Code = field(default_factory=_Code)
    _before: str = ""
    """The character before what is held; "" behind a marker or at the start."""

    def feed(self, text: str) -> list[Piece]:
        """Return what is certain now, in order."""
        return _joined(piece for character in text for piece in self._take(character))

    def finish(self) -> list[Piece]:
        """Return what was held: as text, and that it was a marker cut off if it began like one."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [held, Truncated(held)] if len(held) > 1 or held in "⟦【［" else [held]

    def _take(self, character: str) -> Iterator[Piece]:
        if not self._held:
            yield from self._take_outside(character)
            return
        opening = _opening(self._held)
        if character == "[" and self._held == "[":
            self._held += character
        elif character in _CLOSING[opening]:
            self._held += character
            if self._held.endswith(_CLOSING[opening]):
                yield from self._close(opening)
        elif character in _IN_BODY and not self._held.endswith("]") and len(self._held) < HOLD_BACK - 1:
            self._held += character
        else:
            yield self._released()
            yield from self._take_outside(character)

    def _take_outside(self, character: str) -> Iterator[Piece]:
        self._code.take(character)
        opens = character == _ASKED or (character in _CLOSING and not self._code.inside)
        if opens and not (character == "[" and _belongs_to_code(self._before)):
            self._held = character
            return
        self._before = character
        yield character

    def _close(self, opening: str) -> Iterator[Piece]:
        raw = self._held
        markers = list(_markers(raw.removeprefix(opening).removesuffix(_CLOSING[opening]), raw, opening))
        if not markers:
            yield self._released()
            return
        self._held, self._before = "", ""
        yield from markers

    def _released(self) -> str:
        held, self._held = self._held, ""
        self._before = held[-1]
        return held


def _opening(held: str) -> str:
    return "[[" if held.startswith("[[") else held[0]


def _belongs_to_code(before: str) -> bool:
    """`items[3]`, `f(x)[3]` and `rows[0][3]` index something."""
    return before.isalnum() or before in ("_", ")", "]")


def _markers(body: str, raw: str, opening: str) -> Iterator[Marker]:
    """Yield the citations of one marker; none when its body says something else. `[1, 2]` is a list."""
    bodies = [part.strip() for part in body.split(",")] if opening[0] != "[" else [body]
    found = [_BODY.fullmatch(part) for part in bodies]
    for match in found if all(found) else ():
        if match:
            n, first, last = (int(group) if group else None for group in match.groups())
            yield Marker(n or 0, (first, last or first) if first else None, raw)


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Return `pieces` with adjacent texts made one."""
    joined: list[Piece] = []
    for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        held = list(run)
        joined += ["".join(map(str, held))] if is_text else held
    return joined
