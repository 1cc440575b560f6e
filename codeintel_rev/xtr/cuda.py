"""Exact MaxSim of given documents on a GPU: what `rescore.maxsim` returns, from the index's bytes kept on the device.

The compressed tokens are copied there once; a query sends its own tokens and the documents' bounds, gathers all their
tokens at once and multiplies once, where a copy and a product for each candidate would wait for the bus two hundred
times. Products of int8 rows in float32 are whole numbers, so that only the order of the last sum differs from the CPU.

The one module of this package that imports torch; `search` imports it when `SearchConfig.device` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from codeintel_rev.errors import SettingsError
from codeintel_rev.types import Floats
from codeintel_rev.xtr.codec import Codec
from codeintel_rev.xtr.rescore import Query
from codeintel_rev.xtr.storage import Array, Segment

FILES = ("tokens", "cells", "lengths", "residuals")


class DeviceTokens:
    """The tokens of `segments` on `device`: "cuda", or "cpu" as torch knows it. Safe for many threads.

    Raises SettingsError where there is no such device.
    """

    def __init__(self, segments: Sequence[Segment], codec: Codec | None, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise SettingsError("xtr device is cuda, torch finds no CUDA device.", "Set device to cpu.")
        self._device = torch.device(device)
        self._codec = codec
        self._arrays = {segment.entry.name: self._moved(segment) for segment in segments}
        if codec:
            self._corners = self._tensor(codec.centroids.fine)
            self._scales = self._tensor(codec.scales)

    def maxsim(self, segment: Segment, query: Query, documents: NDArray[np.int64]) -> Floats:
        """Return the score of each of `documents` (numbers in `segment`); 0 for one without tokens."""
        starts, ends = segment.offsets[documents], segment.offsets[documents + 1]
        scores = np.zeros(len(documents), np.float32)
        full = np.flatnonzero(ends > starts)
        if len(full):
            sums = self._sums(self._arrays[segment.entry.name], query, starts[full], (ends - starts)[full])
            scores[full] = sums.cpu().numpy()
        return scores

    def _sums(
        self, arrays: dict[str, torch.Tensor], query: Query, starts: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> torch.Tensor:
        lengths = self._tensor(counts)
        firsts = self._tensor(starts - np.cumsum(counts) + counts)
        rows = torch.repeat_interleave(firsts, lengths) + torch.arange(int(counts.sum()), device=self._device)
        products = self._products(arrays, query, rows)
        best = torch.segment_reduce(products, "max", lengths=lengths, axis=0)
        return best.sum(1) if self._codec is None else best @ self._tensor(query.weights)

    def _products(self, arrays: dict[str, torch.Tensor], query: Query, rows: torch.Tensor) -> torch.Tensor:
        """Return (n, queries) similarities, but for the query's weights, of the tokens `rows` (n,)."""
        codec = self._codec
        if codec is None:
            return arrays["tokens"][rows].float() @ self._tensor(query.tokens).T
        packed = arrays["residuals"][rows]
        planes = [(packed >> shift) & ((1 << codec.bits) - 1) for shift in range(0, 8, codec.bits)]
        buckets = torch.cat(planes, dim=1).float()
        decoded = self._corners[arrays["cells"][rows]].float() + codec.step * buckets
        products = decoded @ self._tensor(query.rows).float().T
        return products * self._scales[arrays["lengths"][rows]][:, None]

    def _moved(self, segment: Segment) -> dict[str, torch.Tensor]:
        """Return the arrays that scores are made of; cells and lengths, which are indices, as wide as torch wants."""
        arrays = {stem: segment.arrays[stem] for stem in FILES if stem in segment.arrays}
        wide = {stem: array.astype(np.int32) for stem, array in arrays.items() if stem in ("cells", "lengths")}
        return {
            stem: self._tensor(array.view(np.uint8) if stem == "residuals" else array)
            for stem, array in (arrays | wide).items()
        }

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(np.array(array)).to(self._device)
