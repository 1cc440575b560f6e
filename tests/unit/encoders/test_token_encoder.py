"""Which token encoder is opened for which settings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders import token_encoder
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.token_encoder import TokenEncoders, fitted_projection, open_token_encoder
from codeintel_rev.encoders.tokens import Projection
from codeintel_rev.errors import CodeIntelError, NoTokenModel
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
    with pytest.raises(NoTokenModel, match="no model makes token vectors"):
        open_token_encoder(settings(embedding={"provider": "none"}), None, tmp_path)


def test_one_model_is_loaded_however_many_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A05, decision 16: a checkpoint is one instance, whatever projection an index keeps."""
    chosen = settings(xtr={"model": str(tiny_models.save_pylate(tmp_path / "tiny"))})
    opened = []
    real = token_encoder.open_token_encoder
    monkeypatch.setattr(token_encoder, "open_token_encoder", lambda *given: opened.append(given) or real(*given))
    encoders = TokenEncoders(chosen, None, tmp_path)
    foreign = Projection.orthonormal(16, 8).to_bytes()
    with ThreadPoolExecutor(8) as executor:
        found = set(executor.map(lambda number: id(encoders.of(foreign if number % 2 else None)), range(16)))
    assert found == {id(encoders.plain())}
    assert len(opened) == 1


def test_projections_share_one_session(minilm: DenseEncoder, tmp_path: Path) -> None:
    """Each index keeps its own; the model is the dense encoder's."""
    encoders = TokenEncoders(settings(), minilm, tmp_path)
    one, two = (encoders.of(Projection.orthonormal(384, 128, seed).to_bytes()) for seed in (1, 2))
    assert one.fingerprint.sha256 != two.fingerprint.sha256
    assert one.dense_fingerprint == two.dense_fingerprint == minilm.fingerprint
    assert encoders.of(Projection.orthonormal(384, 128, 1).to_bytes()).fingerprint == one.fingerprint


def test_a_model_that_failed_to_open_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "later"
    encoders = TokenEncoders(settings(xtr={"model": str(folder)}), None, tmp_path)
    with pytest.raises(CodeIntelError):
        encoders.plain()
    tiny_models.save_pylate(folder)
    assert encoders.plain().fingerprint.model == "later"
