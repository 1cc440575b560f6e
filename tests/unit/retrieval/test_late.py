"""Late interaction in the way of a query, over real shards with tokens that can be worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from codeintel_rev.encoders import token_encoder
from codeintel_rev.errors import ChannelFailed, EncoderFailed
from codeintel_rev.io.token_index import TokenBuild, token_directory, write_build
from codeintel_rev.mcp_server.envelope import envelope
from codeintel_rev.retrieval.channels import Question, Wide
from codeintel_rev.retrieval.late import QueryTokens
from codeintel_rev.retrieval.options import AS_SET, Options
from codeintel_rev.retrieval.plan import make_plan
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import Scope, SearchResult
from tests.indexed import LONG_MS, Place
from tests.token_indexed import (
    DEEDS,
    REPO,
    WordTokens,
    add_tokens,
    bank,
    opened,
    plain_maxsim,
    republish,
    sections,
    with_tokens,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "late_interaction.json"
QUERIES = ("take money from a card", "card payment of a customer", "give up when the ledger does not agree")
EVERYWHERE = Scope()
ALONE = Options(mode="wide", channels=("xtr",))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """To be read only."""
    return bank(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def shards(place: Place) -> Iterator[Shards]:
    with opened(place, with_tokens(place), WordTokens()) as shards:
        yield shards


def ask(
    shards: Shards, query: str, options: Options = AS_SET, limit: int = 20, scope: Scope = EVERYWHERE, **more: range
) -> SearchResult:
    return shards.search(query, scope, limit, deadline_ms=LONG_MS, options=options, **more)


def paths(result: SearchResult) -> list[str]:
    return [hit.path for hit in result.hits]


def by_rank(result: SearchResult, channel: str) -> list[str]:
    """Return the paths in the order in which one channel ranked them."""
    ranked = [hit for hit in result.hits if channel in hit.contributions]
    return [hit.path for hit in sorted(ranked, key=lambda hit: hit.contributions[channel].rank or 0)]


def by_fused_score(result: SearchResult) -> list[str]:
    """Return the paths in the order before the code-aware ranking: a score is the sum of its parts."""
    scores = {hit.path: sum(part.contribution for part in hit.contributions.values()) for hit in result.hits}
    return sorted(scores, key=lambda path: -round(scores[path], 6))


# Order


def test_the_orders_of_late_interaction_are_as_reviewed(shards: Shards) -> None:
    """A47: 20 chunks, 3 queries; by tokens alone, blended with the other channels by rank, and as hits.

    UPDATE_GOLDEN=1 writes it anew.
    """
    found = {
        query: {
            "xtr": by_rank(ask(shards, query, ALONE), "xtr"),
            "rrf": by_fused_score(ask(shards, query)),
            "hits": paths(ask(shards, query)),
        }
        for query in QUERIES
    }
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("query", QUERIES)
def test_tokens_alone_rank_by_the_plain_sum_of_maxima(place: Place, shards: Shards, query: str) -> None:
    """A11, A27."""
    exact = plain_maxsim(place, query)
    found = {hit.path: hit.contributions["xtr"].score for hit in ask(shards, query, ALONE).hits}
    assert found.keys() == exact.keys() == set(DEEDS)
    assert all(abs(found[path] - exact[path]) < 0.02 for path in exact)


def test_rescoring_changes_the_order_and_says_so(place: Place, shards: Shards) -> None:
    """A14, A20, A21."""
    query = QUERIES[0]
    plain, told = ask(shards, query, Options(mode="off")), ask(shards, query)
    assert paths(plain) != paths(told)
    assert sorted(paths(plain)) == sorted(paths(told))
    assert told.notes == (f"xtr_rescore:{len(told.hits)}",)
    assert "xtr_rescore" in told.channels
    exact = plain_maxsim(place, query)
    moved = [hit for hit in told.hits if hit.contributions["xtr_rescore"].contribution]
    for hit in moved:
        rank = hit.contributions["xtr_rescore"].rank
        assert f"late interaction {exact[hit.path]:.2f}, #{rank} of {len(told.hits)}" in hit.why
    stayed = [hit for hit in told.hits if hit not in moved]
    assert moved
    assert not any("late interaction" in reason for hit in stayed for reason in hit.why)


def test_only_the_first_candidates_are_rescored(shards: Shards) -> None:
    """A20, decision 21: the rest keeps its order behind them."""
    query = QUERIES[0]
    plain, told = ask(shards, query, Options(mode="off")), ask(shards, query, Options(xtr_k=3))
    assert told.notes == ("xtr_rescore:3",)
    assert by_fused_score(told)[3:] == by_fused_score(plain)[3:]
    assert set(by_fused_score(told)[:3]) == set(by_fused_score(plain)[:3])


def test_as_a_channel_tokens_find_what_no_word_does(shards: Shards) -> None:
    """A27: a chunk that shares no word with the query is offered by tokens only, and counted in the fusion."""
    query = "stolen"
    assert paths(ask(shards, query, Options(mode="off"))) == ["cards/block.py"]
    told = ask(shards, query, Options(mode="wide"))
    assert len(told.hits) == len(DEEDS)
    assert {"lexical", "xtr"} <= set(told.channels)
    assert told.hits[1].contributions.keys() == {"xtr"}
    assert told.hits[1].why[0].startswith("all tokens, MaxSim ")


@pytest.mark.parametrize("mode", ["rescore", "wide", "both"])
def test_a_scope_keeps_the_order_of_what_is_in_it(shards: Shards, mode: str) -> None:
    """A40: pushed down, and in ranking order after hydration."""
    options = Options(mode=mode, blend="replace", channels=("xtr",) if mode == "wide" else ())  # type: ignore[arg-type]
    scope = Scope(paths=("cards/", "audit/"))
    everything, some = (ask(shards, "redact a card number", options, scope=where) for where in (Scope(), scope))
    channel = "xtr" if mode == "wide" else "xtr_rescore"
    inside = [path for path in by_rank(everything, channel) if path.startswith(("cards/", "audit/"))]
    assert [path for path in by_rank(some, channel) if path in inside] == inside
    assert all(path.startswith(("cards/", "audit/")) for path in paths(some))


def test_the_same_question_gives_the_same_answer_from_many_threads(shards: Shards) -> None:
    one = ask(shards, QUERIES[0], Options(mode="both"))
    with ThreadPoolExecutor(8) as executor:
        others = list(executor.map(lambda _: ask(shards, QUERIES[0], Options(mode="both")), range(16)))
    assert {(other.hits, other.notes, other.limits) for other in map(_comparable, others)} == {
        (one_.hits, one_.notes, one_.limits) for one_ in [_comparable(one)]
    }


def _comparable(result: SearchResult) -> SearchResult:
    hits = tuple(json.dumps([hit.path, hit.score, hit.why]) for hit in result.hits)
    return SearchResult(hits, "", (), (), result.limits, result.scope, {}, result.notes)  # type: ignore[arg-type]


def test_a_query_is_encoded_once_for_channel_and_stage(place: Place) -> None:
    encoder = WordTokens()
    with opened(place, with_tokens(place), encoder) as shards:
        encoder.asked.clear()
        ask(shards, QUERIES[0], Options(mode="both"))
    assert encoder.asked == [QUERIES[0]]


def test_the_settings_say_what_happens_unasked(place: Place) -> None:
    """xtr.mode, xtr.candidate_k, xtr.blend and xtr.score_norm."""
    with opened(place, with_tokens(place, mode="wide"), WordTokens()) as shards:
        assert "xtr" in ask(shards, QUERIES[0]).channels
    with opened(place, with_tokens(place, candidate_k=2), WordTokens()) as shards:
        assert ask(shards, QUERIES[0]).notes == ("xtr_rescore:2",)
    found = {}
    for told in ({"blend": "replace"}, {"blend": "sum"}, {"blend": "sum", "score_norm": "none"}):
        with opened(place, with_tokens(place, **told), WordTokens()) as shards:
            found[json.dumps(told)] = by_fused_score(ask(shards, QUERIES[0]))
    assert len(set(map(tuple, found.values()))) == 3


# Off


def test_off_nothing_is_opened_and_an_answer_has_the_bytes_it_had(
    place: Place, shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22: with or without a token index beside it, and the same as when a request switches it off."""
    monkeypatch.setattr(token_encoder, "open_token_encoder", lambda *_: pytest.fail("nothing is to be loaded"))
    off = Shards(place.data_dir, None, place.settings)
    off.refresh()
    answers = [ask(off, query) for query in QUERIES]
    assert [status.tokens for status in off.status()] == [None]
    off.close()
    switched = [ask(shards, query, Options(mode="off")) for query in QUERIES]
    for answer, other in zip(answers, switched, strict=True):
        told = envelope(answer, "trace", explain=False, next_cursor=None).payload()
        assert json.dumps(told) == json.dumps(envelope(other, "trace", explain=False, next_cursor=None).payload())
        assert told["method"].keys() == {"plan", "channels"}  # type: ignore[attr-defined]
        assert "xtr" not in json.dumps(told)
        assert [stage.name for stage in answer.stages] == [stage.name for stage in other.stages]


