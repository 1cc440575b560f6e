"""`codeintel` as a person or a script meets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import NOT_ENCODED, FakeSearcher, opened_fakes
from stub_vllm import StubVLLM, in_background
from typer.testing import CliRunner

from codeintel_rev.app.context import Open
from codeintel_rev.cli import answer, inspect, main, render, search
from codeintel_rev.cli.places import default_name
from codeintel_rev.cli.render import how_to_connect
from codeintel_rev.config.settings import Settings
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.retrieval.options import Options
from codeintel_rev.types import BuildProgress

HEAVY = ("faiss", "torch", "duckdb", "tantivy", "fastapi", "mcp", "onnxruntime", "pyarrow")


def opening(searcher: FakeSearcher) -> Open:
    return lambda _: opened_fakes(searcher)


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CODEINTEL_")}
    return subprocess.run(
        (sys.executable, "-m", "codeintel_rev.cli.main", *arguments),
        cwd=folder,
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_does_not_wait_for_what_it_does_not_use() -> None:
    """`codeintel --help` in under half a second: none of the heavy packages may be imported for it."""
    script = f"import sys, codeintel_rev.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    loaded = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_help_names_every_verb(tmp_path: Path) -> None:
    shown = run("--help", folder=tmp_path).stdout
    assert all(verb in shown for verb in ("up", "index", "serve", "mcp", "search", "status", "doctor", "indexctl"))


def test_a_search_prints_place_reason_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    search.one("charge", {"repos": ["shop"]}, 8, {}, as_json=False, explain=False, open_index=opening(FakeSearcher()))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("shop: src/pay.py:1-3  function pay")
    assert shown[1:3] == ["lexical #1", "def charge(card, amount):"]


def test_a_search_as_json_is_the_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    search.one("charge", {}, 8, {}, as_json=True, explain=True, open_index=opening(FakeSearcher()))
    body = json.loads(capsys.readouterr().out)
    assert body["hits"][0]["contributions"]["lexical"]["rank"] == 1
    assert body["hits"][0]["token_matches"][0]["document_token"] == "b"


def test_code_that_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    searcher = FakeSearcher(corpus={"shop": {"a.py": "x = items[bold][/red]\n"}})
    search.one("items", {}, 8, {}, as_json=False, explain=True, open_index=opening(searcher))
    assert "x = items[bold][/red]" in capsys.readouterr().out


def test_a_search_asks_about_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = FakeSearcher()
    asked = SimpleNamespace(one=partial(search.one, open_index=opening(searcher)))
    monkeypatch.setattr(main, "verb", lambda _: asked)
    for arguments in (["--generation", "01M7ZQTY7NC2RHF80V16V1FTHC"], ["--as-of", "2h"]):
        assert CliRunner().invoke(main.app, ["search", "charge", *arguments]).exit_code == 0
    scopes = [(scope.generation, scope.as_of) for _, scope, _, _ in searcher.asked]
    assert scopes == [("01M7ZQTY7NC2RHF80V16V1FTHC", ""), ("", "2h")]


def test_limits_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    searcher = FakeSearcher(limits=(NOT_ENCODED,))
    search.one("charge", {}, 8, {}, as_json=False, explain=False, open_index=opening(searcher))
    assert "limited (vectors-partial)" in capsys.readouterr().err


def questions(folder: Path, *lines: object) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_file_of_queries_is_answered_line_by_line(tmp_path: Path) -> None:
    """Issue 1: {qid, hits, ms} in the order asked, each within its own repository."""
    asked = questions(
        tmp_path,
        {"qid": "b", "query": "retry", "repo": "org/tools"},
        {"qid": "a", "query": "retry", "repo": "shop", "gold": "ignored"},
    )
    search.batch(asked, tmp_path / "run.jsonl", {}, 10, {}, open_index=opening(FakeSearcher()))
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    assert [line["qid"] for line in lines] == ["b", "a"]
    assert lines[0]["hits"] == [{"path": "lib/retry.go", "start_line": 1, "end_line": 4, "score": 1.0}]
    assert (lines[1]["hits"], set(lines[1])) == ([], {"qid", "hits", "ms"})


def test_a_measurement_that_was_limited_fails_after_its_last_line(tmp_path: Path) -> None:
    """style.md: a measurement run treats any limit as failure."""
    asked = questions(tmp_path, {"qid": "a", "query": "retry"})
    with pytest.raises(search.Limited, match="vectors-partial"):
        search.batch(asked, tmp_path / "run.jsonl", {}, 10, {}, open_index=opening(FakeSearcher(limits=(NOT_ENCODED,))))
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("line", ["{", "[]", '{"qid": "a"}', "7"])
def test_a_bad_line_of_queries_is_named(tmp_path: Path, line: str) -> None:
    asked = tmp_path / "queries.jsonl"
    asked.write_text('{"qid": "a", "query": "x"}\n' + line + "\n")
    with pytest.raises(InvalidArgument, match=r"line 2 of queries\.jsonl"):
        search.batch(asked, tmp_path / "run.jsonl", {}, 10, {}, open_index=opening(FakeSearcher()))


def test_the_searcher_is_closed_when_a_query_fails(tmp_path: Path) -> None:
    searcher = FakeSearcher()
    with pytest.raises(NotFound):
        search.one("x", {"repos": ["secret"]}, 8, {}, as_json=False, explain=False, open_index=opening(searcher))
    assert searcher.closed


def test_the_status_names_what_is_being_built(capsys: pytest.CaptureFixture[str]) -> None:
    searcher = FakeSearcher()
    searcher.building = BuildProgress("encode", 40, 100, 10.0, 6.0, 0.0, 1)
    inspect.status(as_json=False, open_index=opening(searcher))
    shown = capsys.readouterr().out
    assert "org/tools" in shown
    assert "encode 40/100" in shown


def test_the_doctor_fails_when_a_check_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEINTEL_EMBEDDING__PROVIDER", "huggingface")
    with pytest.raises(inspect.Unwell, match="encoder"):
        inspect.doctor(as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["server"]["port"] == 8787
    assert {check["check"]: check["ok"] for check in told["checks"]}["encoder"] is False


def test_the_doctor_masks_keys_and_names_what_a_served_model_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEINTEL_EMBEDDING__PROVIDER", "vllm")
    monkeypatch.setenv("CODEINTEL_VLLM__EMBED__URL", "http://model:8000")
    monkeypatch.setenv("CODEINTEL_VLLM__EMBED__KEY", "canary")
    with pytest.raises(inspect.Unwell, match="encoder"):
        inspect.doctor(as_json=True)
    shown = capsys.readouterr().out
    assert "http://model:8000" in shown
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("search",), 2, "give either QUERY"),
        (("search", "x", "--queries", "q.jsonl"), 2, "give either QUERY"),
        (("search", "x", "--limit", "0"), 2, "limit"),
        (("index", "no/such/folder"), 3, "is not a folder"),
        (("index", "no/such/folder", "--watch"), 3, "is not a folder"),
        (("watch", "unknown"), 3, "is not indexed here"),
        (("indexctl", "ls", "unknown"), 3, "is not indexed here"),
        (("indexctl", "gc", "../evil"), 2, "is not valid"),
        (("nonsense",), 2, "nonsense"),
    ],
)
def test_a_failure_is_a_sentence_and_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    """The exit codes of the module's docstring; no traceback."""
    done = run(*arguments, folder=tmp_path)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "key"),
    [
        ({"CODEINTEL_SERVER__PORT": "99999"}, "server.port"),
        ({"CODEINTEL_SERVER__PORT": "http"}, "server.port"),
        ({"CODEINTEL_SERVER__OPS_PORT": "8787"}, "ops_port"),
        ({"CODEINTEL_SERVER__HOST": "0.0.0.0"}, "allowed_hosts"),
        ({"CODEINTEL_SERVER__HOST": "::"}, "allowed_hosts"),
        ({"CODEINTEL_SERVER__WORKERS": "0"}, "server.workers"),
        ({"CODEINTEL_SERVER__PROT": "80"}, "server.prot"),
        ({"CODEINTEL_SEVER__PORT": "80"}, "CODEINTEL_SEVER__PORT"),
        ({"CODEINTEL_SERVER": "a,b"}, "setting server"),
        ({"CODEINTEL_LIMITS__BODY_BYTES": "-1"}, "limits.body_bytes"),
        ({"CODEINTEL_EMBEDDING__PROVIDER": "magic"}, "embedding.provider"),
        ({"CODEINTEL_OBSERVABILITY__LOG_LEVEL": "loud"}, "observability.log_level"),
        ({"CODEINTEL_CONFIG": "missing.toml"}, "missing.toml"),
        ({"CODEINTEL_CONFIG": "broken.toml"}, "broken.toml"),
        ({"CODEINTEL_CONFIG": "unknown.toml"}, "server.colour"),
        ({"CODEINTEL_PATHS__DATA_DIR": "broken.toml"}, "paths.data_dir"),
    ],
)
def test_a_broken_setting_ends_the_start_with_one_line(tmp_path: Path, variables: dict[str, str], key: str) -> None:
    """F45: exit code 2 in under two seconds, one line that names the key, nothing half started."""
    (tmp_path / "broken.toml").write_text("[server\n")
    (tmp_path / "unknown.toml").write_text('[server]\ncolour = "red"\n')
    started = time.monotonic()
    done = run("serve", folder=tmp_path, **variables)
    assert done.returncode == 2
    assert key in done.stderr.strip().splitlines()[-1]
    assert time.monotonic() - started < 10  # two seconds on a quiet machine; tests share theirs


