"""What ranking asks of a chunk is what the catalogue holds of it."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.io.catalog_rows import symbols_of
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.outlines import Outline, Outlines
from codeintel_rev.types import Chunk, Definition, Role
from tests.catalogs import file_row, write_catalog
from tests.indexed import REPOSITORIES, Place


def outlines_of(directory: Path, chunks: list[Chunk], definitions: list[Definition]) -> Outlines:
    symbols = []
    for path in dict.fromkeys(one.path for one in chunks):
        of_file = [one for one in chunks if one.path == path]
        symbols += symbols_of([one for one in definitions if one.path == path], of_file)
    with closing(Catalog.open(write_catalog(directory, chunks, symbols, [file_row("a.py"), file_row("b.py")]))) as held:
        return Outlines.open(held)


def chunk(chunk_id: int, path: str, start: int, role: Role = Role.CODE) -> Chunk:
    return Chunk(chunk_id, "shop", path, "python", role, start, start + 1, "function", "", "", "a\nb")


def definition(path: str, name: str, line: int) -> Definition:
    return Definition(path, "python", name.rpartition(".")[2], name, "function", line, line, "", "")


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_every_chunk_of_a_generation_has_the_outline_the_catalogue_gives(corpus: Place, repo: str) -> None:
    with closing(Catalog.open(corpus.current(repo), corpus.settings.duckdb)) as catalog:
        outlines, chunks, symbols = Outlines.open(catalog), list(catalog.chunks()), list(catalog.symbols())
    defines = defaultdict(list)
    for symbol in symbols:
        defines[symbol.chunk_id].append(symbol.qualified_name)
    expected = {one.chunk_id: (one.path, one.role, one.kind, sorted(defines[one.chunk_id])) for one in chunks}
    found = {
        one.chunk_id: (one.path, one.role, one.kind, sorted(one.defines)) for one in outlines.of(outlines.chunk_ids)
    }
    assert found == expected
    assert any(names for *_, names in found.values())


def test_outlines_come_in_the_order_asked_and_as_often(tmp_path: Path) -> None:
    chunks = [chunk(9, "b.py", 1), chunk(3, "a.py", 1, Role.TEST), chunk(5, "a.py", 4)]
    outlines = outlines_of(tmp_path, chunks, [definition("a.py", "A.f", 5), definition("b.py", "g", 1)])
    assert outlines.chunk_ids.tolist() == [3, 5, 9]
    assert outlines.of(np.array([5, 9, 3, 9], np.int64)) == [
        Outline(5, "a.py", Role.CODE, "function", ("A.f",)),
        Outline(9, "b.py", Role.CODE, "function", ("g",)),
        Outline(3, "a.py", Role.TEST, "function", ()),
        Outline(9, "b.py", Role.CODE, "function", ("g",)),
    ]


def test_none_asked_is_none_given(tmp_path: Path) -> None:
    outlines = outlines_of(tmp_path, [chunk(3, "a.py", 1)], [])
    assert outlines.of(np.empty(0, np.int64)) == []


def test_a_generation_of_nothing_has_no_outlines(tmp_path: Path) -> None:
    assert outlines_of(tmp_path, [], []).chunk_ids.tolist() == []


def test_definitions_of_one_chunk_keep_their_order(tmp_path: Path) -> None:
    """Same generation, same bytes."""
    names = [f"name_{number}" for number in range(200)]
    big = Chunk(7, "shop", "a.py", "python", Role.CODE, 1, 200, "module", "", "", "\n".join(["x"] * 200))
    defined = [definition("a.py", name, line) for line, name in enumerate(names, 1)]
    (found,) = outlines_of(tmp_path, [big], defined).of(np.array([7], np.int64))
    assert found.defines == tuple(names)
