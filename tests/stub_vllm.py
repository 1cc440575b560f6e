"""A vLLM that answers by script: the routes, shapes and failures of answers §1 and §6.1, down to single bytes.

`StubVLLM` is an ASGI application of one kind of server. A request is answered by the scenario its `X-Stub` header
names, or else by the next one of `script`, or else well. `StubTransport` runs it in the process without buffering what
it streams, which httpx's own ASGITransport does; `serving` runs it under a real Hypercorn.

The golden files are what vLLM 0.32.0 sent with random weights; in `engine_killed` its engine was killed by SIGKILL.
`aborted` is put together after vllm#57082.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from hypercorn.asyncio import serve
from hypercorn.config import Config

from codeintel_rev.io.vllm.blocking import wait_for

GOLDEN = Path(__file__).parent / "golden" / "vllm"
ROUTES = {
    "chat": {"/v1/chat/completions", "/tokenize"},
    "embed": {"/v1/embeddings", "/tokenize"},
    "score": {"/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/tokenize"},
    "tokens": {"/pooling", "/score", "/rerank", "/tokenize"},
}
DIM = 8
Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Broken(Exception):
    """The connection ends here, without the end of its body."""


@dataclass(frozen=True)
class Recorded:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(eq=False)
class StubVLLM:
    """One server of one `kind`. `cut` is the number of bytes written at once, 0 for one frame at a time; `forward`, the
    token vectors of token ids, where words are not enough."""

    kind: str = "chat"
    model: str = "tiny"
    key: str = ""
    max_model_len: int = 2048
    cut: int = 0
    newline: bytes = b"\n"
    routes: set[str] | None = None
    script: deque[str] = field(default_factory=deque)
    healthy: bool = True
    requests: list[Recorded] = field(default_factory=list)
    disconnects: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    forward: Callable[[list[int]], np.ndarray] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        exchange = Exchange(self, receive, send)
        try:
            await self._answer(scope["path"], headers, json.loads(body or b"{}"), exchange)
        finally:
            exchange.watch.cancel()

    async def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any], exchange: Exchange) -> None:
        if path == "/health":
            await exchange.reply(200 if self.healthy else 503, b"")
            return
        self.requests.append(Recorded(path, headers, body))
        self.arrived.set()
        guarded = path.startswith(("/v1", "/v2"))
        if self.key and guarded and headers.get("authorization") != f"Bearer {self.key}":
            await exchange.json(401, {"error": "Unauthorized"})
        elif path == "/v1/models":
            await exchange.json(200, models(self.model, self.max_model_len))
        elif path not in (self.routes or ROUTES[self.kind]):
            await exchange.json(404, {"detail": "Not Found"})
        elif body.get("model") != self.model:
            await exchange.error(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError", "model")
        elif path == "/tokenize":
            await exchange.json(200, tokenized(body, self.max_model_len))
        else:
            scenario = headers.get("x-stub") or (self.script.popleft() if self.script else "ok")
            await play(scenario, path, body, exchange)


class Exchange:
    """One request and what is sent back, byte by byte."""

    def __init__(self, stub: StubVLLM, receive: Receive, send: Send) -> None:
        self.stub = stub
        self._send = send
        self.watch = asyncio.ensure_future(self._watch(receive))

    async def reply(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        await self.start(status, headers)
        await self._send({"type": "http.response.body", "body": body})

    async def json(self, status: int, body: object, headers: Iterable[tuple[str, str]] = ()) -> None:
        await self.reply(status, json.dumps(body).encode(), [("content-type", "application/json"), *headers])

    async def error(
        self, status: int, message: str, kind: str, param: str | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        told = {"message": message, "type": kind, "param": param, "code": status}
        await self.json(status, {"error": told}, headers)

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes) -> None:
        data = data.replace(b"\n", self.stub.newline)
        size = self.stub.cut or len(data) or 1
        for start in range(0, len(data), size):
            await self._send({"type": "http.response.body", "body": data[start : start + size], "more_body": True})
            await asyncio.sleep(0)

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    async def hang(self) -> None:
        """Say nothing until the client goes away."""
        await self.watch

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stub.disconnects += 1
        self.stub.left.set()


async def play(scenario: str, path: str, body: dict[str, Any], exchange: Exchange) -> None:
    """Answer by `scenario`: its name, then its arguments, after colons."""
    name, *arguments = scenario.split(":")
    if name in REFUSALS:
        await REFUSALS[name](exchange, *arguments)
    elif name == "silent":
        await exchange.hang()
    elif name == "slow":
        await exchange.stub.released.wait()
        await play("ok", path, body, exchange)
    elif name == "raw":
        await exchange.reply(200, base64.b64decode(arguments[0]))
    elif is_too_long(body, exchange.stub.max_model_len):
        await prompt_too_long(exchange)
    elif path == "/v1/chat/completions":
        await chat(name, arguments, exchange)
    else:
        await pooled(name, path, body, exchange)


def is_too_long(body: dict[str, Any], max_model_len: int) -> bool:
    """Return whether one of the texts is, and nothing says to cut it."""
    if "messages" in body:
        return bool(tokenized(body, max_model_len)["count"] > max_model_len)
    limits = ("max_tokens_per_doc", "truncate_prompt_tokens", "truncate")
    texts = body.get("input", body.get("texts", body.get("documents", [])))
    return not any(body.get(limit) for limit in limits) and any(
        len(text.split() if isinstance(text, str) else text) > max_model_len for text in texts
    )


async def retry_after(exchange: Exchange, status: str = "429", *header: str) -> None:
    asked = [(header[0], ":".join(header[1:]))] if header else []
    await exchange.error(int(status), "Too many requests", "Service Unavailable", headers=asked)


async def prompt_too_long(exchange: Exchange) -> None:
    await exchange.error(400, "This model's maximum context length is 2048 tokens.", "BadRequestError", "input_tokens")


async def huge(exchange: Exchange) -> None:
    """Never stop sending, until the client has enough."""
    await exchange.start(200, [("content-type", "application/json")])
    while not exchange.watch.done():
        await exchange.write(b" " * 2**20)


REFUSALS: dict[str, Callable[..., Awaitable[None]]] = {
    "status": retry_after,
    "prompt_too_long": prompt_too_long,
    "model_unknown": lambda exchange: exchange.error(404, "does not exist", "NotFoundError", "model"),
    "route_unknown": lambda exchange: exchange.json(404, {"detail": "Not Found"}),
    "unauthorized": lambda exchange: exchange.json(401, {"error": "Unauthorized"}),
    "huge": huge,
}


def golden(name: str) -> list[bytes]:
    """Return the frames of a golden stream, each with its blank line."""
    return [frame + b"\n\n" for frame in (GOLDEN / name).read_bytes().split(b"\n\n") if frame.strip()]


def framed(payload: object) -> bytes:
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """Return a chunk as vLLM writes it."""
    content = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": {**content, **more}, "logprobs": None, "finish_reason": finish, "token_ids": None}
    return framed({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "tiny", "choices": [choice]})


ROLE = delta("", role="assistant")
DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 18,
    "total_tokens": 22,
    "completion_tokens": 4,
    "prompt_tokens_details": {"cached_tokens": 16},
}
USAGE_FRAME = framed({"id": "chatcmpl-1", "choices": [], "usage": USAGE})
ERROR_FRAME = framed(
    {
        "error": {
            "message": "EngineCore encountered an issue.",
            "type": "InternalServerError",
            "param": None,
            "code": 500,
        }
    }
)
HELLO = [ROLE, delta("re"), delta("turn"), delta(" result", "stop")]
STREAMS: dict[str, list[bytes]] = {
    "ok": [*HELLO, USAGE_FRAME, DONE],
    "length": [ROLE, delta("re"), delta("turn", "length"), USAGE_FRAME, DONE],
    "tool_calls": [ROLE, delta("re", "tool_calls"), DONE],
    "no_done": HELLO,
    "usage_on_last": [*HELLO[:-1], framed({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE})],
    "no_usage": [*HELLO, DONE],
    "comments": [b": keep-alive\n\n", *HELLO[:2], b": keep-alive\n\n", *HELLO[2:], USAGE_FRAME, DONE],
    "reasoning": [ROLE, delta(reasoning="hm"), delta(reasoning_content="well"), *HELLO[1:], USAGE_FRAME, DONE],
    "error_mid": [*HELLO[:3], ERROR_FRAME, DONE],
    "error_first": [ERROR_FRAME, DONE],
    "error_after_finish": [*HELLO, ERROR_FRAME, DONE],
    "error_too_long": [framed({"error": {"message": "", "code": "context_length_exceeded"}}), DONE],
    "error_string": [ROLE, framed({"error": "overloaded"})],
    "abort_mid": [*HELLO[:3], delta("", "abort"), USAGE_FRAME, DONE],
    "done_without_finish": [*HELLO[:3], DONE],
    "done_only": [DONE],
    "eof_without_done": HELLO[:3],
    "cut_in_last_frame": [*HELLO[:3], HELLO[3][:-2]],
    "zero_bytes": [],
    "comments_only": [b": keep-alive\n\n"],
    "unknown_finish": [*HELLO[:3], delta("", "exploded"), DONE],
    "finish_no_string": [*HELLO[:3], delta("", 7), DONE],  # type: ignore[arg-type]
    "not_json": [ROLE, b"data: {oh no\n\n", *HELLO[1:], DONE],
    "not_an_object": [ROLE, b"data: [1]\n\n", *HELLO[1:], DONE],
    "nan": [ROLE, b'data: {"choices": [], "usage": NaN}\n\n', *HELLO[1:], DONE],
    "long_line": [ROLE, b"data: " + b"x" * 2**20, *HELLO[1:], DONE],
    "invalid_utf8": [ROLE, b'data: {"choices": [], "x": "\xff"}\n\n', *HELLO[1:], DONE],
    "choices_null": [ROLE, framed({"choices": None}), *HELLO[1:], DONE],
    "choices_missing": [ROLE, framed({"id": "chatcmpl-1"}), *HELLO[1:], DONE],
    "second_choice": [ROLE, framed({"choices": [{"index": 1, "delta": {"content": "x"}}]}), *HELLO[1:], DONE],
    "two_choices": [ROLE, framed({"choices": [{"index": 0}, {"index": 1}]}), *HELLO[1:], DONE],
    "content_no_text": [ROLE, delta(content=7), *HELLO[1:], DONE],
    "text_after_finish": [*HELLO, delta("more"), DONE],
    "html": [b"<html>sign in</html>"],
    "cites": [ROLE, delta("A card is charged"), delta(" by pay ⟦"), delta("1⟧."), delta("", "stop"), USAGE_FRAME, DONE],
}


async def chat(name: str, arguments: list[str], exchange: Exchange) -> None:
    if name == "chat_json":
        await exchange.json(200, {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]})
        return
    await exchange.start(200, [("content-type", "text/event-stream; charset=utf-8")])
    if name in {"stall", "broken", "endless"}:
        for frame in HELLO[: int(arguments[0]) if arguments else 2]:
            await exchange.write(frame)
    if name == "stall":
        await exchange.hang()
    elif name == "broken":
        raise Broken
    elif name == "endless":
        while not exchange.watch.done():
            await exchange.write(delta("more "))
    else:
        for frame in golden(arguments[0]) if name == "golden" else STREAMS[name]:
            await exchange.write(frame)
        await exchange.end()


async def pooled(name: str, path: str, body: dict[str, Any], exchange: Exchange) -> None:
    if path == "/v1/embeddings":
        await embedded(name, body, exchange)
    elif path == "/pooling":
        await token_embedded(name, body, exchange)
    else:
        await scored(name, path, body, exchange)


def words(text: str, body: dict[str, Any]) -> list[str]:
    """Return the tokens read of `text`: its words, at most as many as asked for."""
    limit = body.get("truncate_prompt_tokens") or 0
    return text.split()[: limit if limit > 0 else None]


def vector(text: str) -> np.ndarray:
    """Return the unit vector of a text, (DIM,) float32."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    drawn = np.random.default_rng(seed).standard_normal(DIM)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def spoilt(name: str, rows: list[Any]) -> list[Any]:
    """Return `rows` as the scenario `name` sends them."""
    changed = {
        "permuted": lambda: rows[::-1],
        "missing": lambda: rows[:-1],
        "twice": lambda: [*rows[:-1], rows[0]],
        "extra": lambda: [*rows, {**rows[0], "index": len(rows)}],
        "no_index": lambda: [{key: value for key, value in row.items() if key != "index"} for row in rows],
        "true_index": lambda: [{**row, "index": True} for row in rows],
        "rows_no_objects": lambda: [1 for _ in rows],
    }
    return changed.get(name, lambda: rows)()


