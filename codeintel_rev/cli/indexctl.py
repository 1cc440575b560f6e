"""`indexctl`: the generations of each repository, for operators. Exit codes are those of `codeintel`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeintel_rev.cli.verbs import Verbs, verb

app = typer.Typer(
    name="indexctl",
    help="Build, check and roll back the generations of a repository's index.",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Repo = Annotated[str, typer.Argument(help="A repository, as `indexctl status` names it.")]
Generation = Annotated[str, typer.Option("--generation", help="Default: see the help of the verb.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    source: Annotated[str, typer.Argument(help="A git work tree, any folder, or a git URL: https, ssh or file.")] = ".",
    name: Annotated[str, typer.Option(help="Default: the folder's, or the last part of the URL.")] = "",
    as_json: Json = False,
) -> None:
    """Index a repository and publish the result: `codeintel index`."""
    verb("building").index(source, name, as_json=as_json)


@app.command()
def update(repo: Repo, as_json: Json = False) -> None:
    """Bring a repository's index up to date with its folder: only changed files are parsed and encoded."""
    verb("building").update(repo, as_json=as_json)


@app.command()
def compact(repo: Repo, as_json: Json = False) -> None:
    """Publish the current generation without what updates left behind in it."""
    verb("generations").compact(repo, as_json=as_json)


@app.command()
def add_incremental(
    repo: Repo,
    chunks: Annotated[Path, typer.Argument(help="A Parquet file with the columns of the table `chunks`.")],
    as_json: Json = False,
) -> None:
    """Publish the current generation with chunks that were made elsewhere; `update` then makes their vectors."""
    verb("generations").add_incremental(repo, chunks, as_json=as_json)


@app.command()
def status(as_json: Json = False) -> None:
    """Tell what is indexed, how completely, and what is being built: `codeintel status`."""
    verb("inspect").status(as_json=as_json)


@app.command()
def ls(repo: Repo, as_json: Json = False) -> None:
    """List a repository's generations, newest first."""
    verb("generations").ls(repo, as_json=as_json)


@app.command()
def verify(repo: Repo, generation: Generation = "", as_json: Json = False) -> None:
    """Read every file of a generation (default: the current one) and compare it with what was published."""
    verb("generations").verify(repo, generation, as_json=as_json)


@app.command()
def gc(
    repo: Repo,
    keep: Annotated[int | None, typer.Option(min=1, help="Default: index.keep_generations.")] = None,
    as_json: Json = False,
) -> None:
    """Remove old generations that nobody reads."""
    verb("generations").gc(repo, keep, as_json=as_json)


@app.command()
def rollback(repo: Repo, generation: Generation = "", as_json: Json = False) -> None:
    """Make an older generation (default: the one before) the current one."""
    verb("generations").rollback(repo, generation, as_json=as_json)


@app.command()
def coverage(
    repo: Repo,
    run: Annotated[Path | None, typer.Option(help="A folder that `eval --out` wrote: what its answers reach.")] = None,
    as_json: Json = False,
) -> None:
    """Tell how many chunks of each module and language have a vector or, with --run, were found."""
    if run:
        verb("evaluation").coverage(repo, run, as_json=as_json)
    else:
        verb("contents").coverage(repo, as_json=as_json)


@app.command()
def synth(
    repo: Repo,
    out: Annotated[Path, typer.Option(help="The file of questions to write, .jsonl.")],
    count: Annotated[int, typer.Option(min=1, help="At most so many, spread over forms, languages and kinds.")] = 200,
    blank_into: Annotated[
        Path | None, typer.Option(help="A new folder: the indexed files without the sentences asked for.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make questions with known answers of a repository's own definitions and their comments."""
    verb("evaluation").synth(repo, out, count, blank_into, as_json=as_json)


@app.command(name="eval")
def evaluate(
    repo: Repo,
    queries: Annotated[Path, typer.Option(help="Questions: .jsonl {qid, query, …} or lines QUESTION, tab, PATH:1-9.")],
    out: Annotated[Path, typer.Option(help="The folder to write the run into.")],
    *,
    qrels: Annotated[Path | None, typer.Option(help="Judgements: qid, path, start_line, end_line, gain.")] = None,
    against: Annotated[Path | None, typer.Option(help="An earlier --out: fail when this run is worse.")] = None,
    k: Annotated[int, typer.Option(min=1, help="How many hits count.")] = 10,
    oracle: Annotated[bool, typer.Option("--oracle", help="Compare the vector index with a full scan.")] = False,
    as_json: Json = False,
) -> None:
    """Ask a file of questions and tell how good the answers are."""
    verb("evaluation").evaluate(repo, queries, out, qrels=qrels, against=against, k=k, oracle=oracle, as_json=as_json)


@app.command()
def tune(
    repo: Repo,
    queries: Annotated[Path, typer.Option(help="Questions, as for `eval`.")],
    *,
    qrels: Annotated[Path | None, typer.Option(help="Judgements, as for `eval`.")] = None,
    k: Annotated[int, typer.Option(min=1, help="How many hits count.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print, and keep nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Find out how many candidates, and how many inverted lists, a file of questions needs."""
    verb("tuning").tune(repo, queries, qrels=qrels, k=k, dry_run=dry_run, as_json=as_json)


@app.command()
def files(
    repo: Repo,
    skipped: Annotated[bool, typer.Option("--skipped", help="Those left out, with the reasons.")] = False,
    as_json: Json = False,
) -> None:
    """List the indexed files."""
    verb("contents").files(repo, skipped=skipped, as_json=as_json)


@app.command()
def export_idmap(
    repo: Repo,
    out: Annotated[Path, typer.Option(help="The Parquet file to write: faiss_id, chunk_id.")],
    as_json: Json = False,
) -> None:
    """Write which chunk each vector is of."""
    verb("contents").export(repo, out, as_json=as_json)
