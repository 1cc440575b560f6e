"""The life of an index: whatever was added, changed, deleted, moved, compacted or killed, it holds what the tree holds.

missing = phantom = duplicate = stale = 0, and every chunk is the nearest to its own vector
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from own_process import OwnProcess
from projects import Project

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.encoders.dense import embedding_text
from codeintel_rev.indexing import text_stage
from codeintel_rev.indexing.build import build
from codeintel_rev.indexing.chunking import chunk_file
from codeintel_rev.indexing.compaction import compact
from codeintel_rev.indexing.source import read_file, scan
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.failpoints import armed
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.io.lexical import LexicalIndex
from codeintel_rev.io.parquet_store import read_idmap
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.types import Chunk, Floats, ModelFingerprint, SourceFile

DIM = 16
PATHS = [f"{folder}{name}" for folder in ("", "shop/", "shop/deep/") for name in ("a.py", "b.go", "c.md", "größe.py")]
FAILPOINTS = ["publish.after_fsync", "publish.after_manifest", "publish.before_replace", "publish.after_replace"]
LOOSE = {"index": {"keep_generations": 2, "compact_deleted": 0.5, "compact_secondary": 0.5}}
"""Settings under which updates leave something to compact."""
Contents = Counter[tuple[str, str, str]]
NUMBERS = st.lists(st.integers(0, 40), max_size=6)


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up after it."""


class Hashed:
    """A dense encoder whose vectors are drawn from the text's hash: two texts are never near."""

    fingerprint = ModelFingerprint("hashed", "1", DIM, "none", "float32", 128, "0" * 64)

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        rows = [np.random.default_rng(list(hashlib.sha256(text.encode()).digest())).normal(size=DIM) for text in texts]
        matrix = np.array(rows, np.float32).reshape(-1, DIM)
        return np.asarray(matrix / np.linalg.norm(matrix, axis=1, keepdims=True), np.float32)

    encode_queries = encode_documents


def content(path: str, numbers: Sequence[int]) -> str:
    """Return a file of functions, equal ones among them; a few hundred characters."""
    if path.endswith(".go"):
        return "package shop\n" + "".join(f"\nfunc Step{n}(a int) int {{\n\treturn a + {n}\n}}\n" for n in numbers)
    if path.endswith(".md"):
        return "".join(f"# Step {n}\n\nTells of step {n} and nothing else.\n\n" for n in numbers)
    return "".join(f'def step_{n}(value):\n    """Do step {n}."""\n    return value + {n} * {n}\n\n\n' for n in numbers)


