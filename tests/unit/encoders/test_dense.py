import numpy as np
import pytest

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import embedding_text, open_encoder, unit_rows
from codeintel_rev.errors import EncoderFailed
from codeintel_rev.types import Chunk, ModelFingerprint, Role

FINGERPRINT = ModelFingerprint("m", "", 3, "mean", "float32", 128, "0")


def chunk(**changes):
    values = {
        "chunk_id": 1,
        "repo": "r",
        "path": "src/http/RetryPolicy.py",
        "language": "python",
        "role": Role.CODE,
        "start_line": 1,
        "end_line": 1,
        "kind": "function",
        "symbol": "RetryPolicy.wait",
        "header": "class RetryPolicy:",
        "text": "def wait(self): ...",
    }
    return Chunk(**(values | changes))


def test_text_to_encode_is_path_symbol_header_then_code():
    assert embedding_text(chunk()).split("\n") == [
        "src/http/RetryPolicy.py",
        "RetryPolicy.wait",
        "class RetryPolicy:",
        "def wait(self): ...",
    ]


def test_text_to_encode_has_no_line_for_what_a_chunk_lacks():
    assert embedding_text(chunk(symbol="", header="")) == "src/http/RetryPolicy.py\ndef wait(self): ..."


def test_long_signature_does_not_crowd_out_the_code():
    assert len(embedding_text(chunk(header="x" * 10_000))) < 300


def test_usable_vectors_become_unit_rows():
    rows = unit_rows(np.array([[3, 4, 0], [0, 0, 1e-30]], np.float32), 2, FINGERPRINT)
    np.testing.assert_allclose(rows, [[0.6, 0.8, 0], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (np.ones((2, 4)), "shape"),
        (np.ones((1, 3)), "shape"),
        (np.ones(3), "shape"),
        (np.array([[1, 2, 3], [1, np.nan, 3]]), "NaN"),
        (np.array([[1, 2, 3], [1, np.inf, 3]]), "NaN or infinity"),
        (np.array([[1, 2, 3], [0, 0, 0]]), "zeros"),
    ],
)
def test_unusable_vectors_are_refused_by_name(vectors, said):
    """F28"""
    with pytest.raises(EncoderFailed, match=said):
        unit_rows(vectors.astype(np.float32), 2, FINGERPRINT)


def test_provider_none_opens_no_encoder(tmp_path):
    assert open_encoder(EmbeddingSettings(provider="none"), tmp_path) is None
