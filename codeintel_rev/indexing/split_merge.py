"""Which rows of a file stay together? Split, then merge (cAST, arXiv 2506.15655, §3), over rows instead of nodes.

A run of rows that is too large, or holds a definition among other things, is split before its shallowest nodes; then
small neighbours are merged. The pieces are in order, do not overlap and hold every row that is not blank.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from codeintel_rev.indexing.cut_points import NO_CUT
from codeintel_rev.indexing.definition_rules import CONTAINERS, SCOPE, TYPES
from codeintel_rev.indexing.definitions import Region
from codeintel_rev.types import CALLABLES

_STRUCTURAL = TYPES | CALLABLES | CONTAINERS | {SCOPE, "heading"}
# Definitions share a piece only when each is this small: merging functions of up to 133 tokens cost .05 mrr@10 of dense
# retrieval on docstring → function, and a fused .015 (docs/quality.md).
_PAIRED_TOKENS = 40
_SHORT_SHARE = 1 / 4  # A last part below this share takes rows from the part before it.
_TINY_SHARE = 1 / 16  # Plain code below this share is no piece of its own: `impl Foo {`, an export line.

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [start, end) that stay together.

    `owner` is the innermost region that holds them and more; `held` the outermost ones that lie within them.
    """

    start: int
    end: int
    tokens: int
    owner: Region | None
    held: tuple[Region, ...]

    @property
    def definitions(self) -> tuple[Region, ...]:
        return tuple(region for region in self.held if region.kind in _STRUCTURAL)


@dataclass(frozen=True, slots=True)
class Rows:
    """A file's rows and all that decides where they are cut. `totals[j] - totals[i]` are the tokens of rows [i, j)."""

    lines: Sequence[str]
    totals: Sequence[int]
    levels: bytearray
    regions: Sequence[Region]
    starts: Sequence[int]
    budget: int

    def tokens(self, start: int, end: int) -> int:
        return self.totals[end] - self.totals[start]


def pieces(rows: Rows) -> list[Piece]:
    """Return the pieces in order; only a single row can be larger than the budget."""
    groups = _balance(rows, _merge(rows))
    return _absorb_tiny(rows, [_piece(rows, *_span(group)) for group in groups])


