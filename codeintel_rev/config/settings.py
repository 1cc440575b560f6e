"""Every setting, its default and whether it affects results or only speed. The only reader of the environment.

Sources, later wins: defaults < `config/codeintel.toml` (or the file named by `CODEINTEL_CONFIG`) < environment
variables `CODEINTEL_<SECTION>__<KEY>` < explicit overrides. An unknown section or key is refused by name.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from codeintel_rev.errors import SettingsError
from codeintel_rev.types import Blend, LateMode, ScoreNorm

PREFIX = "CODEINTEL_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
DEFAULT_FILE = Path("config/codeintel.toml")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PathsSettings(Section):
    data_dir: Path = Path("data")
    """Where shards, models and the vector cache live. Affects nothing but the place."""


class SourceSettings(Section):
    max_bytes: int = Field(2 * 1024 * 1024, gt=0)
    """Larger files are reported as oversize and not indexed. Affects results."""
    max_files: int = Field(200_000, gt=0)
    """Files beyond this many (in path order) are reported and not indexed. Affects results."""
    allow: tuple[str, ...] = ()
    """gitignore-style globs; when given, only matching files are indexed. Affects results."""
    deny: tuple[str, ...] = ()
    """gitignore-style globs of files never indexed, beside the built-in secrets list. Affects results."""
    index_vendored: bool = False
    """Index vendored files (node_modules, third_party …). Affects results."""
    index_generated: bool = False
    """Index generated and minified files. Affects results."""


class ChunkingSettings(Section):
    max_tokens: int = Field(400, ge=32, le=2048)
    """Budget of one chunk, in approximate model tokens. Affects results."""
    parse_timeout_s: float = Field(5.0, gt=0)
    """Wall time one file may take to parse before its worker is killed and lines are used instead. Affects results."""
    parse_memory_mb: int = Field(2048, ge=256)
    """Address space one parse worker may use. Affects results."""
    workers: int = Field(2, ge=1, le=64)
    """Parse worker processes. Affects speed."""


class EmbeddingSettings(Section):
    provider: Literal["minilm", "huggingface", "vllm", "none"] = "minilm"
    """`minilm` is embedded, `huggingface` loads `model`, `vllm` asks `vllm.embed`, `none` neither. Affects results."""
    model: str = ""
    """Model id or folder (safetensors only) for `huggingface`. Affects results."""
    revision: str = ""
    """Revision of a hub model, or a name for the weights a server serves, pinned in every manifest. Affects results."""
    max_tokens: int = Field(128, ge=16, le=8192)
    """Tokens of a chunk the dense encoder reads (encoders.md: 128 beats 256 with MiniLM). Affects results."""
    batch_size: int = Field(16, ge=1, le=1024)
    """Chunks of equal length encoded at once. Affects speed."""
    query_timeout_ms: int = Field(500, ge=1)
    """A query whose vector a server takes longer to make is answered without. Affects results under load."""
    threads: int = Field(0, ge=0)
    """Encoder threads; 0 takes every core. Affects speed."""


class IndexSettings(Section):
    publish_every_s: float = Field(60.0, gt=0)
    """While encoding, publish the vectors made so far this often. Affects when results improve."""
    keep_generations: int = Field(3, ge=1)
    """Generations kept for rollback. Affects disk."""
    open_shards: int = Field(256, ge=1)
    """Repositories one worker keeps open; more only while a search holds them. Affects speed."""
    compact_secondary: float = Field(0.05, ge=0)
    """New vectors, as a share of the primary's, above which all are to be indexed again as one. Affects speed."""
    compact_deleted: float = Field(0.1, ge=0)
    """Deleted vectors, as a share of the primary's, above which all are to be indexed again as one. Affects speed."""
    compact_window: str = Field("", pattern=r"^(([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d)?$")
    """When a watcher may compact, local time as in `02:00-05:00`; empty: whenever it is due. Affects speed."""
    disk_low_mb: int = Field(512, ge=0)
    """With less free space (MiB) no build begins; search is not affected. Affects disk."""
    disk_resume_mb: int = Field(1024, ge=0)
    """And then none before there is this much again; at least `disk_low_mb`. Affects disk."""
    watch_debounce_ms: int = Field(300, ge=10, le=2000)
    """A watched tree is indexed again once nothing was saved for this long. Affects speed."""
    rescan_s: float = Field(60.0, gt=0)
    """A watched tree is compared with its index this often, whatever was seen. Affects speed."""

    @model_validator(mode="after")
    def _marks_are_in_order(self) -> IndexSettings:
        if self.disk_resume_mb < self.disk_low_mb:
            raise ValueError("disk_resume_mb must be at least disk_low_mb")
        return self


