import json
import pickle
import string

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders import huggingface
from codeintel_rev.encoders.late_interaction import open_token_encoder
from codeintel_rev.encoders.tokens import Projection
from codeintel_rev.errors import DimensionMismatch, EncoderFailed, SettingsError
from tests.tiny_models import DIM, WORDS, bert, head, save_colbert, save_plain, save_pylate, tokenizer, write

CLS, SEP, MASK, OPEN, FILE = (WORDS.index(word) for word in ("[CLS]", "[SEP]", "[MASK]", "open", "file"))
LAYOUTS = {"pylate": (save_pylate, "[Q] ", "[D] "), "colbert": (save_colbert, "[unused0]", "[unused1]")}
PYLATE = {"query_prefix": "[Q] ", "document_prefix": "[D] "}
LONG = "open the file ( a ) ; return b . " * 4


def opened(folder, **changes):
    return open_token_encoder(str(folder), "", folder.parent / "models", **changes)


def by_hand(ids, attended=None, weight=None):
    """Return what the plain model and head make of `ids`: unit token vectors."""
    attention = torch.tensor([attended or [1] * len(ids)])
    with torch.inference_mode():
        hidden = bert()(input_ids=torch.tensor([ids]), attention_mask=attention).last_hidden_state[0]
        return torch.nn.functional.normalize(hidden @ (head() if weight is None else weight).T, dim=-1).numpy()


def only(documents):
    [document] = documents
    return document


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    save, query_prefix, document_prefix = LAYOUTS[request.param]
    reading = PYLATE if request.param == "pylate" else {}
    return save(tmp_path / "tiny", **reading), WORDS.index(query_prefix), WORDS.index(document_prefix)


def test_document_is_read_as_the_checkpoint_was_trained(layout):
    """A29: prefix after [CLS], projection, no vector for punctuation, special tokens kept."""
    folder, _, prefix = layout
    ids = [CLS, prefix, OPEN, WORDS.index("("), FILE, SEP]
    document = only(opened(folder).encode_documents(["open (file"]))
    np.testing.assert_allclose(document.tokens, by_hand(ids)[[0, 1, 2, 4, 5]], atol=2e-6)
    assert document.offsets.tolist() == [[0, 0], [0, 0], [0, 4], [6, 10], [0, 0]]


