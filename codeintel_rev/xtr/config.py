"""What an index is made with and how it is searched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["flat", "warp"]
"""flat: float16 tokens, exact, the reference. warp: centroid and residual of a few bits, searched by centroid."""

ScoreNorm = Literal["none", "minmax", "z"]

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class BuildConfig:
    """Affects results: all. `nlist` centroids (0: 16·√tokens, ColBERTv2 §3.3); longer documents than `max_doclen`
    tokens are refused, never cut."""

    index_dir: Path
    dim: int
    model_id: str = ""
    layout: Layout = "warp"
    quant_bits: Literal[2, 4] = 4
    nlist: int = 0
    max_doclen: int = 8192
    seed: int = 42


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """`nprobe` cells a query token, `candidates` documents kept by probing, `rescored` of them by centroid interaction:
    more is slower and finds more. Up to `brute_force` documents are all rescored: faster there, and misses nothing.
    `device` is where documents are rescored; narrowing stays on the CPU."""

    index_dir: Path
    top_k: int = 200
    score_norm: ScoreNorm = "none"
    nprobe: int = 32
    candidates: int = 8192
    rescored: int = 1024
    brute_force: int = 4096
    device: Device = "cpu"
