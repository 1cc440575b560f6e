"""`xtr explain`: a file's lines, coloured by how much they are like the query; on the terminal and as HTML."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from codeintel_rev.cli import render
from codeintel_rev.config.settings import Settings, load_settings
from codeintel_rev.encoders.token_encoder import open_token_encoder, shared_dense_encoder
from codeintel_rev.errors import InvalidArgument, NotFound
from codeintel_rev.io.decode import decode
from codeintel_rev.io.durable import os_errors_mapped
from codeintel_rev.retrieval.heat import HotLine, heat

COLD, HOT = (255, 255, 255), (255, 140, 0)
COLOURED = 0.25
"""Of the way from the coldest line to the hottest: cooler lines keep the terminal's own colours."""


def explain(query: str, path: Path, html: Path | None) -> None:
    """Print the heat map of the file at `path`, and write it to `html` when given."""
    settings = load_settings()
    if not query.strip():
        raise InvalidArgument("query is empty.", "Ask something.")
    text = _text(path, settings)
    models = settings.paths.data_dir / "models"
    encoder = open_token_encoder(settings, shared_dense_encoder(settings, models), models)
    rows = list(_rows(heat(query, text, encoder)))
    for row in rows:
        render.out.print(row)
    if html:
        with os_errors_mapped("write", html):
            html.write_text(_page(rows), encoding="utf-8")


def _text(path: Path, settings: Settings) -> str:
    if not path.is_file():
        raise NotFound(f"{path} is not a file.", "Give the path of a text file.")
    with os_errors_mapped("read", path):
        content = path.read_bytes() if path.stat().st_size <= settings.source.max_bytes else None
    decoded = decode(content) if content is not None else None
    if decoded is None:
        raise InvalidArgument(f"{path} is binary or larger than source.max_bytes.", "Give a text file.")
    return decoded.text


def _rows(lines: Sequence[HotLine]) -> Iterator[Text]:
    """Yield one row a line: number, similarity, text, and on the hot ones which words met."""
    felt = [line.similarity for line in lines if line.query_token]
    low, high = (min(felt), max(felt)) if felt else (0.0, 0.0)
    for line in lines:
        share = (line.similarity - low) / (high - low) if line.query_token and high > low else 0.0
        coloured = share >= COLOURED
        yield Text.assemble(
            (f"{line.number:5} {f'{line.similarity:.2f}' if line.query_token else '':4} ", "dim"),
            (line.text, f"black on {_colour(share)}" if coloured else ""),
            (f"  {line.query_token}→{line.document_token}" if coloured else "", "dim"),
        )


def _colour(share: float) -> str:
    red, green, blue = (round(cold + (hot - cold) * share) for cold, hot in zip(COLD, HOT, strict=True))
    return f"rgb({red},{green},{blue})"


def _page(rows: Sequence[Text]) -> str:
    widest = max((row.cell_len for row in rows), default=1)
    console = Console(record=True, file=io.StringIO(), width=widest + 1, color_system="truecolor", force_terminal=True)
    for row in rows:
        console.print(row, highlight=False)
    return console.export_html(inline_styles=True)
