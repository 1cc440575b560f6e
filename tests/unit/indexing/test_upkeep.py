"""Compactions beside a watcher: when they run, when they give way, and what their end means."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from projects import Project, new_project
from structlog.testing import capture_logs

from codeintel_rev.cli.beside import LEAST_URGENT, compacting
from codeintel_rev.config.settings import Settings
from codeintel_rev.indexing import upkeep as module
from codeintel_rev.indexing.upkeep import BUSY, Upkeep, opens_in
from codeintel_rev.io import vector_update
from codeintel_rev.io.stored_vectors import StoredVectors

FILES = {f"m{n:02}.py": f"def step_{n}(value):\n    return value + {n}\n" for n in range(12)}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class FakeProcess:
    """A compaction that ends with `code` when told to."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.terminated = False

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.terminated, self.code = True, -15

    def kill(self) -> None:
        self.terminate()

    def wait(self, timeout: float | None = None) -> int:
        assert self.code is not None
        return self.code


class Started:
    """Starts fakes and keeps them."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []

    def __call__(self, repo: str) -> FakeProcess:
        self.processes.append(FakeProcess())
        return self.processes[-1]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def project(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """FILES, of which one changed since they were indexed together, as if they were many."""
    monkeypatch.setattr(vector_update, "SMALL", 0)
    project = new_project(tmp_path, models_dir, FILES)
    project.build()
    project.write({"m00.py": "def changed_step():\n    return 1\n"})
    project.build()
    return project


def sizes(project: Project) -> tuple[int, int, int]:
    vectors = StoredVectors.open(project.directory, 384)
    return len(vectors.primary), len(vectors.secondary), len(vectors.deleted)


def test_what_is_due_is_compacted_by_a_process_that_takes_no_time_from_others(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(project.data_dir))
    urgency: list[int] = []

    def noted(repo: str) -> subprocess.Popen[bytes]:
        process = compacting(repo)
        urgency.append(os.getpriority(os.PRIO_PROCESS, process.pid))
        assert process.wait(60) == 0
        return process

    upkeep = Upkeep(project.settings(), noted)
    assert sizes(project) == (12, 1, 1)
    upkeep.look("demo")
    upkeep.go_on()
    upkeep.go_on()
    assert (sizes(project), urgency) == ((12, 0, 0), [LEAST_URGENT])
    assert upkeep.next_at == float("inf")


def test_status_says_that_it_is_due(project: Project) -> None:
    with project.opened() as opened:
        project.search("changed_step")
        told = {shard.compaction_due for shard in opened.searcher.status()}
    assert told == {"1 new vectors beside 12"}


def test_nothing_due_starts_nothing(project: Project) -> None:
    project.write({"m00.py": FILES["m00.py"]})
    project.build()
    started = Started()
    upkeep = Upkeep(project.settings(), started)
    upkeep.look("demo")
    upkeep.go_on()
    assert (started.processes, upkeep.next_at) == ([], float("inf"))


def test_one_that_gives_way_is_taken_up_again(project: Project, clock: Clock) -> None:
    started = Started()
    upkeep = Upkeep(project.settings(), started)
    upkeep.look("demo")
    upkeep.go_on()
    upkeep.give_way("other")
    assert not started.processes[0].terminated
    upkeep.give_way("demo")
    assert started.processes[0].terminated
    upkeep.go_on()
    assert len(started.processes) == 2


@pytest.mark.parametrize(("code", "again_s"), [(1, module.AGAIN_S), (-9, module.AGAIN_S), (BUSY, module.BUSY_S)])
def test_one_that_fails_is_tried_again_later(project: Project, clock: Clock, code: int, again_s: float) -> None:
    before, started = project.current.generation, Started()
    upkeep = Upkeep(project.settings(), started)
    with capture_logs() as logs:
        upkeep.look("demo")
        upkeep.go_on()
        started.processes[0].code = code
        upkeep.go_on()
        upkeep.look("demo")
        upkeep.go_on()
    assert (len(started.processes), upkeep.next_at) == (1, again_s)
    assert [log["code"] for log in logs if log["log_level"] == "warning"] == [code] * (code != BUSY)
    assert project.current.generation == before
    clock.now = again_s
    upkeep.go_on()
    assert len(started.processes) == 2


def test_nothing_runs_outside_of_the_window(project: Project, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started()
    monkeypatch.setattr(module, "opens_in", lambda window, _: {"02:00-05:00": 7200.0, "": 0.0}[window])
    upkeep = Upkeep(project.having(index={"compact_window": "02:00-05:00"}).settings(), started)
    upkeep.look("demo")
    upkeep.go_on()
    assert (started.processes, upkeep.next_at) == ([], 7200.0)


@pytest.mark.parametrize(
    ("window", "clock", "seconds"),
    [
        ("", "12:00:00", 0),
        ("02:00-05:00", "02:00:00", 0),
        ("02:00-05:00", "04:59:59", 0),
        ("02:00-05:00", "05:00:00", 21 * 3600),
        ("02:00-05:00", "01:59:30", 30),
        ("22:30-01:00", "23:59:59", 0),
        ("22:30-01:00", "00:59:00", 0),
        ("22:30-01:00", "01:00:00", 21.5 * 3600),
    ],
)
def test_the_window_is_daily(window: str, clock: str, seconds: float) -> None:
    assert opens_in(window, datetime.fromisoformat(f"2026-03-04T{clock}+00:00")) == seconds


@pytest.mark.parametrize("window", ["2-5", "24:00-01:00", "02:00", "02:00-05:60"])
def test_a_window_that_is_none_is_refused(window: str) -> None:
    with pytest.raises(ValueError, match="compact_window"):
        Settings.model_validate({"index": {"compact_window": window}})
