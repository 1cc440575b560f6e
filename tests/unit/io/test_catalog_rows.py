from dataclasses import astuple, fields, replace

import pytest

from codeintel_rev.io import catalog_rows as rows
from codeintel_rev.types import Chunk, Definition, Role

CHUNK = Chunk(7, "repo", "a/b.py", "python", Role.CODE, 3, 9, "function", "b.f", "class B:", "def f():\n    return 'é'")
DEFINITION = Definition("a/b.py", "python", "f", "b.f", "function", 4, 5, "def f()", "Return é.")
SCHEMAS = {
    Chunk: rows.get_chunk_schema,
    rows.Symbol: rows.get_symbol_schema,
    rows.FileRow: rows.get_file_schema,
}


@pytest.mark.parametrize("value", SCHEMAS)
def test_columns_are_the_fields_of_the_value_in_their_order(value: type) -> None:
    """B06: the catalogue and the readers rely on it."""
    assert SCHEMAS[value]().names == [field.name for field in fields(value)]


@pytest.mark.parametrize("schema", SCHEMAS.values())
def test_no_column_is_nullable(schema) -> None:
    assert not any(field.nullable for field in schema())


def test_values_become_rows() -> None:
    other = replace(CHUNK, chunk_id=2**62)
    table = rows.table_of([CHUNK, other], rows.get_chunk_schema())
    assert [tuple(row.values()) for row in table.to_pylist()] == [astuple(CHUNK), astuple(other)]


def test_no_values_are_no_rows() -> None:
    assert rows.table_of([], rows.get_file_schema()).num_rows == 0


def test_a_symbol_joins_the_smallest_chunk_that_holds_its_first_line() -> None:
    inner = replace(CHUNK, chunk_id=8, start_line=4, end_line=5)
    assert rows.symbols_of([DEFINITION], [CHUNK, inner])[0].chunk_id == 8


def test_a_symbol_outside_every_chunk_stops_the_build() -> None:
    with pytest.raises(ValueError, match=r"b\.py:40 defines b\.f outside every chunk"):
        rows.symbols_of([replace(DEFINITION, start_line=40)], [CHUNK])
