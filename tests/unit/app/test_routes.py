"""The HTTP face over the fakes: routes, guards and problem documents, in process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fakes import FakeSearcher, opened_fakes

from codeintel_rev.app.main import create_app
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.observability.metrics import exposition
from codeintel_rev.retrieval.options import Options

JSON = {"content-type": "application/json"}
PROBLEM_MEMBERS = {"type", "title", "status", "detail", "instance", "retryable", "trace_id"}


@asynccontextmanager
async def http(searcher: FakeSearcher | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(**settings), lambda _: opened_fakes(searcher))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787") as client:
            yield client


async def test_a_search_answers_with_the_envelope() -> None:
    """service.md: the envelope's members, by name."""
    async with http() as client:
        body = (await client.post("/search", json={"query": "charge card", "explain": True})).json()
    assert set(body) == {"hits", "method", "limits", "scope", "generation", "trace_id"}
    assert set(body["method"]) == {"plan", "channels", "stages"}
    assert body["generation"] == {"org/tools": "01", "shop": "01"}


async def test_repositories_and_files_are_found_by_their_address() -> None:
    async with http() as client:
        repos = (await client.get("/repos")).json()["repos"]
        one = (await client.get("/repos/org/tools/status")).json()
        lines = (await client.get("/files/org%2Ftools/lib/retry.go?start_line=2&end_line=2")).json()
    assert [repo["repo"] for repo in repos] == ["org/tools", "shop"]
    assert one["repo"] == "org/tools"
    assert lines["text"] == "func Retry(f func() error) error {"


