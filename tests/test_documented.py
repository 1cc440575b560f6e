"""What can be set, called, asked and seen is written down, and what is written down is so."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path, PurePath

import pytest
import typer
from prometheus_client import REGISTRY
from pydantic import BaseModel, SecretStr, TypeAdapter
from starlette.routing import Route
from typer.main import get_command

from codeintel_rev.app.answer_routes import answer_routes
from codeintel_rev.app.main import create_app
from codeintel_rev.app.probes import Readiness, State, probe_routes
from codeintel_rev.app.routes import question_routes
from codeintel_rev.cli.indexctl import app as indexctl
from codeintel_rev.cli.main import app as codeintel
from codeintel_rev.cli.verbs import EXIT_CODES
from codeintel_rev.cli.xtr import app as xtr
from codeintel_rev.config.settings import Section, Settings, load_settings
from codeintel_rev.mcp_server.operations import Served
from codeintel_rev.mcp_server.tools import TOOLS
from codeintel_rev.observability import metrics

from fakes import open_fakes  # isort: skip

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = (ROOT / "docs/settings.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
MCP = (ROOT / "docs/mcp.md").read_text()
EVERYTHING = "\n".join([(ROOT / "README.md").read_text(), *(path.read_text() for path in ROOT.glob("docs/*.md"))])
_METRIC = re.compile(r"\b(?:xtr|codeintel)_\w+")
AFFECTS = {"results", "speed", "reach", "disk", "logs"}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows(text: str) -> dict[str, list[str]]:
    """Return the table rows of a document by their first cell, without backticks."""
    found = (cells(line) for line in text.splitlines() if line.startswith("| `"))
    return {row[0].strip("`"): row[1:] for row in found}


def settings() -> dict[str, object]:
    """Return every setting's default by `section.key`."""
    return dict(leaves("", Settings.model_construct()))


def leaves(prefix: str, section: BaseModel) -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from leaves(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def spelled(value: object) -> str:
    """Return a default as the document writes it: as TOML does, and `unset` for nothing."""
    if value is None:
        return "unset"
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(value)}`"


def test_every_setting_has_its_row() -> None:
    table = rows(SETTINGS)
    written = {key: (row[0], row[1]) for key, row in table.items()}
    assert written == {
        key: (f"`CODEINTEL_{key.upper().replace('.', '__')}`", spelled(default)) for key, default in settings().items()
    }


def test_every_setting_says_what_it_affects() -> None:
    affects = {key: row[2] for key, row in rows(SETTINGS).items()}
    assert {key for key, affected in affects.items() if affected not in AFFECTS} == set()
    assert {word for word in AFFECTS if f"**{word}**" not in SETTINGS} == set()


def test_the_documented_variable_sets_the_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each variable, by the name written down, changes what it names and nothing else."""
    monkeypatch.chdir(tmp_path)
    other = {"embedding.provider": "none", "server.host": "localhost", "observability.log_level": "error"}
    other |= {
        "observability.log_format": "json",
        "index.compact_window": "02:00-05:00",
        "server.ops_port": "9999",
        "server.tools": "full",
        "answer.profile": "deep",
    }
    other |= {
        "xtr.enable": "true",
        "xtr.quant_bits": "2",
        "xtr.provider": "vllm",
        "xtr.mode": "wide",
        "xtr.blend": "sum",
        "xtr.score_norm": "z",
    }
    for key, row in rows(SETTINGS).items():
        *sections, name = key.split(".")
        value = other.get(key) or another(settings()[key])
        with monkeypatch.context() as patched:
            patched.setenv(row[0].strip("`"), value)
            loaded = load_settings()
        section = reduce(getattr, sections, loaded)
        kind = type(section).model_fields[name].annotation
        read = getattr(section, name)
        assert str(read) == str(TypeAdapter(kind).validate_python(json.loads(value) if value[0] == "[" else value)), key
        assert read != settings()[key], key


