"""A second work tree of a repository costs its difference: it goes on from what is published of the first."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from fakes import FakeTokens

from codeintel_rev.config.settings import SpladeSettings, XTRSettings
from codeintel_rev.encoders.dense import DenseEncoder
from codeintel_rev.indexing import token_stage
from codeintel_rev.indexing.build import BuildSummary, build
from codeintel_rev.io.duckdb_catalog import Catalog
from codeintel_rev.io.generations import GenerationStore
from codeintel_rev.types import BuildProgress, Chunk, Freshness
from tests.indexed import Place, ask, chunks_of, new_place
from tests.projects import ids_by_store
from tests.tiny_models import save_splade

FOREIGN = "def refund_card(card):\n    return card.credit()\n"


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, check=True)


@pytest.fixture
def place(tmp_path: Path, models_dir: Path) -> Place:
    """`shop`, indexed from a commit, and a second work tree of it, `second`, that is not indexed yet."""
    place = new_place(tmp_path, models_dir)
    place.write("shop", ".gitignore", ".env\n")
    plant_tree(place)
    git(place.tree("shop"), "init", "-q")
    git(place.tree("shop"), "add", "-A")
    git(place.tree("shop"), "commit", "-qm", "first")
    place.index("shop")
    git(place.tree("shop"), "worktree", "add", "-qb", "second", str(place.tree("second")))
    return place


def plant_tree(place: Place) -> None:
    for path, text in {
        "cart.py": "def add_item(cart, item):\n    cart.append(item)\n",
        "pay.py": "def charge_card(card, amount):\n    return card.debit(amount)\n",
        "README.md": "# Shop\n\nSells things to people.\n",
    }.items():
        place.write("shop", path, text)


def built(place: Place, repo: str, parsed: list[int]) -> BuildSummary:
    """Build and note how many files each step of parsing had to do."""

    def told(progress: BuildProgress) -> None:
        if progress.stage == "parse":
            parsed.append(progress.total)

    return build(repo, place.tree(repo), place.settings, on_progress=told)


def chunks(place: Place, repo: str) -> list[Chunk]:
    with closing(Catalog.open(place.current(repo))) as catalog:
        return list(catalog.chunks())


def inode(place: Place, repo: str, path: str) -> int:
    return (place.current(repo) / path).stat().st_ino


def test_an_equal_work_tree_shares_everything_but_the_catalogue(place: Place) -> None:
    parsed: list[int] = []
    summary = built(place, "second", parsed)
    shared = ["vectors.npy", "faiss/primary.faiss"]
    shared += [f"lexical/{file.name}" for file in (place.current("shop") / "lexical").iterdir()]
    assert (summary.encoded, summary.stage, parsed) == (0, "complete", [])
    assert [path for path in shared if inode(place, "shop", path) != inode(place, "second", path)] == []
    assert {chunk.repo for chunk in chunks(place, "second")} == {"second"}
    assert GenerationStore(place.directory("second")).verify(summary.generation) == []


def test_only_what_differs_is_parsed_and_encoded(place: Place) -> None:
    place.write("second", "pay.py", FOREIGN)
    (place.tree("second") / "cart.py").unlink()
    parsed: list[int] = []
    assert built(place, "second", parsed).encoded == 1
    assert set(parsed) == {1}


def test_what_went_on_from_kin_holds_what_its_tree_holds(place: Place, tmp_path: Path, models_dir: Path) -> None:
    """Ids are minted in the name of the family, so a build from nothing under that name gives the same."""
    place.write("second", "pay.py", FOREIGN)
    (place.tree("second") / "cart.py").unlink()
    place.index("second")
    (tmp_path / "fresh").mkdir()
    fresh = new_place(tmp_path / "fresh", models_dir)
    fresh.tree("shop").symlink_to(place.tree("second"))
    fresh.index("shop")
    assert ids_by_store(place.current("second")) == ids_by_store(fresh.current("shop"))
    assert [(one.path, one.text) for one in chunks(place, "second")] == [
        (one.path, one.text) for one in chunks(fresh, "shop")
    ]


def test_later_builds_stay_in_the_family(place: Place) -> None:
    """Also one that goes on from nothing, and one that lost its kin."""
    place.index("second")
    ids = {chunk.chunk_id for chunk in chunks(place, "second")}
    place.write("second", "pay.py", FOREIGN)
    place.index("second")
    place.write("second", "pay.py", (place.tree("shop") / "pay.py").read_text())
    changed = place.settings.model_copy(
        update={"chunking": place.settings.chunking.model_copy(update={"max_tokens": 99})}
    )
    build("second", place.tree("second"), changed, on_progress=lambda _: None)
    assert {chunk.chunk_id for chunk in chunks(place, "second")} == ids
    assert {chunk.repo for chunk in chunks(place, "second")} == {"second"}


def test_what_work_trees_share_is_found_once_and_each_difference_where_it_is(
    place: Place, minilm: DenseEncoder
) -> None:
    place.write("second", "pay.py", FOREIGN)
    place.index("second")
    with place.opened(minilm) as shards:
        both = ask(shards, "add an item to the cart")
        alone = ask(shards, "add an item to the cart", repos=("second",))
        foreign = ask(shards, "refund a card")
        served = chunks_of(shards, "second")
    places = [(hit.repo, hit.path) for hit in both.hits]
    assert places.count(("shop", "cart.py")) == 1
    assert ("second", "cart.py") not in places
    assert {("shop", "pay.py"), ("second", "pay.py")} <= set(places)
    assert {hit.repo for hit in alone.hits} == {"second"}
    assert {hit.chunk_id for hit in alone.hits} == {chunk.chunk_id for chunk in served}
    assert {hit.freshness for hit in alone.hits} == {Freshness.FRESH}
    assert (foreign.hits[0].repo, foreign.hits[0].path) == ("second", "pay.py")


def test_what_is_damaged_of_kin_is_not_gone_on_from(place: Place) -> None:
    """An older generation of it is, where that one is good."""
    vectors = place.current("shop") / "vectors.npy"
    vectors.chmod(0o600)
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x7f")
    summary = built(place, "second", [])
    assert (summary.stage, summary.encoded) == ("complete", 0)
    assert inode(place, "shop", "vectors.npy") != inode(place, "second", "vectors.npy")
    assert GenerationStore(place.directory("second")).verify(summary.generation) == []


def test_kin_of_which_nothing_is_good_is_left_alone(place: Place) -> None:
    for catalog in place.directory("shop").glob("generations/*/catalog.duckdb"):
        catalog.unlink()
    parsed: list[int] = []
    assert built(place, "second", parsed).stage == "complete"
    assert set(parsed) == {4}


def test_another_repository_is_no_kin(place: Place) -> None:
    for path in ("cart.py", "pay.py"):
        place.write("other", path, (place.tree("shop") / path).read_text())
    git(place.tree("other"), "init", "-q")
    parsed: list[int] = []
    built(place, "other", parsed)
    assert set(parsed) == {2}
    assert not {chunk.chunk_id for chunk in chunks(place, "other")} & {
        chunk.chunk_id for chunk in chunks(place, "shop")
    }


def test_what_kin_collects_stays_with_who_went_on_from_it(place: Place) -> None:
    place.index("second")
    place.write("shop", "pay.py", FOREIGN)
    for number in range(4):
        place.write("shop", "new.py", f"number = {number}\n")
        place.index("shop")
    store = GenerationStore(place.directory("second"))
    assert store.verify(store.published_id()) == []


@pytest.mark.parametrize("differs", [False, True])
def test_tokens_are_shared_too(place: Place, monkeypatch: pytest.MonkeyPatch, differs: bool) -> None:
    encoder = FakeTokens()
    monkeypatch.setattr(token_stage, "open_token_encoder", lambda *_: encoder)
    settings = place.settings.model_copy(update={"xtr": XTRSettings(enable=True)})
    build("shop", place.tree("shop"), settings, on_progress=lambda _: None)
    encoder.read.clear()
    if differs:
        place.write("second", "pay.py", FOREIGN)
    summary = build("second", place.tree("second"), settings, on_progress=lambda _: None)
    assert summary.tokens_encoded == len(encoder.read) == int(differs)
    assert summary.counts["tokens"] == summary.counts["chunks"] == 4


@pytest.mark.parametrize("differs", [False, True])
def test_impacts_are_shared_too(place: Place, tmp_path: Path, differs: bool) -> None:
    splade = SpladeSettings(model=str(save_splade(tmp_path / "splade")), max_tokens=32)
    settings = place.settings.model_copy(update={"splade": splade})
    build("shop", place.tree("shop"), settings, on_progress=lambda _: None)
    if differs:
        place.write("second", "pay.py", FOREIGN)
    summary = build("second", place.tree("second"), settings, on_progress=lambda _: None)
    assert summary.impacts_encoded == int(differs)
    assert summary.counts["splade"] == summary.counts["chunks"] == 4