@pytest.mark.parametrize(
    "path", ["/files/shop/../../etc/passwd", "/files/shop/%2e%2e/x", "/files/shop/%00", "/files/x/y"]
)
async def test_a_file_outside_of_the_index_is_not_found(path: str) -> None:
    """F37: whatever the path, the answer is the one of a file that does not exist."""
    async with http() as client:
        answer = await client.get(path)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "slug"),
    [
        ("POST", "/search", {"headers": {"host": "evil.example"}, "json": {"query": "x"}}, 421, "host-refused"),
        ("POST", "/mcp", {"headers": {"host": "evil.example"}, "json": {}}, 421, "host-refused"),
        ("POST", "/mcp", {"headers": {"host": "127.0.0.1:80evil"}, "json": {}}, 421, "host-refused"),
        ("POST", "/mcp", {"headers": {"host": "127.0.0.1.evil.example"}, "json": {}}, 421, "host-refused"),
        ("POST", "/mcp", {"headers": {"origin": "http://evil.example"}, "json": {}}, 403, "origin-refused"),
        ("POST", "/search", {"headers": {"origin": "null"}, "json": {"query": "x"}}, 403, "origin-refused"),
        ("POST", "/mcp", {"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "unsupported-media-type"),
        (
            "POST",
            "/mcp",
            {"content": b"{}", "headers": {"content-type": "application/json-evil"}},
            415,
            "unsupported-media-type",
        ),
        ("POST", "/search", {"content": b"{}"}, 415, "unsupported-media-type"),
        ("POST", "/search", {"content": b" " * (1024 * 1024 + 1), "headers": JSON}, 413, "too-large"),
        ("POST", "/search", {"content": b"[" * 100_000, "headers": JSON}, 400, "malformed"),
        ("POST", "/mcp", {"content": b'{"a":' * 65 + b"1" + b"}" * 65, "headers": JSON}, 400, "malformed"),
        ("POST", "/search", {"content": b"{", "headers": JSON}, 422, "invalid-argument"),
        ("POST", "/search", {"content": b"\xff\xfe", "headers": JSON}, 422, "invalid-argument"),
        ("POST", "/search", {"json": {"query": "x", "querry": "y"}}, 422, "invalid-argument"),
        ("POST", "/search", {"json": {"query": "x", "limit": 201}}, 400, "invalid-argument"),
        ("POST", "/search", {"content": b'{"query": "\\ud800"}', "headers": JSON}, 422, "invalid-argument"),
        ("POST", "/search", {"json": {"query": " "}}, 400, "invalid-argument"),
        ("POST", "/search", {"json": {"query": "x", "repos": ["secret"]}}, 404, "not-found"),
        ("POST", "/search", {"json": {"query": "boom"}}, 500, "internal"),
        ("GET", "/files/shop/README.md?start_line=0", {}, 422, "invalid-argument"),
        ("GET", "/search", {}, 405, "method-not-allowed"),
        ("GET", "/nothing/here", {}, 404, "not-found"),
        ("GET", "/docs", {}, 404, "not-found"),
    ],
)
async def test_every_refusal_is_a_problem_document(
    method: str, path: str, given: dict[str, Any], status: int, slug: str
) -> None:
    """F33, F36, F41, S01, S07: the status, the slug and all members of RFC 9457 and ours."""
    async with http() as client:
        answer = await client.request(method, path, **given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert set(answer.json()) >= PROBLEM_MEMBERS
    assert answer.json()["type"] == f"urn:codeintel:problem:{slug}"
    assert answer.json()["instance"].endswith(answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"accept": "text/html"}, 406),
        ({"accept": "application/json, text/event-stream", "mcp-protocol-version": "1999-01-01"}, 400),
    ],
)
async def test_the_protocol_refuses_what_it_cannot_speak(headers: dict[str, str], status: int) -> None:
    """F36: Accept and protocol version are the SDK's to check."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with http() as client:
        answer = await client.post("/mcp", json=call, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost:1", "[::1]:8787", "localhost", "code.example"])
async def test_a_host_that_is_allowed_is_served(host: str) -> None:
    """S01: loopback by any name, and what the settings name."""
    async with http(server={"allowed_hosts": ["code.example"]}) as client:
        answer = await client.get("/repos", headers={"host": host})
    assert answer.status_code == 200


async def test_brackets_within_strings_are_no_depth() -> None:
    async with http() as client:
        answer = await client.post("/search", json={"query": "[" * 500 + '\\"{' * 500})
    assert answer.status_code == 200


async def test_a_body_at_the_limit_is_read() -> None:
    """S18: the largest body, and one byte more."""
    body = json.dumps({"query": "x"}).encode()
    async with http(limits={"body_bytes": len(body)}) as client:
        fits = await client.post("/search", content=body, headers=JSON)
        over = await client.post("/search", content=body + b" ", headers=JSON)
    assert (fits.status_code, over.status_code) == (200, 413)


async def test_a_body_that_does_not_tell_its_size_is_bounded_too() -> None:
    """F33: chunked transfer declares no length."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    async with http() as client:
        answer = await client.post("/search", content=endless(), headers=JSON)
    assert answer.status_code == 413


async def test_requests_beyond_the_limit_are_shed_and_probes_are_not(tmp_path: Path) -> None:
    """F34, §0.9: 503 with Retry-After, while /livez answers; a place that becomes free is given again."""
    async with http(limits={"in_flight": 1}) as client:
        holding = asyncio.create_task(client.post("/search", json={"query": f"gate {tmp_path}"}))
        await entered(tmp_path)
        shed = await client.post("/search", json={"query": "x"})
        probe = await client.get("/livez")
        (tmp_path / "open").touch()
        held = await holding
        after = await client.post("/search", json={"query": "x"})
    assert (shed.status_code, shed.headers["retry-after"]) == (503, "5")
    assert shed.json()["type"] == "urn:codeintel:problem:overloaded"
    assert (probe.status_code, held.status_code, after.status_code) == (200, 200, 200)


async def test_calls_beyond_the_threads_wait_within_their_deadline(tmp_path: Path) -> None:
    """F43: a full executor makes the next call wait, and its own deadline ends the wait."""
    async with http(limits={"concurrent_calls": 1}) as client:
        holding = asyncio.create_task(client.post("/search", json={"query": f"gate {tmp_path}"}))
        await entered(tmp_path)
        late = await client.post("/search", json={"query": "x", "time_budget_ms": 50})
        (tmp_path / "open").touch()
        await holding
    assert (late.status_code, late.json()["type"]) == (504, "urn:codeintel:problem:deadline-exceeded")


