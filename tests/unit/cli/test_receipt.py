"""A kept answer is believed only as far as its hashes go."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import CORPUS, open_fakes

from codeintel_rev.cli import answer, receipt
from codeintel_rev.cli.receipt import Unproven, checks, read_receipt, verify_answer
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.mcp_server.answers import Answer


@pytest.fixture
def kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What `codeintel answer --json` printed."""
    answer.answer("Where is a card charged?", {"repos": ["shop"]}, None, as_json=True, open_index=open_fakes)
    file = tmp_path / "receipt.json"
    file.write_text(capsys.readouterr().out)
    return file


def failed(answer: Answer, change: Any = None) -> list[str]:
    """Return the checks that fail when the lines of a file are what `change` makes of them."""

    def standing(repo: str, path: str) -> Sequence[str] | None:
        lines = CORPUS[repo][path].rstrip("\n").split("\n")
        return change(lines) if change else lines

    return [one.check for one in checks(answer, standing) if not one.ok]


def test_an_answer_that_was_kept_holds(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify_answer(kept, as_json=True, open_index=open_fakes)
    found = json.loads(capsys.readouterr().out)
    assert {one["ok"] for one in found} == {True}
    assert {one["check"].split()[0] for one in found} == {"text", "citation", "source"}


@pytest.mark.parametrize(
    ("member", "change", "fails"),
    [
        ("text", lambda text: text.replace("lines", "Lines"), ["text"]),
        ("answer", lambda text: f"Perhaps {text}", ["text"]),
        ("sources", lambda sources: sources[1:], ["citation 0", "citation 1"]),
        ("citations", lambda all_: [{**all_[0], "offset": 3}], ["citation 0"]),
        ("citations", lambda all_: [{**all_[0], "lines": [1, 99]}], ["citation 0"]),
        ("citations", lambda all_: [{**all_[0], "n": 9, "status": "invalid"}], []),
        ("sources", lambda sources: [{**one, "content_sha256": "0" * 64} for one in sources], ["source 1", "source 2"]),
    ],
)
def test_what_was_changed_is_noticed(kept: Path, member: str, change: Any, fails: list[str]) -> None:
    told = json.loads(kept.read_text())
    kept.write_text(json.dumps({**told, member: change(told[member])}))
    assert failed(read_receipt(kept)) == fails


def test_lines_that_moved_still_stand_and_lines_that_are_gone_do_not(kept: Path) -> None:
    told = read_receipt(kept)
    assert failed(told, lambda lines: ["# new", *lines]) == []
    assert failed(told, lambda lines: ["# new", *lines[1:]]) == ["source 1", "source 2"]
    assert failed(told, lambda lines: None) == []


def test_an_answer_that_does_not_hold_is_an_error(kept: Path) -> None:
    told = json.loads(kept.read_text())
    kept.write_text(json.dumps({**told, "text_sha256": "0" * 64}))
    with pytest.raises(Unproven, match="1 checks failed: text"):
        receipt.verify_answer(kept, as_json=False, open_index=open_fakes)


def test_a_file_that_is_no_receipt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"answer": "yes"}')
    with pytest.raises(InvalidArgument, match=r"x\.json holds no answer"):
        read_receipt(tmp_path / "x.json")
    with pytest.raises(NotFound):
        read_receipt(tmp_path / "y.json")
