"""Every failure over HTTP is one RFC 9457 problem document."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from codeintel_rev.errors import CodeIntelError, NotFound
from codeintel_rev.mcp_server.envelope import RETRY_AFTER_S, problem
from codeintel_rev.mcp_server.requests import faults
from codeintel_rev.observability.logs import request_id

MEDIA_TYPE = "application/problem+json"


class Refused(CodeIntelError):
    """An HTTP request turned away before anything was asked. Only the HTTP face knows these."""


class Misdirected(Refused):
    slug, status, title = "host-refused", 421, "Host not served here"


class OriginRefused(Refused):
    slug, status, title = "origin-refused", 403, "Origin not allowed"


class UnsupportedMediaType(Refused):
    slug, status, title = "unsupported-media-type", 415, "Unsupported media type"


class TooLarge(Refused):
    slug, status, title = "too-large", 413, "Request body too large"


class Malformed(Refused):
    slug, status, title = "malformed", 400, "Malformed request"


class InvalidBody(Refused):
    slug, status, title = "invalid-argument", 422, "Invalid argument"


class Overloaded(Refused):
    slug, status, title, retryable = "overloaded", 503, "Too many requests in flight", True


class Unready(Refused):
    slug, status, title, retryable = "not-ready", 503, "Not ready", True


class MethodNotAllowed(Refused):
    slug, status, title = "method-not-allowed", 405, "Method not allowed"


ROUTER_REFUSALS: Mapping[int, type[CodeIntelError]] = {404: NotFound, 405: MethodNotAllowed}


def problem_response(
    error: CodeIntelError, *, headers: Mapping[str, str] | None = None, extensions: Mapping[str, object] | None = None
) -> Response:
    """Return `error` as a response; `extensions` are further members of the document."""
    body = problem(error).payload()
    always = {"X-Request-Id": request_id()} | ({"Retry-After": str(RETRY_AFTER_S)} if error.retryable else {})
    return Response(
        json.dumps({**body, **(extensions or {})}),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers={**always, **(headers or {})},
    )


def install_problems(app: FastAPI) -> None:
    """Make `app` answer every exception with a problem document."""
    app.add_exception_handler(CodeIntelError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _router)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, CodeIntelError)
    return problem_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem_response(InvalidBody(faults(error.errors()), "GET /openapi.json has the schema."))


async def _router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = ROUTER_REFUSALS.get(error.status_code, Malformed)
    return problem_response(refusal(f"{error.detail}.", "GET /openapi.json lists the routes."), headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """The traceback goes to the log, by the server that gets the exception after us; nothing of it to the caller."""
    return problem_response(CodeIntelError("the server failed on this request.", "Report the trace_id if it persists."))
