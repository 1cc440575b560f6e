"""Which tree-sitter grammar reads a language? Grammars come as wheels and are loaded on first use, once per process."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.metadata import version

from tree_sitter import Language, Node, Parser

# language -> (module, function that returns the grammar)
_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "go": ("tree_sitter_go", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "java": ("tree_sitter_java", "language"),
    "kotlin": ("tree_sitter_kotlin", "language"),
    "scala": ("tree_sitter_scala", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "swift": ("tree_sitter_swift", "language"),
    "bash": ("tree_sitter_bash", "language"),
    "lua": ("tree_sitter_lua", "language"),
    "haskell": ("tree_sitter_haskell", "language"),
    "elixir": ("tree_sitter_elixir", "language"),
    "zig": ("tree_sitter_zig", "language"),
    "markdown": ("tree_sitter_markdown", "language"),
    "json": ("tree_sitter_json", "language"),
    "yaml": ("tree_sitter_yaml", "language"),
    "toml": ("tree_sitter_toml", "language"),
    "xml": ("tree_sitter_xml", "language_xml"),
    "html": ("tree_sitter_html", "language"),
    "css": ("tree_sitter_css", "language"),
    "sql": ("tree_sitter_sql", "language"),
    "hcl": ("tree_sitter_hcl", "language"),
    "make": ("tree_sitter_make", "language"),
}

LANGUAGES = tuple(_GRAMMARS)

# `class CORE_API Name {`: without the preprocessor the macro reads as the class and the class as a function.
_EXPORT_MACRO = re.compile(rb"\b((?:class|struct|union)\s+)([A-Z][A-Z0-9_]+)(?=\s+\w+(?:\s+final)?\s*[:{])")


@cache
def versions() -> dict[str, str]:
    """Return the version of tree-sitter and of every grammar: another one may cut the same file otherwise."""
    packages = {module.replace("_", "-") for module, _ in _GRAMMARS.values()}
    return {package: version(package) for package in ("tree-sitter", *sorted(packages))}


@cache
def grammar(language: str) -> Language:
    """Return the grammar of one of LANGUAGES."""
    module, function = _GRAMMARS[language]
    return Language(getattr(import_module(module), function)())


@cache
def parser(language: str) -> Parser:
    """Return the parser of one of LANGUAGES; it belongs to one thread at a time."""
    return Parser(grammar(language))


def parse(language: str, source: bytes) -> Node:
    """Return the root of the syntax tree; it has every byte and row of `source` where it was."""
    if language in {"c", "cpp"}:
        source = _EXPORT_MACRO.sub(lambda found: found[1] + b" " * len(found[2]), source)
    return parser(language).parse(source).root_node
