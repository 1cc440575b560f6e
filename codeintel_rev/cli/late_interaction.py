"""`xtr build, verify, audit, search, bench`: the late-interaction index of one repository."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from codeintel_rev.cli import render
from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import CodeIntelError, IndexCorrupt, IndexIncompatible, IndexUnavailable, InvalidArgument
from codeintel_rev.eval.queries import question_rows
from codeintel_rev.indexing.xtr_build import build_token_index
from codeintel_rev.io.token_index import TOKENS
from codeintel_rev.mcp_server.envelope import envelope
from codeintel_rev.observability.logs import configure_logs
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.retrieval.wide import index_directory, measure, opened_wide
from codeintel_rev.xtr import validate
from codeintel_rev.xtr.storage import read_manifest


class NotReady(CodeIntelError):
    """The index is missing, damaged or of another model."""


def build(repo: str, *, as_json: bool) -> None:
    """Build the index and say what came of it."""
    settings = load_settings()
    configure_logs(settings.observability)
    with render.progress() as report:
        summary = asdict(build_token_index(repo, settings, on_progress=report))
    if as_json:
        render.print_json(summary)
    else:
        render.print_table(("built", ""), summary.items())


def verify(repo: str, index_dir: Path | None) -> None:
    """Print `XTR ready`, or raise NotReady."""
    settings = load_settings()
    try:
        validate.verify(index_directory(repo, settings, index_dir) / TOKENS)
        with opened_wide(repo, settings, index_dir):
            render.out.print("XTR ready")
    except (IndexUnavailable, IndexCorrupt, IndexIncompatible) as error:
        raise NotReady(error.detail, error.hint) from error


def audit(repo: str, index_dir: Path | None) -> None:
    """Print what the index holds, file by file; raise NotReady after that when something is wrong."""
    directory = index_directory(repo, load_settings(), index_dir) / TOKENS
    found, manifest = validate.audit(directory), read_manifest(directory)
    files = [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in manifest.files]
    held = {"model": manifest.model_id, "layout": manifest.layout, "dim": manifest.dim, "bits": manifest.quant_bits}
    render.print_json({**held, **asdict(found), "files": files})
    if found.problems:
        raise NotReady(
            f"{len(found.problems)} problems: {found.problems[0]}",
            "Run `codeintel index PATH`, which mends it, then `xtr build`.",
        )


def search(repo: str, query: str, limit: int, index_dir: Path | None, *, as_json: bool) -> None:
    """Print the answer to one query."""
    with opened_wide(repo, load_settings(), index_dir) as wide:
        answer = envelope(wide.search(query, limit), trace_id(), explain=True, next_cursor=None)
    if as_json:
        render.print_json(answer.payload())
    else:
        render.print_hits(answer, explain=False)


def bench(repo: str, queries: Path, limit: int, index_dir: Path | None) -> None:
    """Print how long the questions of a file took."""
    asked = [question["query"] for question in question_rows(queries)]
    if not asked:
        raise InvalidArgument(f"{queries} holds no question.", "Each line is an object {qid, query}.")
    with opened_wide(repo, load_settings(), index_dir) as wide:
        render.print_json(asdict(measure(wide, asked, limit)))
