"""What is known of the files that were found comes from the generation that was searched, or not at all."""

from __future__ import annotations

from codeintel_rev.answer.library import OpenedLibrary
from codeintel_rev.retrieval.shards import Shards
from tests.indexed import CORPUS, ask

CART = ("shop", "shop/cart.py")


def test_a_file_is_known_as_it_was_indexed(served: Shards) -> None:
    library = OpenedLibrary(served)
    facts = library.facts([CART], ask(served, "cart").generations)[CART]
    assert "\n".join(facts.lines) == (CORPUS / "shop/shop/cart.py").read_text().rstrip("\n")
    assert {definition.path for definition in facts.definitions} == {"shop/cart.py"}
    assert library.standing(*CART) == facts.lines


def test_nothing_is_known_of_another_generation_or_repository(served: Shards) -> None:
    library = OpenedLibrary(served)
    assert library.facts([CART, ("gone", "a.py")], {"shop": "another", "gone": "another"}) == {}
    assert library.standing("gone", "a.py") is None


def test_names_are_known_in_the_repositories_asked(served: Shards) -> None:
    library = OpenedLibrary(served)
    (name, *_) = (d.name for d in library.facts([CART], ask(served, "cart").generations)[CART].definitions)
    assert library.known_names(["shop"], [name, "no_such_name"]) == {name}
    assert library.known_names(["org/ledger"], ["no_such_name"]) == set()