@pytest.mark.parametrize("options", [Options(mode="rescore"), Options(mode="wide"), Options(channels=("xtr",))])
def test_asking_for_what_is_off_is_a_limit(place: Place, options: Options) -> None:
    """A43: never an error."""
    with opened(place, place.settings, WordTokens()) as off:
        plain, told = ask(off, QUERIES[0]), ask(off, QUERIES[0], options)
    assert [(limit.code, limit.stage) for limit in told.limits] == [("xtr-off", "xtr")]
    assert told.hits == (() if options.channels else plain.hits)


def test_what_is_active_is_logged(place: Place) -> None:
    """A23."""
    with capture_logs() as logs, opened(place, with_tokens(place), WordTokens()):
        pass
    (line,) = [line for line in logs if line["event"] == "late interaction active"]
    assert (line["repo"], line["model"], line["chunks"], line["mode"]) == (REPO, "words", len(DEEDS), "rescore")


def test_what_is_open_is_told(shards: Shards) -> None:
    figures = shards.status()[0].tokens
    assert figures is not None
    assert (figures.documents, figures.segments) == (len(DEEDS), 1)
    assert figures.tokens > figures.documents
    assert figures.bytes > 0


def test_what_the_build_took_is_told_where_it_was_written(tmp_path: Path) -> None:
    """A41: xtr_build_train_ms and xtr_build_write_ms."""
    place = bank(tmp_path)
    told = TokenBuild(0, {"xtr_build_train_ms": 12.5, "xtr_build_write_ms": 3.0})
    write_build(token_directory(place.current(REPO)), told)
    republish(place.current(REPO))
    with opened(place, with_tokens(place), WordTokens()) as shards:
        figures = shards.status()[0].tokens
    assert figures is not None
    assert (figures.train_ms, figures.write_ms) == (12.5, 3.0)


