"""One call: its time, its retries, its breaker, its hedge, and what is told of it."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import anyio
import httpx
import pytest
from prometheus_client import REGISTRY

from codeintel_rev.config.settings import EndpointSettings
from codeintel_rev.errors import SettingsError, UpstreamFailed
from codeintel_rev.io.vllm import http as module
from codeintel_rev.io.vllm.breaker import FAILURES, OPEN_S, WINDOW_S, Breaker
from codeintel_rev.io.vllm.budget import Budget
from codeintel_rev.io.vllm.endpoint import Endpoint
from codeintel_rev.io.vllm.hedge import LEAST, Hedge
from codeintel_rev.io.vllm.http import Reply, Upstream, http_client, open_upstream
from codeintel_rev.io.vllm.models import served_model
from codeintel_rev.io.vllm.refusals import refusal, retry_after_ms
from tests.stub_vllm import StubTransport, StubVLLM

Opened = Callable[..., Upstream]
BODY = {"model": "tiny", "input": ["x"]}


@pytest.fixture
def stub() -> StubVLLM:
    return StubVLLM("embed")


@pytest.fixture
async def opened(stub: StubVLLM) -> AsyncIterator[Opened]:
    async with httpx.AsyncClient(transport=StubTransport(stub), timeout=None) as client:
        yield lambda **given: Upstream(
            Endpoint("embed", "http://stub", "tiny", given.get("key", ""), given.get("timeout_s", 5.0)), client
        )


async def ask(upstream: Upstream, body: object = BODY, *, hedged: bool = False) -> bytes:
    def parse(reply: Reply) -> bytes:
        return reply.body

    return await upstream.ask("/v1/embeddings", body, parse, trace_id="t", hedged=hedged)  # type: ignore[arg-type]


async def failed(upstream: Upstream, *, hedged: bool = False) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as raised:
        await ask(upstream, hedged=hedged)
    return raised.value


def count(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, {"endpoint": "embed", **labels}) or 0.0


@pytest.mark.parametrize(
    ("status", "body", "reason", "retryable", "too_long"),
    [
        (404, '{"detail":"Not Found"}', "route_absent", False, False),
        (404, "", "route_absent", False, False),
        (405, '{"detail":"Method Not Allowed"}', "route_absent", False, False),
        (404, '{"error":{"type":"NotFoundError","param":"model","code":404}}', "model_absent", False, False),
        (401, '{"error":"Unauthorized"}', "unauthorized", False, False),
        (400, '{"error":{"type":"BadRequestError","param":"input_tokens"}}', "prompt_too_long", False, True),
        (400, '{"object":"error","message":"maximum context length is 8","code":400}', "prompt_too_long", False, True),
        (400, '{"error":{"code":"context_length_exceeded"}}', "prompt_too_long", False, True),
        (413, '{"error":"must have less than 512 tokens","error_type":"Validation"}', "prompt_too_long", False, True),
        (400, '{"error":{"type":"BadRequestError","param":"max_tokens"}}', "rejected", False, False),
        (400, '{"error":{"type":"Bad Request","param":"body.messages"}}', "rejected", False, False),
        (422, '{"message":"bad","code":422,"type":"validation"}', "rejected", False, False),
        (400, "[]", "rejected", False, False),
        (429, '{"error":"overloaded","error_type":"overloaded"}', "overloaded", True, False),
        (424, '{"error":"backend","error_type":"backend"}', "unavailable", True, False),
        (503, '{"error":{"type":"Service Unavailable","code":503}}', "unavailable", True, False),
        (500, "<html>", "unavailable", True, False),
        (302, "", "malformed", False, False),
    ],
)
def test_every_error_shape_has_its_meaning(
    status: int, body: str, reason: str, retryable: bool, too_long: bool
) -> None:
    """answers §1.4."""
    error = refusal("score", status, {}, body.encode())
    assert (error.code, error.retryable, error.prompt_too_long) == (f"rerank.{reason}", retryable, too_long)
    assert error.hint


def test_a_server_s_message_is_not_repeated() -> None:
    """It may quote the prompt; its type and parameter cannot."""
    body = b'{"error": {"message": "canary text", "type": "BadRequestError", "param": "def f(): canary"}}'
    told = str(refusal("chat", 400, {}, body))
    assert "BadRequestError" in told
    assert "canary" not in told


def test_an_error_crosses_a_process_border_whole() -> None:
    error = refusal("chat", 429, {"retry-after": "2"}, b"")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1500),
        ({"retry-after": "2"}, 2000),
        ({"retry-after": "0.5"}, 500),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:07 GMT"}, 7000),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_the_wait_a_server_asks_for_is_understood(headers: dict[str, str], expected: int | None) -> None:
    assert retry_after_ms(headers, datetime(2026, 11, 21, 12, tzinfo=UTC)) == expected


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_may_succeed_later_is_asked_once_more(opened: Opened, stub: StubVLLM, status: int) -> None:
    """F26."""
    before = count("codeintel_vllm_retries_total")
    stub.script.extend([f"status:{status}:retry-after-ms:1"])
    await ask(opened())
    assert [request.headers["x-request-id"] for request in stub.requests] == ["t-embed-1", "t-embed-2"]
    assert count("codeintel_vllm_retries_total") - before == 1


async def test_a_second_failure_is_the_answer(opened: Opened, stub: StubVLLM) -> None:
    stub.script.extend(["status:503", "status:429:retry-after:7"])
    upstream = opened()
    error = await failed(upstream)
    assert (error.code, error.retry_after_ms) == ("embed.overloaded", 7000)


@pytest.mark.parametrize("hedged", [False, True])
async def test_no_retry_waits_longer_than_the_call_has_time(opened: Opened, stub: StubVLLM, hedged: bool) -> None:
    stub.script.append("status:429:retry-after:60")
    assert (await failed(opened(), hedged=hedged)).retry_after_ms == 60_000
    assert len(stub.requests) == 1


@pytest.mark.parametrize("hedged", [False, True])
async def test_a_caller_with_less_time_decides_over_the_retry(opened: Opened, stub: StubVLLM, hedged: bool) -> None:
    stub.script.append("status:429:retry-after:2")
    with anyio.fail_after(1):
        await failed(opened(), hedged=hedged)
    assert len(stub.requests) == 1


async def test_a_server_in_trouble_gets_few_retries(opened: Opened, stub: StubVLLM) -> None:
    """F26: amplification of at most 1.1, and the one that the first call may have."""
    upstream = opened()
    stub.script.extend(["status:429:retry-after-ms:0"] * 1000)
    for _ in range(200):
        await failed(upstream)
    assert len(stub.requests) <= 200 * 1.1 + 1


async def test_what_is_refused_for_good_is_not_asked_again(opened: Opened, stub: StubVLLM) -> None:
    stub.script.append("prompt_too_long")
    await failed(opened())
    assert len(stub.requests) == 1


async def test_silence_ends_with_the_time_of_the_call(opened: Opened, stub: StubVLLM) -> None:
    """F25; the server learns that nobody waits."""
    stub.script.append("silent")
    before = count("codeintel_vllm_requests_total", outcome="timeout")
    error = await failed(opened(timeout_s=0.3))
    assert (error.code, error.retryable, stub.disconnects) == ("embed.timeout", True, 1)
    assert count("codeintel_vllm_requests_total", outcome="timeout") - before == 1


async def test_an_endless_answer_is_cut_off(opened: Opened, stub: StubVLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLY", 3 * 2**20)
    stub.script.append("huge")
    assert (await failed(opened())).code == "embed.malformed"
    assert stub.disconnects == 1


async def test_a_cancelled_call_is_counted_as_that(opened: Opened, stub: StubVLLM) -> None:
    stub.script.append("silent")
    before = count("codeintel_vllm_requests_total", outcome="cancelled")
    asking = asyncio.ensure_future(ask(opened()))
    await stub.arrived.wait()
    asking.cancel()
    await asyncio.wait({asking})
    assert count("codeintel_vllm_requests_total", outcome="cancelled") - before == 1
    assert stub.disconnects == 1


async def test_the_key_is_sent(opened: Opened, stub: StubVLLM) -> None:
    stub.key = "secret"
    assert (await failed(opened(key="wrong"))).code == "embed.unauthorized"
    upstream = opened(key="secret")
    await ask(upstream)
    assert "secret" not in repr(upstream.endpoint)


async def test_text_that_json_cannot_carry_is_sent_all_the_same(opened: Opened, stub: StubVLLM) -> None:
    await ask(opened(), {"model": "tiny", "input": ["\udcff é"]})
    assert stub.requests[-1].body["input"] == ["? é"]


async def test_a_failing_server_is_left_alone_until_it_is_well(
    opened: Opened, stub: StubVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F26: nothing but /health is asked before it is said to be well."""
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    upstream = opened()
    stub.script.extend(["status:503"] * 100)
    for _ in range(FAILURES):
        await failed(upstream)
    stub.script.clear()
    asked = len(stub.requests)
    error = await failed(upstream)
    assert (error.code, error.retry_after_ms) == ("embed.unavailable", 1000 * OPEN_S)
    assert count("codeintel_vllm_breaker_open") == 1
    now, stub.healthy = 6.0, False
    await failed(upstream)
    now, stub.healthy = 8.0, True
    await failed(upstream)
    assert len(stub.requests) == asked
    now = 12.0
    await ask(upstream)
    assert count("codeintel_vllm_breaker_open") == 0


