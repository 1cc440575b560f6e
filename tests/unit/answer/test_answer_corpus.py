"""Real questions over the real corpus, without a model: index, library and answer put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from codeintel_rev.answer.citations import resolve
from codeintel_rev.answer.events import CancelledBy, Completed, Event, Sources, text_of
from codeintel_rev.answer.library import OpenedLibrary
from codeintel_rev.answer.orchestrator import Question, answer
from codeintel_rev.answer.parts import Parts
from codeintel_rev.config.settings import AnswerSettings
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope


async def in_thread(work: Callable[[float], Any], deadline_ms: float) -> Any:
    return await asyncio.to_thread(work, deadline_ms)


async def answered(served: Shards, text: str) -> list[Event]:
    cancel: asyncio.Future[CancelledBy] = asyncio.get_running_loop().create_future()
    parts = Parts(served, OpenedLibrary(served), in_thread)
    question = Question(text, Scope(), "a", "t")
    settings = AnswerSettings(balanced_ms=60_000)
    return [event async for event in answer(question, parts, settings, cancel)]


@pytest.mark.parametrize(
    ("question", "start"),
    [
        ("How is an article put into the cart?", "`Cart.add_item` in `shop/cart.py`: Put an article into the cart;"),
        ("Where is LineItem defined?", "`LineItem` is defined in `"),
    ],
)
async def test_a_question_is_answered_from_the_index(served: Shards, question: str, start: str) -> None:
    events = await answered(served, question)
    last = events[-1].body
    assert isinstance(last, Completed)
    assert (last.status, last.limits) == ("extractive", ())
    assert text_of(events).startswith(start)
    assert last.confidence > 0.5


async def test_every_source_can_be_found_again_by_its_hash(served: Shards) -> None:
    events = await answered(served, "How is an article put into the cart?")
    (told,) = [event.body for event in events if isinstance(event.body, Sources)]
    for source in told.sources:
        standing = OpenedLibrary(served).standing(source.repo, source.path)
        found = resolve(source.content_sha256, source.start_line, source.end_line, standing)
        assert (found.state, found.start_line) == ("current", source.start_line)


async def test_what_the_index_does_not_hold_is_not_answered(served: Shards) -> None:
    last = (await answered(served, "How do I configure Kafka partitions?"))[-1].body
    assert isinstance(last, Completed)
    assert last.status == "abstained"
    assert last.confidence < 0.3