def test_every_step_of_a_query_is_measured_and_none_of_opening(place: Place) -> None:
    """A24, A41: the engine tells, /metrics shows."""

    def counts() -> list[float]:
        names = ("xtr_search_encode_ms_count", "xtr_rescore_ms_count")
        return [REGISTRY.get_sample_value(name) or 0.0 for name in names]

    before = counts()
    with opened(place, with_tokens(place), WordTokens()) as shards:
        assert counts() == before
        ask(shards, QUERIES[0])
    assert counts() == [count + 1 for count in before]


def test_nothing_is_imported_for_late_interaction_before_it_is_on() -> None:
    """A22: numba takes a third of a second."""
    script = "import sys, codeintel_rev.app.opening; print({'numba', 'torch'} & sys.modules.keys())"
    loaded = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"


# Degraded


def test_no_index_is_told_and_the_rest_answers(tmp_path: Path) -> None:
    """A04, A07, A45."""
    place = bank(tmp_path)
    place.write(REPO, "new.py", "def brand_new():\n    return 1\n")
    place.index(REPO)
    with capture_logs() as logs, opened(place, with_tokens(place), WordTokens()) as shards:
        told, unasked = ask(shards, "brand_new"), ask(shards, "brand_new", Options(mode="off"))
        (status,) = shards.status()
    (limit,) = told.limits
    assert (limit.code, limit.stage) == ("xtr-missing", "xtr")
    assert limit.detail.startswith(f"WARP index missing: {REPO} ")
    assert "xtr build" in limit.action
    assert unasked.limits == ()
    assert told.hits == unasked.hits
    assert told.hits[0].path == "new.py"
    assert (status.state, status.tokens) == ("degraded", None)
    assert "xtr-missing" in [line.get("code") for line in logs]


