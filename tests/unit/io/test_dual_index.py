"""Two indexes open as one: files that do not belong together do not open; every file is checked."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.errors import (
    CodeIntelError,
    DimensionMismatch,
    GenerationMismatch,
    IndexCorrupt,
    IndexIncompatible,
    InvalidArgument,
)
from codeintel_rev.io.dual_index import DualIndex, export_idmap
from codeintel_rev.io.parquet_store import IDMAP, read_idmap
from codeintel_rev.io.stored_vectors import DELETED
from codeintel_rev.io.vector_update import linkable, update_vectors
from codeintel_rev.io.vectors import PRIMARY, SECONDARY

DIM, ROWS = 16, 300
NEVER = IndexSettings(compact_secondary=1e9, compact_deleted=1e9)
FILES = (*PRIMARY.files, *SECONDARY.files, DELETED)
VECTORS = np.random.default_rng(0).standard_normal((ROWS + 20, DIM), np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
IDS = np.arange(1, ROWS + 21) * 7


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three generations: 300 vectors; ten of them gone and ten new; five more gone, five changed, ten more new."""
    root = tmp_path_factory.mktemp("line")
    generations = [root / name for name in "abc"]
    changed = VECTORS.copy()
    changed[100:105] *= -1
    wanted = [(0, 300, VECTORS), (10, 310, VECTORS), (15, 320, changed)]
    for number, (start, end, vectors) in enumerate(wanted):
        generations[number].mkdir()
        (generations[number] / "faiss").mkdir()
        for name in linkable(generations[number - 1]) if number else ():
            (generations[number] / name).hardlink_to(generations[number - 1] / name)
        update_vectors(generations[number], IDS[start:end], vectors[start:end], NEVER)
    return generations


@pytest.fixture
def broken(tmp_path: Path, line: list[Path]) -> Path:
    """A copy of the last generation, to be broken."""
    shutil.copytree(line[2], tmp_path / "broken")
    return tmp_path / "broken"


def test_the_second_and_third_generation_share_the_primary(line: list[Path]) -> None:
    assert all((generation / name).samefile(line[0] / name) for generation in line for name in PRIMARY.files)


def test_concurrent_searches_do_not_meet(line: list[Path]) -> None:
    """Decision 6: parameters belong to the call."""
    index = DualIndex.open(line[2], DIM)

    def ask(row: int) -> list[int]:
        allowed = IDS[row % 7 :: 7] if row % 2 else None
        return index.search(VECTORS[row], 10, allowed=allowed)[0].tolist()

    alone = [ask(row) for row in range(100)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(100))) == alone


@pytest.mark.parametrize("k", [0, -1])
def test_a_k_below_one_is_refused(line: list[Path], k: int) -> None:
    with pytest.raises(InvalidArgument, match="at least 1"):
        DualIndex.open(line[2], DIM).search(VECTORS[0], k)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_refused(line: list[Path], bad: float) -> None:
    """F28."""
    with pytest.raises(InvalidArgument, match="not finite"):
        DualIndex.open(line[2], DIM).search(np.full(DIM, bad), 5)


def test_the_audit_line_says_what_serves(line: list[Path]) -> None:
    """B11."""
    described = DualIndex.open(line[2], DIM).describe()
    assert described.startswith(f"faiss {faiss.__version__} ")
    assert described.endswith("dim=16 count=280 deleted=20 secondary=25")


def test_the_exported_map_is_over_both_indexes(line: list[Path], tmp_path: Path) -> None:
    """B04, B13: exact map, count returned, the same as the build wrote."""
    assert export_idmap(DualIndex.open(line[2], DIM), tmp_path / IDMAP) == 305
    rows, ids = read_idmap(tmp_path)
    assert sorted(ids.tolist()) == IDS[15:320].tolist()
    assert rows[-25:].tolist() == list(range(300, 325))
    assert (tmp_path / IDMAP).read_bytes() == (line[2] / IDMAP).read_bytes()


def test_another_encoder_is_refused_with_both_dimensions(line: list[Path]) -> None:
    """F16, C25, decision 49."""
    with pytest.raises(DimensionMismatch, match="Dimension mismatch: FAISS=16, encoder=384"):
        DualIndex.open(line[2], 384)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(broken: Path, name: str) -> None:
    """Decision 3: nothing is taken for empty."""
    (broken / name).unlink()
    with pytest.raises(IndexCorrupt, match=f"{name} is missing"):
        DualIndex.open(broken, DIM)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_corrupt(broken: Path, name: str) -> None:
    """F12."""
    data = (broken / name).read_bytes().rstrip()
    lengths = np.random.default_rng(len(data)).integers(0, len(data), 12)
    for length in lengths.tolist():
        (broken / name).write_bytes(data[:length])
        with pytest.raises(IndexCorrupt):
            DualIndex.open(broken, DIM)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("other", [0, 1])
def test_files_of_two_generations_open_together_only_when_they_are_the_same(
    broken: Path, line: list[Path], other: int, name: str
) -> None:
    """F14: every file of every older generation in the place of this one's."""
    theirs = (line[other] / name).read_bytes()
    if theirs == (broken / name).read_bytes():
        return
    (broken / name).write_bytes(theirs)
    try:
        count = len(DualIndex.open(broken, DIM))
    except GenerationMismatch:
        return
    assert (name, count) == (DELETED, 305), "the manifest's count of vectors tells"


def test_a_length_beyond_the_file_is_refused_before_it_is_allocated(broken: Path) -> None:
    """S22: a hostile file must not ask for a terabyte."""
    path = broken / SECONDARY.index
    data = bytearray(path.read_bytes())
    place = data.index((25).to_bytes(8, "little"), len(data) - 25 * 8 - 16)  # the length of the id map
    data[place : place + 8] = (2**34).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        DualIndex.open(broken, DIM)


def test_a_secondary_without_ids_of_its_own_is_incompatible(broken: Path) -> None:
    """Decisions 2 and 3: no map is guessed."""
    faiss.write_index(faiss.index_factory(DIM, "SQfp16", faiss.METRIC_INNER_PRODUCT), str(broken / SECONDARY.index))
    with pytest.raises(IndexIncompatible, match="does not hold its own ids"):
        DualIndex.open(broken, DIM)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_flipped_bytes_raise_nothing_but_what_is_named(broken: Path, name: str) -> None:
    """F13: the manifest's hash finds every flip; what opens in spite of one must not crash."""
    data = (broken / name).read_bytes()
    random = np.random.default_rng(len(data))
    for _ in range(300):
        flipped = bytearray(data)
        flipped[random.integers(len(data))] ^= 1 << random.integers(8)
        (broken / name).write_bytes(flipped)
        try:
            DualIndex.open(broken, DIM)
        except CodeIntelError:
            continue
