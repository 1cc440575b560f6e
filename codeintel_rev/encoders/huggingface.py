"""Any Hugging Face encoder, by folder or by hub id and commit: safetensors only, and none of the repository's code.

What sentence-transformers keeps beside a model is honoured: pooling (`1_Pooling/config.json`: mean, cls or last token;
mean without it) and prompts (`config_sentence_transformers.json`). float32 on a CPU, bfloat16 on CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.checkpoint import (
    POOLS,
    WEIGHTS,
    Checkpoint,
    device_and_dtype,
    load,
    located,
    refuse_what_cannot_be_honoured,
)
from codeintel_rev.encoders.dense import readable, unit_rows
from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.types import Floats, ModelFingerprint

CODE_PATH = "torch-1"  # Raise it with every change here that changes vectors.
FILES = (WEIGHTS, "*.json", "*.txt", "*.model", "1_Pooling/config.json")
MODULES = ("Transformer", "Pooling", "Normalize")
DOCUMENT_PROMPTS = ("document", "passage", "corpus")


@dataclass(frozen=True, slots=True)
class Prompts:
    """What the model wants before each kind of text."""

    document: str
    query: str


class HuggingFaceEncoder:
    """A DenseEncoder that runs a transformers model on the best device there is."""

    def __init__(
        self, model: Any, tokenizer: Any, fingerprint: ModelFingerprint, prompts: Prompts, batch_size: int
    ) -> None:
        self.fingerprint = fingerprint
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = prompts
        self._batch_size = batch_size

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        return self._encode([self._prompts.document + text for text in texts])

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        return self._encode([self._prompts.query + text for text in texts])

    def _encode(self, texts: Sequence[str]) -> Floats:
        """Encode texts of like length together, the longest first: a batch is padded to its longest."""
        vectors = np.empty((len(texts), self.fingerprint.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            vectors[batch] = self._forward([readable(texts[position], self.fingerprint) for position in batch])
        return unit_rows(vectors, len(texts), self.fingerprint)

    def _forward(self, texts: Sequence[str]) -> Floats:
        tokens = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self.fingerprint.max_tokens, return_tensors="pt"
        ).to(self._model.device)
        try:
            with torch.inference_mode():
                hidden = self._model(**tokens).last_hidden_state.float()
                vectors: Floats = POOLS[self.fingerprint.pooling](hidden, tokens["attention_mask"]).cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise EncoderFailed(
                f"model {self.fingerprint.model} failed on {len(texts)} texts: {error}.",
                "Lower embedding.batch_size or embedding.max_tokens.",
            ) from error
        return vectors


def open_encoder(settings: EmbeddingSettings, models_dir: Path) -> HuggingFaceEncoder:
    """Return the encoder `settings.model` names; a hub model is downloaded into `models_dir` once."""
    checkpoint = located(settings.model, settings.revision, models_dir, FILES, "embedding")
    refuse_what_cannot_be_honoured(checkpoint, MODULES)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device, dtype = device_and_dtype()
    model, tokenizer = load(checkpoint, dtype)
    if settings.max_tokens > tokenizer.model_max_length:
        raise SettingsError(
            f"setting embedding.max_tokens is {settings.max_tokens}, {checkpoint.folder.name} reads at most "
            f"{tokenizer.model_max_length}.",
            "Lower it.",
        )
    fingerprint = dense_fingerprint(checkpoint, settings.max_tokens, model.config.hidden_size, dtype)
    return HuggingFaceEncoder(model.to(device).eval(), tokenizer, fingerprint, prompts(checkpoint), settings.batch_size)


def prompts(checkpoint: Checkpoint) -> Prompts:
    """Return what sentence-transformers would put before each kind of text."""
    config = checkpoint.json("config_sentence_transformers.json", {})
    named: dict[str, str] = config.get("prompts") or {}
    default = named.get(config.get("default_prompt_name") or "", "")
    document = next((named[name] for name in DOCUMENT_PROMPTS if named.get(name)), default)
    return Prompts(document, named.get("query") or default)


def dense_fingerprint(checkpoint: Checkpoint, max_tokens: int, dim: int, dtype: torch.dtype) -> ModelFingerprint:
    dtype_name = str(dtype).removeprefix("torch.")
    digest = checkpoint.sha256(FILES, CODE_PATH, max_tokens, dtype_name)
    return ModelFingerprint(
        checkpoint.model, checkpoint.revision, dim, checkpoint.pooling(), dtype_name, max_tokens, digest
    )
