"""An index that went on from its parent's is the one that would have been made from nothing."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from own_process import OwnProcess
from projects import SHOP, Project, ids_by_store, new_project

from codeintel_rev.config.settings import DuckDBSettings
from codeintel_rev.indexing import build as build_module
from codeintel_rev.indexing import grammars, source, text_stage
from codeintel_rev.indexing.vector_stage import Vectors
from codeintel_rev.io import stat_cache
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.lexical import LexicalIndex, dead_share
from codeintel_rev.io.stat_cache import STAT
from codeintel_rev.io.vector_cache import VectorCache
from codeintel_rev.types import BuildProgress

SEED, STEPS = 11, 5
WORDS = ("charge", "item", "receipt", "total", "shop", "step_3", "changed")
CONTENTS: tuple[str | bytes, ...] = (
    *SHOP.values(),
    "",
    b"\0\1\2 no text",
    "# words\n\nno code changed here\n",
    *(f"class Step{n}:\n    def step_{n}(self):\n        return {n}\n\n\ntotal = {n}\n" for n in range(6)),
)
PATHS = (*SHOP, "shop/new.py", "docs/größe.md", "shop/cart_copy.py", "z.txt", "logo.png")


class Counted(OwnProcess):
    """Tells how many workers were asked for."""

    asked: list[int]

    def __init__(self, repo: str, max_tokens: int, workers: int, *_: object) -> None:
        super().__init__(repo, max_tokens)
        self.asked.append(workers)


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many workers each build asked for."""
    monkeypatch.setattr(Counted, "asked", [], raising=False)
    monkeypatch.setattr(text_stage, "ParsePool", Counted)
    return Counted.asked


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """SHOP without vectors, built once."""
    place = new_project(tmp_path, tmp_path / "models")
    project = place.having(embedding={"provider": "none"}, index={"keep_generations": 99})
    project.build()
    return project


def held(directory: Path) -> dict[str, object]:
    """Return all that a generation answers with, and nothing of how it is stored."""
    lexical = LexicalIndex.open(directory / "lexical")
    with closing(Catalog.open(directory, DuckDBSettings())) as catalog:
        return {
            "chunks": list(catalog.chunks()),
            "symbols": list(catalog.symbols()),
            "files": [*catalog.paths(), *catalog.skipped()],
            "text": {word: catalog.chunk_text_rows(word, regex=True, limit=99) for word in WORDS},
            "ids": lexical.chunk_ids().tolist(),
            "words": {word: set(lexical.search(word, 99).chunk_ids.tolist()) for word in WORDS},
            "names": {word: set(lexical.symbols([word], 99).chunk_ids.tolist()) for word in WORDS},
        }


def from_nothing(project: Project) -> dict[str, object]:
    data_dir = project.data_dir.with_name("other")
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir()
    other = Project(project.root, data_dir, project.sections)
    other.build()
    return held(other.directory)


def parsed(project: Project) -> list[int]:
    """Build and return how many files there were to parse; nothing when none was looked at."""
    totals: list[int] = []

    def told(progress: BuildProgress) -> None:
        if progress.stage == "parse":
            totals.append(progress.total)

    project.build(told)
    return sorted(set(totals))


