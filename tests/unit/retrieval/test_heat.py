"""Lines of a file, as hot as the query makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeintel_rev.config.settings import Settings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.encoders.token_encoder import open_token_encoder
from codeintel_rev.encoders.tokens import TokenEncoder
from codeintel_rev.retrieval.heat import BLOCK, heat

LINES = [f"value_{number} = compute({number})" for number in range(3 * BLOCK)]


@pytest.fixture(scope="module")
def encoder(minilm: DenseEncoder, tmp_path_factory: pytest.TempPathFactory) -> TokenEncoder:
    return open_token_encoder(Settings(), minilm, tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 3 * BLOCK - 1])
def test_the_line_that_says_it_is_the_hottest(encoder: TokenEncoder, place: int) -> None:
    """Whichever block it lies in, its number is its own."""
    text = "\n".join([*LINES[:place], "charge_credit_card(customer)", *LINES[place + 1 :]])
    lines = heat("who charges the credit card", text, encoder)
    hottest = max(lines, key=lambda line: line.similarity)
    assert (hottest.number, hottest.query_token, hottest.document_token) == (place + 1, "credit", "credit")


def test_every_line_is_there(encoder: TokenEncoder) -> None:
    text = "\n\n".join(LINES)
    assert [line.text for line in heat("compute", text, encoder)] == text.split("\n")


def test_lines_without_words_are_cold(encoder: TokenEncoder) -> None:
    assert [line.similarity for line in heat("card", "}\n\n  ---  \n", encoder)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("query", ["-> ()", "\ud800"])
def test_a_query_without_words_makes_nothing_hot(encoder: TokenEncoder, query: str) -> None:
    assert {line.similarity for line in heat(query, "card\ncart", encoder)} == {0.0}


def test_an_empty_file_has_no_lines(encoder: TokenEncoder) -> None:
    assert heat("card", "", encoder) == []


def test_common_words_are_a_quarter_as_hot(encoder: TokenEncoder) -> None:
    (line,) = heat("the", "the", encoder)
    assert line.similarity == pytest.approx(0.25 * 1.0, abs=0.1)


def test_a_file_of_its_own_is_hot(encoder: TokenEncoder) -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    lines = heat("common words", text, encoder)
    assert "common" in max(lines, key=lambda line: line.similarity).text
