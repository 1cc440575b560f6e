"""One call to one model server: within its time, its size and its share of retries, or a typed error."""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import anyio
import httpx

from codeintel_rev.config.settings import EndpointSettings
from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.io.vllm.breaker import Breaker
from codeintel_rev.io.vllm.budget import Budget
from codeintel_rev.io.vllm.endpoint import Endpoint, EndpointName
from codeintel_rev.io.vllm.hedge import Hedge
from codeintel_rev.io.vllm.refusals import AILING, Reason, failure, reason_of, refusal
from codeintel_rev.observability.metrics import VLLM_BREAKER_OPEN, VLLM_REQUESTS, VLLM_RETRIES, VLLM_SECONDS
from codeintel_rev.observability.tracing import trace_headers

MAX_REPLY = 64 * 1024 * 1024
"""Bytes of a whole answer: token vectors of 128 chunks of 512 tokens are 16 MiB."""
MAX_ERROR = 64 * 1024
RETRY_SHARE = 0.1
HEALTH_S = 1.0
JITTER_S = 0.1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with status 200. Header names are lower-case."""

    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """One endpoint: its connections, its breaker, its budgets. Belongs to one event loop.

    Every call raises UpstreamFailed and nothing else, whatever the server does.
    """

    def __init__(self, endpoint: Endpoint, client: httpx.AsyncClient) -> None:
        self.endpoint = endpoint
        self._client = client
        self._breaker = Breaker()
        self._retries = Budget(RETRY_SHARE, most=10)
        self._hedge = Hedge(endpoint.name)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        parse: Callable[[Reply], T],
        *,
        trace_id: str,
        hedged: bool = False,
        within_s: float | None = None,
    ) -> T:
        """Return `parse` of the answer to a POST that may be sent twice, within the time of the endpoint or less."""

        given = self.endpoint.timeout_s if within_s is None else min(self.endpoint.timeout_s, within_s)
        until = _until(given)

        async def send(number: int) -> T:
            attempts = self._ids(trace_id, number)
            return await self._retried(lambda name: self._sent("POST", path, body, parse, name), attempts, until)

        with self.observed():
            return await self._in_time(self._hedge.run(send) if hedged else send(0), given)

    async def get(self, path: str, parse: Callable[[Reply], T], *, trace_id: str) -> T:
        """Return `parse` of the answer to a GET."""
        with self.observed():
            given, attempts = self.endpoint.timeout_s, self._ids(trace_id)
            sending = self._retried(lambda name: self._sent("GET", path, None, parse, name), attempts, _until(given))
            return await self._in_time(sending, given)

    async def stream(self, path: str, body: Mapping[str, Any], *, trace_id: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a streamed answer. Closing the iterator closes the connection, which stops the server.

        A server that refused before its first byte, and may not later, is asked twice; nothing is sent again after
        that. The time of the endpoint is for everything, so a trickle ends as silence does. To be used within
        `observed`.
        """
        given = self.endpoint.timeout_s
        until = anyio.current_time() + given
        opening = self._retried(lambda name: self._opened(path, body, name), self._ids(trace_id), _until(given))
        response = await self._in_time(opening, given)
        chunks = response.aiter_bytes()
        try:
            while (chunk := await self._in_time(self._chunk(chunks), until - anyio.current_time())) is not None:
                yield chunk
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Count the block as one call, by how it ends, and let the breaker know."""
        name, began, outcome = self.endpoint.name, monotonic(), "cancelled"
        try:
            yield
            outcome = "ok"
        except UpstreamFailed as error:
            outcome = reason_of(error)
            if outcome in AILING:
                self._breaker.failed(monotonic())
                VLLM_BREAKER_OPEN.labels(name).set(self._breaker.is_open)
            raise
        finally:
            VLLM_REQUESTS.labels(name, outcome).inc()
            VLLM_SECONDS.labels(name).observe(monotonic() - began)

    def _failure(self, reason: Reason, found: str, *, retry_after_ms: int | None = None) -> UpstreamFailed:
        return failure(self.endpoint.name, reason, found, retry_after_ms=retry_after_ms)

    def _ids(self, trace_id: str, number: int = 0) -> tuple[str, str]:
        """Return the ids of the two requests that leg `number` of a call may make."""
        stem = f"{trace_id}-{self.endpoint.name}"
        return f"{stem}-{2 * number + 1}", f"{stem}-{2 * number + 2}"

    async def _in_time(self, awaited: Awaitable[T], within_s: float) -> T:
        try:
            with anyio.fail_after(max(0.0, within_s)):
                return await awaited
        except TimeoutError as error:
            raise self._failure("timeout", "did not answer in full in its time") from error

    async def _retried(self, send: Callable[[str], Awaitable[T]], ids: tuple[str, str], until: float) -> T:
        """Return what `send` returns for the first id, or for the second if that may succeed by `until`, in budget."""
        self._retries.earn()
        try:
            await self._admit()
            return await send(ids[0])
        except UpstreamFailed as error:
            wait_s = _wait_s(error)
            fits = anyio.current_time() + wait_s < until
            if not (error.retryable and fits and not self._breaker.is_open and self._retries.take()):
                raise
        await anyio.sleep(wait_s)
        VLLM_RETRIES.labels(self.endpoint.name).inc()
        return await send(ids[1])

    async def _admit(self) -> None:
        """Return when the server may be asked. Raises UpstreamFailed while it is to be left alone."""
        admitted = self._breaker.admit(monotonic())
        if admitted == "probe" and await self._is_well():
            self._breaker.healed()
            VLLM_BREAKER_OPEN.labels(self.endpoint.name).set(0)
            return
        if admitted != "closed":
            left_ms = math.ceil(1000 * self._breaker.remaining_s(monotonic()))
            raise self._failure("unavailable", "failed often and is left alone", retry_after_ms=left_ms)

    async def _is_well(self) -> bool:
        """Return whether /health answers; a server without that route answers, too."""
        try:
            with anyio.fail_after(HEALTH_S):
                response = await self._client.get(f"{self.endpoint.url}/health")
        except (TimeoutError, httpx.HTTPError):
            return False
        return response.status_code < 500

    async def _sent(
        self, method: str, path: str, body: Mapping[str, Any] | None, parse: Callable[[Reply], T], request_id: str
    ) -> T:
        with self._mapped():
            response = await self._client.send(self._request(method, path, body, request_id), stream=True)
            try:
                reply = Reply(response.headers, await self._read(response, MAX_REPLY))
            finally:
                await response.aclose()
        if response.status_code != 200:
            raise refusal(self.endpoint.name, response.status_code, reply.headers, reply.body)
        return parse(reply)

    async def _opened(self, path: str, body: Mapping[str, Any], request_id: str) -> httpx.Response:
        """Return an answer whose body is still to come."""
        with self._mapped():
            response = await self._client.send(self._request("POST", path, body, request_id), stream=True)
            if response.status_code == 200:
                return response
            try:
                told = await self._read(response, MAX_ERROR)
            finally:
                await response.aclose()
        raise refusal(self.endpoint.name, response.status_code, response.headers, told)

    async def _chunk(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """Return the next bytes of a stream, None at its clean end."""
        try:
            return await anext(chunks, None)
        except httpx.HTTPError as error:
            raise self._failure("truncated", f"broke the connection ({type(error).__name__})") from error

    async def _read(self, response: httpx.Response, most: int) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most:
                raise self._failure("malformed", f"answered {response.status_code} with more than {most} bytes")
        return bytes(body)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None, request_id: str) -> httpx.Request:
        headers = {
            "x-request-id": request_id,
            "accept-encoding": "identity",
            **trace_headers(),
            **self.endpoint.headers,
        }
        if body is None:
            return self._client.build_request(method, self.endpoint.url + path, headers=headers)
        headers["content-type"] = "application/json"
        # Lone surrogates, which JSON cannot carry, as `?`.
        content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        return self._client.build_request(method, self.endpoint.url + path, headers=headers, content=content)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except httpx.DecodingError as error:
            raise self._failure("malformed", "sent a body that is not encoded as it says") from error
        except httpx.HTTPError as error:
            raise self._failure("unavailable", f"could not be asked ({type(error).__name__})") from error


def open_upstream(name: EndpointName, settings: EndpointSettings) -> Upstream:
    """Return the configured endpoint, nothing asked yet. Raises SettingsError. The caller closes it."""
    return Upstream(Endpoint.of(name, settings), http_client())


def http_client() -> httpx.AsyncClient:
    """Return a client that reads no proxy from the environment and times nothing by itself: Upstream does."""
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    return httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113 -- see above


def _until(given_s: float) -> float:
    """Return when the time is up: ours or, if that is sooner, the caller's."""
    return min(anyio.current_time() + given_s, anyio.current_effective_deadline())


def _wait_s(error: UpstreamFailed) -> float:
    """Return how long to wait before a second attempt: what the server asks for, or a little, each another."""
    if error.retry_after_ms is not None:
        return error.retry_after_ms / 1000
    return random.uniform(0, JITTER_S)  # noqa: S311 -- two clients apart, no secret
