"""The HTTP face of what can be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from codeintel_rev.mcp_server import operations
from codeintel_rev.mcp_server.envelope import Envelope, FileLines, RepoStatus, Status, Wire
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.mcp_server.requests import FileRequest, ProSearchRequest, StatusRequest

Line = Annotated[int, Query(ge=1)]


def question_routes(served: Callable[[], Served]) -> APIRouter:
    """Return the routes. `served` is called per request: what is served is only opened when the process starts."""
    router = APIRouter()

    @router.post("/search", response_model=Envelope)
    async def search(request: ProSearchRequest) -> Response:
        """Hits for a query, best first; `max_tokens` only shapes text and is ignored here."""
        return _json(await operations.semantic_search(served(), request))

    @router.get("/repos", response_model=Status)
    async def repos() -> Response:
        """Every repository served."""
        return _json(await operations.index_status(served(), StatusRequest()))

    @router.get("/repos/{repo:path}/status", response_model=RepoStatus)
    async def repo_status(repo: str) -> Response:
        """One repository: what is published, how complete, what is being built."""
        return _json((await operations.index_status(served(), StatusRequest(repo=repo))).repos[0])

    @router.get("/files/{repo}/{path:path}", response_model=FileLines)
    async def file_lines(
        http: Request, repo: str, path: str, start_line: Line = 1, end_line: Line | None = None
    ) -> Response:
        """Lines of an indexed file, 1-based and inclusive. A `/` in the repository's name is written %2F."""
        repo, path = _address(http)
        request = FileRequest(repo=repo, path=path, start_line=start_line, end_line=end_line)
        return _json(await operations.open_file(served(), request))

    return router


def _address(http: Request) -> tuple[str, str]:
    """Return repository and path as they were before %2F was decoded, which makes one `/` look like the other."""
    _, _, repo, path = http.scope["raw_path"].decode("ascii").split("/", 3)
    return unquote(repo), unquote(path)


def _json(answer: Wire) -> Response:
    return JSONResponse(answer.payload())
