"""What a caller may ask, over MCP and HTTP alike. An unknown argument is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from codeintel_rev.answer.budgets import ProfileName
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.types import Blend, LateMode, Scope, ScoreNorm

Names = tuple[Annotated[str, Field(max_length=512)], ...]
Repos = Annotated[Names, Field(description="Only these repositories", max_length=64)]
Paths = Annotated[Names, Field(description="Gitignore-style globs, `!` negates", max_length=64)]
Languages = Annotated[Names, Field(description="As in hits, e.g. python", max_length=64)]
Channel = Literal["lexical", "symbols", "dense", "splade", "xtr"]
Stage = Literal["lexical", "symbols", "dense", "splade", "xtr", "xtr_rescore"]
Weight = Annotated[float, Field(ge=0, le=100)]
Cursor = Annotated[str, Field(description="next_cursor of the answer before", max_length=8192)]


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _is_unicode(cls, value: object) -> object:
        """JSON can spell half a surrogate pair, which nothing after this could encode."""
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                text.encode()
        return value


class ScopedRequest(Request):
    repos: Repos = ()
    paths: Paths = ()
    languages: Languages = ()

    def scope(self) -> Scope:
        return Scope(repos=self.repos, paths=self.paths, languages=self.languages)


class SearchRequest(ScopedRequest):
    query: Annotated[str, Field(description="A question in plain words, an identifier or a path")]
    limit: Annotated[int, Field(ge=1)] = 8
    kinds: Annotated[Names, Field(description="Kinds of definition: function, class, method …", max_length=64)] = ()
    explain: Annotated[bool, Field(description="Add channels' parts in the score, matching tokens, stage times")] = (
        False
    )
    max_tokens: Annotated[int, Field(description="Size of the text", ge=100, le=100_000)] = 4000
    time_budget_ms: Annotated[int | None, Field(ge=10)] = None
    cursor: Cursor = ""

    def scope(self) -> Scope:
        return Scope(repos=self.repos, paths=self.paths, languages=self.languages, kinds=self.kinds)

    def options(self) -> Options:
        return AS_SET


class ProSearchRequest(SearchRequest):
    mode: Annotated[
        LateMode | None, Field(description="Late interaction: over what was found, as a channel, both; default: as set")
    ] = None
    xtr_k: Annotated[int | None, Field(description="How many fused chunks are rescored", ge=1, le=2000)] = None
    blend: Annotated[Blend | None, Field(description="How rescoring meets the fused order")] = None
    score_norm: Annotated[ScoreNorm | None, Field(description="Scale of MaxSim in a sum")] = None
    stage_weights: Annotated[
        dict[Stage, Weight],
        Field(description="Of lexical, symbols, dense, splade, xtr, xtr_rescore; others as planned"),
    ] = Field(default_factory=dict)
    channels: Annotated[tuple[Channel, ...], Field(description="Only these", max_length=5)] = ()
    generation: Annotated[str, Field(description="Answer from this kept generation", max_length=64)] = ""
    as_of: Annotated[str, Field(description="As it was then: ISO time, or 2h, 3d ago", max_length=64)] = ""

    def scope(self) -> Scope:
        return replace(super().scope(), generation=self.generation, as_of=self.as_of)

    def options(self) -> Options:
        return Options(
            mode=self.mode,
            xtr_k=self.xtr_k,
            blend=self.blend,
            score_norm=self.score_norm,
            stage_weights={str(name): weight for name, weight in self.stage_weights.items()},
            channels=self.channels,
        )


class TextRequest(ScopedRequest):
    pattern: Annotated[str, Field(description="Literal text, or RE2 syntax with regex=true", min_length=1)]
    regex: bool = False
    case_sensitive: bool = False
    limit: Annotated[int, Field(description="Most matching lines", ge=1)] = 50
    context_lines: Annotated[int, Field(ge=0, le=20)] = 0
    cursor: Cursor = ""


class FileRequest(Request):
    repo: str
    path: Annotated[str, Field(description="As given in a hit")]
    start_line: Annotated[int, Field(ge=1)] = 1
    end_line: Annotated[int | None, Field(description="Inclusive; default: the end", ge=1)] = None


class PathsRequest(Request):
    repo: str
    path: Annotated[str, Field(description="Folder to list; default: the root")] = ""
    globs: Paths = ()
    languages: Languages = ()
    limit: Annotated[int, Field(ge=1, le=1000)] = 200
    cursor: Cursor = ""

    def scope(self) -> Scope:
        return Scope(repos=(self.repo,), paths=self.globs, languages=self.languages)


class StatusRequest(Request):
    repo: Annotated[str, Field(description="Default: every repository")] = ""
    wait_s: Annotated[float, Field(description="Wait so long for a running build", ge=0, le=30)] = 0


class AnswerRequest(ScopedRequest):
    question: Annotated[str, Field(description="In plain words; identifiers help")]
    profile: Annotated[ProfileName | None, Field(description="Time taken; default: as set")] = None


class TracedAnswerRequest(AnswerRequest):
    kinds: Annotated[Names, Field(max_length=64)] = ()
    trace: Annotated[bool, Field(description="Add the event `trace`")] = False

    def scope(self) -> Scope:
        return Scope(repos=self.repos, paths=self.paths, languages=self.languages, kinds=self.kinds)


def faults(errors: Iterable[Mapping[str, Any]]) -> str:
    """Return what pydantic found wrong with each argument, by name; the values sent are not repeated."""
    return "; ".join(f"{ascii('.'.join(map(str, one['loc'])))[1:-1]}: {one['msg']}" for one in errors) + "."
