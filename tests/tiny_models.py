"""Transformers of two layers and 32 dimensions with random weights, in the layouts that libraries save."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

WORDS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]", "[Q] ", "[D] "),
    *("open", "close", "file", "read", "write", "query", "the", "def", "return", "a", "b", "c"),
    *string.punctuation,
)
DIM = 32


def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: index for index, word in enumerate(WORDS)}
    own = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    own.normalizer = normalizers.BertNormalizer()
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    own.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    named = {f"{name}_token": word for name, word in special.items()}
    return PreTrainedTokenizerFast(tokenizer_object=own, model_max_length=64, **named)


def bert(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes)).eval()


def save_plain(folder: Path) -> Path:
    """An encoder and nothing else."""
    bert().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def save_pylate(folder: Path, **reading: object) -> Path:
    """As PyLate saves: a module Transformer, a module Dense to 8 dimensions, and how to read texts."""
    save_plain(folder)
    write(folder / "config_sentence_transformers.json", {"query_length": 8, "document_length": 12} | reading)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    write(folder / "modules.json", modules)
    activation = {"activation_function": "torch.nn.modules.linear.Identity"}
    write(folder / "1_Dense" / "config.json", {"in_features": DIM, "out_features": 8, "bias": False} | activation)
    save_file({"linear.weight": head()}, folder / "1_Dense" / "model.safetensors")
    return folder


def save_colbert(folder: Path, **metadata: object) -> Path:
    """As ColBERT saves: `bert.*` and `linear.weight` in one file, and its metadata."""
    save_plain(folder)
    weights = {f"bert.{name}": value for name, value in bert().state_dict().items()}
    save_file(weights | {"linear.weight": head()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"architectures": ["HF_ColBERT"]})
    write(folder / "artifact.metadata", {"query_maxlen": 8, "doc_maxlen": 12} | metadata)
    return folder


def save_splade(folder: Path, **pooling: object) -> Path:
    """As sentence-transformers saves a SPLADE model: a masked-language model, and how its logits are pooled."""
    torch.manual_seed(0)
    model = BertForMaskedLM(bert().config).eval()
    model.cls.predictions.decoder.weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": "sentence_transformers.models.SpladePooling"},
    ]
    write(folder / "modules.json", modules)
    write(
        folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max", "activation_function": "relu"} | pooling
    )
    return folder


def head() -> torch.Tensor:
    return torch.randn(8, DIM, generator=torch.Generator().manual_seed(1))


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))