async def entered(folder: Path) -> None:
    for _ in range(1000):
        if (folder / "entered").exists():
            return
        await asyncio.sleep(0.01)
    pytest.fail("no request entered the searcher")


async def test_a_request_id_is_taken_over_and_a_bad_one_is_not() -> None:
    async with http() as client:
        kept = await client.get("/repos", headers={"x-request-id": "abc-1"})
        made = await client.get("/repos", headers={"x-request-id": "a b{}"})
    assert kept.headers["x-request-id"] == "abc-1"
    assert len(made.headers["x-request-id"]) == 36


async def test_a_trace_goes_on_through_the_server() -> None:
    """service.md: traceparent in and out; every answer names its trace."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with http() as client:
        answer = await client.post(
            "/search", json={"query": "x"}, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        )
    assert answer.json()["trace_id"] == trace
    assert answer.headers["traceparent"].split("-")[1] == trace


async def test_an_index_that_cannot_be_served_may_be_retried() -> None:
    """C26."""
    searcher = FakeSearcher()
    async with http(searcher) as client:
        searcher.failure = IndexUnavailable("no generation of shop can be served.", "Rebuild the index.")
        answer = await client.post("/search", json={"query": "x"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["action"] == "Rebuild the index."


async def test_the_openapi_document_names_every_route() -> None:
    async with http() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    answers = {"/answer", "/answers/{answer_id}", "/answers/{answer_id}/events", "/answers/{answer_id}/cancel"}
    assert set(paths) == {"/search", "/repos", "/repos/{repo}/status", "/files/{repo}/{path}"} | answers


async def test_the_searcher_is_closed_at_the_end() -> None:
    searcher = FakeSearcher()
    async with http(searcher):
        pass
    assert searcher.closed


async def test_distinct_inputs_make_no_new_series() -> None:
    """S33: labels come from closed sets, never from what callers send."""

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        await client.post("/search", json={"query": f"query {number}", "repos": [f"repo{number}"]})
        await client.get(f"/files/shop/path{number}")
        await client.get(f"/nowhere/{number}")

    async with http(observability={"log_level": "error"}) as client:
        await ask(client, 0)
        before = len(exposition().splitlines())
        for number in range(1, 50):
            await ask(client, number)
        after = len(exposition().splitlines())
    assert after == before


async def test_no_query_text_reaches_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """S32: not in an answer, a refusal, nor a traceback."""
    async with http(observability={"log_level": "debug", "log_format": "json"}) as client:
        for body in ({"query": "canary-7 charge"}, {"query": "x", "canary-7": 1}, {"query": "canary-7", "limit": 999}):
            await client.post("/search", json=body)
        await client.get("/files/shop/canary-7")
        await client.post(
            "/mcp",
            json={
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "semantic_search", "arguments": {"query": "canary-7"}},
            },
            headers={"accept": "application/json, text/event-stream"},
        )
    ours = [line for line in capsys.readouterr().err.splitlines() if '"logger": "httpx"' not in line]
    assert any('"event": "request"' in line for line in ours)
    assert not any("canary-7" in line for line in ours)


@pytest.fixture(autouse=True)
def _no_request_outlives_its_test() -> None:
    structlog.contextvars.clear_contextvars()


async def test_a_search_takes_the_knobs_of_the_full_tool() -> None:
    """A43: whatever tools agents are shown."""
    searcher = FakeSearcher()
    async with http(searcher) as client:
        told = await client.post("/search", json={"query": "charge", "mode": "wide", "stage_weights": {"xtr": 2}})
        wrong = await client.post("/search", json={"query": "charge", "mode": "deep"})
    assert (told.status_code, wrong.status_code) == (200, 422)
    assert "mode" in wrong.json()["detail"]
    assert searcher.options == [Options(mode="wide", stage_weights={"xtr": 2.0})]
