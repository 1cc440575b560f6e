import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.errors import EncoderFailed, SettingsError

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "open", "close", "file", "read", "write", "query", ":", "passage")
TEXTS = ("open file", "read", "close the file and write write write", "", "query : read")


@pytest.fixture
def folder(tmp_path):
    """A BERT of 2 layers and 32 dimensions with random weights, as sentence-transformers keeps one."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    path = tmp_path / "tiny"
    BertModel(config).save_pretrained(path)
    _tokenizer().save_pretrained(path)
    return path


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


def _open(folder: Path, **changes):
    values = {"provider": "huggingface", "model": str(folder), "max_tokens": 32, "batch_size": 2}
    encoder = open_encoder(EmbeddingSettings(**(values | changes)), folder.parent / "models")
    assert encoder is not None
    return encoder


def _write(path: Path, value) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def _pooled_by_hand(folder: Path, pool) -> np.ndarray:
    model, tokenizer = BertModel.from_pretrained(folder).eval(), _tokenizer()
    with torch.inference_mode():
        rows = [pool(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]).numpy() for text in TEXTS]
    return np.stack(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        (None, lambda tokens: tokens.mean(dim=0)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, lambda tokens: tokens.mean(dim=0)),
        ({"pooling_mode_cls_token": True}, lambda tokens: tokens[0]),
        ({"pooling_mode_lasttoken": True}, lambda tokens: tokens[-1]),
        ({"pooling_mode": "lasttoken"}, lambda tokens: tokens[-1]),
    ],
)
def test_vectors_are_pooled_as_the_model_says(folder, config, pool):
    """Batches of two pad, so this also shows that padding does not reach a vector."""
    if config is not None:
        _write(folder / "1_Pooling" / "config.json", config)
    encoder = _open(folder)
    tolerance = 2e-6 if encoder.fingerprint.dtype == "float32" else 3e-2
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), _pooled_by_hand(folder, pool), atol=tolerance)


def test_prompts_go_before_each_kind_of_text(folder):
    plain = _open(folder).encode_documents(["query : read", "passage : read"])
    prompts = {"query": "query : ", "passage": "passage : "}
    _write(folder / "config_sentence_transformers.json", {"prompts": prompts})
    encoder = _open(folder)
    found = [encoder.encode_queries(["read"])[0], encoder.encode_documents(["read"])[0]]
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_no_texts_give_no_rows(folder):
    assert _open(folder).encode_documents([]).shape == (0, 32)


@pytest.mark.parametrize("text", ["", "\ud800", "open " * 100_000, "🦀"])
def test_any_text_has_a_unit_vector(folder, text):
    assert np.linalg.norm(_open(folder).encode_queries([text])) == pytest.approx(1, abs=1e-5)


def test_pickled_weights_are_refused_by_name(folder):
    """S21"""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(EncoderFailed, match=r"no \*\.safetensors"):
        _open(folder)


def test_code_of_the_repository_is_never_run(folder, tmp_path):
    """S21"""
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    _write(folder / "config.json", config | {"model_type": "unheard-of", "auto_map": auto_map})
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    with pytest.raises(EncoderFailed, match="could not be loaded"):
        _open(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "modules.json"])
def test_damaged_file_is_a_typed_error(folder, name):
    (folder / name).write_bytes(b"\x00{")
    with pytest.raises(EncoderFailed, match="tiny"):
        _open(folder)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling max"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True},
            r"pooling cls\+max",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False}, "without the prompt"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "module Dense"),
    ],
)
def test_model_that_cannot_be_honoured_is_refused(folder, name, value, said):
    _write(folder / name, value)
    with pytest.raises(EncoderFailed, match=said):
        _open(folder)


def test_hub_model_without_a_pinned_commit_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"embedding\.revision"):
        _open(tmp_path / "nowhere", model="someone/model", revision="main")


def test_window_beyond_the_model_is_refused(folder):
    with pytest.raises(SettingsError, match="64"):
        _open(folder, max_tokens=65)


def test_weights_with_nan_are_refused(folder):
    """F28"""
    model = BertModel.from_pretrained(folder)
    model.embeddings.LayerNorm.weight.data[:] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(EncoderFailed, match="NaN"):
        _open(folder).encode_documents(["open"])


def _perturb(folder: Path) -> None:
    model = BertModel.from_pretrained(folder)
    model.pooler.dense.bias.data[0] += 1
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _write(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"}),
        lambda folder: _write(folder / "config_sentence_transformers.json", {"prompts": {"query": "q"}}),
        lambda folder: _write(folder / "tokenizer_config.json", {"do_lower_case": False}),
        _perturb,
    ],
)
def test_fingerprint_changes_with_what_makes_vectors(folder, change):
    """F16"""
    before = _open(folder).fingerprint
    assert _open(folder).fingerprint == before
    change(folder)
    assert _open(folder).fingerprint.sha256 != before.sha256


def test_fingerprint_tells_the_token_window(folder):
    assert _open(folder, max_tokens=16).fingerprint.sha256 != _open(folder).fingerprint.sha256


def test_fingerprint_names_the_folder_without_its_path(folder):
    fingerprint = _open(folder).fingerprint
    assert (fingerprint.model, fingerprint.dim, fingerprint.revision) == ("tiny", 32, "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_used_when_there_is_one(folder):
    encoder = _open(folder)
    assert encoder.fingerprint.dtype == "bfloat16"
    assert encoder._model.device.type == "cuda"
    assert np.isfinite(encoder.encode_documents(TEXTS)).all()
