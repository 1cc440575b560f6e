"""`codeintel verify-answer`: whether an answer that was kept still holds, without any model or network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from codeintel_rev.answer.citations import resolve
from codeintel_rev.answer.pack import sha256
from codeintel_rev.app.context import Open
from codeintel_rev.app.opening import open_index
from codeintel_rev.cli import render
from codeintel_rev.cli.inspect import Finding
from codeintel_rev.config.settings import load_settings
from codeintel_rev.errors import CodeIntelError, InvalidArgument, NotFound
from codeintel_rev.mcp_server.answers import Answer, AnswerCitation, AnswerSource

Standing = Callable[[str, str], Sequence[str] | None]
"""The lines of a file as it stands now, by repository and path; None where nothing can be told."""


class Unproven(CodeIntelError):
    """An answer says what its sources do not."""


def verify_answer(receipt: Path, *, as_json: bool, open_index: Open = open_index) -> None:
    """Print each check of an answer that `codeintel answer --json` or `GET /answers/{id}` gave; raise Unproven."""
    answer = read_receipt(receipt)
    opened = open_index(load_settings())
    try:
        findings = list(checks(answer, opened.library.standing))
    finally:
        opened.searcher.close()
    if as_json:
        render.print_json([{"check": one.check, "ok": one.ok, "told": one.told} for one in findings])
    else:
        render.print_table(("check", "", ""), [(one.check, "ok" if one.ok else "FAILED", one.told) for one in findings])
    if failed := [one.check for one in findings if not one.ok]:
        raise Unproven(f"{len(failed)} checks failed: {', '.join(failed)}.", "Ask again.")


def read_receipt(receipt: Path) -> Answer:
    """Return the answer in a file. Raises NotFound, InvalidArgument."""
    try:
        return Answer.model_validate_json(receipt.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"{receipt} is not a file.", "Give what `codeintel answer --json` printed.") from error
    except ValidationError as error:
        raise InvalidArgument(
            f"{receipt.name} holds no answer.", "Give what `codeintel answer --json` printed."
        ) from error


def checks(answer: Answer, standing: Standing) -> Iterator[Finding]:
    """Yield what was checked: the text, every citation's marker, number and lines, every source where it stands now."""
    said = sha256(answer.text) == answer.text_sha256 and answer.text.endswith(answer.answer)
    yield Finding("text", said, answer.status)
    sources = {source.n: source for source in answer.sources}
    for citation in answer.citations:
        if citation.status != "invalid":
            yield _cited(citation, sources.get(citation.n), answer.text)
    for source in answer.sources:
        yield _stands(source, standing)


def _cited(citation: AnswerCitation, source: AnswerSource | None, text: str) -> Finding:
    name, marker = f"citation {citation.cid}", f"[{citation.n}]"
    if source is None:
        return Finding(name, False, f"{marker} is no source")
    if not text.startswith(marker, citation.offset):
        return Finding(name, False, f"{marker} does not stand at {citation.offset}")
    first, last = citation.lines or (source.start_line, source.end_line)
    inside = source.start_line <= first <= last <= source.end_line
    return Finding(name, inside, f"{marker} {source.path}:{first}-{last} {citation.status}")


def _stands(source: AnswerSource, standing: Standing) -> Finding:
    """Look for the lines by their hash. Where there is no work tree to look at, nothing speaks against them."""
    lines = standing(source.repo, source.path)
    found = resolve(source.content_sha256, source.start_line, source.end_line, lines)
    place = f"{source.repo}: {source.path}:{source.start_line}-{source.end_line}"
    now = f", now {found.start_line}-{found.end_line}" if found.state == "moved" else ""
    return Finding(f"source {source.n}", found.state != "stale", f"{place} {found.state}{now}")
