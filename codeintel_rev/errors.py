"""Every error this project raises on purpose.

    CodeIntelError
    ├── SettingsError            a setting is unknown, missing or out of range
    │   └── NoTokenModel         no model is configured that makes token vectors
    ├── InvalidArgument          the caller's request cannot be served as asked
    │   └── QueryTooComplex
    ├── NotFound                 no such repository, file or generation (forbidden looks the same)
    ├── GenerationGone           a cursor's generation is no longer kept
    ├── EventsGone               the first events of an answer are no longer kept
    ├── BuildInProgress          another builder holds the shard
    ├── StaleBuild               the shard moved on while this build ran
    ├── InsufficientStorage      the disk is full
    ├── StorageFailed            the disk refused a write, sync or read
    ├── IndexUnavailable         no published generation can be served
    ├── IndexCorrupt             bytes on disk are not what was published
    │   └── GenerationMismatch   good files that do not belong together
    ├── IndexIncompatible        written by another format, model or dimension
    │   └── DimensionMismatch
    ├── EncoderFailed            the model could not be loaded or gave unusable vectors
    ├── SourceFailed             a repository could not be read or its files listed
    ├── ParseFailed              a file could not be parsed within its limits
    ├── IdCollision              two chunks of one build got the same id
    ├── StoreUnavailable         what workers share cannot be reached; each goes on alone
    ├── UpstreamFailed           a model server could not be reached, refused or broke off; `code` says which
    │   └── UpstreamMalformed    it answered what no contract of it allows
    ├── ChannelFailed            one retrieval channel gave no answer; search turns it into a Limit
    └── DeadlineExceeded

`slug` is the stable name on the wire (tail of a problem's `type`), `status` the HTTP status. Messages say what, where
and, in `hint`, what to do next; they hold no absolute path, host or stack (RFC 9457 §5).
"""

from __future__ import annotations

from typing import ClassVar

PROBLEM_TYPE = "urn:codeintel:problem:"
"""What a problem's `type` begins with; the slug follows."""


class CodeIntelError(Exception):
    """The root. `detail` names the artefact, the expected and the found; `hint` says what to do next."""

    slug: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retryable: bool = False

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail if not hint else f"{detail} {hint}")
        self.detail = detail
        self.hint = hint

    def __reduce__(self) -> tuple[type[CodeIntelError], tuple[str, str], dict[str, object]]:
        """Pickle by (detail, hint) and what a subclass adds: errors cross process borders."""
        return type(self), (self.detail, self.hint), self.__dict__


class SettingsError(CodeIntelError):
    slug, status, title = "invalid-settings", 500, "Invalid settings"


class NoTokenModel(SettingsError):
    slug, title = "no-token-model", "No model makes token vectors"


class InvalidArgument(CodeIntelError):
    slug, status, title = "invalid-argument", 400, "Invalid argument"


class QueryTooComplex(InvalidArgument):
    slug, status, title = "query-too-complex", 422, "Query too complex"


class NotFound(CodeIntelError):
    slug, status, title = "not-found", 404, "Not found"


class GenerationGone(CodeIntelError):
    slug, status, title = "generation-gone", 410, "Generation no longer kept"


class EventsGone(CodeIntelError):
    slug, status, title = "events-gone", 410, "Events no longer kept"


class BuildInProgress(CodeIntelError):
    slug, status, title, retryable = "build-in-progress", 409, "Another build is running", True


class StaleBuild(CodeIntelError):
    slug, status, title, retryable = "stale-build", 409, "The shard moved on during the build", True


class InsufficientStorage(CodeIntelError):
    slug, status, title = "insufficient-storage", 507, "Disk full"


class StorageFailed(CodeIntelError):
    slug, status, title = "storage-failed", 500, "Storage failed"


class IndexUnavailable(CodeIntelError):
    slug, status, title, retryable = "index-unavailable", 503, "No usable index generation", True


class IndexCorrupt(CodeIntelError):
    slug, status, title = "index-corrupt", 503, "Index corrupt"


class GenerationMismatch(IndexCorrupt):
    slug, title = "generation-mismatch", "Index files of different generations"


class IndexIncompatible(CodeIntelError):
    slug, status, title = "index-incompatible", 503, "Index incompatible"


class DimensionMismatch(IndexIncompatible):
    slug, title = "dimension-mismatch", "Dimension mismatch"


class EncoderFailed(CodeIntelError):
    slug, status, title = "encoder-failed", 502, "Encoder failed"


class SourceFailed(CodeIntelError):
    slug, status, title = "source-failed", 500, "Repository could not be read"


class ParseFailed(CodeIntelError):
    slug, status, title = "parse-failed", 500, "Parse failed"


class IdCollision(CodeIntelError):
    slug, status, title = "id-collision", 500, "Chunk id collision"


class StoreUnavailable(CodeIntelError):
    slug, status, title, retryable = "store-unavailable", 503, "Shared store unavailable", True


class UpstreamFailed(CodeIntelError):
    """`code` is a stage and a reason, as `synthesis.truncated`; the stages and reasons are closed sets.

    `retryable`: the same call may succeed later, after `retry_after_ms` if the server said so. `prompt_too_long`: it
    may succeed at once with less text.
    """

    slug, status, title = "backend-unavailable", 503, "Model server unavailable"

    def __init__(
        self,
        detail: str,
        hint: str = "",
        *,
        code: str = "",
        retryable: bool = False,
        retry_after_ms: int | None = None,
        prompt_too_long: bool = False,
    ) -> None:
        super().__init__(detail, hint)
        self.code = code
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
        self.prompt_too_long = prompt_too_long


class UpstreamMalformed(UpstreamFailed):
    slug, status, title = "backend-bad-response", 502, "Model server gave a bad response"


class ChannelFailed(CodeIntelError):
    slug, status, title, retryable = "channel-failed", 503, "Retrieval channel failed", True


class DeadlineExceeded(CodeIntelError):
    slug, status, title, retryable = "deadline-exceeded", 504, "Deadline exceeded", True
