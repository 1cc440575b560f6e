"""Vectors come, change and go over generations that share files: what is found is always what is there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as runs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from codeintel_rev.config.settings import IndexSettings
from codeintel_rev.errors import EncoderFailed, IndexCorrupt
from codeintel_rev.io import vector_update
from codeintel_rev.io import vectors as store
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.faiss_index import FaissIndex, build_index, inverted_family, read_meta
from codeintel_rev.io.parquet_store import read_idmap
from codeintel_rev.io.stored_vectors import DELETED, StoredVectors
from codeintel_rev.io.vector_update import (
    NO_PRIMARY,
    VectorUpdate,
    compact_vectors,
    compaction_due,
    linkable,
    update_vectors,
)
from codeintel_rev.io.vectors import PRIMARY, SECONDARY, VectorTable

DIM = 16
NEVER = IndexSettings(compact_secondary=1e9, compact_deleted=1e9)
ALWAYS = IndexSettings(compact_secondary=0, compact_deleted=0)
FILES = (*PRIMARY.files, *SECONDARY.files, DELETED, "idmap.parquet")

Model = dict[int, int]


def signs(pattern: int) -> np.ndarray:
    """Return one of 65536 unit vectors (16,) whose inner products are exact in float16, so that twins tie anywhere."""
    bits = (pattern >> np.arange(DIM)) & 1
    return np.where(bits, 0.25, -0.25).astype(np.float32)


def vectors_of(model: Model) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array(list(model), np.int64)
    return ids, np.array([signs(pattern) for pattern in model.values()], np.float32).reshape(len(ids), DIM)


def child_of(parent: Path | None, folder: Path) -> Path:
    """Return a draft that shares what it may with `parent`."""
    folder.mkdir()
    for name in linkable(parent) if parent else ():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).hardlink_to(parent / name)
    return folder


def write(folder: Path, model: Model, settings: IndexSettings = NEVER, parent: Path | None = None) -> VectorUpdate:
    return update_vectors(child_of(parent, folder), *vectors_of(model), settings)


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def oracle(model: Model, query: np.ndarray, k: int, allowed: set[int] | None = None) -> list[tuple[int, float]]:
    """Return (id, score) of a full scan of the model."""
    scored = [(chunk_id, float(signs(pattern) @ query)) for chunk_id, pattern in model.items()]
    kept = [pair for pair in scored if allowed is None or pair[0] in allowed]
    return sorted(kept, key=lambda pair: (-pair[1], pair[0]))[:k]


def found(index: DualIndex, query: np.ndarray, k: int, allowed: set[int] | None = None) -> list[tuple[int, float]]:
    chosen = None if allowed is None else np.array(sorted(allowed), np.int64)
    ids, scores = index.search(query, k, allowed=chosen)
    return list(zip(ids.tolist(), scores.tolist(), strict=True))


def check(generation: Path, model: Model) -> None:
    """Missing, phantom, duplicate and stale vectors: none; every vector finds itself, before all but its twins."""
    index = DualIndex.open(generation, DIM)
    stored = StoredVectors.open(generation, DIM)
    rows, chunk_ids = read_idmap(generation)
    assert len(index) == len(stored) == len(model)
    assert sorted(chunk_ids.tolist()) == sorted(model)
    assert np.array_equal(stored[rows], stored.gather(chunk_ids)[0])
    held = set(stored.primary.ids.tolist()) | set(stored.secondary.ids.tolist())
    assert found(index, signs(0x5A5A), 10**6, held) == oracle(model, signs(0x5A5A), 10**6)
    for chunk_id, pattern in model.items():
        twins = sorted(other for other, theirs in model.items() if theirs == pattern)
        assert found(index, signs(pattern), len(twins)) == [(twin, 1.0) for twin in twins]
        assert found(index, signs(pattern), 1, {chunk_id, 10**9}) == [(chunk_id, 1.0)]


class Generations(RuleBasedStateMachine):
    """A line of generations against a dict of id → vector; half of the ids share few vectors, so that twins occur."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="vectors"))
        self.model: Model = {}
        self.generation: Path | None = None
        self.published: Model = {}
        self.count = 0

    def _publish(self, fill: Callable[[Path], object]) -> None:
        parent, before = self.generation, digests(self.generation) if self.generation else {}
        self.count += 1
        self.generation = child_of(parent, self.folder / str(self.count))
        fill(self.generation)
        if parent:
            assert digests(parent) == before

    @rule(ids=st.lists(st.integers(1, 30), max_size=8), pattern=st.integers(0, 2**DIM - 1))
    def put(self, ids: list[int], pattern: int) -> None:
        """Add or change."""
        self.model |= {chunk_id: (pattern * chunk_id if chunk_id % 2 else pattern) % 2**DIM for chunk_id in ids}

    @rule(ids=st.lists(st.integers(1, 30), max_size=8))
    def remove(self, ids: list[int]) -> None:
        for chunk_id in ids:
            self.model.pop(chunk_id, None)

    @rule()
    def revert(self) -> None:
        """A → B → A: what was deleted or replaced comes back."""
        self.model = dict(self.published)

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def update(self, share: float) -> None:
        policy = IndexSettings(compact_secondary=share, compact_deleted=share)
        self._publish(lambda folder: update_vectors(folder, *vectors_of(self.model), policy))
        self.published = dict(self.model)

    @rule()
    def compact(self) -> None:
        if self.generation:
            source = self.generation
            self._publish(lambda folder: compact_vectors(folder, source, DIM))

    @invariant()
    def holds_what_was_published(self) -> None:
        if self.generation:
            check(self.generation, self.published)

    @rule(
        pattern=st.integers(0, 2**DIM - 1),
        k=st.integers(1, 40),
        allowed=st.none() | st.sets(st.integers(1, 35)),
    )
    def ask(self, pattern: int, k: int, allowed: set[int] | None) -> None:
        """As a full scan, and as an index freshly built: ids, order and scores."""
        if self.generation:
            answer = found(DualIndex.open(self.generation, DIM), signs(pattern), k, allowed)
            assert answer == oracle(self.published, signs(pattern), k, allowed)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


