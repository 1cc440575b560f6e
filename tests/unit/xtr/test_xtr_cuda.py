"""Rescoring on torch's devices gives the scores of the compiled loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from codeintel_rev.errors import SettingsError
from codeintel_rev.xtr.config import SearchConfig
from codeintel_rev.xtr.cuda import DeviceTokens
from codeintel_rev.xtr.search import XTRSearch
from tests.unit.xtr.token_corpora import clustered, opened, vectors

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, CUDA])])
@pytest.mark.parametrize(("layout", "bits"), [("flat", 4), ("warp", 2), ("warp", 4)])
@pytest.mark.parametrize("dim", [40, 128])
def test_a_device_gives_the_scores_of_the_loops(tmp_path: Path, device: str, layout: str, bits: int, dim: int) -> None:
    """Empty documents and any order included."""
    random = np.random.default_rng(3)
    corpus = clustered(random, [0, 1, 7, 300, 0, 90], dim)
    index = opened(tmp_path, corpus, dim, layout=layout, quant_bits=bits)
    query = index.ready(vectors(random, 33, dim))
    segment = index.segments[0]
    documents = np.array([5, 0, 2, 1, 3, 4], np.int64)
    found = DeviceTokens(index.segments, index.codec, device).maxsim(segment, query, documents)
    expected = index.rescore(query.tokens, segment.doc_ids)
    by_id = dict(zip(expected.doc_ids.tolist(), expected.scores.tolist(), strict=True))
    np.testing.assert_allclose(found, [by_id[i] for i in segment.doc_ids[documents].tolist()], atol=1e-3)


def test_documents_without_tokens_score_nothing(tmp_path: Path) -> None:
    index = opened(tmp_path, {1: np.zeros((0, 16), np.float32)}, 16)
    device = DeviceTokens(index.segments, index.codec, "cpu")
    query = index.ready(np.eye(16, dtype=np.float32))
    assert device.maxsim(index.segments[0], query, np.array([0], np.int64)).tolist() == [0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, clustered(np.random.default_rng(0), [3], 16), 16)
    with pytest.raises(SettingsError, match="no CUDA device"):
        XTRSearch.open(SearchConfig(tmp_path, device="cuda"))