def windows(lines: Sequence[str], totals: Sequence[int], span: Span, budget: int) -> Iterator[Span]:
    """Yield runs of rows within the budget that end at a blank row where one stands in their second half."""
    start, end = span
    while trimmed := trim(lines, start, end):
        start, end = trimmed
        stop = max(start + 1, bisect_right(totals, totals[start] + budget, start + 1, end + 1) - 1)
        if stop < end:
            half = bisect_left(totals, totals[start] + budget // 2, start, stop)
            stop = next((row for row in range(stop, half, -1) if not lines[row].strip()), stop)
        yield trim(lines, start, stop) or (start, stop)
        start = stop


def trim(lines: Sequence[str], start: int, end: int) -> Span | None:
    """Return [start, end) without blank rows at its ends, None when all are blank."""
    while start < end and not lines[start].strip():
        start += 1
    while end > start and not lines[end - 1].strip():
        end -= 1
    return (start, end) if start < end else None


def _split(rows: Rows) -> Iterator[Span]:
    todo = [(0, len(rows.lines))]
    while todo:
        span = trim(rows.lines, *todo.pop())
        if span is None:
            continue
        if _stays_whole(rows, *span):
            yield span
        elif cuts := _best_cuts(rows.levels, *span):
            todo.extend(reversed(list(pairwise((span[0], *cuts, span[1])))))
        else:
            room = int(rows.budget * (1 - _TINY_SHARE))  # for the head of what these rows are the body of
            yield from windows(rows.lines, rows.totals, span, room)


def _stays_whole(rows: Rows, start: int, end: int) -> bool:
    """Say whether the span fits and is either without definitions or exactly one, with at most its closing lines."""
    if rows.tokens(start, end) > rows.budget:
        return False
    within = [region for region in _starting_in(rows, start, end) if region.end_row < end]
    first = next((region for region in within if region.kind in _STRUCTURAL), None)
    if first is None:
        return True
    only = first.start_row == start and first.kind not in CONTAINERS
    return only and not _best_cuts(rows.levels, first.end_row, end)


def _best_cuts(levels: bytearray, start: int, end: int) -> list[int]:
    best = min(levels[start + 1 : end], default=NO_CUT)
    cuts: list[int] = []
    if best == NO_CUT:
        return cuts
    row = levels.find(best, start + 1, end)
    while row >= 0:
        cuts.append(row)
        row = levels.find(best, row + 1, end)
    return cuts


def _starting_in(rows: Rows, start: int, end: int) -> Sequence[Region]:
    return rows.regions[bisect_left(rows.starts, start) : bisect_left(rows.starts, end)]


def _piece(rows: Rows, start: int, end: int) -> Piece:
    held = [region for region in _starting_in(rows, start, end) if region.end_row < end]
    outermost = tuple(region for region in held if region.parent is None or region.parent not in held)
    return Piece(start, end, rows.tokens(start, end), _owner(rows, start, end), outermost)


def _owner(rows: Rows, start: int, end: int) -> Region | None:
    """Return the innermost region that begins above the rows, or goes beyond them; closing lines do not count."""
    last = bisect_right(rows.starts, start) - 1
    region = rows.regions[last] if last >= 0 else None
    while region and region.end_row < (start if region.start_row < start else end):
        region = region.parent
    return region


def _merge(rows: Rows) -> list[list[Span]]:
    """Return the split spans in groups, greedily from the top."""
    groups: list[list[Span]] = []
    latest: Piece | None = None
    for span in _split(rows):
        piece = _piece(rows, *span)
        if latest and _belong_together(rows, latest, piece):
            groups[-1].append(span)
            latest = _piece(rows, latest.start, piece.end)
        else:
            groups.append([span])
            latest = piece
    return groups


def _belong_together(rows: Rows, one: Piece, other: Piece) -> bool:
    if one.owner is not other.owner or rows.tokens(one.start, other.end) > rows.budget:
        return False
    paired = max(one.tokens, other.tokens) <= min(_PAIRED_TOKENS, rows.budget / 3)
    return paired or not (one.definitions or other.definitions)


def _balance(rows: Rows, groups: list[list[Span]]) -> list[list[Span]]:
    """Move rows from a full group to a short one after it, so that a split definition has no orphaned tail."""
    for index in range(1, len(groups)):
        one, other = (_piece(rows, *_span(groups[i])) for i in (index - 1, index))
        short = other.tokens < rows.budget * _SHORT_SHARE
        if short and one.owner is other.owner and not (one.definitions or other.definitions):
            groups[index - 1], groups[index] = _halves(rows, groups[index - 1] + groups[index])
    return groups


def _halves(rows: Rows, group: list[Span]) -> tuple[list[Span], list[Span]]:
    start, end = _span(group)
    cut = min(
        range(1, len(group)),
        key=lambda i: max(rows.tokens(start, group[i - 1][1]), rows.tokens(group[i][0], end)),
    )
    return group[:cut], group[cut:]


def _absorb_tiny(rows: Rows, found: list[Piece]) -> list[Piece]:
    """Give each tiny piece to a neighbour, which stays what it is: `impl Foo {` goes to the method below it."""
    kept: list[Piece] = []
    for index, piece in enumerate(found):
        above = kept[-1] if kept else None
        if above and _can_absorb(rows, piece, above):
            kept[-1] = replace(piece, start=above.start, tokens=rows.tokens(above.start, piece.end))
        elif above and (above.end == piece.start or index == len(found) - 1) and _can_absorb(rows, above, piece):
            kept[-1] = replace(above, end=piece.end, tokens=rows.tokens(above.start, piece.end))
        else:
            kept.append(piece)
    return kept


def _can_absorb(rows: Rows, host: Piece, guest: Piece) -> bool:
    worded = any(any(map(str.isalnum, line)) for line in rows.lines[guest.start : guest.end])
    if guest.definitions or (worded and guest.tokens > rows.budget * _TINY_SHARE):
        return False
    owner = host.owner
    while owner is not guest.owner and owner is not None:
        owner = owner.parent
    return owner is guest.owner and host.tokens + guest.tokens <= rows.budget


def _span(group: Sequence[Span]) -> Span:
    return group[0][0], group[-1][1]
