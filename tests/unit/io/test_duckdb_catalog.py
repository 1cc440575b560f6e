import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import numpy as np
import pytest

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.errors import (
    CodeIntelError,
    DeadlineExceeded,
    IndexCorrupt,
    IndexIncompatible,
    IndexUnavailable,
    InvalidArgument,
)
from codeintel_rev.io.catalog_builder import CATALOG, fill_idmap
from codeintel_rev.io.catalog_rows import FileRow, Symbol
from codeintel_rev.io.catalogs import Catalogs
from codeintel_rev.io.duckdb_catalog import Catalog, Coverage, read_chunks
from codeintel_rev.io.parquet_store import IDMAP, write_idmap
from codeintel_rev.types import Chunk, Role, Scope
from tests.catalogs import write_catalog

SETTINGS = DuckDBSettings()
LANGUAGES = {"py": "python", "go": "go", "md": "markdown"}


def chunk(chunk_id: int, path: str, start: int, text: str, symbol: str = "", kind: str = "function") -> Chunk:
    role = Role.DOCS if path.endswith(".md") else Role.CODE
    end = start + text.count("\n")
    return Chunk(chunk_id, "repo", path, LANGUAGES[path[-2:]], role, start, end, kind, symbol, "", text)


CHUNKS = [
    chunk(2**62 + 1, "src/app/a.py", 1, "def parse(line):\n    return line", "app.parse"),
    chunk(11, "src/app/a.py", 3, "class Parser:\n    def parse(self):\n        return 'Straße'", "app.Parser", "class"),
    chunk(12, "src/app/a.py", 4, "    def parse(self):", "app.Parser.parse", "method"),
    chunk(3, "src/b.go", 1, "func Parse() {}\n// 100% sure", "b.Parse"),
    chunk(40, "README.md", 1, "# How to parse\nIt's 'quoted'.", "", "text"),
    chunk(41, "tests/test_a.py", 1, "def test_parse(): ...", "test_a.test_parse"),
]
SKIPPED = FileRow("logo.png", "", "code", 9, "", "", 0, 0, "skipped", "binary")


def file_row(path: str) -> FileRow:
    held = [held for held in CHUNKS if held.path == path]
    return FileRow(path, held[0].language, held[0].role, 9, "0" * 64, "utf-8", 9, len(held), "indexed", "")


def symbol(owner: Chunk) -> Symbol:
    name = owner.symbol.rpartition(".")[2]
    return Symbol(
        owner.path,
        owner.language,
        name,
        owner.symbol,
        owner.kind,
        owner.start_line,
        owner.end_line,
        "",
        "",
        owner.chunk_id,
    )


def write_tables(directory: Path, chunks: list[Chunk] = CHUNKS) -> Path:
    files = [SKIPPED, *(file_row(path) for path in {owner.path: 0 for owner in CHUNKS})]
    return write_catalog(directory, chunks, [symbol(owner) for owner in chunks if owner.symbol], files)


@pytest.fixture(scope="module")
def generation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_tables(tmp_path_factory.mktemp("generation"))
    write_idmap(directory / IDMAP, np.array([3, 11, 2**62 + 1]))
    fill_idmap(directory)
    return directory


@pytest.fixture(scope="module", params=["alone", "attached"])
def catalog(generation: Path, request: pytest.FixtureRequest) -> Iterator[Catalog]:
    """A catalogue in a DuckDB of its own, or beside others in one: nothing tells them apart."""
    catalogs = Catalogs(generation, SETTINGS)
    with closing(catalogs.open(generation)):
        opened = Catalog.open(generation, SETTINGS) if request.param == "alone" else catalogs.open(generation)
        yield opened
        opened.close()


def test_chunks_come_back_in_the_asked_order_and_the_missing_are_told(catalog: Catalog) -> None:
    """Decision 32: IN loses the order. Decision 21: one missing chunk does not lose the others."""
    chunks, missing = catalog.hydrate(np.array([40, 99, 3, 2**62 + 1, 3]))
    assert chunks == [CHUNKS[4], CHUNKS[3], CHUNKS[0], CHUNKS[3]]
    assert missing == [99]


def test_no_ids_hydrate_to_nothing(catalog: Catalog) -> None:
    assert catalog.hydrate([]) == ([], [])


