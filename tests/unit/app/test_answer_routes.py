"""Answers over HTTP: framing, reading again, cancelling, leaving; the JSON beside the stream (answers §2)."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from answers import STOP, FakeChat
from fakes import FakeSearcher, opened_fakes
from fastapi import FastAPI

from codeintel_rev.answer.parts import Parts
from codeintel_rev.app import context
from codeintel_rev.app.main import create_app
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import IndexUnavailable
from codeintel_rev.io.trace_store import TRACES, read_traces
from codeintel_rev.types import Message

ASK = {"question": "Where is a card charged?"}
AS_JSON = {"accept": "application/json"}
POST = {"content-type": "application/json"}


@asynccontextmanager
async def serving(folder: Path, searcher: FakeSearcher | None = None, **settings: Any) -> AsyncIterator[FastAPI]:
    made = Settings.model_validate({"paths": {"data_dir": folder}, **settings})
    app = create_app(made, lambda _: opened_fakes(searcher))
    async with app.router.lifespan_context(app):
        yield app


def calling(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8787")


@asynccontextmanager
async def http(folder: Path, searcher: FakeSearcher | None = None, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(folder, searcher, **settings) as app, calling(app) as client:
        yield client


class Connection:
    """One POST /answer, read as it comes, as a socket would: the in-memory client waits for the end."""

    def __init__(self, app: FastAPI, question: dict[str, Any], accept: str = "text/event-stream") -> None:
        self.sent = asyncio.Event()
        self.body = ""
        self.headers: dict[str, str] = {}
        self._left = asyncio.Event()
        self._asked = False
        self._question = json.dumps(question).encode()
        headers = {"host": "127.0.0.1:8787", "content-type": "application/json", "accept": accept}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/answer",
            "raw_path": b"/answer",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "server": ("127.0.0.1", 8787),
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def until(self, event: str) -> None:
        """Wait for an event of this type."""
        async with asyncio.timeout(5):
            while f"event: {event}\n" not in self.body:
                self.sent.clear()
                await self.sent.wait()

    async def leave(self) -> None:
        self._left.set()
        await self.task

    async def _receive(self) -> dict[str, Any]:
        if self._asked:
            await self._left.wait()
            return {"type": "http.disconnect"}
        self._asked = True
        return {"type": "http.request", "body": self._question, "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.body += message.get("body", b"").decode()
        self.sent.set()


def events(body: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in body.split("\n") if line.startswith("data: ")]


class SlowModel(FakeChat):
    """Says one sentence and then nothing for a minute. `heard` is set when it is asked."""

    def __init__(self) -> None:
        super().__init__(["`pay` charges a card [1]. ", 60.0, STOP])
        self.heard = asyncio.Event()

    async def count(self, messages: Sequence[Message]) -> int | None:
        self.heard.set()
        return await super().count(messages)


@pytest.fixture
def slow_model(monkeypatch: pytest.MonkeyPatch) -> SlowModel:
    """Answers are written by it."""
    chat = SlowModel()
    monkeypatch.setattr(
        context, "parts_of", lambda opened, blocking: Parts(opened.searcher, opened.library, blocking.run, chat, "tiny")
    )
    return chat


async def test_an_answer_is_a_stream_of_frames(tmp_path: Path) -> None:
    """§2.1: event, id and one line of data; `retry` once; no cache and no buffering in between."""
    async with http(tmp_path) as client:
        answer = await client.post("/answer", json=ASK)
    headers = answer.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
    assert headers["traceparent"]
    retry, *frames = answer.text.removesuffix("\n\n").split("\n\n")
    assert retry == "retry: 2000"
    told = events(answer.text)
    assert [frame.split("\n")[:2] for frame in frames] == [[f"event: {e['type']}", f"id: {e['seq']}"] for e in told]
    assert (told[0]["answer_id"], told[0]["resumable"]) == (headers["x-answer-id"], False)
    assert told[-1]["type"] == "answer.completed"


@pytest.mark.parametrize("by", ["?after={}", "Last-Event-ID"])
async def test_what_was_read_can_be_read_on_from_anywhere(tmp_path: Path, by: str) -> None:
    """§2.3.1: byte for byte."""
    async with http(tmp_path) as client:
        first = await client.post("/answer", json=ASK)
        frames = first.text.removesuffix("\n\n").split("\n\n")[1:]
        address = f"/answers/{first.headers['x-answer-id']}/events"
        for seen in range(len(frames) - 1):
            query, headers = (by.format(seen), {}) if by.startswith("?") else ("", {by: str(seen)})
            again = await client.get(address + query, headers=headers)
            assert again.text.removesuffix("\n\n").split("\n\n") == ["retry: 2000", *frames[seen + 1 :]]
        query, headers = (by.format(len(frames) - 1), {}) if by.startswith("?") else ("", {by: str(len(frames) - 1)})
        assert (await client.get(address + query, headers=headers)).status_code == 204


async def test_the_object_is_the_stream_folded(tmp_path: Path) -> None:
    """§2.3.4, 6: the same text, its hash, and the citations, now and later."""
    async with http(tmp_path) as client:
        whole = await client.post("/answer", json=ASK, headers=AS_JSON)
        later = await client.get(f"/answers/{whole.headers['x-answer-id']}")
        streamed = await client.get(f"/answers/{whole.headers['x-answer-id']}/events")
    body = whole.json()
    assert later.json() == body
    assert body["text"] == "".join(one["text"] for one in events(streamed.text) if one["type"] == "text.delta")
    assert body["text_sha256"] == hashlib.sha256(body["text"].encode()).hexdigest()
    assert (body["status"], body["sources"][0]["path"]) == ("extractive", "src/pay.py")
    assert {one["status"] for one in body["citations"]} == {"supported"}


@pytest.mark.parametrize(
    ("method", "path", "given", "status", "slug"),
    [
        ("POST", "/answer", {"json": {"question": ""}}, 400, "invalid-argument"),
        ("POST", "/answer", {"json": {"question": "x" * 8193}}, 400, "invalid-argument"),
        ("POST", "/answer", {"json": {"question": "x", "deep": True}}, 422, "invalid-argument"),
        ("POST", "/answer", {"json": {"question": "x", "profile": "slow"}}, 422, "invalid-argument"),
        ("POST", "/answer?dialect=klingon", {"json": ASK}, 422, "invalid-argument"),
        ("GET", "/answers/a-guess", {}, 404, "not-found"),
        ("GET", "/answers/a-guess/events", {}, 404, "not-found"),
        ("POST", "/answers/a-guess/cancel", {"headers": POST}, 404, "not-found"),
        ("GET", "/answers/x/events?after=-1", {}, 422, "invalid-argument"),
        ("GET", "/answers/x/events", {"headers": {"last-event-id": "many"}}, 422, "invalid-argument"),
    ],
)
async def test_a_refusal_comes_before_the_first_byte(
    tmp_path: Path, method: str, path: str, given: dict[str, Any], status: int, slug: str
) -> None:
    """§2.4: the real status and a problem document."""
    async with http(tmp_path) as client:
        answer = await client.request(method, path, **given)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["type"] == f"urn:codeintel:problem:{slug}"


async def test_a_failure_is_the_same_problem_in_the_stream_and_as_a_body(tmp_path: Path) -> None:
    searcher = FakeSearcher()
    searcher.failure = IndexUnavailable("no generation of shop can be served.", "Rebuild the index.")
    async with http(tmp_path, searcher) as client:
        streamed = await client.post("/answer", json=ASK)
        body = await client.post("/answer", json=ASK, headers=AS_JSON)
    told = events(streamed.text)[-1]
    assert (told["type"], streamed.status_code) == ("answer.failed", 200)
    assert (body.status_code, body.headers["content-type"]) == (503, "application/problem+json")
    assert {**told["problem"], "instance": "", "trace_id": ""} == {**body.json(), "instance": "", "trace_id": ""}
    assert body.json()["code"] == "retrieval.index-unavailable"


async def test_what_was_trimmed_is_gone(tmp_path: Path) -> None:
    async with http(tmp_path, answer={"log_lines": 16}) as client:
        answer = await client.post("/answer", json={"question": "charge a card, put an item in, retry again"})
        assert events(answer.text)[-1]["seq"] > 16
        again = await client.get(f"/answers/{answer.headers['x-answer-id']}/events?after=0")
        folded = await client.get(f"/answers/{answer.headers['x-answer-id']}")
    assert (again.status_code, folded.status_code) == (410, 410)


async def test_cancelling_is_accepted_however_often(tmp_path: Path, slow_model: SlowModel) -> None:
    """§2.5: at once, and what was said until then is kept."""
    async with serving(tmp_path) as app, calling(app) as client:
        asking = Connection(app, {**ASK, "profile": "deep"})
        await asking.until("text.delta")
        address = f"/answers/{asking.headers['x-answer-id']}"
        assert (await client.get(address)).json()["status"] == "running"
        codes = [(await client.post(f"{address}/cancel", headers=POST)).status_code for _ in range(3)]
        await asking.task
        body = (await client.get(address)).json()
        assert (await client.post(f"{address}/cancel", headers=POST)).status_code == 202
    assert codes == [202, 202, 202]
    assert events(asking.body)[-1] == {**events(asking.body)[-1], "type": "answer.cancelled", "by": "client"}
    assert (body["status"], body["text"]) == ("cancelled", "".join(_texts(asking.body)))
    assert slow_model.closed == 1


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_who_leaves_cancels(tmp_path: Path, slow_model: SlowModel, accept: str) -> None:
    """§2.5: the model server's stream is closed, not left to write for nobody."""
    async with serving(tmp_path) as app:
        asking = Connection(app, {**ASK, "profile": "deep"}, accept)
        async with asyncio.timeout(5):
            await slow_model.heard.wait()
            await asking.leave()
    assert slow_model.closed == len(slow_model.asked)
    (trace,) = read_traces(tmp_path / TRACES)
    assert (trace.status, trace.finish_reason) == ("cancelled", "disconnect")


