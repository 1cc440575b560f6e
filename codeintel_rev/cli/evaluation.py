"""`indexctl synth, eval, coverage --run`: how good the ranking is over one's own code, and whether it got worse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.app.context import Open
from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.cli.contents import current_catalog, current_generation
from codeintel_rev.cli.search import Limited
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.errors import CodeIntelError, IndexUnavailable, InvalidArgument
from codeintel_rev.eval import queries as asked
from codeintel_rev.eval import report
from codeintel_rev.eval.blanking import blanked
from codeintel_rev.eval.coverage import reach
from codeintel_rev.eval.oracle import IndexRecall, index_recall
from codeintel_rev.eval.run import Answer, Comparison, ask, compare, read_run, summary, write_run
from codeintel_rev.eval.synth import questions
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.duckdb_catalog import read_chunks
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.io.stored_vectors import StoredVectors
from codeintel_rev.retrieval.shard import check_model
from codeintel_rev.types import Role

PAGE = "report.html"
REACH = ("module", "language", "chunks", "reached", "judged", "found")


class Regressed(CodeIntelError):
    """The ranking is worse than the baseline by more than chance."""


def synth(repo: str, out: Path, most: int, blank_into: Path | None, *, as_json: bool) -> None:
    """Write at most `most` questions made of the definitions in the code of `repo`, no tests and no examples.

    With `blank_into`, a folder that is not there yet, also write the indexed files there without the sentences asked
    for. Raises InvalidArgument when it is there, or nothing is defined.
    """
    if blank_into and blank_into.exists():
        raise InvalidArgument(f"{blank_into} is there already.", "Name a new folder.")
    with current_catalog(load_settings(), repo) as catalog:
        code = {file.path for file in catalog.paths() if file.role == Role.CODE}
        symbols = [symbol for symbol in catalog.symbols() if symbol.path in code]
        copy = blanked(catalog.chunks(), symbols) if blank_into else None
    made = questions("", copy.definitions, most) if copy else questions(repo, symbols, most)
    if not made:
        raise InvalidArgument(f"{repo} defines nothing to ask for.", "Write questions by hand: docs/evaluation.md.")
    if copy and blank_into:
        _write_files(blank_into, copy.texts)
    with os_errors_mapped("write", out):
        out.write_text("".join(json.dumps(asked.row_of(one)) + "\n" for one in made), encoding="utf-8")
    if as_json:
        render.print_json({"questions": len(made), "out": str(out)})
    else:
        render.out.print(f"{len(made)} questions written to {out}")


def _write_files(folder: Path, texts: Mapping[str, str]) -> None:
    for path, text in texts.items():
        file = folder / path
        with os_errors_mapped("write", file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


def evaluate(
    repo: str,
    queries: Path,
    out: Path,
    *,
    qrels: Path | None,
    against: Path | None,
    k: int,
    oracle: bool,
    as_json: bool,
    open_index: Open = open_index,
) -> None:
    """Ask the questions of `repo`, write the run into `out` and print its figures.

    Raises, once all is written, Limited when an answer was limited, else Regressed when ndcg is below the baseline's by
    more than chance.
    """
    settings = load_settings()
    chosen = asked.of_repository(asked.read(queries, qrels), repo)
    baseline = read_run(against) if against else None
    with closing(open_index(settings).searcher) as searcher:
        answers = ask(searcher, repo, chosen, k, settings.retrieval.request_deadline_ms)
    comparison = compare(answers, baseline) if baseline else None
    metrics = summary(repo, answers)
    metrics["not_indexed"] = _not_indexed(settings, repo, chosen)
    if oracle:
        metrics["index"] = asdict(_index_recall(settings, repo, chosen, k))
    write_run(out, metrics, answers)
    with os_errors_mapped("write", out):
        (out / PAGE).write_text(report.page(metrics, answers, comparison), encoding="utf-8")
    if as_json:
        render.print_json({**metrics, "against": asdict(comparison) if comparison else None})
    else:
        render.print_table(report.columns(metrics), report.rows(metrics))
        render.out.print("\n".join(report.remarks(metrics)))
    refuse_limited(answers)
    _refuse_loss(comparison, k)


def _not_indexed(settings: Settings, repo: str, queries: Sequence[asked.Query]) -> list[str]:
    """Return the judged files that no answer can hold, having told of them: a path written wrong is a question lost."""
    judged = {place.path for query in queries for place in query.judged}
    with current_catalog(settings, repo) as catalog:
        missing = sorted(judged - {file.path for file in catalog.paths()})
    if missing:
        render.err.print(f"{len(missing)} judged files are not indexed in {repo}: {', '.join(missing[:5])}")
    return missing


def _index_recall(settings: Settings, repo: str, queries: Sequence[asked.Query], k: int) -> IndexRecall:
    encoder = open_encoder(settings.embedding, settings.paths.data_dir / "models")
    with current_generation(settings, repo) as generation:
        if encoder is None or generation.manifest.model is None or not generation.manifest.counts["vectors"]:
            raise IndexUnavailable(
                f"{repo} has no vectors to compare.", "Leave --oracle out, or index with an encoder."
            )
        check_model(generation.manifest.model, encoder.fingerprint)
        dim = encoder.fingerprint.dim
        index, stored = DualIndex.open(generation.path, dim), StoredVectors.open(generation.path, dim)
        return index_recall(index, stored, encoder.encode_queries([query.text for query in queries]), k)


def refuse_limited(answers: Sequence[Answer]) -> None:
    """Raise Limited when an answer was limited: it measured something else."""
    codes = sorted({code for answer in answers for code in answer.limits})
    if codes:
        count = sum(bool(answer.limits) for answer in answers)
        raise Limited(f"{count} of {len(answers)} answers were limited: {', '.join(codes)}.", "See `codeintel status`.")


def _refuse_loss(comparison: Comparison | None, k: int) -> None:
    if comparison is None:
        return
    told = report.compared(comparison, k)
    if comparison.ndcg.is_loss:
        raise Regressed(f"the ranking got worse: {told}", f"Worst: {', '.join(comparison.worse[:5])}.")
    render.err.print(told)


def coverage(repo: str, run: Path, *, as_json: bool) -> None:
    """Print which chunks, by module and language, the answers of `run` hold.

    Raises InvalidArgument for a run over another generation.
    """
    answers = read_run(run)
    settings = load_settings()
    with current_generation(settings, repo) as generation:
        current = generation.manifest.generation
        if others := sorted({answer.generation for answer in answers} - {current}):
            raise InvalidArgument(f"the run is of generation {others[0]}, {repo} is at {current}.", "Run `eval` again.")
        table = reach(read_chunks(generation.path, settings.duckdb), answers)
    if as_json:
        render.print_json([asdict(row) for row in table])
    else:
        render.print_table(REACH, ([asdict(row)[column] for column in REACH] for row in table))