@pytest.mark.parametrize(
    ("folder", "name"), [("my repo", "my-repo"), ("x", "x"), ("...", "repository"), ("ünï", "n"), (".config", "config")]
)
def test_a_repository_is_named_after_its_folder(folder: str, name: str) -> None:
    assert default_name(str(Path("/somewhere") / folder)) == name


def test_a_newcomer_is_told_how_to_connect() -> None:
    told = how_to_connect(Settings())
    assert "claude mcp add --transport http codeintel http://127.0.0.1:8787/mcp" in told
    assert "curl -s http://127.0.0.1:8787/search" in told
    assert '"args": ["mcp"]' in told


def test_knobs_of_a_search_are_those_of_the_tool(tmp_path: Path) -> None:
    """A43: measured with the same words as asked."""
    searcher = FakeSearcher()
    asked = tmp_path / "q.jsonl"
    asked.write_text('{"qid": "1", "query": "charge"}\n')
    knobs = {"mode": "both", "xtr_k": 9, "channels": ["dense", "xtr"], "stage_weights": {"xtr": "0.5"}}
    search.batch(asked, tmp_path / "run.jsonl", {}, 10, knobs, open_index=opening(searcher))
    search.one("charge", {}, 8, knobs, as_json=True, explain=False, open_index=opening(searcher))
    expected = Options(mode="both", xtr_k=9, channels=("dense", "xtr"), stage_weights={"xtr": 0.5})
    assert searcher.options == [expected, expected]