@pytest.mark.parametrize("attends", [False, True])
def test_short_query_is_filled_up_with_mask_tokens(tmp_path, attends):
    """A29: they are kept, and seen by the others only where the checkpoint says so."""
    folder = save_pylate(tmp_path / "tiny", attend_to_expansion_tokens=attends, **PYLATE)
    ids = [CLS, WORDS.index("[Q] "), OPEN, WORDS.index("("), SEP, MASK, MASK, MASK]
    expected = by_hand(ids, [1] * 5 + [int(attends)] * 3)
    query = opened(folder).encode_query("open (")
    np.testing.assert_allclose(query.tokens, expected, atol=2e-6)
    assert query.offsets.tolist() == [[0, 0], [0, 0], [0, 4], [5, 6], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_query_is_not_filled_up_where_the_checkpoint_says_so(tmp_path):
    folder = save_pylate(tmp_path / "tiny", do_query_expansion=False, query_prefix="", document_prefix="")
    np.testing.assert_allclose(opened(folder).encode_query("open").tokens, by_hand([CLS, OPEN, SEP]), atol=2e-6)


def test_query_longer_than_it_was_trained_on_is_read_on(layout):
    """Decision 20: queries have a limit of their own, here the model's."""
    assert opened(layout[0]).encode_query("open file " * 20).tokens.shape == (43, 8)
    assert opened(layout[0]).encode_query("open file " * 90).tokens.shape == (64, 8)


def test_metadata_of_colbert_is_honoured(tmp_path):
    metadata = {"query_token_id": "[Q] ", "doc_token_id": "[D] ", "mask_punctuation": False}
    encoder = opened(save_colbert(tmp_path / "tiny", attend_to_mask_tokens=True, **metadata))
    ids = [CLS, WORDS.index("[Q] "), OPEN, SEP, MASK, MASK, MASK, MASK]
    np.testing.assert_allclose(encoder.encode_query("open").tokens, by_hand(ids), atol=2e-6)
    assert len(only(encoder.encode_documents(["( )"])).tokens) == 5


def test_special_tokens_are_masked_where_the_checkpoint_says_so(tmp_path):
    encoder = opened(save_pylate(tmp_path / "tiny", mask_special_tokens=True, do_query_expansion=False, **PYLATE))
    assert only(encoder.encode_documents(["open ( file"])).offsets.tolist() == [[0, 4], [7, 11]]
    assert encoder.encode_query("open ( file").offsets.tolist() == [[0, 4], [5, 6], [7, 11]]


def test_long_document_is_read_to_its_end_in_windows(layout):
    """Decision 20"""
    encoder = opened(layout[0])
    document = only(encoder.encode_documents([LONG]))
    covered = {at for start, end in document.offsets for at in range(start, end)}
    wanted = {at for at, character in enumerate(LONG) if character not in string.punctuation + " "}
    assert encoder.fingerprint.max_tokens == 12
    assert covered == wanted


def test_window_can_be_set(layout):
    encoder = opened(layout[0], max_doclen=64)
    assert len(only(encoder.encode_documents([LONG])).tokens) == 3 + sum(word.isalpha() for word in LONG.split())


def test_neighbours_in_a_batch_do_not_change_a_document(layout):
    encoder = opened(layout[0], batch_size=3)
    texts = ["open", LONG, "", "read file ; close", "a b c"] * 3
    for text, document in zip(texts, encoder.encode_documents(texts), strict=True):
        alone = only(encoder.encode_documents([text]))
        np.testing.assert_allclose(document.tokens, alone.tokens, atol=1e-5)
        np.testing.assert_allclose(document.dense, alone.dense, atol=1e-5)
        np.testing.assert_array_equal(document.offsets, alone.offsets)


def test_dense_vector_is_that_of_the_dense_encoder(tmp_path):
    """A checkpoint that reads texts plainly serves both, and its dense vectors can be cached as one."""
    folder = save_colbert(tmp_path / "tiny")
    plainly = {"query_prefix": "", "document_prefix": "", "do_query_expansion": False}
    write(folder / "config_sentence_transformers.json", plainly)
    encoder = opened(folder, max_doclen=16)
    settings = EmbeddingSettings(provider="huggingface", model=str(folder), max_tokens=16)
    dense = huggingface.open_encoder(settings, tmp_path)
    found = np.stack([document.dense for document in encoder.encode_documents([LONG, "open"])])
    np.testing.assert_allclose(found, dense.encode_documents([LONG, "open"]), atol=1e-5)
    np.testing.assert_allclose(encoder.encode_query("open").dense, dense.encode_queries(["open"])[0], atol=1e-5)
    assert encoder.dense_fingerprint == dense.fingerprint


def test_dense_vectors_of_a_prefixed_reading_have_a_fingerprint_of_their_own(tmp_path):
    """F16"""
    folder = save_colbert(tmp_path / "tiny")
    settings = EmbeddingSettings(provider="huggingface", model=str(folder), max_tokens=16)
    assert opened(folder, max_doclen=16).dense_fingerprint != huggingface.open_encoder(settings, tmp_path).fingerprint


def test_several_dense_modules_are_one_map(tmp_path):
    folder = save_pylate(tmp_path / "tiny", do_query_expansion=False, query_prefix="", document_prefix="")
    modules = json.loads((folder / "modules.json").read_text())
    write(folder / "modules.json", [*modules, {"path": "2_Dense", "type": "pylate.models.Dense.Dense"}])
    write(folder / "2_Dense" / "config.json", {"use_residual": True})
    second = torch.eye(8).flip(0)
    save_file({"linear.weight": second, "linear.bias": torch.zeros(8)}, folder / "2_Dense" / "model.safetensors")
    expected = by_hand([CLS, OPEN, SEP], weight=(torch.eye(8) + second) @ head())
    np.testing.assert_allclose(opened(folder).encode_query("open").tokens, expected, atol=2e-6)


def test_encoder_without_a_head_takes_the_projection_of_the_index(tmp_path):
    """Decision 14: else a fixed one; nothing is masked or expanded that nobody trained for."""
    folder = save_plain(tmp_path / "tiny")
    kept = Projection.orthonormal(DIM, 16, seed=7)
    tokens = opened(folder, projection=kept).encode_query("open (").tokens
    expected = by_hand([CLS, OPEN, WORDS.index("("), SEP], weight=torch.from_numpy(kept.matrix.T))
    np.testing.assert_allclose(tokens, expected, atol=2e-6)
    given = Projection.orthonormal(DIM, DIM)
    assert opened(folder).fingerprint == opened(folder, projection=given).fingerprint


def test_projection_of_another_dimension_is_refused(tmp_path):
    with pytest.raises(DimensionMismatch, match="48"):
        opened(save_plain(tmp_path / "tiny"), projection=Projection.orthonormal(48, 8))


def test_learned_head_wins_over_a_kept_projection(layout):
    assert opened(layout[0], projection=Projection.orthonormal(DIM, 16)).fingerprint.dim == 8


def test_only_the_encoder_of_an_encoder_decoder_is_run(tmp_path):
    """XTR's checkpoints are T5."""
    folder = tmp_path / "tiny"
    config = T5Config(vocab_size=len(WORDS), d_model=DIM, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    assert only(opened(folder).encode_documents(["open file"])).tokens.shape == (4, DIM)


@pytest.mark.parametrize("text", ["", "\ud800", "open " * 5_000, "🦀"])
def test_any_text_can_be_encoded(layout, text):
    encoder = opened(layout[0])
    for encoded in (only(encoder.encode_documents([text])), encoder.encode_query(text)):
        assert np.linalg.norm(encoded.dense) == pytest.approx(1, abs=1e-5)
        assert encoded.tokens.shape == (len(encoded.offsets), 8)


def test_no_texts_give_no_documents(layout):
    assert list(opened(layout[0]).encode_documents([])) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write(folder / "config_sentence_transformers.json", PYLATE | {"query_length": 16}),
        lambda folder: save_file({"linear.weight": head() + 1}, folder / "1_Dense" / "model.safetensors"),
    ],
)
def test_fingerprint_changes_with_what_makes_token_vectors(tmp_path, change):
    """F16"""
    folder = save_pylate(tmp_path / "tiny", **PYLATE)
    before = opened(folder).fingerprint
    assert opened(folder).fingerprint == before
    change(folder)
    assert opened(folder).fingerprint.sha256 != before.sha256


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "artifact.metadata"])
def test_damaged_colbert_file_is_a_typed_error(tmp_path, name):
    folder = save_colbert(tmp_path / "tiny")
    (folder / name).write_bytes(b"\x00{")
    with pytest.raises(EncoderFailed, match="tiny"):
        opened(folder)


