"""The tools an agent may call: what each is for, when not to use it, and how it is answered.

Names, descriptions and schemas are static (reliability S28) and small: every connected agent pays for them in every
conversation. tests/golden/tools_list.json pins them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from mcp_types import CallToolResult, ContentBlock, ResourceLink, TextContent

from codeintel_rev.mcp_server import operations, text
from codeintel_rev.mcp_server.envelope import Wire, uri
from codeintel_rev.mcp_server.operations import Progress, Served
from codeintel_rev.mcp_server.requests import (
    AnswerRequest,
    FileRequest,
    PathsRequest,
    ProSearchRequest,
    Request,
    SearchRequest,
    StatusRequest,
    TextRequest,
)
from codeintel_rev.mcp_server.text import Text

R = TypeVar("R", bound=Request)
W = TypeVar("W", bound=Wire)


@dataclass(frozen=True, slots=True)
class Tool(Generic[R, W]):
    name: str
    title: str
    description: str
    request: type[R]
    answer: Callable[[Served, R, Progress], Awaitable[W]]
    render: Callable[[W, R], Text]
    profile: Literal["core", "full"] = "core"

    def schema(self) -> dict[str, Any]:
        """Return the input schema with nothing in it that an agent does not need."""
        return _compact(self.request.model_json_schema())

    async def run(
        self, served: Served, arguments: Mapping[str, Any], structured: bool, progress: Progress
    ) -> CallToolResult:
        """Return text for the agent, a link to each file, and the full payload when `structured`."""
        request = self.request.model_validate(arguments)
        answer = await self.answer(served, request, progress)
        told = self.render(answer, request)
        content: list[ContentBlock] = [TextContent(type="text", text=told.text)]
        content += [_link(repo, path) for repo, path in dict.fromkeys(told.files)]
        payload = {**answer.payload(), "truncated": told.truncated}
        return CallToolResult(content=content, structured_content=payload if structured else None, is_error=told.failed)


def _at_once(ask: Callable[[Served, R], Awaitable[W]]) -> Callable[[Served, R, Progress], Awaitable[W]]:
    """Return `ask` as a tool's answer: there is nothing to tell before the result."""

    async def answer(served: Served, request: R, _: Progress) -> W:
        return await ask(served, request)

    return answer


_TOOLS: tuple[Tool[Any, Any], ...] = (
    Tool(
        "semantic_search",
        "Search code by meaning",
        "Find the lines that answer a question, by meaning, identifier or path, best first, with the reason for each. "
        "Use it when you do not know the exact text. For exact strings or patterns use search_text; to read on, "
        "open_file.",
        SearchRequest,
        _at_once(operations.semantic_search),
        text.of_search,
    ),
    Tool(
        "search_text",
        "Search exact text",
        "Find every line that holds a string or RE2 pattern, in path order, unranked. Use it for exact names, "
        "messages and literals; for a concept use semantic_search.",
        TextRequest,
        _at_once(operations.search_text),
        text.of_matches,
    ),
    Tool(
        "open_file",
        "Read lines of a file",
        "Read lines of an indexed file. Use it after a search gave the repo and path; do not guess paths, list_paths "
        "knows them.",
        FileRequest,
        _at_once(operations.open_file),
        text.of_file,
    ),
    Tool(
        "list_paths",
        "List indexed files",
        "List indexed files below a folder, filtered by glob or language. Use it to learn a repository's layout, not "
        "to find code.",
        PathsRequest,
        _at_once(operations.list_paths),
        text.of_paths,
    ),
    Tool(
        "index_status",
        "What is indexed",
        "Tell which repositories are served, from which commit, how complete, and what is being built. Use it when "
        "results are missing or look stale, not before every search.",
        StatusRequest,
        _at_once(operations.index_status),
        text.of_status,
    ),
    Tool(
        "answer",
        "Answer a question",
        "Answer a question about the code in a few sentences, each citing lines that were checked. Use it for how, "
        "where and why; to read code yourself, semantic_search is faster.",
        AnswerRequest,
        operations.answer,
        text.of_answer,
    ),
    Tool(
        "semantic_search_pro",
        "Search code by meaning, tuned",
        "semantic_search with its knobs: which channels are asked, what each counts, how late interaction takes part. "
        "Use it to measure or tune ranking; otherwise use semantic_search.",
        ProSearchRequest,
        _at_once(operations.semantic_search),
        text.of_search,
        "full",
    ),
)
TOOLS: Mapping[str, Tool[Any, Any]] = {tool.name: tool for tool in _TOOLS}


def offered(profile: Literal["core", "full"]) -> dict[str, Tool[Any, Any]]:
    """Return the tools of a profile by name; `full` has them all."""
    return {name: tool for name, tool in TOOLS.items() if profile in (tool.profile, "full")}


def _link(repo: str, path: str) -> ResourceLink:
    return ResourceLink(type="resource_link", name=path, uri=uri(repo, path), mime_type="text/plain")


_NOISE = ("title", "minimum", "maximum", "minLength", "maxLength", "maxItems")
"""Generated titles repeat the names, and a bound is told to whoever passes it."""


def _compact(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key not in _NOISE}
    if kept.get("default") in (None, "", []):
        kept.pop("default", None)
    if options := [one for one in kept.pop("anyOf", []) if one.get("type") != "null"]:
        kept |= options[0]
    if "items" in kept:
        kept["items"] = _compact(kept["items"])
    kept.pop("propertyNames", None)
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = _compact(kept["additionalProperties"])
    if "properties" in kept:
        kept["properties"] = {name: _compact(value) for name, value in kept["properties"].items()}
    return kept
