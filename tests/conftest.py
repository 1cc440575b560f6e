"""What the whole suite shares: the real embedded encoder, made once per run however many workers run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder

if TYPE_CHECKING:
    from codeintel_rev.retrieval.shards import Shards
    from tests.indexed import Place

# A loaded machine is no reason to fail.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
# Work trees to be indexed, not tests.
collect_ignore = ["corpus"]


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, minilm: DenseEncoder) -> Place:
    """`tests/corpus`, indexed with vectors; to be read only."""
    from tests.indexed import REPOSITORIES, new_place, plant

    return plant(new_place(tmp_path_factory.mktemp("corpus"), models_dir), *REPOSITORIES)


@pytest.fixture(scope="session")
def served(corpus: Place, minilm: DenseEncoder) -> Iterator[Shards]:
    """The corpus, opened once."""
    with corpus.opened(minilm) as shards:
        yield shards
