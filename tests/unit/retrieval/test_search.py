"""The whole way from a query to its hits, over real shards of the corpus."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codeintel_rev.config.settings import EmbeddingSettings
from codeintel_rev.encoders.dense import DenseEncoder, open_encoder
from codeintel_rev.errors import DeadlineExceeded, EncoderFailed, IndexUnavailable, InvalidArgument, NotFound
from codeintel_rev.io.globs import PathMatcher
from codeintel_rev.retrieval.channels import Question
from codeintel_rev.retrieval.options import AS_SET, late
from codeintel_rev.retrieval.search import Budget, search
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Chunk, Floats, Freshness, Hit, ModelFingerprint, Ranking, Scope, SearchResult, Selection
from tests.indexed import CORPUS, LONG_MS, REPOSITORIES, Place, ask, chunks_of, new_place, plant

GOLDEN = Path(__file__).parents[2] / "golden" / "search.json"
QUERIES = (
    "add_item",
    "Journal.Append",
    "web/money.ts",
    "how is a credit card charged",
    "retry when the bank does not answer",
    "convert an amount into another currency",
    "CardDeclined: insufficient funds",
    "tests of formatPrice",
)
SHOWN = 3  # Vectors differ in the last bits from one processor to another; further down that may show.


def places(result: SearchResult) -> list[str]:
    return [f"{hit.repo}:{hit.path}:{hit.start_line}-{hit.end_line}" for hit in result.hits]


def canonical(result: SearchResult) -> str:
    """Return everything an answer says but how long it took."""
    said = asdict(replace(result, stages=()))
    return json.dumps([said, [(stage.name, stage.status) for stage in result.stages]], default=str)


def test_the_order_of_answers_is_as_reviewed(served: Shards) -> None:
    """A change of ranking is a diff of the golden file, which UPDATE_GOLDEN=1 writes anew."""
    found = {query: places(ask(served, query, limit=SHOWN)) for query in QUERIES}
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize(
    ("query", "path", "symbol"),
    [
        ("add_item", "shop/cart.py", "Cart.add_item"),
        ("how is a credit card charged", "shop/payment.py", ""),
        ("round_half_even", "src/rates.rs", "round_half_even"),
        ("what refuses an entry whose debits and credits differ", "ledger/journal.go", ""),
    ],
)
def test_the_first_hit_is_the_one_meant(served: Shards, query: str, path: str, symbol: str) -> None:
    first = ask(served, query).hits[0]
    assert first.path == path
    assert symbol in first.symbol


@pytest.mark.parametrize("query", QUERIES)
def test_an_answer_accounts_for_itself(served: Shards, query: str) -> None:
    result = ask(served, query)
    assert result.limits == ()
    assert result.generations.keys() == REPOSITORIES.keys()
    assert {stage.status for stage in result.stages} == {"ok"}
    assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    assert len({hit.chunk_id for hit in result.hits}) == len(result.hits)
    for hit in result.hits:
        assert hit.freshness is Freshness.FRESH
        assert hit.contributions.keys() <= set(result.channels)
        assert len(hit.why) >= len(hit.contributions) > 0
        assert all("  " not in reason and ", (" not in reason for reason in hit.why)


def test_a_hit_shows_exactly_the_lines_it_names(served: Shards) -> None:
    for hit in ask(served, "cart").hits:
        lines = (CORPUS / REPOSITORIES[hit.repo] / hit.path).read_text(encoding="utf-8").split("\n")
        assert hit.snippet == "\n".join(lines[hit.start_line - 1 : hit.end_line])


@pytest.mark.parametrize("query", QUERIES)
def test_the_same_query_gives_the_same_bytes_from_any_searcher(
    corpus: Place, served: Shards, minilm: DenseEncoder, query: str
) -> None:
    with corpus.opened(minilm) as other:
        answers = {canonical(ask(shards, query)) for shards in (served, served, other)}
    assert len(answers) == 1


def test_a_hundred_queries_at_once_answer_as_one_by_one(served: Shards) -> None:
    """C19."""
    queries = [f"{query} {word}" for query in QUERIES for word in ("", "cart", "amount")] * 5
    serial = {query: canonical(ask(served, query)) for query in queries}
    with ThreadPoolExecutor(16) as executor:
        concurrent = list(executor.map(lambda query: canonical(ask(served, query)), queries[:100]))
    assert concurrent == [serial[query] for query in queries[:100]]


def test_fewer_hits_are_the_first_of_more(served: Shards) -> None:
    many, few = ask(served, "cart total", limit=50), ask(served, "cart total", limit=3)
    assert few.hits == many.hits[:3]


# Scope


def within(chunk: Chunk | Hit, scope: Scope) -> bool:
    """Say what a scope means, one condition a line."""
    return (
        (not scope.repos or chunk.repo in scope.repos)
        and PathMatcher(scope.paths).matches(chunk.path)
        and (not scope.languages or chunk.language in scope.languages)
        and (not scope.kinds or chunk.kind in scope.kinds)
    )


SCOPES = st.builds(
    Scope,
    repos=st.lists(st.sampled_from(list(REPOSITORIES)), max_size=2).map(tuple),
    paths=st.lists(
        st.sampled_from(["*.py", "web/", "!*.test.ts", "src/**", "!ledger/", "shop/c*", "docs", "nowhere/", "*.rs"]),
        max_size=3,
    ).map(tuple),
    languages=st.lists(st.sampled_from(["python", "typescript", "go", "rust", "cobol"]), max_size=2).map(tuple),
    kinds=st.lists(st.sampled_from(["function", "method", "class", "module"]), max_size=1).map(tuple),
)
EVERY_WORD = "cart item price currency account balance amount money entry journal test checkout voucher rates"


@given(SCOPES)
def test_a_scope_gives_all_that_is_in_it_and_nothing_else(served: Shards, scope: Scope) -> None:
    """Pushed down: vectors rank everything that is in scope, so that nothing of it may be missing either."""
    result = served.search(EVERY_WORD, scope, 200, deadline_ms=60_000)
    expected = {chunk.chunk_id for chunk in chunks_of(served) if within(chunk, scope)}
    assert {hit.chunk_id for hit in result.hits} == expected
    assert result.scope == scope


@given(SCOPES, st.sampled_from(QUERIES))
def test_nothing_outside_the_scope_is_ever_shown(served: Shards, scope: Scope, query: str) -> None:
    assert all(within(hit, scope) for hit in served.search(query, scope, 50, deadline_ms=60_000).hits)


def test_a_scope_finds_what_without_it_is_far_below_the_candidates(tmp_path: Path) -> None:
    """A filter after the fact would find nothing: 30 better hits fill the ten candidates each channel offers."""
    place = new_place(tmp_path)
    for number in range(30):
        place.write("big", f"cart/cart_{number}.py", f'def cart_{number}():\n    """cart cart cart"""\n')
    place.write("big", "far/away.go", "package far\n\n// Much is said here, and once of a cart.\nfunc Away() {}\n")
    place.index("big")
    settings = place.settings.model_copy(
        update={"retrieval": place.settings.retrieval.model_copy(update={"candidates": 10})}
    )
    shards = Shards(place.data_dir, None, settings)
    shards.refresh()
    assert [hit.path for hit in ask(shards, "cart", limit=5, languages=("go",)).hits] == ["far/away.go"]
    shards.close()


def test_a_repository_named_twice_is_asked_once(served: Shards) -> None:
    once = ask(served, "cart", repos=("shop",))
    assert ask(served, "cart", repos=("shop", "shop")).hits == once.hits


@pytest.mark.parametrize("glob", ["[", "!", "a" * 100_000 + "["], ids=["bracket", "bang", "long"])
def test_a_malformed_glob_is_refused_and_does_not_widen_the_scope(served: Shards, glob: str) -> None:
    with pytest.raises(InvalidArgument, match="malformed glob"):
        ask(served, "cart", paths=(glob,))


# What cannot be answered


def test_an_unknown_repository_is_not_found(served: Shards) -> None:
    with pytest.raises(NotFound, match="nobody/knows"):
        ask(served, "cart", repos=("shop", "nobody/knows"))


@pytest.mark.parametrize("query", ["", "   ", "?!", "\x00"])
def test_a_query_without_a_word_is_refused(served: Shards, query: str) -> None:
    with pytest.raises(InvalidArgument):
        ask(served, query)


@pytest.mark.parametrize(
    "query",
    [
        "a" * 8192,
        "cart " * 1638,
        "cart\x00item\x1b",
        "cart \ud800",
        "'; DROP TABLE chunks; --",
        '+path:x^2 AND (cart OR "',
    ],
)
def test_a_hostile_query_is_answered(served: Shards, query: str) -> None:
    """S18: the longest query, control characters, text that is no Unicode, and other languages' syntax."""
    assert ask(served, query).limits == ()