def test_what_is_found_is_what_is_there() -> None:
    run_state_machine_as_test(Generations, settings=runs(max_examples=20, stateful_step_count=15, deadline=None))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_is_found_is_what_is_there_over_long_histories() -> None:
    run_state_machine_as_test(Generations, settings=runs(max_examples=200, stateful_step_count=30, deadline=None))


MODEL: Model = {chunk_id: chunk_id * 1777 % 2**DIM for chunk_id in range(1, 101)}


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    write(tmp_path / "parent", MODEL)
    return tmp_path / "parent"


def test_a_first_generation_is_all_primary(tmp_path: Path) -> None:
    assert linkable(tmp_path) == ()
    assert write(tmp_path / "first", MODEL) == VectorUpdate(0, 100, 0, NO_PRIMARY)
    assert len(VectorTable.open(tmp_path / "first", DIM, SECONDARY)) == 0
    check(tmp_path / "first", MODEL)


def test_an_update_shares_the_primary_and_writes_what_is_new(tmp_path: Path, parent: Path) -> None:
    """Decisions 50, 51: one added, one changed, one deleted."""
    model = {**MODEL, 7: 1, 500: 2}
    del model[9]
    update = write(tmp_path / "child", model, parent=parent)
    assert update == VectorUpdate(kept=98, added=2, deleted=2, rebuilt="")
    assert all((tmp_path / "child" / name).samefile(parent / name) for name in PRIMARY.files)
    assert StoredVectors.open(tmp_path / "child", DIM).secondary.ids.tolist() == [7, 500]
    assert np.load(tmp_path / "child" / DELETED).tolist() == [7, 9]
    check(tmp_path / "child", model)


def test_a_vector_that_comes_back_is_the_primary_s_again(tmp_path: Path, parent: Path) -> None:
    """A → B → A leaves nothing behind."""
    write(tmp_path / "changed", {**MODEL, 7: 1}, parent=parent)
    assert write(tmp_path / "back", MODEL, parent=tmp_path / "changed") == VectorUpdate(100, 0, 0, "")


@pytest.mark.parametrize(
    ("model", "rebuilt"),
    [
        ({**MODEL, **dict.fromkeys(range(200, 205), 3)}, ""),
        ({**MODEL, **dict.fromkeys(range(200, 206), 3)}, "6 new vectors beside 100"),
        ({**MODEL, **dict.fromkeys(range(1, 7), 3)}, "6 new vectors beside 100"),
        (dict(list(MODEL.items())[10:]), ""),
        (dict(list(MODEL.items())[11:]), "11 of 100 vectors deleted"),
    ],
    ids=["5 % new", "6 % new", "6 % changed", "10 % deleted", "11 % deleted"],
)
def test_too_many_changes_are_written_as_one(tmp_path: Path, parent: Path, model: Model, rebuilt: str) -> None:
    """C21: index.compact_secondary and index.compact_deleted, by default 5 % and 10 %."""
    before = digests(parent)
    assert write(tmp_path / "child", model, IndexSettings(), parent).rebuilt == rebuilt
    assert (tmp_path / "child" / PRIMARY.index).samefile(parent / PRIMARY.index) is not bool(rebuilt)
    assert digests(parent) == before
    check(tmp_path / "child", model)


