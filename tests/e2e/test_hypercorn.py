"""A real server: Hypercorn with two workers in a child process, asked over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

TESTS = Path(__file__).resolve().parents[1]
SERVE = (
    "import sys; from codeintel_rev.app.serve import serve; from codeintel_rev.config.settings import load_settings; "
    "sys.exit(serve(load_settings(), application='fake_asgi:app'))"
)
STDIO = (
    "from codeintel_rev.app.stdio import serve_stdio; from codeintel_rev.config.settings import load_settings; "
    "from fakes import open_fakes; serve_stdio(load_settings(), open_fakes)"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, **settings: object) -> dict[str, str]:
    named = {f"CODEINTEL_{name.upper()}": str(value) for name, value in settings.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODEINTEL_")}
    modules = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    return {**kept, **named, "PYTHONPATH": modules, "CODEINTEL_PATHS__DATA_DIR": str(folder / "data")}


def start(folder: Path, **settings: object) -> subprocess.Popen[bytes]:
    """Start a server of its own in a new session, so that only what the test signals is signalled."""
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            (sys.executable, "-c", SERVE),
            env=environment(folder, **settings),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_until_ready(base: str, server: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up and server.poll() is None:
        try:
            if httpx.get(f"{base}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("the server did not become ready")


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        raise


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    port = free_port()
    server = start(folder, server__port=port)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server)


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_real_client_lists_and_calls_tools_over_http(base: str, mode: str) -> None:
    """Issue 1, shown by: initialize, list, call, on both live revisions of the protocol."""
    async with Client(f"{base}/mcp", mode=mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("semantic_search", {"query": "charge card"})
    assert names == ["semantic_search", "search_text", "open_file", "list_paths", "index_status", "answer"]
    assert result.structured_content["hits"][0]["path"] == "src/pay.py"


async def test_a_client_without_affinity_is_served_by_any_worker(base: str) -> None:
    """Stateless HTTP: each call may reach another worker, on the old wire too."""
    async with Client(f"{base}/mcp", mode="legacy") as client:
        results = [await client.call_tool("index_status", {}) for _ in range(12)]
    assert not any(result.is_error for result in results)


async def test_the_same_tools_answer_over_stdio(tmp_path: Path) -> None:
    process = StdioServerParameters(
        command=sys.executable, args=["-c", STDIO], env=environment(tmp_path), cwd=str(tmp_path)
    )
    async with Client(stdio_client(process)) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("open_file", {"repo": "shop", "path": "README.md"})
    assert len(names) == 6
    assert "Sells things." in result.content[0].text


def test_an_answer_arrives_while_it_is_made(base: str, tmp_path: Path) -> None:
    """Answers §2.1: nothing between the answer and the reader holds events back."""
    with httpx.stream("POST", f"{base}/answer", json={"question": f"gate {tmp_path}"}) as reply:
        lines = reply.iter_lines()
        heard = [line for line in (next(lines) for _ in range(9)) if line.startswith("event:")]
        (tmp_path / "open").touch()
        rest = [line for line in lines if line.startswith("event:")]
    assert heard == ["event: answer.created", "event: stage"]
    assert rest[-1] == "event: answer.completed"


def test_who_hangs_up_cancels_an_answer(base: str, tmp_path: Path) -> None:
    """Answers §2.5: a closed socket is noticed although there is nothing to send."""

    def cancelled() -> float:
        text = httpx.get(f"{base}/metrics").text
        wanted = 'codeintel_answers_total{mode="none",status="cancelled"}'
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted))

    before = cancelled()
    with httpx.stream("POST", f"{base}/answer", json={"question": f"gate {tmp_path}"}) as reply:
        next(reply.iter_lines())
    give_up = time.monotonic() + 30
    while cancelled() == before and time.monotonic() < give_up:
        time.sleep(0.05)
    (tmp_path / "open").touch()
    assert cancelled() == before + 1


def test_metrics_are_summed_over_the_workers(base: str) -> None:
    """C48, trap T7: one scrape shows the requests of both workers."""

    def answered() -> float:
        text = httpx.get(f"{base}/metrics").text
        wanted = 'codeintel_requests_total{face="http",operation="/repos",outcome="200"}'
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(wanted))

    before = answered()
    for _ in range(20):
        httpx.get(f"{base}/repos").raise_for_status()
    assert answered() - before == 20


def test_metrics_carry_no_process_ids(base: str) -> None:
    """Trap T7 b: a gauge that keeps every process apart grows without bound."""
    assert "pid=" not in httpx.get(f"{base}/metrics").text


@pytest.mark.parametrize("size", [300_000, 5 * 1024 * 1024])
def test_a_large_body_gets_an_answer_and_not_a_reset(base: str, size: int) -> None:
    """F33, trap T5."""
    statuses = {
        httpx.post(f"{base}/mcp", content=b" " * size, headers={"content-type": "application/json"}).status_code
        for _ in range(10)
    }
    assert statuses <= {400, 406, 413}


def test_operators_have_a_port_of_their_own(tmp_path: Path) -> None:
    """S09: the public port knows no probe, the operator's port knows nothing else."""
    port, ops_port = free_port(), free_port()
    server = start(tmp_path, server__port=port, server__ops_port=ops_port, server__workers=1)
    try:
        wait_until_ready(f"http://127.0.0.1:{ops_port}", server)
        public = {path: httpx.get(f"http://127.0.0.1:{port}{path}").status_code for path in ("/readyz", "/repos")}
        ops = {path: httpx.get(f"http://127.0.0.1:{ops_port}{path}").status_code for path in ("/metrics", "/repos")}
    finally:
        stop(server)
    assert (public, ops) == ({"/readyz": 404, "/repos": 200}, {"/metrics": 200, "/repos": 404})


def test_sigterm_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    """F35, trap T1: with two workers, the idle one must not take the busy one down with it."""
    port = free_port()
    server = start(tmp_path, server__port=port, server__graceful_timeout_s=30)
    answers: list[httpx.Response] = []
    body = {"query": f"gate {tmp_path}", "time_budget_ms": 25_000}
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(f"http://127.0.0.1:{port}/search", json=body, timeout=30))
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", server)
        asking.start()
        wait_for((tmp_path / "entered").exists)
        server.terminate()
        # The idle worker drains as it ends, and only then does the master signal the busy one.
        wait_for(lambda: (tmp_path / "server.log").read_text().count("draining") == 2)
        (tmp_path / "open").touch()
        asking.join(20)
    finally:
        stop(server)
    assert [answer.status_code for answer in answers] == [200]
    assert server.returncode == 0


def wait_for(happened: object) -> None:
    give_up = time.monotonic() + 20
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)


def test_a_port_in_use_is_one_line_that_names_the_key(tmp_path: Path) -> None:
    """F45."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        server = start(tmp_path, server__port=holder.getsockname()[1])
        code = server.wait(20)
    log = (tmp_path / "server.log").read_text()
    assert code != 0
    assert "server.port" in log


def test_unexpected_failures_do_not_reach_the_caller(base: str) -> None:
    """Error contract: a problem document without the exception's text, and the traceback in the log only."""
    answer = httpx.post(f"{base}/search", json={"query": "boom"})
    assert (answer.status_code, json.loads(answer.text)["type"]) == (500, "urn:codeintel:problem:internal")
    assert "secret detail" not in answer.text