def test_all_ids_are_ascending(catalog: Catalog) -> None:
    assert catalog.ids().tolist() == sorted(owner.chunk_id for owner in CHUNKS)


def test_the_symbols_of_a_file_come_in_its_order(catalog: Catalog) -> None:
    assert [found.qualified_name for found in catalog.symbols_of_file("src/app/a.py")] == [
        "app.parse",
        "app.Parser",
        "app.Parser.parse",
    ]
    assert catalog.symbols_of_file("src/app") == []


def test_names_are_known_that_something_is_defined_by(catalog: Catalog) -> None:
    assert catalog.known_names(["parse", "Parser", "app.parse", "pars", "'; DROP"]) == {"parse", "Parser"}
    assert catalog.known_names([]) == set()


def test_a_scope_that_restricts_nothing_selects_nothing(catalog: Catalog) -> None:
    assert catalog.select(Scope(repos=("repo",))) is None


@pytest.mark.parametrize(
    ("scope", "ids"),
    [
        (Scope(paths=("src/",)), [3, 11, 12, 2**62 + 1]),
        (Scope(paths=("*.py", "!tests/")), [11, 12, 2**62 + 1]),
        (Scope(languages=("go", "markdown")), [3, 40]),
        (Scope(kinds=("class", "method")), [11, 12]),
        (Scope(paths=("*.py",), languages=("python",), kinds=("function",)), [41, 2**62 + 1]),
        (Scope(languages=("cobol",)), []),
        (Scope(paths=("nowhere/**",)), []),
    ],
)
def test_a_scope_selects_ascending_ids_and_their_paths(catalog: Catalog, scope: Scope, ids: list[int]) -> None:
    selection = catalog.select(scope)
    assert selection is not None
    assert selection.chunk_ids.tolist() == ids
    assert selection.chunk_ids.dtype == np.int64
    assert selection.paths == tuple(sorted({owner.path for owner in CHUNKS if owner.chunk_id in ids}))


def test_a_file_is_found_by_its_exact_path(catalog: Catalog) -> None:
    assert catalog.file("src/b.go") == file_row("src/b.go")
    assert catalog.file("src/B.go") is None


def test_indexed_files_come_by_path(catalog: Catalog) -> None:
    paths = ["README.md", "src/app/a.py", "src/b.go", "tests/test_a.py"]
    assert catalog.paths() == [file_row(path) for path in paths]


def test_skipped_files_are_reported_with_their_reason(catalog: Catalog) -> None:
    assert catalog.skipped() == [SKIPPED]


def test_the_chunks_of_a_file_come_by_line(catalog: Catalog) -> None:
    assert catalog.chunks_of_file("src/app/a.py") == CHUNKS[:3]
    assert catalog.chunks_of_file("logo.png") == []


@pytest.mark.parametrize(
    ("pattern", "options", "starts"),
    [
        (
            "parse",
            {},
            [("README.md", 1), ("src/app/a.py", 1), ("src/app/a.py", 3), ("src/app/a.py", 4), ("tests/test_a.py", 1)],
        ),
        ("PARSE()", {}, []),
        ("100%", {}, [("src/b.go", 1)]),
        ("It's 'quoted'", {}, [("README.md", 1)]),
        (r"(?m)^\s+def parse", {"regex": True}, [("src/app/a.py", 3), ("src/app/a.py", 4)]),
        (r"(?m)line\)?:$", {"regex": True}, [("src/app/a.py", 1)]),
        (r"(?mi)^FUNC", {"regex": True}, [("src/b.go", 1)]),
        (r"(?i)STRASSE|STRAßE", {"regex": True}, [("src/app/a.py", 3)]),
        ("nowhere", {"regex": True}, []),
    ],
)
def test_text_is_found_by_path_and_line(catalog: Catalog, pattern: str, options: dict, starts: list) -> None:
    rows = catalog.chunk_text_rows(pattern, limit=9, **options)
    assert [(row.path, row.start_line) for row in rows] == starts