def truncate(place: Place) -> None:
    file = next(token_directory(place.current(REPO)).rglob("tokens.f16"))
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-2])
    republish(place.current(REPO))


def test_a_truncated_index_is_told_and_the_rest_answers(tmp_path: Path) -> None:
    """A04, A45."""
    place = bank(tmp_path)
    truncate(place)
    with opened(place, with_tokens(place), WordTokens()) as shards:
        told = ask(shards, QUERIES[0])
    assert [(limit.code, limit.stage) for limit in told.limits] == [("index-corrupt", "xtr")]
    assert "tokens.f16" in told.limits[0].detail
    assert told.hits


def test_a_flipped_bit_in_the_tokens_takes_nothing_else_away(tmp_path: Path) -> None:
    """Generations share these files: stepping down would find the same damage in every one."""
    place = bank(tmp_path)
    with opened(place, with_tokens(place), WordTokens()) as shards:
        sound = ask(shards, QUERIES[0], Options(mode="off"))
    file = next(token_directory(place.current(REPO)).rglob("tokens.f16"))
    file.chmod(0o644)
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with opened(place, with_tokens(place), WordTokens()) as shards:
        told = ask(shards, QUERIES[0])
        (status,) = shards.status()
    assert [(limit.code, limit.stage) for limit in told.limits] == [("index-corrupt", "xtr")]
    assert "tokens.f16" in told.limits[0].detail
    assert (told.hits, told.notes) == (sound.hits, ())
    assert (status.state, status.generation, status.tokens) == ("degraded", place.current(REPO).name, None)


def test_tokens_of_another_model_are_never_compared(place: Place) -> None:
    """A44's kind: the error's own slug, with both models named."""
    with opened(place, with_tokens(place), WordTokens("other")) as shards:
        told = ask(shards, QUERIES[0])
    assert [(limit.code, limit.stage) for limit in told.limits] == [("index-incompatible", "xtr")]
    assert "words" in told.limits[0].detail
    assert "other" in told.limits[0].detail
    assert told.notes == ()


def test_a_model_that_cannot_be_loaded_is_told_and_the_rest_answers(place: Place) -> None:
    """A04: no model at all, with late interaction switched on."""
    with opened(place, with_tokens(place), None) as shards:
        told = ask(shards, QUERIES[0])
    assert [(limit.code, limit.stage) for limit in told.limits] == [("no-token-model", "xtr")]
    assert "xtr.model" in told.limits[0].action
    assert told.hits


@pytest.mark.parametrize("mode", ["rescore", "wide"])
def test_an_encoder_that_fails_leaves_the_fused_order(place: Place, mode: str) -> None:
    """A45: a failed stage, a limit, and the order of the other channels."""
    encoder = WordTokens()
    with opened(place, with_tokens(place, mode=mode), encoder) as shards:
        plain = ask(shards, QUERIES[0], Options(mode="off"))
        encoder.failure = EncoderFailed("the model gave NaN.", "")
        told = ask(shards, QUERIES[0])
    stage = "xtr" if mode == "wide" else "xtr_rescore"
    assert [(limit.code, limit.stage) for limit in told.limits] == [("encoder-failed", stage)]
    assert [one.status for one in told.stages if one.name == stage] == ["failed"]
    assert paths(told) == paths(plain)
    assert told.notes == ()


