"""The tools as an agent meets them, through the official client in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import NOT_ENCODED, FakeSearcher, opened_fakes
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from structlog.testing import capture_logs

from codeintel_rev.app.context import open_context
from codeintel_rev.app.probes import Readiness
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import DimensionMismatch
from codeintel_rev.mcp_server.server import make_server
from codeintel_rev.retrieval.options import Options
from codeintel_rev.types import BuildProgress

GOLDEN = Path(__file__).parents[2] / "golden" / "tools_list.json"
GOLDEN_FULL = GOLDEN.with_name("tools_list_full.json")
SCHEMA_TOKENS = 1600


@asynccontextmanager
async def asking(searcher: FakeSearcher | None = None, **settings: Any) -> AsyncIterator[Client]:
    context = open_context(Settings(**settings), lambda _: opened_fakes(searcher), Readiness(1.0))
    async with context as made:
        server = make_server(lambda: made.served, made.settings.server)
        async with Client(server) as client:
            yield client


async def listed(**settings: Any) -> list[dict[str, Any]]:
    async with asking(**settings) as client:
        tools = (await client.list_tools()).tools
    return [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]


def problem(result: Any) -> dict[str, Any]:
    assert result.is_error
    return dict(json.loads(result.content[0].text))


async def test_the_list_of_tools_is_as_reviewed() -> None:
    """S28: a changed name, description or schema is a diff in the golden file."""
    assert await listed() == json.loads(GOLDEN.read_text())


async def test_tool_texts_are_plain_ascii_or_typography() -> None:
    """S28: no invisible characters to hide instructions in."""
    text = json.dumps(await listed(), ensure_ascii=False)
    assert {character for character in text if not character.isascii()} <= {"…"}


async def test_the_schemas_of_all_tools_fit_their_budget() -> None:
    """service.md: at most 1,600 schema tokens, at four characters a token: MiniLM's tokenizer splits JSON's
    punctuation one by one, which no agent's tokenizer does."""
    told = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in await listed()]
    assert len(json.dumps(told, separators=(",", ":"))) / 4 <= SCHEMA_TOKENS


async def test_every_tool_says_what_it_does_to_the_world() -> None:
    """service.md: the four annotations on every tool."""
    expected = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}
    assert all(tool["annotations"] == expected for tool in await listed())


@pytest.mark.parametrize("tool", ["semantic_search", "search_text", "open_file", "list_paths", "index_status"])
async def test_an_unknown_argument_is_refused_by_name(tool: str) -> None:
    """F41: the SDK drops unknown arguments; a typo must not read as a default."""
    async with asking() as client:
        refusal = problem(await client.call_tool(tool, {"querry": "x"}))
    assert "querry: Extra inputs are not permitted" in refusal["detail"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "query"),
        ({"query": 7}, "query"),
        ({"query": "x", "limit": "many"}, "limit"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": 201}, "limit"),
        ({"query": "x", "repos": "shop"}, "repos"),
        ({"query": "x", "repos": [None]}, "repos.0"),
        ({"query": "\ud800"}, "query"),
        ({"query": "x" * 1_000_000}, "query"),
        ({"query": "x", "max_tokens": -1}, "max_tokens"),
        ({"query": "x", "time_budget_ms": 1e308}, "time_budget_ms"),
        ({"query": "x", "\ud800": 1}, "Extra inputs"),
    ],
)
async def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    """F41."""
    async with asking() as client:
        refusal = problem(await client.call_tool("semantic_search", arguments))
    assert named in refusal["detail"]
    assert refusal["type"] == "urn:codeintel:problem:invalid-argument"


async def test_a_query_of_the_greatest_size_is_answered() -> None:
    """S18: 8 KiB, and one byte more is refused."""
    async with asking() as client:
        fits = await client.call_tool("semantic_search", {"query": "a" * 8192})
        over = await client.call_tool("semantic_search", {"query": "a" * 8193})
    assert (fits.is_error, over.is_error) == (False, True)


async def test_an_unknown_tool_is_a_protocol_error() -> None:
    """Reliability §2: unknown tool is -32602; the SDK would answer isError."""
    async with asking() as client:
        with pytest.raises(MCPError) as refusal:
            await client.call_tool("no_such_tool", {})
    assert refusal.value.error.code == -32602


