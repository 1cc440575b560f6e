from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from multiprocessing import Pipe
from pathlib import Path

import pytest

from codeintel_rev.errors import ParseFailed
from codeintel_rev.indexing import parse_worker
from codeintel_rev.indexing.chunking import ParsedFile, chunk_by_lines, chunk_file
from codeintel_rev.indexing.parse_pool import CRASH, MEMORY, TIMEOUT, ParsePool, _Job, _Worker
from codeintel_rev.types import Role, SourceFile
from tests.language_samples import SAMPLES

# Takes the Python grammar's query minutes: time grows with the square of a flat run of brackets.
HANGS = "(" * 400_000


def source(path: str, text: str, language: str = "python") -> SourceFile:
    return SourceFile(path, language, Role.CODE, len(text), "", "utf-8", text)


def real_files(copies: int = 1) -> list[SourceFile]:
    return [source(f"{copy}/{name}", text, name) for copy in range(copies) for name, text in SAMPLES.items()]


def parsed(files: Iterable[SourceFile], timeout_s: float = 30.0, memory_mb: int = 2048) -> list[ParsedFile]:
    with ParsePool("r", 60, 2, timeout_s, memory_mb) as pool:
        return list(pool.parse(files))


class StoppingPool(ParsePool):
    """Stops a worker just before it is sent its files: they are never read."""

    def _send(self, worker: _Worker, batch: list[_Job], done: dict[int, ParsedFile]) -> None:
        worker.process.send_signal(signal.SIGSTOP)
        super()._send(worker, batch, done)


class KillingPool(ParsePool):
    """Kills the first `kills` workers that are sent files."""

    kills = 0

    def _send(self, worker: _Worker, batch: list[_Job], done: dict[int, ParsedFile]) -> None:
        if self.kills:
            self.kills -= 1
            worker.process.kill()
            worker.pipe.poll(None)
        super()._send(worker, batch, done)


def test_the_pool_gives_what_chunking_gives_in_order() -> None:
    files = real_files(copies=5)

    assert parsed(files) == [chunk_file("r", file, 60) for file in files]


def test_no_files_give_nothing() -> None:
    assert parsed([]) == []


def test_a_file_that_hangs_is_cut_by_lines_and_its_neighbours_are_not() -> None:
    """F09, T19: the worker is killed after the file's own wall time."""
    before, hanging, after = source("a.py", "a = 1\n"), source("b.py", HANGS), source("c.py", "c = 1\n")

    found = parsed([before, hanging, after], timeout_s=1.0)

    assert found == [chunk_file("r", before, 60), chunk_by_lines("r", hanging, 60, TIMEOUT), chunk_file("r", after, 60)]


def test_a_stopped_worker_is_a_timeout() -> None:
    with StoppingPool("r", 60, 1, 0.2, 2048) as pool:
        found = list(pool.parse([source("a.py", "a = 1\n"), source("b.py", "b = 1\n")]))

    assert [file.note for file in found] == [TIMEOUT, TIMEOUT]


def test_a_stopped_worker_does_not_block_the_sending_of_a_large_file() -> None:
    with StoppingPool("r", 60, 1, 0.2, 2048) as pool:
        found = list(pool.parse([source("a.py", "a = 1\n" * 300_000)]))

    assert [file.note for file in found] == [TIMEOUT]


def test_a_worker_killed_from_outside_costs_no_file_its_syntax() -> None:
    """F09: the kernel's memory killer may choose the worker that is at an innocent file."""
    files = real_files()
    pool = KillingPool("r", 60, 1, 30.0, 2048)
    pool.kills = 1

    with pool:
        assert list(pool.parse(files)) == [chunk_file("r", file, 60) for file in files]


def test_a_file_that_crashes_its_worker_twice_is_cut_by_lines() -> None:
    pool = KillingPool("r", 60, 1, 30.0, 2048)
    pool.kills = 2

    with pool:
        found = list(pool.parse(real_files()))

    assert [file.note for file in found] == [CRASH] + [""] * (len(SAMPLES) - 1)


def test_a_file_that_exhausts_memory_is_cut_by_lines() -> None:
    """F09: RLIMIT_AS ends the worker, not the machine."""
    small, large = source("a.py", "a = 1\n"), source("b.py", "f(a, b)\n" * 200_000)

    found = parsed([small, large], memory_mb=128)

    assert [file.note for file in found] == ["", MEMORY]


def test_files_are_read_only_a_bounded_number_ahead() -> None:
    read = 0

    def files() -> Iterator[SourceFile]:
        nonlocal read
        for index in range(2000):
            read += 1
            yield source(f"{index}.py", "a = 1\n")

    with ParsePool("r", 60, 1, 30.0, 2048) as pool:
        next(iter(pool.parse(files())))

    assert read <= 5 * 16


def test_a_worker_that_cannot_start_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with (
        pytest.raises(ParseFailed, match="parse worker did not start: /bin/false ended with 1"),
        ParsePool("r", 60, 1, 1.0, 256) as pool,
    ):
        list(pool.parse([source("a.py", "a = 1\n")]))


def test_modules_in_the_current_directory_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`codeintel index .` in a hostile repository must not run its code."""
    (tmp_path / "numpy.py").write_text("raise SystemExit('owned')")
    monkeypatch.chdir(tmp_path)

    assert [file.note for file in parsed([source("a.py", "a = 1\n")])] == [""]


def test_leaving_the_pool_ends_its_workers() -> None:
    with ParsePool("r", 60, 2, 30.0, 2048) as pool:
        processes = [worker.process for worker in pool._workers]

    assert all(process.poll() is not None for process in processes)


def test_a_worker_ends_when_its_pool_is_gone() -> None:
    ours, theirs = Pipe()
    command = [sys.executable, "-m", parse_worker.__name__, str(theirs.fileno()), "r", "60", "5", "2048"]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    ours.recv()

    ours.close()

    assert process.wait(timeout=30) == 0
