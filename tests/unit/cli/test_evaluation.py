"""`indexctl synth, eval, coverage --run` over a real index."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fakes import NOT_ENCODED, FakeLibrary, FakeNavigator

from codeintel_rev.app.context import Opened
from codeintel_rev.cli import evaluation
from codeintel_rev.cli.search import Limited
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.eval.run import read_run
from codeintel_rev.retrieval.shards import Shards
from codeintel_rev.types import SearchResult, ShardStatus
from tests.indexed import Place

Evaluate = Callable[..., Path]


@pytest.fixture
def place(corpus: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The corpus, indexed with vectors, as the settings name it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CODEINTEL_PATHS__DATA_DIR", str(corpus.data_dir))
    monkeypatch.setenv("CODEINTEL_RETRIEVAL__CHANNEL_DEADLINE_MS", "60000")
    return corpus


@pytest.fixture
def questions(place: Place, tmp_path: Path) -> Path:
    evaluation.synth("shop", tmp_path / "made.jsonl", 24, None, as_json=True)
    return tmp_path / "made.jsonl"


@dataclass(frozen=True)
class Kept:
    """The corpus as the whole run has it open; who asks closes nothing."""

    shards: Shards

    def search(self, *args: Any, **options: Any) -> SearchResult:
        return self.shards.search(*args, **options)

    def status(self) -> tuple[ShardStatus, ...]:
        return self.shards.status()

    def close(self) -> None:
        pass


@pytest.fixture
def evaluate(served: Shards) -> Evaluate:
    """`indexctl eval shop`, over the open corpus; returns the folder of the run."""

    opened = Opened(Kept(served), FakeNavigator(), FakeLibrary())

    def run(
        queries: Path,
        out: Path,
        *,
        against: Path | None = None,
        oracle: bool = False,
        k: int = 10,
    ) -> Path:
        evaluation.evaluate(
            "shop",
            queries,
            out,
            qrels=None,
            against=against,
            k=k,
            oracle=oracle,
            as_json=True,
            open_index=lambda _: opened,
        )
        return out

    return run


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows.append((tag, dict(attrs)))


def test_made_questions_are_asked_and_mostly_answered(questions: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    out = evaluate(questions, tmp_path / "run", oracle=True)
    metrics = json.loads((out / "metrics.json").read_text())
    rows = list(csv.DictReader((out / "details.csv").open()))
    assert metrics["questions"] == len(rows) == len(questions.read_text().splitlines()) > 20
    assert metrics["figures"]["hit@10"] > 0.9
    assert metrics["index"]["recall"] == 1.0
    assert set(metrics["classes"]) == {"form", "kind", "language"}
    assert not any("test" in row["judged"][0]["path"] for row in map(json.loads, questions.open()))


def test_the_page_needs_nothing_else_and_has_a_bar_for_each_class(
    questions: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    out = evaluate(questions, tmp_path / "run")
    elements = Elements((out / "report.html").read_text()).rows
    metrics = json.loads((out / "metrics.json").read_text())
    bars = [attributes for tag, attributes in elements if attributes.get("class") == "bar"]
    assert len(bars) == sum(map(len, metrics["classes"].values())) + len(metrics["found_by"])
    assert not [tag for tag, attributes in elements if {"src", "href"} & attributes.keys() or tag == "script"]


def test_the_same_run_is_no_loss(
    questions: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(questions, tmp_path / "one")
    evaluate(questions, tmp_path / "two", against=tmp_path / "one")
    assert "ndcg@10 +0.0000 against the baseline" in capsys.readouterr().err
    hits = [[answer.hits for answer in read_run(tmp_path / name)] for name in ("one", "two")]
    assert hits[0] == hits[1]


def test_a_worse_ranking_fails(questions: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    """The replay gate: what is right moves away for a third of the questions; the run is written all the same."""
    evaluate(questions, tmp_path / "good")
    rows = [json.loads(line) for line in questions.read_text().splitlines()]
    for row in rows[::3]:
        row["judged"] = [{"path": "nowhere.py"}]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(evaluation.Regressed, match=r"got worse: ndcg@10 -0\.\d+ .* Worst: s-"):
        evaluate(questions, tmp_path / "bad", against=tmp_path / "good")
    assert (tmp_path / "bad/metrics.json").is_file()


def test_runs_that_cannot_be_compared_are_refused(questions: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate(questions, tmp_path / "good")
    with pytest.raises(InvalidArgument, match="--k"):
        evaluate(questions, tmp_path / "other", against=tmp_path / "good", k=5)
    (tmp_path / "mine.tsv").write_text("cart\tshop/cart.py\n")
    with pytest.raises(InvalidArgument, match="share no question"):
        evaluate(tmp_path / "mine.tsv", tmp_path / "other", against=tmp_path / "good")
    with pytest.raises(NotFound, match=r"RUN\.jsonl"):
        evaluate(questions, tmp_path / "other", against=tmp_path / "nowhere")


def test_a_limited_answer_is_no_measurement(
    evaluate: Evaluate, place: Place, served: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.tsv").write_text("cart\tshop/cart.py\n")
    monkeypatch.setattr(Kept, "search", lambda self, *args, **options: limited(self.shards.search(*args, **options)))
    with pytest.raises(Limited, match="1 of 1 answers were limited: vectors-partial"):
        evaluate(tmp_path / "mine.tsv", tmp_path / "run")
    assert json.loads((tmp_path / "run/metrics.json").read_text())["limits"] == {"vectors-partial": 1}


def limited(found: SearchResult) -> SearchResult:
    return replace(found, limits=(NOT_ENCODED,))


def test_a_judged_file_that_is_not_indexed_is_told(
    evaluate: Evaluate, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path written without its folder loses its question for ever."""
    (tmp_path / "mine.tsv").write_text("cart\tcart.py\nmoney\tweb/money.ts\n")
    out = evaluate(tmp_path / "mine.tsv", tmp_path / "run")
    assert json.loads((out / "metrics.json").read_text())["not_indexed"] == ["cart.py"]
    assert "1 judged files are not indexed in shop: cart.py" in capsys.readouterr().err