async def test_a_hit_is_readable_text_then_a_link_then_the_payload() -> None:
    async with asking() as client:
        result = await client.call_tool("semantic_search", {"query": "charge", "repos": ["shop"]})
    text, link = result.content
    assert text.text.startswith("1. shop: src/pay.py:1-3 function pay -- lexical #1\ndef charge(card, amount):")
    assert link.uri == "codeintel://shop/src/pay.py"
    assert result.structured_content["hits"][0]["chunk_id"] > 0


async def test_a_link_of_a_hit_can_be_read() -> None:
    """service.md: a resource_link per file; the name of a repository may hold a slash."""
    async with asking() as client:
        result = await client.call_tool("semantic_search", {"query": "retry"})
        read = await client.read_resource(result.content[1].uri)
    assert read.contents[0].text.startswith("// Retry calls f again.")


async def test_a_file_that_is_not_indexed_is_not_a_resource() -> None:
    async with asking() as client:
        with pytest.raises(MCPError) as refusal:
            await client.read_resource("codeintel://shop/../../etc/passwd")
    assert refusal.value.error.code == -32602


async def test_clients_that_pay_twice_get_text_only() -> None:
    async with asking(server={"structured_content": False}) as client:
        result = await client.call_tool("semantic_search", {"query": "charge"})
    assert result.structured_content is None
    assert result.content


async def test_contributions_are_told_only_when_asked_for() -> None:
    """C03."""
    async with asking() as client:
        compact = await client.call_tool("semantic_search", {"query": "charge"})
        explained = await client.call_tool("semantic_search", {"query": "charge", "explain": True})
    assert "contributions" not in compact.structured_content["hits"][0]
    assert explained.structured_content["hits"][0]["contributions"]["lexical"]["contribution"] == 1.0
    assert explained.structured_content["method"]["stages"][0]["name"] == "lexical"


async def test_the_hits_of_the_page_shown_are_explained() -> None:
    """A12, A22: those before it are not, and nothing is unless asked for."""
    request = {"query": "a charge", "limit": 1, "explain": True}
    async with asking() as client:
        first = (await client.call_tool("semantic_search", request)).structured_content
        second = (
            await client.call_tool("semantic_search", request | {"cursor": first["next_cursor"]})
        ).structured_content
        compact = (await client.call_tool("semantic_search", {"query": "a charge"})).structured_content
    for page in (first, second):
        (hit,) = page["hits"]
        (match,) = hit["token_matches"]
        assert (match["query_token"], match["document_token"], match["path"]) == ("a", "b", hit["path"])
        assert (match["line"], match["column"], match["similarity"], match["share"]) == (1, 5, 0.5, 0.25)
    assert all("token_matches" not in hit for hit in compact["hits"])


async def test_limits_reach_the_agent_as_text() -> None:
    async with asking(FakeSearcher(limits=(NOT_ENCODED,))) as client:
        result = await client.call_tool("semantic_search", {"query": "charge"})
    assert "Limited (vectors-partial): 40% of chunks have vectors. Wait for the build." in result.content[0].text


async def test_a_time_budget_reaches_the_search() -> None:
    searcher = FakeSearcher()
    async with asking(searcher) as client:
        await client.call_tool("semantic_search", {"query": "charge", "time_budget_ms": 250})
    assert 200 < searcher.asked[0][3] <= 250


async def test_a_search_that_overruns_its_budget_is_a_problem_that_may_be_retried(tmp_path: Path) -> None:
    """S18, F25."""
    async with asking() as client:
        refusal = problem(
            await client.call_tool("semantic_search", {"query": f"gate {tmp_path}", "time_budget_ms": 50})
        )
    assert (refusal["status"], refusal["retryable"], refusal["retry_after_s"]) == (504, True, 5)


async def test_our_errors_say_what_to_do_next() -> None:
    """C25, error contract."""
    searcher = FakeSearcher()
    searcher.failure = DimensionMismatch("Dimension mismatch: FAISS=1024, encoder=384.", "Rebuild the index.")
    async with asking(searcher) as client:
        refusal = problem(await client.call_tool("semantic_search", {"query": "charge"}))
    assert refusal["detail"] == "Dimension mismatch: FAISS=1024, encoder=384."
    assert (refusal["status"], refusal["action"]) == (503, "Rebuild the index.")