async def embedded(name: str, body: dict[str, Any], exchange: Exchange) -> None:
    if not body["input"]:
        await exchange.error(400, "input is empty", "Bad Request", "body.input")
        return
    vectors = [vector(" ".join(words(text, body))) for text in body["input"]]
    if name == "nan":
        vectors[-1] = vectors[-1] * np.nan
    elif name == "infinite":
        vectors[-1] = vectors[-1] + np.inf
    elif name == "zero":
        vectors[-1] = vectors[-1] * 0
    elif name == "ragged":
        vectors[-1] = vectors[-1][:-1]
    elif name == "narrow":
        vectors = [each[:-1] for each in vectors]
    as_text = body.get("encoding_format") == "base64" and name != "floats"
    rows = [
        {
            "index": index,
            "object": "embedding",
            "embedding": base64.b64encode(each.astype("<f4").tobytes()).decode() if as_text else each.tolist(),
        }
        for index, each in enumerate(vectors)
    ]
    if name in {"no_base64", "half_number"}:
        rows[0]["embedding"] = "###" if name == "no_base64" else "AAAA"
    if name == "no_numbers":
        rows[0]["embedding"] = [True] * DIM
    await exchange.json(200, {"id": "embd-1", "object": "list", "data": spoilt(name, rows)})