def another(default: object) -> str:
    """Return a valid value that differs from `default`, as a variable spells it."""
    if isinstance(default, bool):
        return json.dumps(not default)
    if isinstance(default, int | float):
        return str(default + 1)
    if isinstance(default, tuple):
        return '["other"]'
    return "other"


@pytest.mark.parametrize(("program", "app"), [("codeintel", codeintel), ("indexctl", indexctl), ("xtr", xtr)])
def test_every_verb_is_documented(program: str, app: typer.Typer) -> None:
    verbs = set(get_command(app).commands) - {"indexctl", "xtr"}  # type: ignore[attr-defined]
    assert {verb for verb in verbs if f"`{verb}`" not in OPERATIONS and f"{program} {verb}" not in EVERYTHING} == set()


def test_every_tool_is_documented_with_requests_it_accepts() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", MCP, re.DOTALL | re.MULTILINE))
    assert sections.keys() == TOOLS.keys()
    for name, text in sections.items():
        request, answer = (json.loads(block) for block in re.findall(r"```json\n(\{.*?)\n```", text, re.DOTALL)[:2])
        TOOLS[name].request.model_validate(request)
        assert answer["trace_id"], name


def test_every_argument_of_a_tool_is_documented() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", MCP, re.DOTALL | re.MULTILINE))
    missing = {
        f"{name}.{argument}"
        for name, tool in TOOLS.items()
        for argument in tool.request.model_fields
        if f"`{argument}`" not in sections[name] and f'"{argument}"' not in sections[name]
    }
    assert missing == set()


def _nothing() -> Served:
    pytest.fail("nothing is asked here")


def test_every_route_is_documented() -> None:
    routers = (probe_routes(Readiness(interval_s=1.0)), question_routes(_nothing), answer_routes(_nothing))
    included = [route for router in routers for route in router.routes]
    own = [route for route in create_app(Settings(), open_fakes).routes if isinstance(route, Route)]
    paths = {re.sub(r":path\}", "}", route.path) for route in [*included, *own]}  # type: ignore[attr-defined]
    assert {"/search", "/repos", "/metrics", "/mcp"} <= paths
    assert {path for path in paths if path not in OPERATIONS} == set()


def test_every_metric_is_documented() -> None:
    named = {
        f"{metric._name}{'_total' if metric._type == 'counter' else ''}": sorted(metric._labelnames)
        for metric in vars(metrics).values()
        if hasattr(metric, "_labelnames") and hasattr(metric, "_name")
    }
    written = {
        key: sorted(re.findall(r"`(\w+)`", row[0]))
        for key, row in rows(OPERATIONS).items()
        if key.startswith(("codeintel_", "xtr_"))
    }
    assert written == named


def test_every_board_asks_for_metrics_that_exist() -> None:
    """A49: a panel of a metric that nobody exposes stays empty and says nothing."""
    exposed = {sample.name for family in REGISTRY.collect() for sample in family.samples} | set(rows(OPERATIONS))
    boards = list((ROOT / "deploy/grafana").glob("*.json"))
    for board in boards:
        panels = json.loads(board.read_text())["panels"]
        asked = {name for panel in panels for t in panel["targets"] for name in _METRIC.findall(t["expr"])}
        assert panels
        assert {name for name in asked if not {name, re.sub("_(bucket|count)$", "", name)} & exposed} == set(), (
            board.name
        )
    assert boards


def test_every_exit_code_is_documented() -> None:
    codes = {0, *(code for _, code in EXIT_CODES)}
    assert {code for code in codes if not re.search(rf"^\| {code} \| \w", OPERATIONS, re.MULTILINE)} == set()


def test_every_state_is_documented() -> None:
    assert {state.name for state in State if f"| `{state.name.lower()}` |" not in OPERATIONS} == set()


def test_what_is_linked_to_is_there() -> None:
    documents = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *ROOT.glob("docs/*.md")]
    broken = {
        f"{path.name}: {target}"
        for path in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
        if not (path.parent / target).exists()
    }
    assert broken == set()