async def test_a_bug_does_not_reach_the_agent() -> None:
    """Error contract: no exception text on the wire; the traceback is in the log."""
    with capture_logs() as logged:
        async with asking() as client:
            refusal = problem(await client.call_tool("semantic_search", {"query": "boom"}))
    assert refusal["type"] == "urn:codeintel:problem:internal"
    assert "secret detail" not in json.dumps(refusal)
    assert [str(line["exc_info"]) for line in logged if line["log_level"] == "error"] == ["secret detail"]


async def test_the_next_page_goes_on_where_the_first_ended() -> None:
    asked = {"query": "the a", "limit": 1}
    async with asking() as client:
        first = (await client.call_tool("semantic_search", asked)).structured_content
        second = (
            await client.call_tool("semantic_search", {**asked, "cursor": first["next_cursor"]})
        ).structured_content
        both = (await client.call_tool("semantic_search", {**asked, "limit": 2})).structured_content
    assert first["hits"] + second["hits"] == both["hits"]


async def test_a_cursor_of_a_replaced_generation_is_gone() -> None:
    """F19: never silently the next generation."""
    searcher = FakeSearcher()
    async with asking(searcher) as client:
        asked = {"query": "the a", "limit": 1}
        cursor = (await client.call_tool("semantic_search", asked)).structured_content["next_cursor"]
        searcher.generation = "02"
        refusal = problem(await client.call_tool("semantic_search", {**asked, "cursor": cursor}))
    assert (refusal["status"], refusal["type"]) == (410, "urn:codeintel:problem:generation-gone")


@pytest.mark.parametrize("cursor", ["x", "!!!!", "e30", "bnVsbA", "W10", "\udcff", "ey" * 4000])
async def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    async with asking() as client:
        refusal = problem(await client.call_tool("semantic_search", {"query": "the", "cursor": cursor}))
    assert "cursor" in refusal["detail"]


async def test_a_cursor_does_not_go_on_with_another_question() -> None:
    async with asking() as client:
        first = await client.call_tool("semantic_search", {"query": "the a", "limit": 1})
        cursor = first.structured_content["next_cursor"]
        refusal = problem(await client.call_tool("semantic_search", {"query": "return", "limit": 1, "cursor": cursor}))
    assert refusal["detail"] == "cursor belongs to another question."


async def test_text_matches_read_like_grep() -> None:
    async with asking() as client:
        result = await client.call_tool("search_text", {"pattern": "CHARGE", "repos": ["shop"], "context_lines": 1})
    assert result.content[0].text.splitlines()[:2] == [
        "shop: src/pay.py:1:def charge(card, amount):",
        "shop: src/pay.py-2-    '''Charge a card.'''",
    ]


async def test_a_bad_pattern_says_where_it_is_bad() -> None:
    async with asking() as client:
        refusal = problem(await client.call_tool("search_text", {"pattern": "(", "regex": True}))
    assert "malformed pattern" in refusal["detail"]


async def test_lines_are_opened_under_their_place() -> None:
    async with asking() as client:
        result = await client.call_tool("open_file", {"repo": "shop", "path": "src/pay.py", "end_line": 1})
    assert result.content[0].text == "shop: src/pay.py:1-1 of 3\ndef charge(card, amount):"


async def test_paths_are_listed_with_their_folders() -> None:
    async with asking() as client:
        result = await client.call_tool("list_paths", {"repo": "shop", "globs": ["*.py"]})
    assert result.content[0].text.splitlines() == ["2 files", "src/ (2 files)", "src/cart.py", "src/pay.py"]


async def test_an_unknown_repository_is_not_found() -> None:
    async with asking() as client:
        refusals = [
            problem(await client.call_tool("semantic_search", {"query": "x", "repos": ["secret"]})),
            problem(await client.call_tool("open_file", {"repo": "secret", "path": "x"})),
            problem(await client.call_tool("list_paths", {"repo": "secret"})),
            problem(await client.call_tool("index_status", {"repo": "secret"})),
        ]
    assert {refusal["status"] for refusal in refusals} == {404}