def word_vectors(text: str, body: dict[str, Any]) -> np.ndarray:
    """Return the vectors of the words of a text, (n, DIM) float32."""
    return np.stack([vector(word) for word in words(text, body)] or [vector("")])


async def token_embedded(name: str, body: dict[str, Any], exchange: Exchange) -> None:
    forward = exchange.stub.forward
    arrays = [forward(each) if forward else word_vectors(each, body) for each in body["input"]]
    if name == "nan":
        arrays[-1][0, 0] = np.nan
    if name in {"float", "ragged"}:
        rows: list[Any] = [{"index": index, "data": array.tolist()} for index, array in enumerate(arrays)]
        if name == "ragged":
            rows[0]["data"][0].pop()
        await exchange.json(200, {"data": rows})
        return
    if name == "base64":
        texts = [base64.b64encode(array.astype("<f4").tobytes()).decode() for array in arrays]
        await exchange.json(200, {"data": [{"index": index, "data": text} for index, text in enumerate(texts)]})
        return
    order, dtype = ("big", ">f2") if name == "big" else ("little", "<f2")
    parts = [array.astype(dtype).tobytes() for array in arrays]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    data = [
        {
            "index": index,
            "embed_dtype": "float16",
            "endianness": order,
            "start": end - len(part),
            "end": end,
            "shape": list(array.shape),
        }
        for index, (part, end, array) in enumerate(zip(parts, ends, arrays, strict=True))
    ]
    if name == "bad_shape":
        data[0]["shape"] = [7, DIM]
    if name == "bad_dtype":
        data[0]["embed_dtype"] = "fp8_e4m3"
    metadata = "{oh no" if name == "bad_metadata" else json.dumps({"id": "pooling-1", "data": spoilt(name, data)})
    await exchange.reply(200, b"".join(parts), [("metadata", metadata)])


