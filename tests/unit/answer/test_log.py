"""The log of answers in one process: what is kept, for how long, and what is said of what is gone."""

from __future__ import annotations

import json

import pytest
from answers import run_virtually

from codeintel_rev.answer.events import Event, Failed, TextDelta
from codeintel_rev.answer.log import Ring, line, told
from codeintel_rev.errors import EventsGone, NotFound
from codeintel_rev.types import Limit, Line

FAILED = Failed(
    slug="retrieval-unavailable",
    title="Retrieval unavailable",
    status=503,
    detail="no channel of the search answered in time.",
    action="Ask again in a moment.",
    code="retrieval.all_timeout",
    stage="retrieve",
    retryable=True,
    trace_id="t1",
    limits=(Limit("channel-late", "lexical", "late", "wait"),),
    retry_after_ms=1500,
)


def lines(number: int, *, over: bool = False) -> list[Line]:
    kinds = ["text.delta"] * number
    if over:
        kinds[-1] = "answer.completed"
    return [Line(seq, kind, "{}", is_last=kind == "answer.completed") for seq, kind in enumerate(kinds)]


async def filled(ring: Ring, answer_id: str, kept: list[Line]) -> Ring:
    for one in kept:
        await ring.append(answer_id, one)
    return ring


def test_any_text_is_one_line_of_ascii() -> None:
    """A newline would end the frame, and half a surrogate pair could not be encoded."""
    text = "a\nb\r\u2028\x00 ⟦1⟧ \ud83d"
    made = line(told(Event(3, 1.25, TextDelta(text, 7)), "a1"))
    assert made.data.isascii()
    assert "\n" not in made.data
    assert json.loads(made.data) == {"type": "text.delta", "seq": 3, "t_ms": 1.2, "text": text, "offset": 7}


def test_a_failure_is_a_problem_document() -> None:
    """§2.4: the object that would have been the body, had nothing been sent before it."""
    failed = told(Event(2, 9.0, FAILED), "a1")
    assert set(failed) == {"type", "seq", "t_ms", "problem"}
    assert failed["problem"]["type"] == "urn:codeintel:problem:retrieval-unavailable"
    assert failed["problem"]["instance"] == "/answers/a1"
    ours = {"code", "stage", "retryable", "retry_after_ms", "trace_id", "limits", "action"}
    assert set(failed["problem"]) == {"type", "title", "status", "detail", "instance"} | ours


def test_lines_are_read_from_anywhere() -> None:
    async def work() -> list[list[int]]:
        ring = await filled(Ring(10, 60.0, lambda: 0.0), "a1", lines(4, over=True))
        return [[one.seq for one in await ring.read("a1", after, 0.0)] for after in (-1, 1, 3, 9)]

    assert run_virtually(work()) == [[0, 1, 2, 3], [2, 3], [], []]


@pytest.mark.parametrize(("over", "end"), [(True, 3), (False, None)])
def test_the_end_is_known_once_it_is_told(over: bool, end: int | None) -> None:
    async def work() -> int | None:
        return await (await filled(Ring(10, 60.0, lambda: 0.0), "a1", lines(4, over=over))).end("a1")

    assert run_virtually(work()) == end


def test_what_was_trimmed_is_told_as_gone() -> None:
    async def work() -> tuple[Line, ...]:
        ring = await filled(Ring(3, 60.0, lambda: 0.0), "a1", lines(5))
        with pytest.raises(EventsGone, match="events 0 to 1 are gone"):
            await ring.read("a1", -1, 0.0)
        return await ring.read("a1", 1, 0.0)

    assert [one.seq for one in run_virtually(work())] == [2, 3, 4]


def test_an_answer_is_forgotten_behind_its_time() -> None:
    now = [0.0]

    async def work() -> None:
        ring = await filled(Ring(10, 60.0, lambda: now[0]), "a1", lines(2))
        now[0] = 59.0
        await ring.append("a2", Line(0, "text.delta", "{}", is_last=False))
        await ring.append("a1", Line(2, "text.delta", "{}", is_last=False))
        now[0] = 118.0
        assert len(await ring.read("a1", -1, 0.0)) == 3
        now[0] = 119.0
        with pytest.raises(NotFound):
            await ring.read("a1", -1, 0.0)

    run_virtually(work())


def test_the_oldest_answer_makes_room() -> None:
    async def work() -> None:
        ring = Ring(10, 60.0, lambda: 0.0, most_answers=2)
        for name in ("a1", "a2", "a3"):
            await filled(ring, name, lines(1))
        assert await ring.end("a2") is None
        with pytest.raises(NotFound):
            await ring.end("a1")

    run_virtually(work())
