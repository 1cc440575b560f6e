"""What a failed call means: pure functions from statuses, headers and bodies to UpstreamFailed (answers §1.4).

    reason            retryable   what happened
    unavailable       yes         no connection, a broken one, 5xx, or the breaker is open
    overloaded        yes         429
    timeout           yes         nothing, or not everything, within the time of the call
    truncated         yes         a stream ended before the model did
    aborted           yes         the server stopped the model (vllm#57082)
    error             if 5xx      an error frame in a stream whose status was 200
    malformed         no          an answer outside of every contract
    prompt_too_long   no          the model reads less than it was given: give it less
    rejected          no          any other refusal of what was asked
    route_absent      no          the server serves another kind of model: its settings are wrong
    model_absent      no          it serves its model under another name
    unauthorized      no          the key is not the server's

Nothing of a body is quoted but short words: messages of servers quote prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Literal, NoReturn

from codeintel_rev.errors import UpstreamFailed, UpstreamMalformed
from codeintel_rev.io.vllm.endpoint import EndpointName

Reason = Literal[
    "unavailable",
    "overloaded",
    "timeout",
    "truncated",
    "aborted",
    "error",
    "malformed",
    "prompt_too_long",
    "rejected",
    "route_absent",
    "model_absent",
    "unauthorized",
]
CODES = {"embed": "embed", "chat": "synthesis", "score": "rerank", "tokens": "tokens"}
RETRYABLE = frozenset({"unavailable", "overloaded", "timeout", "truncated", "aborted"})
AILING = RETRYABLE - {"overloaded"} | {"error"}
"""Reasons that say something of the server's health."""
_HINTS: dict[Reason, str] = {
    "unavailable": "Look at the server behind vllm.{name}.url.",
    "overloaded": "Try again later.",
    "timeout": "Look at the server's load, or raise vllm.{name}.timeout_s.",
    "truncated": "Look at the server's log.",
    "aborted": "Try again.",
    "error": "Look at the server's log.",
    "malformed": "Look at which server vllm.{name}.url names.",
    "prompt_too_long": "Send less text.",
    "rejected": "Look at the server's log and version.",
    "route_absent": "Set vllm.{name}.url to a server of that kind of model.",
    "model_absent": "Set vllm.{name}.model to an id that its /v1/models lists.",
    "unauthorized": "Set vllm.{name}.key.",
}
_TOO_LONG = re.compile(r"input_tokens|context[ _](length|size|window)|less than \d+ tokens", re.IGNORECASE)
_WORD = re.compile(r"[\w.:-]{1,40}( [\w.:-]{1,40}){0,3}")


def failure(
    name: EndpointName, reason: Reason, found: str, *, retryable: bool | None = None, retry_after_ms: int | None = None
) -> UpstreamFailed:
    """Return what to raise; `found` says what happened, after the name of the server. `retryable` is the reason's."""
    kind = UpstreamMalformed if reason == "malformed" else UpstreamFailed
    return kind(
        f"the {name} server {found}.",
        _HINTS[reason].format(name=name),
        code=f"{CODES[name]}.{reason}",
        retryable=reason in RETRYABLE if retryable is None else retryable,
        retry_after_ms=retry_after_ms,
        prompt_too_long=reason == "prompt_too_long",
    )


def reason_of(error: UpstreamFailed) -> str:
    return error.code.partition(".")[2]


def refusal(name: EndpointName, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailed:
    """Return what an answer with a status other than 200 means. Header names are lower-case."""
    told = told_error(parsed(body))
    found = f"answered {status}{told.named}"
    return failure(name, _reason(status, told), found, retry_after_ms=retry_after_ms(headers, datetime.now(UTC)))


def error_frame(name: EndpointName, error: object) -> UpstreamFailed:
    """Return what an `error` in a stream means: the status was sent long before."""
    told = told_error({"error": error})
    if told.is_too_long:
        return failure(name, "prompt_too_long", f"broke off{told.named}")
    return failure(name, "error", f"broke off{told.named}", retryable=not 400 <= told.status < 500)


class Told:
    """What an error body says, whichever of the shapes of answers §1.4 it has."""

    def __init__(self, words: tuple[str, ...], text: str, status: int, shape: str) -> None:
        self.words = words
        self.text = text
        self.status = status
        self.shape = shape

    @property
    def named(self) -> str:
        """Return ` (type, param)` as far as they are short words."""
        short = [word for word in self.words if _WORD.fullmatch(word)]
        return f" ({', '.join(short)})" if short else ""

    @property
    def is_too_long(self) -> bool:
        return any(_TOO_LONG.search(part) for part in (*self.words, self.text))


def told_error(body: object) -> Told:
    """Return what `body`, parsed, says; an empty Told for what is none of the known shapes."""
    if not isinstance(body, dict):
        return Told((), "", 0, "")
    error = body.get("error", body)
    if isinstance(error, str):
        words = (error, *(str(body[key]) for key in ("error_type",) if key in body))
        return Told(words, error, 0, "error")
    if not isinstance(error, dict):
        return Told((), "", 0, "")
    if "message" not in error and "detail" in error:
        return Told((str(error["detail"]),), str(error["detail"]), 0, "detail")
    words = tuple(str(error[key]) for key in ("type", "param", "code") if error.get(key) is not None)
    code = error.get("code")
    return Told(words, str(error.get("message", "")), code if type(code) is int else 0, "error" if words else "")


def retry_after_ms(headers: Mapping[str, str], now: datetime) -> int | None:
    """Return the wait a server asks for: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date."""
    if (ms := _number(headers.get("retry-after-ms"))) is not None:
        return ms
    asked = headers.get("retry-after", "")
    if (seconds := _number(asked, 1000)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0, int((aware - now).total_seconds() * 1000))


def parsed(body: bytes) -> object:
    """Return the JSON in `body`, None for what is none. NaN and infinities are none."""
    try:
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def parsed_object(name: EndpointName, body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises UpstreamMalformed."""
    found = parsed(body)
    if not isinstance(found, dict):
        raise failure(name, "malformed", "answered 200 with what is no JSON object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _number(text: str | None, factor: int = 1) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return max(0, int(value * factor)) if isfinite(value) else None


def _reason(status: int, told: Told) -> Reason:
    by_status: dict[int, Reason] = {
        401: "unauthorized",
        403: "unauthorized",
        404: "model_absent" if told.shape == "error" else "route_absent",
        405: "route_absent",
        429: "overloaded",
    }
    if status in by_status:
        return by_status[status]
    if status >= 500 or status == 424:
        return "unavailable"
    if status >= 400:
        return "prompt_too_long" if told.is_too_long else "rejected"
    return "malformed"
