"""A dense encoder whose model another process has, asked over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.config.settings import EmbeddingSettings, EndpointSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
from codeintel_rev.errors import EncoderFailed, SettingsError
from tests.projects import SHOP, new_project
from tests.stub_vllm import DIM, StubVLLM, in_background, vector

DEAD = "http://127.0.0.1:9"
SERVED = {"provider": "vllm", "query_timeout_ms": 20_000}


@pytest.fixture
def stub() -> StubVLLM:
    return StubVLLM("embed")


@pytest.fixture
def url(stub: StubVLLM) -> Iterator[str]:
    with in_background(stub) as found:
        yield found


def opened(folder: Path, url: str, **settings: object) -> DenseEncoder:
    endpoint = EndpointSettings.model_validate({"url": url, "model": "tiny"})
    found = open_encoder(
        EmbeddingSettings.model_validate({"provider": "vllm", "query_timeout_ms": 20_000, **settings}), folder, endpoint
    )
    assert found is not None
    return found


def test_every_text_gets_the_vector_the_server_gives_it(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    """Whatever batch it stands in, read as far as the setting says."""
    texts = [f"text number {number} and more" for number in range(23)]
    found = opened(tmp_path, url, batch_size=4, max_tokens=16).encode_documents(texts)
    assert found == pytest.approx(np.stack([vector(text) for text in texts]), abs=1e-6)
    assert {len(request.body["input"]) for request in stub.requests[2:]} == {4, 3}
    assert {request.body["truncate_prompt_tokens"] for request in stub.requests[2:]} == {16}


def test_no_text_is_not_asked_about(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    encoder = opened(tmp_path, url)
    asked = len(stub.requests)
    assert encoder.encode_queries([]).shape == (0, DIM)
    assert len(stub.requests) == asked


def test_many_threads_may_ask_at_once(url: str, tmp_path: Path) -> None:
    encoder = opened(tmp_path, url)
    with ThreadPoolExecutor(8) as executor:
        found = list(executor.map(lambda number: encoder.encode_queries([f"q{number}"])[0], range(32)))
    assert np.stack(found) == pytest.approx(np.stack([vector(f"q{number}") for number in range(32)]), abs=1e-6)


def test_the_fingerprint_names_the_model(url: str, tmp_path: Path) -> None:
    one, other = opened(tmp_path, url, revision="a"), opened(tmp_path, url, revision="b")
    assert (one.fingerprint.model, one.fingerprint.dim, one.fingerprint.pooling) == ("tiny", DIM, "served")
    assert one.fingerprint.sha256 != other.fingerprint.sha256
    assert one.fingerprint == opened(tmp_path, url, revision="a").fingerprint


def test_a_server_that_is_down_is_known_from_before(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    """F24: the process starts, and a query is told what is missing."""
    before = opened(tmp_path, url).fingerprint
    encoder = opened(tmp_path, DEAD)
    assert encoder.fingerprint == before
    with pytest.raises(EncoderFailed, match="could not be asked"):
        encoder.encode_queries(["q"])


def test_a_server_that_is_down_and_was_never_seen_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncoderFailed, match="could not be asked"):
        opened(tmp_path, DEAD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scenario", ["nan", "zero", "narrow", "missing", "twice"])
def test_a_bad_batch_is_an_error_and_no_vectors(stub: StubVLLM, url: str, tmp_path: Path, scenario: str) -> None:
    """F28."""
    encoder = opened(tmp_path, url)
    stub.script.append(scenario)
    with pytest.raises(EncoderFailed, match=r"gave|did not give"):
        encoder.encode_documents(["one", "two"])


def test_a_query_waits_no_longer_than_set(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    """F25: the search goes on without its vector."""
    encoder = opened(tmp_path, url, query_timeout_ms=20)
    stub.script.append("slow")
    with pytest.raises(EncoderFailed, match="in its time"):
        encoder.encode_queries(["q"])


def test_more_tokens_than_the_server_reads_is_a_wrong_setting(stub: StubVLLM, url: str, tmp_path: Path) -> None:
    stub.max_model_len = 64
    with pytest.raises(SettingsError, match=r"embedding\.max_tokens is 128, tiny reads at most 64"):
        opened(tmp_path, url)


def test_a_server_nobody_named_is_told_by_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"vllm\.embed\.url"):
        open_encoder(EmbeddingSettings(provider="vllm"), tmp_path)


def test_a_repository_is_indexed_and_searched_by_a_served_model(url: str, tmp_path: Path) -> None:
    """F24: while its server is down, words and symbols answer, and the answer says what is missing."""
    own = new_project(tmp_path, tmp_path / "models", SHOP)
    sections = {
        "embedding": {"provider": "vllm", "query_timeout_ms": 20_000},
        "vllm": {"embed": {"url": url, "model": "tiny"}},
    }
    served = own.having(**sections)
    summary = served.build()
    assert summary.counts["vectors"] == summary.counts["chunks"] == summary.encoded
    assert served.current.model is not None
    assert served.current.model.model == "tiny"
    found = served.search("charge a credit card")
    assert "dense" in found.channels
    assert not [limit for limit in found.limits if limit.stage == "encode"]
    down = own.having(**sections | {"vllm": {"embed": {"url": DEAD, "model": "tiny"}}})
    found = down.search("charge a credit card")
    assert "dense" not in found.channels
    assert found.hits[0].path == "shop/payment.py"
    assert [limit.code for limit in found.limits if limit.stage == "encode"] == ["encoder-failed"]
