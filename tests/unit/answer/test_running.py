"""Answers in tasks of their own, read from their log: what every reader may rely on (answers §2.3, §2.5)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest
from answers import STOP, FakeChat, FakeStore, Index, at_once, run_virtually
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.answer.log import PAUSE_S, Ring, Shared
from codeintel_rev.answer.parts import Parts
from codeintel_rev.answer.running import GRACE_S, SILENCE_S, Answers, Asked
from codeintel_rev.app.frames import encoder
from codeintel_rev.config.settings import AnswerSettings
from codeintel_rev.errors import EventsGone, InvalidArgument, NotFound, StoreUnavailable
from codeintel_rev.observability.answer_trace import AnswerTrace
from codeintel_rev.types import ChatEnd, Line, Scope

QUESTION = "How does `Cart.add` put an item into the cart?"
SAID = "`add` appends the item to `self.items` [1]. It raises `CartFull` [1]."


def answers(chat: FakeChat | None = None, *, store: FakeStore | None = None, index: Index | None = None) -> Answers:
    """Return a worker's answers, shared through `store` where there is one."""
    index, now = index or Index(), asyncio.get_running_loop().time
    ring = Ring(4096, 600.0, now)
    parts = Parts(index, index, at_once, chat, "tiny")  # type: ignore[arg-type]
    kept = Shared(ring, store, now) if store else ring
    return Answers(parts, AnswerSettings(), kept, lambda trace: None, store)


def new_store() -> FakeStore:
    return FakeStore(asyncio.get_running_loop().time)


def asked(profile: Any = "deep", *, traced: bool = False) -> Asked:
    return Asked(QUESTION, Scope(), profile, traced)


async def read(running: Answers, answer_id: str, after: int = -1, most: int | None = None) -> list[Line]:
    """Return the lines behind `after`, leaving behind the first `most`."""
    found: list[Line] = []
    async with aclosing(running.lines(answer_id, after)) as lines:
        async for one in lines:
            found += [one] if one else []
            if most is not None and len(found) >= most:
                break
    return found


def native(lines: list[Line]) -> list[str]:
    return [encoder("native")(one) for one in lines]


async def told(chat: FakeChat | None, **given: Any) -> list[Line]:
    running = answers(chat)
    return await read(running, await running.ask(asked(**given), "t1"))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return run_virtually(work)


pieces = st.lists(
    st.one_of(
        st.sampled_from(["`add` ", "appends ", "to items ", "[1", "]. ", "[9]. ", "It raises CartFull [1]. ", "\n\n"]),
        st.floats(0.0, 3.0),
    ),
    max_size=12,
)


