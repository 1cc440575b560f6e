"""How many candidates, and how many inverted lists, are enough? A sweep over one's own questions, and its choice.

data/repos/<repo>/operating_point.json    the choice, with every point it was chosen from and the generation measured
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codeintel_rev.errors import IndexCorrupt
from codeintel_rev.eval.bootstrap import paired
from codeintel_rev.eval.run import Answer
from codeintel_rev.io.durable import DISK, os_errors_mapped
from codeintel_rev.io.registry import repository_name

OPERATING_POINT = "operating_point.json"
CANDIDATES = (20, 40, 60, 100, 200)
MARGIN = 0.01
"""Of ndcg: what may be lost for fewer candidates. Few questions cannot show that so little is lost: then the best is
taken."""
ENOUGH_RECALL = 0.95
"""Share of the exact nearest that an inverted file must find; an exact one finds all."""


@dataclass(frozen=True, slots=True)
class Point:
    """What so many candidates a channel gave: mean ndcg, and times of a search without its encoding."""

    candidates: int
    ndcg: float
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class ProbePoint:
    """What reading so many inverted lists of the vector index gave."""

    nprobe: int
    recall: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What was chosen. `nprobe` is None where the vector index has no lists, or none was enough."""

    generation: str
    questions: int
    k: int
    candidates: int
    nprobe: int | None
    points: tuple[Point, ...]
    probes: tuple[ProbePoint, ...]

    @property
    def chosen(self) -> Point:
        return next(point for point in self.points if point.candidates == self.candidates)


def sweep(measure: Callable[[int], list[Answer]], in_use: int) -> tuple[int, tuple[Point, ...]]:
    """Return the fewest candidates that are enough, and every point: `CANDIDATES` and those `in_use`.

    Enough is what loses at most MARGIN against the best ndcg, by the whole 95 % interval. Times take no part: fewer are
    never slower, and one machine's noise must not choose.
    """
    runs = {candidates: measure(candidates) for candidates in sorted({*CANDIDATES, in_use})}
    ndcg = {candidates: np.array([one.score.ndcg for one in answers]) for candidates, answers in runs.items()}
    best = max(ndcg.values(), key=lambda values: float(values.mean()))
    chosen = next(candidates for candidates, values in ndcg.items() if paired(values - best).low >= -MARGIN)
    return chosen, tuple(_point(candidates, answers) for candidates, answers in runs.items())


def _point(candidates: int, answers: Sequence[Answer]) -> Point:
    p50, p95 = np.percentile([answer.search_ms for answer in answers], (50, 95))
    ndcg = float(np.mean([answer.score.ndcg for answer in answers]))
    return Point(candidates, ndcg, round(float(p50), 2), round(float(p95), 2))


def probe_grid(nlist: int) -> list[int]:
    """Return how many lists to try, one in 128 up to one in four; none for an exact index."""
    return sorted({max(1, nlist // share) for share in (128, 64, 32, 16, 8, 4)}) if nlist else []


def enough_probes(points: Iterable[ProbePoint]) -> int | None:
    """Return the fewest lists that find `ENOUGH_RECALL`, None when none do."""
    return min((point.nprobe for point in points if point.recall >= ENOUGH_RECALL), default=None)


def write_point(directory: Path, point: OperatingPoint) -> None:
    """Keep `point` beside the generations of the shard at `directory`. Raises InsufficientStorage, StorageFailed."""
    draft = directory / f"{OPERATING_POINT}.tmp"
    DISK.write(draft, (json.dumps(asdict(point), indent=1) + "\n").encode())
    DISK.replace(draft, directory / OPERATING_POINT)
    DISK.sync_directory(directory)


def read_point(directory: Path) -> OperatingPoint | None:
    """Return what was chosen for a shard; None when nothing was. Raises IndexCorrupt for another shape."""
    path = directory / OPERATING_POINT
    if not path.is_file():
        return None
    with os_errors_mapped("read", path):
        data = path.read_bytes()
    try:
        return _point_of(json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise IndexCorrupt(
            f"{OPERATING_POINT} of {repository_name(directory)} is not readable.", "Tune again."
        ) from error


def _point_of(fields: dict[str, Any]) -> OperatingPoint:
    points = tuple(Point(**one) for one in fields.pop("points"))
    probes = tuple(ProbePoint(**one) for one in fields.pop("probes"))
    return OperatingPoint(**fields, points=points, probes=probes)