class RetrievalSettings(Section):
    candidates: int = Field(60, ge=10, le=2000)
    """Chunks each channel offers; scores are normalised over them. Affects results."""
    channel_deadline_ms: int = Field(500, ge=1)
    """A channel later than this becomes a Limit. Affects results under load."""
    request_deadline_ms: int = Field(30_000, ge=10)
    """A whole search (reliability S18). Affects results under load."""


class XTRSettings(Section):
    enable: bool | None = None
    """Index the tokens of every chunk and rank by them; unset: where `model` is set. Affects results."""
    provider: Literal["local", "vllm"] = "local"
    """Where token vectors are made: here, or by `vllm.tokens`, which serves `model`. Affects results."""
    model: str = ""
    """Late-interaction model, id or folder (safetensors only); empty: the tokens of `embedding`. Affects results."""
    revision: str = ""
    """Revision of a hub model. Affects results."""
    max_doclen: int = Field(0, ge=0)
    """Tokens of one window in which `model` reads a chunk, 0 as many as it was trained on. Affects results."""
    quant_bits: int = Field(4, ge=2, le=4, multiple_of=2)
    """Bits a dimension of a token vector is stored in, 2 or 4. Affects results."""
    mode: LateMode = "rescore"
    """Where it is on: `rescore` what the channels found, be a channel (`wide`), `both`, or `off`. Affects results."""
    candidate_k: int = Field(200, ge=1, le=2000)
    """Fused chunks rescored by MaxSim; those behind keep their order. Affects results."""
    blend: Blend = "rrf"
    """How MaxSim meets the fused order: by ranks alone, `replace`, or `sum` of scores. Affects results."""
    score_norm: ScoreNorm = "minmax"
    """How MaxSim is scaled before a `sum`. Affects results."""

    @property
    def on(self) -> bool:
        return bool(self.model) if self.enable is None else self.enable


class SpladeSettings(Section):
    model: str = ""
    """Model of the channel `splade`, id or folder (safetensors only); empty: no such channel. Affects results."""
    revision: str = ""
    """Revision of a hub model. Affects results."""
    max_tokens: int = Field(256, ge=16, le=8192)
    """Tokens of a chunk, and of a query, that it reads. Affects results."""

    @property
    def on(self) -> bool:
        return bool(self.model)


class EndpointSettings(Section):
    """One server of models: a vLLM process serves one model, and only that model's routes (answers §0)."""

    url: str = ""
    """Where it answers, as `http://host:8000`; empty: there is none. Affects results."""
    model: str = ""
    """The id under which it serves the model. Affects results."""
    key: SecretStr = SecretStr("")
    """Sent as `Authorization: Bearer`. Affects reach."""
    timeout_s: float = Field(10.0, gt=0)
    """A whole call, its retry included; a caller with less time gives up sooner. Affects results under load."""


class VLLMSettings(Section):
    embed: EndpointSettings = EndpointSettings()  # type: ignore[call-arg]
    chat: EndpointSettings = EndpointSettings(timeout_s=60.0)
    score: EndpointSettings = EndpointSettings()  # type: ignore[call-arg]
    tokens: EndpointSettings = EndpointSettings()  # type: ignore[call-arg]


class AnswerSettings(Section):
    profile: Literal["fast", "balanced", "deep"] = "balanced"
    """Time and effort of an answer whose question names none (docs/answers.md). Affects results."""
    fast_ms: int = Field(2_000, ge=200)
    """Deadline of a fast answer. Affects results under load."""
    balanced_ms: int = Field(8_000, ge=200)
    """Deadline of a balanced answer. Affects results under load."""
    deep_ms: int = Field(30_000, ge=200)
    """Deadline of a deep answer. Affects results under load."""
    max_sources: int = Field(12, ge=1, le=50)
    """Most sources of an answer. Affects results."""
    context_tokens: int = Field(6_000, ge=256)
    """Tokens the sources may take, or less where the model's context is shorter. Affects results."""
    max_tokens: int = Field(600, ge=16)
    """Tokens a model may write. Affects results."""
    rerank: bool = False
    """Rank hits again by the server `vllm.score`, blended with their order. Affects results."""
    permalink: str = ""
    """Address of lines at a commit, of {repo}, {commit}, {path}, {start}, {end}; empty: no links. Affects results."""
    log_lines: int = Field(4096, ge=16)
    """Events of one answer that are kept for who reads it again. Affects results."""
    log_ttl_s: float = Field(600.0, gt=0)
    """How long they are kept behind the latest one. Affects results."""
    trace_text: bool = False
    """Write the question and the answer into its trace (docs/answers.md). Affects logs."""


class RedisSettings(Section):
    url: SecretStr = SecretStr("")
    """Of a Redis server that workers share answers through; empty: each keeps its own. Affects results."""


class DuckDBSettings(Section):
    threads: int = Field(2, ge=1)
    """Affects speed."""
    memory_limit_mb: int = Field(1024, ge=64)
    """Affects speed."""