def test_the_limits_are_settings(tmp_path: Path, parent: Path) -> None:
    model = {**MODEL, 500: 2}
    assert write(tmp_path / "a", model, IndexSettings(compact_secondary=0.001), parent).rebuilt
    gone = dict(list(MODEL.items())[1:])
    assert write(tmp_path / "b", gone, IndexSettings(compact_deleted=0.001), parent).rebuilt


def test_compacting_gives_the_bytes_of_a_first_build(tmp_path: Path, parent: Path) -> None:
    """Decision 50: from the stored vectors of both tables, which are float16 as they came."""
    model = {**MODEL, 7: 1, 500: 2}
    del model[9]
    write(tmp_path / "child", model, parent=parent)
    child = digests(tmp_path / "child")
    compact_vectors(child_of(tmp_path / "child", tmp_path / "compact"), tmp_path / "child", DIM)
    write(tmp_path / "fresh", model)
    ours, theirs = digests(tmp_path / "compact"), digests(tmp_path / "fresh")
    said = {PRIMARY.meta, SECONDARY.meta}  # when it was built
    assert {name for name in FILES if ours[name] != theirs[name]} <= said
    assert digests(tmp_path / "child") == child


def test_vectors_of_another_dimension_share_nothing(tmp_path: Path, parent: Path) -> None:
    """Another model: B, not A with B's additions."""
    child = child_of(parent, tmp_path / "child")
    ids = np.arange(1, 101)
    assert update_vectors(child, ids, np.eye(100, 8, dtype=np.float32), NEVER).rebuilt == NO_PRIMARY
    assert len(DualIndex.open(child, 8)) == 100


def test_vectors_of_another_model_are_not_those_of_the_parent(tmp_path: Path, parent: Path) -> None:
    """The same dimension and the same ids: every vector differs, so nothing is kept."""
    other = {chunk_id: pattern ^ 0xFFFF for chunk_id, pattern in MODEL.items()}
    assert write(tmp_path / "child", other, IndexSettings(), parent).kept == 0
    check(tmp_path / "child", other)


def test_a_primary_of_another_family_is_not_added_to(tmp_path: Path, parent: Path) -> None:
    """Decision 11: the family belongs to the size the primary has, so a size near the edge does not flip it."""
    build_index(parent, VectorTable.open(parent, DIM), family=inverted_family(100))
    assert write(tmp_path / "child", MODEL, parent=parent).rebuilt == NO_PRIMARY
    assert read_meta(tmp_path / "child").factory == "SQfp16"


def test_a_primary_of_another_format_is_not_added_to(tmp_path: Path, parent: Path) -> None:
    """F16."""
    meta = (parent / PRIMARY.meta).read_text().replace('"format": 2', '"format": 1')
    (parent / PRIMARY.meta).write_text(meta)
    assert write(tmp_path / "child", MODEL, parent=parent).rebuilt == NO_PRIMARY


def test_a_broken_primary_is_not_taken_for_none(tmp_path: Path, parent: Path) -> None:
    (parent / PRIMARY.vectors).write_bytes(b"x")
    with pytest.raises(IndexCorrupt, match="cannot be mapped"):
        write(tmp_path / "child", MODEL, parent=parent)


def test_more_vectors_than_a_block_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codeintel_rev.io.vector_update.BLOCK_ROWS", 7)
    write(tmp_path / "a", MODEL)
    model = {chunk_id: MODEL[chunk_id] ^ (chunk_id % 10 == 3) for chunk_id in reversed(MODEL)}
    assert write(tmp_path / "b", model, parent=tmp_path / "a") == VectorUpdate(90, 10, 10, "")
    check(tmp_path / "b", model)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path, parent: Path) -> None:
    ids, vectors = np.array([7, 7]), np.array([signs(MODEL[7])] * 2)
    with pytest.raises(ValueError, match="twice"):
        update_vectors(child_of(parent, tmp_path / "child"), ids, vectors, NEVER)


@pytest.mark.parametrize("where", [0, 100], ids=["changed", "new"])
def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path, parent: Path, where: int) -> None:
    """F28."""
    ids, vectors = vectors_of({**MODEL, 500: 5})
    vectors[where, 3] = np.nan
    with pytest.raises(EncoderFailed, match="not finite"):
        update_vectors(child_of(parent, tmp_path / "child"), ids, vectors, NEVER)


