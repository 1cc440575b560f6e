"""What a person sees on the terminal; what a program sees with --json."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from codeintel_rev.config.settings import Settings
from codeintel_rev.indexing.progress import Report
from codeintel_rev.mcp_server.answers import DOUBTFUL, RUNNING, Answer, cited, standing
from codeintel_rev.mcp_server.envelope import Envelope, Limit
from codeintel_rev.types import BuildProgress

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """Print one line of JSON to standard output."""
    sys.stdout.write(json.dumps(value, default=str) + "\n")


def print_hits(answer: Envelope, *, explain: bool) -> None:
    """Print place, reasons and lines of each hit, then what was limited."""
    for hit in answer.hits:
        out.print(
            Text.assemble(
                (f"{hit.repo}: {hit.path}:{hit.start_line}-{hit.end_line}", "bold cyan"),
                (f"  {hit.kind} {hit.symbol}".rstrip(), "green"),
                (f"  {hit.score:.3f}", "dim"),
            )
        )
        out.print(Text("; ".join(hit.why), style="dim"))
        if explain and hit.contributions:
            out.print(_contributions(answer, hit.contributions.items()))
        out.print(Text(hit.snippet), end="\n\n")
    if not answer.hits:
        err.print("No hits. Try other words or fewer filters.")
    print_limits(answer.limits)


@contextmanager
def live_answer() -> Iterator[Callable[[Answer, str], None]]:
    """Yield what shows an answer as it grows on a terminal; elsewhere it is printed as it is, once it is over."""
    if not out.is_terminal:
        yield lambda answer, _: None if answer.status == RUNNING else out.print(Text(f"{answer.answer.rstrip()}\n"))
        return
    with Live(console=Console(highlight=False), vertical_overflow="visible") as live:
        yield lambda answer, doing: live.update(_growing(answer, doing))


def _growing(answer: Answer, doing: str) -> RenderableType:
    text = Markdown(answer.answer)
    return Group(text, Text(doing, style="dim")) if answer.status == RUNNING else text


def print_sources(answer: Answer) -> None:
    """Print the place of every citation that stands, numbered as in the text, then what was limited."""
    for source, place in cited(answer):
        where = f"{source.repo}: {place}"
        out.print(Text.assemble((f"[{source.n}] ", "bold"), (where, "bold cyan"), (f"  {source.symbol}", "green")))
    print_limits(answer.limits)
    doubts = sorted({f"[{one.n}] {one.status}" for one in standing(answer) if one.status in DOUBTFUL})
    err.print(Text(", ".join([f"{answer.status}, confidence {answer.confidence or 0.0:.2f}", *doubts]), style="dim"))


def print_limits(limits: Iterable[Limit]) -> None:
    for limit in limits:
        err.print(Text(f"limited ({limit.code}): {limit.detail} {limit.action}".rstrip(), style="yellow"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under their column names, no cell cut: ids are there to be copied."""
    cells = [columns, *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        out.print(Text(line, style="" if number else "bold"))


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


@contextmanager
def progress() -> Iterator[Report]:
    """Yield where a build reports to: a bar on a terminal, JSON lines otherwise; both on standard error."""
    if not err.is_terminal:
        yield lambda told: print(json.dumps(asdict(told)), file=sys.stderr, flush=True)  # noqa: T201
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("starting", total=None)

        def report(told: BuildProgress) -> None:
            bar.update(task, description=told.stage, completed=told.done, total=told.total or None)

        yield report


def how_to_connect(settings: Settings) -> str:
    """Return how an agent, a program and a person reach the server."""
    base = f"http://{settings.server.host}:{settings.server.port}"
    http = {"type": "http", "url": f"{base}/mcp"}
    # An agent starts it from another folder, and perhaps without this environment on its path.
    command = shutil.which("codeintel") or str(Path(sys.executable).with_name("codeintel"))
    data_dir = {"CODEINTEL_PATHS__DATA_DIR": str(settings.paths.data_dir.absolute())}
    stdio = {"command": command, "args": ["mcp"], "env": data_dir}
    question = json.dumps({"query": "where are settings loaded", "limit": 3})
    return "\n".join(
        (
            f"Serving MCP at {base}/mcp and HTTP at {base}",
            "",
            "Connect an agent",
            f"  Claude Code   claude mcp add --transport http codeintel {base}/mcp",
            f"  Cursor        {json.dumps({'mcpServers': {'codeintel': http}})}",
            f"  VS Code       {json.dumps({'servers': {'codeintel': http}})}",
            f"  over stdio    {json.dumps({'mcpServers': {'codeintel': stdio}})}",
            "",
            "Try it",
            f"  curl -s {base}/search -H 'Content-Type: application/json' -d '{question}'",
            f"  {command} search 'where are settings loaded' --limit 3",
            "",
        )
    )


def _contributions(answer: Envelope, parts: Iterable[tuple[str, Any]]) -> Text:
    told = (f"{channel} #{part.rank} {part.score:.3f} x {part.weight:.2f}" for channel, part in parts)
    return Text(f"  {answer.method.plan}: {', '.join(told)}", style="magenta")
