"""What does a file define? Reads definitions out of a syntax tree, by the rules in definition_rules.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from tree_sitter import Node, Query, QueryCursor

from codeintel_rev.indexing import definition_text
from codeintel_rev.indexing.definition_rules import ATTRIBUTES, RULES, SCOPE, TYPES, VALUES, Rule
from codeintel_rev.indexing.grammars import grammar
from codeintel_rev.types import CALLABLES, Definition, Role, SourceFile

MAX_DEPTH = 96
"""Nodes nested deeper are not looked at: real code stays well under it, hostile code does not."""

COMMENT, ATTRIBUTE = 1, 2

_KEY_DEPTH = 2
_CONFIG_LANGUAGES = frozenset({"json", "yaml", "toml"})
_WRAPPERS = frozenset({"template_declaration", "export_statement", "ambient_declaration", "decorated_definition"})


@dataclass(slots=True, eq=False)
class Region:
    """A named run of rows, 0-based and inclusive: a definition, or a scope that only qualifies the names within."""

    start_row: int
    end_row: int
    end_byte: int
    parent: Region | None
    name: str
    qualified_name: str
    kind: str
    signature: str
    doc: str


@dataclass(frozen=True, slots=True)
class Outline:
    """What chunking needs to know of a tree.

    `regions` in file order, outer before inner. `marks`: one byte a row, COMMENT or ATTRIBUTE where the row holds
    nothing else. `error_rows`: how many rows the grammar could not make sense of.
    """

    regions: list[Region]
    marks: bytearray
    error_rows: int


def outline(root: Node, source: bytes, file: SourceFile, lines: Sequence[str]) -> Outline:
    """Return the definitions of one parsed file. `source` is the bytes that were parsed, `lines` its rows."""
    cursor = QueryCursor(_query(file.language))
    cursor.set_max_start_depth(MAX_DEPTH)
    captures = cursor.captures(root)
    marks = bytearray(len(lines))
    _mark(marks, source, captures.get("comment", []), COMMENT)
    _mark(marks, source, captures.get("attribute", []), ATTRIBUTE)
    reader = _Reader(file, source, lines, marks)
    errors = [node for node in captures.get("error", []) if node.id != root.id]  # An ERROR root has good children.
    return Outline(reader.regions(captures.get("definition", [])), marks, _rows_covered(errors))


def definitions(regions: Iterable[Region], file: SourceFile) -> tuple[Definition, ...]:
    """Return the regions that define a name, as values with 1-based lines."""
    return tuple(
        Definition(
            path=file.path,
            language=file.language,
            name=region.name,
            qualified_name=region.qualified_name,
            kind=region.kind,
            start_line=region.start_row + 1,
            end_line=region.end_row + 1,
            signature=region.signature,
            doc=region.doc,
        )
        for region in regions
        if region.kind != SCOPE
    )


def last_row(node: Node) -> int:
    """Return the last row on which the node has text: some nodes end at column 0 of the next row."""
    row, column = node.end_point
    return row - 1 if column == 0 and row > node.start_point[0] else row


def heading_level(node: Node) -> int:
    """Return 1 to 6 for a Markdown heading, `#` or underlined."""
    marker = next(child.type for child in node.children if child.type.endswith(("_marker", "_underline")))
    return int(next(char for char in marker if char.isdigit()))


@cache
def _query(language: str) -> Query:
    known = grammar(language)
    named = (known.node_kind_for_id(i) for i in range(known.node_kind_count) if known.node_kind_is_named(i))
    comments = {kind for kind in named if kind and kind.lower().endswith(("comment", "haddock"))}
    patterns = [rule.pattern or f"({node}) @definition" for node, rule in RULES.get(language, {}).items()]
    patterns += [f"({kind}) @comment" for kind in sorted(comments)]
    return Query(known, "".join([*patterns, ATTRIBUTES.get(language, ""), "(ERROR) @error"]))


def _mark(marks: bytearray, source: bytes, nodes: Iterable[Node], mark: int) -> None:
    for node in nodes:
        row, column = node.start_point
        if source.startswith(b"#!") and row == 0:
            continue
        line_end = source.find(b"\n", node.end_byte)
        before = source[node.start_byte - column : node.start_byte]
        after = source[node.end_byte : line_end if line_end >= 0 else len(source)] if node.end_point[1] else b""
        if not before.strip() and not after.strip():
            for marked in range(row, last_row(node) + 1):
                marks[marked] = mark


def _rows_covered(nodes: Iterable[Node]) -> int:
    covered, seen = 0, -1
    for node in sorted(nodes, key=lambda node: node.start_byte):
        start, end = max(node.start_point[0], seen + 1), last_row(node)
        covered += max(0, end - start + 1)
        seen = max(seen, end)
    return covered


def _section_ends(headings: Iterable[Node], end: int) -> dict[int, int]:
    """Return the byte where each heading's section ends: before the next heading that is not below it."""
    ends: dict[int, int] = {}
    open_headings: list[tuple[int, int]] = []
    for node in sorted(headings, key=lambda node: node.start_byte):
        level = heading_level(node)
        while open_headings and open_headings[-1][0] >= level:
            ends[open_headings.pop()[1]] = node.start_byte
        open_headings.append((level, node.id))
    return ends | {heading: end for _, heading in open_headings}