def test_nothing_indexed_is_unavailable(tmp_path: Path) -> None:
    with new_place(tmp_path).opened() as shards, pytest.raises(IndexUnavailable):
        ask(shards, "cart")


def test_no_time_is_told(served: Shards) -> None:
    with pytest.raises(DeadlineExceeded):
        served.search("cart", Scope(), 5, deadline_ms=0)


# Degraded answers


def test_without_an_encoder_words_and_names_answer(corpus: Place) -> None:
    with corpus.opened() as shards:
        result = ask(shards, "add_item")
    assert result.channels == ("lexical", "symbols")
    assert result.limits == ()
    assert result.hits[0].symbol == "Cart.add_item"


def test_vectors_of_another_model_are_never_searched(corpus: Place, models_dir: Path) -> None:
    """F16: same dimension, other fingerprint."""
    other = open_encoder(EmbeddingSettings(max_tokens=64), models_dir)
    with corpus.opened(other) as shards:
        result = ask(shards, "add_item")
        states = {status.state for status in shards.status()}
    assert result.channels == ("lexical", "symbols")
    assert {(limit.code, limit.stage) for limit in result.limits} == {("index-incompatible", "dense")}
    assert all("all-MiniLM-L6-v2" in limit.detail and "Index again" in limit.action for limit in result.limits)
    assert result.hits[0].symbol == "Cart.add_item"
    assert states == {"degraded"}


