"""How is a file cut into chunks? Along its syntax tree when there is one, at blank lines when there is none.

Chunks are runs of whole lines, do not overlap, and together hold every line that is not blank. Useful for: one file.
Not useful for: a hostile one, which parse_pool.py keeps in a process that can be killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codeintel_rev.indexing.cut_points import cut_levels
from codeintel_rev.indexing.definition_rules import PROSE, SCOPE
from codeintel_rev.indexing.definitions import Region, definitions, outline
from codeintel_rev.indexing.grammars import LANGUAGES, parse
from codeintel_rev.indexing.identity import mint_all
from codeintel_rev.indexing.split_merge import Piece, Rows, pieces, windows
from codeintel_rev.indexing.token_estimate import running_totals
from codeintel_rev.types import Chunk, Definition, SourceFile

FORMAT = 2
"""Raised whenever an unchanged file would be cut, named or described differently: old chunks are then made anew."""

_ERROR_SHARE = 0.5  # With more of its rows in error nodes a tree says nothing about the text.


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """One file's chunks and definitions, in file order. `note` says why lines stood in for syntax, "" when not."""

    path: str
    chunks: tuple[Chunk, ...]
    definitions: tuple[Definition, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A chunk before it has text and id: rows [start, end) and what it belongs to."""

    start: int
    end: int
    symbol: str
    kind: str
    header: str


def chunk_file(repo: str, file: SourceFile, max_tokens: int) -> ParsedFile:
    """Return the chunks and definitions of one file; a chunk is above `max_tokens` only when one line of it is.

    A language without a grammar, and a tree that is mostly errors (note "parse-errors"), are cut by lines.
    """
    if file.language not in LANGUAGES:
        return chunk_by_lines(repo, file, max_tokens)
    source = file.text.encode("utf-8", "replace")
    lines = file.text.split("\n")
    root = parse(file.language, source)
    found = outline(root, source, file, lines)
    if found.error_rows > _ERROR_SHARE * len(lines):
        return chunk_by_lines(repo, file, max_tokens, "parse-errors")
    rows = Rows(
        lines=lines,
        totals=running_totals(lines),
        levels=cut_levels(root, source, found.marks),
        regions=found.regions,
        starts=[region.start_row for region in found.regions],
        budget=max_tokens,
    )
    drafts = [_draft(piece, file.language) for piece in pieces(rows)]
    return ParsedFile(file.path, _chunks(repo, file, lines, drafts), definitions(found.regions, file))


def chunk_by_lines(repo: str, file: SourceFile, max_tokens: int, note: str = "") -> ParsedFile:
    """Return windows of lines, without definitions. Never fails, whatever the text."""
    lines = file.text.split("\n")
    kind = "text" if file.language in PROSE else "window"
    spans = windows(lines, running_totals(lines), (0, len(lines)), max_tokens)
    drafts = [_Draft(start, end, "", kind, "") for start, end in spans]
    return ParsedFile(file.path, _chunks(repo, file, lines, drafts), (), note)


def _draft(piece: Piece, language: str) -> _Draft:
    named = _subject(piece) or piece.owner
    if named is None:
        return _Draft(piece.start, piece.end, "", "text" if language in PROSE else "module", "")
    kind = "type" if named.kind == SCOPE else named.kind
    header = piece.owner.signature if piece.owner and piece.owner.start_row < piece.start else ""
    return _Draft(piece.start, piece.end, named.qualified_name, kind, header)


def _subject(piece: Piece) -> Region | None:
    """Return the one definition a piece is about, when it holds one.

    A constant among other code, or a short method behind the head of its class, is not what the piece is about.
    """
    candidates = piece.definitions or piece.held
    if len(candidates) != 1:
        return None
    only = candidates[0]
    headed = piece.owner is not None and piece.owner.start_row >= piece.start
    dominates = 2 * (only.end_row + 1 - only.start_row) > piece.end - piece.start
    return only if dominates or (piece.definitions and not headed) else None


def _chunks(repo: str, file: SourceFile, lines: Sequence[str], drafts: Sequence[_Draft]) -> tuple[Chunk, ...]:
    texts = ["\n".join(lines[draft.start : draft.end]) for draft in drafts]
    return tuple(
        Chunk(
            chunk_id=chunk_id,
            repo=repo,
            path=file.path,
            language=file.language,
            role=file.role,
            start_line=draft.start + 1,
            end_line=draft.end,
            kind=draft.kind,
            symbol=draft.symbol,
            header=draft.header,
            text=text,
        )
        for draft, text, chunk_id in zip(drafts, texts, mint_all(repo, file.path, texts), strict=True)
    )
