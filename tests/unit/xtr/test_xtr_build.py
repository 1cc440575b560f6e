"""An index holds what was put into it, whatever was added, replaced, deleted and merged since."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from codeintel_rev.errors import DimensionMismatch, InvalidArgument
from codeintel_rev.types import Floats
from codeintel_rev.xtr import segments
from codeintel_rev.xtr.build import append, build_index, compact, delete
from codeintel_rev.xtr.config import BuildConfig, Layout, SearchConfig
from codeintel_rev.xtr.search import XTRSearch
from codeintel_rev.xtr.validate import verify
from tests.unit.xtr.token_corpora import clustered, exact, opened, vectors

IDS = st.integers(0, 12)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(1), [20] * 50, 32)
    for name in ("a", "b"):
        build_index(BuildConfig(tmp_path / name, 32), corpus.items())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_seed_gives_other_centroids(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(1), [20] * 50, 32)
    for seed in (1, 2):
        build_index(BuildConfig(tmp_path / str(seed), 32, seed=seed), corpus.items())
    assert (tmp_path / "1/codec/fine.i8").read_bytes() != (tmp_path / "2/codec/fine.i8").read_bytes()


def test_order_of_arrival_changes_no_segment(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(1), [20] * 50, 32)
    build_index(BuildConfig(tmp_path / "a", 32, layout="flat"), corpus.items())
    build_index(BuildConfig(tmp_path / "b", 32, layout="flat"), reversed(corpus.items()))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_documents_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """A19: a build never holds the corpus; each document can be dropped once the next is asked for."""
    alive: list[int] = []

    def documents() -> Iterator[tuple[int, Floats]]:
        random = np.random.default_rng(0)
        for i in range(50):
            alive.append(i)
            yield i, vectors(random, 3, 16)
            assert alive.pop() == i

    assert build_index(BuildConfig(tmp_path, 16), documents()).documents == 50


def test_an_index_of_nothing_can_grow(tmp_path: Path) -> None:
    index = opened(tmp_path, {}, 16)
    assert len(index.search(vectors(np.random.default_rng(0), 2, 16)).doc_ids) == 0
    corpus = clustered(np.random.default_rng(0), [3, 4], 16)
    append(tmp_path, corpus.items())
    assert sorted(XTRSearch.open(SearchConfig(tmp_path)).search(corpus[1]).doc_ids.tolist()) == [1, 3]


def test_an_open_index_stays_what_it_was(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(0), [5] * 20, 16)
    before = opened(tmp_path, corpus, 16)
    expected = before.search(corpus[3])
    delete(tmp_path, np.array([3], np.int64))
    append(tmp_path, [(100, corpus[3])])
    compact(tmp_path)
    np.testing.assert_array_equal(before.search(corpus[3]).doc_ids, expected.doc_ids)
    assert XTRSearch.open(SearchConfig(tmp_path)).search(corpus[3], 1).doc_ids.tolist() == [100]


def test_an_increment_rewrites_no_old_file(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(0), [5] * 20, 16)
    build_index(BuildConfig(tmp_path, 16), corpus.items())
    before = contents(tmp_path)
    append(tmp_path, [(1, corpus[3]), (500, corpus[5])])
    after = contents(tmp_path)
    assert {path for path in before if before[path] != after.get(path)} == {"manifest.json"}


def test_compaction_changes_no_score(tmp_path: Path) -> None:
    """Codes are copied: decoding and encoding again would move every score."""
    random = np.random.default_rng(0)
    corpus = clustered(random, [5] * 30, 16)
    build_index(BuildConfig(tmp_path, 16), list(corpus.items())[:20])
    append(tmp_path, list(corpus.items())[20:])
    delete(tmp_path, np.array([5, 7], np.int64))
    query = vectors(random, 4, 16)
    before = XTRSearch.open(SearchConfig(tmp_path)).search(query)
    compact(tmp_path)
    after = XTRSearch.open(SearchConfig(tmp_path))
    np.testing.assert_array_equal(after.search(query).doc_ids, before.doc_ids)
    np.testing.assert_array_equal(after.search(query).scores, before.scores)
    assert len(after.segments) == 1
    assert not list(tmp_path.glob("*deleted*"))


def test_documents_beyond_a_segment_fill_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_DOCUMENTS", 7)
    monkeypatch.setattr(segments, "BLOCK_TOKENS", 16)
    random = np.random.default_rng(0)
    corpus = clustered(random, [5] * 30, 16)
    index = opened(tmp_path, corpus, 16, brute_force=0, nprobe=200)
    assert [segment.entry.documents for segment in index.segments] == [7, 7, 7, 7, 2]
    assert [index.search(corpus[i], 1).doc_ids[0] for i in (1, 27, 59)] == [1, 27, 59]


@pytest.mark.parametrize(
    ("docs", "error"),
    [
        ([(1, np.eye(15, dtype=np.float32))], DimensionMismatch),
        ([(1, np.ones(16, np.float32))], DimensionMismatch),
        ([(1, 2 * np.eye(16, dtype=np.float32))], InvalidArgument),
        ([(1, np.full((1, 16), np.nan, np.float32))], InvalidArgument),
        ([(1, np.eye(16, dtype=np.float32)), (1, np.eye(16, dtype=np.float32))], InvalidArgument),
        ([(1, np.tile(np.eye(16, dtype=np.float32), (3, 1)))], InvalidArgument),
    ],
)
def test_unusable_documents_publish_nothing(
    tmp_path: Path, docs: list[tuple[int, Floats]], error: type[Exception]
) -> None:
    """Decision 20: a document above `max_doclen` is refused, never cut."""
    with pytest.raises(error):
        build_index(BuildConfig(tmp_path, 16, max_doclen=40), docs)
    assert contents(tmp_path) == {}


def test_a_second_build_does_not_overwrite_the_first(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(0), [5] * 3, 16)
    build_index(BuildConfig(tmp_path, 16), corpus.items())
    with pytest.raises(InvalidArgument):
        build_index(BuildConfig(tmp_path, 16), corpus.items())


def test_the_number_of_centroids_can_be_set(tmp_path: Path) -> None:
    corpus = clustered(np.random.default_rng(0), [50] * 30, 16)
    manifest = build_index(BuildConfig(tmp_path, 16, nlist=37), corpus.items())
    assert manifest.codec is not None
    assert manifest.codec.cells == 37


class IndexOrDict(RuleBasedStateMachine):
    """An index is a dictionary from id to tokens, whatever is done to both."""

    folder: Path
    layout: Layout

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / str(len(list(self.folder.iterdir())))
        self.random = np.random.default_rng(0)
        self.model: dict[int, Floats] = {i: vectors(self.random, 20, 16) for i in range(3)}
        build_index(BuildConfig(self.path, 16, layout=self.layout), self.model.items())

    @rule(ids=st.sets(IDS, max_size=4), length=st.integers(0, 5))
    def append(self, ids: set[int], length: int) -> None:
        new = {i: vectors(self.random, length, 16) for i in sorted(ids)}
        append(self.path, new.items())
        self.model |= new

    @rule(ids=st.lists(IDS, max_size=4))
    def delete(self, ids: list[int]) -> None:
        delete(self.path, np.array(ids, np.int64))
        self.model = {i: tokens for i, tokens in self.model.items() if i not in ids}

    @rule()
    def compact(self) -> None:
        compact(self.path)

    @invariant()
    def holds_the_same(self) -> None:
        assert verify(self.path).documents == len(self.model)
        index = XTRSearch.open(SearchConfig(self.path))
        query = np.eye(16, dtype=np.float32)[:4]
        found = index.rescore(query, np.arange(13, dtype=np.int64))
        assert (set(found.doc_ids.tolist()), found.missing) == (set(self.model), 13 - len(self.model))
        true = exact(query, self.model)
        for i, score in zip(found.doc_ids.tolist(), found.scores.tolist(), strict=True):
            assert score == pytest.approx(true[i], abs=0.01 if self.layout == "flat" else 0.6)
        assert set(index.search(query).doc_ids.tolist()) == {i for i, tokens in self.model.items() if len(tokens)}


@pytest.mark.parametrize("layout", ["flat", "warp"])
def test_an_index_is_a_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout) -> None:
    machine = type("Machine", (IndexOrDict,), {"folder": tmp_path, "layout": layout})
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=8, deadline=None))
