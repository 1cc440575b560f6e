"""Questions made of definitions: which, how many, and what is right."""

from __future__ import annotations

from dataclasses import replace

from codeintel_rev.eval.metrics import Place
from codeintel_rev.eval.queries import Query
from codeintel_rev.eval.synth import first_sentence, questions, without_name
from codeintel_rev.types import Definition

CHARGE = Definition(
    "shop/pay.py",
    "python",
    "charge_card",
    "charge_card",
    "function",
    3,
    9,
    "",
    "Takes the card's money (once). Twice not.",
)
CART = Definition("shop/cart.py", "python", "Cart", "Cart", "class", 1, 30, "", "")
ADD = Definition("shop/cart.py", "python", "add", "Cart.add", "method", 5, 8, "", "")


def by_form(found: list[Query]) -> dict[str, str]:
    return {one.classes["form"]: one.text for one in found}


def test_a_definition_is_asked_for_with_its_name_and_without() -> None:
    assert by_form(questions("shop", [CHARGE], 9)) == {
        "name": "charge_card",
        "named": "charge_card Takes the card's money (once).",
    }
    longer = replace(CHARGE, doc="Takes money from a charged account, exactly once. Twice not.")
    assert by_form(questions("shop", [longer], 9))["unnamed"] == "Takes money from a account, exactly once."


def test_a_name_of_two_definitions_asks_for_neither() -> None:
    other = replace(ADD, path="shop/list.py", qualified_name="List.add")
    assert questions("shop", [ADD, other], 9) == []


def test_a_comment_of_two_definitions_asks_for_neither() -> None:
    twin = replace(
        CHARGE, name="bill", qualified_name="bill", path="shop/bill.py", doc="Sees base class for what it does."
    )
    made = questions("shop", [replace(CHARGE, doc=twin.doc), twin], 9)
    assert "unnamed" not in by_form(made)
    assert len(made) == 4


def test_lines_of_a_method_are_not_its_class() -> None:
    right = {one.text: one.judged for one in questions("shop", [CART, ADD], 9)}
    assert right == {"Cart": (Place("shop/cart.py", 1, 4),), "add": (Place("shop/cart.py", 5, 8),)}


def test_every_overload_is_right() -> None:
    overload = replace(CHARGE, start_line=11, end_line=12)
    judged = questions("shop", [CHARGE, overload], 9)[0].judged
    assert judged == (Place("shop/pay.py", 3, 9), Place("shop/pay.py", 11, 12))


def test_ids_do_not_depend_on_lines_or_order() -> None:
    """A baseline from before an edit is compared question by question."""
    moved = [replace(one, start_line=one.start_line + 40, end_line=one.end_line + 40) for one in (ADD, CART, CHARGE)]
    before, after = (questions("shop", those, 9) for those in ([CHARGE, CART, ADD], moved))
    assert [one.qid for one in before] == [one.qid for one in after]


def test_a_sample_has_every_kind_and_folder_there_is() -> None:
    many = [replace(CHARGE, name=f"n{i}", qualified_name=f"n{i}", path=f"a/{i}.py", doc="") for i in range(40)]
    few = [replace(CART, name=f"C{i}", qualified_name=f"C{i}", path=f"b/{i}.go", language="go") for i in range(2)]
    far = replace(many[0], name="far", qualified_name="far", path="c/far.py")
    chosen = questions("shop", [*many, *few, far], 6)
    assert sum(one.classes["language"] == "go" for one in chosen) == 2
    assert "far" in {one.text for one in chosen}


def test_a_sentence_ends_where_it_does() -> None:
    assert first_sentence("Sends it (e.g. twice). Then waits.") == "Sends it (e.g. twice)."
    assert first_sentence("Sends it\n:param x: how") == "Sends it"
    assert first_sentence("word " * 60) == " ".join(["word"] * 32)


def test_no_word_of_the_name_is_left() -> None:
    assert without_name("Parses a request's headers quickly", "parse_request_header") == "a quickly"
