"""What a sparse encoder promises, and how the configured one is opened."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

from codeintel_rev.config.settings import SpladeSettings
from codeintel_rev.io.impacts import Impacts

_SPLADE = "codeintel_rev.encoders.splade"


class SparseEncoder(Protocol):
    """Tells which terms of its vocabulary a text is about. Safe to call from many threads at once.

    Both methods read the first tokens of a text and raise EncoderFailed rather than return what is unusable.
    """

    @property
    def model_id(self) -> str:
        """Which model this is: impacts of two are never compared."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many terms there are."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Iterator[Impacts]: ...

    def encode_query(self, text: str) -> Impacts: ...

    def words(self, terms: Sequence[int]) -> list[str]:
        """Return the terms as people read them."""
        ...


class SparseEncoders:
    """The sparse encoder of one process, loaded at the first call, whoever asks. A call that fails leaves the next to
    try again. Safe to call from many threads at once."""

    def __init__(self, settings: SpladeSettings, models_dir: Path) -> None:
        self._settings = settings
        self._models_dir = models_dir
        self._lock = Lock()
        self._opened: SparseEncoder | None = None

    def get(self) -> SparseEncoder:
        """Return the encoder. Raises as `open_sparse_encoder`."""
        with self._lock:
            self._opened = self._opened or open_sparse_encoder(self._settings, self._models_dir)
            return self._opened


def open_sparse_encoder(settings: SpladeSettings, models_dir: Path) -> SparseEncoder:
    """Return the encoder of `settings.model`. Raises SettingsError, EncoderFailed.

    Its module is imported here and not at the top, because it imports torch (2 s, 300 MB).
    """
    encoder: SparseEncoder = importlib.import_module(_SPLADE).open_sparse_encoder(settings, models_dir)
    return encoder