@given(pieces, st.none() | st.floats(0.0, 12.0), st.integers(-1, 30), st.booleans(), st.booleans())
def test_every_reader_may_rely_on_the_same(
    script: list[Any], cancel_after: float | None, cut: int, ends: bool, traced: bool
) -> None:
    """§2.3: 1 numbers without a gap and the same bytes again, 2 one terminal event, last, 3 sources before text and
    every number among them, 4 the text hashes to what is told at the end."""

    async def work() -> tuple[list[Line], list[Line], list[Line]]:
        running = answers(FakeChat([*script, *([STOP] if ends else [])]), store=new_store())
        answer_id = await running.ask(asked(traced=traced), "t1")
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(
                cancel_after, lambda: asyncio.ensure_future(running.cancel(answer_id))
            )
        first = await read(running, answer_id, most=max(1, cut + 1))
        rest = [] if first[-1].is_last else await read(running, answer_id, first[-1].seq)
        return first, rest, await read(running, answer_id)

    first, rest, again = run(work())
    assert native(first) + native(rest) == native(again)
    assert [one.seq for one in again] == list(range(len(again)))
    assert [one.is_last for one in again] == [False] * (len(again) - 1) + [True]
    types = [one.type for one in again]
    events = [one.told() for one in again]
    numbers = {source["n"] for one in events if one["type"] == "sources" for source in one["sources"]}
    cited = {one["n"] for one in events if one["type"] == "citation" and one["status"] == "exists"}
    assert "text.delta" not in types or types.index("sources") < types.index("text.delta")
    assert cited <= numbers
    text = "".join(one["text"] for one in events if one["type"] == "text.delta")
    if types[-1] == "answer.completed":
        assert events[-1]["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    elif types[-1] == "answer.cancelled":
        assert events[-1]["text_len"] == len(text)
    assert types.count("trace") == int(traced)


def test_a_question_without_a_word_is_refused_before_anything_is_kept() -> None:
    async def work() -> None:
        running = answers()
        with pytest.raises(InvalidArgument):
            await running.ask(Asked("", Scope()), "t1")
        assert running._running == {}

    run(work())


def test_an_answer_nobody_reads_is_cancelled_at_once() -> None:
    """§2.5: not resumable, so nobody can come back."""

    async def work() -> Line:
        chat = FakeChat([SAID, 5.0, STOP])
        running = answers(chat)
        answer_id = await running.ask(asked(), "t1")
        await read(running, answer_id, most=3)
        await asyncio.sleep(0.1)
        assert chat.closed == len(chat.asked)
        return (await read(running, answer_id))[-1]

    last = run(work())
    assert (last.type, last.told()["by"]) == ("answer.cancelled", "disconnect")


def test_an_answer_nobody_comes_for_is_cancelled() -> None:
    """A connection may break before the first event is sent."""

    async def work() -> Line:
        running = answers(FakeChat([SAID, *["more ", 1.0] * 28, STOP]))
        answer_id = await running.ask(asked(), "t1")
        await asyncio.sleep(GRACE_S + 0.1)
        return (await read(running, answer_id))[-1]

    last = run(work())
    assert (last.type, last.told()["by"]) == ("answer.cancelled", "disconnect")


@pytest.mark.parametrize(("away_s", "end"), [(GRACE_S - 1, "answer.completed"), (GRACE_S + 1, "answer.cancelled")])
def test_a_reader_has_time_to_come_back_where_another_worker_could_answer(away_s: float, end: str) -> None:
    async def work() -> list[Line]:
        chat = FakeChat(["`add` appends the item [1]. ", *[part for _ in range(8) for part in (3.0, "more ")], STOP])
        running = answers(chat, store=new_store())
        answer_id = await running.ask(asked(), "t1")
        seen = await read(running, answer_id, most=3)
        await asyncio.sleep(away_s)
        return await read(running, answer_id, seen[-1].seq)

    assert run(work())[-1].type == end


def test_cancelling_twice_is_cancelling_once() -> None:
    async def work() -> Line:
        running = answers(FakeChat([SAID, 5.0, STOP]))
        answer_id = await running.ask(asked(), "t1")
        await running.cancel(answer_id)
        lines = await read(running, answer_id)
        await running.cancel(answer_id)
        assert await read(running, answer_id) == lines
        return lines[-1]

    last = run(work())
    assert (last.type, last.told()["by"]) == ("answer.cancelled", "client")


def test_nobody_can_cancel_what_is_not_there() -> None:
    async def work() -> None:
        with pytest.raises(NotFound):
            await answers().cancel("a guess")

    run(work())


def test_a_closing_process_ends_its_answers() -> None:
    async def work() -> Line:
        running = answers(FakeChat([SAID, 60.0, STOP]))
        answer_id = await running.ask(asked(), "t1")
        await asyncio.sleep(0.5)
        await running.close()
        return (await read(running, answer_id))[-1]

    assert run(work()).told()["by"] == "shutdown"


def test_a_silence_is_told() -> None:
    """The wire sends a heartbeat then."""

    async def work() -> list[str | None]:
        running = answers()
        end = Line(1, "answer.completed", "{}", is_last=True)
        await running.log.append("a1", Line(0, "answer.created", "{}", is_last=False))
        loop = asyncio.get_running_loop()
        loop.call_later(2.5 * SILENCE_S, lambda: asyncio.ensure_future(running.log.append("a1", end)))
        async with aclosing(running.lines("a1")) as lines:
            return [one.type if one else None async for one in lines]

    assert run(work()) == ["answer.created", None, None, "answer.completed"]


def test_a_bug_ends_the_answer_as_failed() -> None:
    """EOF without a terminal event would leave a client waiting for what went wrong."""

    async def work() -> Line:
        running = answers(index=Index(failure=ZeroDivisionError("secret")))
        return (await read(running, await running.ask(asked(), "t1")))[-1]

    last = run(work())
    assert last.type == "answer.failed"
    assert last.told()["problem"]["type"] == "urn:codeintel:problem:internal"
    assert "secret" not in last.data


def test_a_trace_comes_right_before_the_end_and_holds_no_text() -> None:
    traced = run(told(FakeChat([SAID, STOP]), traced=True))
    untraced = run(told(FakeChat([SAID, STOP])))
    assert [one.type for one in traced[-2:]] == ["trace", "answer.completed"]
    assert [one.type for one in untraced] == [one.type for one in traced if one.type != "trace"]
    row = traced[-2].told()["trace"]
    assert (row["status"], row["mode"], len(row["chunk_ids"]), row["supported_citations"]) == (
        "complete",
        "model",
        1,
        2,
    )
    assert "cart" not in traced[-2].data.lower().replace("shop/cart.py", "")


def test_every_answer_is_recorded() -> None:
    """C35: whatever it ended as."""

    async def work() -> list[AnswerTrace]:
        traces: list[AnswerTrace] = []
        for chat in (None, FakeChat([SAID, STOP]), FakeChat([SAID, 50.0, ChatEnd("stop", 1, 1, 0)])):
            running = answers(chat)
            running.record = traces.append
            answer_id = await running.ask(asked(), "t1")
            if chat and 50.0 in chat.script:
                await asyncio.sleep(1.0)
                await running.cancel(answer_id)
            await read(running, answer_id)
        return traces

    traces = run(work())
    assert [(one.status, one.mode) for one in traces] == [
        ("extractive", "extractive"),
        ("complete", "model"),
        ("cancelled", "model"),
    ]
    assert {(one.question, one.text) for one in traces} == {(None, None)}
    assert traces[1].cited_chunk_ids == traces[1].chunk_ids != ()


def test_the_text_of_an_answer_is_traced_where_an_operator_says_so() -> None:
    async def work() -> AnswerTrace:
        traces: list[AnswerTrace] = []
        running = answers(FakeChat([SAID, STOP]))
        running.record, running.settings = traces.append, AnswerSettings(trace_text=True)
        await read(running, await running.ask(asked(), "t1"))
        return traces[0]

    trace = run(work())
    assert (trace.question, trace.text) == (QUESTION, SAID)


def slow(times: int = 8) -> FakeChat:
    return FakeChat(["`add` appends the item [1]. ", *[part for _ in range(times) for part in (3.0, "more ")], STOP])


def test_every_worker_reads_the_same_bytes() -> None:
    """§2.3.1 over workers: while it is made and when it is over."""

    async def work() -> tuple[list[Line], ...]:
        store = new_store()
        here, there = answers(slow(), store=store), answers(store=store)
        answer_id = await here.ask(asked(), "t1")
        told = await asyncio.gather(read(here, answer_id), read(there, answer_id), read(there, answer_id, 5))
        return *told, await read(there, answer_id)

    here, there, behind, later = run(work())
    assert native(here) == native(there) == native(later)
    assert native(behind) == native(here)[6:]
    assert here[0].told()["resumable"]


def test_any_worker_cancels() -> None:
    """§2.5."""

    async def work() -> Line:
        store = new_store()
        here, there = answers(slow(), store=store), answers(store=store)
        listening = asyncio.create_task(here.listen())
        answer_id = await here.ask(asked(), "t1")
        await asyncio.sleep(1.0)
        await there.cancel(answer_id)
        await there.cancel(answer_id)
        last = (await read(there, answer_id))[-1]
        listening.cancel()
        return last

    last = run(work())
    assert (last.type, last.told()["by"]) == ("answer.cancelled", "client")


def test_a_reader_at_another_worker_keeps_an_answer_going() -> None:
    async def work() -> list[Line]:
        store = new_store()
        here, there = answers(slow(), store=store), answers(store=store)
        answer_id = await here.ask(asked(), "t1")
        seen = await read(here, answer_id, most=3)
        await asyncio.sleep(GRACE_S - 2)
        return await read(there, answer_id, seen[-1].seq)

    assert run(work())[-1].type == "answer.completed"


def test_an_answer_goes_on_without_the_store() -> None:
    """F20: whoever asked reads it to its end; the store is left alone for a while, not tried for every line."""

    async def work() -> tuple[list[Line], int]:
        store = new_store()
        running = answers(FakeChat(["`add` ", "appends ", "the item [1]. ", "It raises [1].", STOP]), store=store)
        store.is_down = True
        answer_id = await running.ask(asked(), "t1")
        lines, tried = await read(running, answer_id), store.tried
        assert await read(running, answer_id) == lines
        return lines, tried

    lines, tried = run(work())
    assert lines[-1].type == "answer.completed"
    assert tried == 1


def test_without_the_store_other_workers_say_so() -> None:
    async def work() -> None:
        store = new_store()
        here, there = answers(store=store), answers(store=store)
        answer_id = await here.ask(asked(), "t1")
        await read(here, answer_id)
        store.is_down = True
        for reach in (there.cancel(answer_id), there.all_lines(answer_id)):
            with pytest.raises(StoreUnavailable):
                await reach

    run(work())


def test_a_store_that_missed_lines_says_so_to_others() -> None:
    async def work() -> None:
        store = new_store()
        here, there = answers(slow(), store=store), answers(store=store)
        answer_id = await here.ask(asked(), "t1")
        store.is_down = True
        await asyncio.sleep(0.1)
        store.is_down = False
        await asyncio.sleep(PAUSE_S + 3.0)
        with pytest.raises(EventsGone):
            await read(there, answer_id)
        await here.close()

    run(work())


def test_cancels_are_heard_again_once_the_store_is_back() -> None:
    async def work() -> Line:
        store = new_store()
        here, there = answers(slow(), store=store), answers(store=store)
        store.is_down = True
        listening = asyncio.create_task(here.listen())
        await asyncio.sleep(1.0)
        store.is_down = False
        answer_id = await here.ask(asked(), "t1")
        await asyncio.sleep(PAUSE_S)
        await there.cancel(answer_id)
        last = (await read(there, answer_id))[-1]
        listening.cancel()
        return last

    assert run(work()).type == "answer.cancelled"
