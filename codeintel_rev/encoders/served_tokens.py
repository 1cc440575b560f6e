"""Token vectors from a served late-interaction model (`xtr.provider = "vllm"`): read here, made there.

The tokenizer and the rules of reading are this side's: prefixes, windows and masks are those the checkpoint was trained
with, and each vector's place in the text is known. What is sent are token ids. A server attends to every token
it is sent: mask tokens that no other attends to are left out of a query, which changes none of the other vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codeintel_rev.config.settings import EndpointSettings
from codeintel_rev.encoders.checkpoint import load_tokenizer, located, refuse_what_cannot_be_honoured
from codeintel_rev.encoders.late_interaction import FILES, MODULES, LateInteraction, Reading, Tokens, window_of
from codeintel_rev.encoders.learned_projection import colbert_head, dense_modules
from codeintel_rev.encoders.served import answered
from codeintel_rev.errors import EncoderFailed, NoTokenModel
from codeintel_rev.io.vllm.http import open_upstream
from codeintel_rev.io.vllm.pooling import PoolingClient
from codeintel_rev.observability.tracing import trace_id
from codeintel_rev.types import Floats, ModelFingerprint

CODE_PATH = "served-tokens-1"  # Raise it with every change here that changes vectors.


class ServedForward:
    """Asks the server; `within_s` is the time for it, None that of the endpoint. The dense vector is the mean."""

    def __init__(self, client: PoolingClient, dim: int, within_s: float | None) -> None:
        self._client = client
        self._dim = dim
        self._within_s = within_s

    def __call__(self, windows: Sequence[Tokens]) -> list[tuple[Floats, Floats]]:
        ids = [window.ids.tolist() for window in windows]
        made = answered(self._client.tokens(ids, dim=self._dim, trace_id=trace_id(), within_s=self._within_s))
        for sent, vectors in zip(ids, made, strict=True):
            if len(vectors) != len(sent):
                raise EncoderFailed(
                    f"the tokens server gave {len(vectors)} vectors for {len(sent)} tokens.", "Serve another model."
                )
        return [(vectors.mean(axis=0), vectors) for vectors in made]


def open_token_encoder(
    model: str,
    revision: str,
    models_dir: Path,
    endpoint: EndpointSettings,
    *,
    max_doclen: int,
    batch_size: int,
    query_s: float,
) -> LateInteraction:
    """Return the encoder of the checkpoint `model`, which `endpoint` serves. Nobody is asked yet.

    The weights are read for their digest and the width of their projection, and not loaded. Raises SettingsError,
    EncoderFailed, NoTokenModel when the checkpoint has learned no projection.
    """
    checkpoint = located(model, revision, models_dir, FILES, "xtr")
    refuse_what_cannot_be_honoured(checkpoint, MODULES)
    head = colbert_head(checkpoint)
    projection = head or dense_modules(checkpoint)
    if projection is None:
        raise NoTokenModel(
            f"model {checkpoint.folder.name} has no projection of its own.", "Set xtr.provider to local."
        )
    tokenizer = load_tokenizer(checkpoint)
    told = Reading.of(checkpoint, is_colbert=head is not None)
    reading = replace(told, expands=told.expands and told.attends)
    window = window_of(checkpoint, tokenizer, reading, max_doclen)
    dim = projection.token_dim
    client = PoolingClient(open_upstream("tokens", endpoint))
    digest = checkpoint.sha256(FILES, CODE_PATH, window)
    dense = ModelFingerprint(checkpoint.model, checkpoint.revision, dim, "mean", "float16", window, digest)
    return LateInteraction(
        tokenizer,
        reading,
        ServedForward(client, dim, None),
        ServedForward(client, dim, query_s),
        (dense, replace(dense, pooling="tokens")),
        window=window,
        batch_size=batch_size,
    )
