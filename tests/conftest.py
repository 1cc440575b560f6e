"""What the whole suite shares: the real embedded encoder, made once per run however many workers run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder of models that every pytest-xdist worker of this run shares."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if hasattr(request.config, "workerinput") else own
    return shared / "models"


@pytest.fixture(scope="session")
def minilm(models_dir: Path) -> DenseEncoder:
    encoder = open_encoder(EmbeddingSettings(), models_dir)
    assert encoder is not None
    return encoder