@pytest.mark.parametrize(
    "wrong", [{"mode": "deep"}, {"xtr_k": 0}, {"stage_weights": {"dense": ""}}, {"channels": ["web"]}]
)
def test_a_wrong_knob_of_a_search_is_named_before_anything_is_opened(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        search.one("x", {}, 8, wrong, as_json=False, explain=False, open_index=lambda _: pytest.fail("opened"))


def test_the_knobs_of_the_command_line_reach_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(main, "verb", lambda _: SimpleNamespace(one=lambda *given, **_: asked.append(given)))
    arguments = ["search", "x", "--mode", "wide", "--channels", "lexical,xtr", "--weight", "xtr=2", "--blend", "sum"]
    assert CliRunner().invoke(main.app, [*arguments, "--xtr-k", "7", "--score-norm", "z"]).exit_code == 0
    (given,) = asked
    assert given[3] == {  # type: ignore[index]
        "mode": "wide",
        "xtr_k": 7,
        "blend": "sum",
        "score_norm": "z",
        "channels": ["lexical", "xtr"],
        "stage_weights": {"xtr": "2"},
    }


def test_a_url_is_fetched_and_indexed(tmp_path: Path) -> None:
    """By its name, into the data folder; again, it is brought up to date."""
    remote, data = tmp_path / "shop", {"CODEINTEL_EMBEDDING__PROVIDER": "none"}
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(remote))

    def commit(text: str) -> None:
        (remote / "cart.py").write_text(text)
        subprocess.run((*git, "add", "-A"), check=True)
        subprocess.run((*git, "commit", "-qm", text), check=True)

    remote.mkdir()
    subprocess.run((*git, "init", "-q"), check=True)
    for name in ("add_to_cart", "empty_the_cart"):
        commit(f"def {name}():\n    return []\n")
        built = run("index", f"file://{remote}", "--json", folder=tmp_path, **data)
        assert (built.returncode, json.loads(built.stdout)["repo"]) == (0, "shop"), built.stderr
        found = run("search", name, "--json", folder=tmp_path, **data)
        assert [hit["symbol"] for hit in json.loads(found.stdout)["hits"]] == [name]
    assert (tmp_path / "data/clones/shop/cart.py").is_file()