def test_coverage_tells_what_no_answer_held(
    place: Place, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.tsv").write_text("cart total\tshop/cart.py\tweb/nothing.ts\n")
    evaluate(tmp_path / "mine.tsv", tmp_path / "run", k=1)
    capsys.readouterr()
    evaluation.coverage("shop", tmp_path / "run", as_json=True)
    rows = {(row["module"], row["language"]): row for row in json.loads(capsys.readouterr().out)}
    shop, web = rows["shop", "python"], rows["web", "typescript"]
    assert (shop["judged"], shop["found"], shop["reached"]) == (1, 1, 1)
    assert (web["reached"], len(web["never"])) == (0, web["chunks"])
    assert shop["chunks"] == 1 + len(shop["never"])


def test_coverage_of_another_generation_is_refused(place: Place, evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text("cart\tshop/cart.py\n")
    evaluate(tmp_path / "mine.tsv", tmp_path / "run")
    with pytest.raises(InvalidArgument, match="Run `eval` again"):
        evaluation.coverage("org/ledger", tmp_path / "run", as_json=True)


def test_a_blanked_copy_can_be_indexed_and_asked(place: Place, tmp_path: Path) -> None:
    evaluation.synth("shop", tmp_path / "made.jsonl", 60, tmp_path / "copy/tree", as_json=True)
    copied = {path.relative_to(tmp_path / "copy/tree").as_posix() for path in (tmp_path / "copy/tree").rglob("*.*")}
    rows = [json.loads(line) for line in (tmp_path / "made.jsonl").open()]
    named = [row for row in rows if row["form"] == "named"]
    assert named
    assert {row["repo"] for row in rows} == {""}
    for row in named:
        path = row["judged"][0]["path"]
        assert row["query"].partition(" ")[2] in (place.tree("shop") / path).read_text().replace("\n", " ")
        assert row["query"].partition(" ")[2] not in (tmp_path / "copy/tree" / path).read_text()
    assert ".env" not in copied
    with pytest.raises(InvalidArgument, match="there already"):
        evaluation.synth("shop", tmp_path / "made.jsonl", 60, tmp_path / "copy/tree", as_json=True)
