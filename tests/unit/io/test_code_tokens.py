"""What words does the analysis see?"""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.io import code_tokens
from codeintel_rev.io.code_tokens import COMMON_WEIGHT, matched_terms, query_weights, tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  \n\t;{}", []),
        ("JSONString2Map", ["jsonstring2map", "json", "string", "2", "map"]),
        ("parse_request", ["parse_request", "pars", "request"]),
        ("__init__", ["init"]),
        ("_", ["_"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("fetchURLs", ["fetchurls", "fetch", "url"]),
        ("utf8", ["utf8", "utf", "8"]),
        ("a.b::c->d", ["a", "b", "c", "d"]),
        ("src/http_client.py", ["src", "http_client", "http", "client", "py"]),
        ("The quick tests", ["the", "quick", "test"]),
        ("ÄöÜber Größe", ["äöüber", "äö", "über", "grösse"]),
        ("cafe\u0301", ["café"]),
        ("日本語", ["日", "本", "語", "日本", "本語"]),
        ("get日本", ["get", "日", "本", "日本"]),
        ("\ud800x\x00y", ["x", "y"]),
    ],
)
def test_text_is_split_into_whole_names_and_their_parts(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    "forms",
    [
        ("cache", "caches", "cached", "caching"),
        ("parse", "parses", "parsed", "parsing"),
        ("query", "queries"),
        ("class", "classes"),
        ("stop", "stops", "stopped", "stopping"),
        ("validate", "validating", "validation", "validator"),
        ("match", "matches", "matching"),
    ],
)
def test_the_forms_of_a_word_share_a_stem(forms: tuple[str, ...]) -> None:
    assert len({*map(tuple, map(tokenize, forms))}) == 1


def test_common_words_weigh_less_and_do_not_vanish() -> None:
    weights = query_weights("how does the python parser parse the header")

    assert weights["the"] == weights["how"] == weights["python"] == COMMON_WEIGHT
    assert weights["pars"] == weights["header"] == 1.0


@pytest.mark.parametrize(
    ("query", "text", "terms"),
    [
        ("where is the retry policy parsed", "def parse_policy(the): is", ("policy", "parsed")),
        ("HTTPClient", "class HTTPClient:", ("httpclient",)),
        ("HTTPClient", "client = 1", ("client",)),
        ("Policy policies", "policy", ("policy", "policies")),
        ("nothing", "else", ()),
        ("", "text", ()),
    ],
)
def test_matched_terms_are_the_telling_words_shared_as_the_query_wrote_them(
    query: str, text: str, terms: tuple[str, ...]
) -> None:
    assert matched_terms(query, text) == terms


@given(st.text(max_size=200))
def test_any_text_with_a_word_character_gives_tokens_without_white_space(text: str) -> None:
    """F41: lone surrogates, controls and unassigned characters included."""
    tokens = tokenize(text)

    # Characters newer than this Python's tables are no word to it, but Chinese all the same.
    assert bool(tokens) == bool(re.search(rf"[\w{code_tokens._CJK}]", unicodedata.normalize("NFKC", text)))
    assert not any(re.search(r"\s", token) or not token for token in tokens)


def test_a_megabyte_without_a_space_becomes_bounded_tokens() -> None:
    """F38, F41."""
    assert max(map(len, tokenize("aB3" * 350_000))) <= 128
