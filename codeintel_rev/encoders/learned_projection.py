"""The projection of token vectors that a checkpoint has learned, as one affine map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from codeintel_rev.encoders.checkpoint import WEIGHTS, Checkpoint
from codeintel_rev.encoders.tokens import Projection
from codeintel_rev.errors import EncoderFailed
from codeintel_rev.types import Floats


def colbert_head(checkpoint: Checkpoint) -> Projection | None:
    """Return the `linear.weight` that ColBERT keeps beside the encoder; None when there is none."""
    for path in sorted(checkpoint.folder.glob(WEIGHTS)):
        arrays = _arrays(path, ("linear.weight",))
        if arrays:
            return Projection.linear(arrays["linear.weight"].T)
    return None


def dense_modules(checkpoint: Checkpoint) -> Projection | None:
    """Return the Dense modules, one after the other, as one map; None when there are none."""
    maps = [_dense_module(checkpoint, folder) for module, folder in checkpoint.modules() if module == "Dense"]
    return reduce(_then, maps) if maps else None


def _then(first: Projection, second: Projection) -> Projection:
    return Projection(first.matrix @ second.matrix, first.bias @ second.matrix + second.bias)


def _dense_module(checkpoint: Checkpoint, folder: str) -> Projection:
    config = checkpoint.json(f"{folder}/config.json", {})
    activation = config.get("activation_function", "Identity").rsplit(".", 1)[-1]
    arrays = _arrays(
        checkpoint.folder / folder / "model.safetensors", ("linear.weight", "linear.bias", "residual.weight")
    )
    if activation != "Identity" or "linear.weight" not in arrays:
        found = "no linear.weight" if activation == "Identity" else f"activation {activation}"
        raise EncoderFailed(f"{folder} of model {checkpoint.folder.name} has {found}.", "Choose another model.")
    linear = Projection.linear(arrays["linear.weight"].T)
    residual = arrays["residual.weight"].T if "residual.weight" in arrays else np.eye(*linear.matrix.shape)
    matrix = linear.matrix + residual.astype(np.float32) if config.get("use_residual") else linear.matrix
    return Projection(matrix, arrays.get("linear.bias", linear.bias))


def _arrays(path: Path, names: Sequence[str]) -> dict[str, Floats]:
    """Return those of `names` that the safetensors file has. Raises EncoderFailed."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).float().numpy() for name in names if name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise EncoderFailed(f"{path.parent.name}/{path.name} cannot be read: {error}.", "Check the folder.") from error
