from __future__ import annotations

import pytest

from codeintel_rev.indexing.grammars import LANGUAGES, parse, parser
from tests.language_samples import SAMPLES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_grammar_reads_its_language_without_an_error(language: str) -> None:
    assert not parse(language, SAMPLES[language].encode()).has_error


def test_a_parser_is_made_once() -> None:
    assert parser("go") is parser("go")
