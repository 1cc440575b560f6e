"""What does each part add? Ablation over retrieval sets: `python -m benchmarks.quality SET_DIR …`.

A set is a folder: `queries.jsonl` {qid, query, repo}, `qrels.tsv` (qid, path, start_line, end_line, gain; lines empty =
the whole file) and `trees/<repo>/…`. Hits count as they come (several of one file push others down), binary gains.
Each row is one variant over the same published shards; `±` is half the 95 % interval of the paired bootstrap of its
ndcg@10 against the row "+ ranking", which is what the service does.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codeintel_rev.config.settings import PathsSettings, Settings, SourceSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
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
DRAWS = 10_000

Judged = list[tuple[str, int, int]]
Place = tuple[str, int, int]
Score = tuple[float, float, float]
Variant = Callable[[Plan, Sequence[Ranking], Shard], Ids]


@dataclass(frozen=True, slots=True)
class Query:
    qid: str
    text: str
    repo: str
    judged: Judged


def load(folder: Path) -> list[Query]:
    judged: dict[str, Judged] = defaultdict(list)
    for line in (folder / "qrels.tsv").read_text().splitlines():
        qid, path, start, end, gain = line.split("\t")
        if float(gain) > 0:
            judged[qid].append((path, int(start or 0), int(end or 1 << 40)))
    rows = map(json.loads, (folder / "queries.jsonl").read_text().splitlines())
    return [Query(row["qid"], row["query"], row["repo"], judged[row["qid"]]) for row in rows if row["qid"] in judged]


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


def score(hits: Iterable[Place], judged: Judged) -> Score:
    """Return ndcg, mrr and recall at K."""
    places = list(hits)
    ranks = [
        next((n for n, (p, a, b) in enumerate(places, 1) if p == path and a <= end and b >= start), None)
        for path, start, end in judged
    ]
    found = [place for place in ranks if place]
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(len(judged), K) + 1))
    gained = sum(1 / math.log2(place + 1) for place in set(found))
    return gained / ideal, 1 / min(found) if found else 0.0, len(found) / len(judged)


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
                    scores[name][query.qid] = score(((c.path, c.start_line, c.end_line) for c in chunks), query.judged)
    return scores


def report(name: str, queries: Sequence[Query], scores: dict[str, dict[str, Score]]) -> None:
    repos = [query.repo for query in queries]
    service = np.array([scores["+ ranking"][query.qid] for query in queries])
    for variant, by_query in scores.items():
        values = np.array([by_query[query.qid] for query in queries])
        macro = np.mean([values[[r == repo for r in repos], 0].mean() for repo in set(repos)])
        ndcg, mrr, recall = values.mean(axis=0)
        difference, half = bootstrap(service[:, 0] - values[:, 0])
        print(
            f"{name} | {variant} | ndcg@10 {ndcg:.3f} macro {macro:.3f} mrr@10 {mrr:.3f} recall@10 {recall:.3f}"
            f" | service {difference:+.3f} ± {half:.3f}"
        )


def bootstrap(differences: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = differences[rng.integers(0, len(differences), (DRAWS, len(differences)))].mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(differences.mean()), float(high - low) / 2


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:] if Path(argument, "queries.jsonl").is_file()]
    if not folders:
        print("no set given: python -m benchmarks.quality SET_DIR …")
    for folder in folders:
        with tempfile.TemporaryDirectory() as data:
            everything = SourceSettings(index_vendored=True, index_generated=True)
            settings = Settings(paths=PathsSettings(data_dir=Path(data)), source=everything)
            queries = load(folder)
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
