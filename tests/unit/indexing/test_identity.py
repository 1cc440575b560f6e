from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.indexing.identity import mint, mint_all

ANY_TEXT = st.text(st.characters())


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, st.integers(0, 1000))
def test_an_id_is_a_positive_63_bit_integer(repo: str, path: str, text: str, ordinal: int) -> None:
    assert 0 < mint(repo, path, text, ordinal) < 2**63


def test_an_id_is_the_same_on_every_machine_and_day() -> None:
    assert mint("flask", "src/app.py", "x = 1", 0) == 6747909467174857424


def test_fields_do_not_run_into_each_other() -> None:
    ids = {mint("ab", "c", "d", 0), mint("a", "bc", "d", 0), mint("a", "b", "cd", 0), mint("abcd", "", "", 0)}

    assert len(ids) == 4


@given(st.lists(st.sampled_from(["x = 1", "pass", "return"]), max_size=20))
def test_equal_texts_of_one_file_get_different_ids(texts: list[str]) -> None:
    ids = mint_all("r", "a.py", texts)

    assert len(set(ids)) == len(texts)


def test_the_first_of_equal_texts_keeps_its_id_when_another_is_added_below() -> None:
    assert mint_all("r", "a.py", ["pass"])[0] == mint_all("r", "a.py", ["pass", "pass"])[0]