class Life(RuleBasedStateMachine):
    """`tree` is what the files hold, `indexed` what they held when a build last ended."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="life"))
        self.project = Project(self.folder / "tree", self.folder / "data", LOOSE)
        self.project.root.mkdir()
        self.project.data_dir.mkdir()
        self.tree: dict[str, str] = {}
        self.indexed: dict[str, str] | None = None

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=8))
    def begin(self, numbers: list[int]) -> None:
        for path in PATHS[::3]:
            self.write(path, numbers)
        self.update()

    @rule(path=st.sampled_from(PATHS), numbers=NUMBERS)
    def write(self, path: str, numbers: list[int]) -> None:
        self.tree[path] = content(path, numbers)
        self.project.write({path: self.tree[path]})

    @precondition(lambda self: self.tree)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(self.tree)))
        del self.tree[path]
        (self.project.root / path).unlink()

    @precondition(lambda self: self.tree)
    @rule(data=st.data(), folder=st.sampled_from(["", "shop/", "moved/"]))
    def move(self, data: st.DataObject, folder: str) -> None:
        path = data.draw(st.sampled_from(sorted(self.tree)))
        text = self.tree.pop(path)
        (self.project.root / path).unlink()
        self.tree[folder + Path(path).name] = text
        self.project.write({folder + Path(path).name: text})

    @rule()
    def update(self) -> None:
        update(self.project)
        self.indexed = dict(self.tree)

    @precondition(lambda self: self.indexed is not None)
    @rule()
    def compact(self) -> None:
        compact("demo", self.project.settings())

    @rule(point=st.sampled_from(FAILPOINTS), by=st.sampled_from(["update", "compact"]))
    def be_killed(self, point: str, by: str) -> None:
        """Nothing is tidied up, and the next one finds what is left; past the last point it is published."""

        def die() -> None:
            raise Killed

        before = self.project.store.current_id()
        with pytest.MonkeyPatch.context() as patched, armed(point, die), suppress(Killed):
            patched.setattr(GenerationStore, "abandon", lambda *_: None)
            getattr(self, by)()
        if by == "update" and self.project.store.current_id() != before:
            self.indexed = dict(self.tree)

    @invariant()
    def holds_what_the_tree_held(self) -> None:
        if self.indexed is not None:
            assert found(self.project) == expected(self.folder, self.indexed)
            assert_whole(self.project)


def opening(*_: object) -> Hashed:
    return Hashed()


def update(project: Project) -> None:
    build("demo", project.root, project.settings(), on_progress=lambda _: None, opening=opening)


def found(project: Project) -> Contents:
    with closing(Catalog.open(project.directory, DuckDBSettings())) as catalog:
        return Counter((chunk.path, chunk.symbol, chunk.text) for chunk in catalog.chunks())


def assert_whole(project: Project) -> None:
    """Every store holds every chunk once, and each is the nearest to its own vector."""
    directory = project.directory
    with closing(Catalog.open(directory, DuckDBSettings())) as catalog:
        chunks = list(catalog.chunks())
        assert {row.path for row in catalog.paths()} >= {chunk.path for chunk in chunks}
    ids = sorted(chunk.chunk_id for chunk in chunks)
    assert len(set(ids)) == len(ids)
    assert LexicalIndex.open(directory / "lexical").chunk_ids().tolist() == ids
    if project.current.counts["vectors"]:
        assert sorted(StoredVectors.open(directory, DIM).idmap()[1].tolist()) == ids
        assert sorted(read_idmap(directory)[1].tolist()) == ids
        assert_each_finds_itself(directory, chunks)


def expected(folder: Path, tree: dict[str, str]) -> Contents:
    """Return what chunking makes of a tree of such files, apart from any index."""
    root = folder / "model"
    shutil.rmtree(root, ignore_errors=True)
    model = Project(root, folder / "none")
    root.mkdir()
    model.write(tree)
    source = model.settings().source
    read = (read_file(root, entry, source) for entry in scan(root, source).files)
    parsed = (chunk_file("demo", file, 400) for file in read if isinstance(file, SourceFile))
    return Counter((chunk.path, chunk.symbol, chunk.text) for one in parsed for chunk in one.chunks)


def assert_each_finds_itself(directory: Path, chunks: Sequence[Chunk]) -> None:
    index = DualIndex.open(directory, DIM)
    texts = [embedding_text(chunk) for chunk in chunks]
    for chunk, vector in zip(chunks, Hashed().encode_documents(texts), strict=True):
        ids, scores = index.search(vector, texts.count(embedding_text(chunk)))
        assert chunk.chunk_id in ids.tolist()
        assert scores[0] == pytest.approx(1.0, abs=2e-3)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stage, "ParsePool", OwnProcess)


def live(examples: int, steps: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            print_blob=True,
            suppress_health_check=checks,
        ),
    )


@pytest.mark.usefixtures("in_this_process")
def test_an_index_holds_what_its_tree_holds() -> None:
    """C24, C45, F01 to F19: a failure prints the blob that repeats it."""
    live(examples=3, steps=8)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("in_this_process")
def test_an_index_holds_what_its_tree_holds_whatever_comes() -> None:
    live(examples=100, steps=12)


SEED, KILLS = 20261121, 200
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__])  # Importing everything takes ten times as long as what is killed.


def doomed(root: Path, data_dir: Path, by: str, seconds: float) -> None:
    """Update or compact, and end after so many seconds as a kill would: what SIGALRM does where nobody handles it."""
    text_stage.ParsePool = OwnProcess  # type: ignore[misc, assignment]
    project = Project(root, data_dir, LOOSE)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if by == "update":
        update(project)
    else:
        compact("demo", project.settings())


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("in_this_process")
def test_two_hundred_kills_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F01, F02, F10, F14: builder and compactor, at any moment; what is published before or after it, whole."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # For the server of forks, which is not told of it.
    rng = random.Random(SEED)
    project = Project(tmp_path / "tree", tmp_path / "data", LOOSE)
    project.root.mkdir()
    project.data_dir.mkdir()
    tree: dict[str, str] = {}
    killed: Counter[str] = Counter()
    longest = 0.25
    while killed.total() < KILLS:
        for path in rng.sample(PATHS, 2):
            tree[path] = content(path, [rng.randrange(40) for _ in range(rng.randint(1, 6))])
            project.write({path: tree[path]})
        by = rng.choice(["update", "compact"]) if project.store.current_id() else "update"
        allowed = [expected(tmp_path, tree)] + ([found(project)] if project.store.current_id() else [])
        process = FORKS.Process(target=doomed, args=(project.root, project.data_dir, by, rng.uniform(0.001, longest)))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGALRM), (by, process.exitcode)
        killed[by] += process.exitcode != 0
        if project.store.current_id():
            assert project.store.verify(project.current.generation) == []
            assert found(project) in allowed
        if rng.random() < 0.2:
            update(project)
            assert found(project) == expected(tmp_path, tree)
            assert_whole(project)
    assert min(killed["update"], killed["compact"]) > KILLS / 8, killed
