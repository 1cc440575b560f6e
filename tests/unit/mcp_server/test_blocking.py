"""The one place where async meets plain functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from codeintel_rev.errors import DeadlineExceeded
from codeintel_rev.mcp_server.blocking import Blocking


@pytest.fixture
def one_thread() -> Iterator[Blocking]:
    with ThreadPoolExecutor(1) as executor:
        yield Blocking(executor)


async def test_work_is_told_how_long_it_has(one_thread: Blocking) -> None:
    assert 900 < await one_thread.run(lambda left: left, 1000) <= 1000


async def test_work_that_overruns_is_given_up(one_thread: Blocking) -> None:
    """F25: the caller gets its answer within the budget and a tenth."""
    release = threading.Event()
    with pytest.raises(DeadlineExceeded, match="no answer within 50 ms"):
        await one_thread.run(lambda _: release.wait(10), 50)
    release.set()


async def test_abandoned_work_keeps_its_thread(one_thread: Blocking) -> None:
    """F30: work that was given up still counts against what may run at once."""
    release = threading.Event()
    with pytest.raises(DeadlineExceeded):
        await one_thread.run(lambda _: release.wait(10), 20)
    with pytest.raises(DeadlineExceeded):
        await one_thread.run(lambda _: "ran", 50)
    release.set()
    assert await one_thread.run(lambda _: "ran", 5000) == "ran"


async def test_cancelled_work_that_had_not_started_never_runs(one_thread: Blocking) -> None:
    """F30: a client that hangs up takes its queued work with it."""
    release, entered, ran = threading.Event(), threading.Event(), threading.Event()

    def hold(_: float) -> bool:
        entered.set()
        return release.wait(10)

    holding = asyncio.create_task(one_thread.run(hold, 9000))
    await asyncio.to_thread(entered.wait, 5)
    queued = asyncio.create_task(one_thread.run(lambda _: ran.set(), 9000))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    release.set()
    await holding
    await one_thread.run(lambda _: None, 5000)
    assert not ran.is_set()