def test_all_may_go_and_come_again(tmp_path: Path, parent: Path) -> None:
    write(tmp_path / "none", {}, parent=parent)
    check(tmp_path / "none", {})
    assert write(tmp_path / "again", MODEL, ALWAYS, tmp_path / "none").rebuilt == ""
    write(tmp_path / "empty", {}, ALWAYS, parent)
    assert (len(FaissIndex.open(tmp_path / "empty", DIM)), linkable(tmp_path / "empty")) == (0, PRIMARY.files)
    assert write(tmp_path / "full", MODEL, IndexSettings(), tmp_path / "empty").rebuilt == "100 new vectors beside 0"


def test_vectors_are_read_a_block_at_a_time(tmp_path: Path, parent: Path) -> None:
    """The build's memory does not grow with the corpus."""
    ids, vectors = vectors_of(MODEL)
    asked: list[int] = []

    class Cache:
        shape = vectors.shape

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            asked.append(len(rows))
            return vectors[rows]

    update_vectors(child_of(parent, tmp_path / "child"), ids, Cache(), NEVER)
    assert max(asked) <= store.BLOCK_ROWS
    assert sum(asked) == 100


def test_random_vectors_are_found_as_by_a_freshly_built_index(tmp_path: Path) -> None:
    """Decision 52: both parts are scored alike, so their hits mix as if they were one."""
    random = np.random.default_rng(0)
    old, new = (random.standard_normal((rows, DIM), np.float32) for rows in (2000, 60))
    vectors = np.concatenate([old, new])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = random.permutation(np.arange(1, 2061))
    update_vectors(child_of(None, tmp_path / "a"), ids[:2000], vectors[:2000], NEVER)
    left = np.sort(random.choice(2060, 1900, replace=False))
    update_vectors(child_of(tmp_path / "a", tmp_path / "b"), ids[left], vectors[left], NEVER)
    update_vectors(child_of(None, tmp_path / "c"), ids[left], vectors[left], NEVER)
    dual, fresh = DualIndex.open(tmp_path / "b", DIM), DualIndex.open(tmp_path / "c", DIM)
    for query in random.standard_normal((50, DIM)):
        ours, theirs = dual.search(query, 50), fresh.search(query, 50)
        assert np.array_equal(ours[0], theirs[0])
        assert np.array_equal(ours[1], theirs[1])


def test_an_inverted_primary_loses_and_gains_vectors_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes in the primary, vectors in the secondary: every survivor finds itself, with its exact score."""
    monkeypatch.setattr("codeintel_rev.io.vector_update.choose_family", inverted_family)
    monkeypatch.setattr("codeintel_rev.io.faiss_index.choose_family", inverted_family)
    random = np.random.default_rng(0)
    vectors = random.standard_normal((4100, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(1, 4101)
    update_vectors(child_of(None, tmp_path / "a"), ids[:4000], vectors[:4000], NEVER)
    update = update_vectors(child_of(tmp_path / "a", tmp_path / "b"), ids[400:], vectors[400:], NEVER)
    assert update == VectorUpdate(3600, 100, 400, "")
    index = DualIndex.open(tmp_path / "b", DIM)
    for row in (*range(400, 4000, 97), 4000, 4099):
        found_ids, scores = index.search(vectors[row], 5)
        assert found_ids[0] == ids[row]
        assert scores[0] == pytest.approx(1, abs=1e-3)
    assert not np.isin(index.search(vectors[5], 4000, nprobe=10**6)[0], ids[:400]).any()


@pytest.mark.parametrize(
    ("model", "due", "rebuilt"),
    [
        ({**MODEL, **dict.fromkeys(range(200, 205), 3)}, "", ""),
        ({**MODEL, **dict.fromkeys(range(200, 210), 3)}, "10 new vectors beside 100", ""),
        ({**MODEL, **dict.fromkeys(range(200, 211), 3)}, "", "11 new vectors beside 100"),
        (dict(list(MODEL.items())[20:]), "20 of 100 vectors deleted", ""),
        (dict(list(MODEL.items())[21:]), "", "21 of 100 vectors deleted"),
    ],
    ids=["5 % new", "10 % new", "11 % new", "20 % deleted", "21 % deleted"],
)
def test_a_large_primary_is_left_to_a_compaction(
    tmp_path: Path, parent: Path, model: Model, due: str, rebuilt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update of a large repository stays short until twice as much piled up."""
    monkeypatch.setattr(vector_update, "SMALL", 100)
    assert write(tmp_path / "child", model, IndexSettings(), parent).rebuilt == rebuilt
    assert compaction_due(tmp_path / "child", IndexSettings()) == due
    check(tmp_path / "child", model)


def test_nothing_is_due_where_there_are_no_vectors(tmp_path: Path) -> None:
    assert compaction_due(tmp_path, ALWAYS) == ""
