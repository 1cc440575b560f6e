"""Small corpora of token vectors and the plain sum of maxima they are scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from codeintel_rev.types import Floats
from codeintel_rev.xtr.build import build_index
from codeintel_rev.xtr.config import BuildConfig, SearchConfig
from codeintel_rev.xtr.search import XTRSearch

Corpus = Mapping[int, Floats]


def unit(rows: Floats) -> Floats:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def vectors(random: np.random.Generator, count: int, dim: int) -> Floats:
    return unit(random.standard_normal((count, dim))) if count else np.zeros((0, dim), np.float32)


def clustered(random: np.random.Generator, lengths: Sequence[int], dim: int, centres: int = 60) -> dict[int, Floats]:
    """Documents of those many tokens; their ids are odd and not in order."""
    around = vectors(random, centres, dim)
    ids = random.permutation(len(lengths)) * 2 + 1
    near = (
        around[random.integers(0, centres, n)] + 0.5 * random.standard_normal((n, dim)) / np.sqrt(dim) for n in lengths
    )
    return {
        int(i): unit(rows) if len(rows) else np.zeros((0, dim), np.float32) for i, rows in zip(ids, near, strict=True)
    }


def maxsim(query: Floats, tokens: Floats) -> float:
    return float((query @ tokens.T).max(axis=1).sum()) if len(tokens) else 0.0


def exact(query: Floats, corpus: Corpus) -> dict[int, float]:
    return {i: maxsim(query, tokens) for i, tokens in corpus.items()}


def opened(folder: Path, corpus: Corpus, dim: int, **options: object) -> XTRSearch:
    """Build an index of `corpus` and open it; `options` go to whichever configuration has them."""
    of_build = {name: value for name, value in options.items() if name in BuildConfig.__dataclass_fields__}
    of_search = {name: value for name, value in options.items() if name in SearchConfig.__dataclass_fields__}
    build_index(BuildConfig(folder, dim, **of_build), corpus.items())  # type: ignore[arg-type]
    return XTRSearch.open(SearchConfig(folder, **of_search))  # type: ignore[arg-type]