def test_an_engine_that_fails_leaves_the_fused_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A45."""

    def fail(*_: object) -> None:
        raise ChannelFailed("the postings are gone.", "")

    with opened(place, with_tokens(place), WordTokens()) as shards, shards.lease(()) as (shard,):
        assert shard.tokens
        monkeypatch.setattr(shard.tokens.engine, "rescore", fail)
        plain, told = ask(shards, QUERIES[0], Options(mode="off")), ask(shards, QUERIES[0])
    assert [(limit.code, limit.stage) for limit in told.limits] == [("channel-failed", "xtr_rescore")]
    assert paths(told) == paths(plain)


def test_rescoring_that_is_late_leaves_the_fused_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A45: the share of the deadline passes while the engine works; nothing waits for it."""
    let_go = threading.Event()
    hurried = sections(place, xtr={"enable": True}, retrieval={"channel_deadline_ms": 2_000})
    with opened(place, hurried, WordTokens()) as shards, shards.lease(()) as (shard,):
        assert shard.tokens
        monkeypatch.setattr(shard.tokens.engine, "rescore", lambda *_: let_go.wait(30))
        plain, told = ask(shards, QUERIES[0], Options(mode="off")), ask(shards, QUERIES[0])
        let_go.set()
    assert [(limit.code, limit.stage) for limit in told.limits] == [("channel-late", "xtr_rescore")]
    assert [one.status for one in told.stages if one.name == "xtr_rescore"] == ["late"]
    assert paths(told) == paths(plain)


def test_chunks_without_tokens_are_counted_and_still_found(tmp_path: Path) -> None:
    """Decision 21: while tokens are still being made."""
    place = bank(tmp_path)
    for file in sorted(token_directory(place.current(REPO)).rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    add_tokens(place, without=("cards/charge.py", "audit/trail.py"))
    with opened(place, with_tokens(place), WordTokens()) as shards:
        told = ask(shards, QUERIES[0])
    assert [(limit.code, limit.stage) for limit in told.limits] == [("xtr-partial", "xtr")]
    assert f"{len(DEEDS) - 2} of {len(DEEDS)} chunks" in told.limits[0].detail
    assert told.notes == (f"xtr_rescore:{len(told.hits) - 1}", "xtr_missing:1")
    assert told.hits[0].path == "cards/charge.py"
    assert "xtr_rescore" not in told.hits[0].contributions


def test_a_query_without_a_token_is_the_channels_failure_and_not_the_callers(shards: Shards) -> None:
    """Words of a script that the tokenizer does not know."""
    told = ask(shards, "支払い", Options(mode="wide"))
    assert [(limit.code, limit.stage) for limit in told.limits] == [("channel-failed", "xtr")]


def test_a_channel_answers_by_itself(shards: Shards) -> None:
    with shards.lease(()) as (shard,):
        assert shard.tokens
        ranking = Wide(shard.tokens).rank(Question(make_plan("card", 3), None, QueryTokens("card")), None)
    assert ranking.channel == "xtr"
    assert len(ranking) == 3
    assert np.all(np.diff(ranking.scores) <= 0)


# Explanations


def test_an_explained_answer_has_its_matches_in_one_place(shards: Shards) -> None:
    """A21: at most five hits, three matches each, beside what was there."""
    told = ask(shards, QUERIES[0], explained=range(20))
    method = envelope(told, "trace", explain=True, next_cursor=None).payload()["method"]
    assert method["notes"] == list(told.notes)  # type: ignore[index]
    explained = method["explainability"]["xtr"]  # type: ignore[index]
    assert [one["chunk_id"] for one in explained] == [hit.chunk_id for hit in told.hits[:5]]
    assert all(0 < len(one["matches"]) <= 3 for one in explained)
    assert {"query_token", "document_token", "similarity", "line", "column"} <= explained[0]["matches"][0].keys()


def test_without_any_model_an_explanation_says_what_to_configure(place: Place) -> None:
    with opened(place, place.settings, None) as off:
        told = ask(off, QUERIES[0], explained=range(3))
    (limit,) = told.limits
    assert (limit.code, limit.stage) == ("no-token-model", "explain")
    assert "xtr.model" in limit.action
    assert told.hits


def test_a_ranking_of_nothing_is_not_rescored(shards: Shards) -> None:
    told = ask(shards, "zzzzz")
    assert (told.hits, told.notes, told.limits) == ((), (), ())
