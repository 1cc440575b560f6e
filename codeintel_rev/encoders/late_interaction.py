"""Any late-interaction checkpoint, by folder or by hub id and commit: safetensors only, none of the repository's code.

Three layouts are read, each as its own library trains and reads it:

    PyLate    `modules.json` with Dense modules (`1_Dense/`), how to read texts in `config_sentence_transformers.json`
    ColBERT   `linear.weight` beside the encoder in `model.safetensors`, how to read texts in `artifact.metadata`
    neither   an encoder, or an encoder with Dense modules (XTR): no prefixes, no expansion, no token masked

Float32 on a CPU, bfloat16 on CUDA; batches of like length.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from codeintel_rev.encoders.checkpoint import (
    POOLS,
    Checkpoint,
    device_and_dtype,
    load,
    located,
    refuse_what_cannot_be_honoured,
)
from codeintel_rev.encoders.dense import unit_rows
from codeintel_rev.encoders.huggingface import FILES as DENSE_FILES
from codeintel_rev.encoders.huggingface import MODULES as DENSE_MODULES
from codeintel_rev.encoders.huggingface import dense_fingerprint, prompts
from codeintel_rev.encoders.learned_projection import colbert_head, dense_modules
from codeintel_rev.encoders.tokens import (
    MAX_QUERY_TOKENS,
    TOKEN_DIM,
    EncodedDocument,
    EncodedQuery,
    Masked,
    Projection,
    query_text,
    slices,
    valid,
)
from codeintel_rev.errors import DimensionMismatch, EncoderFailed, SettingsError
from codeintel_rev.types import Floats, Ids, ModelFingerprint

CODE_PATH = "torch-tokens-1"  # Raise it with every change here that changes vectors.
FILES = (*DENSE_FILES, "*_Dense/*.json", "*_Dense/*.safetensors", "artifact.metadata")
MODULES = (*DENSE_MODULES, "Dense")
PYLATE, COLBERT = "config_sentence_transformers.json", "artifact.metadata"
BATCHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint was trained to read. Lengths are in tokens, with prefix and special ones.

    A query shorter than `query_length` is filled up with mask tokens (the end token where there is none) where it
    `expands`; the others see those only where it `attends`.
    """

    query_prefix: str
    document_prefix: str
    query_length: int
    document_length: int
    expands: bool
    attends: bool
    skipped: tuple[str, ...]
    masks_special: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, is_colbert: bool) -> Self:
        pylate, colbert = checkpoint.json(PYLATE, {}), checkpoint.json(COLBERT, {})
        told = is_colbert or "query_length" in pylate
        marks = ("[unused0]", "[unused1]") if is_colbert else ("", "")
        punctuation = list(string.punctuation) if told and colbert.get("mask_punctuation", True) else []
        return cls(
            query_prefix=pylate.get("query_prefix", colbert.get("query_token_id", marks[0])),
            document_prefix=pylate.get("document_prefix", colbert.get("doc_token_id", marks[1])),
            query_length=pylate.get("query_length", colbert.get("query_maxlen", 32)),
            document_length=pylate.get("document_length", colbert.get("doc_maxlen", 180)),
            expands=pylate.get("do_query_expansion", told),
            attends=pylate.get("attend_to_expansion_tokens", colbert.get("attend_to_mask_tokens", False)),
            skipped=tuple(pylate.get("skiplist_words", punctuation)),
            masks_special=pylate.get("mask_special_tokens", False),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """What goes through the model for one window: `ids` (t,), `attended` (t,), `special` (t,), `offsets` (t, 2)."""

    ids: Ids
    attended: Ids
    special: NDArray[np.bool_]
    offsets: Ids


Forward = Callable[[Sequence[Tokens]], Sequence[tuple[Floats, Floats]]]
"""Returns the dense (dim,) and the token vectors (t, token_dim) of each window, of any length. Raises EncoderFailed."""


class LateInteraction:
    """A TokenEncoder that reads as a checkpoint was trained to; `forward` makes the vectors, `ask` those of a query."""

    def __init__(
        self,
        tokenizer: Any,
        reading: Reading,
        forward: Forward,
        ask: Forward,
        fingerprints: tuple[ModelFingerprint, ModelFingerprint],
        *,
        window: int,
        batch_size: int,
    ) -> None:
        self._reading = reading
        self._forward = forward
        self._ask = ask
        self._batch_size = batch_size
        self._query_prefix = _prefix(tokenizer, reading.query_prefix)
        self._document_prefix = _prefix(tokenizer, reading.document_prefix)
        limit = min(MAX_QUERY_TOKENS, tokenizer.model_max_length)
        self._query_tokenizer = _truncating(tokenizer, limit - len(self._query_prefix))
        self._document_tokenizer = _truncating(tokenizer, window - len(self._document_prefix))
        self._filler: int = tokenizer.eos_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        self._masked = Masked(reading.masks_special, _ids_of(tokenizer, reading.skipped))
        self.dense_fingerprint, self.fingerprint = fingerprints

    def encode_documents(self, texts: Sequence[str]) -> Iterator[EncodedDocument]:
        for some in slices(texts, BATCHES_AT_ONCE * self._batch_size):
            encodings = [self._document_tokenizer.encode(valid(text)) for text in some]
            windows = [[encoding, *encoding.overflowing] for encoding in encodings]
            read = [_tokens(part, self._document_prefix) for parts in windows for part in parts]
            runs = iter(self._run(read, self._forward))
            for parts in windows:
                yield EncodedDocument(*self._joined([next(runs) for _ in parts], self._masked))

    def encode_query(self, text: str) -> EncodedQuery:
        tokens = _tokens(self._query_tokenizer.encode(query_text(text)), self._query_prefix)
        if self._reading.expands:
            tokens = _expanded(tokens, self._reading, self._filler)
        return EncodedQuery(*self._joined(self._run([tokens], self._ask), replace(self._masked, ids=frozenset())))

    def _joined(self, runs: Sequence[tuple[Tokens, Floats, Floats]], masked: Masked) -> tuple[Floats, Floats, Ids]:
        """Return (dense, tokens, offsets) of the text that `runs` are the windows of."""
        kept = [masked.kept(tokens.ids, tokens.special) for tokens, _, _ in runs]
        vectors = np.concatenate([run[2][keep] for run, keep in zip(runs, kept, strict=True)])
        offsets = np.concatenate([run[0].offsets[keep] for run, keep in zip(runs, kept, strict=True)])
        dense = unit_rows(runs[0][1][None], 1, self.dense_fingerprint)[0]
        return dense, unit_rows(vectors, len(vectors), self.fingerprint), offsets

    def _run(self, windows: Sequence[Tokens], forward: Forward) -> list[tuple[Tokens, Floats, Floats]]:
        """Return each window with its dense (dim,) and token vectors (t, token_dim), in order.

        Those of like length run together, the longest first: a batch is padded to its longest.
        """
        made: dict[int, tuple[Tokens, Floats, Floats]] = {}
        order = sorted(range(len(windows)), key=lambda position: -len(windows[position].ids))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            for position, vectors in zip(batch, forward([windows[each] for each in batch]), strict=True):
                made[position] = (windows[position], *vectors)
        return [made[position] for position in range(len(windows))]


class TorchForward:
    """Runs a transformers model, and what is projected of its tokens, on the device the model is on."""

    def __init__(self, checkpoint: Checkpoint, model: Any, pad: int, projection: Projection) -> None:
        self._name = checkpoint.model
        self._model = model
        self._pad = pad
        self._pool = POOLS[checkpoint.pooling()]
        self._matrix, self._bias = (
            torch.from_numpy(part).to(model.device) for part in (projection.matrix, projection.bias)
        )

    def __call__(self, windows: Sequence[Tokens]) -> list[tuple[Floats, Floats]]:
        ids = _padded([window.ids for window in windows], self._pad).to(self._model.device)
        attended = _padded([window.attended for window in windows], 0).to(self._model.device)
        try:
            with torch.inference_mode():
                hidden = self._model(input_ids=ids, attention_mask=attended).last_hidden_state.float()
                dense, tokens = self._pool(hidden, attended), hidden @ self._matrix + self._bias
        except (RuntimeError, IndexError) as error:
            raise EncoderFailed(
                f"model {self._name} failed on {len(windows)} windows: {error}.", "Lower the batch size."
            ) from error
        rows = zip(windows, dense.cpu().numpy(), tokens.cpu().numpy(), strict=True)
        return [(pooled, vectors[: len(window.ids)]) for window, pooled, vectors in rows]


def open_token_encoder(
    model: str,
    revision: str,
    models_dir: Path,
    *,
    max_doclen: int = 0,
    batch_size: int = 16,
    projection: Projection | None = None,
) -> LateInteraction:
    """Return the encoder of a folder or hub model; `max_doclen` is a window's tokens, 0 the checkpoint's own.

    `projection`, kept with the index, counts only where the checkpoint has not learned one; a random orthonormal one is
    used where there is neither. Raises SettingsError, EncoderFailed, DimensionMismatch.
    """
    checkpoint = located(model, revision, models_dir, FILES, "xtr")
    refuse_what_cannot_be_honoured(checkpoint, MODULES)
    device, dtype = device_and_dtype()
    loaded, tokenizer = load(checkpoint, dtype)
    dim = loaded.config.hidden_size
    head = colbert_head(checkpoint)
    projection = head or dense_modules(checkpoint) or projection or Projection.orthonormal(dim, min(dim, TOKEN_DIM))
    if projection.matrix.shape[0] != dim:
        raise DimensionMismatch(f"the token projection takes {projection.matrix.shape[0]} dimensions, not {dim}.")
    reading = Reading.of(checkpoint, is_colbert=head is not None)
    window = window_of(checkpoint, tokenizer, reading, max_doclen)
    dense = _dense_fingerprint(checkpoint, reading, window, loaded)
    forward = TorchForward(checkpoint, loaded.to(device).eval(), tokenizer.pad_token_id, projection)
    fingerprints = (dense, _fingerprint(checkpoint, projection, dense))
    return LateInteraction(tokenizer, reading, forward, forward, fingerprints, window=window, batch_size=batch_size)


def window_of(checkpoint: Checkpoint, tokenizer: Any, reading: Reading, max_doclen: int) -> int:
    """Return the tokens of one window. Raises EncoderFailed, SettingsError when `tokenizer` cannot give them."""
    if not tokenizer.is_fast:
        raise EncoderFailed(f"the tokenizer of model {checkpoint.folder.name} cannot tell where a token stands.")
    window = max_doclen or min(reading.document_length, tokenizer.model_max_length)
    if window > tokenizer.model_max_length:
        raise SettingsError(
            f"setting xtr.max_doclen is {window}, {checkpoint.folder.name} reads at most {tokenizer.model_max_length}.",
            "Lower it.",
        )
    return int(window)


def _prefix(tokenizer: Any, prefix: str) -> tuple[int, ...]:
    """Return the id of the one token that `prefix` is; nothing for none. Raises EncoderFailed."""
    if not prefix:
        return ()
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if prefix not in vocabulary:
        raise EncoderFailed(f"the prefix {prefix!r} of the model is not in its vocabulary.", "Choose another model.")
    return (vocabulary[prefix],)


def _ids_of(tokenizer: Any, words: Sequence[str]) -> frozenset[int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return frozenset(vocabulary[word] for word in words if word in vocabulary)


def _truncating(tokenizer: Any, limit: int) -> Tokenizer:
    """Return a tokenizer of its own that cuts texts in windows of `limit`: queries and documents run at once."""
    own = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own.no_padding()
    own.enable_truncation(limit)
    return own


def _tokens(encoding: Encoding, prefix: tuple[int, ...]) -> Tokens:
    """Return `encoding` with `prefix` after its first token, where ColBERT and PyLate put it."""
    ids = np.array([*encoding.ids[:1], *prefix, *encoding.ids[1:]], np.int64)
    special = np.array([*encoding.special_tokens_mask[:1], *(1 for _ in prefix), *encoding.special_tokens_mask[1:]])
    offsets = np.array([*encoding.offsets[:1], *((0, 0) for _ in prefix), *encoding.offsets[1:]], np.int64)
    return Tokens(ids, np.ones_like(ids), special.astype(np.bool_), offsets.reshape(-1, 2))


def _expanded(tokens: Tokens, reading: Reading, filler: int) -> Tokens:
    missing = max(reading.query_length - len(tokens.ids), 0)
    return Tokens(
        np.pad(tokens.ids, (0, missing), constant_values=filler),
        np.pad(tokens.attended, (0, missing), constant_values=int(reading.attends)),
        np.pad(tokens.special, (0, missing)),
        np.pad(tokens.offsets, ((0, missing), (0, 0))),
    )


def _padded(rows: Sequence[Ids], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], True, value)


def _dense_fingerprint(checkpoint: Checkpoint, reading: Reading, window: int, model: Any) -> ModelFingerprint:
    """Return that of the DenseEncoder on the same folder, or one of its own where texts are read otherwise."""
    same = dense_fingerprint(checkpoint, window, model.config.hidden_size, model.dtype)
    told = prompts(checkpoint)
    if not (reading.query_prefix or reading.document_prefix or reading.expands or told.query or told.document):
        return same
    return replace(same, sha256=checkpoint.sha256(FILES, CODE_PATH, same.sha256))


def _fingerprint(checkpoint: Checkpoint, projection: Projection, dense: ModelFingerprint) -> ModelFingerprint:
    digest = checkpoint.sha256(FILES, CODE_PATH, dense.sha256, MAX_QUERY_TOKENS, projection.sha256)
    return replace(dense, dim=projection.token_dim, pooling="tokens", sha256=digest)
