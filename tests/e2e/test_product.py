"""As a user: index a real package from the command line, serve it, ask it over every face, change it, go back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import rich
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from test_hypercorn import free_port, stop, wait_until_ready

from codeintel_rev.io import globs
from codeintel_rev.io.registry import Source, register

BIN = Path(sys.executable).parent
PACKAGE = Path(globs.__file__).parent
QUESTIONS = {
    "remove all but the newest generations, except those somebody reads": "generations.py",
    "which repositories are indexed, and where is the work tree of each": "registry.py",
    "split identifiers into words at case, digits and underscores": "code_tokens.py",
}


@dataclass(frozen=True, slots=True)
class Installation:
    """A data folder and a copy of a real package beside it."""

    tree: Path
    data_dir: Path

    def environment(self, **settings: object) -> dict[str, str]:
        named = {f"CODEINTEL_{name.upper()}": str(value) for name, value in settings.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CODEINTEL_")}
        return {**kept, **named, "CODEINTEL_PATHS__DATA_DIR": str(self.data_dir)}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Return a finished command; the first argument is the program."""
        program, *rest = map(str, arguments)
        command = (str(BIN / program), *rest)
        return subprocess.run(
            command, env=self.environment(), cwd=self.data_dir, check=False, capture_output=True, text=True, timeout=100
        )

    def told(self, *arguments: object) -> object:
        """Return what a command that must succeed says in JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def index(self) -> dict[str, object]:
        return self.told("codeintel", "index", self.tree, "--name", "demo")  # type: ignore[return-value]

    @contextmanager
    def serving(self, *verb: str, **settings: object) -> Iterator[str]:
        """Yield the address of a server, ready or not, for the block."""
        port = free_port()
        with (self.data_dir / "server.log").open("ab") as log:
            server = subprocess.Popen(
                (str(BIN / "codeintel"), *verb),
                env=self.environment(server__port=port, server__poll_s=0.2, **settings),
                cwd=self.data_dir,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            if verb == ("serve",):
                wait_until_ready(f"http://127.0.0.1:{port}", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(server)


def install(folder: Path, models_dir: Path, package: Path) -> Installation:
    models_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(package, folder / "tree", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    (folder / "data/models").symlink_to(models_dir)
    return Installation(folder / "tree", folder / "data")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Installation:
    """A package of real code, indexed from the command line; to be read only."""
    installed = install(tmp_path_factory.mktemp("product"), models_dir, PACKAGE)
    assert installed.index()["stage"] == "complete"
    return installed


@pytest.fixture(scope="module")
def base(installed: Installation) -> Iterator[str]:
    """The address of a server of `installed` with two workers."""
    with installed.serving("serve") as address:
        yield address


@pytest.fixture
def changing(tmp_path: Path, installed: Installation) -> Installation:
    """A copy of `installed`, with its history, to be changed."""
    copy = Installation(tmp_path / "tree", tmp_path / "data")
    shutil.copytree(installed.tree, copy.tree)
    shutil.copytree(installed.data_dir, copy.data_dir, symlinks=True)
    register(copy.data_dir, Source("demo", copy.tree))
    return copy


def wait_until(happened: Callable[[], bool], seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


async def test_an_agent_finds_the_right_file_over_http(base: str) -> None:
    """Issue 1, shown by: initialize, list, call against two workers with a real index."""
    async with Client(f"{base}/mcp") as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        answers = [await client.call_tool("semantic_search", {"query": query}) for query in QUESTIONS]
    assert names == ["semantic_search", "search_text", "open_file", "list_paths", "index_status", "answer"]
    assert [answer.structured_content["hits"][0]["path"] for answer in answers] == list(QUESTIONS.values())
    assert all(answer.structured_content["limits"] == [] for answer in answers)


async def test_an_agent_follows_a_hit_to_its_file(base: str, installed: Installation) -> None:
    async with Client(f"{base}/mcp") as client:
        found = await client.call_tool("search_text", {"pattern": "def choose_family("})
        (match,) = found.structured_content["matches"]
        place = {"repo": match["repo"], "path": match["path"], "start_line": match["line"], "end_line": match["line"]}
        read = await client.call_tool("open_file", place)
        listed = await client.call_tool("list_paths", {"repo": "demo"})
    lines = (installed.tree / match["path"]).read_text().splitlines()
    assert read.structured_content["text"] == lines[match["line"] - 1]
    assert match["path"] in listed.structured_content["paths"]


async def test_the_status_is_that_of_the_index(base: str, installed: Installation) -> None:
    (row, *_) = installed.told("indexctl", "ls", "demo")  # type: ignore[misc]
    async with Client(f"{base}/mcp") as client:
        (repo,) = (await client.call_tool("index_status", {})).structured_content["repos"]
    assert (repo["repo"], repo["state"], repo["vector_coverage"]) == ("demo", "ready", 1.0)
    assert (repo["generation"], repo["counts"]) == (row["generation"], row["counts"])


async def test_the_printed_stdio_configuration_gives_the_same_answers_from_anywhere(
    base: str, installed: Installation, tmp_path: Path
) -> None:
    """What `serve` tells a newcomer to paste works as it stands, in whatever folder the agent starts it."""
    log = (installed.data_dir / "server.log").read_text()
    printed = json.loads(log.partition("over stdio")[2].partition("\n")[0])["mcpServers"]["codeintel"]
    tested = {"PYTHONPATH": str(PACKAGE.parents[1])}  # Another tree may be the installed one.
    process = StdioServerParameters(**{**printed, "env": {**printed.get("env", {}), **tested}, "cwd": str(tmp_path)})
    question = {"query": next(iter(QUESTIONS))}
    async with Client(stdio_client(process)) as client:
        over_stdio = (await client.call_tool("semantic_search", question)).structured_content
    async with httpx.AsyncClient() as client:
        over_http = (await client.post(f"{base}/search", json=question)).raise_for_status().json()
    assert over_stdio["hits"] == over_http["hits"]


def test_the_operators_routes_answer(base: str) -> None:
    statuses = {path: httpx.get(f"{base}{path}").status_code for path in ("/livez", "/startupz", "/readyz", "/repos")}
    assert set(statuses.values()) == {200}
    metrics = httpx.get(f"{base}/metrics").text
    assert 'codeintel_index_rows{component="vectors"}' in metrics
    assert "codeintel_vector_coverage 1.0" in metrics


def test_a_file_is_read_over_http(base: str, installed: Installation) -> None:
    answer = httpx.get(f"{base}/files/demo/globs.py", params={"end_line": 2}).raise_for_status().json()
    assert answer["text"] == "\n".join((installed.tree / "globs.py").read_text().splitlines()[:2])


def test_a_scope_reaches_every_channel(base: str) -> None:
    body = {"query": next(iter(QUESTIONS)), "paths": ["globs.py", "g*.py", "!generation*"], "limit": 20}
    hits = httpx.post(f"{base}/search", json=body).raise_for_status().json()["hits"]
    assert {hit["path"] for hit in hits} == {"globs.py", "git.py"}


def test_equal_questions_get_equal_bytes(base: str) -> None:
    """Whichever worker answers: same generation, same query, same hits."""
    body = {"query": "files locked by a reader", "limit": 10}
    answers = [httpx.post(f"{base}/search", json=body).raise_for_status().json() for _ in range(8)]
    assert len({json.dumps(answer["hits"]) for answer in answers}) == 1


def test_a_file_of_questions_is_measured(installed: Installation, tmp_path: Path) -> None:
    asked, out = tmp_path / "f.jsonl", tmp_path / "run.jsonl"
    lines = [{"qid": path, "query": query, "repo": "demo"} for query, path in QUESTIONS.items()]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = installed.run("codeintel", "search", "--queries", asked, "--out", out)
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.returncode == 0, done.stderr
    assert [(answer["qid"], answer["hits"][0]["path"]) for answer in answers] == [
        (path, path) for path in QUESTIONS.values()
    ]


def test_a_question_is_answered_on_the_terminal(installed: Installation) -> None:
    done = installed.run("codeintel", "search", "PathMatcher", "--limit", "1")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"demo: globs\.py:\d+-\d+  class PathMatcher", done.stdout)


def test_a_question_without_an_index_fails_with_what_to_do(tmp_path: Path, models_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/models").symlink_to(models_dir)
    done = Installation(tmp_path, tmp_path / "data").run("codeintel", "search", "anything")
    assert (done.returncode, done.stdout) == (3, "")
    assert "codeintel index PATH" in done.stderr


def test_a_new_index_is_served_without_a_failed_request(changing: Installation) -> None:
    """Hot swap: while both workers move to the new generation no request fails, and no answer mixes two."""
    stopped = threading.Event()
    seen: list[tuple[int, tuple[str, ...]]] = []
    old = changing.told("indexctl", "ls", "demo")[0]["generation"]  # type: ignore[index]

    with changing.serving("serve") as base:

        def ask() -> None:
            while not stopped.is_set():
                answer = httpx.post(f"{base}/search", json={"query": "freshly_minted_function"})
                seen.append((answer.status_code, tuple(answer.json().get("generation", {}).values())))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wait_until(lambda: len(seen) > 5)
            with (changing.tree / "globs.py").open("a") as file:
                file.write("\n\ndef freshly_minted_function():\n    return 'new'\n")
            new = changing.index()["generation"]
            wait_until(lambda: [one for _, one in seen[-40:]] == [(new,)] * 40, 20)
        finally:
            stopped.set()
            asking.join()
        hit = httpx.post(f"{base}/search", json={"query": "freshly_minted_function"}).json()["hits"][0]
    assert {status for status, _ in seen} == {200}
    assert {generations for _, generations in seen} == {(old,), (new,)}
    assert (hit["symbol"], hit["freshness"]) == ("freshly_minted_function", "fresh")


def test_an_operator_checks_goes_back_and_collects(changing: Installation) -> None:
    first = changing.told("indexctl", "ls", "demo")[0]["generation"]  # type: ignore[index]
    (changing.tree / "extra.py").write_text("def extra_function():\n    return 1\n")
    second = changing.index()["generation"]
    assert changing.told("indexctl", "verify", "demo") == {"generation": second, "problems": []}
    assert changing.told("indexctl", "rollback", "demo", "--generation", first) == {"current": first}
    back = changing.told("codeintel", "search", "extra_function")
    assert "extra.py" not in [hit["path"] for hit in back["hits"]]  # type: ignore[call-overload,index]
    third = changing.index()["generation"]
    changing.told("indexctl", "gc", "demo", "--keep", "1")
    kept = [row["generation"] for row in changing.told("indexctl", "ls", "demo")]  # type: ignore[attr-defined]
    assert third in kept
    assert second not in kept


def test_a_damaged_index_is_found_by_verify(changing: Installation) -> None:
    """F13: the exit code is what a script sees."""
    current = changing.told("indexctl", "ls", "demo")[0]["generation"]  # type: ignore[index]
    damaged = changing.data_dir / "repos/demo/generations" / current / "faiss/primary.faiss"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    done = changing.run("indexctl", "verify", "demo")
    assert done.returncode == 1
    assert "primary.faiss" in done.stderr


def test_questions_are_answered_while_the_index_grows(tmp_path: Path, models_dir: Path) -> None:
    """`codeintel up PATH`: words find lines before there are vectors, and the answer says so."""
    growing = install(tmp_path, models_dir, Path(rich.__file__).parent)
    answers: list[dict[str, object]] = []
    with growing.serving("up", str(growing.tree), "--name", "demo", embedding__threads=1) as base:

        def answered() -> bool:
            try:
                reply = httpx.post(f"{base}/search", json={"query": "render_lines"})
            except httpx.TransportError:
                return False
            answers.extend([reply.json()] if reply.status_code == 200 else [])
            return bool(answers)

        wait_until(answered)
        (repo,) = httpx.get(f"{base}/repos").json()["repos"]
        wait_until(lambda: httpx.get(f"{base}/readyz").status_code == 200, 5)
    assert answers[0]["hits"][0]["symbol"].endswith("render_lines")  # type: ignore[index]
    assert [limit["code"] for limit in answers[0]["limits"]] == ["vectors-partial"]  # type: ignore[attr-defined]
    assert (repo["state"], repo["building"]["stage"], repo["vector_coverage"] < 1) == ("building", "encode", True)


def test_what_is_saved_is_found_and_the_end_leaves_no_process(tmp_path: Path, models_dir: Path) -> None:
    """`codeintel up PATH` follows the tree: saved and then found, over HTTP, with its freshness."""
    shop = install(tmp_path, models_dir, PACKAGE.parents[1] / "tests/corpus/shop")
    with shop.serving("up", str(shop.tree), "--name", "demo", embedding__provider="none") as base:

        def found() -> bool:
            try:
                hits = httpx.post(f"{base}/search", json={"query": "freshly_minted_function"}).json().get("hits", [])
            except httpx.TransportError:
                return False
            return [(hit["symbol"], hit["freshness"]) for hit in hits[:1]] == [("freshly_minted_function", "fresh")]

        wait_until((shop.data_dir / "repos/demo/CURRENT").exists)
        (shop.tree / "shop/minted.py").write_text("def freshly_minted_function():\n    return 'new'\n")
        wait_until(found)
        followers = processes_with(str(shop.tree))
    assert followers
    wait_until(lambda: not processes_with(str(shop.tree)), 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_watcher_ends_when_told(tmp_path: Path, models_dir: Path, number: signal.Signals) -> None:
    """Without a traceback, with exit code 0, and with all it started."""
    shop = install(tmp_path, models_dir, PACKAGE.parents[1] / "tests/corpus/shop")
    register(shop.data_dir, Source("demo", shop.tree))
    watcher = subprocess.Popen(
        (str(BIN / "codeintel"), "watch"),
        env=shop.environment(embedding__provider="none"),
        cwd=shop.data_dir,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_until((shop.data_dir / "repos/demo/CURRENT").exists)
    finally:
        watcher.send_signal(number)
        told = watcher.communicate(timeout=30)[1]
    assert (watcher.returncode, b"Traceback" in told) == (0, False)


def processes_with(argument: str) -> list[str]:
    """Return the processes one of whose arguments is `argument`."""
    listed = subprocess.run(("ps", "-A", "-ww", "-o", "args="), capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if argument in line.split()]
