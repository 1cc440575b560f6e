import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders import minilm as module
from codeintel_rev.encoders.dense import open_encoder
from codeintel_rev.errors import EncoderFailed, SettingsError

SNIPPETS = (
    "def retry(call, attempts):\n    for n in range(attempts):\n        try:\n            return call()\n"
    "        except ConnectionError:\n            time.sleep(2 ** n)",
    "func (c *Cache) Evict() {\n\toldest := c.order.Back()\n\tdelete(c.items, oldest.Key)\n}",
    "const hash = await bcrypt.hash(password, 12);\nawait users.insert({ email, hash });",
    "SELECT customer_id, SUM(amount) FROM invoices GROUP BY customer_id;",
    'fn parse_header(line: &str) -> Option<(&str, &str)> {\n    line.split_once(": ")\n}',
)


@pytest.fixture(scope="module")
def code():
    """Pieces of real code: this package's own source, 40 lines each."""
    pieces = []
    for path in sorted(Path(module.__file__).parent.parent.rglob("*.py")):
        lines = path.read_text().split("\n")
        pieces += ["\n".join(lines[start : start + 40]) for start in range(0, len(lines), 40)]
    return pieces[:: len(pieces) // 20][:20]


@pytest.fixture(scope="module")
def reference(code):
    """What the float32 model on torch makes of `code`: token vectors (t, 384) of each piece."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    folder = module.package_folder() / "model"
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        inputs = (tokenizer(text, truncation=True, max_length=128, return_tensors="pt") for text in code)
        return [model(**tokens).last_hidden_state[0].numpy() for tokens in inputs]


def cosines(left, right):
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def test_vectors_agree_with_the_float32_model(minilm, reference, code):
    found = cosines(minilm.encode_documents(code), np.stack([tokens.mean(axis=0) for tokens in reference]))
    assert found.mean() > 0.993
    assert found.min() > 0.97


def test_token_vectors_agree_with_the_float32_model(minilm, reference, code):
    found = []
    for text, expected in zip(code, reference, strict=True):
        ids = module._token_ids(minilm._tokenizer, text)
        tokens = minilm._session.run(["last_hidden_state"], {"input_ids": ids})[0][0]
        found.append(cosines(tokens, expected))
    assert np.concatenate(found).mean() > 0.99


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("try again when the network fails, waiting longer each time", 0),
        ("remove the least recently used entry", 1),
        ("how are passwords stored?", 2),
        ("total revenue per client", 3),
        ("split a line into name and value", 4),
    ],
)
def test_question_is_nearest_its_answer(minilm, question, answer):
    scores = minilm.encode_documents(SNIPPETS) @ minilm.encode_queries([question])[0]
    assert scores.argmax() == answer


def test_text_has_the_same_bytes_alone_and_among_others(minilm, code):
    alone = [minilm.encode_documents([text])[0] for text in code]
    np.testing.assert_array_equal(minilm.encode_documents(code), alone)


def test_threads_do_not_change_bytes(minilm, models_dir, code):
    one = open_encoder(EmbeddingSettings(threads=1), models_dir)
    np.testing.assert_array_equal(one.encode_documents(code), minilm.encode_documents(code))


def test_one_encoder_serves_many_threads(minilm, code):
    expected = minilm.encode_queries(code)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: minilm.encode_queries([text])[0], code))
    np.testing.assert_array_equal(np.stack(found), expected)


def test_rows_are_float32_of_unit_length(minilm):
    rows = minilm.encode_documents(SNIPPETS)
    assert rows.dtype == np.float32
    assert rows.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows(minilm):
    assert minilm.encode_documents([]).shape == (0, 384)
    assert minilm.encode_queries([]).shape == (0, 384)


def test_only_the_first_tokens_are_read(minilm):
    long = "alpha " * 200
    np.testing.assert_array_equal(*minilm.encode_documents([long, long + "omega " * 50]))


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\x00", "🦀" * 50, "数据库连接池", "a\u0301\u200d\ufeff", "\ud800 lone surrogate", "x" * 5000]
)
def test_any_text_has_a_vector(minilm, text):
    assert np.isfinite(minilm.encode_documents([text])).all()


def test_huge_text_is_read_no_further_than_needed(minilm):
    """Ten megabytes tokenised whole would take several seconds and a gigabyte."""
    text = "identifier = value;\n" * 500_000
    np.testing.assert_array_equal(*minilm.encode_documents([text, text[:5_000]]))


def test_fingerprint_tells_the_token_window(minilm, models_dir):
    wider = open_encoder(EmbeddingSettings(max_tokens=256), models_dir)
    assert wider.fingerprint.max_tokens == 256
    assert wider.fingerprint.sha256 != minilm.fingerprint.sha256


def test_window_beyond_the_model_is_refused(models_dir):
    with pytest.raises(SettingsError, match="512"):
        open_encoder(EmbeddingSettings(max_tokens=513), models_dir)


def test_server_needs_neither_torch_nor_onnx(minilm, models_dir):
    program = (
        "import sys; from pathlib import Path; from codeintel_rev.config.settings import EmbeddingSettings;"
        "from codeintel_rev.encoders.dense import open_encoder;"
        "open_encoder(EmbeddingSettings(), Path(sys.argv[1])).encode_queries(['x']);"
        "print({'torch', 'onnx', 'transformers', 'sentence_transformers'} & sys.modules.keys())"
    )
    run = subprocess.run([sys.executable, "-c", program, models_dir], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.fixture
def own_models_dir(minilm, models_dir, tmp_path):
    return Path(shutil.copytree(models_dir, tmp_path / "models"))


@pytest.mark.parametrize("name", ["model.onnx", "SHA256"])
def test_damaged_model_is_made_again(own_models_dir, minilm, name):
    """F13"""
    path = next(own_models_dir.glob(f"*/{name}"))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    again = open_encoder(EmbeddingSettings(), own_models_dir)
    np.testing.assert_array_equal(again.encode_queries(["x"]), minilm.encode_queries(["x"]))
    assert path.read_bytes() != bytes(damaged)


def test_opening_a_kept_model_writes_nothing(own_models_dir, minilm):
    before = {path: path.stat().st_mtime_ns for path in own_models_dir.rglob("*")}
    open_encoder(EmbeddingSettings(), own_models_dir)
    assert {path: path.stat().st_mtime_ns for path in own_models_dir.rglob("*")} == before


def test_concurrent_makers_leave_one_whole_model(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as makers:
        rows = makers.map(_first_row, [tmp_path, tmp_path])
    np.testing.assert_array_equal(*rows)
    assert sorted(path.name for path in tmp_path.glob("*/*")) == ["SHA256", "model.onnx"]


def _first_row(models_dir):
    return open_encoder(EmbeddingSettings(), models_dir).encode_queries(["x"])[0]


def test_weights_of_another_model_are_refused(tmp_path):
    """S21: only the pinned bytes are ever read as weights."""
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(EncoderFailed, match=r"model\.safetensors"):
        module._genuine(tmp_path / "model.safetensors", module.WEIGHTS_SHA256)
