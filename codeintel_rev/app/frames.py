"""Lines of an answer as server-sent events: our own frames, and dialects that other clients speak.

A dialect is a function of all events so far, as a fold: it is fed each event from the first and returns the frames for
it, so that a stream taken up in the middle goes on as it would have.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from codeintel_rev.answer.log import Told
from codeintel_rev.types import Line

Dialect = Literal["native", "vercel", "openai"]
Encode = Callable[[Line], str]

RETRY = "retry: 2000\n\n"
HEARTBEAT = ": hb\n\n"
DONE = "data: [DONE]\n\n"
HEADERS: Mapping[Dialect, Mapping[str, str]] = {
    "native": {},
    "vercel": {"x-vercel-ai-ui-message-stream": "v1"},
    "openai": {},
}


def encoder(dialect: Dialect) -> Encode:
    """Return what turns the lines of one answer, one after the other, into frames."""
    return {"native": native, "vercel": Vercel().frames, "openai": OpenAI().frames}[dialect]


def native(line: Line) -> str:
    return f"event: {line.type}\nid: {line.seq}\ndata: {line.data}\n\n"


@dataclass(slots=True)
class Vercel:
    """The UI message stream of the Vercel AI SDK, v1: sources as `source-document`, the rest as `data-*`."""

    _open: str = ""

    def frames(self, line: Line) -> str:
        return "".join(_data(part) for part in self._parts(line.told())) + (DONE if line.is_last else "")

    def _parts(self, told: Told) -> list[Told]:
        parts: list[Told]
        match told["type"]:
            case "answer.created":
                parts = [{"type": "start", "messageId": told["answer_id"]}, {"type": "start-step"}]
            case "sources":
                parts = [_document(source) for source in told["sources"]]
            case "text.started":
                closed, self._open = self._close(), f"text-{told['seq']}"
                parts = [*closed, {"type": "text-start", "id": self._open}]
            case "text.delta":
                parts = [{"type": "text-delta", "id": self._open, "delta": told["text"]}]
            case "answer.completed":
                end = {"type": "data-completed", "id": "end", "data": told}
                parts = [*self._close(), end, {"type": "finish-step"}, {"type": "finish"}]
            case "answer.failed":
                parts = [*self._close(), {"type": "error", "errorText": told["problem"]["detail"]}]
            case "answer.cancelled":
                parts = [*self._close(), {"type": "abort", "reason": told["by"]}]
            case other:
                parts = [{"type": f"data-{other.replace('.', '-')}", "id": str(told["seq"]), "data": told}]
        return parts

    def _close(self) -> list[Told]:
        closed, self._open = self._open, ""
        return [{"type": "text-end", "id": closed}] if closed else []


@dataclass(slots=True)
class OpenAI:
    """Chunks of a chat completion. Sources, citations and limits stand beside `choices`, as `codeintel`.

    A failed or cancelled answer is an error frame: a client that knows no such end must not take it for a good one.
    """

    _head: dict[str, Any] = field(default_factory=dict)

    def frames(self, line: Line) -> str:
        return "".join(_data(chunk) for chunk in self._chunks(line.told())) + (DONE if line.is_last else "")

    def _chunks(self, told: Told) -> list[Told]:
        chunks: list[Told] = []
        match told["type"]:
            case "answer.created":
                name = f"chatcmpl-{told['answer_id']}"
                self._head = {"id": name, "object": "chat.completion.chunk", "created": 0, "model": "codeintel"}
                chunks = [self._chunk({"role": "assistant", "content": ""})]
            case "text.started" if told["offset"]:
                chunks = [self._chunk({"content": "\n\n"})]  # What is above cannot be taken back.
            case "text.delta":
                chunks = [self._chunk({"content": told["text"]})]
            case "usage":
                chunks = [{**self._head, "choices": [], "usage": _usage(told)}]
            case "answer.completed":
                reason = "length" if told["finish_reason"] in ("length", "deadline") else "stop"
                chunks = [{**self._chunk({}, reason), "codeintel": told}]
            case "answer.failed":
                problem = told["problem"]
                chunks = [_error(problem["detail"], problem["code"], problem["status"])]
            case "answer.cancelled":
                chunks = [_error(f"the answer was cancelled by {told['by']}.", "answer.cancelled", 499)]
            case "sources" | "citation" | "citation.status" | "limit":
                chunks = [{**self._chunk({}), "codeintel": told}]
        return chunks

    def _chunk(self, delta: Told, finish_reason: str | None = None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


def _data(value: Told) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


def _document(source: Told) -> Told:
    place = f"{source['path']}:{source['start_line']}-{source['end_line']}"
    address = {"codeintel": {name: source[name] for name in source if name not in ("score", "retrievers")}}
    return {
        "type": "source-document",
        "sourceId": str(source["n"]),
        "mediaType": "text/plain",
        "title": f"{source['repo']}: {place}",
        "filename": source["path"],
        "providerMetadata": address,
    }


def _usage(told: Told) -> Told:
    prompt, written = told.get("prompt_tokens", 0), told.get("completion_tokens", 0)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _error(message: str, code: str, status: int) -> Told:
    return {"error": {"message": message, "type": "answer_error", "param": None, "code": code, "status": status}}