async def scored(name: str, path: str, body: dict[str, Any], exchange: Exchange) -> None:
    query = body.get("queries") if path == "/score" else body.get("query")
    documents = body.get("texts", body.get("documents"))
    if query is None or not documents:
        await exchange.error(400, "Field required", "Bad Request", "body.queries")
        return
    values: list[Any] = [float(vector(query) @ vector(document)) for document in documents]
    if name == "equal":
        values = [0.5 for _ in values]
    elif name in {"nan", "infinite"}:
        values[-1] = float("nan") if name == "nan" else float("inf")
    elif name == "no_number":
        values[-1] = "high"
    elif name == "true":
        values[-1] = True
    if path == "/score" and name not in {"results", "list"}:
        rows = [{"index": index, "object": "score", "score": value} for index, value in enumerate(values)]
        await exchange.json(200, {"id": "score-1", "object": "list", "data": spoilt(name, rows)})
        return
    key = "score" if name == "list" or path == "/rerank" else "relevance_score"
    rows = [{"index": index, key: value} for index, value in enumerate(values)]
    rows.sort(key=lambda row: -row[key])
    await exchange.json(200, spoilt(name, rows) if key == "score" else {"id": "score-1", "results": spoilt(name, rows)})


def models(model: str, max_model_len: int) -> dict[str, Any]:
    card = {"id": model, "object": "model", "owned_by": "vllm", "root": f"./{model}", "max_model_len": max_model_len}
    return {"object": "list", "data": [card]}


