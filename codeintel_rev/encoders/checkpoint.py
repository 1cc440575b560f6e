"""A model's folder, given or downloaded once by its pinned commit: safetensors only, and none of its code is run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
)

from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.io.durable import DISK

WEIGHTS = "*.safetensors"
_SAFELY = {"local_files_only": True, "trust_remote_code": False}
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
class Checkpoint:
    """Where a model lies and what it is called: a hub id and commit, or a folder's name and ""."""

    folder: Path
    model: str
    revision: str

    def json(self, name: str, default: Any) -> Any:
        """Return what the file `name` holds, or `default` when there is no such file. Raises EncoderFailed."""
        try:
            return json.loads((self.folder / name).read_bytes())
        except FileNotFoundError:
            return default
        except (OSError, ValueError) as error:
            raise EncoderFailed(f"{name} of model {self.folder.name} cannot be read.", "Check the folder.") from error

    def modules(self) -> list[tuple[str, str]]:
        """Return the (class name, folder) of each of sentence-transformers' modules; none when it does not list any."""
        return [(module["type"].rsplit(".", 1)[-1], module.get("path", "")) for module in self.json("modules.json", [])]

    def pooling(self) -> str:
        """Return how token vectors become one, by sentence-transformers' name; mean when nothing is said."""
        config = self.json("1_Pooling/config.json", {"pooling_mode": "mean"})
        if config.get("include_prompt") is False:
            return "without the prompt"
        if "pooling_mode" in config:
            return str(config["pooling_mode"])
        return "+".join(name for key, name in LEGACY_POOLINGS.items() if config.get(key)) or "mean"

    def sha256(self, files: Sequence[str], *parts: object) -> str:
        """Return the digest of `parts` and of every file that matches one of the patterns `files`."""
        digest = hashlib.sha256("".join(f"{part}\n" for part in parts).encode())
        for path in sorted({path for pattern in files for path in self.folder.glob(pattern)}):
            digest.update(f"{path.relative_to(self.folder).as_posix()}\n{DISK.digest(path.resolve())[1]}\n".encode())
        return digest.hexdigest()


def located(model: str, revision: str, models_dir: Path, files: Sequence[str], section: str) -> Checkpoint:
    """Return the folder `model`, or the hub model of that id at the commit `revision`, downloaded once.

    `files` are the patterns downloaded, `section` the settings both came from. Raises SettingsError, EncoderFailed.
    """
    if Path(model).is_dir():
        return Checkpoint(Path(model), Path(model).name, "")
    if not _COMMIT.fullmatch(revision):
        raise SettingsError(
            f"setting {section}.revision is {revision!r}, which does not pin {model!r}.",
            f"Give the commit's 40 hexadecimal digits, or make {section}.model an existing folder.",
        )
    DISK.make_directory(models_dir)
    try:
        folder = snapshot_download(model, revision=revision, cache_dir=models_dir, allow_patterns=list(files))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EncoderFailed(
            f"model {model} at {revision} could not be fetched: {type(error).__name__}.",
            "Check the name and the network, or give a folder.",
        ) from error
    return Checkpoint(Path(folder), model, revision)


def refuse_what_cannot_be_honoured(checkpoint: Checkpoint, known: Sequence[str]) -> None:
    """Raise EncoderFailed unless the weights are safetensors, the modules `known` and the pooling one of POOLS."""
    if not any(checkpoint.folder.glob(WEIGHTS)):
        raise EncoderFailed(
            f"model {checkpoint.folder.name} has no {WEIGHTS} file; weights in other formats can run code when read.",
            "Convert them to safetensors.",
        )
    foreign = [module for module, _ in checkpoint.modules() if module not in known]
    if foreign or checkpoint.pooling() not in POOLS:
        unknown = f"module {foreign[0]}" if foreign else f"pooling {checkpoint.pooling()}"
        raise EncoderFailed(
            f"model {checkpoint.folder.name} needs {unknown}, which is not supported.", "Choose another model."
        )


def device_and_dtype() -> tuple[str, torch.dtype]:
    """Return float32 on a CPU, bfloat16 on CUDA."""
    return ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)


def load(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return (model, tokenizer). Of an encoder-decoder only the encoder is loaded. Raises EncoderFailed."""
    with _loading(checkpoint.folder):
        config = AutoConfig.from_pretrained(checkpoint.folder, **_SAFELY)
        architecture = AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel
        model = architecture.from_pretrained(checkpoint.folder, dtype=dtype, use_safetensors=True, **_SAFELY)
    return model, load_tokenizer(checkpoint)


def load_masked(checkpoint: Checkpoint, dtype: torch.dtype) -> tuple[Any, Any]:
    """Return (model, tokenizer), the model with its head over the vocabulary. Raises EncoderFailed, also where the
    checkpoint has no such head: it would be a random one."""
    with _loading(checkpoint.folder):
        model, told = AutoModelForMaskedLM.from_pretrained(
            checkpoint.folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **_SAFELY
        )
    if told["missing_keys"]:
        raise EncoderFailed(
            f"model {checkpoint.folder.name} lacks {min(told['missing_keys'])}: it has no masked-language-model head.",
            "Choose a SPLADE checkpoint.",
        )
    return model, load_tokenizer(checkpoint)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderFailed(f"model {folder.name} could not be loaded: {error}.", "Check the folder.") from error


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer, which pads on the right. Raises EncoderFailed."""
    folder = checkpoint.folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EncoderFailed(f"the tokenizer of {folder.name} could not be loaded: {error}.", "Check it.") from error
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer
