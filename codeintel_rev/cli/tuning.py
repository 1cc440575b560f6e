"""`indexctl tune`: how many candidates and inverted lists one's own questions need."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.cli.contents import current_generation
from codeintel_rev.cli.evaluation import refuse_limited
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.eval import queries as asked
from codeintel_rev.eval.oracle import index_recall
from codeintel_rev.eval.run import Answer, ask
from codeintel_rev.eval.tune import OperatingPoint, ProbePoint, enough_probes, probe_grid, sweep, write_point
from codeintel_rev.io.dual_index import DualIndex
from codeintel_rev.io.faiss_index import read_meta
from codeintel_rev.io.leases import Generation
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.io.stored_vectors import StoredVectors


def tune(repo: str, queries: Path, *, qrels: Path | None, k: int, dry_run: bool, as_json: bool) -> None:
    """Ask the questions of `repo` with other numbers of candidates, print what each gave, and keep what was enough.

    Raises Limited, before anything is kept, when an answer was limited.
    """
    settings = load_settings()
    chosen = asked.of_repository(asked.read(queries, qrels), repo)
    with current_generation(settings, repo) as generation:
        candidates, points = sweep(
            lambda count: _measured(settings, repo, chosen, k, count), settings.retrieval.candidates
        )
        probes = _probes(generation, settings, chosen, k)
        identity = generation.manifest.generation
    point = OperatingPoint(identity, len(chosen), k, candidates, enough_probes(probes), points, tuple(probes))
    if not dry_run:
        write_point(repository_directory(settings.paths.data_dir, repo), point)
    if as_json:
        render.print_json(asdict(point))
        return
    columns = ("candidates", f"ndcg@{k}", "p50 ms", "p95 ms", "")
    render.print_table(columns, [_row(settings, point, one.candidates) for one in points])
    if probes:
        rows = [(one.nprobe, f"{one.recall:.4f}", one.p50_ms) for one in probes]
        render.print_table(("nprobe", f"index recall@{k}", "p50 ms"), rows)
    render.out.print(f"CODEINTEL_RETRIEVAL__CANDIDATES={candidates} is enough for these {len(chosen)} questions")


def _measured(settings: Settings, repo: str, queries: list[asked.Query], k: int, candidates: int) -> list[Answer]:
    retrieval = settings.retrieval.model_copy(update={"candidates": candidates})
    with closing(open_index(settings.model_copy(update={"retrieval": retrieval})).searcher) as searcher:
        ask(
            searcher, repo, queries[:1], k, settings.retrieval.request_deadline_ms
        )  # The first opens what the others use.
        answers = ask(searcher, repo, queries, k, settings.retrieval.request_deadline_ms)
    refuse_limited(answers)
    return answers


def _probes(generation: Generation, settings: Settings, queries: list[asked.Query], k: int) -> list[ProbePoint]:
    """Return what each number of lists gives; nothing for an index without lists."""
    if not generation.manifest.counts["vectors"] or not (grid := probe_grid(read_meta(generation.path).nlist)):
        return []
    encoder = open_encoder(settings.embedding, settings.paths.data_dir / "models")
    if encoder is None:
        return []
    dim = encoder.fingerprint.dim
    index, stored = DualIndex.open(generation.path, dim), StoredVectors.open(generation.path, dim)
    vectors = encoder.encode_queries([query.text for query in queries])
    measured = [(nprobe, index_recall(index, stored, vectors, k, nprobe)) for nprobe in grid]
    return [ProbePoint(nprobe, found.recall, round(found.p50_ms, 3)) for nprobe, found in measured]


def _row(settings: Settings, point: OperatingPoint, candidates: int) -> tuple[object, ...]:
    one = next(each for each in point.points if each.candidates == candidates)
    marks = ["enough"] * (candidates == point.candidates) + ["in use"] * (candidates == settings.retrieval.candidates)
    return candidates, f"{one.ndcg:.4f}", one.p50_ms, one.p95_ms, ", ".join(marks)
