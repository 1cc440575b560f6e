"""`codeintel`: index a repository, serve it, ask it.

Exit codes: 0 done · 1 failed · 2 not asked rightly: a bad argument or setting · 3 no such repository or file, or
nothing is indexed · 4 busy, try again. Every failure is one sentence and what to do, on standard error.

Only what parses the command line is imported here: `codeintel --help` must not wait for FAISS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from codeintel_rev.cli import indexctl, xtr
from codeintel_rev.cli.verbs import Verbs, verb

app = typer.Typer(
    name="codeintel",
    help="Ask a code base a question; get the right lines and the reason for each.",
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(indexctl.app, name="indexctl")
app.add_typer(xtr.app, name="xtr")

Folder = Annotated[Path, typer.Argument(help="The repository: a git work tree or any folder.")]
Repository = Annotated[str, typer.Argument(help="A git work tree, any folder, or a git URL: https, ssh or file.")]
Name = Annotated[
    str, typer.Option(help="What to call the repository; default: the folder's, or the last part of the URL.")
]
Ref = Annotated[str, typer.Option(help="Index this branch, tag or commit as NAME@REF; the work tree is left alone.")]
Watching = Annotated[bool, typer.Option("--watch", help="Then keep the index up to date with what is saved.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def up(path: Folder = Path(), name: Name = "") -> None:
    """Index a repository, serve it at once and follow its files; search answers while the index grows."""
    verb("serving").up(path, name)


@app.command()
def index(
    source: Repository = ".", name: Name = "", ref: Ref = "", as_json: Json = False, watch: Watching = False
) -> None:
    """Index a repository and publish the result."""
    verb("building").index(source, name, ref=ref, as_json=as_json, watch=watch)


@app.command()
def watch(repos: Annotated[list[str] | None, typer.Argument(help="Default: all that are indexed.")] = None) -> None:
    """Keep indexes up to date with what is saved, until stopped."""
    verb("watching").watch(repos or ())


@app.command()
def serve(watch: Watching = False) -> None:
    """Serve every indexed repository over MCP and HTTP."""
    verb("serving").serve(watch=watch)


@app.command()
def mcp() -> None:
    """Serve every indexed repository over MCP on standard input and output."""
    verb("stdio").mcp()


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="A question in plain words, an identifier or a path.")] = "",
    *,
    repo: Annotated[list[str] | None, typer.Option(help="Only this repository; may be repeated.")] = None,
    path: Annotated[list[str] | None, typer.Option(help="Only paths matching this glob; `!` negates.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only this language; may be repeated.")] = None,
    generation: Annotated[str, typer.Option(help="Answer from this kept generation: see `indexctl ls`.")] = "",
    as_of: Annotated[str, typer.Option(help="Answer as it was then: an ISO time, or 2h, 3d ago.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most hits.")] = 8,
    as_json: Json = False,
    explain: Annotated[
        bool, typer.Option(help="Show each channel's part in the score, and which tokens match.")
    ] = False,
    mode: Annotated[str | None, typer.Option(help="Late interaction: off, rescore, wide or both.")] = None,
    xtr_k: Annotated[int | None, typer.Option(help="Rescore this many fused chunks.")] = None,
    blend: Annotated[str | None, typer.Option(help="How rescoring counts: rrf, replace or sum.")] = None,
    score_norm: Annotated[str | None, typer.Option(help="Scale of MaxSim in a sum: none, minmax or z.")] = None,
    channels: Annotated[str, typer.Option(help="Only these, separated by commas: lexical, symbols, dense, xtr.")] = "",
    weight: Annotated[list[str] | None, typer.Option(help="CHANNEL=NUMBER; may be repeated.")] = None,
    queries: Annotated[Path | None, typer.Option(help="Ask every line {qid, query, repo} of this file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where --queries writes {qid, hits, ms} lines.")] = None,
) -> None:
    """Ask the index a question, or a file of questions."""
    if bool(query) == bool(queries) or bool(queries) != bool(out):
        raise typer.BadParameter("give either QUERY, or --queries FILE with --out FILE")
    scope: dict[str, object] = {"repos": repo or (), "paths": path or (), "languages": language or ()}
    scope |= {"generation": generation, "as_of": as_of}
    given: dict[str, object] = {"mode": mode, "xtr_k": xtr_k, "blend": blend, "score_norm": score_norm}
    given["channels"] = channels.split(",") if channels else ()
    given["stage_weights"] = dict(one.partition("=")[::2] for one in weight or ())
    knobs = {name: value for name, value in given.items() if value is not None}
    if queries:
        verb("search").batch(queries, out, scope, limit, knobs)
    else:
        verb("search").one(query, scope, limit, knobs, as_json=as_json, explain=explain)


@app.command()
def answer(
    question: Annotated[str, typer.Argument(help="A question in plain words; identifiers help.")],
    repo: Annotated[list[str] | None, typer.Option(help="Only this repository; may be repeated.")] = None,
    path: Annotated[list[str] | None, typer.Option(help="Only paths matching this glob; `!` negates.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only this language; may be repeated.")] = None,
    profile: Annotated[str | None, typer.Option(help="Time taken: fast, balanced or deep.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Answer a question in sentences that each name their lines."""
    scope = {"repos": repo or (), "paths": path or (), "languages": language or ()}
    verb("answer").answer(question, scope, profile, as_json=as_json)


@app.command()
def verify_answer(
    receipt: Annotated[Path, typer.Argument(help="What `codeintel answer --json` or GET /answers/{id} gave.")],
    as_json: Json = False,
) -> None:
    """Check an answer that was kept: its text, its citations, and whether its sources still stand."""
    verb("receipt").verify_answer(receipt, as_json=as_json)


@app.command()
def status(as_json: Json = False) -> None:
    """Tell what is indexed, how completely, and what is being built."""
    verb("inspect").status(as_json=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this installation and print the effective settings."""
    verb("inspect").doctor(as_json=as_json)


if __name__ == "__main__":
    app()
