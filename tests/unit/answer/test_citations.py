"""A citation says no more than its lines do, and knows when they are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codeintel_rev.answer.citations import checked, is_stale, phantoms, rarity, resolve, terms, unseen_names
from codeintel_rev.answer.pack import sha256
from codeintel_rev.errors import InvalidArgument
from codeintel_rev.types import Freshness
from tests.answers import ADD, LINES, hit, packed

(PASSAGE,) = packed(ADD).passages
CLAIM = terms("`Cart.add` raises `CartFull` when there are too many", rarity([PASSAGE]), 1)


def test_evidence_names_the_lines_and_the_terms_on_them() -> None:
    found = checked(CLAIM, PASSAGE, (13, 16))
    assert found.status == "supported"
    assert [(part.line, part.terms) for part in found.evidence if "cartfull" in part.terms] == [
        (13, ("cart", "cartfull", "full", "mani", "rais", "too")),
        (16, ("cart", "cartfull", "full", "rais")),
    ]


def test_a_term_that_few_sources_hold_tells_more() -> None:
    passages = packed(ADD, hit(1, 1, 0.9, path="b.py", text="self items limit")).passages
    rarities = rarity(passages)
    assert rarities["cartfull"] > rarities["limit"] == 1.0


def test_a_claim_without_terms_is_supported_by_nothing() -> None:
    assert checked({}, PASSAGE, None).status == "unsupported"


def test_lines_beyond_the_source_are_clamped_and_weak() -> None:
    assert checked(CLAIM, PASSAGE, (13, 99)).status == "weak"
    assert checked(CLAIM, PASSAGE, (1, 2)).status == "weak"


def test_tainted_lines_are_weak_at_best() -> None:
    tainted = replace(PASSAGE, source=replace(PASSAGE.source, tainted=True))
    assert checked(CLAIM, tainted, None).status == "weak"


BLOCK = LINES[9:17]


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (LINES, ("current", 10, 17)),
        (("# new", *LINES), ("moved", 11, 18)),
        ((*LINES, "", *BLOCK), ("current", 10, 17)),
        (("# new", *LINES, *BLOCK), ("moved", 11, 18)),
        (LINES[:12], ("stale", None, None)),
        ((), ("stale", None, None)),
        (None, ("unknown", None, None)),
    ],
    ids=["same", "moved", "copied behind", "nearest of two", "cut", "gone", "no tree"],
)
def test_cited_lines_are_found_by_their_hash(standing: tuple[str, ...] | None, expected: tuple[object, ...]) -> None:
    found = resolve(PASSAGE.source.content_sha256, 10, 17, standing)
    assert (found.state, found.start_line, found.end_line) == expected


@pytest.mark.parametrize("lines", [(0, 3), (5, 4), (-1, -1)])
def test_a_range_without_a_line_is_refused(lines: tuple[int, int]) -> None:
    with pytest.raises(InvalidArgument):
        resolve("", *lines, LINES)


def test_lines_that_only_look_alike_are_not_the_cited_ones() -> None:
    changed = tuple(line.replace("append", "extend") for line in LINES)
    assert resolve(sha256("\n".join(BLOCK)), 10, 17, changed).state == "stale"


def test_a_citation_is_stale_when_its_own_lines_are_gone() -> None:
    """The source was edited; whether the citation holds is told by the lines it names."""
    edited = replace(PASSAGE, freshness=Freshness.EDITED)
    changed = tuple(line.replace("append", "extend") for line in LINES)
    assert is_stale(edited, None, changed)
    assert not is_stale(edited, (10, 13), changed)
    assert not is_stale(edited, None, None)
    assert not is_stale(PASSAGE, None, ())


def test_names_that_nothing_holds_are_phantoms() -> None:
    text = "`Cart.add` calls `CartStore.flush()` and `reprice_all` [1], see\n```\nx = NotSaid()\n```"
    names = unseen_names(text, [PASSAGE])
    assert names == ("CartStore.flush", "reprice_all")
    assert phantoms(names, {"flush"}) == ("reprice_all",)
