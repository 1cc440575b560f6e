"""Settings seen from outside: each changes what its row in docs/settings.md says. The rest is seen in its own suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fakes import open_fakes
from projects import Project, new_project

from codeintel_rev.app.main import create_app
from codeintel_rev.app.serve import hypercorn_config
from codeintel_rev.config.settings import Settings
from codeintel_rev.io.token_index import TOKENS, token_directory
from codeintel_rev.xtr.storage import read_manifest
from tests import tiny_models

HANGS = ("[" * 50 + "\n") * 20_000
STEPS = {
    f"pkg/m{n:02}.py": f'def step_{n}(value):\n    """Do step {n} of the work."""\n    return value + {n}\n'
    for n in range(24)
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Project:
    """Two dozen small files, built; to be read only."""
    project = new_project(tmp_path_factory.mktemp("steps"), models_dir, STEPS)
    project.build()
    return project


@asynccontextmanager
async def http(**sections: Mapping[str, object]) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(**sections), open_fakes)  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787") as client:
            yield client


@pytest.mark.parametrize(("timeout_s", "reason"), [(0.5, "parse-timeout"), (30.0, "")])
def test_chunking_parse_timeout_s(tmp_path: Path, timeout_s: float, reason: str) -> None:
    """F09: a file that takes too long is cut by lines, and says so."""
    text = HANGS if reason else "x = [1]\n"
    project = new_project(tmp_path, tmp_path / "models", {"slow.js": text}).having(
        embedding={"provider": "none"}, chunking={"parse_timeout_s": timeout_s, "workers": 1}
    )
    project.build()
    assert (project.files["slow.js"].status, project.files["slow.js"].reason) == ("indexed", reason)


def test_chunking_parse_memory_mb(tmp_path: Path) -> None:
    """F09: so is a file that needs too much memory."""
    big = "f(a, b)\n" * 250_000
    project = new_project(tmp_path, tmp_path / "models", {"big.py": big}).having(
        embedding={"provider": "none"}, chunking={"parse_memory_mb": 256, "parse_timeout_s": 60.0, "workers": 1}
    )
    project.build()
    assert project.files["big.py"].reason == "parse-memory"


def test_retrieval_candidates(steps: Project) -> None:
    def deepest(candidates: int) -> int:
        result = steps.having(retrieval={"candidates": candidates}).search("do step 7 of the work", limit=10)
        return max(part.rank or 0 for hit in result.hits for part in hit.contributions.values())

    assert deepest(10) <= 10 < deepest(200)


def test_retrieval_channel_deadline_ms(steps: Project) -> None:
    result = steps.having(retrieval={"channel_deadline_ms": 1234}).search("step_7")
    assert {stage.budget_ms for stage in result.stages if stage.name in ("lexical", "symbols")} == {1234}


async def test_retrieval_request_deadline_ms(tmp_path: Path) -> None:
    """S18: however much time the caller allows."""
    async with http(retrieval={"request_deadline_ms": 50}) as client:
        answer = await client.post("/search", json={"query": f"gate {tmp_path}", "time_budget_ms": 60_000})
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:codeintel:problem:deadline-exceeded")


def test_limits_max_lines(steps: Project) -> None:
    with steps.having(limits={"max_lines": 2}).opened() as opened:
        lines = opened.navigator.open_file("demo", "pkg/m03.py", 1, None).lines
    assert (lines.end_line, lines.truncated) == (2, True)


@pytest.mark.parametrize(
    ("limits", "body", "detail"),
    [
        ({"query_bytes": 10}, {"query": "elevenbytes"}, "query is 11 bytes, the most is 10."),
        ({"max_results": 5}, {"query": "card", "limit": 6}, "limit reaches 6, the most is 5."),
        ({"json_depth": 2}, {"query": "card", "paths": [[[]]]}, "the body is nested deeper than 2."),
    ],
)
async def test_limits_of_a_request(limits: dict[str, int], body: dict[str, object], detail: str) -> None:
    """S18: what one byte or row below the limit is served as."""
    async with http(limits=limits) as client:
        refused = await client.post("/search", json=body)
    async with http() as client:
        served = await client.post("/search", json={"query": "card", "limit": 6})
    assert (refused.status_code, refused.json()["detail"], served.status_code) == (400, detail, 200)


async def test_server_allowed_origins() -> None:
    """S01."""
    origin = {"origin": "https://code.example.com"}
    async with http(server={"allowed_origins": ["https://code.example.com"]}) as client:
        named = await client.get("/repos", headers=origin)
    async with http() as client:
        unnamed = await client.get("/repos", headers=origin)
    assert (named.status_code, unnamed.status_code) == (200, 403)


def test_server_graceful_timeout_s_and_workers() -> None:
    config = hypercorn_config(Settings(server={"graceful_timeout_s": 3.5, "workers": 5}), "app:app")  # type: ignore[arg-type]
    assert (config.graceful_timeout, config.shutdown_timeout, config.workers) == (3.5, 3.5, 5)


def test_xtr_max_doclen(tmp_path: Path) -> None:
    """A wider window holds fewer special tokens for the same text, and makes another index of it."""
    model = str(tiny_models.save_pylate(tmp_path / "tiny"))
    project = new_project(tmp_path, tmp_path / "models", {"m.txt": "open the file " * 12})

    def tokens(max_doclen: int) -> tuple[int, str]:
        sections = {"embedding": {"provider": "none"}, "xtr": {"model": model, "max_doclen": max_doclen}}
        having = project.having(**sections)
        having.build()
        return read_manifest(token_directory(having.directory) / TOKENS).tokens, having.current.token_model

    (own, own_model), (wide, wide_model) = tokens(0), tokens(48)
    assert own > wide
    assert own_model != wide_model
