"""A builder that is killed, at whatever moment, costs neither the old generation nor the work already paid for."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_build import CHECKPOINT
from projects import Project, ids_by_store, new_project

from codeintel_rev.io.vector_cache import VectorCache

SEED = 20260101
FUNCTIONS = 12
FILES = {
    f"m{n:02}.py": f'def step_{n}(value):\n    """Do step {n}."""\n    return value + {n}\n' for n in range(FUNCTIONS)
}
CHANGED = {name: text.replace("Do step", "Carry out step") for name, text in FILES.items()}
REPORTS = FUNCTIONS + 2 + 1 + 3 * 3  # one a file parsed, two a publication, then three steps encoded and published
MOMENTS = [str(number) for number in sorted(random.Random(SEED).sample(range(REPORTS), 8))]
FAILPOINTS = [
    "publish.after_fsync:0",
    "publish.after_manifest:0",
    "publish.before_replace:0",
    "publish.after_replace:0",
    "publish.after_manifest:1",
    "publish.after_replace:2",
]


def killed_build(project: Project, moment: str) -> None:
    """Build in a process that dies at `moment`."""
    script = Path(__file__).parents[2] / "killed_build.py"
    command = (sys.executable, str(script), str(project.root), str(project.data_dir), moment)
    modules = os.pathsep.join(map(str, script.parents[:2]))
    died = subprocess.run(command, env={**os.environ, "PYTHONPATH": modules}, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL, moment


def cached(project: Project) -> int:
    """Return how many vectors the cache has."""
    model = project.current.model
    if model is None or not (project.data_dir / "cache/vectors.sqlite").exists():
        return 0
    cache = VectorCache.open(project.data_dir / "cache/vectors.sqlite", model)
    rows = cache._connection.execute("SELECT count(*) FROM vectors_1").fetchone()[0]
    cache.close()
    return int(rows)


@pytest.fixture
def built(tmp_path: Path, models_dir: Path) -> Project:
    project = new_project(tmp_path, models_dir, FILES)
    project.build()
    return project


def assert_serves(project: Project) -> None:
    """CURRENT resolves, every byte of it is what was published, and it answers from one generation."""
    assert project.store.verify(project.current.generation) == []
    result = project.search("step_7")
    assert result.generations == {"demo": project.current.generation}
    assert result.hits[0].path == "m07.py"


def assert_recovers(project: Project) -> None:
    """The next build is whole, encodes only what the killed one had not, and leaves no draft."""
    had = cached(project)
    summary = project.build()
    assert (summary.stage, summary.encoded) == ("complete", 2 * FUNCTIONS - had)
    assert len(set(map(tuple, ids_by_store(project.directory).values()))) == 1
    assert all((path / "MANIFEST.json").exists() for path in (project.store.directory / "generations").iterdir())
    assert project.search("step_3").hits[0].path == "m03.py"


@pytest.mark.parametrize("moment", ["3", "publish.after_manifest:0", str(FUNCTIONS + 5), "publish.before_replace:1"])
def test_a_killed_rebuild_leaves_the_last_generation_serving(built: Project, moment: str) -> None:
    """F01, F02, F10: while parsing, publishing text, encoding and publishing vectors."""
    built.write(CHANGED)
    killed_build(built, moment)
    assert_serves(built)
    assert_recovers(built)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [*MOMENTS, *FAILPOINTS])
def test_a_kill_at_any_moment_costs_no_more(built: Project, moment: str) -> None:
    """F01, F02, F10: seeded moments, and each step of publishing."""
    built.write(CHANGED)
    killed_build(built, moment)
    assert_serves(built)
    assert_recovers(built)


def test_a_first_build_killed_while_encoding_serves_words_and_goes_on(tmp_path: Path, models_dir: Path) -> None:
    """F10: what was encoded before the kill is not encoded again."""
    project = new_project(tmp_path, models_dir, FILES)
    killed_build(project, str(FUNCTIONS + 3))
    assert (project.current.stage, project.search("step_7").hits[0].path) == ("lexical", "m07.py")
    summary = project.build()
    assert (summary.stage, summary.encoded) == ("complete", FUNCTIONS - CHECKPOINT)


def test_a_killed_builder_does_not_look_like_a_running_one(tmp_path: Path, models_dir: Path) -> None:
    """index_status never lies about what is being built."""
    project = new_project(tmp_path, models_dir, FILES)
    killed_build(project, str(FUNCTIONS + 3))
    with project.opened() as opened:
        (status,) = opened.searcher.status()
    assert (status.state, status.building) == ("degraded", None)
    assert [limit.code for limit in status.limits] == ["vectors-partial"]


def test_a_builder_killed_before_it_publishes_leaves_no_index(tmp_path: Path, models_dir: Path) -> None:
    project = new_project(tmp_path, models_dir, FILES)
    killed_build(project, "3")
    with project.opened() as opened:
        (status,) = opened.searcher.status()
    assert (status.state, project.store.current_id()) == ("empty", None)
    assert project.build().stage == "complete"
