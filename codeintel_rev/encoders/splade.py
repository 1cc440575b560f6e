"""Any SPLADE checkpoint, by folder or by hub id and commit: safetensors only, and none of the repository's code.

A text is scored over the vocabulary by the masked-language-model head: max over its tokens of log(1 + relu(logit))
(Formal et al., "SPLADE v2", arXiv 2109.10086, §3). What sentence-transformers keeps beside a model is honoured: its
prompts, and the pooling where it is that; one that asks for another is refused. Float32 on a CPU, bfloat16 on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from codeintel_rev.config.settings import SpladeSettings
from codeintel_rev.encoders.checkpoint import (
    Checkpoint,
    device_and_dtype,
    load_masked,
    located,
    refuse_what_cannot_be_honoured,
)
from codeintel_rev.encoders.dense import CHARACTERS_PER_TOKEN
from codeintel_rev.encoders.huggingface import FILES as DENSE_FILES
from codeintel_rev.encoders.huggingface import Prompts, prompts
from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.io.impacts import Impacts
from codeintel_rev.types import Floats

CODE_PATH = "torch-splade-1"  # Raise it with every change here that changes impacts.
FILES = (*DENSE_FILES, "*_SpladePooling/config.json")
MODULES = ("Transformer", "MLMTransformer", "SpladePooling")
POOLING = {"pooling_strategy": "max", "activation_function": "relu"}
TOKENS_AT_ONCE = 2048
"""Padding included: their logits over 30,000 terms are 250 MB."""
_MARKS = (
    "##",
    "\u0120",
    "\u2581",
)  # How WordPiece, byte-level BPE and SentencePiece mark where a word goes on or begins.


class Splade:
    """A SparseEncoder that runs a transformers model on the best device there is."""

    def __init__(self, model: Any, tokenizer: Any, model_id: str, wanted: Prompts, max_tokens: int) -> None:
        self.model_id = model_id
        self.vocabulary: int = model.config.vocab_size
        self._model = model
        self._tokenizer = tokenizer
        self._prompts = wanted
        self._max_tokens = max_tokens

    def encode_documents(self, texts: Sequence[str]) -> Iterator[Impacts]:
        at_once = max(1, TOKENS_AT_ONCE // self._max_tokens)
        made: dict[int, Impacts] = {}
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        for start in range(0, len(order), at_once):
            batch = order[start : start + at_once]
            rows = self._forward([self._prompts.document + texts[position] for position in batch])
            made.update((position, Impacts.of(row)) for position, row in zip(batch, rows, strict=True))
        return (made[position] for position in range(len(texts)))

    def encode_query(self, text: str) -> Impacts:
        return Impacts.of(self._forward([self._prompts.query + text])[0])

    def words(self, terms: Sequence[int]) -> list[str]:
        return [_plain(word) for word in self._tokenizer.convert_ids_to_tokens(list(terms))]

    def _forward(self, texts: Sequence[str]) -> Floats:
        """Return the weights (n, vocabulary) of `texts`."""
        # A tokenizer reads a whole text before it truncates, and refuses lone surrogates.
        longest = self._max_tokens * CHARACTERS_PER_TOKEN
        read = [text[:longest].encode(errors="replace").decode() for text in texts]
        tokens = self._tokenizer(
            read, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._model.device)
        try:
            with torch.inference_mode():
                logits = self._model(**tokens).logits
                padding = tokens["attention_mask"].unsqueeze(-1) == 0
                # The highest logit has the highest log(1 + relu), which is taken of one row instead of all.
                highest = logits.masked_fill(padding, -torch.inf).amax(dim=1).float()
                weights: Floats = torch.log1p(torch.relu(highest)).cpu().numpy()
        except (RuntimeError, IndexError) as error:
            raise EncoderFailed(
                f"model {self.model_id.partition(' ')[0]} failed on {len(texts)} texts: {error}.",
                "Lower splade.max_tokens.",
            ) from error
        if not torch.isfinite(torch.from_numpy(weights)).all():
            raise EncoderFailed(f"model {self.model_id.partition(' ')[0]} gave a weight with NaN or infinity.")
        return weights


def open_sparse_encoder(settings: SpladeSettings, models_dir: Path) -> Splade:
    """Return the encoder of a folder, or of a hub model, which is downloaded into `models_dir` once.

    Raises SettingsError, EncoderFailed.
    """
    checkpoint = located(settings.model, settings.revision, models_dir, FILES, "splade")
    refuse_what_cannot_be_honoured(checkpoint, MODULES)
    _refuse_other_pooling(checkpoint)
    device, dtype = device_and_dtype()
    model, tokenizer = load_masked(checkpoint, dtype)
    if settings.max_tokens > tokenizer.model_max_length:
        raise SettingsError(
            f"setting splade.max_tokens is {settings.max_tokens}, {checkpoint.folder.name} reads at most "
            f"{tokenizer.model_max_length}.",
            "Lower it.",
        )
    digest = checkpoint.sha256(FILES, CODE_PATH, settings.max_tokens, str(dtype))
    model_id = f"{checkpoint.model} {digest}"
    return Splade(model.to(device).eval(), tokenizer, model_id, prompts(checkpoint), settings.max_tokens)


def _refuse_other_pooling(checkpoint: Checkpoint) -> None:
    for module, folder in checkpoint.modules():
        told = checkpoint.json(f"{folder}/config.json", {}) if module == "SpladePooling" else {}
        for name, known in POOLING.items():
            if told.get(name, known) != known:
                raise EncoderFailed(
                    f"model {checkpoint.folder.name} needs {name} {told[name]}, which is not supported.",
                    "Choose another model.",
                )


def _plain(word: str) -> str:
    for mark in _MARKS:
        word = word.removeprefix(mark)
    return word
