import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.encoders import minilm as module
from codeintel_rev.encoders.minilm_tokens import MiniLMTokens, fitted_projection
from codeintel_rev.encoders.tokens import MAX_QUERY_TOKENS, Projection
from codeintel_rev.errors import DimensionMismatch

SOURCE = Path(module.__file__).read_text()
TEXTS = [SOURCE[start : start + 700] for start in range(0, 4200, 700)]
LONG = SOURCE[:3000]


@pytest.fixture(scope="module")
def encoder(minilm):
    return MiniLMTokens(minilm, fitted_projection(minilm, TEXTS))


def test_dense_vector_is_that_of_the_dense_encoder_bit_by_bit(encoder, minilm):
    """So that the cache of vectors stays valid, for long texts too."""
    found = np.stack([document.dense for document in encoder.encode_documents([*TEXTS, LONG, ""])])
    np.testing.assert_array_equal(found, minilm.encode_documents([*TEXTS, LONG, ""]))
    np.testing.assert_array_equal(encoder.encode_query("open a file").dense, minilm.encode_queries(["open a file"])[0])
    assert encoder.dense_fingerprint == minilm.fingerprint


def test_token_vectors_are_the_projected_hidden_states(encoder, minilm):
    ids = module._token_ids(minilm._tokenizer, "return the first row")
    hidden = minilm._session.run(["last_hidden_state"], {"input_ids": ids})[0][0, 1:-1]
    expected = hidden @ encoder.projection.matrix
    found = encoder.encode_query("return the first row").tokens
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_token_vectors_are_float32_of_unit_length(encoder):
    """A10"""
    for document in encoder.encode_documents(TEXTS):
        assert document.tokens.dtype == np.float32
        assert document.tokens.shape == (len(document.offsets), 128)
        np.testing.assert_allclose(np.linalg.norm(document.tokens, axis=1), 1, atol=1e-6)


def test_long_text_is_read_to_its_end(encoder):
    """Decision 20: nothing is cut; the offsets cover every character that is not blank."""
    [document] = encoder.encode_documents([LONG])
    covered = np.zeros(len(LONG), bool)
    for start, end in document.offsets:
        covered[start:end] = True
    assert len(document.tokens) > 3 * encoder.fingerprint.max_tokens
    assert [character for at, character in enumerate(LONG) if not covered[at] and not character.isspace()] == []


def test_offsets_are_the_characters_of_each_token(encoder):
    """A13: also after characters of several bytes, and where the tokenizer strips accents."""
    text = "🦀 naïve = find_user(x)"
    [document] = encoder.encode_documents([text])
    words = [text[start:end] for start, end in document.offsets]
    assert words == ["🦀", "naïve", "=", "find", "_", "user", "(", "x", ")"]


def test_query_has_at_most_its_own_limit_of_tokens(encoder):
    """A10, decision 20: more than a window, less than all."""
    query = encoder.encode_query("alpha " * 1000)
    assert query.tokens.shape == (MAX_QUERY_TOKENS, 128)
    assert len(query.offsets) == MAX_QUERY_TOKENS


def test_documents_come_in_order_however_many(encoder):
    texts = [f"value_{number} = {number}" for number in range(150)]
    found = list(encoder.encode_documents(texts))
    alone = [next(iter(encoder.encode_documents([text]))) for text in texts[::30]]
    assert len(found) == 150
    for document, expected in zip(found[::30], alone, strict=True):
        np.testing.assert_array_equal(document.tokens, expected.tokens)


def test_documents_are_encoded_as_they_are_taken(encoder):
    """Memory does not grow with the corpus: an endless one can be begun."""

    class Endless(list):
        def __getitem__(self, key):
            return ["text"] * (key.stop - key.start)

        def __len__(self):
            return 10**15

    assert len(list(islice(encoder.encode_documents(Endless()), 3))) == 3


@pytest.mark.parametrize("text", ["", " \n\t", "\x00", "🦀" * 50, "\ud800 lone surrogate", "x" * 5000])
def test_any_text_can_be_encoded(encoder, text):
    for encoded in (*encoder.encode_documents([text]), encoder.encode_query(text)):
        assert np.isfinite(encoded.dense).all()
        assert encoded.tokens.shape == (len(encoded.offsets), 128)


def test_no_texts_give_no_documents(encoder):
    assert list(encoder.encode_documents([])) == []


def test_best_document_by_tokens_is_the_one_meant(encoder):
    documents = [
        "def retry(call, attempts):\n    for n in range(attempts):\n        time.sleep(2 ** n)",
        "func (c *Cache) Evict() {\n\toldest := c.order.Back()\n\tdelete(c.items, oldest.Key)\n}",
        "const hash = await bcrypt.hash(password, 12);",
    ]
    query = encoder.encode_query("how are passwords stored?")
    scores = [(query.tokens @ document.tokens.T).max(axis=1).sum() for document in encoder.encode_documents(documents)]
    assert int(np.argmax(scores)) == 2


def test_one_encoder_serves_many_threads(encoder):
    """A34"""
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: encoder.encode_query(text).tokens, TEXTS))
    for text, tokens in zip(TEXTS, found, strict=True):
        np.testing.assert_array_equal(tokens, encoder.encode_query(text).tokens)


def test_fingerprint_tells_the_projection(minilm, encoder):
    """F16: tokens of two projections are never compared."""
    other = MiniLMTokens(minilm, Projection.orthonormal(384))
    same = MiniLMTokens(minilm, Projection.from_bytes(encoder.projection.to_bytes()))
    assert other.fingerprint.sha256 != encoder.fingerprint.sha256 == same.fingerprint.sha256
    assert encoder.fingerprint.dim == 128


def test_projection_of_another_model_is_refused(minilm):
    with pytest.raises(DimensionMismatch, match="768"):
        MiniLMTokens(minilm, Projection.orthonormal(768))


def test_projection_without_texts_is_random_and_fixed(minilm):
    assert fitted_projection(minilm, []).sha256 == Projection.orthonormal(384).sha256


def test_projection_is_fitted_the_same_every_time(minilm):
    many = [f"def f_{number}(): return {number}" for number in range(200)]
    first, again, other = (fitted_projection(minilm, many, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert first.sha256 != other.sha256


def test_tokens_need_neither_torch_nor_transformers(minilm, models_dir):
    program = (
        "import sys; from pathlib import Path; from codeintel_rev.config.settings import EmbeddingSettings;"
        "from codeintel_rev.encoders.dense import open_encoder;"
        "from codeintel_rev.encoders.minilm_tokens import MiniLMTokens, fitted_projection;"
        "dense = open_encoder(EmbeddingSettings(), Path(sys.argv[1]));"
        "MiniLMTokens(dense, fitted_projection(dense, ['x = 1'])).encode_query('x');"
        "print({'torch', 'onnx', 'transformers', 'sentence_transformers'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", program, models_dir], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_of_a_long_query_no_more_is_run_than_is_kept(encoder, minilm, monkeypatch):
    """A10: three windows of 128 tokens hold the 256 that count."""
    runs = []
    windows = minilm.windows
    monkeypatch.setattr(minilm, "windows", lambda text: (runs.append(1) or window for window in windows(text)))
    assert len(encoder.encode_query("word " * 2000).tokens) == MAX_QUERY_TOKENS
    assert len(runs) == 3
