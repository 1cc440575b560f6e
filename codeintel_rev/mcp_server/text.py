"""Results as text an agent reads, in as many tokens as it wants to pay."""

from __future__ import annotations

import json
from dataclasses import dataclass

from codeintel_rev.mcp_server.answers import DOUBTFUL, Answer, cited, standing
from codeintel_rev.mcp_server.envelope import (
    Envelope,
    FileLines,
    Hit,
    Limit,
    Match,
    Matches,
    Paths,
    RepoStatus,
    Status,
)
from codeintel_rev.mcp_server.requests import (
    AnswerRequest,
    FileRequest,
    PathsRequest,
    SearchRequest,
    StatusRequest,
    TextRequest,
)
from codeintel_rev.types import Freshness

CHARS_PER_TOKEN = 3
"""Code runs at three to four characters a token; the low end keeps the promise."""
NOTE_TOKENS = 60
"""Kept free for the line that says what was left out."""


@dataclass(frozen=True, slots=True)
class Text:
    """`files` are (repo, path) in order of appearance; `truncated` when the text holds less than the payload,
    `failed` when it tells why there is none."""

    text: str
    files: tuple[tuple[str, str], ...] = ()
    truncated: bool = False
    failed: bool = False


def of_search(answer: Envelope, request: SearchRequest) -> Text:
    """Return the hits with their lines: headings of as many as fit, then snippets from the best down."""
    files = tuple((hit.repo, hit.path) for hit in answer.hits)
    notes = [*(_limit(one) for one in answer.limits)]
    if not answer.hits:
        return Text("\n".join(["No hits. Try other words, fewer filters, or search_text for an exact string.", *notes]))
    notes += _more(answer.next_cursor)
    budget = (request.max_tokens - NOTE_TOKENS) * CHARS_PER_TOKEN - sum(len(note) + 1 for note in notes)
    headings = _fitting([_heading(place, hit) for place, hit in enumerate(answer.hits, start=1)], budget)
    budget -= sum(len(heading) + 1 for heading in headings)
    blocks, cut = [], len(headings) < len(answer.hits)
    for heading, hit in zip(headings, answer.hits, strict=False):
        snippet = _fitting(hit.snippet.split("\n"), budget)
        budget -= sum(len(line) + 1 for line in snippet)
        cut = cut or len(snippet) < hit.snippet.count("\n") + 1
        blocks.append("\n".join([heading, *snippet]))
    if cut:
        notes.append(f"Truncated to {request.max_tokens} tokens: raise max_tokens, or open_file the lines above.")
    return Text("\n".join([*blocks, *notes]), files, cut)


def of_matches(answer: Matches, request: TextRequest) -> Text:
    """Return one line a match, as grep prints it; context lines follow it with `-` in place of `:`."""
    if not answer.matches:
        return Text("No line matches. Check the spelling, or try semantic_search for the meaning.")
    lines = [line for match in answer.matches for line in _match(match)]
    files = tuple((match.repo, match.path) for match in answer.matches)
    return Text("\n".join([*lines, *_more(answer.next_cursor)]), files)


def of_file(answer: FileLines, request: FileRequest) -> Text:
    """Return the lines under their place."""
    stale = "" if answer.freshness is Freshness.FRESH else f" [{answer.freshness}]"
    place = f"{answer.repo}: {answer.path}:{answer.start_line}-{answer.end_line} of {answer.total_lines}{stale}"
    notes = [f"Cut here: open_file again from start_line={answer.end_line + 1}."] if answer.truncated else []
    return Text("\n".join([place, answer.text, *notes]), ((answer.repo, answer.path),), answer.truncated)


def of_answer(answer: Answer, request: AnswerRequest) -> Text:
    """Return the text, the place of every source it cites, and what to keep in mind."""
    if answer.problem:
        return Text(json.dumps(answer.problem), failed=True)
    places = [f"[{one.n}] {one.repo}: {place} {one.symbol}".rstrip() for one, place in cited(answer)]
    doubtful = {one.n: one.status for one in standing(answer) if one.status in DOUBTFUL}
    notes = [f"[{n}] is {status}: read its lines." for n, status in doubtful.items()]
    limits = [_limit(limit) for limit in answer.limits]
    status = f"{answer.status}, confidence {answer.confidence or 0.0:.2f}"
    files = tuple((one.repo, one.path) for one, _ in cited(answer))
    written = answer.answer.rstrip() or "Nothing was found."
    return Text("\n".join([written, "", *places, *notes, *limits, status]), files)


def of_paths(answer: Paths, request: PathsRequest) -> Text:
    """Return the folders with their counts, then one path a line. No links: a list is not a choice of files."""
    folders = [f"{folder.path}/ ({folder.files} files)" for folder in answer.folders]
    return Text("\n".join([f"{answer.total} files", *folders, *answer.paths, *_more(answer.next_cursor)]))


def of_status(answer: Status, request: StatusRequest) -> Text:
    """Return one paragraph a repository."""
    if not answer.repos:
        return Text("No repository is indexed. Run `codeintel index PATH`.")
    return Text("\n".join(_status(status) for status in answer.repos))


def _more(next_cursor: str | None) -> list[str]:
    return [f"More: same call with cursor={next_cursor}"] if next_cursor else []


def _match(match: Match) -> list[str]:
    before, after = match.before or (), match.after or ()
    place = f"{match.repo}: {match.path}"
    return [
        *(f"{place}-{match.line - len(before) + offset}-{line}" for offset, line in enumerate(before)),
        f"{place}:{match.line}:{match.text}",
        *(f"{place}-{match.line + 1 + offset}-{line}" for offset, line in enumerate(after)),
    ]


def _heading(place: int, hit: Hit) -> str:
    what = " ".join(part for part in (hit.kind, hit.symbol) if part)
    stale = "" if hit.freshness in (Freshness.FRESH, Freshness.UNKNOWN) else f" [{hit.freshness} since indexing]"
    why = f" -- {'; '.join(hit.why)}" if hit.why else ""
    return f"{place}. {hit.repo}: {hit.path}:{hit.start_line}-{hit.end_line} {what}{stale}{why}"


def _fitting(lines: list[str], budget: int) -> list[str]:
    """Return the longest run of first lines whose characters, newlines counted, fit in `budget`."""
    kept: list[str] = []
    for line in lines:
        budget -= len(line) + 1
        if budget < 0:
            break
        kept.append(line)
    return kept


def _limit(limit: Limit) -> str:
    return f"Limited ({limit.code}): {limit.detail} {limit.action}".rstrip()


def _status(status: RepoStatus) -> str:
    commit = f" at {status.commit[:12]}{' plus edits' if status.dirty else ''}" if status.commit else ""
    counts = ", ".join(f"{count} {name}" for name, count in status.counts.items())
    lines = [
        f"{status.repo}: {status.state}{commit}, {counts or 'nothing indexed'}; "
        f"{status.vector_coverage:.0%} of chunks have vectors."
    ]
    if status.building:
        left = f", {status.building.eta_s:.0f} s left" if status.building.eta_s is not None else ""
        lines.append(f"  building: {status.building.stage} {status.building.done}/{status.building.total}{left}")
    if status.compaction_due:
        lines.append(f"  compaction due: {status.compaction_due}")
    return "\n".join([*lines, *(f"  {_limit(one)}" for one in status.limits)])
