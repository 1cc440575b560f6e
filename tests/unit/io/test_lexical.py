"""Does the lexical index rank as BM25 does, find names, keep to a selection and take any query?"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeintel_rev.io.code_tokens import query_weights, tokenize
from codeintel_rev.io.lexical import BOOSTS, MAX_PUSHED_IDS, LexicalIndex, LexicalWriter
from codeintel_rev.types import Chunk, Definition, Ranking, Role, Selection

WORDS = "parse request header cookie session retry token index merge build commit the of".split()


def chunk(chunk_id: int, text: str, path: str = "zz.py", symbol: str = "") -> Chunk:
    return Chunk(chunk_id, "repo", path, "python", Role.CODE, 1, 1, "function", symbol, "", text)


def definition(qualified_name: str) -> Definition:
    name = qualified_name.rsplit(".", 1)[-1].rsplit("::", 1)[-1]
    return Definition("a.py", "python", name, qualified_name, "function", 1, 1, "", "")


def index_of(directory: Path, chunks: Sequence[Chunk], defined: dict[int, list[str]] | None = None) -> LexicalIndex:
    with LexicalWriter(directory) as writer:
        for each in chunks:
            writer.add(each, [definition(name) for name in (defined or {}).get(each.chunk_id, [])])
        writer.commit()
    return LexicalIndex.open(directory)


def random_chunks(count: int, seed: int = 7) -> list[Chunk]:
    """Chunks of few distinct texts, so that many scores tie; ids in no order."""
    rng = random.Random(seed)
    ids = rng.sample(range(1, 1 << 62), count)
    return [chunk(each, " ".join(rng.choices(WORDS, k=rng.randint(1, 6))), f"p{each % 5}.py") for each in ids]


def allowing(ids: Iterable[int]) -> Selection:
    return Selection(np.array(sorted(ids), dtype=np.int64), ())


def pairs(ranking: Ranking) -> list[tuple[int, float]]:
    return list(zip(ranking.chunk_ids.tolist(), ranking.scores.tolist(), strict=True))


@dataclass(frozen=True)
class Large:
    index: LexicalIndex
    ids: list[int] = field(repr=False)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    """An index in which a selection of half the chunks is too many ids to push down."""
    chunks = random_chunks(2 * MAX_PUSHED_IDS + 1000)
    return Large(index_of(tmp_path_factory.mktemp("large"), chunks), sorted(each.chunk_id for each in chunks))


def bm25(fields: dict[str, dict[int, list[str]]], query: str) -> dict[int, float]:
    """The formula over the tokens of every field, straight from its definition (k1 = 1.2, b = 0.75)."""
    total: dict[int, float] = {}
    for name, tokens_of in fields.items():
        average = sum(map(len, tokens_of.values())) / len(tokens_of)
        for term, weight in query_weights(query).items():
            containing = sum(term in tokens for tokens in tokens_of.values())
            idf = math.log(1 + (len(tokens_of) - containing + 0.5) / (containing + 0.5))
            for chunk_id, tokens in tokens_of.items():
                if count := tokens.count(term):
                    length = 1.2 * (0.25 + 0.75 * len(tokens) / average)
                    score = BOOSTS[name] * weight * idf * count * 2.2 / (count + length)
                    total[chunk_id] = total.get(chunk_id, 0) + score
    return total


def test_scores_are_bm25_over_body_path_and_defined_names(tmp_path: Path) -> None:
    chunks = [chunk(i, each.text, each.path) for i, each in enumerate(random_chunks(40))]
    defined = {each.chunk_id: each.text.split()[:1] for each in chunks}
    fields = {
        "body": {each.chunk_id: tokenize(f"{each.path} {each.text}") for each in chunks},
        "path": {each.chunk_id: tokenize(each.path) for each in chunks},
        "defines": {each.chunk_id: tokenize(defined[each.chunk_id][0]) for each in chunks},
    }

    ranking = index_of(tmp_path, chunks, defined).search("parsing the p1 session", 40)

    assert dict(pairs(ranking)) == pytest.approx(bm25(fields, "parsing the p1 session"), rel=1e-4)


def test_a_question_finds_the_identifier_it_describes(tmp_path: Path) -> None:
    """C28."""
    index = index_of(
        tmp_path, [chunk(1, "def parseHTTPHeaders(): ..."), chunk(2, "def parse(): ..."), chunk(3, "x = 1")]
    )

    assert index.search("parsing http headers", 10).chunk_ids.tolist() == [1, 2]


def test_words_of_the_title_count_twice(tmp_path: Path) -> None:
    index = index_of(tmp_path, [chunk(1, "voucher lost"), chunk(2, "login lost")])

    assert index.search("voucher login", 10, title="login").chunk_ids.tolist() == [2, 1]
    assert index.search("voucher login", 10, title="voucher").chunk_ids.tolist() == [1, 2]


def test_equal_scores_are_ordered_by_id_and_cut_there(large: Large) -> None:
    """Law: same generation, same query, same bytes, whatever the depth."""
    index, ids = large.index, large.ids
    whole = index.search("merge", len(ids))

    assert pairs(whole) == sorted(pairs(whole), key=lambda pair: (-pair[1], pair[0]))
    assert all(pairs(index.search("merge", k)) == pairs(whole)[:k] for k in (1, 2, 17, 100, 1000))


def test_the_same_chunks_built_twice_give_the_same_ranking(tmp_path: Path) -> None:
    chunks = random_chunks(500)
    first, second = (index_of(tmp_path / name, chunks) for name in ("first", "second"))

    rankings = [index.search("parse the session token", 200) for index in (first, second)]

    assert rankings[0].chunk_ids.tobytes() == rankings[1].chunk_ids.tobytes()
    assert rankings[0].scores.tobytes() == rankings[1].scores.tobytes()


@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    step=st.sampled_from([1, 2, 3, 7, 100, 5000]),
    k=st.integers(1, 300),
)
def test_a_selection_gives_what_filtering_everything_would(large: Large, words: list[str], step: int, k: int) -> None:
    """S10: both for few allowed ids, which are pushed down, and for many."""
    index, ids = large.index, large.ids
    allowed = set(ids[::step])
    everything = index.search(" ".join(words), len(ids))
    expected = [pair for pair in pairs(everything) if pair[0] in allowed][:k]

    found = pairs(index.search(" ".join(words), k, selection=allowing(allowed)))

    assert [pair[0] for pair in found] == [pair[0] for pair in expected]
    assert [pair[1] for pair in found] == pytest.approx([pair[1] for pair in expected])


def test_an_empty_selection_finds_nothing(large: Large) -> None:
    assert len(large.index.search("parse", 10, selection=allowing([]))) == 0


def test_names_are_found_from_the_whole_to_the_part(tmp_path: Path) -> None:
    names = {1: ["send"], 2: ["Client.send"], 3: ["http.Client.send"], 4: ["Client.send_all"], 5: ["receive"]}
    index = index_of(tmp_path, [chunk(each, "x") for each in names], names)

    assert index.symbols(["Client.send"], 10).chunk_ids.tolist() == [2, 3, 4, 1]


@pytest.mark.parametrize("asked", ["Client::send()", "client#Send", "CLIENT.SEND", " Client->send"])
def test_a_name_is_found_however_it_is_spelled(tmp_path: Path, asked: str) -> None:
    index = index_of(tmp_path, [chunk(1, "x"), chunk(2, "x")], {1: ["Client.send"], 2: ["other"]})

    assert pairs(index.symbols([asked], 10)) == [(1, 5.0)]


def test_a_nearer_beginning_ranks_higher(tmp_path: Path) -> None:
    index = index_of(tmp_path, [chunk(1, "x"), chunk(2, "x")], {1: ["parse_request_header"], 2: ["parse_request"]})

    assert index.symbols(["parse_req"], 10).chunk_ids.tolist() == [2, 1]


def test_a_chunk_that_defines_two_of_the_names_leads(tmp_path: Path) -> None:
    index = index_of(tmp_path, [chunk(1, "x"), chunk(2, "x")], {1: ["load"], 2: ["load", "save"]})

    assert pairs(index.symbols(["load", "save"], 10)) == [(2, 10.0), (1, 5.0)]


def test_symbols_keep_to_the_selection(tmp_path: Path) -> None:
    index = index_of(tmp_path, [chunk(1, "x"), chunk(2, "x")], {1: ["load"], 2: ["load"]})

    assert index.symbols(["load"], 10, selection=allowing([2])).chunk_ids.tolist() == [2]


def test_of_a_long_query_the_rarest_words_count(tmp_path: Path) -> None:
    """F38: a query is never refused for its length; unknown words take no place of known ones."""
    common = [f"common{i}x" for i in range(400)]
    chunks = [chunk(1, " ".join(common)), chunk(2, " ".join(common)), chunk(3, "needle")]
    unknown = [f"unknown{i}y" for i in range(9_000)]

    ranking = index_of(tmp_path, chunks).search(" ".join([*common, *unknown, "needle"]), 10)

    assert sorted(ranking.chunk_ids.tolist()) == [1, 2, 3]


@pytest.mark.parametrize(
    "query",
    ["", " ", "a AND", "foo(bar", "x:y", '"unclosed', "*", "body:*", "+-!^~[]{}", "\x00\x01", "\ud800", "[a TO z]",
     "x" * 1_000_000, "(a+)+$ " * 1000, "\u202eparse", "’parse’"],
)  # fmt: skip
def test_any_query_is_only_words(tmp_path: Path, query: str) -> None:
    """F38, F41."""
    index = index_of(tmp_path, [chunk(1, "parse")], {1: ["parse"]})

    assert len(index.search(query, 10)) == ("parse" in query)
    assert len(index.symbols([query], 10)) <= 1


def test_an_absurd_depth_returns_what_there_is(tmp_path: Path) -> None:
    """F38: k = 10⁹ allocates nothing of that size."""
    assert len(index_of(tmp_path, [chunk(1, "parse")]).search("parse", 10**9)) == 1


def test_an_index_without_chunks_answers_nothing(tmp_path: Path) -> None:
    index = index_of(tmp_path, [])

    assert [len(index.search("parse", 10)), len(index.symbols(["parse"], 10)), len(index.chunk_ids())] == [0, 0, 0]


def test_additions_and_deletions_reach_the_next_reader_only(tmp_path: Path) -> None:
    before = index_of(tmp_path, [chunk(1, "parse"), chunk(2, "parse")])

    with LexicalWriter(tmp_path) as writer:
        writer.delete(np.array([1, 99], dtype=np.int64))
        writer.add(chunk(3, "parse"), [])
        writer.commit()

    assert before.chunk_ids().tolist() == [1, 2]
    assert LexicalIndex.open(tmp_path).search("parse", 10).chunk_ids.tolist() in ([2, 3], [3, 2])


def test_a_chunk_deleted_and_added_again_is_there_once(tmp_path: Path) -> None:
    index_of(tmp_path, [chunk(1, "old")])

    with LexicalWriter(tmp_path) as writer:
        writer.delete(np.array([1], dtype=np.int64))
        writer.add(chunk(1, "new"), [])
        writer.commit()

    index = LexicalIndex.open(tmp_path)
    assert [index.search(word, 10).chunk_ids.tolist() for word in ("old", "new")] == [[], [1]]


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    index_of(tmp_path, [chunk(1, "x")])

    with LexicalWriter(tmp_path) as writer:
        writer.add(chunk(2, "x"), [])

    assert LexicalIndex.open(tmp_path).chunk_ids().tolist() == [1]


def test_threads_asking_at_once_get_what_one_gets(large: Large) -> None:
    index = large.index
    queries = [f"{first} {second}" for first in WORDS for second in WORDS]
    alone = [pairs(index.search(query, 20)) for query in queries]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: pairs(index.search(query, 20)), queries))

    assert together == alone