async def test_a_server_that_stops_says_so(tmp_path: Path, slow_model: SlowModel) -> None:
    async with serving(tmp_path) as app:
        asking = Connection(app, {**ASK, "profile": "deep"})
        await asking.until("text.delta")
    await asking.task
    assert events(asking.body)[-1]["by"] == "shutdown"


async def test_an_answer_is_traced_on_disk_and_on_demand(tmp_path: Path) -> None:
    """C35: the event and the row are the same."""
    async with http(tmp_path) as client:
        answer = await client.post("/answer", json={**ASK, "trace": True})
        await client.post("/answer", json=ASK)
    told = next(one["trace"] for one in events(answer.text) if one["type"] == "trace")
    first, second = read_traces(tmp_path / TRACES)
    assert told == json.loads(json.dumps({name: getattr(first, name) for name in told}))
    assert (second.status, second.question, second.trace_id == first.trace_id) == ("extractive", None, False)


@pytest.mark.parametrize("dialect", ["vercel", "openai"])
async def test_a_dialect_is_taken_up_where_it_was_left(tmp_path: Path, dialect: str) -> None:
    async with http(tmp_path) as client:
        first = await client.post(f"/answer?dialect={dialect}", json=ASK)
        address = f"/answers/{first.headers['x-answer-id']}/events?dialect={dialect}"
        whole = await client.get(address)
        parts = [(await client.get(f"{address}&after={seen}")).text for seen in (2, 5)]
    assert whole.text == first.text
    assert first.text.endswith("data: [DONE]\n\n")
    assert all(whole.text.endswith(part.removeprefix("retry: 2000\n\n")) for part in parts)
    assert len(parts[1]) < len(parts[0]) < len(whole.text)


def _texts(body: str) -> list[str]:
    return [one["text"] for one in events(body) if one["type"] == "text.delta"]
