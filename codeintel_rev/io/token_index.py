"""Where a generation's late-interaction index lies, and what belongs to it beside the engine's own files.

data/xtr/<repo, / written %2F>/<generation>/tokens/                  the engine's (`xtr.storage`)
                                            projection.safetensors   where the model brings none of its own
"""

from __future__ import annotations

import json
from pathlib import Path

from codeintel_rev.io.durable import DISK, os_errors_mapped
from codeintel_rev.io.registry import repository_directory
from codeintel_rev.types import ModelFingerprint

TOKENS, PROJECTION, BUILD = "tokens", "projection.safetensors", "build.json"


def token_directory(generation_path: Path) -> Path:
    """Return where the token index of a generation lies or would lie."""
    return generation_path / "xtr"


def read_build_figures(generation_path: Path) -> dict[str, float]:
    """Return what the build of its token index took, by name; empty where nobody wrote it. Raises StorageFailed."""
    path = token_directory(generation_path) / BUILD
    with os_errors_mapped("read", path):
        figures = json.loads(path.read_bytes()) if path.exists() else {}
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def token_index_directory(data_dir: Path, repo: str, generation: str) -> Path:
    """Return where the index of `generation` lies or would lie. Raises InvalidArgument for a bad name."""
    return data_dir / "xtr" / repository_directory(data_dir, repo).name / generation


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
