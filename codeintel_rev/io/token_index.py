"""The late-interaction index of a generation: where it lies, and what belongs to it beside the engine's own files.

    generations/<ulid>/xtr/tokens/                  the engine's (`xtr.storage`)
                           projection.safetensors   where the model brings none of its own
                           texts.npy                (n, 2) int64, chunk_id ascending: which text each document is of
                           build.json               format, chunks still to come, the engine's figures

A generation without token vectors has none of it.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from codeintel_rev.errors import IndexCorrupt, IndexIncompatible
from codeintel_rev.io.durable import DISK, os_errors_mapped
from codeintel_rev.types import Ids, ModelFingerprint

XTR, TOKENS, PROJECTION, TEXTS, BUILD = "xtr", "tokens", "projection.safetensors", "texts.npy", "build.json"
FORMAT = 1  # Raise it also when what is encoded of a chunk changes (`embedding_text`).
REBUILD = "Run `xtr build` for it."


@dataclass(frozen=True, slots=True)
class TokenBuild:
    """What a build leaves to the next: how many chunks it had still to encode, and the engine's figures by name.

    Figures in `_ms` are the milliseconds of the build that made the generation, over all of its parts.
    """

    missing: int
    figures: dict[str, float]


def token_directory(generation_path: Path) -> Path:
    """Return where the index of the generation at `generation_path` lies or would lie."""
    return generation_path / XTR


def token_model_id(fingerprint: ModelFingerprint) -> str:
    """Return what the engine's manifest calls the model: two of one id make the same token vectors."""
    return f"{fingerprint.model} {fingerprint.sha256}"


def write_projection(directory: Path, projection: bytes) -> None:
    DISK.write(directory / PROJECTION, projection)


def read_projection(directory: Path) -> bytes | None:
    """Return the bytes written, None when there are none. Raises StorageFailed."""
    path = directory / PROJECTION
    with os_errors_mapped("read", path):
        return path.read_bytes() if path.exists() else None


def write_texts(directory: Path, texts: Ids) -> None:
    """Write `texts` (n, 2): chunk_id, ascending, and a hash of the text, negative where it was cut."""
    buffer = io.BytesIO()
    np.save(buffer, texts)
    DISK.write(directory / TEXTS, buffer.getvalue())


def read_texts(directory: Path) -> Ids:
    """Return the (n, 2) array written. Raises IndexCorrupt."""
    try:
        texts: Ids = np.load(directory / TEXTS)
    except (OSError, ValueError, EOFError) as error:
        raise IndexCorrupt(f"{TEXTS} cannot be read.", REBUILD) from error
    if texts.dtype != np.int64 or texts.ndim != 2 or texts.shape[1] != 2:
        raise IndexCorrupt(f"{TEXTS} holds {texts.dtype} of shape {texts.shape}, not (n, 2) int64.", REBUILD)
    return texts


def write_build(directory: Path, build: TokenBuild) -> None:
    fields = {"format": FORMAT, "missing": build.missing, "figures": build.figures}
    DISK.write(directory / BUILD, json.dumps(fields, indent=1, sort_keys=True).encode())


def read_build(directory: Path) -> TokenBuild:
    """Return what was written. Raises IndexCorrupt, IndexIncompatible for another format."""
    try:
        fields = json.loads((directory / BUILD).read_bytes())
        if fields["format"] != FORMAT:
            raise IndexIncompatible(f"{BUILD} has format {fields['format']}, this version reads {FORMAT}.", REBUILD)
        return TokenBuild(int(fields["missing"]), {name: float(value) for name, value in fields["figures"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexCorrupt(f"{BUILD} cannot be read.", REBUILD) from error


def among(texts: Ids, others: Ids) -> NDArray[np.bool_]:
    """Return which of `texts` (n, 2) are in `others` (m, 2), chunk_id ascending, and read the same there: (n,)."""
    if not len(others):
        return np.zeros(len(texts), np.bool_)
    at = np.minimum(np.searchsorted(others[:, 0], texts[:, 0]), len(others) - 1)
    same: NDArray[np.bool_] = np.all(np.abs(others[at]) == np.abs(texts), axis=1)
    return same
