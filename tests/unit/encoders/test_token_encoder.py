"""Which token encoder is opened for which settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.token_encoder import fitted_projection, open_token_encoder
from codeintel_rev.errors import SettingsError
from tests import tiny_models


def settings(**sections: dict[str, str]) -> Settings:
    return Settings.model_validate(sections)


def test_the_embedded_model_gives_its_own_tokens(minilm: DenseEncoder, tmp_path: Path) -> None:
    """Full width: the dense vector's dimension, and one pass for both."""
    encoder = open_token_encoder(settings(), minilm, tmp_path)
    query = encoder.encode_query("charge a card")
    assert query.tokens.shape[1] == minilm.fingerprint.dim
    assert np.array_equal(query.dense, minilm.encode_queries(["charge a card"])[0])


def test_a_projection_makes_them_narrow(minilm: DenseEncoder, tmp_path: Path) -> None:
    projection = fitted_projection(settings(), minilm, ["def charge(card):", "def refund(card):"])
    encoder = open_token_encoder(settings(), minilm, tmp_path, projection)
    assert encoder.fingerprint.dim == 128


def test_a_late_interaction_checkpoint_comes_first(minilm: DenseEncoder, tmp_path: Path) -> None:
    """A02, A29: by setting; it brings its own projection."""
    chosen = settings(xtr={"model": str(tiny_models.save_pylate(tmp_path / "tiny"))})
    encoder = open_token_encoder(chosen, minilm, tmp_path)
    assert encoder.fingerprint.model == "tiny"
    assert fitted_projection(chosen, minilm, ["text"]) is None


def test_a_dense_checkpoint_gives_its_tokens_where_there_is_no_other(tmp_path: Path) -> None:
    model = str(tiny_models.save_plain(tmp_path / "plain"))
    chosen = settings(embedding={"provider": "huggingface", "model": model})
    assert open_token_encoder(chosen, None, tmp_path).fingerprint.model == "plain"


def test_no_model_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no model makes token vectors"):
        open_token_encoder(settings(embedding={"provider": "none"}), None, tmp_path)
