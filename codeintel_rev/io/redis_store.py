"""What workers share about answers, in Redis: lines, who reads, who cancels.

answer:{id}          stream: an entry a line, its id 0-<seq + 1>, fields type, data, last; MAXLEN, EXPIRE
answer:{id}:reader   there while somebody reads at another worker than the one that makes the answer
answer:cancel        channel: ids of answers to stop
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from codeintel_rev.errors import SettingsError, StoreUnavailable
from codeintel_rev.types import Line

CANCEL = "answer:cancel"
TIMEOUT_S = 0.25
"""Of any call; redis-py's own default would let a hung server hold a caller for seconds."""
LISTEN_S = 1.0
"""Between two looks at whether the connection that listens still stands."""

_Entry = tuple[str, Mapping[str, str]]


@asynccontextmanager
async def open_store(url: str, most_lines: int, ttl_s: float) -> AsyncIterator[RedisStore]:
    """Yield the store at `url`; nothing is connected before it is used. Raises SettingsError."""
    try:
        redis = importlib.import_module("redis.asyncio")
    except ModuleNotFoundError as error:
        raise SettingsError("setting redis.url needs redis-py.", "pip install 'codeintel-rev[redis]'") from error
    try:
        client = redis.Redis.from_url(
            url, decode_responses=True, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
        )
    except ValueError as error:
        raise SettingsError("setting redis.url is no address of a Redis server.", "redis://host:port/0") from error
    try:
        yield RedisStore(client, redis.RedisError, most_lines, ttl_s)
    finally:
        await client.aclose()


class RedisStore:
    """`client` is redis-py's, decoding responses; `failure` is what it raises."""

    def __init__(self, client: Any, failure: type[Exception], most_lines: int, ttl_s: float) -> None:
        self._client = client
        self._failure = failure
        self._most_lines = most_lines
        self._ttl_ms = round(ttl_s * 1000)

    async def append(self, answer_id: str, line: Line) -> None:
        key = _key(answer_id)
        fields = {"type": line.type, "data": line.data, "last": str(int(line.is_last))}
        async with self._reached(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.xadd(key, fields, id=_entry_id(line.seq), maxlen=self._most_lines, approximate=False)
            pipeline.pexpire(key, self._ttl_ms)
            await pipeline.execute()

    async def lines(self, answer_id: str, after: int) -> tuple[Line, ...]:
        async with self._reached():
            entries = await self._client.xrange(_key(answer_id), min=_entry_id(after + 1))
        return tuple(_line(entry) for entry in entries)

    async def last(self, answer_id: str) -> Line | None:
        async with self._reached():
            entries = await self._client.xrevrange(_key(answer_id), count=1)
        return _line(entries[0]) if entries else None

    async def attend(self, answer_id: str, seconds: float) -> None:
        async with self._reached():
            await self._client.set(f"{_key(answer_id)}:reader", "1", px=round(seconds * 1000))

    async def is_attended(self, answer_id: str) -> bool:
        async with self._reached():
            return bool(await self._client.exists(f"{_key(answer_id)}:reader"))

    async def send_cancel(self, answer_id: str) -> None:
        async with self._reached():
            await self._client.publish(CANCEL, answer_id)

    async def cancels(self) -> AsyncGenerator[str, None]:
        async with self._reached(), self._client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(CANCEL)
            while True:
                message = await channel.get_message(timeout=LISTEN_S)
                if message:
                    yield message["data"]

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        try:
            yield
        except (self._failure, OSError) as error:
            detail = f"redis failed: {type(error).__name__}."
            raise StoreUnavailable(detail, "Answers go on; other workers cannot read them.") from error


def _key(answer_id: str) -> str:
    return f"answer:{answer_id}"


def _entry_id(seq: int) -> str:
    return f"0-{seq + 1}"  # 0-0 is no id of an entry.


def _line(entry: _Entry) -> Line:
    name, fields = entry
    return Line(int(name.partition("-")[2]) - 1, fields["type"], fields["data"], is_last=fields["last"] == "1")
