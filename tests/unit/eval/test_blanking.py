"""What goes from a copy of a repository, and what stays."""

from __future__ import annotations

import ast

import pytest

from codeintel_rev.eval.blanking import blanked, without
from codeintel_rev.eval.synth import questions
from codeintel_rev.types import Chunk, Definition, Role

PYTHON = '''def charge(card):
    """Takes the money
    from a card, once. Twice is refused."""
    return card
'''
SENTENCE = "Takes the money from a card, once."


def chunk(text: str, start: int = 1) -> Chunk:
    end = start + text.count("\n")
    return Chunk(start, "shop", "pay.py", "python", Role.CODE, start, end, "function", "", "", text)


def definition(name: str, doc: str) -> Definition:
    return Definition("pay.py", "python", name, name, "function", 1, 4, "", doc)


@pytest.mark.parametrize(
    "text",
    [
        PYTHON,
        "// Takes the money\n// from a card, once.\nfunc f() {}",
        "/* Takes the money\n * from a card,   once. */",
    ],
)
def test_a_sentence_goes_however_its_lines_are_broken(text: str) -> None:
    left, gone = without(text, {SENTENCE})
    assert gone == {SENTENCE}
    assert "money" not in left
    assert [line[:2] for line in left.split("\n")] == [line[:2] for line in text.split("\n")]


def test_what_is_left_still_parses() -> None:
    left, _ = without(PYTHON, {SENTENCE})
    assert "Twice is refused" in (ast.get_docstring(ast.parse(left).body[0]) or "")  # type: ignore[arg-type]


def test_words_inside_other_words_stay() -> None:
    text = "overTakes the money from a cardboard"
    assert without(text, {"Takes the money from a card"}) == (text, set())


def test_a_sentence_that_stays_makes_no_question() -> None:
    """Few words may be code, and one that is not found as it is would be there to be found."""
    hidden = definition("refund", "Gives all of it back, always.")
    copy = blanked([chunk(PYTHON.rstrip("\n"))], [definition("charge", SENTENCE), hidden])
    forms = {(one.text.split()[0], one.classes["form"]) for one in questions("", copy.definitions, 9)}
    assert forms == {("charge", "name"), ("charge", "named"), ("Takes", "unnamed"), ("refund", "name")}


def test_lines_keep_their_numbers() -> None:
    copy = blanked([chunk("def a():\n    pass", 1), chunk("def b():\n    pass", 5)], [])
    assert copy.texts == {"pay.py": "def a():\n    pass\n\n\ndef b():\n    pass\n"}