async def test_refusals_of_what_was_asked_do_not_open_the_breaker(opened: Opened, stub: StubVLLM) -> None:
    upstream = opened()
    stub.script.extend(["prompt_too_long"] * (FAILURES + 1))
    for _ in range(FAILURES + 1):
        await failed(upstream)
    await ask(upstream)


def test_failures_far_apart_do_not_open_the_breaker() -> None:
    breaker = Breaker()
    for number in range(3 * FAILURES):
        breaker.failed(number * WINDOW_S / (FAILURES - 1.5))
    assert not breaker.is_open


def test_one_caller_asks_for_health_at_a_time() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(0.0)
    later = OPEN_S + 1
    assert [breaker.admit(later) for _ in range(3)] == ["probe", "open", "open"]
    assert breaker.admit(later + OPEN_S) == "probe"


def test_a_budget_is_a_share_of_what_is_sent_anyway() -> None:
    budget = Budget(0.05, most=2)
    taken = 0
    for _ in range(1000):
        budget.earn()
        taken += budget.take()
    assert 49 <= taken <= 51


async def test_a_slow_call_is_made_again_and_the_loser_is_stopped() -> None:
    hedge = Hedge("embed")
    stopped = asyncio.Event()

    async def at_once(number: int) -> int:
        return number

    async def slow_first(number: int) -> int:
        try:
            return number if number else await asyncio.Future()
        except asyncio.CancelledError:
            stopped.set()
            raise

    for _ in range(LEAST):
        await hedge.run(at_once)
    before = count("codeintel_vllm_hedges_total", winner="second")
    assert await hedge.run(slow_first) == 1
    assert stopped.is_set()
    assert count("codeintel_vllm_hedges_total", winner="second") - before == 1


