"""What a definition is called and how it introduces itself: name, signature and doc, from its node and lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tree_sitter import Node

SIGNATURE_CHARS = 300
DOC_CHARS = 500
NAME_CHARS = 200

_FREE_TEXT = frozenset({"heading", "key"})
_BODIES = frozenset(
    {"block", "block_start", "class_body", "do_block", "enum_class_body", "function_body", "recipe", "template_body"}
)
_UNFIELDED_DECLARATORS = frozenset({"reference_declarator", "parenthesized_declarator"})
_GENERICS = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
_SEPARATORS = re.compile(r"::|\\|->|:|\.prototype\.")
_OWNERS = re.compile(r"^(?:module\.exports\.|exports\.|this\.)")
_NAME = re.compile(r"[^\s(){}\[\],;\"'`]+|operator.+")
_COMMENT_START = re.compile(
    r"^\s*(?:/\*+!?|\*+/|\*|///?[/!]?|#+!?|--+ ?\|?|;+|<!--+|\{-+ ?\|?|@\w+ (?:~[sS])?\"+|\"+)\s?"
)
_COMMENT_END = re.compile(r"\s*(?:\*+/|--+>|-\}|\"+)\s*$")
_COMMENT = re.compile(r"/\*.*?\*/|(?<=\s)//[^\n]*", re.DOTALL)
_STRING_EDGES = re.compile(r"^[A-Za-z]{0,2}(?:\"\"\"|'''|\"|')|(?:\"\"\"|'''|\"|')$")


def name(node: Node, path: str, kind: str) -> str:
    """Return the dotted name found along `path`, or "" when the node has none (a destructuring, an error)."""
    raw = _name_text(node, path)
    if path.startswith("^"):
        return ".".join(raw.replace('"', " ").split())[:NAME_CHARS]
    if kind in _FREE_TEXT:
        return " ".join(raw.strip("\"'` ").split())[:NAME_CHARS]
    plain = raw.strip("\"'`*&$@ ")
    if not plain.startswith("operator"):
        plain = _SEPARATORS.sub(".", _without_generics(plain)).strip(".")
    plain = _OWNERS.sub("", plain)
    return plain if len(plain) <= NAME_CHARS and _NAME.fullmatch(plain) else ""


def signature(node: Node, source: bytes) -> str:
    """Return the header of a definition, from the start of its line to its body, whitespace collapsed."""
    start, column = node.start_byte, node.start_point[1]
    line_start = start - column
    if column < NAME_CHARS and not re.search(rb"[;{}]", source[line_start:start]):
        start = line_start
    end = _header_end(node)
    if end - node.start_byte > SIGNATURE_CHARS and end == node.end_byte:  # A long value: its first line introduces it.
        end = (source.find(b"\n", node.start_byte, end) + 1 or end + 1) - 1
    header = source[start : min(end, start + 8 * SIGNATURE_CHARS)].decode("utf-8", "replace")
    return collapse(_COMMENT.sub("", header)).removesuffix("=>").rstrip(" {=:;")


def collapse(text: str, limit: int = SIGNATURE_CHARS) -> str:
    return " ".join(text.split())[:limit]


def comment_text(lines: Sequence[str]) -> str:
    """Return comment lines without their markers, as one line."""
    bare = (_COMMENT_END.sub("", _COMMENT_START.sub("", line)) for line in lines)
    return collapse(" ".join(bare), DOC_CHARS)


def docstring(node: Node) -> str:
    """Return the string a Python body begins with, as one line; "" when there is none."""
    body = node.child_by_field_name("body")
    first = first_named(body) if body else None
    string = first_named(first) if first and first.type == "expression_statement" else first
    if string is None or string.type != "string":
        return ""
    return collapse(_STRING_EDGES.sub("", _text(string)), DOC_CHARS)


def first_named(node: Node) -> Node | None:
    return node.named_child(0) if node.named_child_count else None


def _name_text(node: Node, path: str) -> str:
    found: Node | None = node
    for step in path.split():
        if step.startswith("^"):
            end = next((child.start_byte for child in node.children if child.type == step[1:]), node.start_byte)
            return _text(node)[: end - node.start_byte]
        found = _step(found, step) if found else None
    return _text(found) if found and found != node else ""


def _step(node: Node, step: str) -> Node | None:
    if step.endswith("+"):
        while (inner := _child(node, step[:-1])) is not None:
            node = inner
        return node
    if step.endswith("?"):
        return _child(node, step[:-1]) or node
    return _child(node, step)


def _child(node: Node, step: str) -> Node | None:
    if step == "*" or node.type in _UNFIELDED_DECLARATORS:
        return first_named(node)
    by_field = node.child_by_field_name(step)
    return by_field or next((child for child in node.children if child.type == step), None)


def _without_generics(text: str) -> str:
    while (shorter := _GENERICS.sub("", text)) != text:
        text = shorter
    return text


def _header_end(node: Node) -> int:
    for holder in (node, node.child_by_field_name("value"), node.child_by_field_name("right")):
        body = holder.child_by_field_name("body") if holder else None
        if body:
            return body.start_byte
    return next((child.start_byte for child in node.children if child.type in _BODIES), node.end_byte)


def _text(node: Node) -> str:
    return (node.text or b"")[: 8 * NAME_CHARS].decode("utf-8", "replace")