def digests(project: Project) -> Mapping[str, str]:
    files = (path for path in (project.store.directory / "generations").rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(project: Project, rng: random.Random) -> str:
    """Change something and return what."""
    path, other = rng.sample(PATHS, 2)
    place = project.root / path
    match rng.choice(["write", "write", "delete", "rename", "touch", "ignore"]):
        case "delete" if place.is_file():
            place.unlink()
            return f"delete {path}"
        case "rename" if place.is_file():
            place.replace(project.root / other)
            return f"rename {path} {other}"
        case "touch" if place.is_file():
            place.touch()
            return f"touch {path}"
        case "ignore":
            project.write({".codeintelignore": rng.choice(["", "docs/\n", "*.md\n", "shop/new.py\n"])})
            return "ignore"
        case _:
            content = rng.choice(CONTENTS)
            project.write({path: content})
            return f"write {path} {content!r}"


def test_any_updates_give_what_one_build_would(project: Project) -> None:
    """C45: chunks, symbols, files, words, names and text are those of an index made from nothing, after every step,
    and no file of an older generation is ever written."""
    rng = random.Random(SEED)
    (project.root / "docs").mkdir()
    told = [f"seed {SEED}"]
    published = digests(project)
    for _ in range(STEPS):
        told.append(", ".join(edit(project, rng) for _ in range(rng.randint(1, 4))))
        project.build()
        assert held(project.directory) == from_nothing(project), told
        now = digests(project)
        assert {path: now[path] for path in published} == published, told
        published = now


def test_only_the_changed_file_is_parsed(project: Project, workers: list[int]) -> None:
    project.write({"shop/cart.py": "def changed():\n    return 1\n"})
    assert parsed(project) == [1]
    assert workers == [1, 1]


def test_a_deleted_file_needs_no_parser(project: Project, workers: list[int]) -> None:
    (project.root / "shop/cart.py").unlink()
    assert parsed(project) == []
    assert workers == [1, 0]


def test_a_file_that_goes_back_is_found_again(project: Project) -> None:
    """A → B → A."""
    before = held(project.directory)
    for text in ("def changed():\n    return 1\n", SHOP["shop/cart.py"]):
        project.write({"shop/cart.py": text})
        assert project.build().changed
    assert held(project.directory) == before


def test_a_file_exchanged_at_the_same_size_and_time_is_noticed(project: Project) -> None:
    place = project.root / "shop/cart.py"
    status = place.stat()
    place.write_text(SHOP["shop/cart.py"].replace("add_item", "had_item"))
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert place.stat().st_size == status.st_size
    assert project.build().changed
    assert held(project.directory) == from_nothing(project)


def test_a_file_that_changes_while_it_is_indexed_is_indexed_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it held when it was listed must not be taken for what was parsed."""
    listed = SHOP["shop/cart.py"] + "listed = 1\n"
    project.write({"shop/cart.py": listed})
    contents_of = build_module.contents_of

    def then_changed(*arguments: object) -> dict[str, str]:
        contents = contents_of(*arguments)  # type: ignore[arg-type]
        project.write({"shop/cart.py": "def changed():\n    return 1\n"})
        return contents

    with monkeypatch.context() as patched:
        patched.setattr(build_module, "contents_of", then_changed)
        project.build()
    project.write({"shop/cart.py": listed})
    assert parsed(project) == [1]
    assert held(project.directory) == from_nothing(project)


@pytest.mark.parametrize("change", [{"chunking": {"max_tokens": 64, "workers": 1}}, {"source": {"max_bytes": 9000}}])
def test_another_setting_parses_everything_again(project: Project, change: dict[str, dict[str, object]]) -> None:
    assert parsed(project.having(**{**project.sections, **change})) == [len(SHOP)]


def test_another_grammar_parses_everything_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammars, "versions", lambda: {"tree-sitter": "0.0.1"})
    assert parsed(project) == [len(SHOP)]


@pytest.fixture
def remembering(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project, its files remembered though they are younger than clocks can tell apart."""
    monkeypatch.setattr(stat_cache, "_RACY_NS", -(10**12))
    project.build()
    return project


def test_no_unchanged_file_is_read(remembering: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = source.read_beneath
    monkeypatch.setattr(
        source, "read_beneath", lambda root, path, size: read.append(path) or original(root, path, size)
    )
    remembering.write({"shop/cart.py": "def changed():\n    return 1\n"})
    remembering.build()
    assert set(read) == {"shop/cart.py"}


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_a_lost_memory_of_the_tree_is_no_change(remembering: Project, harm) -> None:  # type: ignore[no-untyped-def]
    harm(remembering.store.directory / STAT)
    assert not remembering.build().changed


def test_a_lexical_index_of_dead_chunks_is_written_anew(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its scores too are those of an index made from nothing."""
    place = project.directory / "lexical"
    project.write({"shop/cart.py": "def changed():\n    return 1\n", "z.md": "# Total\n\nNothing of a charge.\n"})
    project.build()
    assert (dead_share(place), dead_share(project.directory / "lexical")) == (0.0, 1 / 6)
    monkeypatch.setattr(text_stage, "MAX_DEAD", 0.1)
    project.write({"y.py": "def charge():\n    return total\n"})
    project.build()
    expected = from_nothing(project)
    other = Project(project.root, project.data_dir.with_name("other"), project.sections)
    assert held(project.directory) == expected
    assert scores(project) == scores(other)


def scores(project: Project) -> list[tuple[int, float]]:
    ranking = LexicalIndex.open(project.directory / "lexical").search("charge card total", 9)
    return list(zip(ranking.chunk_ids.tolist(), ranking.scores.tolist(), strict=True))


def test_vectors_of_unchanged_files_are_neither_looked_up_nor_made(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stays has its vector in the parent; the rest has to be asked for by its text."""
    files = {f"m{n:02}.py": f"def step_{n}(value):\n    return value + {n}\n" for n in range(12)}
    project = new_project(tmp_path, models_dir, files)
    project.build()
    asked: list[int] = []
    recall = Vectors.recall

    def noted(self: Vectors, cache: VectorCache) -> None:
        asked.append(len(self.chunk_ids))
        recall(self, cache)

    monkeypatch.setattr(Vectors, "recall", noted)
    project.write({"m00.py": "def other():\n    return 0\n"})
    assert (project.build().encoded, asked) == (1, [1])
    (project.data_dir / "cache/vectors.sqlite").unlink()
    project.write({"m01.py": "def another():\n    return 0\n"})
    assert project.build().encoded == 1
    assert project.search("step_7").hits[0].path == "m07.py"


def test_a_chunk_whose_enclosing_signature_changed_is_encoded_again(tmp_path: Path, models_dir: Path) -> None:
    """Its text and so its id are the same, what is encoded is not."""
    body = "".join(f"    def step_{n}(self):\n        return [{', '.join(map(str, range(300)))}]\n\n" for n in range(9))
    project = new_project(tmp_path, models_dir, {"a.py": f"class Short:\n{body}", "b.py": "x = 1\n"})
    project.build()
    before = ids_by_store(project.directory)["chunks"]
    project.write({"a.py": f"class RatherDifferent(Base):\n{body}"})
    summary = project.build()
    same = set(before) & set(ids_by_store(project.directory)["chunks"])
    assert len(same) > 5
    assert summary.encoded >= len(same) - 1
