"""A SPLADE checkpoint of random weights, read as sentence-transformers reads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from codeintel_rev.config.settings import SpladeSettings
from codeintel_rev.encoders.sparse import SparseEncoder, open_sparse_encoder
from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.io.impacts import STEPS, Impacts
from tests.tiny_models import WORDS, save_plain, save_splade, tokenizer

TEXTS = ["open the file", "def close ( a ) : return a b c", ""]


def opened(folder: Path, max_tokens: int = 32) -> SparseEncoder:
    return open_sparse_encoder(SpladeSettings(model=str(folder), max_tokens=max_tokens), folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_splade(tmp_path_factory.mktemp("splade"))


def same(one: Impacts, other: Impacts) -> bool:
    return np.array_equal(one.terms, other.terms) and np.array_equal(one.weights, other.weights)


@pytest.mark.parametrize("text", TEXTS)
def test_impacts_are_the_highest_logits_of_the_head(saved: Path, text: str) -> None:
    model = BertForMaskedLM.from_pretrained(saved).eval()
    with torch.inference_mode():
        logits = model(**tokenizer()(text, return_tensors="pt")).logits[0]
    expected = torch.log1p(torch.relu(logits)).amax(dim=0).numpy()
    found = opened(saved).encode_query(text)
    weights = np.zeros(len(WORDS))
    weights[found.terms] = found.weights / STEPS
    np.testing.assert_allclose(weights, expected, atol=0.51 / STEPS)


def test_documents_do_not_see_each_other_nor_the_padding_between_them(saved: Path) -> None:
    encoder = opened(saved)
    together = list(encoder.encode_documents(TEXTS))
    assert all(same(one, encoder.encode_query(text)) for one, text in zip(together, TEXTS, strict=True))


def test_only_the_first_tokens_are_read(saved: Path) -> None:
    encoder = opened(saved, max_tokens=16)
    long = "open file " * 40
    assert same(encoder.encode_query(long), encoder.encode_query(long + "query"))


def test_what_changes_impacts_changes_the_model_id(saved: Path, tmp_path: Path) -> None:
    assert opened(saved).model_id == opened(saved).model_id != opened(saved, max_tokens=16).model_id


def test_terms_are_read_without_the_marks_of_the_tokenizer(saved: Path) -> None:
    assert opened(saved).words([WORDS.index("open"), WORDS.index("#")]) == ["open", "#"]


def test_weights_are_cut_where_a_byte_ends_and_left_out_where_they_round_to_nothing() -> None:
    found = Impacts.of(np.array([0.0, 1.0, 0.4 / STEPS, 9.0], np.float32))
    assert (found.terms.tolist(), found.weights.tolist()) == ([1, 3], [STEPS, 255])


def test_an_encoder_without_the_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed, match="no masked-language-model head"):
        opened(save_plain(tmp_path))


@pytest.mark.parametrize("pooling", [{"pooling_strategy": "sum"}, {"activation_function": "log1p_relu"}])
def test_another_pooling_is_refused(tmp_path: Path, pooling: dict[str, str]) -> None:
    with pytest.raises(EncoderFailed, match=f"needs {next(iter(pooling))} {next(iter(pooling.values()))}"):
        opened(save_splade(tmp_path, **pooling))


def test_more_tokens_than_the_model_reads_are_refused(saved: Path) -> None:
    with pytest.raises(SettingsError, match=r"splade\.max_tokens is 65"):
        opened(saved, max_tokens=65)


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    model = BertForMaskedLM.from_pretrained(save_splade(tmp_path))
    model.cls.predictions.bias.data.fill_(torch.nan)
    model.save_pretrained(tmp_path)
    with pytest.raises(EncoderFailed, match="NaN"):
        opened(tmp_path).encode_query("open")