async def test_no_call_is_made_twice_before_it_is_known_what_is_slow() -> None:
    calls: list[int] = []

    async def call(number: int) -> None:
        calls.append(number)
        await asyncio.sleep(0)

    hedge = Hedge("embed")
    await hedge.run(call)
    assert (calls, hedge.after_s) == ([0], None)


async def test_a_hedged_call_fails_when_both_do() -> None:
    hedge = Hedge("embed")

    async def at_once(number: int) -> int:
        return number

    both = asyncio.Event()

    async def fails(number: int) -> int:
        if number:
            both.set()
        await both.wait()
        raise UpstreamFailed("both failed")

    for _ in range(LEAST):
        await hedge.run(at_once)
    with pytest.raises(UpstreamFailed, match="both"):
        await hedge.run(fails)


async def test_one_that_succeeds_wins_over_one_that_fails_at_the_same_moment() -> None:
    hedge = Hedge("embed")
    both = asyncio.Event()

    async def at_once(number: int) -> int:
        return number

    async def one_fails(number: int) -> int:
        if number:
            both.set()
        await both.wait()
        if not number:
            raise UpstreamFailed("the first")
        return number

    for _ in range(LEAST):
        await hedge.run(at_once)
    assert await hedge.run(one_fails) == 1


async def test_a_cancelled_caller_leaves_no_call_behind() -> None:
    hedge = Hedge("embed")
    stopped: list[int] = []

    async def never(number: int) -> None:
        try:
            await asyncio.Future()
        finally:
            stopped.append(number)

    with anyio.move_on_after(0.01):
        await hedge.run(never)
    assert stopped == [0]


async def test_a_model_of_another_name_is_a_wrong_setting(opened: Opened, stub: StubVLLM) -> None:
    stub.model = "other"
    with pytest.raises(UpstreamFailed, match="none of them tiny") as raised:
        await served_model(opened(), trace_id="t")
    assert raised.value.code == "embed.model_absent"


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"model": "m"}, "url"),
        ({"url": "http://x"}, "model"),
        ({"url": "x:8000", "model": "m"}, "url"),
        ({"url": "http://", "model": "m"}, "url"),
        ({"url": "http://x:port", "model": "m"}, "url"),
    ],
)
def test_an_endpoint_that_is_not_configured_is_told_by_name(given: dict[str, str], key: str) -> None:
    with pytest.raises(SettingsError, match=rf"vllm\.chat\.{key}"):
        open_upstream("chat", EndpointSettings.model_validate(given))


@pytest.mark.parametrize("url", ["http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"])
def test_an_url_may_end_as_others_write_it(url: str) -> None:
    assert Endpoint.of("chat", EndpointSettings.model_validate({"url": url, "model": "m"})).url == "http://host:8000"


async def test_what_listens_nowhere_is_unavailable() -> None:
    """F24: refused, over a real socket."""
    upstream = Upstream(Endpoint("embed", "http://127.0.0.1:9", "tiny", "", 5.0), http_client())
    assert (await failed(upstream)).code == "embed.unavailable"
    await upstream.aclose()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def socket_server(handle: Handler, timeout_s: float) -> AsyncIterator[Upstream]:
    """Yield a client of a server that writes its own bytes."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(answered, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, http_client() as client:
        yield Upstream(Endpoint("embed", f"http://127.0.0.1:{port}", "tiny", "", timeout_s), client)


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def cut_short(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"data"')
    await writer.drain()


async def no_http(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    await writer.drain()


async def black_hole(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("handle", "reason", "timeout_s"),
    [
        (reset, "unavailable", 10.0),
        (cut_short, "unavailable", 10.0),
        (no_http, "unavailable", 10.0),
        (black_hole, "timeout", 0.2),
        (trickle, "timeout", 0.2),
    ],
)
async def test_a_broken_connection_is_a_typed_error(handle: Handler, reason: str, timeout_s: float) -> None:
    """F24, F25: the time of the call holds for a trickle, too."""
    async with socket_server(handle, timeout_s) as upstream:
        assert (await failed(upstream)).code == f"embed.{reason}"
