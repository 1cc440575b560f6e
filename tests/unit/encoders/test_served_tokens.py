"""Token vectors of a served checkpoint: those the same checkpoint makes here, to the precision of the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.token_encoder import open_token_encoder
from codeintel_rev.encoders.tokens import TokenEncoder
from codeintel_rev.errors import EncoderFailed, NoTokenModel, SettingsError
from tests.stub_vllm import StubVLLM, in_background
from tests.tiny_models import bert, head, save_colbert, save_plain, save_pylate

TEXTS = ["open the file (a)", "return b.", "open the file ( a ) ; return b . " * 4]
MARKS = {"query_prefix": "[Q] ", "document_prefix": "[D] "}


def forward(ids: list[int]) -> np.ndarray:
    """Return what the server's model makes of `ids`, (n, 8) of unit length."""
    with torch.inference_mode():
        hidden = bert()(input_ids=torch.tensor([ids])).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden @ head().T, dim=-1).numpy()


@pytest.fixture
def stub() -> StubVLLM:
    return StubVLLM("tokens", forward=forward)


@pytest.fixture
def url(stub: StubVLLM) -> Iterator[str]:
    with in_background(stub) as found:
        yield found


def opened(folder: Path, url: str, provider: str = "vllm") -> TokenEncoder:
    endpoint = {"url": url, "model": "tiny"}
    settings = {
        "xtr": {"model": str(folder), "provider": provider},
        "vllm": {"tokens": endpoint},
        "embedding": {"query_timeout_ms": 20_000},
    }
    return open_token_encoder(Settings.model_validate(settings), None, folder.parent)


@pytest.mark.parametrize("attends", [True, False])
@pytest.mark.parametrize("layout", ["pylate", "colbert"])
def test_a_served_checkpoint_reads_as_a_local_one(url: str, tmp_path: Path, layout: str, attends: bool) -> None:
    """A29: the same tokens, at the same places, of as many windows. Mask tokens nobody attends to are left out."""
    if layout == "pylate":
        folder = save_pylate(tmp_path / "tiny", attend_to_expansion_tokens=attends, **MARKS)
    else:
        folder = save_colbert(tmp_path / "tiny", attend_to_mask_tokens=attends)
    served, local = opened(folder, url), opened(folder, url, "local")
    for one, other in zip(served.encode_documents(TEXTS), local.encode_documents(TEXTS), strict=True):
        assert np.array_equal(one.offsets, other.offsets)
        assert one.tokens == pytest.approx(other.tokens, abs=2e-3)
    asked, expected = served.encode_query("open ("), local.encode_query("open (")
    assert len(asked.tokens) == (len(expected.tokens) if attends else 5)
    assert asked.tokens == pytest.approx(expected.tokens[: len(asked.tokens)], abs=2e-3)


def test_its_vectors_are_never_taken_for_local_ones(url: str, tmp_path: Path) -> None:
    folder = save_pylate(tmp_path / "tiny")
    served, local = opened(folder, url), opened(folder, url, "local")
    assert served.fingerprint != local.fingerprint
    assert served.dense_fingerprint != local.dense_fingerprint
    assert served.fingerprint == opened(folder, "http://elsewhere").fingerprint


def test_a_server_that_reads_otherwise_is_refused(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    """A vector too many would put every other at a wrong place."""
    stub.forward = lambda ids: forward([*ids, 0])
    with pytest.raises(EncoderFailed, match="vectors for"):
        opened(save_pylate(tmp_path / "tiny"), url).encode_query("open")


def test_a_checkpoint_without_a_projection_is_no_model_of_tokens(url: str, tmp_path: Path) -> None:
    with pytest.raises(NoTokenModel, match="no projection"):
        opened(save_plain(tmp_path / "tiny"), url)


def test_a_server_nobody_named_is_told_by_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"vllm\.tokens\.url"):
        opened(save_pylate(tmp_path / "tiny"), "")