def _kind(node: Node, rule: Rule, source: bytes) -> str:
    if not rule.refine:
        return rule.kind
    first_word = source[node.start_byte : node.start_byte + 40].partition(b" ")[0].decode("utf-8", "replace")
    present = {first_word, *(child.type for child in node.children)}
    return next((kind for mark, kind in rule.refine.items() if mark in present), rule.kind)


def _kind_within(kind: str, name: str, parent: Region | None) -> str:
    """Return the kind a definition has by its place: functions of a type are methods, its variables fields."""
    if kind in {"variable", "field"} and name.rpartition(".")[2].isupper():
        return "constant"
    owned = parent is not None and parent.kind in TYPES | VALUES | {SCOPE}
    if kind == "function" and (owned or "." in name):
        return "method"
    return "field" if kind == "variable" and owned else kind


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns the definition nodes of one file into regions."""

    file: SourceFile
    source: bytes
    lines: Sequence[str]
    marks: bytearray

    def regions(self, nodes: Sequence[Node]) -> list[Region]:
        if not nodes or (self.file.language in _CONFIG_LANGUAGES and self.file.role is not Role.CONFIG):
            return []
        rules = RULES[self.file.language]
        unique = {node.id: node for node in nodes}.values()
        ends = _section_ends(unique, len(self.source)) if self.file.language == "markdown" else {}
        found: list[Region] = []
        enclosing: list[Region] = []
        latest: dict[int, Region] = {}
        for node in sorted(unique, key=lambda node: (node.start_byte, -node.end_byte)):
            end_byte = ends.get(node.id, node.end_byte)
            while enclosing and enclosing[-1].end_byte < end_byte:
                enclosing.pop()
            parent = enclosing[-1] if enclosing else None
            region = self._region(node, rules[node.type], end_byte, parent)
            if region is None or (region.kind == "key" and len(enclosing) >= _KEY_DEPTH):
                continue
            twin = latest.get(id(parent))
            if rules[node.type].merge and twin and twin.qualified_name == region.qualified_name:
                twin.end_row, twin.end_byte = region.end_row, region.end_byte
                region = twin
            else:
                found.append(region)
                latest[id(parent)] = region
            enclosing.append(region)
        return found

    def _region(self, node: Node, rule: Rule, end_byte: int, parent: Region | None) -> Region | None:
        kind = _kind(node, rule, self.source)
        if kind in VALUES and parent and parent.kind in CALLABLES | VALUES:
            return None
        name = definition_text.name(node, rule.name, kind)
        if not name:
            return None
        qualifier = parent.qualified_name if parent else ""
        if rule.scope:
            qualifier = definition_text.name(node, rule.scope, kind)
        outer = node.parent if node.parent and node.parent.type in _WRAPPERS else node
        start_row = self._first_row(outer)
        return Region(
            start_row=start_row,
            end_row=self._end_row(node, outer, end_byte),
            end_byte=end_byte,
            parent=parent,
            name=name if kind in {"heading", "key"} else name.rpartition(".")[2],
            qualified_name=(qualifier + (" > " if kind == "heading" else ".") + name) if qualifier else name,
            kind=_kind_within(kind, name, parent),
            signature=self._signature(node, start_row),
            doc=self._doc(node, start_row),
        )

    def _first_row(self, node: Node) -> int:
        row = node.start_point[0]
        while row > 0 and self.marks[row - 1]:
            row -= 1
        return row

    def _end_row(self, node: Node, outer: Node, end_byte: int) -> int:
        section = end_byte > node.end_byte
        start = node.start_point[0]
        row = start + self.source.count(b"\n", node.start_byte, end_byte - 1) if section else last_row(outer)
        while row > start and not self.lines[row].strip():
            row -= 1
        return row

    def _signature(self, node: Node, start_row: int) -> str:
        rows = range(start_row, node.start_point[0])
        if self.file.language == "haskell":  # The type signature stands above the equations.
            above = " ".join(self.lines[row] for row in rows if self.marks[row] == ATTRIBUTE)
            if above:
                return definition_text.collapse(above)
        return definition_text.signature(node, self.source)

    def _doc(self, node: Node, start_row: int) -> str:
        if self.file.language == "python":
            return definition_text.docstring(node)
        rows = range(start_row, node.start_point[0])
        return definition_text.comment_text([self.lines[row] for row in rows if self.marks[row] == COMMENT])
