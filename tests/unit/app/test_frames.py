"""What an answer looks like to clients that speak another protocol; golden files show whole streams (answers §2.6)."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from codeintel_rev.answer.events import (
    Body,
    Cancelled,
    Citation,
    CitationChecked,
    CitationCounts,
    Completed,
    Created,
    Event,
    Evidence,
    Extract,
    ExtractItem,
    Failed,
    Limited,
    Source,
    Sources,
    StageEvent,
    TextContext,
    TextDelta,
    TextStarted,
    Usage,
)
from codeintel_rev.answer.log import line, told
from codeintel_rev.app.answer_routes import frames as written
from codeintel_rev.app.frames import DONE, Dialect, encoder
from codeintel_rev.types import Limit, Line

GOLDEN = Path(__file__).parents[2] / "golden"
SOURCE = Source(1, 7, "shop", "c0ffee", "shop/cart.py", 10, 17, "add", "python", "0f", "", {"lexical": 1}, 0.5, False)
CONTEXT = TextContext(1, 40, 0)
LIMIT = Limit("synthesis.stall", "synthesis", "The model said nothing for 1500 ms.", "The extractive answer follows.")
START: tuple[Body, ...] = (
    Created("a1", "t1", False, 8000.0, "balanced", "behaviour"),
    StageEvent("retrieve", "ok", 12.5, 700.0, 30),
    Sources((SOURCE,), {"shop": "01"}),
    Extract((ExtractItem(1, (10, 11), "`add` puts an item into the cart."),)),
)
WRITTEN: tuple[Body, ...] = (
    TextStarted("tiny", CONTEXT),
    TextDelta("It appends “the item” [1]", 0),
    Citation(0, 1, 22, (0, 22), "exists", (16, 17)),
    CitationChecked(0, "supported", 0.8, (Evidence(17, ("append", "item")),)),
    TextDelta(".", 25),
)
GIVEN_UP: tuple[Body, ...] = (
    TextStarted("tiny", CONTEXT),
    TextDelta("Perhaps", 0),
    Limited(LIMIT.code, LIMIT.stage, LIMIT.action, LIMIT.detail, 1500.0, 1500.2),
    TextStarted("", CONTEXT, 7),
    TextDelta("`add` puts an item into the cart. [1]", 7),
)
FAILED = Failed("retrieval-unavailable", "Retrieval unavailable", 503, "no channel answered.", "Ask again.",
                "retrieval.all_timeout", "retrieve", True, "t1", (LIMIT,), 1500)  # fmt: skip
STREAMS: dict[str, tuple[Body, ...]] = {
    "complete": (
        *START,
        *WRITTEN,
        Usage(90, 11, None, 120.0, 40.0),
        Completed("complete", "stop", 0.75, (), "0f", CitationCounts(1, 1)),
    ),
    "given up": (*START, *GIVEN_UP, Completed("extractive", "extractive", 0.5, (LIMIT,), "0f", CitationCounts(1, 1))),
    "failed": (START[0], FAILED),
    "cancelled": (*START, *WRITTEN[:2], Cancelled("client", 25)),
}


def frames(name: str, dialect: Dialect) -> list[str]:
    encode = encoder(dialect)
    events = (Event(seq, 10.0 * seq, body) for seq, body in enumerate(STREAMS[name]))
    return [encode(line(told(event, "a1"))) for event in events]


def objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON of every frame but the last, which is the end."""
    data = [frame.removeprefix("data: ") for frame in text.removesuffix("\n\n").split("\n\n")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


@pytest.mark.parametrize("dialect", ["native", "vercel", "openai"])
def test_a_stream_is_as_reviewed(dialect: Dialect) -> None:
    shown = "".join(f"--- {name}\n{''.join(frames(name, dialect))}" for name in STREAMS)
    assert shown == (GOLDEN / f"answer_{dialect}.txt").read_text()


@pytest.mark.parametrize("name", STREAMS)
def test_vercel_parts_open_and_close_in_turn(name: str) -> None:
    """Its client refuses a delta of a part that is not open, and a message that does not end."""
    parts = objects("".join(frames(name, "vercel")))
    opened: list[str] = []
    for part in parts:
        match part["type"]:
            case "text-start":
                opened.append(part["id"])
            case "text-delta":
                assert part["id"] == opened[-1]
            case "text-end":
                assert opened.pop() == part["id"]
    assert opened == []
    assert parts[0]["type"] == "start"
    assert parts[-1]["type"] in ("finish", "error", "abort")


@pytest.mark.parametrize(
    ("name", "text", "end"),
    [
        ("complete", "It appends “the item” [1].", "stop"),
        ("given up", "Perhaps\n\n`add` puts an item into the cart. [1]", "stop"),
        ("failed", "", None),
        ("cancelled", "It appends “the item” [1]", None),
    ],
)
def test_openai_chunks_make_the_text_and_a_good_end_only_of_a_good_answer(
    name: str, text: str, end: str | None
) -> None:
    """§2.3.7: a client that knows no cancelled answer must not take it for a whole one."""
    chunks = objects("".join(frames(name, "openai")))
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == text
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ([end] if end else [])
    assert ["error" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [end is None]
    assert {chunk["id"] for chunk in chunks if "choices" in chunk} == {"chatcmpl-a1"}


@pytest.mark.parametrize("dialect", ["vercel", "openai"])
def test_a_dialect_says_once_that_it_is_done(dialect: Dialect) -> None:
    for name in STREAMS:
        told = frames(name, dialect)
        assert [DONE in frame for frame in told] == [False] * (len(told) - 1) + [True]


async def test_a_silence_is_a_comment_without_an_id() -> None:
    """§2.1: it must not change what a client takes up the stream from."""

    async def lines() -> AsyncGenerator[Line | None, None]:
        for seen, body in enumerate(STREAMS["failed"]):
            yield None
            yield line(told(Event(seen, 0.0, body), "a1"))

    sent = [frame async for frame in written(lines(), "native", -1)]
    assert sent[:2] == ["retry: 2000\n\n", ": hb\n\n"]
    assert [frame.partition("\n")[0] for frame in sent[2:]] == ["event: answer.created", ": hb", "event: answer.failed"]
