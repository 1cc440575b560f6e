"""What a shared store promises, kept by the fake of the tests and by a real Redis server."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from answers import FakeStore

from codeintel_rev.answer.log import Store
from codeintel_rev.errors import SettingsError, StoreUnavailable
from codeintel_rev.io.redis_store import open_store
from codeintel_rev.types import Line

MOST, TTL_S = 3, 30.0
LINES = tuple(Line(seq, "text.delta", f'{{"seq":{seq}}}', is_last=False) for seq in range(4))
END = Line(4, "answer.completed", "{}", is_last=True)
has_client = importlib.util.find_spec("redis") is not None
needs_redis = pytest.mark.skipif(
    not (shutil.which("redis-server") and has_client),
    reason="redis-server (apt-get install redis-server) or redis-py is not installed",
)


@pytest.fixture
def server(tmp_path: Path) -> subprocess.Popen[bytes]:
    """Run a server of our own at `redis.sock`."""
    command = ["redis-server", "--port", "0", "--unixsocket", str(tmp_path / "redis.sock"), "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(tmp_path / "redis.sock")) == 0:
                    break
        yield process  # type: ignore[misc]
        process.send_signal(signal.SIGCONT)
        process.terminate()


@pytest.fixture(params=["fake", pytest.param("redis", marks=needs_redis)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "fake":
        yield FakeStore(asyncio.get_running_loop().time, MOST, TTL_S)
        return
    request.getfixturevalue("server")
    async with open_store(f"unix://{tmp_path}/redis.sock", MOST, TTL_S) as opened:
        yield opened


async def test_lines_come_back_as_they_were_kept(store: Store) -> None:
    for line in LINES[:3]:
        await store.append("a1", line)
    assert await store.lines("a1", -1) == LINES[:3]
    assert await store.lines("a1", 1) == LINES[2:3]
    assert await store.lines("a1", 2) == ()
    assert await store.last("a1") == LINES[2]


async def test_the_last_line_is_known(store: Store) -> None:
    await store.append("a1", END)
    assert await store.last("a1") == END


async def test_nothing_is_known_of_another_answer(store: Store) -> None:
    await store.append("a1", LINES[0])
    assert (await store.lines("a2", -1), await store.last("a2")) == ((), None)


async def test_the_first_lines_make_room(store: Store) -> None:
    for line in LINES:
        await store.append("a1", line)
    assert await store.lines("a1", -1) == LINES[1:]


async def test_a_reader_is_known_for_a_while(store: Store) -> None:
    assert not await store.is_attended("a1")
    await store.attend("a1", 0.05)
    assert await store.is_attended("a1")
    await asyncio.sleep(0.1)
    assert not await store.is_attended("a1")


async def test_a_cancel_reaches_who_listens(store: Store) -> None:
    async with aclosing(store.cancels()) as cancels, asyncio.timeout(5):
        heard = asyncio.ensure_future(anext(cancels))
        while not heard.done():  # Nobody is told when a subscription stands.
            await store.send_cancel("a1")
            await asyncio.wait({heard}, timeout=0.05)
        assert heard.result() == "a1"


@needs_redis
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_server_that_dies_or_hangs_is_told_soon(
    server: subprocess.Popen[bytes], tmp_path: Path, how: signal.Signals
) -> None:
    """F20."""
    async with open_store(f"unix://{tmp_path}/redis.sock", MOST, TTL_S) as store:
        await store.append("a1", LINES[0])
        server.send_signal(how)
        async with asyncio.timeout(5):
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.append("a1", LINES[1])


@pytest.mark.skipif(has_client, reason="redis-py is installed")
async def test_a_missing_client_is_named() -> None:
    with pytest.raises(SettingsError, match=r"pip install 'codeintel-rev\[redis\]'"):
        async with open_store("redis://localhost", MOST, TTL_S):
            pass


@pytest.mark.skipif(not has_client, reason="redis-py is not installed")
async def test_a_wrong_address_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"redis\.url"):
        async with open_store("localhost", MOST, TTL_S):
            pass
