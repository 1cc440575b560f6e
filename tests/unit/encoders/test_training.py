import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import codeintel_rev
from codeintel_rev.encoders.late_interaction import open_token_encoder
from codeintel_rev.encoders.training.joint import TrainConfig, Vectors, joint_loss, max_sim, train
from codeintel_rev.encoders.training.pairs import EXCLUDED, Pair, mined, pairs_of
from tests.tiny_models import save_plain

SOURCE = '''
class Store:
    async def close(self, now):
        """Close the file behind this store.

        Twice is harmless.
        """
        # Nothing to flush.
        self.open = False
        return now

def short(): "Too few words"; return 1

def bare():
    """Say nothing but this one sentence."""
'''
WORDS = ("open", "close", "file", "read", "write", "query")
PAIRS = [
    Pair(f"{first} {second} {third}", f"def {third} {first} ( {second} ) return {number % 3}", f"p{number}.py")
    for number, (first, second, third) in enumerate((a, b, c) for a in WORDS for b in WORDS for c in WORDS)
]
CONFIG = TrainConfig(steps=60, batch_size=16, document_tokens=16, learning_rate=1e-3, head_rate=1e-3, bf16=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return save_plain(tmp_path_factory.mktemp("base") / "tiny")


def trained(base: Path, out: Path, **changes):
    config = replace(CONFIG, **changes)
    return list(train(base, PAIRS, config, out, report_every=config.steps))


def test_pair_is_a_docstring_and_the_code_without_it():
    [pair] = pairs_of(SOURCE, "shop/store.py")
    assert pair.query == "Close the file behind this store."
    assert pair.code == (
        "shop/store.py\nclose\nasync def close(self, now):\n    # Nothing to flush.\n"
        "    self.open = False\n    return now"
    )


@pytest.mark.parametrize("source", ["def broken(:", "\x00", "", "(" * 1000])
def test_source_that_cannot_be_parsed_gives_no_pairs(source):
    assert list(pairs_of(source, "a.py")) == []


@pytest.fixture
def packages(tmp_path):
    for name in ("kept", "requests", "pip/_vendor/requests", "flask"):
        (tmp_path / name).mkdir(parents=True)
        text = SOURCE.replace("this store", f"the {name} store").replace("now", name.replace("/", "_"))
        (tmp_path / name / "store.py").write_text(text)
    (tmp_path / "kept" / "copy.py").write_text(SOURCE.replace("this store", "THE kept store"))
    return tmp_path


def test_nothing_the_benches_ask_about_is_mined(packages):
    """Vendored copies neither."""
    assert {pair.path.split("/")[0] for pair in mined(packages, 10)} == {"kept"}
    assert {"requests", "flask", "pytest", "fastapi", "starlette", "httpx", "werkzeug"} <= EXCLUDED


def test_question_asked_twice_is_mined_once(packages):
    assert len(mined(packages, 10)) == 1


def test_pairs_are_mined_in_the_same_order():
    root = Path(codeintel_rev.__file__).parent
    assert mined(root, 5) == mined(root, 5) != []


def vectors(tokens, mask):
    rows = torch.tensor(tokens)
    return Vectors(torch.nn.functional.normalize(rows.mean(dim=1), dim=-1), rows, torch.tensor(mask))


def test_max_sim_is_the_mean_of_the_best_matches():
    """A11: only tokens within both masks count."""
    query = vectors([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]], [[True, True, False]])
    codes = vectors([[[0.6, 0.8], [1.0, 0.0]], [[0.6, 0.8], [1.0, 0.0]]], [[True, True], [True, False]])
    np.testing.assert_allclose(max_sim(query, codes), [[(1 + 0.8) / 2, (0.6 + 0.8) / 2]], atol=1e-6)


def test_loss_is_least_where_every_query_has_its_own_code():
    apart = vectors([[[1.0, 0.0]], [[0.0, 1.0]]], [[True], [True]])
    swapped = vectors([[[0.0, 1.0]], [[1.0, 0.0]]], [[True], [True]])
    assert joint_loss(apart, apart) < 0.01 < 10 < joint_loss(apart, swapped)


def test_loss_falls_and_held_out_pairs_are_found_better(base, tmp_path):
    start, *_, end = train(base, PAIRS, CONFIG, tmp_path, report_every=20)
    assert math.isnan(start.loss)
    assert end.loss < 2.5 < 2 * math.log(CONFIG.batch_size)
    assert end.dense_mrr > start.dense_mrr
    assert end.token_mrr > start.token_mrr


def test_checkpoint_is_read_by_the_encoder_as_it_was_trained(base, tmp_path):
    *_, end = trained(base, tmp_path)
    encoder = open_token_encoder(str(tmp_path / f"step-{end.step}"), "", tmp_path)
    held_out = [pair for pair in PAIRS if pair.held_out]
    queries = [encoder.encode_query(pair.query) for pair in held_out]
    codes = list(encoder.encode_documents([pair.code for pair in held_out]))
    tokens = np.array([[(q.tokens @ c.tokens.T).max(axis=1).mean() for c in codes] for q in queries])
    dense = np.stack([q.dense for q in queries]) @ np.stack([c.dense for c in codes]).T
    assert encoder.fingerprint.dim == 32
    for scores, expected in ((tokens, end.token_mrr), (dense, end.dense_mrr)):
        ranks = (scores >= scores.diagonal()[:, None]).sum(axis=1)
        assert (1 / ranks).mean() == pytest.approx(expected, abs=0.02)


def test_seed_gives_the_same_weights(base, tmp_path):
    files = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        trained(base, tmp_path / name, seed=seed, steps=3)
        files.append((tmp_path / name / "step-3" / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_held_out_pairs_are_a_tenth():
    assert 0.05 < np.mean([Pair("", "", f"{number}.py").held_out for number in range(2000)]) < 0.15
