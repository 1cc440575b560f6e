"""`xtr`: the late-interaction index of a repository, and why lines match. Exit codes are those of `codeintel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeintel_rev.cli.verbs import Verbs, verb

app = typer.Typer(
    name="xtr",
    help="Build, check and ask the token-level index of a repository; show why a file's lines match.",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Repo = Annotated[str, typer.Argument(help="A repository, as `codeintel status` names it.")]
IndexDir = Annotated[
    Path | None, typer.Option(help="Another folder of the same form; default: the current generation's.")
]
Query = Annotated[str, typer.Argument(help="A question in plain words or an identifier.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Limit = Annotated[int, typer.Option(min=1, help="Most hits.")]


@app.command()
def build(repo: Repo, as_json: Json = False) -> None:
    """Publish a generation with token vectors of all chunks of the current one; only what is missing is encoded."""
    verb("late_interaction").build(repo, as_json=as_json)


@app.command()
def verify(repo: Repo, index_dir: IndexDir = None) -> None:
    """Say `XTR ready` when the index is whole and of the configured model; exit with 1 otherwise."""
    verb("late_interaction").verify(repo, index_dir)


@app.command()
def audit(repo: Repo, index_dir: IndexDir = None) -> None:
    """Read every byte of the index and print counts, sizes and checksums as JSON."""
    verb("late_interaction").audit(repo, index_dir)


@app.command()
def search(
    repo: Repo,
    query: Query,
    limit: Limit = 8,
    index_dir: IndexDir = None,
    as_json: Json = False,
) -> None:
    """Search all tokens of all chunks, by late interaction alone."""
    verb("late_interaction").search(repo, query, limit, index_dir, as_json=as_json)


@app.command()
def bench(
    repo: Repo,
    queries: Annotated[Path, typer.Option(help="A file of lines {qid, query}.")],
    limit: Limit = 10,
    index_dir: IndexDir = None,
) -> None:
    """Time every query of a file and print p50, p95 and throughput as JSON."""
    verb("late_interaction").bench(repo, queries, limit, index_dir)


@app.command()
def explain(
    query: Query,
    path: Annotated[Path, typer.Argument(help="Any text file, indexed or not.")],
    html: Annotated[Path | None, typer.Option(help="Write the heat map to this file as well.")] = None,
) -> None:
    """Colour each line of a file by its most similar token."""
    verb("heat_map").explain(query, path, html)


if __name__ == "__main__":
    app()