class ServerSettings(Section):
    host: str = "127.0.0.1"
    """A host other than loopback needs `allowed_hosts` (reliability S01)."""
    port: int = Field(8787, ge=0, le=65535)
    ops_port: int | None = Field(None, ge=1, le=65535)
    """When set, probes and metrics answer on this port and only there."""
    workers: int = Field(2, ge=1, le=64)
    """Hypercorn worker processes. Affects speed."""
    allowed_hosts: tuple[str, ...] = ()
    """Host header values accepted beside loopback ones."""
    allowed_origins: tuple[str, ...] = ()
    """Browser origins accepted beside loopback ones."""
    graceful_timeout_s: float = Field(10.0, gt=0)
    """How long in-flight requests may run on after SIGTERM."""
    poll_s: float = Field(1.0, gt=0)
    """How often a worker looks for new repositories and at its own readiness; new generations it sees sooner."""
    tools: Literal["core", "full"] = "core"
    """Tools an agent is shown: `full` adds those for who measures and tunes. Affects results."""
    structured_content: bool = True
    """Send `structuredContent` beside the text of an MCP result; off for clients that hand both to their model."""

    @model_validator(mode="after")
    def _is_safe_to_bind(self) -> ServerSettings:
        if self.host not in LOOPBACK and not self.allowed_hosts:
            raise ValueError(f"host {self.host} is not loopback, so allowed_hosts must name the hosts served")
        if self.ops_port == self.port:
            raise ValueError("ops_port must differ from port")
        return self


class LimitsSettings(Section):
    query_bytes: int = Field(8192, gt=0)
    """Longest query (reliability S18)."""
    max_results: int = Field(200, gt=0)
    """Largest `limit` (reliability S18)."""
    max_lines: int = Field(2000, gt=0)
    """Most lines one `open_file` returns (reliability S18)."""
    body_bytes: int = Field(1024 * 1024, gt=0)
    """Largest request body (reliability S18)."""
    json_depth: int = Field(64, gt=0)
    """Deepest nesting of a request body (reliability S18)."""
    in_flight: int = Field(64, gt=0)
    """Requests one worker holds at once; the next is refused with 503. Affects results under load."""
    concurrent_calls: int = Field(4, gt=0)
    """Searches and reads one worker runs at once; others wait within their deadline. Affects speed."""


class ObservabilitySettings(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    otlp_endpoint: str = ""
    """OTLP/HTTP collector; empty exports nothing."""


class CommaSeparated(EnvSettingsSource):
    """Variables, where a list may be JSON or just separated by commas."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return [part.strip() for part in value.split(",")]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    paths: PathsSettings = PathsSettings()
    source: SourceSettings = SourceSettings()  # type: ignore[call-arg]
    chunking: ChunkingSettings = ChunkingSettings()  # type: ignore[call-arg]
    embedding: EmbeddingSettings = EmbeddingSettings()  # type: ignore[call-arg]
    index: IndexSettings = IndexSettings()  # type: ignore[call-arg]
    retrieval: RetrievalSettings = RetrievalSettings()  # type: ignore[call-arg]
    xtr: XTRSettings = XTRSettings()  # type: ignore[call-arg]
    splade: SpladeSettings = SpladeSettings()  # type: ignore[call-arg]
    vllm: VLLMSettings = VLLMSettings()
    answer: AnswerSettings = AnswerSettings()  # type: ignore[call-arg]
    redis: RedisSettings = RedisSettings()
    duckdb: DuckDBSettings = DuckDBSettings()  # type: ignore[call-arg]
    server: ServerSettings = ServerSettings()  # type: ignore[call-arg]
    limits: LimitsSettings = LimitsSettings()  # type: ignore[call-arg]
    observability: ObservabilitySettings = ObservabilitySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over the file, which `load_settings` passes as init values."""
        return CommaSeparated(settings_cls), init_settings


def _file_values() -> dict[str, Any]:
    named = os.environ.get(CONFIG_VARIABLE)
    chosen = Path(named) if named else DEFAULT_FILE
    if not chosen.is_file():
        if named:
            raise SettingsError(f"settings file {named} does not exist.", f"Create it or unset {CONFIG_VARIABLE}.")
        return {}
    try:
        return tomllib.loads(chosen.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {chosen} is not valid TOML: {error}.", "Correct that line.") from error


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores variables of unknown sections; a typo must not read as "default"."""
    sections = set(Settings.model_fields)
    for name in os.environ:
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE:
            continue
        section = name.removeprefix(PREFIX).split("__")[0].lower()
        if section not in sections:
            raise SettingsError(f"unknown setting {name}.", f"Sections are {', '.join(sorted(sections))}.")


def load_settings() -> Settings:
    """Return the effective settings. Raises SettingsError naming the key, in one line."""
    _refuse_unknown_variables()
    try:
        return Settings(**_file_values())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {key}: {first['msg']}.", "See docs/settings.md.") from error
