"""Whether a stream was whole: every row of answers §1.3, and the client around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from itertools import pairwise

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.errors import UpstreamFailed, UpstreamMalformed
from codeintel_rev.io.vllm.chat import ChatClient, Completion
from codeintel_rev.io.vllm.endpoint import Endpoint
from codeintel_rev.io.vllm.http import Upstream
from codeintel_rev.types import ChatDelta, ChatEnd, Message
from tests.stub_vllm import STREAMS, StubTransport, StubVLLM

QUESTION = [Message("system", "Answer."), Message("user", "What does f return?")]
COUNTED = (18, 4, 16)
UNKNOWN = (None, None, None)
Opened = Callable[..., ChatClient]


@pytest.fixture
def stub() -> StubVLLM:
    return StubVLLM("chat")


@pytest.fixture
async def opened(stub: StubVLLM) -> AsyncIterator[Opened]:
    """Return what opens a client of the stub."""
    async with httpx.AsyncClient(transport=StubTransport(stub), timeout=None) as client:
        yield lambda timeout_s=5.0: ChatClient(Upstream(Endpoint("chat", "http://stub", "tiny", "", timeout_s), client))


async def collected(client: ChatClient, text: list[str]) -> ChatEnd:
    """Put the text into `text`, as far as it comes, and return the end."""
    ends = []
    async for part in client.stream(QUESTION, max_tokens=16, trace_id="t"):
        assert not ends, "something came after the end"
        if isinstance(part, ChatDelta):
            assert part.text
            text.append(part.text)
        else:
            ends.append(part)
    return ends[0]


@pytest.mark.parametrize(
    ("scenario", "end"),
    [
        ("ok", ChatEnd("stop", *COUNTED)),
        ("comments", ChatEnd("stop", *COUNTED)),
        ("reasoning", ChatEnd("stop", *COUNTED)),
        ("usage_on_last", ChatEnd("stop", *COUNTED)),
        ("no_usage", ChatEnd("stop", *UNKNOWN)),
        ("no_done", ChatEnd("stop", *UNKNOWN)),
        ("length", ChatEnd("length", *COUNTED)),
        ("tool_calls", ChatEnd("stop", *UNKNOWN)),
        ("golden:length.sse", ChatEnd("length", 13, 4, None)),
        ("golden:stop.sse", ChatEnd("stop", 13, 4, None)),
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 7])
async def test_a_whole_stream_ends_once(opened: Opened, stub: StubVLLM, scenario: str, end: ChatEnd, cut: int) -> None:
    stub.cut = cut
    stub.script.append(scenario)
    text: list[str] = []
    assert await collected(opened(), text) == end
    assert "".join(text) in {"return result", "return", "re", "gn self lefture", "gn self left"}


@pytest.mark.parametrize(
    ("scenario", "code", "retryable"),
    [
        ("abort_mid", "synthesis.aborted", True),
        ("golden:aborted.sse", "synthesis.aborted", True),
        ("error_mid", "synthesis.error", True),
        ("error_first", "synthesis.error", True),
        ("error_after_finish", "synthesis.error", True),
        ("error_string", "synthesis.error", True),
        ("golden:engine_killed.sse", "synthesis.error", True),
        ("error_too_long", "synthesis.prompt_too_long", False),
        ("done_without_finish", "synthesis.truncated", True),
        ("done_only", "synthesis.truncated", True),
        ("eof_without_done", "synthesis.truncated", True),
        ("cut_in_last_frame", "synthesis.truncated", True),
        ("zero_bytes", "synthesis.truncated", True),
        ("comments_only", "synthesis.truncated", True),
        ("html", "synthesis.truncated", True),
        ("chat_json", "synthesis.truncated", True),
        ("broken:3", "synthesis.truncated", True),
        ("broken:4", "synthesis.truncated", True),
        ("unknown_finish", "synthesis.truncated", False),
        ("finish_no_string", "synthesis.truncated", False),
        ("not_json", "synthesis.malformed", False),
        ("not_an_object", "synthesis.malformed", False),
        ("nan", "synthesis.malformed", False),
        ("long_line", "synthesis.malformed", False),
        ("invalid_utf8", "synthesis.malformed", False),
        ("choices_null", "synthesis.malformed", False),
        ("choices_missing", "synthesis.malformed", False),
        ("second_choice", "synthesis.malformed", False),
        ("two_choices", "synthesis.malformed", False),
        ("content_no_text", "synthesis.malformed", False),
        ("text_after_finish", "synthesis.malformed", False),
        ("prompt_too_long", "synthesis.prompt_too_long", False),
        ("model_unknown", "synthesis.model_absent", False),
        ("route_unknown", "synthesis.route_absent", False),
        ("unauthorized", "synthesis.unauthorized", False),
    ],
)
async def test_a_stream_that_is_not_whole_is_a_failure(
    opened: Opened, stub: StubVLLM, scenario: str, code: str, retryable: bool
) -> None:
    """Whatever came before: [DONE] follows errors and aborts, too."""
    stub.script.append(scenario)
    with pytest.raises(UpstreamFailed) as raised:
        await collected(opened(), [])
    error = raised.value
    assert (error.code, error.retryable) == (code, retryable)
    assert error.prompt_too_long == code.endswith("prompt_too_long")
    assert isinstance(error, UpstreamMalformed) == code.endswith("malformed")


@given(scenario=st.sampled_from(sorted(STREAMS)), cuts=st.lists(st.integers(0, 2500), max_size=30), crlf=st.booleans())
def test_where_bytes_are_cut_changes_nothing(scenario: str, cuts: list[int], crlf: bool) -> None:
    stream = b"".join(STREAMS[scenario]).replace(b"\n", b"\r\n" if crlf else b"\n")
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert outcome(pieces) == outcome([b"".join(STREAMS[scenario])])


def outcome(pieces: list[bytes]) -> tuple[str, object]:
    completion = Completion(max_bytes=2**22)
    text = ""
    try:
        for piece in pieces:
            for delta in completion.feed(piece):
                text += delta.text
            if completion.is_done:
                break
        return text, completion.end()
    except UpstreamFailed as error:
        return "", error.code


async def test_what_is_asked_is_what_vllm_understands(opened: Opened, stub: StubVLLM) -> None:
    """answers §1.2."""
    await collected(opened(), [])
    (request,) = stub.requests
    assert request.headers["x-request-id"] == "t-chat-1"
    assert request.body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": "What does f return?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 16,
        "temperature": 0.1,
        "seed": 7,
    }


async def test_closing_the_stream_stops_the_server(opened: Opened, stub: StubVLLM) -> None:
    """F30: vLLM goes on until its connection closes."""
    stub.script.append("endless")
    async with aclosing(opened().stream(QUESTION, max_tokens=16, trace_id="t")) as parts:
        async for _ in parts:
            break
    with anyio.fail_after(5):
        await stub.left.wait()


async def test_a_cancelled_caller_stops_the_server(opened: Opened, stub: StubVLLM) -> None:
    stub.script.append("stall:2")
    asking = asyncio.ensure_future(collected(opened(), []))
    await stub.arrived.wait()
    asking.cancel()
    with anyio.fail_after(5):
        await stub.left.wait()


async def test_an_endless_answer_is_cut_off(opened: Opened, stub: StubVLLM) -> None:
    """F29: by bytes, whatever the server counts as a token."""
    stub.script.append("endless")
    with pytest.raises(UpstreamMalformed, match="far more"):
        await collected(opened(), [])
    assert stub.disconnects == 1


async def test_silence_ends_with_the_time_of_the_call(opened: Opened, stub: StubVLLM) -> None:
    """F27: the socket stays open, and no [DONE] comes."""
    stub.script.append("stall:3")
    text: list[str] = []
    with pytest.raises(UpstreamFailed) as raised:
        await collected(opened(timeout_s=0.5), text)
    assert raised.value.code == "synthesis.timeout"
    assert text == ["re", "turn"]
    assert stub.disconnects == 1


@pytest.mark.parametrize("scenario", ["status:503", "status:429:retry-after-ms:1", "status:500"])
async def test_a_server_that_refused_before_its_first_byte_is_asked_once_more(
    opened: Opened, stub: StubVLLM, scenario: str
) -> None:
    stub.script.append(scenario)
    text: list[str] = []
    await collected(opened(), text)
    assert "".join(text) == "return result"
    assert [request.headers["x-request-id"] for request in stub.requests] == ["t-chat-1", "t-chat-2"]


async def test_nothing_is_sent_again_once_text_came(opened: Opened, stub: StubVLLM) -> None:
    stub.script.append("broken:3")
    with pytest.raises(UpstreamFailed):
        await collected(opened(), [])
    assert len(stub.requests) == 1


async def test_a_prompt_is_counted_with_its_template(opened: Opened, stub: StubVLLM) -> None:
    assert await opened().count(QUESTION) == 13
    assert stub.requests[-1].body["add_generation_prompt"] is True


async def test_a_server_that_cannot_count_says_nothing(opened: Opened, stub: StubVLLM) -> None:
    stub.routes = {"/v1/chat/completions"}
    assert await opened().count(QUESTION) is None


async def test_the_length_of_the_context_is_the_servers(opened: Opened) -> None:
    assert await opened().context_length() == 2048