class Broken:
    """An encoder whose fingerprint is right, or of the dimension given, and that fails whenever it is used."""

    def __init__(self, fingerprint: ModelFingerprint, dim: int = 384) -> None:
        self.fingerprint = replace(fingerprint, dim=dim)

    def encode_queries(self, texts: object) -> Floats:
        raise EncoderFailed("the model gave a vector of zeros.", "")

    encode_documents = encode_queries


def test_vectors_of_another_dimension_are_never_searched(corpus: Place, minilm: DenseEncoder) -> None:
    """F16, C25: the message is the contract's."""
    with corpus.opened(Broken(minilm.fingerprint, dim=1024)) as shards:
        result = ask(shards, "add_item")
    assert {limit.code for limit in result.limits} == {"dimension-mismatch"}
    assert "Dimension mismatch: FAISS=384, encoder=1024" in result.limits[0].detail
    assert result.hits


def test_an_encoder_that_fails_leaves_words_and_names(corpus: Place, minilm: DenseEncoder) -> None:
    with corpus.opened(Broken(minilm.fingerprint)) as shards:
        result = ask(shards, "add_item")
    assert [(limit.code, limit.stage) for limit in result.limits] == [("encoder-failed", "encode")]
    assert result.channels == ("lexical", "symbols")
    assert result.hits


class Stop(Exception):
    """Ends a build in the middle."""


