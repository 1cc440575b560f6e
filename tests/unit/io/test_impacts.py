"""The impact index against a matrix of the same weights, through segments, deletions and merges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.impacts import (
    CONTENTS,
    LIVE,
    STEPS,
    ImpactIndex,
    Impacts,
    write_contents,
    write_live,
    write_merged,
    write_segment,
)
from codeintel_rev.types import Floats, Ids

TERMS = 40
RNG = np.random.default_rng(3)
TEXTS = np.column_stack([np.sort(RNG.choice(10_000, 60, replace=False)), RNG.integers(0, 1 << 62, 60)])
WEIGHTS = np.where(RNG.random((60, TERMS)) < 0.15, RNG.integers(1, 256, (60, TERMS)), 0).astype(np.uint8)


def impacts(row: np.ndarray) -> Impacts:
    terms = np.flatnonzero(row)
    return Impacts(terms, row[terms])


QUERY = impacts(np.where(RNG.random(TERMS) < 0.3, RNG.integers(1, 256, TERMS), 0).astype(np.uint8))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two segments, every third document in the second."""
    late = np.arange(60) % 3 == 0
    for name, part in (("1", ~late), ("2", late)):
        write_segment(tmp_path, name, TERMS, TEXTS[part], [impacts(row) for row in WEIGHTS[part]])
    write_live(tmp_path, TEXTS)
    write_contents(tmp_path, "words", TERMS, ["1", "2"])
    return tmp_path


def expected(rows: np.ndarray, k: int) -> tuple[Ids, Floats]:
    asked = np.zeros(TERMS, np.int64)
    asked[QUERY.terms] = QUERY.weights
    scores = WEIGHTS[rows].astype(np.int64) @ asked
    order = [at for at in np.lexsort((TEXTS[rows, 0], -scores)) if scores[at] > 0][:k]
    return TEXTS[rows][order, 0], (scores[order] / STEPS**2).astype(np.float32)


def same(found: tuple[Ids, Floats], wanted: tuple[Ids, Floats]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_scores_are_the_dot_products_of_the_weights(directory: Path, k: int) -> None:
    assert same(ImpactIndex.open(directory).search(QUERY, k, None), expected(np.arange(60), k))


def test_equal_scores_are_ordered_by_chunk_id(tmp_path: Path) -> None:
    texts = np.array([[3, 1], [5, 1], [9, 1]])
    write_segment(tmp_path, "1", 2, texts[1:2], [Impacts(np.array([1]), np.array([7], np.uint8))])
    write_segment(tmp_path, "2", 2, texts[::2], [Impacts(np.array([1]), np.array([7], np.uint8))] * 2)
    write_live(tmp_path, texts)
    write_contents(tmp_path, "words", 2, ["1", "2"])
    ids, _ = ImpactIndex.open(tmp_path).search(Impacts(np.array([1]), np.array([2], np.uint8)), 2, None)
    assert ids.tolist() == [3, 5]


def test_a_selection_is_pushed_down(directory: Path) -> None:
    rows = np.arange(10, 25)
    assert same(ImpactIndex.open(directory).search(QUERY, 5, TEXTS[rows, 0]), expected(rows, 5))


def test_what_is_not_live_is_not_found_and_another_text_under_its_id_is_not_held(directory: Path) -> None:
    rows = np.delete(np.arange(60), [4, 9])
    write_live(directory, TEXTS[rows])
    index = ImpactIndex.open(directory)
    edited = np.array([[TEXTS[0, 0], 7]])
    assert same(index.search(QUERY, 60, None), expected(rows, 60))
    assert (len(index), index.deleted) == (58, 2)
    assert (index.holds(TEXTS).all(), index.holds(edited).tolist()) == (True, [False])


def test_merging_leaves_out_what_is_not_live_and_changes_no_answer(directory: Path, tmp_path: Path) -> None:
    rows = np.delete(np.arange(60), [4, 9])
    write_live(directory, TEXTS[rows])
    index = ImpactIndex.open(directory)
    write_merged(directory, "3", index)
    write_contents(directory, "words", TERMS, ["3"])
    merged = ImpactIndex.open(directory)
    assert same(merged.search(QUERY, 60, None), index.search(QUERY, 60, None))
    assert (len(merged), merged.deleted, len(merged.segments)) == (58, 0, 1)


def test_matched_terms_come_strongest_first(directory: Path) -> None:
    index = ImpactIndex.open(directory)
    for row in (0, 1, 59):
        both = [term for term in QUERY.terms.tolist() if WEIGHTS[row, term]]
        parts = {term: int(WEIGHTS[row, term]) * int(QUERY.weights[QUERY.terms == term][0]) for term in both}
        assert index.matched(QUERY, int(TEXTS[row, 0])) == sorted(both, key=lambda term: (-parts[term], term))


def test_a_chunk_that_is_not_there_matches_nothing(directory: Path) -> None:
    write_live(directory, TEXTS[1:])
    index = ImpactIndex.open(directory)
    assert [index.matched(QUERY, chunk_id) for chunk_id in (int(TEXTS[0, 0]), -1, 1 << 40)] == [[], [], []]


def test_a_query_without_terms_finds_nothing(directory: Path) -> None:
    ids, scores = ImpactIndex.open(directory).search(impacts(np.zeros(TERMS, np.uint8)), 5, None)
    assert (len(ids), len(scores)) == (0, 0)


def test_a_term_beyond_the_vocabulary_is_refused(directory: Path) -> None:
    with pytest.raises(IndexIncompatible, match="term 40 is none of the 40"):
        ImpactIndex.open(directory).search(Impacts(np.array([TERMS]), np.array([1], np.uint8)), 5, None)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (CONTENTS, b"{"),
        (LIVE, b""),
        ("1/rows.npy", b"no array"),
        ("2/starts.npy", None),
    ],
)
def test_damage_is_told(directory: Path, file: str, content: bytes | None) -> None:
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_bytes(content)
    with pytest.raises(IndexCorrupt):
        ImpactIndex.open(directory)


def test_arrays_that_do_not_fit_together_are_refused(directory: Path) -> None:
    np.save(directory / "1" / "rows.npy", np.zeros(3, np.uint32))
    with pytest.raises(IndexCorrupt, match="segment 1"):
        ImpactIndex.open(directory)


def test_live_chunks_that_no_segment_holds_are_refused(directory: Path) -> None:
    write_live(directory, np.concatenate([TEXTS, [[20_000, 1]]]))
    with pytest.raises(IndexCorrupt, match=LIVE):
        ImpactIndex.open(directory)


def test_another_format_is_refused(directory: Path) -> None:
    text = (directory / CONTENTS).read_text()
    (directory / CONTENTS).write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(IndexIncompatible, match="format 2"):
        ImpactIndex.open(directory)