@pytest.mark.parametrize("regex", [False, True])
def test_text_goes_on_behind_a_line(catalog: Catalog, regex: bool) -> None:
    """The second page starts where the first ended, also inside a chunk."""
    rows = catalog.chunk_text_rows("parse", regex=regex, after=("src/app/a.py", 4), limit=1)
    assert [(row.path, row.start_line, row.end_line) for row in rows] == [("src/app/a.py", 3, 5)]
    assert rows[0].text == CHUNKS[1].text
    behind = catalog.chunk_text_rows("parse", regex=regex, after=("src/app/a.py", 5), limit=1)
    assert behind[0].path == "tests/test_a.py"
    assert catalog.chunk_text_rows("parse", regex=regex, after=("tests/test_a.py", 1), limit=1) == []


def test_a_regex_reads_on_until_it_has_enough(tmp_path: Path) -> None:
    """Many pages give what one scan would."""
    chunks = [chunk(i, "src/b.go", i, f"line {i}") for i in range(1, 400)]
    write_tables(tmp_path, chunks)
    catalog = Catalog.open(tmp_path, SETTINGS)
    sevens = [i for i in range(1, 400) if str(i).endswith("7")]
    assert [row.start_line for row in catalog.chunk_text_rows("7$", regex=True, limit=99)] == sevens
    assert [row.start_line for row in catalog.chunk_text_rows("7$", regex=True, limit=5)] == sevens[:5]
    catalog.close()


def test_text_is_found_within_a_selection(catalog: Catalog) -> None:
    selection = catalog.select(Scope(kinds=("class",)))
    assert [row.start_line for row in catalog.chunk_text_rows("parse", selection=selection, limit=9)] == [3]
    assert [row.start_line for row in catalog.chunk_text_rows(".", regex=True, selection=selection, limit=9)] == [3]
    nothing = catalog.select(Scope(kinds=("nothing",)))
    assert catalog.chunk_text_rows("parse", selection=nothing, limit=9) == []


@pytest.mark.parametrize("pattern", ["(", "a{100000}", r"\1", "(?=x)", "((a{100}){100}){100}"])
def test_a_malformed_pattern_is_an_invalid_argument(catalog: Catalog, pattern: str) -> None:
    """F38, S20: the engine is linear, and says so of what it cannot do."""
    with pytest.raises(InvalidArgument):
        catalog.chunk_text_rows(pattern, regex=True, limit=9)


def test_a_runaway_query_is_stopped_at_its_deadline(tmp_path: Path) -> None:
    """T17, F38: RE2 needs .6 s for each of these chunks, and DuckDB looks up only every 2048 of them."""
    line = "ab" * 16_000
    write_tables(tmp_path, [chunk(i, "src/b.go", i, f"{line}{i}") for i in range(1, 100)])
    catalog = Catalog.open(tmp_path, SETTINGS)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        catalog.chunk_text_rows("(a?b?){300}c", regex=True, limit=9, deadline_s=0.05)
    assert time.monotonic() - started < 10
    assert catalog.counts()["chunks"] == 99
    catalog.close()


def test_counts_are_of_what_is_there(catalog: Catalog) -> None:
    assert catalog.counts() == {"files": 4, "skipped": 1, "chunks": 6, "symbols": 5, "vectors": 3}


def test_coverage_is_below_one_where_vectors_lack(catalog: Catalog) -> None:
    """B26, decision 31: an inner join would always say 1."""
    assert catalog.coverage() == [
        Coverage("", "markdown", 1, 0),
        Coverage("src", "go", 1, 1),
        Coverage("src/app", "python", 3, 2),
        Coverage("tests", "python", 1, 0),
    ]


def test_the_join_view_has_every_chunk_and_the_row_of_its_vector(catalog: Catalog) -> None:
    """B07, B09."""
    rows = catalog._rows("SELECT faiss_id, chunk_id, path FROM v_faiss_join ORDER BY chunk_id")
    vectors = {3: 0, 11: 1, 2**62 + 1: 2}
    assert rows == sorted(((vectors.get(c.chunk_id), c.chunk_id, c.path) for c in CHUNKS), key=lambda row: row[1])


def test_a_generation_without_vectors_has_coverage_zero(tmp_path: Path) -> None:
    write_tables(tmp_path)
    catalog = Catalog.open(tmp_path, SETTINGS)
    assert (catalog.counts()["vectors"], sum(row.vectors for row in catalog.coverage())) == (0, 0)
    catalog.close()


