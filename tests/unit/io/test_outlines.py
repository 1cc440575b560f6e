"""What ranking asks of a chunk is what the tables hold of it."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.io.outlines import Outline, Outlines
from codeintel_rev.io.parquet_store import (
    CHUNKS,
    SYMBOLS,
    ChunkWriter,
    SymbolWriter,
    read_chunks,
    symbols_of,
)
from codeintel_rev.types import Chunk, Definition, Role
from tests.indexed import REPOSITORIES, Place


def write(directory: Path, chunks: list[Chunk], definitions: list[Definition]) -> Path:
    with ChunkWriter(directory) as chunk_writer, SymbolWriter(directory) as symbol_writer:
        chunk_writer.write(chunks)
        for path in dict.fromkeys(one.path for one in chunks):
            of_file = [one for one in chunks if one.path == path]
            symbol_writer.write(symbols_of([one for one in definitions if one.path == path], of_file))
    return directory


def chunk(chunk_id: int, path: str, start: int, role: Role = Role.CODE) -> Chunk:
    return Chunk(chunk_id, "shop", path, "python", role, start, start + 1, "function", "", "", "a\nb")


def definition(path: str, name: str, line: int) -> Definition:
    return Definition(path, "python", name.rpartition(".")[2], name, "function", line, line, "", "")


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_every_chunk_of_a_generation_has_the_outline_the_tables_give(corpus: Place, repo: str) -> None:
    directory = corpus.current(repo)
    defines = defaultdict(list)
    for symbol in pq.read_table(directory / SYMBOLS).to_pylist():
        defines[symbol["chunk_id"]].append(symbol["qualified_name"])
    expected = {
        one.chunk_id: (one.path, one.role, one.kind, sorted(defines[one.chunk_id])) for one in read_chunks(directory)
    }
    outlines = Outlines.open(directory)
    found = {
        one.chunk_id: (one.path, one.role, one.kind, sorted(one.defines)) for one in outlines.of(outlines.chunk_ids)
    }
    assert found == expected
    assert any(names for *_, names in found.values())


def test_outlines_come_in_the_order_asked_and_as_often(tmp_path: Path) -> None:
    chunks = [chunk(9, "b.py", 1), chunk(3, "a.py", 1, Role.TEST), chunk(5, "a.py", 4)]
    outlines = Outlines.open(write(tmp_path, chunks, [definition("a.py", "A.f", 5), definition("b.py", "g", 1)]))
    assert outlines.chunk_ids.tolist() == [3, 5, 9]
    assert outlines.of(np.array([5, 9, 3, 9], np.int64)) == [
        Outline(5, "a.py", Role.CODE, "function", ("A.f",)),
        Outline(9, "b.py", Role.CODE, "function", ("g",)),
        Outline(3, "a.py", Role.TEST, "function", ()),
        Outline(9, "b.py", Role.CODE, "function", ("g",)),
    ]


def test_none_asked_is_none_given(tmp_path: Path) -> None:
    outlines = Outlines.open(write(tmp_path, [chunk(3, "a.py", 1)], []))
    assert outlines.of(np.empty(0, np.int64)) == []


def test_a_generation_of_nothing_has_no_outlines(tmp_path: Path) -> None:
    assert Outlines.open(write(tmp_path, [], [])).chunk_ids.tolist() == []


def test_definitions_of_one_chunk_keep_their_order(tmp_path: Path) -> None:
    """Same generation, same bytes."""
    names = [f"name_{number}" for number in range(200)]
    big = Chunk(7, "shop", "a.py", "python", Role.CODE, 1, 200, "module", "", "", "\n".join(["x"] * 200))
    defined = [definition("a.py", name, line) for line, name in enumerate(names, 1)]
    (found,) = Outlines.open(write(tmp_path, [big], defined)).of(np.array([7], np.int64))
    assert found.defines == tuple(names)


@pytest.mark.parametrize("table", [CHUNKS, SYMBOLS])
@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PAR1 no more")])
def test_a_missing_or_broken_table_is_told(tmp_path: Path, corpus: Place, table: str, harm) -> None:  # type: ignore[no-untyped-def]
    for name in (CHUNKS, SYMBOLS):
        shutil.copyfile(corpus.current("shop") / name, tmp_path / name)
    harm(tmp_path / table)
    with pytest.raises(IndexCorrupt):
        Outlines.open(tmp_path)