def test_partial_vectors_are_told_and_still_searched(
    tmp_path: Path, corpus: Place, models_dir: Path, minilm: DenseEncoder
) -> None:
    """What the cache has is published with the text at once; the build that would add the rest is cut off."""
    place = plant(new_place(tmp_path, models_dir), "shop")
    place.write("half", "shop/cart.py", (CORPUS / "shop/shop/cart.py").read_text(encoding="utf-8"))
    place.write("half", "new.py", "def brand_new():\n    return 'not encoded yet'\n")

    def told(progress: object) -> None:
        if progress.stage == "encode":  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        place.index("half", told)
    with place.opened(minilm) as shards:
        result = ask(shards, "put an article into the cart", repos=("half",))
        new = ask(shards, "brand_new", repos=("half",))
        _, status = sorted(shards.status(), key=lambda one: one.repo != "shop")
    assert [limit.code for limit in result.limits] == ["vectors-partial"]
    assert "dense" in result.hits[0].contributions
    assert new.hits[0].path == "new.py"
    assert "dense" not in new.hits[0].contributions
    assert (status.repo, status.state) == ("half", "degraded")
    assert status.vector_coverage == status.counts["vectors"] / status.counts["chunks"]
    assert 0 < status.vector_coverage < 1


# The work tree


def test_a_hit_tells_whether_its_lines_still_stand(tmp_path: Path) -> None:
    place = plant(new_place(tmp_path), "shop")
    cart, money = place.tree("shop") / "shop/cart.py", place.tree("shop") / "web/money.ts"
    with place.opened() as shards:

        def freshness(path: str) -> set[Freshness]:
            return {hit.freshness for hit in ask(shards, "cart item price").hits if hit.path == path}

        assert freshness("shop/cart.py") == {Freshness.FRESH}
        cart.write_text("\n" + cart.read_text(encoding="utf-8"), encoding="utf-8")
        money.unlink()
        assert freshness("shop/cart.py") == {Freshness.EDITED}
        assert freshness("web/money.ts") == {Freshness.MISSING}
        assert freshness("shop/discounts.py") == {Freshness.FRESH}
        place.tree("shop").rename(tmp_path / "elsewhere")
        assert freshness("shop/cart.py") == {Freshness.UNKNOWN}


def test_an_edit_behind_a_hit_leaves_it_fresh(tmp_path: Path) -> None:
    """Freshness is of the lines shown, not of the file."""
    place = plant(new_place(tmp_path), "shop")
    cart = place.tree("shop") / "shop/cart.py"
    cart.write_text(cart.read_text(encoding="utf-8") + "\n\nEND = True\n", encoding="utf-8")
    with place.opened() as shards:
        assert ask(shards, "Cart.add_item").hits[0].freshness is Freshness.FRESH


def test_secrets_are_not_found(served: Shards) -> None:
    """S15: every work tree has an .env."""
    assert not any("hunter2" in hit.snippet for hit in ask(served, "PAYMENT_TOKEN hunter2").hits)


class Blocked:
    """A channel that answers when it is let go."""

    name = "symbols"

    def __init__(self) -> None:
        self.let_go = Event()

    def rank(self, _question: Question, _selection: Selection | None) -> Ranking:
        assert self.let_go.wait(30)
        return Ranking(self.name, np.empty(0, np.int64), np.empty(0, np.float32))


def test_a_channel_that_would_use_up_the_deadline_leaves_time_for_the_others(corpus: Place, served: Shards) -> None:
    blocked = Blocked()
    budget = Budget(channels_ms=LONG_MS, total_ms=2_000, candidates=20)
    with ThreadPoolExecutor(4) as executor, served.lease(("shop",)) as (shard,):
        slow = replace(shard, channels=(*shard.channels, blocked))
        result = search(
            "add_item",
            Scope(),
            5,
            shards=[slow],
            encoder=None,
            executor=executor,
            budget=budget,
            options=AS_SET,
            late=late(AS_SET, corpus.settings.xtr),
        )
        blocked.let_go.set()
    assert [limit.code for limit in result.limits] == ["channel-late"]
    assert places(result)[0].startswith("shop:shop/cart.py")
