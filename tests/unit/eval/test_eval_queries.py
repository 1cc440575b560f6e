"""Files of questions, in the ways they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.eval.metrics import Place
from codeintel_rev.eval.queries import Query, bench_set, of_repository, read, row_of


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_public_set_is_read(tmp_path: Path) -> None:
    """What nobody judged is left out, and so is what was judged wrong."""
    asked = ({"qid": qid, "query": "pay", "repo": "shop", "language": "go"} for qid in ("1", "2", "3"))
    write(tmp_path, "queries.jsonl", *map(json.dumps, asked))
    write(tmp_path, "qrels.tsv", "1\ta.go\t\t\t1", "1\tb.go\t3\t9\t2", "2\ta.go\t\t\t0")
    assert bench_set(tmp_path) == [Query("1", "pay", "shop", (Place("a.go"), Place("b.go", 3, 9)), {"language": "go"})]


def test_questions_are_written_by_hand(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.tsv", "how is paid\tsrc/pay.py:3-9\tdocs/pay.md", "", "who\tsrc/who.py:7", "nobody")
    assert [(one.text, one.judged) for one in read(path)] == [
        ("how is paid", (Place("src/pay.py", 3, 9), Place("docs/pay.md"))),
        ("who", (Place("src/who.py", 7, 7),)),
    ]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    query = Query("1", "pay", "shop", (Place("a.go", 1, 2),), {"kind": "function"})
    assert read(write(tmp_path, "mine.jsonl", json.dumps(row_of(query)))) == [query]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", r"line 1 of q\.jsonl is not JSON"),
        ('{"qid": "1"}', "lacks qid"),
        ('{"qid": "1", "query": "a", "judged": [{"x": 1}]}', "1 is judged"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        read(write(tmp_path, "q.jsonl", line))


def test_a_judgement_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    asked = write(tmp_path, "q.jsonl", '{"qid": "1", "query": "a"}')
    with pytest.raises(InvalidArgument, match=r"line 1 of qrels\.tsv"):
        read(asked, write(tmp_path, "qrels.tsv", "1 a.go"))


def test_a_qid_stands_once(tmp_path: Path) -> None:
    """The paired comparison would pair the wrong two."""
    with pytest.raises(InvalidArgument, match="twice"):
        read(write(tmp_path, "mine.tsv", "pay\ta.go", "pay\tb.go"))


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(tmp_path / "nowhere.jsonl")


def test_a_question_is_asked_of_its_own_repository() -> None:
    everywhere, here, there = (Query(repo, "a", repo, (Place("a"),)) for repo in ("", "shop", "ledger"))
    assert of_repository([everywhere, here, there], "shop") == [everywhere, here]
    with pytest.raises(InvalidArgument, match="ledger"):
        of_repository([here], "ledger")