def test_rows_of_deleted_vectors_are_in_no_view(tmp_path: Path) -> None:
    """B12: the map and the join shrink; a row of the secondary counts on from those of the primary."""
    directory = write_tables(tmp_path)
    write_idmap(directory / IDMAP, np.array([11, 3]), np.array([1, 3]))
    fill_idmap(directory)
    catalog = Catalog.open(directory, SETTINGS)
    joined = catalog._rows("SELECT faiss_id, chunk_id FROM v_faiss_join WHERE faiss_id IS NOT NULL ORDER BY faiss_id")
    assert (joined, catalog._rows("FROM faiss_idmap ORDER BY faiss_id")) == ([(1, 11), (3, 3)],) * 2
    assert catalog._rows("SELECT count(*) FROM v_faiss_join") == [(6,)]
    catalog.close()


def test_many_chunks_are_read_page_by_page(tmp_path: Path) -> None:
    chunks = [chunk(i, "src/b.go", i, f"line {i}") for i in range(1, 4096 * 2 + 1)]
    assert list(read_chunks(write_tables(tmp_path, chunks))) == chunks


def test_reasons_are_counted(catalog: Catalog) -> None:
    assert catalog.reasons() == {"binary": 1}


def test_a_hundred_concurrent_queries_are_identical(catalog: Catalog) -> None:
    """C19: eight threads on one connection gave 472 wrong answers of 2,400 (decision 37)."""

    def query(asked: int) -> tuple:
        ids = [40, 3, 2**62 + 1, 11, 12, 41]
        rotated = ids[asked % 6 :] + ids[: asked % 6]
        chunks, missing = catalog.hydrate(rotated)
        texts = catalog.chunk_text_rows("parse", limit=9)
        return [one.chunk_id for one in chunks] == rotated, missing, texts

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(query, range(100)))
    assert all(answer == query(0) for answer in answers)
    assert answers[0][0]


INJECTIONS = [
    "'; DROP TABLE chunks; --",
    "' OR '1'='1",
    "x' UNION SELECT * FROM read_text('/etc/passwd') --",
    "$ids",
    "?",
    "{0}",
    "%s",
    "a%b_c",
    "\\",
    "\x00",
    "a\x00b",
    "\u202eevil",
    "read_parquet('/etc/passwd')",
    "x" * 100_000,
    "*",
    "/etc/passwd",
    "../../etc/passwd",
    '"quoted"',
    "chunks",
    ";",
]


@pytest.mark.parametrize("text", INJECTIONS, ids=range(len(INJECTIONS)))
def test_text_from_outside_is_only_ever_compared(catalog: Catalog, text: str) -> None:
    """F39, S25."""
    before = catalog.counts()
    assert catalog.file(text) is None
    assert catalog.chunks_of_file(text) == []
    assert catalog.chunk_text_rows(text, limit=9, after=("zzz", 1)) == []
    for scope in (Scope(languages=(text,)), Scope(kinds=(text,))):
        selection = catalog.select(scope)
        assert selection is not None
        assert selection.chunk_ids.size == 0
    assert catalog.counts() == before


def test_a_lone_surrogate_is_an_invalid_argument(catalog: Catalog) -> None:
    """F41."""
    with pytest.raises(InvalidArgument):
        catalog.file("\ud800")


@pytest.mark.parametrize(
    "statement",
    [
        "COPY chunks TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS other",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM read_blob('/etc/passwd')",
        "SELECT * FROM read_parquet('{out}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM '/etc/passwd'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{out}'",
        "SET enable_external_access = true",
        "SET threads = 64",
        "SET memory_limit = '99GB'",
        "SET lock_configuration = false",
        "DROP TABLE chunks",
        "DELETE FROM chunks",
        "CREATE TABLE t (a INTEGER)",
    ],
)
def test_a_serving_connection_refuses(catalog: Catalog, tmp_path: Path, statement: str) -> None:
    """S24: even somebody who could run SQL could neither read nor write a file, nor change a setting."""
    with pytest.raises(CodeIntelError), catalog._cursor() as cursor:
        cursor.execute(statement.format(out=tmp_path / "out")).fetchall()
    assert not any(tmp_path.iterdir())


