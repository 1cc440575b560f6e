"""Where may a file be cut, and where best? One level for each row, from the shape of its syntax tree."""

from __future__ import annotations

from tree_sitter import Node, TreeCursor

from codeintel_rev.indexing.definition_rules import TRANSPARENT
from codeintel_rev.indexing.definition_text import first_named
from codeintel_rev.indexing.definitions import MAX_DEPTH, heading_level, last_row

NO_CUT = 255

_BELOW_HEADINGS = 7


def cut_levels(root: Node, source: bytes, marks: bytearray) -> bytearray:
    """Return, for each row, the nesting level of the node that begins there, or NO_CUT.

    Only rows whose first token begins a named node may be cut before; the lower the level, the better the cut.
    Comments and attributes (`marks`) are cut before with what they stand on, never from it. Levels stop at
    MAX_DEPTH, and so does the walk, which keeps hostile nesting cheap (F09).
    """
    levels = bytearray([NO_CUT]) * len(marks)
    _walk(root.walk(), source, levels)
    _keep_marks_with_next(levels, marks)
    return levels


def _walk(cursor: TreeCursor, source: bytes, levels: bytearray) -> None:
    frontier = -1  # The last row on which a token was seen: later nodes on it are not its first.
    depths = [_BELOW_HEADINGS]
    opens: list[int] = [source[0] if source else 0]
    if not cursor.goto_first_child():
        return
    while True:
        node = cursor.node
        if node is None:
            return
        row = node.start_point[0]
        first_byte = source[node.start_byte] if node.start_byte < len(source) else 0
        if row > frontier and node.is_named and not _opens_body(first_byte, opens[-1]):
            levels[row] = _level(node, depths[-1])
        frontier = max(frontier, row)
        end_row = last_row(node)
        if end_row > row and len(depths) < MAX_DEPTH and cursor.goto_first_child():
            depths.append(depths[-1] + (node.type not in TRANSPARENT))
            opens.append(first_byte)
            continue
        frontier = max(frontier, end_row)
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            depths.pop()
            opens.pop()
            if not depths:
                return


def _level(node: Node, depth: int) -> int:
    """Return the level of a cut before `node`: in prose headings count by their rank, all else lies below them."""
    if node.type == "section":
        heading = first_named(node)
        return heading_level(heading) if heading and heading.type.endswith("_heading") else depth
    if node.type == "setext_heading":
        return heading_level(node)
    return depth


def _opens_body(first_byte: int, parent_first_byte: int) -> bool:
    """Say whether a bracket begins the body of what stands on the row above, and not one item of many."""
    return first_byte in b"{(" and parent_first_byte not in b"[{("


def _keep_marks_with_next(levels: bytearray, marks: bytearray) -> None:
    top = 0
    for row in range(1, len(levels)):
        if not marks[row - 1]:
            top = row
            continue
        levels[top] = min(levels[top], levels[row])
        levels[row] = NO_CUT