def tokenized(body: dict[str, Any], max_model_len: int) -> dict[str, Any]:
    texts = [message["content"] for message in body["messages"]] if "messages" in body else [body["prompt"]]
    count = sum(len(text.split()) for text in texts) + 4 * len(texts)
    return {"count": count, "max_model_len": max_model_len, "tokens": list(range(count))}


class StubTransport(httpx.AsyncBaseTransport):
    """Runs an ASGI application for a client of httpx, and hands on what it sends as it sends it."""

    def __init__(self, app: StubVLLM) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        running = _Running(self._app, request, body)
        try:
            status, headers = await running.started()
        except BaseException:
            await running.aclose()
            raise
        return httpx.Response(status, headers=headers, stream=running)


class _Running(httpx.AsyncByteStream):
    def __init__(self, app: StubVLLM, request: httpx.Request, body: bytes) -> None:
        self._messages: asyncio.Queue[Message | Exception | None] = asyncio.Queue(maxsize=1)
        self._gone = asyncio.Event()
        self._unread = [body]
        scope = {"type": "http", "method": request.method, "path": request.url.path}
        headers = [(name.lower(), value) for name, value in request.headers.raw]
        self._task = asyncio.ensure_future(self._run(app, {**scope, "headers": headers}))

    async def started(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        message = await self._messages.get()
        if not isinstance(message, dict):
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return message["status"], message["headers"]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            if isinstance(message, Exception):
                raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
            yield message.get("body", b"")
            if not message.get("more_body"):
                return

    async def aclose(self) -> None:
        self._gone.set()
        with suppress(asyncio.QueueEmpty):
            self._messages.get_nowait()
        await asyncio.wait({self._task})

    async def _run(self, app: StubVLLM, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Broken as broken:
            await self._messages.put(broken)
        else:
            if not self._gone.is_set():
                await self._messages.put(None)

    async def _receive(self) -> Message:
        if self._unread:
            return {"type": "http.request", "body": self._unread.pop()}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._gone.is_set():
            await self._messages.put(message)


@contextmanager
def in_background(app: StubVLLM) -> Iterator[str]:
    """Yield the URL of a real server of `app`, for those who wait in plain threads."""
    server = serving(app)

    async def start() -> str:
        return await server.__aenter__()

    async def stop() -> None:
        await server.__aexit__(None, None, None)

    yield wait_for(start())
    wait_for(stop())


@asynccontextmanager
async def serving(app: StubVLLM) -> AsyncIterator[str]:
    """Yield the URL of a real server of `app`, in this event loop."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listening.fileno()}"]
    config.errorlog = None
    config.graceful_timeout = 0.0
    stop = asyncio.Event()
    task = asyncio.ensure_future(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        stop.set()
        await asyncio.wait({task})