async def test_the_status_tells_what_is_being_built() -> None:
    searcher = FakeSearcher()
    searcher.building = BuildProgress("encode", 40, 100, 10.0, 6.0, 0.0, 1)
    async with asking(searcher) as client:
        result = await client.call_tool("index_status", {"repo": "shop"})
    assert "building: encode 40/100, 6 s left" in result.content[0].text


async def test_waiting_for_a_build_ends_with_the_build() -> None:
    class Finishing(FakeSearcher):
        looks = 0

        def status(self) -> Any:
            self.looks += 1
            self.building = BuildProgress("encode", 1, 2, None, None, 0.0, 1) if self.looks < 4 else None
            return super().status()

    async with asking(Finishing()) as client:
        result = await client.call_tool("index_status", {"repo": "shop", "wait_s": 20})
    assert "building" not in result.structured_content["repos"][0]


# The profile for who measures and tunes

KNOBS = {
    "mode": "both",
    "xtr_k": 50,
    "blend": "sum",
    "score_norm": "z",
    "stage_weights": {"dense": 2.0, "xtr_rescore": 0.5},
    "channels": ["dense", "xtr"],
}


async def test_the_full_list_of_tools_is_as_reviewed() -> None:
    """server.tools: the core tools as they are, then the one with knobs."""
    full = await listed(server={"tools": "full"})
    assert full[:-1] == await listed()
    assert full[-1:] == json.loads(GOLDEN_FULL.read_text())


async def test_knobs_of_a_request_reach_the_search() -> None:
    """A43."""
    searcher = FakeSearcher()
    async with asking(searcher, server={"tools": "full"}) as client:
        await client.call_tool("semantic_search_pro", {"query": "charge", **KNOBS})
        await client.call_tool("semantic_search", {"query": "charge"})
    assert searcher.options == [
        Options("both", 50, "sum", "z", {"dense": 2.0, "xtr_rescore": 0.5}, ("dense", "xtr")),
        Options(),
    ]


async def test_a_time_asked_about_reaches_the_search_and_stands_in_the_answer() -> None:
    searcher = FakeSearcher()
    async with asking(searcher, server={"tools": "full"}) as client:
        past = await client.call_tool("semantic_search_pro", {"query": "charge", "as_of": "2h"})
        now = await client.call_tool("semantic_search_pro", {"query": "charge"})
    assert [scope.as_of for _, scope, _, _ in searcher.asked] == ["2h", ""]
    assert past.structured_content["scope"]["as_of"] == "2h"
    assert "as_of" not in now.structured_content["scope"]


async def test_the_core_profile_neither_lists_nor_takes_knobs() -> None:
    async with asking() as client:
        with pytest.raises(MCPError):
            await client.call_tool("semantic_search_pro", {"query": "charge"})
        refusal = problem(await client.call_tool("semantic_search", {"query": "charge", "mode": "wide"}))
    assert "mode: Extra inputs" in refusal["detail"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "deep"},
        {"xtr_k": 0},
        {"xtr_k": 2001},
        {"blend": "mean"},
        {"score_norm": "log"},
        {"stage_weights": {"bm25": 1.0}},
        {"stage_weights": {"dense": -1.0}},
        {"stage_weights": {"dense": float("inf")}},
        {"channels": ["web"]},
    ],
)
async def test_a_wrong_knob_is_named(wrong: dict[str, Any]) -> None:
    async with asking(server={"tools": "full"}) as client:
        refusal = problem(await client.call_tool("semantic_search_pro", {"query": "charge", **wrong}))
    assert next(iter(wrong)) in refusal["detail"]


async def test_a_cursor_goes_on_with_the_knobs_it_came_from() -> None:
    """A page of another order would repeat some hits and leave out others."""
    request = {"query": "a charge", "limit": 1, "mode": "wide"}
    async with asking(server={"tools": "full"}) as client:
        first = (await client.call_tool("semantic_search_pro", request)).structured_content
        cursor = {"cursor": first["next_cursor"]}
        second = await client.call_tool("semantic_search_pro", request | cursor)
        other = await client.call_tool("semantic_search_pro", request | cursor | {"mode": "rescore"})
    assert (second.is_error, other.is_error) == (False, True)
