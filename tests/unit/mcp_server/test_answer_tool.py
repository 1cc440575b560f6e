"""The tool `answer`: progress while it works, the same answer as every face, an end when the caller has enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from answers import STOP, FakeChat
from fakes import FakeSearcher, opened_fakes
from mcp.client.client import Client

from codeintel_rev.answer.parts import Parts
from codeintel_rev.app import context
from codeintel_rev.app.context import open_context
from codeintel_rev.app.probes import Readiness
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.io.trace_store import TRACES, read_traces
from codeintel_rev.mcp_server.server import make_server
from codeintel_rev.types import Message

ASK = {"question": "Where is a card charged?"}


@asynccontextmanager
async def asking(folder: Path, searcher: FakeSearcher | None = None) -> AsyncIterator[Client]:
    settings = Settings.model_validate({"paths": {"data_dir": folder}})
    async with (
        open_context(settings, lambda _: opened_fakes(searcher), Readiness(1.0)) as made,
        Client(make_server(lambda: made.served, made.settings.server)) as client,
    ):
        yield client


async def test_an_answer_is_text_with_the_places_it_cites(tmp_path: Path) -> None:
    async with asking(tmp_path) as client:
        result = await client.call_tool("answer", ASK)
    text, link, *_ = result.content
    written, told = text.text.split("\n\n[1] ")
    assert written.startswith("`pay` in `src/pay.py`, lines 1 to 3. [1]\n")
    assert told.startswith("shop: src/pay.py:1-3 pay\n[2] shop: src/cart.py:1-3 cart\n")
    assert told.endswith("\nextractive, confidence 0.92")
    assert link.uri == "codeintel://shop/src/pay.py"
    payload = result.structured_content
    assert (payload["status"], payload["sources"][0]["n"], payload["citations"][0]["status"]) == (
        "extractive",
        1,
        "supported",
    )


async def test_progress_tells_what_is_done(tmp_path: Path) -> None:
    """§9: strictly increasing, in words, only as the events tell it."""
    told: list[tuple[float, str | None]] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, message))

    async with asking(tmp_path) as client:
        await client.call_tool("answer", ASK, progress_callback=heard)
    assert [progress for progress, _ in told] == list(range(1, len(told) + 1))
    assert [message for _, message in told][:2] == ["retrieve: started", "lexical: ok"]
    assert {"3 sources", "writing from the sources"} <= {message for _, message in told}


async def test_an_answer_that_failed_is_an_error_with_its_limits(tmp_path: Path) -> None:
    searcher = FakeSearcher()
    searcher.failure = IndexUnavailable("no generation of shop can be served.", "Rebuild the index.")
    async with asking(tmp_path, searcher) as client:
        result = await client.call_tool("answer", ASK)
    told = json.loads(result.content[0].text)
    assert result.is_error
    assert (told["type"], told["limits"]) == ("urn:codeintel:problem:index-unavailable", [])


@pytest.mark.parametrize("question", ["", "x" * 8193])
async def test_a_question_that_cannot_be_asked_is_refused(tmp_path: Path, question: str) -> None:
    async with asking(tmp_path) as client:
        result = await client.call_tool("answer", {"question": question})
    assert result.is_error
    assert json.loads(result.content[0].text)["type"] == "urn:codeintel:problem:invalid-argument"


class SlowModel(FakeChat):
    """Says nothing for a minute. `heard` is set when it is asked."""

    def __init__(self) -> None:
        super().__init__([60.0, STOP])
        self.heard = asyncio.Event()

    async def count(self, messages: Sequence[Message]) -> int | None:
        self.heard.set()
        return await super().count(messages)


async def test_a_call_that_is_cancelled_ends_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """§9: the cancellation reaches the model."""
    chat = SlowModel()

    def parts(opened: Any, blocking: Any) -> Parts:
        return Parts(opened.searcher, opened.library, blocking.run, chat, "tiny")

    monkeypatch.setattr(context, "parts_of", parts)
    async with asking(tmp_path) as client:
        call = asyncio.ensure_future(client.call_tool("answer", {**ASK, "profile": "deep"}))
        async with asyncio.timeout(5):
            await chat.heard.wait()
            call.cancel()
            await asyncio.wait({call})
            await client.call_tool("index_status", {})
    (trace,) = read_traces(tmp_path / TRACES)
    assert (trace.status, trace.finish_reason) == ("cancelled", "client")
