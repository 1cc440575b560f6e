"""The promise to follow a repository: kept, broken by death or failure, and taken back."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from codeintel_rev.io.following import FAILED_BUILDS, FILE, Following, give_up, unfollowed

FOLLOWER = """
import sys, signal
from pathlib import Path
from codeintel_rev.io.following import Following
following = Following(Path(sys.argv[1]))
following.begin()
print("begun", flush=True)
signal.pause()
"""


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def code(shard: Path) -> str:
    limit = unfollowed(shard)
    return limit.code if limit else ""


def test_nobody_promised_anything(shard: Path) -> None:
    assert unfollowed(shard) is None


def test_a_promise_holds_until_it_is_taken_back(shard: Path) -> None:
    following = Following(shard)
    following.begin()
    assert unfollowed(shard) is None
    following.end()
    assert unfollowed(shard) is None
    assert not (shard / FILE).exists()


def test_a_killed_watcher_is_told_until_another_follows(shard: Path) -> None:
    process = subprocess.Popen((sys.executable, "-c", FOLLOWER, str(shard)), stdout=subprocess.PIPE)
    assert process.stdout
    with process:
        assert process.stdout.readline() == b"begun\n"
        assert code(shard) == ""
        process.send_signal(signal.SIGKILL)
    assert code(shard) == "watch-died"
    another = Following(shard)
    another.begin()
    assert code(shard) == ""
    another.end()


def test_failures_one_after_the_other_are_told_with_the_reason(shard: Path) -> None:
    following = Following(shard)
    following.begin()
    for _ in range(FAILED_BUILDS - 1):
        following.failed("git failed: index file corrupt.", "Repair it.")
    assert code(shard) == ""
    following.succeeded()
    for _ in range(FAILED_BUILDS):
        assert code(shard) == ""
        following.failed("git failed: index file corrupt.", "Repair it.")
    limit = unfollowed(shard)
    assert limit
    assert (limit.code, limit.action) == ("watch-failing", "Repair it.")
    assert limit.detail == "the last 3 updates of shop failed: git failed: index file corrupt."
    following.succeeded()
    assert code(shard) == ""
    following.end()


def test_a_second_watcher_takes_over_when_the_first_is_gone(shard: Path) -> None:
    first, second = Following(shard), Following(shard)
    first.begin()
    second.begin()
    second.end()
    assert (shard / FILE).exists()
    first.end()
    second.begin()
    assert (shard / FILE).exists()
    second.end()


def test_one_that_never_began_is_told(shard: Path) -> None:
    give_up(shard)
    assert code(shard) == "watch-died"


def test_garbage_promises_nothing(shard: Path) -> None:
    (shard / FILE).write_bytes(b'{"failures": []}')
    assert unfollowed(shard) is None
