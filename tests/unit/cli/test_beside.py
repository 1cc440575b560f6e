"""The process beside the server, by real processes: it ends with the server, and its death is no secret."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from codeintel_rev.cli.beside import running

SERVER = """
import signal, threading
from codeintel_rev.cli import beside
child = beside._Child(("watch",), lambda: None)
threading.Thread(target=child.run).start()
while not child._process:
    pass
print(child._process.pid, flush=True)
signal.pause()
"""


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> Path:
    """Put a program in Python's place that notes its process id and does `then`; return where it notes it."""
    script = folder / "program"
    script.write_text(f"#!/bin/sh\necho $$ >> {folder}/started\n{then}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    (folder / "started").touch()
    return folder / "started"


def wait_until(happened: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.01)


def is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_it_ends_with_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = program(tmp_path, monkeypatch, "exec sleep 100")
    with running("watch", lost=lambda: None):
        wait_until(started.read_text)
        pid = started.read_text()
        assert is_running(pid)
    assert not is_running(pid)


def test_it_ends_with_a_process_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left that builds for a server that is gone."""
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(tmp_path))
    server = subprocess.Popen((sys.executable, "-c", SERVER), stdout=subprocess.PIPE, text=True)
    assert server.stdout
    with server:
        pid = server.stdout.readline().strip()
        assert is_running(pid)
        server.kill()
    wait_until(lambda: not is_running(pid))


def test_its_death_is_told_and_it_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started = program(tmp_path, monkeypatch, "exit 1")
    told = ""
    with running("watch", lost=lambda: None):
        while "no longer followed" not in told:
            told += capfd.readouterr().err
    assert "codeintel watch ended with 1; it is started once more." in told
    assert len(started.read_text().split()) == 2


@pytest.mark.parametrize("code", [0, 2, 3])
def test_it_is_not_started_again_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], code: int
) -> None:
    """Ended by a signal, or refused for a reason it told itself."""
    started = program(tmp_path, monkeypatch, f"exit {code}")
    with running("watch", lost=lambda: None):
        wait_until(started.read_text)
    assert len(started.read_text().split()) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("then", "lost"), [("exit 1", True), ("exit 3", True), ("exit 0", False)])
def test_who_asks_learns_that_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, lost: bool
) -> None:
    """Once, when it is not started again; one that a signal ended is not lost."""
    program(tmp_path, monkeypatch, then)
    told = threading.Event()
    with running("watch", lost=told.set):
        if lost:
            assert told.wait(30)
        else:
            wait_until((tmp_path / "started").read_text)
    assert told.is_set() is lost
