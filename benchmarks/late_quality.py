"""What does late interaction add to the ranking, and cost? `python -m benchmarks.late_quality DATA_DIR SET_DIR …`.

Sets are those of `benchmarks.quality`; what is not indexed yet below DATA_DIR, as SET-REPO and with token vectors, is
indexed first. The checkpoint is that of `CODEINTEL_XTR__MODEL`, else the embedded model's tokens are taken. Every
question is asked in every way before the next, through the service's own search: ndcg, mrr and recall @10, `±` half
the 95 % interval of the paired bootstrap of ndcg against `off`, milliseconds of wall time.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality import K, figures
from codeintel_rev.config.settings import PathsSettings, Settings, SourceSettings, load_settings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.eval.bootstrap import paired
from codeintel_rev.eval.metrics import Place, Score, score
from codeintel_rev.eval.queries import Query, bench_set
from codeintel_rev.indexing.build import build
from codeintel_rev.retrieval.options import Options
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope

WAYS = {
    "off": Options(mode="off"),
    "rescore, rrf": Options(mode="rescore", blend="rrf"),
    "rescore, sum .2 minmax": Options(mode="rescore", blend="sum", stage_weights={"xtr_rescore": 0.2}),
    "rescore, replace": Options(mode="rescore", blend="replace"),
    "wide": Options(mode="wide"),
    "both": Options(mode="both"),
}


def settings_of(data_dir: Path) -> Settings:
    chosen = load_settings()
    return Settings(
        paths=PathsSettings(data_dir=data_dir),
        source=SourceSettings(index_vendored=True, index_generated=True),
        xtr=chosen.xtr.model_copy(update={"enable": True}),
    )


def run(queries: Sequence[Query], name: str, shards: Shards) -> tuple[dict[str, list[Score]], dict[str, list[float]]]:
    """Return the scores and times of every way, question by question."""
    scores: dict[str, list[Score]] = defaultdict(list)
    times: dict[str, list[float]] = defaultdict(list)
    for query in queries:
        scope = Scope(repos=(f"{name}-{query.repo}",))
        for way, options in WAYS.items():
            started = time.perf_counter()
            found = shards.search(query.text, scope, K, deadline_ms=60_000, options=options)
            times[way].append((time.perf_counter() - started) * 1000)
            assert not found.limits, found.limits
            places = (Place(hit.path, hit.start_line, hit.end_line) for hit in found.hits)
            scores[way].append(score(places, query.judged, K))
    return scores, times


def report(name: str, queries: Sequence[Query], scores: dict[str, list[Score]], times: dict[str, list[float]]) -> None:
    repos = [query.repo for query in queries]
    plain = figures(scores["off"])
    for way in WAYS:
        values = figures(scores[way])
        macro = np.mean([values[[r == repo for r in repos], 0].mean() for repo in set(repos)])
        ndcg, mrr, recall = values.mean(axis=0)
        difference = paired(values[:, 0] - plain[:, 0])
        p50, p95 = np.percentile(times[way], (50, 95))
        print(
            f"{name} | {way} | ndcg@10 {ndcg:.3f} macro {macro:.3f} mrr@10 {mrr:.3f} recall@10 {recall:.3f}"
            f" | against off {difference.mean:+.3f} ± {difference.half:.3f} | p50 {p50:.1f} p95 {p95:.1f} ms"
        )


def main() -> None:
    places = [Path(argument) for argument in sys.argv[1:]]
    folders = [place for place in places if (place / "queries.jsonl").is_file()]
    if not folders or places[0] in folders:
        print("no set given: python -m benchmarks.late_quality DATA_DIR SET_DIR …")
        return
    settings = settings_of(places[0])
    for folder in folders:
        queries = bench_set(folder)
        for repo in sorted({query.repo for query in queries}):
            build(f"{folder.name}-{repo}", folder / "trees" / repo, settings, on_progress=lambda _: None)
        shards = Shards(places[0], open_encoder(settings.embedding, places[0] / "models"), settings)
        shards.refresh()
        report(folder.name, queries, *run(queries, folder.name, shards))
        shards.close()


if __name__ == "__main__":
    main()
