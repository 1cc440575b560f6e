"""Text from a chat model, as it is made, and whether it was made to its end (answers §1.2, §1.3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from codeintel_rev.errors import UpstreamFailed
from codeintel_rev.io.vllm.http import Reply, Upstream
from codeintel_rev.io.vllm.models import served_model
from codeintel_rev.io.vllm.refusals import error_frame, failure, parsed, parsed_object, reason_of
from codeintel_rev.io.vllm.sse import EventReader
from codeintel_rev.types import ChatDelta, ChatEnd, Message

TEMPERATURE = 0.1
SEED = 7
BYTES_PER_TOKEN = 8192
"""A stream may hold this many for each token asked for: a delta with usage and metrics is 700."""
_COMPLETE = {"stop": "stop", "tool_calls": "stop", "length": "length"}


class ChatClient:
    """A chat model behind `upstream`."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._model = upstream.endpoint.model

    async def stream(
        self, messages: Sequence[Message], *, max_tokens: int, trace_id: str
    ) -> AsyncGenerator[ChatDelta | ChatEnd]:
        """Yield the text as it comes, then exactly one ChatEnd, last.

        Closing the iterator closes the connection, and the server stops. Raises UpstreamFailed, at any point, for every
        stream that is not whole: text without a ChatEnd after it is not an answer.
        """
        body = {
            "model": self._model,
            "messages": [asdict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": max_tokens,
            "temperature": TEMPERATURE,
            "seed": SEED,
        }
        completion = Completion(max_bytes=BYTES_PER_TOKEN * (max_tokens + 64))
        with self._upstream.observed():
            async with aclosing(self._upstream.stream("/v1/chat/completions", body, trace_id=trace_id)) as chunks:
                async for chunk in chunks:
                    for delta in completion.feed(chunk):
                        yield delta
                    if completion.is_done:
                        break
            end = completion.end()
        yield end

    async def count(self, messages: Sequence[Message]) -> int | None:
        """Return how many tokens the prompt is, template included; None when the server cannot tell."""
        body = {
            "model": self._model,
            "messages": [asdict(message) for message in messages],
            "add_generation_prompt": True,
        }
        try:
            return await self._upstream.ask("/tokenize", body, token_count, trace_id="count")
        except UpstreamFailed as error:
            if reason_of(error) != "route_absent":
                raise
            return None

    async def context_length(self) -> int | None:
        """Return how many tokens prompt and answer may be together; None when the server does not say."""
        return (await served_model(self._upstream, trace_id="length")).max_model_len


class Completion:
    """One streamed completion, from its bytes: what it says and how it ends. Pure.

    The terminal classification (answers §1.3): a stream is whole when a known `finish_reason` was seen and then
    `[DONE]` or a clean end of the bytes. `[DONE]` alone proves nothing: vLLM sends it after errors and aborts, too.
    """

    def __init__(self, max_bytes: int) -> None:
        self.is_done = False
        self._events = EventReader("chat")
        self._left = max_bytes
        self._received = False
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> Iterator[ChatDelta]:
        """Yield the text that `chunk` completes. Raises UpstreamFailed for what makes the stream a failure for sure."""
        self._received = self._received or bool(chunk)
        self._left -= len(chunk)
        if self._left < 0:
            raise failure("chat", "malformed", "sent far more than the tokens it was asked for")
        for data in self._events.feed(chunk):
            if data == "[DONE]":
                self.is_done = True
                return
            if text := self._read(data):
                yield ChatDelta(text)

    def end(self) -> ChatEnd:
        """Return how the stream ended, its bytes having ended cleanly. Raises UpstreamFailed when it was cut off."""
        if self._finish is None:
            ended = "ended its stream before the model ended" if self._received else "answered 200 and nothing more"
            raise failure("chat", "truncated", ended)
        cached = _object(self._usage.get("prompt_tokens_details")).get("cached_tokens")
        prompt, completion = self._usage.get("prompt_tokens"), self._usage.get("completion_tokens")
        return ChatEnd(self._finish, _whole(prompt), _whole(completion), _whole(cached))

    def _read(self, data: str) -> str:
        """Return the text of one frame."""
        frame = parsed(data.encode())
        if not isinstance(frame, dict):
            raise failure("chat", "malformed", "sent an event that is no JSON object")
        if frame.get("error") is not None:
            raise error_frame("chat", frame["error"])
        # On a chunk of its own (vLLM), on the last one (transformers serve), or never (llama-cpp-python).
        self._usage = _object(frame.get("usage")) or self._usage
        choices = frame.get("choices")
        if not isinstance(choices, list) or len(choices) > 1 or not all(isinstance(choice, dict) for choice in choices):
            raise failure("chat", "malformed", "sent an event without one choice")
        return self._choice(choices[0]) if choices else ""

    def _choice(self, choice: dict[str, Any]) -> str:
        if choice.get("index", 0) != 0:
            raise failure("chat", "malformed", "sent a choice nobody asked for")
        text = _object(choice.get("delta")).get("content")
        if text and (not isinstance(text, str) or self._finish is not None):
            raise failure("chat", "malformed", "sent content that is no text, or after the end")
        if (finish := choice.get("finish_reason")) is not None:
            self._finish = _finished(finish)
        return text or ""


def token_count(reply: Reply) -> int:
    """Return the count of a `/tokenize` answer. Raises UpstreamMalformed."""
    count = _whole(parsed_object("chat", reply.body).get("count"))
    if count is None:
        raise failure("chat", "malformed", "tokenized without a count")
    return count


def _finished(reason: object) -> str:
    """Return what a `finish_reason` means. Raises UpstreamFailed for each that is not known to mean an end."""
    if reason == "abort":
        raise failure("chat", "aborted", "aborted the model")
    if not isinstance(reason, str) or reason not in _COMPLETE:
        raise failure("chat", "truncated", "ended for an unknown reason", retryable=False)
    return _COMPLETE[reason]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
