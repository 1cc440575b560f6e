"""What does each part add? Ablation over retrieval sets: `python -m benchmarks.quality SET_DIR …`.

A set is a folder: `queries.jsonl` {qid, query, repo}, `qrels.tsv` (qid, path, start_line, end_line, gain; lines empty =
the whole file) and `trees/<repo>/…`. Hits count as they come (several of one file push others down), binary gains.
Each row is one variant over the same published shards; `±` is half the 95 % interval of the paired bootstrap of its
ndcg@10 against the row "+ ranking", which is what the service does.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import PathsSettings, Settings, SourceSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
from codeintel_rev.eval.bootstrap import paired
from codeintel_rev.eval.metrics import Place, Score, score
from codeintel_rev.eval.queries import Query, bench_set
from codeintel_rev.indexing.build import build
from codeintel_rev.retrieval.channels import Question
from codeintel_rev.retrieval.fanout import Task, gather
from codeintel_rev.retrieval.fuse import fuse
from codeintel_rev.retrieval.hydrate import candidates
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.plan import Plan, make_plan
from codeintel_rev.retrieval.rank import rank
from codeintel_rev.retrieval.shard import Shard
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Ids, Ranking

K = 10
RRF_K = 60

Variant = Callable[[Plan, Sequence[Ranking], Shard], Ids]


def channel(name: str) -> Variant:
    return lambda _plan, rankings, _shard: next(
        (r.chunk_ids for r in rankings if r.channel == name), np.empty(0, np.int64)
    )


def reciprocal_rank_fusion(_plan: Plan, rankings: Sequence[Ranking], _shard: Shard) -> Ids:
    """Cormack et al. 2009, every channel with weight 1."""
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for place, chunk_id in enumerate(ranking.chunk_ids.tolist(), start=1):
            scores[chunk_id] += 1 / (RRF_K + place)
    return np.array(sorted(scores, key=lambda chunk_id: (-scores[chunk_id], chunk_id)), np.int64)


def fused(plan: Plan, rankings: Sequence[Ranking], _shard: Shard) -> Ids:
    return fuse(rankings, plan.weights).chunk_ids


def ranked(plan: Plan, rankings: Sequence[Ranking], shard: Shard) -> Ids:
    found = fuse(rankings, plan.weights)
    return found.chunk_ids[[place.row for place in rank(plan, candidates(found, [shard]))]]


def ranked_without_dense(plan: Plan, rankings: Sequence[Ranking], shard: Shard) -> Ids:
    return ranked(plan, [ranking for ranking in rankings if ranking.channel != "dense"], shard)


VARIANTS: dict[str, Variant] = {
    "lexical": channel("lexical"),
    "dense": channel("dense"),
    "rrf of lexical, dense, symbols": reciprocal_rank_fusion,
    "weighted, normalised scores": fused,
    "lexical, symbols + ranking": ranked_without_dense,
    "+ ranking": ranked,
}


def run(queries: Sequence[Query], shards: Shards, encoder: DenseEncoder, depth: int) -> dict[str, dict[str, Score]]:
    scores: dict[str, dict[str, Score]] = {name: {} for name in VARIANTS}
    with ThreadPoolExecutor(2) as executor:
        for query in queries:
            plan = make_plan(query.text, depth)
            question = Question(plan, encoder.encode_queries([query.text])[0], QueryTokens(query.text))
            with shards.lease((query.repo,)) as (shard,):
                tasks = [Task(shard.repo, each, None) for each in shard.channels]
                found = gather(question, tasks, executor, deadline=time.monotonic() + 60, budget_ms=60_000)
                assert not found.limits, found.limits
                for name, variant in VARIANTS.items():
                    ids = variant(plan, found.rankings, shard)[:K]
                    chunks, _ = shard.catalog.hydrate(ids)
                    places = (Place(chunk.path, chunk.start_line, chunk.end_line) for chunk in chunks)
                    scores[name][query.qid] = score(places, query.judged, K)
    return scores


def figures(scores: Iterable[Score]) -> np.ndarray:
    """Return ndcg, mrr and recall (n, 3)."""
    return np.array([(one.ndcg, one.mrr, one.recall) for one in scores])


def report(name: str, queries: Sequence[Query], scores: dict[str, dict[str, Score]]) -> None:
    repos = [query.repo for query in queries]
    service = figures(scores["+ ranking"][query.qid] for query in queries)
    for variant, by_query in scores.items():
        values = figures(by_query[query.qid] for query in queries)
        macro = np.mean([values[[r == repo for r in repos], 0].mean() for repo in set(repos)])
        ndcg, mrr, recall = values.mean(axis=0)
        difference = paired(service[:, 0] - values[:, 0])
        print(
            f"{name} | {variant} | ndcg@10 {ndcg:.3f} macro {macro:.3f} mrr@10 {mrr:.3f} recall@10 {recall:.3f}"
            f" | service {difference.mean:+.3f} ± {difference.half:.3f}"
        )


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if Path(argument, "queries.jsonl").is_file()]
    if not folders:
        print("no set given: python -m benchmarks.quality SET_DIR …")
    for folder in folders:
        with tempfile.TemporaryDirectory() as data:
            everything = SourceSettings(index_vendored=True, index_generated=True)
            settings = Settings(paths=PathsSettings(data_dir=Path(data)), source=everything)
            queries = bench_set(folder)
            for repo in sorted({query.repo for query in queries}):
                build(repo, folder / "trees" / repo, settings, on_progress=lambda _: None)
            encoder = open_encoder(settings.embedding, Path(data, "models"))
            assert encoder is not None
            shards = Shards(settings.paths.data_dir, encoder, settings)
            shards.refresh()
            report(folder.name, queries, run(queries, shards, encoder, settings.retrieval.candidates))
            shards.close()


if __name__ == "__main__":
    main()