def test_threads_and_memory_are_those_of_the_settings(catalog: Catalog) -> None:
    """T15, S24."""
    with catalog._root.cursor() as cursor:
        row = cursor.execute("SELECT current_setting('threads'), current_setting('memory_limit')").fetchall()[0]
    assert row == (SETTINGS.threads, "976.5 MiB")


def open_files(below: Path) -> list[Path]:
    links = list(Path("/proc/self/fd").iterdir())
    return [target for link in links if (target := link.resolve()).is_relative_to(below)]


def test_a_closed_catalogue_lets_go_of_its_file_and_of_no_other(tmp_path: Path, generation: Path) -> None:
    copy = tmp_path / "it's"
    shutil.copytree(generation, copy)
    catalogs = Catalogs(tmp_path.parent.parent, SETTINGS)
    first, other = catalogs.open(copy), catalogs.open(generation)
    assert open_files(tmp_path) == [copy / CATALOG]
    first.close()
    assert open_files(tmp_path) == []
    with pytest.raises(IndexUnavailable):
        first.ids()
    del catalogs
    assert other.counts()["chunks"] == len(CHUNKS)
    other.close()


def test_what_is_not_below_the_folder_is_not_attached(tmp_path: Path, generation: Path) -> None:
    """S24."""
    with pytest.raises(IndexCorrupt):
        Catalogs(tmp_path, SETTINGS).open(generation)


def test_a_file_that_is_refused_is_not_kept_open(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / CATALOG) as connection:
        connection.execute("CREATE TABLE meta AS SELECT 99 AS format")
    catalogs = Catalogs(tmp_path, SETTINGS)
    with pytest.raises(IndexIncompatible):
        catalogs.open(tmp_path)
    assert open_files(tmp_path) == []


def test_many_threads_open_ask_and_close_at_once(generation: Path) -> None:
    catalogs = Catalogs(generation, SETTINGS)

    def turn(_: int) -> list[int]:
        with closing(catalogs.open(generation)) as catalog:
            return catalog.ids().tolist()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(turn, range(40)))
    assert answers == [sorted(chunk.chunk_id for chunk in CHUNKS)] * 40


@pytest.mark.parametrize("name", ["it's", 'a"b', "a*b[c]", "semi;colon -- x", "ünï €", "$ids", "per%cent"])
def test_a_hostile_folder_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    """F39: DuckDB would read a path in SQL as a glob."""
    directory = write_tables(tmp_path / name)
    write_idmap(directory / IDMAP, np.array([3]))
    fill_idmap(directory)
    catalog = Catalog.open(directory, SETTINGS)
    assert catalog.counts()["vectors"] == 1
    catalog.close()


@pytest.mark.parametrize("length", [0, 100, 5000, 300_000])
def test_a_truncated_catalogue_is_corrupt(tmp_path: Path, generation: Path, length: int) -> None:
    """F12."""
    (tmp_path / CATALOG).write_bytes((generation / CATALOG).read_bytes()[:length])
    with pytest.raises(IndexCorrupt):
        Catalog.open(tmp_path, SETTINGS).hydrate([3])


def test_a_flipped_bit_is_noticed(tmp_path: Path, generation: Path) -> None:
    """F13: DuckDB's blocks carry checksums."""
    data = bytearray((generation / CATALOG).read_bytes())
    place = data.index(b"func Parse")
    data[place] ^= 1
    (tmp_path / CATALOG).write_bytes(data)
    with pytest.raises(IndexCorrupt):
        Catalog.open(tmp_path, SETTINGS).hydrate([3])


def test_a_missing_catalogue_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(IndexCorrupt, match=r"catalog\.duckdb cannot be read"):
        Catalog.open(tmp_path, SETTINGS)


def test_a_catalogue_of_another_format_is_incompatible(tmp_path: Path) -> None:
    """F16."""
    write_tables(tmp_path)
    with duckdb.connect(tmp_path / CATALOG) as connection:
        connection.execute("UPDATE meta SET format = 999")
    with pytest.raises(IndexIncompatible, match="999"):
        Catalog.open(tmp_path, SETTINGS)


def test_a_closed_catalogue_says_so(tmp_path: Path) -> None:
    write_tables(tmp_path)
    catalog = Catalog.open(tmp_path, SETTINGS)
    catalog.close()
    with pytest.raises(IndexUnavailable):
        catalog.counts()
