"""Any Hugging Face encoder, by folder or by hub id and commit: safetensors only, and none of the repository's code.

What sentence-transformers keeps beside a model is honoured: pooling (`1_Pooling/config.json`: mean, cls or last token;
mean without it) and prompts (`config_sentence_transformers.json`). float32 on a CPU, bfloat16 on CUDA.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import AutoModel, AutoTokenizer

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import readable, unit_rows
from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.io.durable import DISK
from codeintel_rev.types import Floats, ModelFingerprint

CODE_PATH = "torch-1"  # Raise it with every change here that changes vectors.
WEIGHTS = "*.safetensors"
FILES = (WEIGHTS, "*.json", "*.txt", "*.model", "1_Pooling/config.json")
MODULES = ("Transformer", "Pooling", "Normalize")
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_COMMIT = re.compile(r"[0-9a-f]{40}")

Pool = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (tokens * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def _cls(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tokens[:, 0]


def _last_token(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), mask.sum(dim=1) - 1]


POOLS: Mapping[str, Pool] = {"mean": _mean, "cls": _cls, "lasttoken": _last_token}
"""By sentence-transformers' name: (n, t, d) token vectors and (n, t) mask, padded on the right → (n, d)."""
LEGACY_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


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
    folder = _folder(settings, models_dir)
    _refuse_what_cannot_be_honoured(folder)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    model, tokenizer = _load(folder, dtype)
    if settings.max_tokens > tokenizer.model_max_length:
        raise SettingsError(
            f"setting embedding.max_tokens is {settings.max_tokens}, {folder.name} reads at most "
            f"{tokenizer.model_max_length}.",
            "Lower it.",
        )
    fingerprint = _fingerprint(folder, settings, model.config.hidden_size, dtype)
    return HuggingFaceEncoder(model.to(device).eval(), tokenizer, fingerprint, _prompts(folder), settings.batch_size)


def _folder(settings: EmbeddingSettings, models_dir: Path) -> Path:
    if Path(settings.model).is_dir():
        return Path(settings.model)
    if not _COMMIT.fullmatch(settings.revision):
        raise SettingsError(
            f"setting embedding.revision is {settings.revision!r}, which does not pin {settings.model!r}.",
            "Give the commit's 40 hexadecimal digits, or make embedding.model an existing folder.",
        )
    DISK.make_directory(models_dir)
    try:
        return Path(
            snapshot_download(
                settings.model, revision=settings.revision, cache_dir=models_dir, allow_patterns=list(FILES)
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EncoderFailed(
            f"model {settings.model} at {settings.revision} could not be fetched: {type(error).__name__}.",
            "Check the name and the network, or give a folder.",
        ) from error


def _refuse_what_cannot_be_honoured(folder: Path) -> None:
    if not any(folder.glob(WEIGHTS)):
        raise EncoderFailed(
            f"model {folder.name} has no {WEIGHTS} file; weights in other formats can run code when read.",
            "Convert them to safetensors.",
        )
    modules = [module["type"].rsplit(".", 1)[-1] for module in _json(folder / "modules.json", [])]
    foreign = [module for module in modules if module not in MODULES]
    if foreign or _pooling(folder) not in POOLS:
        unknown = f"module {foreign[0]}" if foreign else f"pooling {_pooling(folder)}"
        raise EncoderFailed(f"model {folder.name} needs {unknown}, which is not supported.", "Choose another model.")


def _load(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safely)
        model = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True, **safely)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderFailed(f"model {folder.name} could not be loaded: {error}.", "Check the folder.") from error
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def _pooling(folder: Path) -> str:
    config = _json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    if config.get("include_prompt") is False:
        return "without the prompt"
    if "pooling_mode" in config:
        return str(config["pooling_mode"])
    return "+".join(name for key, name in LEGACY_POOLINGS.items() if config.get(key)) or "mean"


def _prompts(folder: Path) -> Prompts:
    config = _json(folder / "config_sentence_transformers.json", {})
    prompts: dict[str, str] = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name") or "", "")
    document = next((prompts[name] for name in DOCUMENT_PROMPTS if prompts.get(name)), default)
    return Prompts(document, prompts.get("query") or default)


def _json(path: Path, default: Any) -> Any:
    """Return what `path` holds, or `default` when there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise EncoderFailed(f"{path.name} of model {path.parent.name} cannot be read.", "Check the folder.") from error


def _fingerprint(folder: Path, settings: EmbeddingSettings, dim: int, dtype: torch.dtype) -> ModelFingerprint:
    pinned = _COMMIT.fullmatch(settings.revision) and not Path(settings.model).is_dir()
    name, revision = (settings.model, settings.revision) if pinned else (folder.name, "")
    dtype_name = str(dtype).removeprefix("torch.")
    digest = hashlib.sha256(f"{CODE_PATH}\n{settings.max_tokens}\n{dtype_name}\n".encode())
    for path in sorted({path for pattern in FILES for path in folder.glob(pattern)}):
        digest.update(f"{path.relative_to(folder).as_posix()}\n{DISK.digest(path.resolve())[1]}\n".encode())
    return ModelFingerprint(name, revision, dim, _pooling(folder), dtype_name, settings.max_tokens, digest.hexdigest())
