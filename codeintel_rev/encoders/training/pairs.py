"""Pairs of a question and the code that answers it, from the docstrings of installed Python packages."""

from __future__ import annotations

import ast
import hashlib
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

EXCLUDED = frozenset(
    "_pytest astropy django fastapi flask httpcore httpcore2 httpx httpx2 matplotlib pylint pytest requests seaborn "
    "sklearn sphinx starlette sympy werkzeug xarray".split()
)
"""Packages that the bench sets ask questions about, wherever they lie (vendored copies too): never trained on."""
WORDS = range(4, 41)
HELD_OUT = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """`query` is a docstring's first paragraph; `code` the function without it, under path and name as a chunk's."""

    query: str
    code: str
    path: str

    @property
    def held_out(self) -> bool:
        """Whether its file is one of the tenth that is only measured on."""
        return int(_digest(self.path), 16) % HELD_OUT == 0


def mined(root: Path, per_package: int) -> list[Pair]:
    """Return up to `per_package` pairs of every package in `root`, in the same order whenever the files are the same.

    Two functions with the same docstring or the same code give one pair: in a batch each would be the other's wrong
    answer, and across the split the answer would have been seen.
    """
    by_query: dict[str, Pair] = {}
    for package in sorted(path for path in root.iterdir() if path.is_dir()):
        for pair in islice(_of_package(package, root), per_package):
            by_query.setdefault(pair.query.lower(), pair)
    bodies = {pair.code.partition("\n")[2]: pair for pair in by_query.values()}
    return list(bodies.values())


def _of_package(package: Path, root: Path) -> Iterator[Pair]:
    """Yield from files in the order of their paths' digests, so that the first few come from all over it."""
    paths = {path.relative_to(root).as_posix(): path for path in package.rglob("*.py")}
    for name in sorted(paths, key=_digest):
        if EXCLUDED.isdisjoint(PurePosixPath(name).with_suffix("").parts):
            yield from pairs_of(paths[name].read_text(encoding="utf-8", errors="replace"), name)


def pairs_of(source: str, path: str) -> Iterator[Pair]:
    """Yield a pair for every function of `source` whose docstring says enough; nothing if it cannot be parsed."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (query := _question(node)):
            code = _without_docstring(node, lines)
            yield Pair(query, f"{path}\n{node.name}\n{code}", path)


def _question(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the first paragraph of the docstring, "" when it is none, too short, too long, or all there is."""
    words = (ast.get_docstring(node) or "").partition("\n\n")[0].split()
    on_its_own_lines = node.body[0].lineno > node.lineno
    return " ".join(words) if len(words) in WORDS and len(node.body) > 2 and on_its_own_lines else ""


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str:
    docstring = node.body[0]
    kept = lines[node.lineno - 1 : docstring.lineno - 1] + lines[docstring.end_lineno : node.end_lineno]
    return textwrap.dedent("\n".join(kept))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