def test_an_answer_is_text_then_the_places_it_cites(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer.answer("Where is a card charged?", {}, None, as_json=False, open_index=opening(FakeSearcher()))
    shown = capsys.readouterr()
    written, places = shown.out.split("\n\n[1] ")
    assert written.startswith("`pay` in `src/pay.py`, lines 1 to 3. [1]\n")
    assert places.split("\n")[:2] == ["shop: src/pay.py:1-3  pay", "[2] shop: src/cart.py:1-3  cart"]
    assert shown.err == "extractive, confidence 0.92\n"


def test_an_answer_grows_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is cut off at the terminal's width."""
    monkeypatch.setattr(render.out, "_force_terminal", True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    answer.answer("Where is a card charged?", {}, "fast", as_json=False, open_index=opening(FakeSearcher()))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert "Charge a card." in shown
    assert "[2] shop: src/cart.py:1-3  cart" in shown


def test_an_answer_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    searcher = FakeSearcher()
    answer.answer("card", {"repos": ["shop"]}, "fast", as_json=True, open_index=opening(searcher))
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["profile"], told["sources"][0]["path"]) == ("extractive", "fast", "src/pay.py")
    assert searcher.closed


def test_an_answer_is_written_by_the_configured_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C42: and by the sources alone, with a limit that says so, while its server fails."""
    stub = StubVLLM("chat", script=deque(["cites", "error_mid"]), max_model_len=8192)
    with in_background(stub) as url:
        monkeypatch.setenv("CODEINTEL_VLLM__CHAT__URL", url)
        monkeypatch.setenv("CODEINTEL_VLLM__CHAT__MODEL", "tiny")
        told = []
        for _ in range(2):
            answer.answer("Where is a card charged?", {}, "deep", as_json=True, open_index=opening(FakeSearcher()))
            told.append(json.loads(capsys.readouterr().out))
    assert [one["status"] for one in told] == ["complete", "extractive"]
    assert (told[0]["model"], told[0]["text"]) == ("tiny", "A card is charged by pay [1].")
    assert [limit["code"] for limit in told[1]["limits"]] == ["synthesis.error"]


def test_an_answer_fails_as_what_made_it_fail() -> None:
    """The exit code is that of the error: 3 for a repository that is not there."""
    with pytest.raises(NotFound, match="nope"):
        answer.answer("card", {"repos": ["nope"]}, None, as_json=True, open_index=opening(FakeSearcher()))
    with pytest.raises(InvalidArgument, match="profile"):
        answer.answer("card", {}, "slow", as_json=True, open_index=opening(FakeSearcher()))
    with pytest.raises(InvalidArgument, match="no word"):
        answer.answer("", {}, None, as_json=True, open_index=opening(FakeSearcher()))