@pytest.mark.parametrize("name", ["1_Dense/config.json", "1_Dense/model.safetensors", "modules.json"])
def test_damaged_pylate_file_is_a_typed_error(tmp_path, name):
    folder = save_pylate(tmp_path / "tiny", **PYLATE)
    (folder / name).write_bytes(b"\x00{")
    with pytest.raises(EncoderFailed, match=r"1_Dense|tiny"):
        opened(folder)


def test_pickled_head_is_not_read(tmp_path):
    """S21"""
    folder = save_pylate(tmp_path / "tiny", **PYLATE)
    (folder / "1_Dense" / "model.safetensors").unlink()
    (folder / "1_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(EncoderFailed, match="1_Dense/model"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("1_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"}, "activation Tanh"),
        ("modules.json", [{"type": "sentence_transformers.models.CNN", "path": ""}], "module CNN"),
        ("config_sentence_transformers.json", {"query_prefix": "[unheard of]"}, "unheard of"),
    ],
)
def test_checkpoint_that_cannot_be_honoured_is_refused(tmp_path, name, value, said):
    folder = save_pylate(tmp_path / "tiny", **PYLATE)
    write(folder / name, value)
    with pytest.raises(EncoderFailed, match=said):
        opened(folder)


def test_window_beyond_the_model_is_refused(layout):
    with pytest.raises(SettingsError, match="64"):
        opened(layout[0], max_doclen=65)


def test_hub_checkpoint_without_a_pinned_commit_is_refused(tmp_path):
    """S21"""
    with pytest.raises(SettingsError, match=r"xtr\.revision"):
        open_token_encoder("someone/model", "main", tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_tokens_within_bfloat16(layout):
    encoder = opened(layout[0])
    assert encoder.fingerprint.dtype == "bfloat16"
    ids = [CLS, layout[2], OPEN, FILE, SEP]
    np.testing.assert_allclose(only(encoder.encode_documents(["open file"])).tokens, by_hand(ids), atol=3e-2)
