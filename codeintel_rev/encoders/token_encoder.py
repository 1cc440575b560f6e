"""How the configured token encoder is opened: a late-interaction checkpoint, or the dense encoder's model.

Modules are imported here and not at the top, because one of them imports torch (2 s, 300 MB).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
from codeintel_rev.encoders.tokens import Projection, TokenEncoder
from codeintel_rev.errors import NoTokenModel

_MINILM = "codeintel_rev.encoders.minilm_tokens"
_CHECKPOINT = "codeintel_rev.encoders.late_interaction"
_SERVED = "codeintel_rev.encoders.served_tokens"


class TokenEncoders:
    """The token encoders of one process: one model, loaded at the first call, whoever asks.

    A call that fails leaves the next to try again. Safe to call from many threads at once.
    """

    def __init__(self, settings: Settings, dense: DenseEncoder | None, models_dir: Path) -> None:
        self._settings = settings
        self._dense = dense
        self._models_dir = models_dir
        self._lock = Lock()
        self._plain: TokenEncoder | None = None

    def plain(self) -> TokenEncoder:
        """Return the encoder without a projection of an index's own. Raises as `open_token_encoder`."""
        with self._lock:
            self._plain = self._plain or open_token_encoder(self._settings, self._dense, self._models_dir)
            return self._plain

    def of(self, projection: bytes | None) -> TokenEncoder:
        """Return the encoder for an index that keeps `projection`; a checkpoint has its own, and counts as another's.

        Raises as `open_token_encoder`, and IndexCorrupt.
        """
        if projection is None or not _shares_session(self._settings, self._dense):
            return self.plain()
        return open_token_encoder(self._settings, self._dense, self._models_dir, Projection.from_bytes(projection))


def open_token_encoder(
    settings: Settings, dense: DenseEncoder | None, models_dir: Path, projection: Projection | None = None
) -> TokenEncoder:
    """Return the token encoder; `dense` is the configured dense encoder, whose session the embedded one shares.

    Without a `projection` the embedded model's tokens keep their full width: exact, and too wide to store. Raises
    NoTokenModel, SettingsError, EncoderFailed, DimensionMismatch.
    """
    if _shares_session(settings, dense):
        encoder: TokenEncoder = importlib.import_module(_MINILM).MiniLMTokens(dense, projection or _identity(dense))
        return encoder
    model, revision = _checkpoint(settings)
    opened: TokenEncoder
    if settings.xtr.provider == "vllm":
        opened = importlib.import_module(_SERVED).open_token_encoder(
            model,
            revision,
            models_dir,
            settings.vllm.tokens,
            max_doclen=settings.xtr.max_doclen,
            batch_size=settings.embedding.batch_size,
            query_s=settings.embedding.query_timeout_ms / 1000,
        )
        return opened
    opened = importlib.import_module(_CHECKPOINT).open_token_encoder(
        model,
        revision,
        models_dir,
        max_doclen=settings.xtr.max_doclen,
        batch_size=settings.embedding.batch_size,
        projection=projection,
    )
    return opened


def shared_dense_encoder(settings: Settings, models_dir: Path) -> DenseEncoder | None:
    """Return the dense encoder whose session the tokens share; None where a checkpoint is loaded for them.

    Raises EncoderFailed, SettingsError.
    """
    if settings.xtr.provider == "vllm" or settings.xtr.model or settings.embedding.provider != "minilm":
        return None
    return open_encoder(settings.embedding, models_dir)


def fitted_projection(settings: Settings, dense: DenseEncoder | None, texts: Sequence[str]) -> Projection | None:
    """Return the projection to store with an index of `texts`; None where the checkpoint decides."""
    if not _shares_session(settings, dense):
        return None
    fitted: Projection = importlib.import_module(_MINILM).fitted_projection(dense, texts)
    return fitted


def _shares_session(settings: Settings, dense: DenseEncoder | None) -> bool:
    own = settings.xtr.provider == "local" and not settings.xtr.model
    return dense is not None and own and settings.embedding.provider == "minilm"


def _identity(dense: DenseEncoder | None) -> Projection:
    return Projection.linear(np.eye(dense.fingerprint.dim if dense else 0, dtype=np.float32))


def _checkpoint(settings: Settings) -> tuple[str, str]:
    """Return model and revision: of late interaction, or else of the dense encoder."""
    for section in (settings.xtr, settings.embedding):
        if section.model:
            return section.model, section.revision
    raise NoTokenModel("no model makes token vectors.", "Set xtr.model, or an embedding.provider other than none.")
