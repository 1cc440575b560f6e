"""What every HTTP request passes before the application sees it: cheap refusals first, then the body within limits.

Pure ASGI, around everything else: under overload a refusal must cost next to nothing, or refusing is what the worker
ends up doing (reliability §0.9).
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from mcp.server.transport_security import TransportSecuritySettings
from opentelemetry import propagate
from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codeintel_rev.app.problems import (
    Malformed,
    Misdirected,
    OriginRefused,
    Overloaded,
    TooLarge,
    UnsupportedMediaType,
    problem_response,
)
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import CodeIntelError, NotFound
from codeintel_rev.mcp_server.server import transport_security
from codeintel_rev.observability.logs import request_id
from codeintel_rev.observability.metrics import IN_FLIGHT, SHED, observe_request

OPS_PATHS = frozenset({"/livez", "/startupz", "/readyz", "/metrics"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]')

log = structlog.get_logger(__name__)

Check = Callable[[Scope], CodeIntelError | None]


class Guards:
    """Refuses a request by the first check that objects to it; otherwise hands it on with its body read and bounded."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.limits = settings.limits
        self.checks = (right_port(settings), right_host(transport_security(settings)), right_media_type)
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        structlog.contextvars.bind_contextvars(request_id=_request_id(scope))
        await self._guarded(scope, receive, _Reply(scope, send))

    async def _guarded(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        try:
            for check in self.checks:
                if refusal := check(scope):
                    raise refusal
            with self._seat(scope):
                await self.app(scope, await self._bounded(scope, receive), reply)
        except CodeIntelError as refusal:
            await problem_response(refusal)(scope, receive, reply)
        finally:
            reply.observe()

    @contextmanager
    def _seat(self, scope: Scope) -> Iterator[None]:
        """Probes always get one: a busy worker must still say that it lives."""
        if scope["path"] in OPS_PATHS:
            yield
            return
        if self.in_flight >= self.limits.in_flight:
            SHED.inc()
            raise Overloaded(f"{self.in_flight} requests are in flight.", "Retry after the time given.")
        self.in_flight += 1
        IN_FLIGHT.inc()
        try:
            yield
        finally:
            self.in_flight -= 1
            IN_FLIGHT.dec()

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Return a `receive` that replays the body, read here so that a refusal never leaves one unread."""
        most = self.limits.body_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise TooLarge(f"the body has {declared} bytes, the most is {most}.", "Send less.")
        messages: list[Message] = []
        size = 0
        while not messages or messages[-1].get("more_body", False):
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > most:
                raise TooLarge(f"the body has more than {most} bytes.", "Send less.")
        check_depth(b"".join(message.get("body", b"") for message in messages), self.limits.json_depth)
        replay = iter(messages)

        async def bounded() -> Message:
            return next(replay, None) or await receive()

        return bounded


class _Reply:
    """`send`, watched: adds the request's ids to the response and counts it once it is over."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.send = send
        self.started = time.monotonic()
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = request_id()
            propagate.inject(headers)
        await self.send(message)

    def observe(self) -> None:
        """The label is the route's template: a path would be an open set."""
        route = self.scope.get("route")
        operation = route.path if isinstance(route, Route) else "unmatched"
        seconds = time.monotonic() - self.started
        observe_request("http", operation, str(self.status), seconds)
        level = logging.DEBUG if operation in OPS_PATHS else logging.INFO
        log.log(level, "request", operation=operation, status=self.status, ms=round(seconds * 1000, 1))


def right_port(settings: Settings) -> Check:
    """Probes and metrics answer on the operator's port and only there, when there is one (reliability S09)."""
    ops_port = settings.server.ops_port

    def check(scope: Scope) -> CodeIntelError | None:
        if ops_port is None or (scope["server"][1] == ops_port) == (scope["path"] in OPS_PATHS):
            return None
        return NotFound("Not Found.")

    return check


def right_host(allowed: TransportSecuritySettings) -> Check:
    """Refuses what a rebound DNS name or a foreign web page would send (reliability S01).

    Probes come by address and are exempt: they say nothing that is worth a rebinding.
    """

    def check(scope: Scope) -> CodeIntelError | None:
        if scope["path"] in OPS_PATHS:
            return None
        headers = Headers(scope=scope)
        if not _matches(headers.get("host", ""), allowed.allowed_hosts):
            return Misdirected("this Host is not served here.", "Add it to server.allowed_hosts.")
        origin = headers.get("origin")
        if origin and not _matches(origin, allowed.allowed_origins):
            return OriginRefused("this Origin is not allowed.", "Add it to server.allowed_origins.")
        return None

    return check


def right_media_type(scope: Scope) -> CodeIntelError | None:
    """A body is JSON, by its exact media type: the SDK takes any type that begins like it (reliability S07)."""
    media_type = Headers(scope=scope).get("content-type", "").split(";")[0].strip().lower()
    if scope["method"] != "POST" or media_type == "application/json":
        return None
    return UnsupportedMediaType("the body must be application/json.", "Set Content-Type: application/json.")


def check_depth(body: bytes, most: int) -> None:
    """Raise Malformed when JSON is nested deeper than `most`: a parser that recurses would fall over it."""
    if body.count(b"[") + body.count(b"{") <= most:
        return
    depth = 0
    for found in STRING_OR_BRACKET.finditer(body):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found.group(), 0)
        if depth > most:
            raise Malformed(f"the body is nested deeper than {most}.", "Send a flatter document.")


def _matches(value: str, allowed: list[str]) -> bool:
    return value in allowed or any(
        pattern.endswith(":*") and value.startswith(pattern[:-1]) and value[len(pattern) - 1 :].isdecimal()
        for pattern in allowed
    )


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
